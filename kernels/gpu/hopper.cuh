// Hopper's own instructions (sm_90a), one function for each: matrix products of a whole warpgroup (wgmma), copies of
// boxes of a matrix (TMA), and the barriers that tell when they are done. Beside ptx.cuh the only file with inline
// assembly. Under tests/emu the same functions are plain C++ (emu_hopper.h).
//
// Boxes: a TensorMap describes a matrix of bf16 in global memory, with rows of K; tensor_copy brings a box of rows x 64
// columns to shared memory, 128 bytes a row, zeros past the end of the matrix. The 16-byte pack p of row r is stored at
// p ^ (r % 8), the swizzle that wgmma reads; a box begins at a multiple of 1024 bytes.
//
// wgmma<N>: d[64,N] += a[64,16] b[N,16]^T by the 128 threads of a warpgroup. Warp w % 4 has rows 16 (w % 4) + 0 .. 15,
// and of each 16 x 8 block of them the elements mma_bf16 gives (ptx.cuh): d[4 j + 2 h + e] of lane l is the sum at row
// l / 4 + 8 h, column 8 j + 2 (l % 4) + e. It is asynchronous: between wgmma_fence and the wgmma_wait that covers it,
// its registers and the shared memory it reads must not be touched.
#pragma once
#include "common.cuh"
#include <cuda.h>

#define BOX_COLUMNS 64  // of bf16: the 128 bytes that the swizzle spans
#define WARPGROUP   128 // threads

typedef CUtensorMap TensorMap;
typedef uint64_t Mbarrier; // in shared memory

// The dynamic shared memory of a kernel that receives boxes.
#ifdef GRPO_EMU
#define SHARED_BOXES(name) char *name = (char *)emu_shared_dynamic()
#include "emu_hopper.h"
#else
#define SHARED_BOXES(name)                                                                                             \
    extern __shared__ __align__(1024) char shared_boxes_[];                                                            \
    char *name = shared_boxes_

static __device__ __forceinline__ uint32_t shared_address(const void *p) {
    return (uint32_t)__cvta_generic_to_shared(p);
}

// ---- barriers in shared memory --------------------------------------------------------------------------------------
// Makes a barrier whose phase ends when `arrivals` threads have arrived and all expected bytes have been copied. Phases
// alternate in parity, beginning with 0.
static __device__ __forceinline__ void mbarrier_init(Mbarrier *b, int arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(b)), "r"(arrivals) : "memory");
}
// Makes new barriers visible to the copies. To be called before the __syncthreads that makes them visible to the
// threads.
static __device__ __forceinline__ void mbarrier_init_done() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
static __device__ __forceinline__ void mbarrier_arrive(Mbarrier *b) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(b)) : "memory");
}
// Arrives, and makes the phase wait for `bytes` more bytes of copies.
static __device__ __forceinline__ void mbarrier_expect(Mbarrier *b, int bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes)
                 : "memory");
}
// Waits until the phase of that parity has ended (on a new barrier, the phase of parity 1 counts as ended).
static __device__ __forceinline__ void mbarrier_wait(Mbarrier *b, int parity) {
    asm volatile("{\n"
                 ".reg .pred done;\n"
                 "again:\n"
                 "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
                 "@!done bra again;\n"
                 "}" ::"r"(shared_address(b)),
                 "r"(parity)
                 : "memory");
}

// ---- copies ---------------------------------------------------------------------------------------------------------
// Starts copying the map's box from (row, column) on to shared memory; called by one thread. The bytes count on barrier
// b.
static __device__ __forceinline__ void tensor_copy(void *shared, const TensorMap *map, int row, int column,
                                                   Mbarrier *b) {
    asm volatile(
        "cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3}], "
        "[%4];" ::"r"(shared_address(shared)),
        "l"(map), "r"(column), "r"(row), "r"(shared_address(b))
        : "memory");
}
// The same from a map of three dimensions: a box of rows of one plane of a matrix [rows, planes, columns].
static __device__ __forceinline__ void tensor_copy_3d(void *shared, const TensorMap *map, int row, int plane,
                                                      int column, Mbarrier *b) {
    asm volatile(
        "cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%2, %3, %4}], "
        "[%5];" ::"r"(shared_address(shared)),
        "l"(map), "r"(column), "r"(plane), "r"(row), "r"(shared_address(b))
        : "memory");
}

