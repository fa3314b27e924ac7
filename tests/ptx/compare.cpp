// Runs comparisons: setp, set, selp, slct.
#include "lanes.h"
#include "numbers.h"

namespace ptx {
namespace {

enum Comparison : uint8_t { EQ, NE, LT, LE, GT, GE, EQU, NEU, LTU, LEU, GTU, GEU, NUM, ISNAN };
enum : uint32_t { FTZ = 1, NEGATED = 2 };

template <Comparison c, typename X> bool compare(X a, X b) {
    bool nan = a != a || b != b;
    switch (c) {
    case EQ: return a == b;
    case NE: return a != b && !nan;
    case LT: return a < b;
    case LE: return a <= b;
    case GT: return a > b;
    case GE: return a >= b;
    case EQU: return nan || a == b;
    case NEU: return a != b;
    case LTU: return nan || a < b;
    case LEU: return nan || a <= b;
    case GTU: return nan || a > b;
    case GEU: return nan || a >= b;
    case NUM: return !nan;
    case ISNAN: return nan;
    }
    return false;
}

template <typename X> struct Plain {
    typedef X Stored;
    static X of(X x, uint32_t) { return x; }
};
template <> struct Plain<float> {
    typedef float Stored;
    static float of(float x, uint32_t y) { return y & FTZ ? flush(x) : x; }
};
struct Half {};
struct Brain {};
template <> struct Plain<Half> {
    typedef uint16_t Stored;
    static float of(uint16_t x, uint32_t) { return f16_to_f32(x); }
};
template <> struct Plain<Brain> {
    typedef uint16_t Stored;
    static float of(uint16_t x, uint32_t) { return bf16_to_f32(x); }
};

template <typename X, Comparison c> uint32_t mask(Warp &w, const Instr &i) {
    const auto *a = w.at<typename Plain<X>::Stored>(i.a), *b = w.at<typename Plain<X>::Stored>(i.b);
    uint32_t r = 0;
    for (int l = 0; l < LANES; l++) r |= (uint32_t)compare<c>(Plain<X>::of(a[l], i.y), Plain<X>::of(b[l], i.y)) << l;
    return r;
}
void store(uint32_t &d, uint32_t lanes, uint32_t r) { d = (d & ~lanes) | (r & lanes); }

// x: 0 alone, 1 and, 2 or, 3 xor with predicate c; e: where the second result goes, or -1 (z).
template <typename X, Comparison c> void setp(Warp &w, const Instr &i, uint32_t lanes) {
    uint32_t r = mask<X, c>(w, i), no = ~r;
    if (i.x) {
        uint32_t p = w.pred(i.c) ^ (i.y & NEGATED ? ALL : 0);
        r = i.x == 1 ? r & p : i.x == 2 ? r | p : r ^ p;
        no = i.x == 1 ? no & p : i.x == 2 ? no | p : no ^ p;
    }
    store(w.pred(i.d), lanes, r);
    if (i.z) store(w.pred(i.e), lanes, no);
}
// set: the result is all ones or 1.0 (imm), of 4 bytes or (z) of 2.
template <typename X, Comparison c> void set(Warp &w, const Instr &i, uint32_t lanes) {
    uint32_t r = mask<X, c>(w, i);
    if (i.x) {
        uint32_t p = w.pred(i.c) ^ (i.y & NEGATED ? ALL : 0);
        r = i.x == 1 ? r & p : i.x == 2 ? r | p : r ^ p;
    }
    if (i.z) {
        uint16_t *d = w.at<uint16_t>(i.d);
        each_lane(lanes, [&](int l) { d[l] = r >> l & 1 ? (uint16_t)i.imm : 0; });
    } else {
        uint32_t *d = w.at<uint32_t>(i.d);
        each_lane(lanes, [&](int l) { d[l] = r >> l & 1 ? (uint32_t)i.imm : 0; });
    }
}

template <typename X> Run choose(bool p, Comparison c) {
    switch (c) {
#define CASE(k)                                                                                                        \
    case k: return p ? setp<X, k> : set<X, k>;
        CASE(EQ) CASE(NE) CASE(LT) CASE(LE) CASE(GT) CASE(GE) default : return nullptr;
    }
}
template <typename X> Run choose_float(bool p, Comparison c) {
    switch (c) {
        CASE(EQ)
        CASE(NE)
        CASE(LT)
        CASE(LE) CASE(GT) CASE(GE) CASE(EQU) CASE(NEU) CASE(LTU) CASE(LEU) CASE(GTU) CASE(GEU) CASE(NUM) CASE(ISNAN)
#undef CASE
    }
    return nullptr;
}
Run by_type(bool p, Type t, Comparison c) {
    switch (t) {
    case U16:
    case B16: return choose<uint16_t>(p, c);
    case S16: return choose<int16_t>(p, c);
    case U32:
    case B32: return choose<uint32_t>(p, c);
    case S32: return choose<int32_t>(p, c);
    case U64:
    case B64: return choose<uint64_t>(p, c);
    case S64: return choose<int64_t>(p, c);
    case F32: return choose_float<float>(p, c);
    case F64: return choose_float<double>(p, c);
    case F16: return choose_float<Half>(p, c);
    case BF16: return choose_float<Brain>(p, c);
    default: return nullptr;
    }
}

// Pairs: the lanes where the lower and the upper halves compare so; x: bf16.
struct Masks {
    uint32_t r[2];
};
Masks compare_pairs(Warp &w, const Instr &i, uint32_t lanes) {
    const uint32_t *a = w.at<uint32_t>(i.a), *b = w.at<uint32_t>(i.b);
    uint32_t r[2] = {0, 0};
    each_lane(lanes, [&](int l) {
        for (int h = 0; h < 2; h++) {
            uint16_t p = (uint16_t)(a[l] >> 16 * h), q = (uint16_t)(b[l] >> 16 * h);
            float x = i.x ? bf16_to_f32(p) : f16_to_f32(p), y = i.x ? bf16_to_f32(q) : f16_to_f32(q);
            static const auto functions = {compare<EQ, float>,  compare<NE, float>,   compare<LT, float>,
                                           compare<LE, float>,  compare<GT, float>,   compare<GE, float>,
                                           compare<EQU, float>, compare<NEU, float>,  compare<LTU, float>,
                                           compare<LEU, float>, compare<GTU, float>,  compare<GEU, float>,
                                           compare<NUM, float>, compare<ISNAN, float>};
            r[h] |= (uint32_t)functions.begin()[i.imm](x, y) << l;
        }
    });
    return {{r[0], r[1]}};
}
void setp_pair(Warp &w, const Instr &i, uint32_t lanes) {
    Masks m = compare_pairs(w, i, lanes);
    store(w.pred(i.d), lanes, m.r[0]);
    store(w.pred(i.e), lanes, m.r[1]);
}
// y: a half of the result where it is so.
void set_pair(Warp &w, const Instr &i, uint32_t lanes) {
    Masks m = compare_pairs(w, i, lanes);
    uint32_t *d = w.at<uint32_t>(i.d);
    each_lane(lanes, [&](int l) { d[l] = (m.r[0] >> l & 1 ? i.y : 0) | (m.r[1] >> l & 1 ? i.y << 16 : 0); });
}

template <typename X> void selp(Warp &w, const Instr &i, uint32_t lanes) {
    X *d = w.at<X>(i.d);
    const X *a = w.at<X>(i.a), *b = w.at<X>(i.b);
    uint32_t p = w.pred(i.c) ^ (i.x ? ALL : 0);
    each_lane(lanes, [&](int l) { d[l] = p >> l & 1 ? a[l] : b[l]; });
}
template <typename X, typename C> void slct(Warp &w, const Instr &i, uint32_t lanes) {
    X *d = w.at<X>(i.d);
    const X *a = w.at<X>(i.a), *b = w.at<X>(i.b);
    const C *c = w.at<C>(i.c);
    each_lane(lanes, [&](int l) { d[l] = c[l] >= 0 ? a[l] : b[l]; });
}

} // namespace

bool decode_compare(Decoder &d) {
    Instr &i = d.i;
    if (d.name == "setp" || d.name == "set") {
        bool p = d.name == "setp";
        int comparison =
            d.take_one({"eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"});
        if (comparison < 0) { // of unsigned numbers
            static const Comparison same[] = {LT, LE, GT, GE};
            int n = d.take_one({"lo", "ls", "hi", "hs"});
            if (n < 0) d.unknown();
            comparison = same[n];
        }
        i.x = (uint32_t)(d.take_one({"and", "or", "xor"}) + 1);
        if (d.take("ftz")) i.y |= FTZ;
        Type result = p ? PRED : d.take_type(), t = d.take_type();
        if (p && (t == F16X2 || t == BF16X2)) {
            d.need(3);
            if (i.x || d.arg(0).second < 0) d.unknown();
            i.x = t == BF16X2, i.imm = (uint64_t)comparison;
            i.d = d.out(0, 0);
            i.e = d.k.reg_offset[(size_t)d.arg(0).second];
            i.writes.push_back(d.arg(0).second);
            i.a = d.in(1, 4), i.b = d.in(2, 4);
            i.run = setp_pair;
            return true;
        }
        if (!p && (t == F16X2 || t == BF16X2)) { // 1.0 or all ones in each half
            d.need(3);
            if (i.x || bytes_of(result) != 4 || result == F32) d.unknown();
            i.x = t == BF16X2, i.imm = (uint64_t)comparison;
            i.y = result == F16X2 ? 0x3c00 : result == BF16X2 ? 0x3f80 : 0xffff;
            i.d = d.out(0, 4), i.a = d.in(1, 4), i.b = d.in(2, 4);
            i.run = set_pair;
            return true;
        }
        int n = bytes_of(t);
        d.need(i.x ? 4 : 3);
        if (p) {
            i.d = d.out(0, 0);
            if (d.arg(0).second >= 0) {
                Operand second = d.arg(0);
                second.reg = second.second;
                i.e = d.out(second, 0);
                i.z = 1;
            }
        } else {
            int size = bytes_of(result);
            if ((size != 4 && size != 2) || (size == 2 && t != F16 && t != BF16)) d.unknown();
            i.z = size == 2;
            i.d = d.out(0, size);
            i.imm = result == F32 ? 0x3f800000 : result == F16 ? 0x3c00 : result == BF16 ? 0x3f80 : ALL;
        }
        i.a = d.in(1, n), i.b = d.in(2, n);
        if (i.x) {
            i.c = d.in_pred(3);
            if (d.flip(3)) i.y |= NEGATED;
        }
        i.run = by_type(p, t, (Comparison)comparison);
    } else if (d.name == "selp") {
        int n = bytes_of(d.take_type());
        d.need(4);
        i.d = d.out(0, n), i.a = d.in(1, n), i.b = d.in(2, n), i.c = d.in_pred(3), i.x = d.flip(3);
        i.selects = true;
        i.run = n == 2 ? selp<uint16_t> : n == 4 ? selp<uint32_t> : n == 8 ? selp<uint64_t> : nullptr;
    } else if (d.name == "slct") {
        d.take("ftz");
        Type t = d.take_type(), c = d.take_type();
        int n = bytes_of(t);
        d.need(4);
        i.d = d.out(0, n), i.a = d.in(1, n), i.b = d.in(2, n), i.c = d.in(3, 4);
        if (c == F32) i.run = n == 4 ? slct<uint32_t, float> : n == 8 ? slct<uint64_t, float> : nullptr;
        else if (c == S32) i.run = n == 4 ? slct<uint32_t, int32_t> : n == 8 ? slct<uint64_t, int32_t> : nullptr;
    } else return false;
    if (!i.run) d.unknown();
    return true;
}

} // namespace ptx
