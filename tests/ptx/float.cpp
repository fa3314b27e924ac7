// Runs f32 and f64 arithmetic. The usual case (rounded to nearest, nothing flushed) has loops of its own; all others
// go lane by lane through `careful`.
#include "lanes.h"
#include "numbers.h"

namespace ptx {
namespace {

template <typename X> struct Add {
    typedef X T;
    static X f(X a, X b) { return a + b; }
};
template <typename X> struct Sub {
    typedef X T;
    static X f(X a, X b) { return a - b; }
};
template <typename X> struct Mul {
    typedef X T;
    static X f(X a, X b) { return a * b; }
};
template <typename X> struct Div {
    typedef X T;
    static X f(X a, X b) { return a / b; }
};
template <typename X> struct Fma {
    typedef X T;
    static X f(X a, X b, X c) { return std::fma(a, b, c); }
};
template <typename X> struct Min { // the other one where one is NaN; -0 below +0
    typedef X T;
    static X f(X a, X b) { return a < b || (a == b && std::signbit(a)) ? a : b != b ? (a != a ? (X)NAN : a) : b; }
};
template <typename X> struct Max {
    typedef X T;
    static X f(X a, X b) { return a > b || (a == b && !std::signbit(a)) ? a : b != b ? (a != a ? (X)NAN : a) : b; }
};
template <typename X> struct Abs {
    typedef X T;
    static X f(X a) { return std::fabs(a); }
};
template <typename X> struct Neg {
    typedef X T;
    static X f(X a) { return -a; }
};

enum Operation : uint8_t { ADD, SUB, MUL, DIV, FMA, MIN, MAX, ABS, NEG, RCP, SQRT, RSQRT, SIN, COS, LG2, EX2, TANH };
enum Flag : uint32_t { FTZ = 1, SAT = 2, KEEP_NAN = 4, XORSIGN = 8 };

// The .approx functions are within 2 units of the last place on a GPU; here they are the nearest f32.
template <typename X> X compute(Operation op, X a, X b, X c) {
    volatile X va = a, vb = b; // computed here and now, in the rounding mode that is set
    switch (op) {
    case ADD: return va + vb;
    case SUB: return va - vb;
    case MUL: return va * vb;
    case DIV: return va / vb;
    case FMA: return std::fma(va, vb, c);
    case MIN: return Min<X>::f(a, b);
    case MAX: return Max<X>::f(a, b);
    case ABS: return std::fabs(a);
    case NEG: return -a;
    case RCP: return (X)1 / va;
    case SQRT: return std::sqrt(va);
    case RSQRT: return (X)(1 / std::sqrt((double)a));
    case SIN: return std::sin(a);
    case COS: return std::cos(a);
    case LG2: return std::log2(a);
    case EX2: return std::exp2(a);
    case TANH: return std::tanh(a);
    }
    return 0;
}
template <typename X> void careful(Warp &w, const Instr &i, uint32_t lanes) {
    X *d = w.at<X>(i.d);
    const X *a = w.at<X>(i.a), *b = w.at<X>(i.b), *c = w.at<X>(i.c);
    Operation op = (Operation)(i.z >> 8);
    RoundingScope rounding(i.x);
    each_lane(lanes, [&](int l) {
        X x = a[l], y = b[l], v = c[l];
        if (sizeof(X) == 4 && i.y & FTZ) x = (X)flush((float)x), y = (X)flush((float)y), v = (X)flush((float)v);
        X r = i.y & KEEP_NAN && (x != x || y != y) ? (X)NAN : compute<X>(op, x, y, v);
        if (i.y & XORSIGN) r = std::copysign(r, std::signbit(x) != std::signbit(y) ? (X)-1 : (X)1);
        if (sizeof(X) == 4 && i.y & FTZ) r = (X)flush((float)r);
        if (i.y & SAT) r = r > 0 ? r < 1 ? r : (X)1 : (X)0;
        d[l] = r;
    });
}
template <int op> struct Approx { // without .ftz
    typedef float T;
    static float f(float a) { return compute<float>((Operation)op, a, 0, 0); }
};

template <typename X> Run plain(Operation op) {
    switch (op) {
    case ADD: return run2<Add<X>>;
    case SUB: return run2<Sub<X>>;
    case MUL: return run2<Mul<X>>;
    case DIV: return run2<Div<X>>;
    case FMA: return run3<Fma<X>>;
    case MIN: return run2<Min<X>>;
    case MAX: return run2<Max<X>>;
    case ABS: return run1<Abs<X>>;
    case NEG: return run1<Neg<X>>;
    default: return nullptr;
    }
}

template <typename X> void copysign_op(Warp &w, const Instr &i, uint32_t lanes) { // copysign d, a, b: b with a's sign
    X *d = w.at<X>(i.d);
    const X *a = w.at<X>(i.a), *b = w.at<X>(i.b);
    each_lane(lanes, [&](int l) { d[l] = std::copysign(b[l], a[l]); });
}
template <typename X> void testp(Warp &w, const Instr &i, uint32_t lanes) {
    const X *a = w.at<X>(i.a);
    uint32_t r = 0, &d = w.pred(i.d);
    each_lane(lanes, [&](int l) {
        int c = std::fpclassify(a[l]);
        bool yes[] = {c != FP_NAN && c != FP_INFINITE,
                      c == FP_INFINITE,
                      c != FP_NAN,
                      c == FP_NAN,
                      c == FP_NORMAL,
                      c == FP_SUBNORMAL};
        r |= (uint32_t)yes[i.x] << l;
    });
    d = (d & ~lanes) | (r & lanes);
}

} // namespace

bool decode_float(Decoder &d) {
    static const struct {
        const char *name;
        Operation op;
        size_t operands;
    } known[] = {{"add", ADD, 2}, {"sub", SUB, 2},   {"mul", MUL, 2},     {"div", DIV, 2}, {"fma", FMA, 3},
                 {"mad", FMA, 3}, {"min", MIN, 2},   {"max", MAX, 2},     {"abs", ABS, 1}, {"neg", NEG, 1},
                 {"rcp", RCP, 1}, {"sqrt", SQRT, 1}, {"rsqrt", RSQRT, 1}, {"sin", SIN, 1}, {"cos", COS, 1},
                 {"lg2", LG2, 1}, {"ex2", EX2, 1},   {"tanh", TANH, 1}};
    Instr &i = d.i;
    bool f32 = false, f64 = false;
    for (const std::string &mod : d.mods) f32 |= mod == "f32", f64 |= mod == "f64";
    if (f32 == f64) return false;
    if (d.name == "testp" || d.name == "copysign") {
        int n = f32 ? 4 : 8;
        d.take_type();
        if (d.name == "copysign") {
            d.need(3);
            i.d = d.out(0, n), i.a = d.in(1, n), i.b = d.in(2, n);
            i.run = f32 ? copysign_op<float> : copysign_op<double>;
            return true;
        }
        int what = d.take_one({"finite", "infinite", "number", "notanumber", "normal", "subnormal"});
        if (what < 0) d.unknown();
        i.x = (uint32_t)what;
        d.need(2);
        i.d = d.out(0, 0), i.a = d.in(1, n);
        i.run = f32 ? testp<float> : testp<double>;
        return true;
    }
    for (auto &k : known) {
        if (d.name != k.name) continue;
        for (const std::string &mod : d.mods)
            if (type_named(mod) && type_named(mod) != (f32 ? F32 : F64)) return false; // mixed: decode_half
        int rounding = d.take_one({"rn", "rz", "rm", "rp"});
        bool approx = d.take("approx"), full = d.take("full");
        i.x = rounding < 0 ? 0 : (uint32_t)rounding;
        i.y = (d.take("ftz") ? FTZ : 0u) | (d.take("sat") ? SAT : 0u) | (d.take("NaN") ? KEEP_NAN : 0u);
        if (d.take("xorsign")) {
            if (!d.take("abs")) d.unknown();
            i.y |= XORSIGN;
        }
        d.take_type();
        bool choose = k.op == MIN || k.op == MAX;
        if ((i.y & (KEEP_NAN | XORSIGN) && !choose) || (approx && k.op < DIV) || (full && k.op != DIV)) d.unknown();
        if (k.op >= SIN && f64) d.unknown();
        int n = f32 ? 4 : 8;
        d.need(1 + k.operands);
        i.d = d.out(0, n), i.a = d.in(1, n);
        i.b = k.operands > 1 ? d.in(2, n) : i.a;
        i.c = k.operands > 2 ? d.in(3, n) : i.a;
        if (!i.x && !i.y) i.run = f32 ? plain<float>(k.op) : plain<double>(k.op);
        if (!i.run) {
            i.z = (uint32_t)k.op << 8;
            i.run = f32 ? careful<float> : careful<double>;
            if (f32 && !i.x && !i.y && k.op == EX2) i.run = run1<Approx<EX2>>;
        }
        return true;
    }
    return false;
}

} // namespace ptx