// bulk_store, bulk_add: start copying `bytes` from shared to global memory, or adding them to the floats there, in one
// thread; multiples of 16 all of them. What the block wrote to be copied it has made visible by shared_for_wgmma.
// bulk_commit ends a group; bulk_wait_read waits until the thread's groups have read shared memory, bulk_wait until
// they are done.
static __device__ __forceinline__ void bulk_store(void *global, const void *shared, int bytes) {
    asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(global),
                 "r"(shared_address(shared)), "r"(bytes)
                 : "memory");
}
static __device__ __forceinline__ void bulk_add(float *global, const void *shared, int bytes) {
    asm volatile("cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(global),
                 "r"(shared_address(shared)), "r"(bytes)
                 : "memory");
}
static __device__ __forceinline__ void bulk_commit() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
static __device__ __forceinline__ void bulk_wait_read() {
    asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}
static __device__ __forceinline__ void bulk_wait() { asm volatile("cp.async.bulk.wait_group 0;" ::: "memory"); }

// ---- turns of blocks ------------------------------------------------------------------------------------------------
// Blocks that work on the same memory in a fixed order: one waits until *turn is its own, and the one before it sets
// it. What that wrote before turn_pass (its bulk copies: after bulk_wait) is visible after turn_wait, to bulk copies
// too. Only a block that has begun earlier may be waited for, or the card might never begin it.
static __device__ __forceinline__ void turn_wait(const int *turn, int own) {
    int now;
    // Acquired once, after the last look: each time it would empty the first-level cache of all the block's warps.
    do asm volatile("ld.relaxed.gpu.global.s32 %0, [%1];" : "=r"(now) : "l"(turn) : "memory");
    while (now != own);
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
    asm volatile("fence.proxy.async;" ::: "memory");
}
static __device__ __forceinline__ void turn_pass(int *turn, int next) {
    asm volatile("fence.proxy.async;" ::: "memory");
    asm volatile("st.release.gpu.global.s32 [%0], %1;" ::"l"(turn), "r"(next) : "memory");
}

// ---- products -------------------------------------------------------------------------------------------------------
static __device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
static __device__ __forceinline__ void wgmma_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Waits until at most `pending` of the newest groups of products are still running.
template <int pending> static __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(pending) : "memory");
}
// To be called after wgmma_wait<0>: keeps the compiler from moving instructions that read d to before the wait.
template <int R> static __device__ __forceinline__ void wgmma_settle(float (&d)[R]) {
#pragma unroll
    for (int i = 0; i < R; i++) asm volatile("" : "+f"(d[i])::"memory");
}
// To be called before a product without `add`: what d holds is of no use. The compiler, to which d is an operand of
// that product like of any other, would keep the registers for it from the last one on.
template <int R> static __device__ __forceinline__ void wgmma_begin(float (&d)[R]) {
#pragma unroll
    for (int i = 0; i < R; i++) asm volatile("mov.b32 %0, 0;" : "=f"(d[i]));
}
// The matrix descriptor of an operand, as wgmma takes it: swizzled rows of 128 bytes, every eighth 1024 further;
// `apart`, where the operand is across: bytes from a box to the next.
static __device__ __forceinline__ uint64_t wgmma_operand(const void *p, int apart) {
    return (uint64_t)(shared_address(p) >> 4) | (uint64_t)(apart ? apart >> 4 : 1) << 16 | (uint64_t)(1024 >> 4) << 32 |
           (uint64_t)1 << 62;
}

// The accumulator registers as operands %0, %1, ... of the assembly: their names (NAMES), and the variables (SUM).
#define NAMES_0   "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define NAMES_1   NAMES_0 ",%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define NAMES_2   NAMES_1 ",%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define NAMES_3   NAMES_2 ",%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define NAMES_4   NAMES_3 ",%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"
#define NAMES_5   NAMES_4 ",%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define NAMES_6   NAMES_5 ",%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111"
#define NAMES_7   NAMES_6 ",%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define SUM_4(i)  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SUM_16(i) SUM_4(16 * i), SUM_4(16 * i + 4), SUM_4(16 * i + 8), SUM_4(16 * i + 12)
#define SUMS_0    SUM_16(0)
#define SUMS_1    SUMS_0, SUM_16(1)
#define SUMS_2    SUMS_1, SUM_16(2)
#define SUMS_3    SUMS_2, SUM_16(3)
#define SUMS_4    SUMS_3, SUM_16(4)
#define SUMS_5    SUMS_4, SUM_16(5)
#define SUMS_6    SUMS_5, SUM_16(6)
#define SUMS_7    SUMS_6, SUM_16(7)

