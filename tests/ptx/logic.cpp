// Runs operations on bits: and, or, xor, not, shifts, fields, permutations; also on predicates.
#include "lanes.h"

namespace ptx {
namespace {

#define OP2(name, expression)                                                                                          \
    template <typename X> struct name {                                                                                \
        typedef X T;                                                                                                   \
        static X f(X a, X b) { return (X)(expression); }                                                               \
    };
OP2(And, a &b)
OP2(Or, a | b)
OP2(Xor, a ^ b)
#undef OP2
template <typename X> struct Not {
    typedef X T;
    static X f(X a) { return (X)~a; }
};
template <typename X> struct Cnot {
    typedef X T;
    static X f(X a) { return a == 0; }
};
// Counts have 32 bits; one of the width or more shifts everything out.
template <typename X, bool left> void shift(Warp &w, const Instr &i, uint32_t lanes) {
    X *d = w.at<X>(i.d);
    const X *a = w.at<X>(i.a);
    const uint32_t *b = w.at<uint32_t>(i.b);
    constexpr uint32_t bits = sizeof(X) * 8;
    each_lane(lanes, [&](int l) {
        uint32_t n = b[l];
        if (left) d[l] = n >= bits ? 0 : (X)(a[l] << n);
        else
            d[l] = (X)(a[l] >> (n >= bits ? std::is_signed_v<X> ? bits - 1 : 0 : n)),
            d[l] = n >= bits && !std::is_signed_v<X> ? 0 : d[l];
    });
}
template <bool left, bool wrap> void funnel(Warp &w, const Instr &i, uint32_t lanes) {
    uint32_t *d = w.at<uint32_t>(i.d);
    const uint32_t *a = w.at<uint32_t>(i.a), *b = w.at<uint32_t>(i.b), *c = w.at<uint32_t>(i.c);
    each_lane(lanes, [&](int l) {
        uint32_t n = wrap ? c[l] & 31 : c[l] > 32 ? 32 : c[l];
        uint64_t both = (uint64_t)b[l] << 32 | a[l];
        d[l] = left ? (uint32_t)(both << n >> 32) : (uint32_t)(both >> n);
    });
}
template <typename X> void bfe(Warp &w, const Instr &i, uint32_t lanes) {
    typedef std::make_unsigned_t<X> U;
    X *d = w.at<X>(i.d);
    const X *a = w.at<X>(i.a);
    const uint32_t *b = w.at<uint32_t>(i.b), *c = w.at<uint32_t>(i.c);
    constexpr uint32_t bits = sizeof(X) * 8;
    each_lane(lanes, [&](int l) {
        uint32_t from = b[l] & 255, n = c[l] & 255;
        U x = (U)a[l], out = from >= bits ? 0 : x >> from;
        bool sign = std::is_signed_v<X> && n && (x >> (from + n - 1 < bits - 1 ? from + n - 1 : bits - 1) & 1);
        if (n < bits) out &= ((U)1 << n) - 1;
        uint32_t kept = from >= bits ? 0 : n < bits - from ? n : bits - from;
        if (sign && kept < bits) out |= (U)(~(U)0 << kept);
        d[l] = (X)out;
    });
}
template <typename X> void bfi(Warp &w, const Instr &i, uint32_t lanes) {
    X *d = w.at<X>(i.d);
    const X *a = w.at<X>(i.a), *b = w.at<X>(i.b);
    const uint32_t *c = w.at<uint32_t>(i.c), *e = w.at<uint32_t>(i.e);
    constexpr uint32_t bits = sizeof(X) * 8;
    each_lane(lanes, [&](int l) {
        uint32_t at = c[l] & 255, n = e[l] & 255;
        X mask = n >= bits ? (X) ~(X)0 : (X)(((X)1 << n) - 1);
        if (at >= bits) d[l] = b[l];
        else d[l] = (X)((b[l] & ~(X)(mask << at)) | (X)((a[l] & mask) << at));
    });
}
template <typename X> void bfind(Warp &w, const Instr &i, uint32_t lanes) {
    uint32_t *d = w.at<uint32_t>(i.d);
    const X *a = w.at<X>(i.a);
    constexpr uint32_t bits = sizeof(X) * 8;
    each_lane(lanes, [&](int l) {
        std::make_unsigned_t<X> x = (std::make_unsigned_t<X>)(a[l] < 0 ? ~a[l] : a[l]);
        uint32_t at = x ? 63 - (uint32_t)__builtin_clzll(x) : ALL;
        d[l] = i.x && x ? bits - 1 - at : at;
    });
}
template <typename X> struct Popc {
    typedef X T;
    typedef uint32_t D;
    static D f(X a) { return (D)__builtin_popcountll(a); }
};
template <typename X> struct Clz {
    typedef X T;
    typedef uint32_t D;
    static D f(X a) { return a ? (D)__builtin_clzll(a) - (64 - sizeof(X) * 8) : sizeof(X) * 8; }
};
template <typename X> struct Brev {
    typedef X T;
    static X f(X a) {
        X r = 0;
        for (size_t k = 0; k < sizeof(X) * 8; k++) r = (X)(r << 1 | (a >> k & 1));
        return r;
    }
};
void lop3(Warp &w, const Instr &i, uint32_t lanes) {
    uint32_t *d = w.at<uint32_t>(i.d);
    const uint32_t *a = w.at<uint32_t>(i.a), *b = w.at<uint32_t>(i.b), *c = w.at<uint32_t>(i.c);
    uint32_t table = (uint32_t)i.imm;
    each_lane(lanes, [&](int l) {
        uint32_t r = 0;
        for (int k = 0; k < 8; k++)
            if (table >> k & 1) r |= (k & 4 ? a[l] : ~a[l]) & (k & 2 ? b[l] : ~b[l]) & (k & 1 ? c[l] : ~c[l]);
        d[l] = r;
    });
}
// x: 0 any selection, 1 f4e, 2 b4e, 3 rc8, 4 ecl, 5 ecr, 6 rc16.
void prmt(Warp &w, const Instr &i, uint32_t lanes) {
    uint32_t *d = w.at<uint32_t>(i.d);
    const uint32_t *a = w.at<uint32_t>(i.a), *b = w.at<uint32_t>(i.b), *c = w.at<uint32_t>(i.c);
    each_lane(lanes, [&](int l) {
        uint64_t both = (uint64_t)b[l] << 32 | a[l];
        uint32_t r = 0, s = c[l] & 3;
        for (uint32_t k = 0; k < 4; k++) {
            uint32_t pick = i.x == 0   ? c[l] >> 4 * k & 15
                            : i.x == 1 ? s + k
                            : i.x == 2 ? (s - k) & 7
                            : i.x == 3 ? s
                            : i.x == 4 ? std::max(s, k)
                            : i.x == 5 ? std::min(s, k)
                                       : (s & 1) * 2 + (k & 1);
            uint32_t byte = (uint32_t)(both >> 8 * (pick & 7)) & 255;
            if (pick & 8) byte = byte & 128 ? 255 : 0;
            r |= byte << 8 * k;
        }
        d[l] = r;
    });
}
void szext(Warp &w, const Instr &i, uint32_t lanes) { // y: signed
    uint32_t *d = w.at<uint32_t>(i.d);
    const uint32_t *a = w.at<uint32_t>(i.a), *b = w.at<uint32_t>(i.b);
    each_lane(lanes, [&](int l) {
        uint32_t n = i.x ? b[l] & 31 : b[l];
        if (n >= 32) d[l] = a[l];
        else if (n == 0) d[l] = 0;
        else d[l] = i.y ? (uint32_t)((int32_t)(a[l] << (32 - n)) >> (32 - n)) : a[l] & ((1u << n) - 1);
    });
}
void bmsk(Warp &w, const Instr &i, uint32_t lanes) {
    uint32_t *d = w.at<uint32_t>(i.d);
    const uint32_t *a = w.at<uint32_t>(i.a), *b = w.at<uint32_t>(i.b);
    each_lane(lanes, [&](int l) {
        uint32_t from = i.x ? a[l] & 31 : a[l], n = i.x ? b[l] & 31 : b[l];
        uint64_t ones = n >= 32 ? 0xffffffffull : ((uint64_t)1 << n) - 1;
        d[l] = from >= 32 ? 0 : (uint32_t)(ones << from);
    });
}

// Predicates: x says which operands are negated; z which operation.
void pred_op(Warp &w, const Instr &i, uint32_t lanes) {
    uint32_t a = w.pred(i.a) ^ (i.x & 1 ? ALL : 0), b = i.z == 3 || i.z == 4 ? 0 : w.pred(i.b) ^ (i.x & 2 ? ALL : 0),
             &d = w.pred(i.d);
    uint32_t r = i.z == 0 ? a & b : i.z == 1 ? a | b : i.z == 2 ? a ^ b : i.z == 3 ? ~a : a;
    d = (d & ~lanes) | (r & lanes);
}

template <template <typename> class Op> Run by_width(int n) {
    return n == 2   ? run2<Op<uint16_t>>
           : n == 4 ? run2<Op<uint32_t>>
           : n == 8 ? run2<Op<uint64_t>>
           : n == 1 ? run2<Op<uint8_t>>
                    : nullptr;
}
template <template <typename> class Op> Run by_width1(int n) {
    return n == 2 ? run1<Op<uint16_t>> : n == 4 ? run1<Op<uint32_t>> : n == 8 ? run1<Op<uint64_t>> : nullptr;
}
template <template <typename> class Op> Run by_wide(int n) {
    return n == 4 ? run1<Op<uint32_t>> : n == 8 ? run1<Op<uint64_t>> : nullptr;
}

} // namespace

bool decode_logic(Decoder &d) {
    Instr &i = d.i;
    const std::string &name = d.name;
    if (name == "and" || name == "or" || name == "xor" || name == "not" || name == "cnot") {
        Type t = d.take_type();
        int n = bytes_of(t);
        bool one = name == "not" || name == "cnot";
        d.need(one ? 2 : 3);
        if (t == PRED) {
            i.d = d.out(0, 0), i.a = d.in_pred(1), i.x = d.flip(1);
            if (!one) i.b = d.in_pred(2), i.x |= d.flip(2) * 2u;
            i.z = name == "and" ? 0 : name == "or" ? 1 : name == "xor" ? 2 : 3;
            if (name == "cnot") d.unknown();
            i.run = pred_op;
            return true;
        }
        i.d = d.out(0, n), i.a = d.in(1, n);
        if (!one) i.b = d.in(2, n);
        i.run = name == "and"   ? by_width<And>(n)
                : name == "or"  ? by_width<Or>(n)
                : name == "xor" ? by_width<Xor>(n)
                : name == "not" ? by_width1<Not>(n)
                                : by_width1<Cnot>(n);
    } else if (name == "shl" || name == "shr") {
        Type t = d.take_type();
        int n = bytes_of(t);
        d.need(3);
        i.d = d.out(0, n), i.a = d.in(1, n), i.b = d.in(2, 4);
        bool left = name == "shl", sign = is_signed(t);
        i.run = n == 2   ? left   ? shift<uint16_t, true>
                           : sign ? shift<int16_t, false>
                                  : shift<uint16_t, false>
                  : n == 4 ? left   ? shift<uint32_t, true>
                             : sign ? shift<int32_t, false>
                                    : shift<uint32_t, false>
                  : n == 8 ? left   ? shift<uint64_t, true>
                             : sign ? shift<int64_t, false>
                                    : shift<uint64_t, false>
                           : nullptr;
    } else if (name == "shf") {
        bool left = d.take_one({"r", "l"}) == 1, wrap = d.take_one({"clamp", "wrap"}) == 1;
        if (d.take_type() != B32) d.unknown();
        d.need(4);
        i.d = d.out(0, 4), i.a = d.in(1, 4), i.b = d.in(2, 4), i.c = d.in(3, 4);
        i.run = left   ? wrap ? funnel<true, true> : funnel<true, false>
                  : wrap ? funnel<false, true>
                       : funnel<false, false>;
    } else if (name == "bfe") {
        Type t = d.take_type();
        int n = bytes_of(t);
        d.need(4);
        i.d = d.out(0, n), i.a = d.in(1, n), i.b = d.in(2, 4), i.c = d.in(3, 4);
        i.run = t == U32   ? bfe<uint32_t>
                : t == S32 ? bfe<int32_t>
                : t == U64 ? bfe<uint64_t>
                : t == S64 ? bfe<int64_t>
                           : nullptr;
    } else if (name == "bfi") {
        int n = bytes_of(d.take_type());
        d.need(5);
        i.d = d.out(0, n), i.a = d.in(1, n), i.b = d.in(2, n), i.c = d.in(3, 4), i.e = d.in(4, 4);
        i.run = n == 4 ? bfi<uint32_t> : n == 8 ? bfi<uint64_t> : nullptr;
    } else if (name == "bfind") {
        i.x = d.take("shiftamt");
        Type t = d.take_type();
        d.need(2);
        i.d = d.out(0, 4), i.a = d.in(1, bytes_of(t));
        i.run = t == U32   ? bfind<uint32_t>
                : t == S32 ? bfind<int32_t>
                : t == U64 ? bfind<uint64_t>
                : t == S64 ? bfind<int64_t>
                           : nullptr;
    } else if (name == "popc" || name == "clz" || name == "brev") {
        int n = bytes_of(d.take_type());
        d.need(2);
        i.d = d.out(0, name == "brev" ? n : 4), i.a = d.in(1, n);
        i.run = name == "popc" ? by_wide<Popc>(n) : name == "clz" ? by_wide<Clz>(n) : by_wide<Brev>(n);
    } else if (name == "lop3") {
        if (d.take_type() != B32) d.unknown();
        d.need(5);
        i.d = d.out(0, 4), i.a = d.in(1, 4), i.b = d.in(2, 4), i.c = d.in(3, 4), i.imm = d.immediate(4) & 255;
        i.run = lop3;
    } else if (name == "prmt") {
        if (d.take_type() != B32) d.unknown();
        i.x = (uint32_t)(d.take_one({"f4e", "b4e", "rc8", "ecl", "ecr", "rc16"}) + 1);
        d.need(4);
        i.d = d.out(0, 4), i.a = d.in(1, 4), i.b = d.in(2, 4), i.c = d.in(3, 4);
        i.run = prmt;
    } else if (name == "szext" || name == "bmsk") {
        i.x = d.take_one({"clamp", "wrap"}) == 1;
        i.y = is_signed(d.take_type());
        d.need(3);
        i.d = d.out(0, 4), i.a = d.in(1, 4), i.b = d.in(2, 4);
        i.run = name == "szext" ? szext : bmsk;
    } else return false;
    if (!i.run) d.unknown();
    return true;
}

} // namespace ptx
