// Runs f16 and bf16 arithmetic, alone and in pairs: computed in f64, rounded once.
#include "lanes.h"
#include "numbers.h"

namespace ptx {
namespace {

enum Operation : uint8_t { ADD, SUB, MUL, FMA, MIN, MAX, ABS, NEG, EX2, TANH };
enum Flag : uint32_t { FTZ = 1, SAT = 2, KEEP_NAN = 4, RELU = 8, XORSIGN = 16 };

double value(bool bf, uint16_t x, bool ftz) {
    double v = bf ? (double)bf16_to_f32(x) : (double)f16_to_f32(x);
    return ftz && std::fabs(v) < (bf ? 0x1p-126 : 0x1p-14) ? std::copysign(0.0, v) : v;
}
uint16_t compute(const Instr &i, Operation op, bool bf, uint16_t a, uint16_t b, uint16_t c) {
    if (op == NEG) return a ^ 0x8000;
    if (op == ABS) return a & 0x7fff;
    bool ftz = i.y & FTZ;
    double x = value(bf, a, ftz), y = value(bf, b, ftz), v = value(bf, c, ftz), r = 0;
    switch (op) {
    case ADD: r = x + y; break;
    case SUB: r = x - y; break;
    case MUL: r = x * y; break;
    case FMA: r = std::fma(x, y, v); break;
    case MIN: r = i.y & KEEP_NAN && (x != x || y != y) ? NAN : std::fmin(x, y); break;
    case MAX: r = i.y & KEEP_NAN && (x != x || y != y) ? NAN : std::fmax(x, y); break;
    case EX2: r = std::exp2(x); break;
    case TANH: r = std::tanh(x); break;
    default: break;
    }
    if (i.y & XORSIGN) r = std::copysign(r, std::signbit(x) != std::signbit(y) ? -1.0 : 1.0);
    if (i.y & RELU && r < 0) r = 0;
    if (i.y & SAT) r = r > 0 ? r < 1 ? r : 1 : 0;
    if (ftz && std::fabs(r) < (bf ? 0x1p-126 : 0x1p-14)) r = std::copysign(0.0, r);
    return bf ? f64_to_bf16(r) : f64_to_f16(r);
}
// x: operation << 8 | pairs << 1 | bf16
void half(Warp &w, const Instr &i, uint32_t lanes) {
    Operation op = (Operation)(i.x >> 8);
    bool bf = i.x & 1;
    if (i.x & 2) {
        uint32_t *d = w.at<uint32_t>(i.d);
        const uint32_t *a = w.at<uint32_t>(i.a), *b = w.at<uint32_t>(i.b), *c = w.at<uint32_t>(i.c);
        each_lane(lanes, [&](int l) {
            uint32_t low = compute(i, op, bf, (uint16_t)a[l], (uint16_t)b[l], (uint16_t)c[l]);
            uint32_t high = compute(i, op, bf, (uint16_t)(a[l] >> 16), (uint16_t)(b[l] >> 16), (uint16_t)(c[l] >> 16));
            d[l] = low | high << 16;
        });
    } else {
        uint16_t *d = w.at<uint16_t>(i.d);
        const uint16_t *a = w.at<uint16_t>(i.a), *b = w.at<uint16_t>(i.b), *c = w.at<uint16_t>(i.c);
        each_lane(lanes, [&](int l) { d[l] = compute(i, op, bf, a[l], b[l], c[l]); });
    }
}

} // namespace

bool decode_half(Decoder &d) {
    static const struct {
        const char *name;
        Operation op;
        size_t operands;
    } known[] = {{"add", ADD, 2}, {"sub", SUB, 2}, {"mul", MUL, 2}, {"fma", FMA, 3}, {"min", MIN, 2},
                 {"max", MAX, 2}, {"abs", ABS, 1}, {"neg", NEG, 1}, {"ex2", EX2, 1}, {"tanh", TANH, 1}};
    Instr &i = d.i;
    Type t = NO_TYPE;
    int kinds = 0;
    for (const std::string &mod : d.mods)
        if (Type one = type_named(mod)) t = one, kinds++;
    if (kinds != 1 || (t != F16 && t != F16X2 && t != BF16 && t != BF16X2)) return false;
    for (auto &k : known) {
        if (d.name != k.name) continue;
        d.take("rn"), d.take("approx");
        i.y = (d.take("ftz") ? FTZ : 0u) | (d.take("sat") ? SAT : 0u) | (d.take("NaN") ? KEEP_NAN : 0u) |
              (d.take("relu") ? RELU : 0u);
        if (d.take("xorsign")) {
            if (!d.take("abs")) d.unknown();
            i.y |= XORSIGN;
        }
        d.take_type();
        int n = bytes_of(t);
        i.x = (uint32_t)k.op << 8 | (n == 4) << 1 | (t == BF16 || t == BF16X2);
        d.need(1 + k.operands);
        i.d = d.out(0, n), i.a = d.in(1, n);
        i.b = k.operands > 1 ? d.in(2, n) : i.a;
        i.c = k.operands > 2 ? d.in(3, n) : i.a;
        i.run = half;
        return true;
    }
    return false;
}

} // namespace ptx
