// Runs bulk copies: they are on their way until the machine lets them arrive (by lot, or when nothing else can go on),
// or until they are waited for. Their source is read as late as may be; a source that has changed by then is an error.
#include "bulk.h"

namespace ptx {

static uint64_t hash_of(const Bulk &b) { // FNV-1a over the source, in words of 8 bytes
    uint64_t h = 0xcbf29ce484222325u;
    for (const Bulk::Piece &p : b.pieces)
        for (uint32_t k = 0; k < p.bytes; k++) h = (h ^ b.block->shared[p.shared + k]) * 0x100000001b3u;
    return h;
}

void begin_bulk(Warp &w, const Instr &i, int lane, Bulk &&b) {
    b.instr = &i, b.warp = &w, b.lane = lane;
    Block &block = *b.block;
    for (const Bulk::Piece &p : b.pieces) {
        if (p.shared < SHARED_BASE || p.shared + p.bytes > block.shared_end)
            fault(w, i, 1u << lane, "%u bytes of shared memory at %#x; the block has %u bytes from %#x on", p.bytes,
                  p.shared, block.shared_end - SHARED_BASE, SHARED_BASE);
        if (b.load) shared_async_write(w, i, lane, block, p.shared, p.bytes);
        else shared_async_read(w, i, lane, block, p.shared, p.bytes);
        if (p.global) global_bytes(w, i, lane, p.global, p.bytes, !b.load);
    }
    if (b.load) {
        b.copy = (uint32_t)block.copy_seen.size();
        block.copy_seen.push_back(0);
        block.copies_live.push_back(b.copy);
        for (const Bulk::Piece &p : b.pieces) {
            memset(&block.state[p.shared], COPYING, p.bytes);
            for (uint32_t k = p.shared / 4; k <= (p.shared + p.bytes - 1) / 4; k++) block.tag[k] = 0;
        }
    } else {
        b.group = w.bulk_group[lane];
        b.hash = hash_of(b);
    }
    w.block->cluster->bulk.push_back(std::move(b));
    if (w.block->cluster->bulk.size() > MOST_UNDER_WAY / 64) complete_some_bulk(*w.block->cluster);
}
void begin_load(Warp &w, const Instr &i, int lane, Bulk &&b, uint64_t mbarrier, bool multicast, uint32_t ranks) {
    Cluster &c = *w.block->cluster;
    b.load = true;
    Block *told;
    uint32_t at;
    mbarrier_at(w, i, lane, mbarrier, &told, &at);
    b.mbarrier = at;
    if (!multicast) {
        if (told != b.block)
            fault(w, i, 1u << lane, "the mbarrier is in another block than the memory that is written");
        return begin_bulk(w, i, lane, std::move(b));
    }
    if (!ranks || ranks >> c.size)
        fault(w, i, 1u << lane, "a multicast to blocks %#x of a cluster of %u", ranks, c.size);
    for (uint32_t r = 0; r < c.size; r++) {
        if (!(ranks >> r & 1)) continue;
        Bulk one = b;
        one.block = &c.blocks[r];
        if (!one.block->mbarriers.count(at))
            fault(w, i, 1u << lane, "no mbarrier has been made at %#x of block %u", at, r);
        begin_bulk(w, i, lane, std::move(one));
    }
}

namespace {

void take_source(Bulk &b) {
    if (b.load || b.sourced) return;
    if (hash_of(b) != b.hash)
        throw Fault{b.instr->name + ": shared memory that it reads was overwritten before its group was waited for",
                    b.instr->line, 1u << b.lane, b.warp->index};
    for (const Bulk::Piece &p : b.pieces)
        b.data.insert(b.data.end(), &b.block->shared[p.shared], &b.block->shared[p.shared] + p.bytes);
    b.sourced = true;
}
void arrive(Bulk &b) {
    Block &block = *b.block;
    if (!b.load) {
        take_source(b);
        const uint8_t *from = b.data.data();
        for (const Bulk::Piece &p : b.pieces) {
            uint32_t n = b.reduce ? (uint32_t)bytes_of((Type)b.type) : 1;
            if (p.global && b.reduce)
                for (uint32_t k = 0; k + n <= p.bytes; k += n)
                    reduce_element((uint8_t)(b.reduce - 1), b.type, (uint8_t *)p.global + k, from + k);
            else if (p.global) memcpy((void *)p.global, from, p.bytes);
            from += p.bytes;
        }
        return;
    }
    int64_t bytes = 0;
    for (const Bulk::Piece &p : b.pieces) {
        if (p.global) memcpy(&block.shared[p.shared], (const void *)p.global, p.bytes);
        else memset(&block.shared[p.shared], b.fill, p.bytes);
        memset(&block.state[p.shared], WRITTEN, p.bytes);
        for (uint32_t k = p.shared / 4; k <= (p.shared + p.bytes - 1) / 4; k++) block.tag[k] = TAG_COPY | b.copy;
        bytes += p.bytes;
    }
    auto found = block.mbarriers.find(b.mbarrier);
    if (found == block.mbarriers.end())
        throw Fault{b.instr->name + ": its mbarrier has ended before it arrived", b.instr->line, 1u << b.lane,
                    b.warp->index};
    found->second.bytes -= bytes;
    found->second.next_copies.push_back(b.copy);
    mbarrier_check(block, found->second);
}

// Between blocks' shared memory no tensor is known; a plain copy arrives as a load does.
void bulk_load(Warp &w, const Instr &i,
               uint32_t lanes) { // a: to, b: from, c: bytes, e: mbarrier, d: ranks; x: multicast
    uint64_t to[LANES];
    addresses(w, i, to);
    each_lane(lanes, [&](int l) {
        uint64_t from = w.at<uint64_t>(i.b)[l] + (uint64_t)(int64_t)i.list[0],
                 mbarrier = (i.z & 2 ? w.at<uint32_t>(i.e)[l] : w.at<uint64_t>(i.e)[l]) + (uint64_t)(int64_t)i.list[1];
        uint32_t bytes = w.at<uint32_t>(i.c)[l], at;
        if (to[l] % 16 || from % 16 || bytes % 16)
            fault(w, i, 1u << l, "%u bytes from %#llx to %#llx, which are not all multiples of 16", bytes,
                  (unsigned long long)from, (unsigned long long)to[l]);
        Bulk b;
        b.block = shared_block(w, i, l, to[l], bytes, &at);
        if (bytes) b.pieces.push_back({at, from, bytes});
        begin_load(w, i, l, std::move(b), mbarrier, i.x, i.x ? w.at<uint16_t>(i.d)[l] : 0);
    });
}
void bulk_store(Warp &w, const Instr &i,
                uint32_t lanes) { // a: to, b: from (32 bits: z & 2), c: bytes; x: 1 + operation, y: type
    uint64_t to[LANES];
    addresses(w, i, to);
    each_lane(lanes, [&](int l) {
        uint64_t from = (i.z & 2 ? w.at<uint32_t>(i.b)[l] : w.at<uint64_t>(i.b)[l]) + (uint64_t)(int64_t)i.list[0];
        uint32_t bytes = w.at<uint32_t>(i.c)[l], at;
        if (to[l] % 16 || from % 16 || bytes % 16)
            fault(w, i, 1u << l, "%u bytes from %#llx to %#llx, which are not all multiples of 16", bytes,
                  (unsigned long long)from, (unsigned long long)to[l]);
        Bulk b;
        b.block = shared_block(w, i, l, from, bytes, &at);
        b.reduce = (uint8_t)i.x, b.type = (uint8_t)i.y;
        if (bytes) b.pieces.push_back({at, to[l], bytes});
        begin_bulk(w, i, l, std::move(b));
    });
}
void commit(Warp &w, const Instr &, uint32_t lanes) {
    each_lane(lanes, [&](int l) { w.bulk_group[l]++; });
}
// imm: groups that may be under way still; x: only their sources need have been read.
void wait_group(Warp &w, const Instr &i, uint32_t lanes) {
    std::deque<Bulk> &all = w.block->cluster->bulk;
    for (size_t k = 0; k < all.size();) {
        Bulk &b = all[k];
        if (b.load || b.warp != &w || !(lanes >> b.lane & 1) || b.group + i.imm >= w.bulk_group[b.lane]) {
            k++;
        } else if (i.x) {
            take_source(b);
            k++;
        } else {
            arrive(b);
            all.erase(all.begin() + (long)k);
        }
    }
}
void nothing(Warp &, const Instr &, uint32_t) {}

} // namespace

bool complete_some_bulk(Cluster &c) {
    if (c.bulk.empty()) return false;
    size_t k = draw(c.dice) % c.bulk.size();
    Bulk b = std::move(c.bulk[k]);
    c.bulk.erase(c.bulk.begin() + (long)k);
    arrive(b);
    return true;
}
void check_bulk_at_end(Warp &w, const Instr &i) {
    for (const Bulk &b : w.block->cluster->bulk)
        if (b.block == w.block && !b.sourced)
            fault(w, i, 0, "the block ends, while a copy %s its shared memory is under way (line %d)",
                  b.load ? "into" : "out of", b.instr->line);
}

bool decode_bulk(Decoder &d) {
    Instr &i = d.i;
    bool reduces = d.name == "cp" && d.take("reduce");
    if (d.name != "cp" || !d.take("async") || !d.take("bulk")) return false;
    for (const std::string &mod : d.mods)
        if (mod == "tensor") return false; // decode_tensor_map
    d.k.has_async = true;
    if (d.take("commit_group")) {
        i.run = commit;
        return true;
    }
    if (d.take("wait_group")) {
        i.x = d.take("read");
        d.need(1);
        i.imm = d.immediate(0), i.run = wait_group;
        return true;
    }
    if (d.take("prefetch")) {
        d.take("global"), d.take_hints(), d.take("L2");
        i.run = nothing;
        return true;
    }
    bool tells = d.take("mbarrier::complete_tx::bytes"), grouped = d.take("bulk_group"),
         multicast = d.take("multicast::cluster");
    d.take_hints();
    if (tells == grouped) d.unknown();
    // The first space is the destination.
    std::vector<std::string> order;
    for (const std::string &mod : d.mods)
        if (mod == "global" || mod.compare(0, 6, "shared") == 0) order.push_back(mod);
    if (order.size() != 2) d.unknown();
    d.take("global");
    while (d.take("shared::cta") || d.take("shared::cluster")) continue;
    bool narrow;
    uint64_t offset;
    if (tells) {
        if (reduces || order[1] != "global") d.unknown(); // between blocks
        d.need(4, 6);
        d.address(0, SHARED);
        d.address(d.arg(1), GLOBAL, &i.b, &offset, &narrow);
        if (narrow) d.bad("a global address of 32 bits");
        i.list.push_back((int32_t)offset);
        i.c = d.in(2, 4);
        d.address(d.arg(3), SHARED, &i.e, &offset, &narrow);
        i.list.push_back((int32_t)offset);
        if (narrow) i.z |= 2;
        i.x = multicast;
        if (multicast) i.d = d.in(4, 2);
        i.run = bulk_load;
    } else {
        if (order[0] != "global" || multicast) d.unknown();
        if (reduces) {
            int op = d.take_one({"add", "min", "max", "and", "or", "xor"});
            d.take("noftz");
            Type t = d.take_type();
            if (op < 0 || bytes_of(t) < 2 || bytes_of(t) > 8) d.unknown();
            i.x = (uint32_t)op + 1, i.y = t;
        }
        d.need(3, 4);
        d.address(0, GLOBAL);
        d.address(d.arg(1), SHARED, &i.b, &offset, &narrow);
        if (narrow) i.z |= 2;
        i.list.push_back((int32_t)offset);
        i.c = d.in(2, 4);
        i.run = bulk_store;
    }
    return true;
}

} // namespace ptx
