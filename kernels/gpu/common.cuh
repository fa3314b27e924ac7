// Included by every kernel file: launching, dispatch on the storage type, 16-byte loads, reductions over a warp and a
// block.
//
// The same .cu files are compiled by nvcc for a GPU and by g++ against tests/emu, a CUDA runtime for the CPU. So
// kernels use only what both know: `static __global__` functions, SHARED arrays, the warp collectives with a full mask,
// ptx.cuh.
//
// A product and a sum are fused only where the code says fmaf (nvcc --fmad=false): the numerics contract depends on it.
#pragma once
#include "error.h"
#include "ops.h"
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#define WARP     32
#define FULL     0xffffffffu // every lane of a warp
#define MAX_GRID 65535       // blocks in y and z

typedef __nv_bfloat16 Bf16;

// Declare shared memory: SHARED(float, tile, [16][17]) an array of fixed size, SHARED_DYNAMIC the one whose size the
// launch gives. Both at least 16-byte aligned.
#ifdef GRPO_EMU
#define SHARED(type, name, dims)   EMU_SHARED(type, name, dims)
#define SHARED_DYNAMIC(type, name) type *name = (type *)emu_shared_dynamic()
#else
#define SHARED(type, name, dims) __shared__ __align__(16) type name dims
#define SHARED_DYNAMIC(type, name)                                                                                     \
    extern __shared__ __align__(128) unsigned char shared_dynamic_[];                                                  \
    type *name = (type *)shared_dynamic_
#endif

// ---- the device (cuda.cu) -------------------------------------------------------------------------------------------
cudaStream_t cuda_stream(Device *d);
int cuda_sm_count(Device *d);
bool cuda_overlaps(Device *d); // whether LAUNCH_EARLY starts kernels early
// Whether a kernel started by LAUNCH_EARLY may read x before wait_for_earlier(): it starts early, and no kernel that
// may still run then writes x (the constant memory of a graph: ops.h).
bool cuda_may_read_early(Device *d, Tensor x);
// Whether `status` is a failure. Records the first one in d->error: "rmsnorm: <what the runtime says>".
bool cuda_failed(Device *d, cudaError_t status, const char *what);

// ---- launching ------------------------------------------------------------------------------------------------------
// LAUNCH(d, kernel, grid, block, shared_bytes, arguments...) starts a kernel on the device's stream. An empty grid
// launches nothing. Template kernels go in parentheses: LAUNCH(d, (cast_kernel<float, Bf16>), ...).
#define LAUNCH(d, kernel, grid, block, shared, ...) launch(d, #kernel, false, kernel, grid, block, shared, __VA_ARGS__)

// LAUNCH_ON: LAUNCH on another stream than the device's.
#define LAUNCH_ON(d, stream, kernel, grid, block, shared, ...)                                                         \
    launch_on(d, stream, #kernel, false, kernel, grid, block, shared, __VA_ARGS__)

// LAUNCH_EARLY: LAUNCH for a kernel in which every block calls wait_for_earlier() before it touches anything that other
// kernels write. From Hopper on its blocks start while the kernel before it still runs (programmatic dependent launch).
#define LAUNCH_EARLY(d, kernel, grid, block, shared, ...)                                                              \
    launch(d, #kernel, cuda_overlaps(d), kernel, grid, block, shared, __VA_ARGS__)

// Waits until all kernels before this one are done; and lets the next kernel start as soon as every block of this one
// has got here. So a kernel ends after all kernels before it, and waiting for the last waits for all. Call it before
// reading weights too, which the optimizer writes: any kernel launched since one without LAUNCH_EARLY may still run.
// Only where cuda_may_read_early says so may they be read before.
static __device__ __forceinline__ void wait_for_earlier() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
    cudaTriggerProgrammaticLaunchCompletion();
    cudaGridDependencySynchronize();
#endif
}

// Lets a kernel have so much dynamic shared memory. A block gets 48 KiB without asking, fixed arrays included, which
// take at most 16 KiB in kernels that use both. False after recording an error.
static inline bool allow_shared(Device *d, const char *name, const void *kernel, size_t shared) {
    return shared <= 32 * 1024 ||
           !cuda_failed(d, cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)shared),
                        name);
}

template <typename... P, typename... A>
static void launch_on(Device *d, cudaStream_t stream, const char *name, bool early, void (*kernel)(P...), dim3 grid,
                      dim3 block, size_t shared, A... args) {
    if (d->error[0] || !grid.x || !grid.y || !grid.z) return;
    if (!allow_shared(d, name, (const void *)kernel, shared)) return;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = block;
    config.dynamicSmemBytes = shared;
    config.stream = stream;
    cudaLaunchAttribute attribute = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &attribute;
    config.numAttrs = early;
    cuda_failed(d, cudaLaunchKernelEx(&config, kernel, P(args)...), name);
}
template <typename... P, typename... A>
static void launch(Device *d, const char *name, bool early, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared,
                   A... args) {
    launch_on(d, cuda_stream(d), name, early, kernel, grid, block, shared, args...);
}

