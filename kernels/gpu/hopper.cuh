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
// The matrix descriptor of a box in shared memory, as wgmma takes it: K-major rows of 128 bytes, swizzled, every eighth
// row 1024 bytes further.
static __device__ __forceinline__ uint64_t wgmma_operand(const void *p) {
    return (uint64_t)(shared_address(p) >> 4) | (uint64_t)1 << 16 | (uint64_t)(1024 >> 4) << 32 | (uint64_t)1 << 62;
}

// The accumulator registers as operands %0, %1, ... of the assembly: their names (NAMES), and the variables (SUM).
#define NAMES_0   "%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,%14,%15"
#define NAMES_1   "%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31"
#define NAMES_2   "%32,%33,%34,%35,%36,%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47"
#define NAMES_3   "%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,%61,%62,%63"
#define NAMES_4   "%64,%65,%66,%67,%68,%69,%70,%71,%72,%73,%74,%75,%76,%77,%78,%79"
#define NAMES_5   "%80,%81,%82,%83,%84,%85,%86,%87,%88,%89,%90,%91,%92,%93,%94,%95"
#define NAMES_6   "%96,%97,%98,%99,%100,%101,%102,%103,%104,%105,%106,%107,%108,%109,%110,%111"
#define NAMES_7   "%112,%113,%114,%115,%116,%117,%118,%119,%120,%121,%122,%123,%124,%125,%126,%127"
#define SUM_4(i)  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define SUM_16(i) SUM_4(16 * i), SUM_4(16 * i + 4), SUM_4(16 * i + 8), SUM_4(16 * i + 12)

// d[64,N] += a[64,16] b[N,16]^T, or = without `add`. a and b point to 16 columns of swizzled boxes in shared memory.
template <int N>
static __device__ __forceinline__ void wgmma(float (&d)[N / 2], const void *a, const void *b, bool add);
// Defines wgmma<N>. names: of all accumulator registers; at_a, at_b, at_add: the numbers of the operands after them.
#define WGMMA(N, names, at_a, at_b, at_add, ...)                                                                       \
    template <> __device__ __forceinline__ void wgmma<N>(float(&d)[N / 2], const void *a, const void *b, bool add) {   \
        asm volatile("{\n"                                                                                             \
                     ".reg .pred add;\n"                                                                               \
                     "setp.ne.b32 add, %" #at_add ", 0;\n"                                                             \
                     "wgmma.mma_async.sync.aligned.m64n" #N "k16.f32.bf16.bf16 {" names "}, %" #at_a ", %" #at_b       \
                     ", add, 1, 1, 0, 0;\n"                                                                            \
                     "}"                                                                                               \
                     : __VA_ARGS__                                                                                     \
                     : "l"(wgmma_operand(a)), "l"(wgmma_operand(b)), "r"((int)add));                                   \
    }
WGMMA(128, NAMES_0 "," NAMES_1 "," NAMES_2 "," NAMES_3, 64, 65, 66, SUM_16(0), SUM_16(1), SUM_16(2), SUM_16(3))
WGMMA(160, NAMES_0 "," NAMES_1 "," NAMES_2 "," NAMES_3 "," NAMES_4, 80, 81, 82, SUM_16(0), SUM_16(1), SUM_16(2),
      SUM_16(3), SUM_16(4))
WGMMA(192, NAMES_0 "," NAMES_1 "," NAMES_2 "," NAMES_3 "," NAMES_4 "," NAMES_5, 96, 97, 98, SUM_16(0), SUM_16(1),
      SUM_16(2), SUM_16(3), SUM_16(4), SUM_16(5))
WGMMA(256, NAMES_0 "," NAMES_1 "," NAMES_2 "," NAMES_3 "," NAMES_4 "," NAMES_5 "," NAMES_6 "," NAMES_7, 128, 129, 130,
      SUM_16(0), SUM_16(1), SUM_16(2), SUM_16(3), SUM_16(4), SUM_16(5), SUM_16(6), SUM_16(7))

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
