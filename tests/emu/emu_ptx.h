// The instructions of kernels/gpu/ptx.cuh in plain C++: collectives of a whole warp, and copies that arrive only when
// waited for. Included by ptx.cuh, which describes each.
#pragma once
#include "cuda_bf16.h"
#include <float.h>
#include <math.h>
#include <stdint.h>
#include <stdbool.h>

struct EmuMma {
    float *c;
    const uint32_t *a, *b;
};
void emu_resolve_mma(void *room[32]);
static __device__ __forceinline__ void mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2], EMU_SITE) {
    EmuMma m = {c, a, b};
    emu_collect("mma_bf16", EMU_EVERY_LANE, &m, emu_resolve_mma, site);
}

static inline int computed_here(int x) { return x; }

struct EmuLdmatrix {
    uint32_t *r;
    const void *row;
    int matrices;
    bool transposed;
};
void emu_resolve_ldmatrix(void *room[32]);
static inline void emu_ldmatrix(uint32_t *r, const void *row, int matrices, bool transposed, const char *name,
                                EmuSite site) {
    EmuLdmatrix m = {r, row, matrices, transposed};
    if (emu_lane() < 8 * matrices && ((uintptr_t)row % 16 || !emu_is_shared(row, 16)))
        emu_fail("%s at %s:%d: lane %d gives %p, which is not a 16-byte aligned row of shared memory", name, site.file,
                 site.line, emu_lane(), row);
    emu_collect(name, EMU_EVERY_LANE, &m, emu_resolve_ldmatrix, site);
}
static inline void ldmatrix_x4(uint32_t r[4], const void *row, EMU_SITE) {
    emu_ldmatrix(r, row, 4, false, "ldmatrix_x4", site);
}
static inline void ldmatrix_x4_trans(uint32_t r[4], const void *row, EMU_SITE) {
    emu_ldmatrix(r, row, 4, true, "ldmatrix_x4_trans", site);
}
static inline void ldmatrix_x2(uint32_t r[2], const void *row, EMU_SITE) {
    emu_ldmatrix(r, row, 2, false, "ldmatrix_x2", site);
}
static inline void ldmatrix_x2_trans(uint32_t r[2], const void *row, EMU_SITE) {
    emu_ldmatrix(r, row, 2, true, "ldmatrix_x2_trans", site);
}

void emu_cp_async(void *shared, const void *global, bool valid, EmuSite site);
void emu_cp_async_commit(void);
void emu_cp_async_wait(int pending);
static inline void cp_async_16(void *shared, const void *global, bool valid, EMU_SITE) {
    // A bad address shows here, where it is given; misaligned ones are told apart first.
    if (valid && (uintptr_t)global % 16 == 0) (void)*(const volatile int4 *)global;
    emu_cp_async(shared, global, valid, site);
}
static inline void cp_async_commit() { emu_cp_async_commit(); }
template <int pending> static inline void cp_async_wait() { emu_cp_async_wait(pending); }

static inline float exp2_approx(float x) {
    float y = exp2f(x);
    return y < FLT_MIN ? 0 : y; // .ftz
}
static inline float reciprocal_approx(float x) {
    float y = 1 / (fabsf(x) < FLT_MIN ? copysignf(0, x) : x);
    return fabsf(y) < FLT_MIN ? copysignf(0, y) : y; // .ftz
}
static inline float log2_approx(float x) { return log2f(x); }
