// Runs what the lanes of a warp do together: shfl, vote, match, redux, elect, activemask.
#include "lanes.h"

namespace ptx {
namespace {

constexpr uint32_t NOBODYS = 0x7fc0deadu; // what a lane reads from one that takes no part

// x: 0 up, 1 down, 2 bfly, 3 idx; y: there is a predicate (imm: its offset).
void shfl(Warp &w, const Instr &i, uint32_t lanes) {
    uint32_t *d = w.at<uint32_t>(i.d), a[LANES], p = 0;
    const uint32_t *b = w.at<uint32_t>(i.b), *c = w.at<uint32_t>(i.c);
    memcpy(a, w.at<uint32_t>(i.a), sizeof a);
    each_lane(lanes, [&](int l) {
        int lane = l, by = (int)(b[l] & 31), clamp = (int)(c[l] & 31), mask = (int)(c[l] >> 8 & 31), from;
        int most = (lane & mask) | (clamp & ~mask), least = lane & mask;
        bool in;
        switch (i.x) {
        case 0: from = lane - by, in = from >= most; break;
        case 1: from = lane + by, in = from <= most; break;
        case 2: from = lane ^ by, in = from <= most; break;
        default: from = least | (by & ~mask), in = from <= most;
        }
        if (!in) from = lane;
        p |= (uint32_t)in << l;
        d[l] = lanes >> from & 1 ? a[from] : NOBODYS;
    });
    if (i.y) {
        uint32_t &q = w.pred((int32_t)i.imm);
        q = (q & ~lanes) | p;
    }
}
// x: 0 ballot, 1 any, 2 all, 3 uni; z: negated.
void vote(Warp &w, const Instr &i, uint32_t lanes) {
    uint32_t yes = (w.pred(i.a) ^ (i.z ? ALL : 0)) & lanes;
    if (i.x == 0) {
        uint32_t *d = w.at<uint32_t>(i.d);
        each_lane(lanes, [&](int l) { d[l] = yes; });
        return;
    }
    bool r = i.x == 1 ? yes != 0 : i.x == 2 ? yes == lanes : yes == 0 || yes == lanes;
    uint32_t &d = w.pred(i.d);
    d = r ? d | lanes : d & ~lanes;
}
// x: all; y: there is a predicate (imm).
template <typename X> void match(Warp &w, const Instr &i, uint32_t lanes) {
    uint32_t *d = w.at<uint32_t>(i.d);
    const X *a = w.at<X>(i.a);
    uint32_t everybody = 0;
    each_lane(lanes, [&](int l) {
        uint32_t same = 0;
        each_lane(lanes, [&](int k) { same |= (uint32_t)(a[k] == a[l]) << k; });
        bool all = same == lanes;
        d[l] = i.x && !all ? 0 : same;
        everybody |= (uint32_t)all << l;
    });
    if (i.y) {
        uint32_t &p = w.pred((int32_t)i.imm);
        p = (p & ~lanes) | (everybody & lanes);
    }
}
// x: 0 add, 1 min, 2 max, 3 and, 4 or, 5 xor; y: signed, 2: f32, and 4: NaN counts; z: of absolute values.
void redux(Warp &w, const Instr &i, uint32_t lanes) {
    uint32_t *d = w.at<uint32_t>(i.d), first = (uint32_t)__builtin_ctz(lanes);
    const uint32_t *a = w.at<uint32_t>(i.a);
    uint32_t r = a[first];
    if (i.y & 2) {
        const float *x = w.at<float>(i.a);
        float best = i.z ? std::fabs(x[first]) : x[first];
        bool nan = best != best;
        each_lane(lanes & (lanes - 1), [&](int l) {
            float v = i.z ? std::fabs(x[l]) : x[l];
            nan |= v != v;
            best = i.x == 1 ? std::fmin(best, v) : std::fmax(best, v);
        });
        if (nan && i.y & 4) best = NAN;
        memcpy(&r, &best, 4);
    } else {
        each_lane(lanes & (lanes - 1), [&](int l) {
            uint32_t v = a[l];
            bool less = i.y & 1 ? (int32_t)v < (int32_t)r : v < r;
            r = i.x == 0   ? r + v
                : i.x == 1 ? (less ? v : r)
                : i.x == 2 ? (less ? r : v)
                : i.x == 3 ? r & v
                : i.x == 4 ? r | v
                           : r ^ v;
        });
    }
    each_lane(lanes, [&](int l) { d[l] = r; });
}
void elect(Warp &w, const Instr &i, uint32_t lanes) { // the lowest lane
    uint32_t first = (uint32_t)__builtin_ctz(lanes), *d = w.at<uint32_t>(i.d);
    each_lane(lanes, [&](int l) { d[l] = first; });
    uint32_t &p = w.pred((int32_t)i.imm);
    p = (p & ~lanes) | 1u << first;
}
void activemask(Warp &w, const Instr &i, uint32_t lanes) {
    uint32_t *d = w.at<uint32_t>(i.d);
    each_lane(lanes, [&](int l) { d[l] = lanes; });
}

void together(Decoder &d, size_t mask) {
    d.i.flow = TOGETHER, d.i.together = true;
    d.i.e = d.in(mask, 4);
}
// The p of d|p.
void second_result(Decoder &d) {
    Operand p = d.arg(0);
    if (p.second < 0) return;
    p.reg = p.second;
    d.i.imm = (uint64_t)d.out(p, 0);
    d.i.y = 1;
}

} // namespace

bool decode_collective(Decoder &d) {
    Instr &i = d.i;
    if (d.name == "activemask") {
        d.take_type();
        d.need(1);
        i.d = d.out(0, 4), i.run = activemask;
        return true;
    }
    if (d.name != "shfl" && d.name != "vote" && d.name != "match" && d.name != "redux" && d.name != "elect")
        return false;
    if (!d.take("sync")) d.unknown();
    if (d.name == "shfl") {
        int mode = d.take_one({"up", "down", "bfly", "idx"});
        if (mode < 0 || d.take_type() != B32) d.unknown();
        d.need(5);
        i.x = (uint32_t)mode;
        i.d = d.out(0, 4), i.a = d.in(1, 4), i.b = d.in(2, 4), i.c = d.in(3, 4);
        second_result(d);
        together(d, 4);
        i.run = shfl;
    } else if (d.name == "vote") {
        int mode = d.take_one({"ballot", "any", "all", "uni"});
        Type t = d.take_type();
        if (mode < 0 || t != (mode ? PRED : B32)) d.unknown();
        d.need(3);
        i.x = (uint32_t)mode;
        i.d = d.out(0, mode ? 0 : 4), i.a = d.in_pred(1), i.z = d.flip(1);
        together(d, 2);
        i.run = vote;
    } else if (d.name == "match") {
        int mode = d.take_one({"any", "all"}), n = bytes_of(d.take_type());
        if (mode < 0) d.unknown();
        d.need(3);
        i.x = (uint32_t)mode;
        i.d = d.out(0, 4), i.a = d.in(1, n);
        second_result(d);
        together(d, 2);
        i.run = n == 4 ? match<uint32_t> : n == 8 ? match<uint64_t> : nullptr;
        if (!i.run) d.unknown();
    } else if (d.name == "redux") {
        int op = d.take_one({"add", "min", "max", "and", "or", "xor"});
        i.z = d.take("abs");
        bool nan = d.take("NaN");
        Type t = d.take_type();
        if (op < 0 || bytes_of(t) != 4 || (t == F32 && op != 1 && op != 2) || ((i.z || nan) && t != F32)) d.unknown();
        d.need(3);
        i.x = (uint32_t)op, i.y = t == F32 ? 2 | (nan ? 4u : 0u) : is_signed(t);
        i.d = d.out(0, 4), i.a = d.in(1, 4);
        together(d, 2);
        i.run = redux;
    } else {
        d.need(2);
        i.d = d.out(0, 4);
        second_result(d);
        if (!i.y) d.bad("the predicate is missing");
        together(d, 1);
        i.run = elect;
    }
    return true;
}

} // namespace ptx
