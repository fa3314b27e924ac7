// Instructions that CUDA C has no name for, one function for each; with hopper.cuh the only file with inline assembly.
// Under tests/emu the same functions are plain C++ (emu_ptx.h). All exist from sm_80 on.
//
// Fragments of mma.m16n8k16 (PTX ISA, "Matrix Fragments for mma.m16n8k16"), lane l, g = l / 4, q = l % 4; each register
// holds two bf16, the lower half the lower column:
//   a[0]: A[g][2q, 2q+1]   a[1]: A[g+8][2q, 2q+1]   a[2]: A[g][2q+8, 2q+9]   a[3]: A[g+8][2q+8, 2q+9]
//   b[0]: B[2q, 2q+1][g]   b[1]: B[2q+8, 2q+9][g]
//   c[0], c[1]: C[g][2q, 2q+1]   c[2], c[3]: C[g+8][2q, 2q+1]
#pragma once
#include "common.cuh"

#ifdef GRPO_EMU
#include "emu_ptx.h"
#else

// c[16,8] += a[16,16] b[16,8], bf16 in, f32 accumulated.
static __device__ __forceinline__ void mma_bf16(float c[4], const uint32_t a[4], const uint32_t b[2]) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Loads four 8x8 matrices of bf16 from shared memory: lane l gives the 16-byte aligned address of row l % 8 of matrix l
// / 8, and receives of each matrix the elements [l/4][2(l%4), +1], or with _trans [2(l%4), +1][l/4].
static __device__ __forceinline__ void ldmatrix_x4(uint32_t r[4], const void *row) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
static __device__ __forceinline__ void ldmatrix_x4_trans(uint32_t r[4], const void *row) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}
// Loads two matrices; lanes 0..15 give the addresses.
static __device__ __forceinline__ void ldmatrix_x2(uint32_t r[2], const void *row) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(at)
                 : "memory");
}
static __device__ __forceinline__ void ldmatrix_x2_trans(uint32_t r[2], const void *row) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(row);
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0,%1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(at)
                 : "memory");
}

// Copies 16 bytes to shared memory in the background; zeros where !valid (then `global` is not read, but must be a
// valid pointer). Both addresses are multiples of 16. What a thread copied has arrived after its cp_async_wait; what
// other threads copied, after a barrier that follows theirs.
static __device__ __forceinline__ void cp_async_16(void *shared, const void *global, bool valid) {
    uint32_t at = (uint32_t)__cvta_generic_to_shared(shared);
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(global), "r"(valid ? 16 : 0)
                 : "memory");
}
// cp_async_commit ends a group of copies; cp_async_wait waits until at most `pending` of the newest groups are still
// running.
static __device__ __forceinline__ void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int pending> static __device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}

// 2^x, within 2 ulp; results below 2^-126 are 0.
static __device__ __forceinline__ float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// 1 / x, within 1 ulp; 0 where x or its inverse is beyond the normal numbers.
static __device__ __forceinline__ float reciprocal_approx(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
// The base-2 logarithm of an x that is no less than 2^-126, within 2^-22 of it, or of 1 where it is smaller.
static __device__ __forceinline__ float log2_approx(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// x. What follows from it is computed after this and nowhere before: kept for a branch that is taken once, it would
// hold registers in the loop around it, where there are none to spare.
static __device__ __forceinline__ int computed_here(int x) {
    int y;
    asm volatile("mov.b32 %0, %1;" : "=r"(y) : "r"(x));
    return y;
}

#endif

// Two floats rounded to the two bf16 of a fragment register, the first in the lower half.
static __device__ __forceinline__ uint32_t pack_bf16(float low, float high) {
    __nv_bfloat162 v = __floats2bfloat162_rn(low, high);
    return *(uint32_t *)&v;
}
