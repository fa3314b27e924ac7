// Number formats: f16, bf16, tf32, e4m3, e5m2 to f32 and back; flushing; rounding modes.
#pragma once
#include <cfenv>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace ptx {

enum Rounding : uint8_t { NEAREST, ZERO, DOWN, UP, AWAY };

static inline float f32_of(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline uint32_t bits_of(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}
static inline float flush(float x) { return std::fabs(x) < 0x1p-126f ? std::copysign(0.0f, x) : x; }
static inline float bf16_to_f32(uint16_t x) { return f32_of((uint32_t)x << 16); }
static inline float tf32_of(float x) { return f32_of(bits_of(x) & 0xffffe000u); } // what a tensor core reads of an f32

// A number with `mantissa` bits behind the point and exponents from `low` (of the smallest normal number), rounded from
// a double; the result is an exact double. Values beyond `most` are left to the caller.
double round_to(double x, int mantissa, int low, Rounding r);

uint16_t f32_to_f16(float x, Rounding r = NEAREST);
uint16_t f64_to_f16(double x, Rounding r = NEAREST);
float f16_to_f32(uint16_t x);
uint16_t f64_to_bf16(double x, Rounding r = NEAREST);
static inline uint16_t f32_to_bf16(float x) {
    uint32_t u = bits_of(x);
    if (x != x) return 0x7fff;
    return (uint16_t)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
// 8 bits: e4m3 has no infinity, 0x7f is NaN; satfinite always, as the instructions say.
uint8_t f32_to_e4m3(float x);
uint8_t f32_to_e5m2(float x);
float e4m3_to_f32(uint8_t x);
float e5m2_to_f32(uint8_t x);
uint32_t f32_to_tf32(float x, bool away); // round to nearest even, or away from zero (rna)

// Sets the CPU's rounding for a scope.
struct RoundingScope {
    int before;
    explicit RoundingScope(unsigned r) : before(fegetround()) {
        static const int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD, FE_TONEAREST};
        fesetround(modes[r]);
    }
    ~RoundingScope() { fesetround(before); }
};

} // namespace ptx