// DISPATCH(t, T, code): runs the code with T the C++ type of dtype t, f32 or bf16.
#define DISPATCH(t, T, ...)                                                                                            \
    do {                                                                                                               \
        if ((t) == F32) {                                                                                              \
            typedef float T;                                                                                           \
            __VA_ARGS__;                                                                                               \
        } else if ((t) == BF16) {                                                                                      \
            typedef Bf16 T;                                                                                            \
            __VA_ARGS__;                                                                                               \
        } else {                                                                                                       \
            die("%s: storage is f32 or bf16, not %s", __func__, dtype_name(t));                                        \
        }                                                                                                              \
    } while (0)
// DISPATCH on two types.
#define DISPATCH2(t, T, u, U, ...) DISPATCH(t, T, DISPATCH(u, U, __VA_ARGS__))

template <typename T> static T *data_of(Tensor x) { return (T *)x.data; }
static inline unsigned blocks_for(int64_t n, int64_t a_block) { return (unsigned)((n + a_block - 1) / a_block); }
// The grid of a grid-stride loop over n items: no more blocks than keep the card busy.
static inline unsigned grid_for(Device *d, int64_t n, int64_t a_block) {
    int64_t blocks = (n + a_block - 1) / a_block, most = (int64_t)cuda_sm_count(d) * 16;
    return (unsigned)(blocks < most ? blocks : most);
}
// The same for a kernel that is limited by memory: `blocks`, but no more of them than the card runs at once by their
// registers and shared memory, so that all start together and end together.
template <typename... P>
static unsigned resident_grid(Device *d, void (*kernel)(P...), unsigned threads, size_t shared, int64_t blocks) {
    int of_one = 0;
    const char *asking = "asking how many blocks run at once";
    if (!allow_shared(d, asking, (const void *)kernel, shared) ||
        cuda_failed(d, cudaOccupancyMaxActiveBlocksPerMultiprocessor(&of_one, kernel, (int)threads, shared), asking))
        return 0;
    int64_t most = (int64_t)cuda_sm_count(d) * of_one;
    return (unsigned)(blocks < most ? blocks : most);
}

// ---- elements -------------------------------------------------------------------------------------------------------
static __device__ __forceinline__ float to_float(float x) { return x; }
static __device__ __forceinline__ float to_float(Bf16 x) { return __bfloat162float(x); }
template <typename T> static __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ Bf16 from_float<Bf16>(float x) { return __float2bfloat16_rn(x); }

// 16 bytes of T, moved by one instruction: 4 floats or 8 bf16. Its address must be a multiple of 16 (aligned_rows).
template <typename T> struct alignas(16) Pack {
    static constexpr int N = 16 / (int)sizeof(T);
    T x[N];
};
template <typename T> static __device__ __forceinline__ Pack<T> load_pack(const T *p) { return *(const Pack<T> *)p; }
template <typename T> static __device__ __forceinline__ void store_pack(T *p, Pack<T> v) { *(Pack<T> *)p = v; }
// Whether rows of `width` elements that begin at p can be read in packs.
template <typename T> static bool aligned_rows(const T *p, int64_t width) {
    return (uintptr_t)p % 16 == 0 && width % Pack<T>::N == 0;
}

// ---- reductions -----------------------------------------------------------------------------------------------------
// warp_sum, warp_max: over the lanes of a warp; every lane gets the result. The order is fixed: lanes 16 apart first,
// then 8, 4, 2, 1.
static __device__ __forceinline__ float warp_sum(float x) {
    for (int k = WARP / 2; k; k /= 2) x += __shfl_xor_sync(FULL, x, k);
    return x;
}
static __device__ __forceinline__ double warp_sum(double x) {
    for (int k = WARP / 2; k; k /= 2) x += __shfl_xor_sync(FULL, x, k);
    return x;
}
static __device__ __forceinline__ float warp_max(float x) {
    for (int k = WARP / 2; k; k /= 2) x = fmaxf(x, __shfl_xor_sync(FULL, x, k));
    return x;
}
// The sum over a one-dimensional block of whole warps, at most 1024 threads; every thread gets it. Warps are added in
// ascending order. `room` is a shared array of 32, which may be used again after the next barrier.
template <typename F> static __device__ __forceinline__ F block_sum(F x, F *room) {
    int warp = (int)threadIdx.x / WARP, warps = (int)blockDim.x / WARP;
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) room[warp] = x;
    __syncthreads();
    F sum = room[0];
    for (int w = 1; w < warps; w++) sum += room[w];
    return sum;
}