// The instruction for N columns: `both` with both operands in shared memory, `kept` with a in registers.
template <int N> struct Wgmma;
// r0 .. r5: the numbers of the operands after the accumulators.
#define WGMMA(N, names, sums, r0, r1, r2, r3, r4, r5, r6)                                                              \
    template <> struct Wgmma<N> {                                                                                      \
        template <int across_a, int across_b>                                                                          \
        static __device__ __forceinline__ void both(float (&d)[N / 2], uint64_t a, uint64_t b, bool add) {             \
            asm volatile("{\n"                                                                                         \
                         ".reg .pred add;\n"                                                                           \
                         "setp.ne.b32 add, %" #r2 ", 0;\n"                                                             \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" names "}, %" #r0 ", %" #r1       \
                         ", add, 1, 1, %" #r3 ", %" #r4 ";\n"                                                          \
                         "}"                                                                                           \
                         : sums                                                                                        \
                         : "l"(a), "l"(b), "r"((int)add), "n"(across_a), "n"(across_b));                               \
        }                                                                                                              \
        template <int across_b>                                                                                        \
        static __device__ __forceinline__ void kept(float (&d)[N / 2], const uint32_t (&a)[4], uint64_t b, bool add) { \
            asm volatile("{\n"                                                                                         \
                         ".reg .pred add;\n"                                                                           \
                         "setp.ne.b32 add, %" #r5 ", 0;\n"                                                             \
                         "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" names "}, {%" #r0 ",%" #r1       \
                         ",%" #r2 ",%" #r3 "}, %" #r4 ", add, 1, 1, %" #r6 ";\n"                                       \
                         "}"                                                                                           \
                         : sums                                                                                        \
                         : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"((int)add), "n"(across_b));          \
        }                                                                                                              \
    };
WGMMA(32, NAMES_0, SUMS_0, 16, 17, 18, 19, 20, 21, 22)
WGMMA(64, NAMES_1, SUMS_1, 32, 33, 34, 35, 36, 37, 38)
WGMMA(96, NAMES_2, SUMS_2, 48, 49, 50, 51, 52, 53, 54)
WGMMA(128, NAMES_3, SUMS_3, 64, 65, 66, 67, 68, 69, 70)
WGMMA(160, NAMES_4, SUMS_4, 80, 81, 82, 83, 84, 85, 86)
WGMMA(192, NAMES_5, SUMS_5, 96, 97, 98, 99, 100, 101, 102)
WGMMA(224, NAMES_6, SUMS_6, 112, 113, 114, 115, 116, 117, 118)
WGMMA(256, NAMES_7, SUMS_7, 128, 129, 130, 131, 132, 133, 134)

// d[64,N] += a[64,16] b[N,16]^T, or = without `add`. a and b point to 16 columns of swizzled boxes in shared memory.
template <int N>
static __device__ __forceinline__ void wgmma(float (&d)[N / 2], const void *a, const void *b, bool add) {
    Wgmma<N>::template both<0, 0>(d, wgmma_operand(a, 0), wgmma_operand(b, 0), add);
}
// The same where an operand may be across: stored as boxes of rows along K, each of 64 of a's rows (or b's), so that it
// points to 16 rows of a box. b has N / 64 boxes, `apart` bytes apart; a is one.
template <int N, bool across_a, bool across_b>
static __device__ __forceinline__ void wgmma_across(float (&d)[N / 2], const void *a, const void *b, int apart,
                                                    bool add) {
    Wgmma<N>::template both<across_a, across_b>(d, wgmma_operand(a, 0), wgmma_operand(b, across_b ? apart : 0), add);
}
// The same with a in registers: the warp's 16 rows as mma_bf16 takes them (ptx.cuh). They too must not be touched
// before the wgmma_wait.
template <int N, bool across_b>
static __device__ __forceinline__ void wgmma_kept(float (&d)[N / 2], const uint32_t (&a)[4], const void *b, int apart,
                                                  bool add) {
    Wgmma<N>::template kept<across_b>(d, a, wgmma_operand(b, across_b ? apart : 0), add);
}
// Makes what this thread has written to shared memory visible to products and copies that are started after a barrier
// which follows.
static __device__ __forceinline__ void shared_for_wgmma() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// Waits until `threads` threads, whole warps of the block, have come to barrier `id`, 1 .. 15 (0 is __syncthreads').
static __device__ __forceinline__ void group_sync(int id, int threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// ---- registers ------------------------------------------------------------------------------------------------------
// registers_give: a warpgroup hands back registers and keeps `left` a thread. registers_take: it waits until it has
// `most`. All its warps must call it.
template <int left> static __device__ __forceinline__ void registers_give() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(left));
}
template <int most> static __device__ __forceinline__ void registers_take() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(most));
}

#endif
