// Runs cp.async, whose data arrives when the thread that copied waits for it, no sooner; keeps what warps know of each
// other.
#include "memory.h"

namespace ptx {

void meet_at_barrier(Block &b, uint32_t warps) {
    if (b.tag.empty()) return;
    uint32_t most[LANES] = {};
    size_t n = b.warps.size();
    for (size_t w = 0; w < n; w++)
        if (warps >> w & 1)
            for (size_t v = 0; v < n; v++) most[v] = std::max(most[v], v == w ? b.clock[w] : b.know[w][v]);
    for (size_t w = 0; w < n; w++) {
        if (!(warps >> w & 1)) continue;
        memcpy(b.know[w], most, sizeof most);
        b.clock[w]++;
    }
    uint32_t everybody = n == LANES ? ALL : (1u << n) - 1;
    size_t left = 0;
    for (uint32_t c : b.copies_live) {
        uint32_t &seen = b.copy_seen[c];
        if (seen & warps) seen |= warps & everybody;
        if (seen != everybody) b.copies_live[left++] = c;
    }
    b.copies_live.resize(left);
}

namespace {

// imm: of the address; x: bytes; y: 1 a source size follows (b), 2 a predicate that ignores the source (c).
void cp_async(Warp &w, const Instr &i, uint32_t lanes) {
    uint64_t to[LANES];
    addresses(w, i, to);
    each_lane(lanes, [&](int l) {
        uint64_t from = i.z & 2 ? w.at<uint32_t>(i.e)[l] + (uint32_t)i.list[0]
                                : w.at<uint64_t>(i.e)[l] + (uint64_t)(int64_t)i.list[0];
        uint32_t valid = i.y == 1 ? w.at<uint32_t>(i.b)[l] : i.y == 2 && w.pred(i.c) >> l & 1 ? 0 : i.x, at;
        if (valid > i.x) fault(w, i, 1u << l, "%u bytes to copy of %u", valid, i.x);
        if (to[l] % i.x || from % i.x)
            fault(w, i, 1u << l, "%u bytes from %#llx to %#llx, which are not both multiples of that", i.x,
                  (unsigned long long)from, (unsigned long long)to[l]);
        const uint8_t *source = valid ? global_bytes(w, i, l, from, valid, false) : nullptr;
        Block *b = shared_block(w, i, l, to[l], i.x, &at);
        shared_write(w, i, l, *b, at, i.x);
        memset(&b->state[at], COPYING, i.x);
        if (w.copies.size() >= MOST_UNDER_WAY) fault(w, i, 1u << l, "%zu copies under way", w.copies.size());
        w.copies.push_back({(uint32_t)l, at, source, (uint8_t)i.x, (uint8_t)valid, w.async_group[l]});
    });
}
// Lanes' copies of groups that are older than `pending` groups arrive.
void arrive(Warp &w, const Instr &i, uint32_t lanes, uint64_t pending, bool all) {
    size_t left = 0;
    Block &b = *w.block;
    for (AsyncCopy &c : w.copies) {
        if (!(lanes >> c.lane & 1) || (!all && c.group + pending >= w.async_group[c.lane])) {
            w.copies[left++] = c;
            continue;
        }
        memset(&b.shared[c.to], 0, c.bytes);
        if (c.valid) memcpy(&b.shared[c.to], c.from, c.valid);
        memset(&b.state[c.to], WRITTEN, c.bytes);
        shared_write(w, i, (int)c.lane, b, c.to, c.bytes);
    }
    w.copies.resize(left);
}
void commit(Warp &w, const Instr &, uint32_t lanes) {
    each_lane(lanes, [&](int l) { w.async_group[l]++; });
}
void wait_group(Warp &w, const Instr &i, uint32_t lanes) { arrive(w, i, lanes, i.imm, i.x); }

} // namespace

bool decode_async(Decoder &d) {
    Instr &i = d.i;
    if (d.name != "cp") return false;
    if (!d.take("async")) return false;
    for (const std::string &mod : d.mods)
        if (mod == "bulk" || mod == "mbarrier") return false;
    if (d.take("commit_group")) {
        i.run = commit;
    } else if (d.take("wait_group")) {
        d.need(1);
        i.imm = d.immediate(0), i.run = wait_group;
    } else if (d.take("wait_all")) {
        i.x = 1, i.run = wait_group;
    } else {
        if (d.take_space() != GLOBAL || d.take_space() != SHARED) d.unknown();
        bool cg = d.take("cg");
        d.take("ca");
        d.take_hints();
        d.need(3, 5);
        i.x = (uint32_t)d.immediate(2);
        if ((i.x != 4 && i.x != 8 && i.x != 16) || (cg && i.x != 16)) d.bad("%u bytes at a time", i.x);
        d.address(0, SHARED);
        uint64_t offset;
        bool narrow;
        d.address(d.arg(1), GLOBAL, &i.e, &offset, &narrow);
        if (narrow) i.z |= 2;
        i.list.push_back((int32_t)offset);
        if (d.args() > 3) {
            const Operand &o = d.arg(3);
            if (o.kind == Operand::REG && d.bytes(o) == 0) i.c = d.in_pred(o), i.y = 2;
            else if (o.kind == Operand::IMM || d.bytes(o) == 4) i.b = d.in(o, 4), i.y = 1;
        }
        i.run = cp_async;
    }
    return true;
}

// For cp.async.mbarrier.arrive: the copies of those lanes are there.
void finish_async_copies(Warp &w, const Instr &i, uint32_t lanes) { arrive(w, i, lanes, 0, true); }

} // namespace ptx
