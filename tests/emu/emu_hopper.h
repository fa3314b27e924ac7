// The instructions of kernels/gpu/hopper.cuh in plain C++; hopper.cuh, which includes this, describes each. Copies are
// there and products done at once: who does not wait for them, or touches them too early, is told by the machine of
// tests/ptx.
#pragma once
#include "../ptx/ptx.h"
#include "cuda.h"

// A barrier, in the 8 bytes the hardware gives it.
struct EmuMbarrier {
    int32_t bytes; // expected and not there yet
    uint16_t missing, arrivals : 15, parity : 1;
};
static_assert(sizeof(EmuMbarrier) == sizeof(uint64_t), "");

static inline EmuMbarrier *emu_mbarrier(uint64_t *b) {
    if ((uintptr_t)b % 8 || !emu_is_shared(b, 8))
        emu_fail("an mbarrier at %p, which is not in shared memory", (void *)b);
    return (EmuMbarrier *)b;
}
static inline void emu_mbarrier_turn(EmuMbarrier *m) {
    if (m->missing || m->bytes) return;
    m->missing = m->arrivals;
    m->parity ^= 1;
}
static inline void mbarrier_init(uint64_t *b, int arrivals) {
    *emu_mbarrier(b) = {0, (uint16_t)arrivals, (uint16_t)arrivals, 0};
}
static inline void mbarrier_init_done() {}
static inline void mbarrier_arrive(uint64_t *b) {
    EmuMbarrier *m = emu_mbarrier(b);
    if (!m->missing) emu_fail("an mbarrier at which more arrive than the %d it counts", m->arrivals);
    m->missing--;
    emu_mbarrier_turn(m);
}
static inline void mbarrier_expect(uint64_t *b, int bytes) {
    emu_mbarrier(b)->bytes += bytes;
    mbarrier_arrive(b);
}
static inline void mbarrier_wait(uint64_t *b, int parity) {
    EmuMbarrier *m = emu_mbarrier(b);
    for (int64_t turns = 0; m->parity == parity; turns++) {
        if (turns > 1000000) emu_fail("an mbarrier whose phase of parity %d does not end", parity);
        emu_yield();
    }
}

// at: where the box begins, from the innermost dimension on. Its rows are those of the outermost.
static inline void emu_copy_box(void *shared, const CUtensorMap *map, const int *at, uint32_t rank, uint64_t *b) {
    const ptx::TensorMap *m = (const ptx::TensorMap *)map;
    uint32_t outer = rank - 1;
    int rows = (int)m->box[outer], columns = (int)m->box[0];
    char *to = (char *)shared;
    if (m->magic != ptx::TENSOR_MAP || m->rank != rank || columns * 2 != 128 || m->swizzle != 3 ||
        (rank == 3 && m->box[1] != 1))
        emu_fail("a tensor map of %u dimensions, boxes of %d columns, swizzle %d", m->rank, columns, m->swizzle);
    if ((uintptr_t)to % 1024 || !emu_is_shared(to, (size_t)rows * 128))
        emu_fail("a box at %p, which is no multiple of 1024 with room for %d rows of 128 bytes", shared, rows);
    EmuMbarrier *arrives = emu_mbarrier(b);
    for (int r = 0; r < rows; r++) {
        bool in = true;
        uint64_t row = m->address;
        for (uint32_t k = 1; k < rank; k++) {
            int64_t place = at[k] + (k == outer ? r : 0);
            in &= place >= 0 && place < (int64_t)m->dim[k];
            row += (uint64_t)place * m->stride[k - 1];
        }
        for (int c = 0; c < columns; c++) {
            bool inside = in && at[0] + c >= 0 && at[0] + c < (int)m->dim[0];
            uint16_t *element = (uint16_t *)(to + r * 128 + ((c / 8) ^ (r % 8)) * 16) + c % 8;
            *element = inside ? ((const uint16_t *)row)[at[0] + c] : 0;
        }
    }
    arrives->bytes -= rows * 128;
    emu_mbarrier_turn(arrives);
}
static inline void tensor_copy(void *shared, const CUtensorMap *map, int row, int column, uint64_t *b) {
    const int at[] = {column, row};
    emu_copy_box(shared, map, at, 2, b);
}
static inline void tensor_copy_3d(void *shared, const CUtensorMap *map, int row, int plane, int column, uint64_t *b) {
    const int at[] = {column, plane, row};
    emu_copy_box(shared, map, at, 3, b);
}

static inline void emu_check_bulk(const void *global, const void *shared, int bytes) {
    if ((uintptr_t)global % 16 || (uintptr_t)shared % 16 || bytes % 16 || !emu_is_shared(shared, (size_t)bytes))
        emu_fail("a bulk copy of %d bytes from %p to %p", bytes, shared, global);
}
static inline void bulk_store(void *global, const void *shared, int bytes) {
    emu_check_bulk(global, shared, bytes);
    memcpy(global, shared, (size_t)bytes);
}
static inline void bulk_add(float *global, const void *shared, int bytes) {
    emu_check_bulk(global, shared, bytes);
    for (int i = 0; i < bytes / 4; i++) global[i] += ((const float *)shared)[i];
}
static inline void bulk_commit() {}
static inline void bulk_wait_read() {}
static inline void bulk_wait() {}

// Blocks run one after another, so a turn has come or never will.
static inline void turn_wait(const int *turn, int own) {
    if (*turn != own) emu_fail("a block waits for turn %d where it is %d, and no other block goes on", own, *turn);
}
static inline void turn_pass(int *turn, int next) { *turn = next; }

static inline void wgmma_fence() {}
static inline void wgmma_commit() {}
template <int pending> static inline void wgmma_wait() {}
template <int R> static inline void wgmma_settle(float (&d)[R]) {}
template <int R> static inline void wgmma_begin(float (&d)[R]) {}

struct EmuWgmma {
    float *d;
    const char *a, *b;
    const uint32_t *kept; // a's fragment where it is in registers, else NULL
    bool across_a, across_b, add;
    int apart, N, warp; // warp: of its warpgroup
};
void emu_resolve_wgmma(void *room[32]);
static inline void emu_wgmma(float *d, const void *a, const uint32_t *kept, const void *b, bool across_a, bool across_b,
                             int apart, int N, bool add, EmuSite site) {
    EmuWgmma m = {
        d, (const char *)a, (const char *)b, kept, across_a, across_b, add, apart, N, (int)(threadIdx.x / 32 % 4)};
    emu_collect("wgmma", EMU_EVERY_LANE, &m, emu_resolve_wgmma, site);
}
template <int N> static inline void wgmma(float (&d)[N / 2], const void *a, const void *b, bool add, EMU_SITE) {
    emu_wgmma(d, a, nullptr, b, false, false, 0, N, add, site);
}
template <int N, bool across_a, bool across_b>
static inline void wgmma_across(float (&d)[N / 2], const void *a, const void *b, int apart, bool add, EMU_SITE) {
    emu_wgmma(d, a, nullptr, b, across_a, across_b, apart, N, add, site);
}
template <int N, bool across_b>
static inline void wgmma_kept(float (&d)[N / 2], const uint32_t (&a)[4], const void *b, int apart, bool add, EMU_SITE) {
    emu_wgmma(d, nullptr, a, b, false, across_b, apart, N, add, site);
}
static inline void shared_for_wgmma() {}
void emu_group_sync(int id, int threads);
static inline void group_sync(int id, int threads) { emu_group_sync(id, threads); }

template <int left> static inline void registers_give() {}
template <int most> static inline void registers_take() {}
