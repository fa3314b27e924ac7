// Converts numbers to and from formats of fewer than 32 bits.
#include "numbers.h"

namespace ptx {

double round_to(double x, int mantissa, int low, Rounding r) {
    if (x == 0 || !std::isfinite(x)) return x;
    int e;
    frexp(x, &e); // x = f 2^e, f in [0.5, 1)
    int last = (e - 1 < low ? low : e - 1) - mantissa;
    double scaled = ldexp(x, -last), down = std::floor(scaled), rest = scaled - down;
    bool up = r == UP     ? rest > 0
              : r == DOWN ? false
              : r == ZERO ? x < 0 && rest > 0
              : r == AWAY ? (x > 0 ? rest >= 0.5 : rest > 0.5)
                          : rest > 0.5 || (rest == 0.5 && std::fmod(down, 2) != 0);
    double y = ldexp(down + up, last);
    return y == 0 ? std::copysign(0.0, x) : y;
}

uint16_t f64_to_f16(double x, Rounding r) {
    if (x != x) return 0x7fff;
    uint16_t sign = std::signbit(x) ? 0x8000 : 0;
    double y = std::fabs(round_to(x, 10, -14, r));
    if (y > 65504) {
        bool finite = std::isfinite(x) && (r == ZERO || (r == DOWN && !sign) || (r == UP && sign));
        return sign | (finite ? 0x7bff : 0x7c00);
    }
    if (y == 0) return sign;
    int e;
    frexp(y, &e);
    if (e - 1 < -14) return sign | (uint16_t)ldexp(y, 24);
    return sign | (uint16_t)((e - 1 + 15) << 10 | ((int)ldexp(y, 11 - e) & 0x3ff));
}
uint16_t f32_to_f16(float x, Rounding r) {
    if (r == NEAREST) {
        uint32_t u = bits_of(x), sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
        if (a > 0x7f800000) return 0x7fff;
        if (a >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
        if (a >= 0x38800000) {
            uint32_t h = a - 0x38000000;
            return (uint16_t)(sign | (h + 0xfff + (h >> 13 & 1)) >> 13);
        }
        return (uint16_t)(sign | (uint32_t)std::nearbyint((double)f32_of(a) * 0x1p24)); // the CPU rounds to nearest
    }
    return f64_to_f16((double)x, r);
}
float f16_to_f32(uint16_t x) {
    uint32_t sign = (uint32_t)(x & 0x8000) << 16, e = x >> 10 & 31, m = x & 0x3ff;
    if (e == 31) return f32_of(sign | 0x7f800000 | m << 13);
    if (e == 0) return std::copysign((float)m * 0x1p-24f, f32_of(sign | 0x3f800000));
    return f32_of(sign | (e + 112) << 23 | m << 13);
}
uint16_t f64_to_bf16(double x, Rounding r) {
    if (x != x) return 0x7fff;
    double y = round_to(x, 7, -126, r), most = 0x1.fep127;
    if (std::fabs(y) > most) {
        bool finite = std::isfinite(x) && (r == ZERO || (r == DOWN && y > 0) || (r == UP && y < 0));
        return (uint16_t)((y < 0 ? 0x8000 : 0) | (finite ? 0x7f7f : 0x7f80));
    }
    return (uint16_t)(bits_of((float)y) >> 16);
}

static uint8_t small_of(float x, int mantissa, int bias, double most, uint8_t greatest, uint8_t nan) {
    if (x != x) return nan;
    uint8_t sign = std::signbit(x) ? 0x80 : 0;
    double y = std::fabs(round_to((double)x, mantissa, 1 - bias, NEAREST));
    if (y > most) return sign | greatest;
    if (y == 0) return sign;
    int e;
    frexp(y, &e);
    if (e - 1 < 1 - bias) return sign | (uint8_t)ldexp(y, bias - 1 + mantissa);
    return sign | (uint8_t)((e - 1 + bias) << mantissa | ((int)ldexp(y, mantissa + 1 - e) & ((1 << mantissa) - 1)));
}
uint8_t f32_to_e4m3(float x) { return small_of(x, 3, 7, 448, 0x7e, 0x7f); }
uint8_t f32_to_e5m2(float x) { return small_of(x, 2, 15, 57344, 0x7b, 0x7f); }
float e4m3_to_f32(uint8_t x) {
    int e = x >> 3 & 15, m = x & 7;
    float v = (x & 0x7f) == 0x7f ? NAN : e ? ldexpf((float)(8 + m), e - 10) : ldexpf((float)m, -9);
    return x & 0x80 ? -v : v;
}
float e5m2_to_f32(uint8_t x) { return f16_to_f32((uint16_t)(x << 8)); }

uint32_t f32_to_tf32(float x, bool away) {
    uint32_t u = bits_of(x);
    if ((u & 0x7f800000) == 0x7f800000) return x != x ? 0x7fffffff : u;
    u += away ? 0x1000 : 0xfff + (u >> 13 & 1);
    return u & 0xffffe000u;
}

} // namespace ptx
