// Runs mbarriers: arrivals, bytes, phases, waits. What a warp has seen of copies and writes passes through them.
#include "mbarrier.h"

namespace ptx {

Mbarrier &mbarrier_at(Warp &w, const Instr &i, int lane, uint64_t address, Block **block, uint32_t *at) {
    if (address & 7)
        fault(w, i, 1u << lane, "an mbarrier at %#llx, which is no multiple of 8", (unsigned long long)address);
    if (address >> 60 == 1) address -= SHARED_WINDOW;
    *block = shared_block(w, i, lane, address, 8, at);
    auto found = (*block)->mbarriers.find(*at);
    if (found == (*block)->mbarriers.end()) fault(w, i, 1u << lane, "no mbarrier has been made at %#x", *at);
    return found->second;
}
void mbarrier_check(Block &b, Mbarrier &m) {
    b.cluster->events++;
    if (m.pending != 0 || m.bytes != 0) return;
    m.phase++;
    m.pending = m.expected;
    for (int v = 0; v < LANES; v++) m.known[v] = std::max(m.known[v], m.next_known[v]);
    m.copies.insert(m.copies.end(), m.next_copies.begin(), m.next_copies.end());
    m.next_copies.clear();
}

namespace {

void init(Warp &w, const Instr &i, uint32_t lanes) {
    uint64_t at[LANES];
    addresses(w, i, at);
    const uint32_t *count = w.at<uint32_t>(i.b);
    each_lane(lanes, [&](int l) {
        uint32_t offset;
        uint64_t address = at[l] >> 60 == 1 ? at[l] - SHARED_WINDOW : at[l];
        if (address & 7)
            fault(w, i, 1u << l, "an mbarrier at %#llx, which is no multiple of 8", (unsigned long long)address);
        Block *b = shared_block(w, i, l, address, 8, &offset);
        if (b->mbarriers.count(offset))
            fault(w, i, 1u << l, "there is an mbarrier at %#x already (line %d)", offset, b->mbarriers[offset].line);
        if (count[l] < 1 || count[l] >= 1 << 20) fault(w, i, 1u << l, "an mbarrier for %u arrivals", count[l]);
        shared_write(w, i, l, *b, offset, 8);
        memset(&b->state[offset], A_BARRIER, 8);
        Mbarrier &m = b->mbarriers[offset];
        m.expected = count[l], m.pending = count[l], m.line = i.line, m.lot = draw(w.block->cluster->dice);
    });
    w.block->cluster->events++;
}
void inval(Warp &w, const Instr &i, uint32_t lanes) {
    uint64_t at[LANES];
    addresses(w, i, at);
    each_lane(lanes, [&](int l) {
        Block *b;
        uint32_t offset;
        mbarrier_at(w, i, l, at[l], &b, &offset);
        for (const Bulk &k : w.block->cluster->bulk)
            if (k.load && k.block == b && k.mbarrier == offset)
                fault(w, i, 1u << l, "the mbarrier at %#x ends, while a copy is under way that tells it of its bytes",
                      offset);
        b->mbarriers.erase(offset);
        memset(&b->state[offset], 0, 8);
    });
}

// What the arriving warp knows passes to those who wait.
void pass_on(Warp &w, Block &b, Mbarrier &m) {
    if (&b != w.block || b.tag.empty()) return;
    for (int v = 0; v < LANES; v++)
        m.next_known[v] = std::max(m.next_known[v], v == w.index ? b.clock[v] : b.know[w.index][v]);
    for (uint32_t c : b.copies_live)
        if (b.copy_seen[c] >> w.index & 1) m.next_copies.push_back(c);
    b.clock[w.index]++;
}
void learn(Warp &w, Block &b, Mbarrier &m) {
    if (&b != w.block || b.tag.empty()) return;
    for (int v = 0; v < LANES; v++) b.know[w.index][v] = std::max(b.know[w.index][v], m.known[v]);
    for (uint32_t c : m.copies) b.copy_seen[c] |= 1u << w.index;
    // Those that all warps have seen need no more telling.
    uint32_t everybody = b.warps.size() == LANES ? ALL : (1u << b.warps.size()) - 1;
    size_t left = 0;
    for (uint32_t c : m.copies)
        if (b.copy_seen[c] != everybody) m.copies[left++] = c;
    m.copies.resize(left);
}

// x: 1 expect_tx (bytes in b), 2 a count is given (b), 4 drop, 8 noinc of cp.async; y: there is a result.
void arrive(Warp &w, const Instr &i, uint32_t lanes) {
    uint64_t at[LANES];
    addresses(w, i, at);
    each_lane(lanes, [&](int l) {
        Block *b;
        uint32_t offset;
        Mbarrier &m = mbarrier_at(w, i, l, at[l], &b, &offset);
        if (i.x & 1) m.bytes += w.at<uint32_t>(i.b)[l];
        int64_t count = i.x & 2 ? w.at<uint32_t>(i.b)[l] : 1;
        if (i.y) w.at<uint64_t>(i.d)[l] = m.phase;
        if (count > m.pending)
            fault(w, i, 1u << l, "more arrivals at the mbarrier at %#x than the %u that it expects", offset,
                  m.expected);
        m.pending -= count;
        if (i.x & 4) m.expected -= (uint32_t)count;
        pass_on(w, *b, m);
        mbarrier_check(*b, m);
    });
}
void async_arrive(Warp &w, const Instr &i, uint32_t lanes) {
    finish_async_copies(w, i, lanes);
    uint64_t at[LANES];
    addresses(w, i, at);
    if (!(i.x & 8)) // it counts as one more that is expected, and comes at once
        each_lane(lanes, [&](int l) {
            Block *b;
            uint32_t offset;
            mbarrier_at(w, i, l, at[l], &b, &offset).pending++;
        });
    arrive(w, i, lanes);
}
// x: 0 expect_tx, 1 complete_tx.
void transactions(Warp &w, const Instr &i, uint32_t lanes) {
    uint64_t at[LANES];
    addresses(w, i, at);
    each_lane(lanes, [&](int l) {
        Block *b;
        uint32_t offset;
        Mbarrier &m = mbarrier_at(w, i, l, at[l], &b, &offset);
        m.bytes += i.x ? -(int64_t)w.at<uint32_t>(i.b)[l] : (int64_t)w.at<uint32_t>(i.b)[l];
        if (i.x) mbarrier_check(*b, m);
    });
}

// Of every fourth phase all warps that ask too early are told so once: one that gave up alone would meet the others,
// who have waited, at the next barrier, and a loop that is missing would not show.
bool impatient(Warp &w, Mbarrier &m) {
    uint64_t dice = (m.lot ^ m.phase * 0x9E3779B97F4A7C15u) | 1;
    int64_t &asked = m.waited[w.index].asked;
    if (draw(dice) % 4 || asked == (int64_t)m.phase) return false;
    asked = (int64_t)m.phase;
    return true;
}

// x: by parity (b: 32 bits; else b: the state an arrival gave). The lanes ask for the same, as a rule; one after the
// other if not.
void wait(Warp &w, const Instr &i, uint32_t lanes) {
    uint64_t at[LANES];
    addresses(w, i, at);
    uint32_t yes = 0, no = 0;
    bool early = false;
    each_lane(lanes, [&](int l) {
        Block *b;
        uint32_t offset;
        Mbarrier &m = mbarrier_at(w, i, l, at[l], &b, &offset);
        uint64_t state = i.x ? 0 : w.at<uint64_t>(i.b)[l];
        uint32_t parity = i.x ? w.at<uint32_t>(i.b)[l] & 1 : 0;
        bool done = i.x ? (m.phase & 1) != parity : m.phase > state;
        (done ? yes : no) |= 1u << l;
        if (!done) {
            early |= impatient(w, m);
            w.wants = format("for phase %llu of the mbarrier at %#x, which lacks %lld arrivals and %lld bytes",
                             (unsigned long long)m.phase, offset, (long long)m.pending, (long long)m.bytes);
        }
    });
    // It may also give up, as the time a GPU waits is its own affair: by lot, and where nobody else can go on.
    if (no && !early && !w.patience_ends && draw(w.block->cluster->dice) % 4) {
        w.waits = true;
        return;
    }
    each_lane(yes, [&](int l) {
        Block *b;
        uint32_t offset;
        Mbarrier &m = mbarrier_at(w, i, l, at[l], &b, &offset);
        if (i.x && b == w.block) {
            Mbarrier::Waited &last = m.waited[w.index];
            int64_t phase = (int64_t)m.phase - 1;
            if (last.phase != phase) last.phase = phase, last.lanes = 0;
            if (last.lanes >> l & 1)
                fault(w, i, 1u << l,
                      "phase %lld of the mbarrier at %#x is waited for twice, so this wait waits for nothing (the "
                      "parity was not flipped)",
                      (long long)phase, offset);
            last.lanes |= 1u << l;
        }
        learn(w, *b, m);
    });
    uint32_t &d = w.pred(i.d);
    d = (d & ~lanes) | yes;
}

} // namespace

bool decode_mbarrier(Decoder &d) {
    Instr &i = d.i;
    if (d.name == "cp") {
        if (!d.take("async") || !d.take("mbarrier") || !d.take("arrive")) return false;
        i.x = d.take("noinc") ? 8 : 0;
        Space s = d.take_space();
        if (d.take_type() != B64) d.unknown();
        d.need(1);
        d.address(0, s);
        i.run = async_arrive;
        d.k.has_async = true;
        return true;
    }
    if (d.name != "mbarrier") return false;
    d.k.has_async = true;
    int what =
        d.take_one({"init", "inval", "arrive", "arrive_drop", "test_wait", "try_wait", "expect_tx", "complete_tx"});
    bool expects = what == 2 || what == 3 ? d.take("expect_tx") : false;
    d.take_one({"relaxed", "release", "acquire"}), d.take_one({"cta", "cluster", "gpu", "sys"});
    d.take("noComplete");
    bool parity = d.take("parity");
    Space s = d.take_space();
    if (what != 7 && d.take_type() != B64 && what != 6) d.unknown();
    d.take_type();
    switch (what) {
    case 0:
        d.need(2);
        d.address(0, s), i.b = d.in(1, 4), i.run = init;
        break;
    case 1:
        d.need(1);
        d.address(0, s), i.run = inval;
        break;
    case 2:
    case 3: {
        size_t first = d.arg(0).kind == Operand::ADDRESS ? 0 : 1;
        d.need(first + 1, first + 2);
        if (first && d.arg(0).kind == Operand::REG) i.d = d.out(0, 8), i.y = 1;
        d.address(first, s);
        i.x = (expects ? 1u : d.args() > first + 1 ? 2u : 0u) | (what == 3 ? 4u : 0u);
        if (expects && d.args() < first + 2) d.bad("the number of bytes is missing");
        if (d.args() > first + 1) i.b = d.in(first + 1, 4);
        i.run = arrive;
        break;
    }
    case 4:
    case 5:
        d.need(3, 4);
        i.d = d.out(0, 0);
        d.address(1, s);
        i.b = d.in(2, parity ? 4 : 8), i.x = parity;
        if (d.args() > 3) d.in(3, 4);
        i.flow = WAITS, i.run = wait;
        break;
    case 6:
    case 7:
        d.need(2);
        d.address(0, s), i.b = d.in(1, 4), i.x = what == 7, i.run = transactions;
        break;
    default: d.unknown();
    }
    return true;
}

} // namespace ptx
