// The register of a matrix product and its steps: a multiply-add of f32, and where there is an instruction for it of pairs of
// bf16.
#pragma once
#include "simd.h"

#if defined(__AVX512F__)
#define WIDTH 16
#elif defined(__FMA__)
#define WIDTH 8
#else
#define WIDTH 4
#endif

typedef float Vec __attribute__((vector_size(4 * WIDTH), may_alias));
typedef uint32_t VecU __attribute__((vector_size(4 * WIDTH), may_alias));

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
// gcc would rather load a register again for every use, and then loads are the limit.
#if defined(__AVX512F__)
#define KEEP(x) __asm__("" : "+v"(x))
#else
#define KEEP(x) ((void)0)
#endif

static inline Vec step_f32(Vec acc, Vec a, Vec b) {
#if defined(__AVX512F__)
    return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)acc);
#elif defined(__FMA__)
    return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)acc);
#else
    return acc + a * b;
#endif
}
