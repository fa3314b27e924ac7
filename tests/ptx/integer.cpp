// Runs integer arithmetic.
#include "lanes.h"

namespace ptx {
namespace {

typedef __int128 Wide;
#define OP(name, expression)                                                                                           \
    template <typename X> struct name {                                                                                \
        typedef X T;                                                                                                   \
        typedef std::make_unsigned_t<X> U;                                                                             \
        static X f(X a, X b) { return (X)(expression); }                                                               \
    };
OP(Add, (U)((U)a + (U)b))
OP(Sub, (U)((U)a - (U)b))
OP(MulLow, (U)((uint64_t)a *(uint64_t)b))
OP(MulHigh, (Wide)a *(Wide)b >> (sizeof(X) * 8))
OP(Min, a < b ? a : b)
OP(Max, a > b ? a : b)
// Division by 0 gives all ones on a GPU, the smallest number by -1 itself.
OP(Div, b == 0 ? (X)-1 : std::is_signed_v<X> && b == (X)-1 ? (X)((U)0 - (U)a) : (X)(a / b))
OP(Rem, b == 0 ? a : std::is_signed_v<X> && b == (X)-1 ? (X)0 : (X)(a % b))
OP(Mul24Low, (U)(((int64_t)(sizeof(X) == 4 && std::is_signed_v<X> ? (int32_t)((uint32_t)a << 8) >> 8
                                                                  : (int64_t)((uint32_t)a & 0xffffff))) *
                 (int64_t)(std::is_signed_v<X> ? (int32_t)((uint32_t)b << 8) >> 8 : (int64_t)((uint32_t)b & 0xffffff))))
#undef OP
template <typename X> struct SatAdd {
    typedef X T;
    static X f(X a, X b) {
        int64_t s = (int64_t)a + b;
        return (X)(s > INT32_MAX ? INT32_MAX : s < INT32_MIN ? INT32_MIN : s);
    }
};
template <typename X> struct SatSub {
    typedef X T;
    static X f(X a, X b) {
        int64_t s = (int64_t)a - b;
        return (X)(s > INT32_MAX ? INT32_MAX : s < INT32_MIN ? INT32_MIN : s);
    }
};
template <typename X> struct Neg {
    typedef X T;
    static X f(X a) { return (X)(0 - (std::make_unsigned_t<X>)a); }
};
template <typename X> struct Abs {
    typedef X T;
    static X f(X a) { return a < 0 ? (X)(0 - (std::make_unsigned_t<X>)a) : a; }
};
template <typename X> struct MadLow {
    typedef X T;
    static X f(X a, X b, X c) { return (X)((uint64_t)a * (uint64_t)b + (uint64_t)c); }
};
template <typename X> struct MadHigh {
    typedef X T;
    static X f(X a, X b, X c) {
        return (X)((std::make_unsigned_t<X>)((Wide)a * (Wide)b >> (sizeof(X) * 8)) + (std::make_unsigned_t<X>)c);
    }
};
template <typename X> struct Sad {
    typedef X T;
    static X f(X a, X b, X c) {
        return (X)((uint64_t)c + (a < b ? (uint64_t)b - (uint64_t)a : (uint64_t)a - (uint64_t)b));
    }
};

// Results of twice the width.
template <typename X> struct Twice;
template <> struct Twice<uint16_t> { typedef uint32_t W; };
template <> struct Twice<int16_t> { typedef int32_t W; };
template <> struct Twice<uint32_t> { typedef uint64_t W; };
template <> struct Twice<int32_t> { typedef int64_t W; };
template <typename X> void mul_wide(Warp &w, const Instr &i, uint32_t lanes) {
    typedef typename Twice<X>::W W;
    W *d = w.at<W>(i.d);
    const X *a = w.at<X>(i.a), *b = w.at<X>(i.b);
    each_lane(lanes, [&](int l) { d[l] = (W)a[l] * (W)b[l]; });
}
template <typename X> void mad_wide(Warp &w, const Instr &i, uint32_t lanes) {
    typedef typename Twice<X>::W W;
    W *d = w.at<W>(i.d);
    const X *a = w.at<X>(i.a), *b = w.at<X>(i.b);
    const W *c = w.at<W>(i.c);
    each_lane(lanes,
              [&](int l) { d[l] = (W)((std::make_unsigned_t<W>)((W)a[l] * (W)b[l]) + (std::make_unsigned_t<W>)c[l]); });
}

// add.cc, addc, sub.cc, subc, mad.cc, madc: x is 1 where the carry comes in, y where it goes out. The flag is one a
// lane.
template <typename X, bool minus> void add_carry(Warp &w, const Instr &i, uint32_t lanes) {
    X *d = w.at<X>(i.d);
    const X *a = w.at<X>(i.a), *b = w.at<X>(i.b);
    each_lane(lanes, [&](int l) {
        unsigned __int128 in = i.x ? w.carry >> l & 1 : 0,
                          s = minus ? (unsigned __int128)a[l] - b[l] - in : (unsigned __int128)a[l] + b[l] + in;
        d[l] = (X)s;
        uint32_t out = (uint32_t)(s >> (sizeof(X) * 8)) & 1;
        if (i.y) w.carry = (w.carry & ~(1u << l)) | out << l;
    });
}
template <typename X, bool high> void mad_carry(Warp &w, const Instr &i, uint32_t lanes) {
    typedef std::make_unsigned_t<X> U;
    X *d = w.at<X>(i.d);
    const X *a = w.at<X>(i.a), *b = w.at<X>(i.b), *c = w.at<X>(i.c);
    each_lane(lanes, [&](int l) {
        Wide p = (Wide)a[l] * (Wide)b[l];
        U part = high ? (U)(p >> (sizeof(X) * 8)) : (U)p;
        unsigned __int128 s = (unsigned __int128)part + (U)c[l] + (i.x ? w.carry >> l & 1 : 0);
        d[l] = (X)s;
        if (i.y) w.carry = (w.carry & ~(1u << l)) | ((uint32_t)(s >> (sizeof(X) * 8)) & 1) << l;
    });
}

void dp4a(Warp &w, const Instr &i, uint32_t lanes) {
    uint32_t *d = w.at<uint32_t>(i.d);
    const uint32_t *a = w.at<uint32_t>(i.a), *b = w.at<uint32_t>(i.b), *c = w.at<uint32_t>(i.c);
    each_lane(lanes, [&](int l) {
        uint32_t sum = c[l];
        for (int k = 0; k < 4; k++) {
            int32_t x = (int32_t)(a[l] >> 8 * k & 255), y = (int32_t)(b[l] >> 8 * k & 255);
            sum += (uint32_t)((i.x ? (int8_t)x : x) * (i.y ? (int8_t)y : y));
        }
        d[l] = sum;
    });
}

template <template <typename> class Op> Run by_type(Type t) {
    switch (t) {
    case U16: return run2<Op<uint16_t>>;
    case S16: return run2<Op<int16_t>>;
    case U32: return run2<Op<uint32_t>>;
    case S32: return run2<Op<int32_t>>;
    case U64: return run2<Op<uint64_t>>;
    case S64: return run2<Op<int64_t>>;
    default: return nullptr;
    }
}
template <template <typename> class Op> Run by_type3(Type t) {
    switch (t) {
    case U16: return run3<Op<uint16_t>>;
    case S16: return run3<Op<int16_t>>;
    case U32: return run3<Op<uint32_t>>;
    case S32: return run3<Op<int32_t>>;
    case U64: return run3<Op<uint64_t>>;
    case S64: return run3<Op<int64_t>>;
    default: return nullptr;
    }
}
template <template <typename> class Op> Run by_type1(Type t) {
    switch (t) {
    case U16:
    case S16: return run1<Op<int16_t>>;
    case U32:
    case S32: return run1<Op<int32_t>>;
    case U64:
    case S64: return run1<Op<int64_t>>;
    default: return nullptr;
    }
}
Run wide(Type t, bool add) {
    switch (t) {
    case U16: return add ? mad_wide<uint16_t> : mul_wide<uint16_t>;
    case S16: return add ? mad_wide<int16_t> : mul_wide<int16_t>;
    case U32: return add ? mad_wide<uint32_t> : mul_wide<uint32_t>;
    case S32: return add ? mad_wide<int32_t> : mul_wide<int32_t>;
    default: return nullptr;
    }
}

bool is_integer(Type t) { return t >= U8 && t <= S64; }

bool with_carry(Decoder &d, bool comes, bool goes, bool minus, bool product) {
    bool high = d.take("hi");
    d.take("lo");
    Type t = d.take_type();
    int n = bytes_of(t);
    if (n != 4 && n != 8) d.unknown();
    d.i.x = comes, d.i.y = goes;
    d.need(product ? 4 : 3);
    d.i.d = d.out(0, n), d.i.a = d.in(1, n), d.i.b = d.in(2, n);
    if (product) d.i.c = d.in(3, n);
    if (product && n == 4)
        d.i.run =
            high ? (is_signed(t) ? mad_carry<int32_t, true> : mad_carry<uint32_t, true>) : mad_carry<uint32_t, false>;
    else if (product)
        d.i.run =
            high ? (is_signed(t) ? mad_carry<int64_t, true> : mad_carry<uint64_t, true>) : mad_carry<uint64_t, false>;
    else if (n == 4) d.i.run = minus ? add_carry<uint32_t, true> : add_carry<uint32_t, false>;
    else d.i.run = minus ? add_carry<uint64_t, true> : add_carry<uint64_t, false>;
    return true;
}

} // namespace

bool decode_integer(Decoder &d) {
    Instr &i = d.i;
    const std::string &name = d.name;
    if (name == "dp4a") {
        Type a = d.take_type(), b = d.take_type();
        d.need(4);
        i.x = is_signed(a), i.y = is_signed(b);
        i.d = d.out(0, 4), i.a = d.in(1, 4), i.b = d.in(2, 4), i.c = d.in(3, 4);
        i.run = dp4a;
        return true;
    }
    bool carries = name == "addc" || name == "subc" || name == "madc";
    if (carries) return with_carry(d, true, d.take("cc"), name == "subc", name == "madc");
    if (name != "add" && name != "sub" && name != "mul" && name != "mad" && name != "div" && name != "rem" &&
        name != "min" && name != "max" && name != "neg" && name != "abs" && name != "sad" && name != "mul24" &&
        name != "mad24")
        return false;
    for (const std::string &mod : d.mods)
        if (is_float(type_named(mod))) return false;
    if ((name == "add" || name == "sub" || name == "mad") && d.take("cc"))
        return with_carry(d, false, true, name == "sub", name == "mad");
    bool wider = d.take("wide"), high = d.take("hi"), low = d.take("lo"), sat = d.take("sat");
    Type t = d.take_type();
    int n = bytes_of(t);
    if (!is_integer(t) || n < 2) d.unknown();
    if (sat && (t != S32 || (name != "add" && name != "sub"))) d.unknown();
    if (name == "neg" || name == "abs") {
        d.need(2);
        i.d = d.out(0, n), i.a = d.in(1, n);
        i.run = name == "neg" ? by_type1<Neg>(t) : by_type1<Abs>(t);
        return true;
    }
    if (name == "mul" || name == "mad" || name == "sad" || name == "mul24" || name == "mad24") {
        bool three = name == "mad" || name == "sad" || name == "mad24";
        if (name != "sad" && wider + high + low != 1) d.unknown();
        int out = wider ? 2 * n : n;
        d.need(three ? 4 : 3);
        i.d = d.out(0, out), i.a = d.in(1, n), i.b = d.in(2, n);
        if (three) i.c = d.in(3, out);
        if (name == "sad") i.run = by_type3<Sad>(t);
        else if (name == "mul24") i.run = n == 4 && low ? by_type<Mul24Low>(t) : nullptr;
        else if (name == "mad24") i.run = nullptr;
        else if (wider) i.run = wide(t, three);
        else if (three) i.run = high ? by_type3<MadHigh>(t) : by_type3<MadLow>(t);
        else i.run = high ? by_type<MulHigh>(t) : by_type<MulLow>(t);
    } else {
        d.need(3);
        i.d = d.out(0, n), i.a = d.in(1, n), i.b = d.in(2, n);
        i.run = name == "add"   ? sat ? run2<SatAdd<int32_t>> : by_type<Add>(t)
                  : name == "sub" ? sat ? run2<SatSub<int32_t>> : by_type<Sub>(t)
                  : name == "div" ? by_type<Div>(t)
                : name == "rem" ? by_type<Rem>(t)
                : name == "min" ? by_type<Min>(t)
                                : by_type<Max>(t);
    }
    if (!i.run) d.unknown();
    return true;
}

} // namespace ptx
