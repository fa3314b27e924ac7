// CUDA's runtime API and the C++ of its kernels, as far as kernels/*.cu use them, on the CPU: what nvcc and libcudart
// declare, declared for g++. README.md tells what is behind it.
#pragma once
#include "emu.h"
#include <float.h>
#include <limits.h>
#include <math.h>
#include <functional>
#include <memory>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>
#include <stdint.h>
#include <stdbool.h>

#define __host__
#define __device__
#define __global__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__    __attribute__((noinline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))
#ifndef __restrict__
#define __restrict__ __restrict
#endif

#define CUDART_VERSION 13000

// ---- vector types ---------------------------------------------------------------------------------------------------
#define EMU_VECTOR(T, name, alignment)                                                                                 \
    struct name##1 {                                                                                                   \
        T x;                                                                                                           \
    };                                                                                                                 \
    struct alignas(2 * sizeof(T)) name##2 {                                                                            \
        T x, y;                                                                                                        \
    };                                                                                                                 \
    struct name##3 {                                                                                                   \
        T x, y, z;                                                                                                     \
    };                                                                                                                 \
    struct alignas(alignment) name##4 {                                                                                \
        T x, y, z, w;                                                                                                  \
    };                                                                                                                 \
    static inline name##1 make_##name##1(T x) { return {x}; }                                                          \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }                                                  \
    static inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }                                          \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
EMU_VECTOR(signed char, char, 4)
EMU_VECTOR(unsigned char, uchar, 4)
EMU_VECTOR(short, short, 8)
EMU_VECTOR(unsigned short, ushort, 8)
EMU_VECTOR(int, int, 16)
EMU_VECTOR(unsigned, uint, 16)
EMU_VECTOR(long long, longlong, 16)
EMU_VECTOR(unsigned long long, ulonglong, 16)
EMU_VECTOR(float, float, 16)
EMU_VECTOR(double, double, 16)

struct dim3 {
    unsigned x, y, z;
    constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
    constexpr dim3(uint3 v) : x(v.x), y(v.y), z(v.z) {}
};

// ---- errors ---------------------------------------------------------------------------------------------------------
typedef enum cudaError {
    cudaSuccess = 0,
    cudaErrorInvalidValue = 1,
    cudaErrorMemoryAllocation = 2,
    cudaErrorInitializationError = 3,
    cudaErrorInvalidConfiguration = 9,
    cudaErrorInvalidSymbol = 13,
    cudaErrorInvalidDevicePointer = 17,
    cudaErrorInsufficientDriver = 35,
    cudaErrorInvalidDeviceFunction = 98,
    cudaErrorNoDevice = 100,
    cudaErrorInvalidDevice = 101,
    cudaErrorNoKernelImageForDevice = 209,
    cudaErrorInvalidResourceHandle = 400,
    cudaErrorNotReady = 600,
    cudaErrorIllegalAddress = 700,
    cudaErrorLaunchOutOfResources = 701,
    cudaErrorHostMemoryAlreadyRegistered = 712,
    cudaErrorHostMemoryNotRegistered = 713,
    cudaErrorLaunchFailure = 719,
    cudaErrorNotSupported = 801,
    cudaErrorStreamCaptureUnsupported = 900,
    cudaErrorStreamCaptureInvalidated = 901,
    cudaErrorStreamCaptureUnmatched = 903,
    cudaErrorUnknown = 999,
} cudaError_t;
const char *cudaGetErrorString(cudaError_t e);
const char *cudaGetErrorName(cudaError_t e);
cudaError_t cudaGetLastError(void);
cudaError_t cudaPeekAtLastError(void);

// ---- devices --------------------------------------------------------------------------------------------------------
struct cudaDeviceProp {
    char name[256];
    size_t totalGlobalMem, sharedMemPerBlock, sharedMemPerBlockOptin, sharedMemPerMultiprocessor, totalConstMem;
    int regsPerBlock, warpSize, maxThreadsPerBlock, maxThreadsDim[3], maxGridSize[3], major, minor;
    int multiProcessorCount, maxThreadsPerMultiProcessor, l2CacheSize, memoryBusWidth, ECCEnabled, pciBusID;
    int integrated, unifiedAddressing, asyncEngineCount, concurrentKernels;
};
enum cudaDeviceAttr {
    cudaDevAttrMaxThreadsPerBlock = 1,
    cudaDevAttrMultiProcessorCount = 16,
    cudaDevAttrComputeCapabilityMajor = 75,
    cudaDevAttrComputeCapabilityMinor = 76,
    cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
cudaError_t cudaGetDeviceCount(int *n);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaGetDevice(int *device);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device);
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device);
cudaError_t cudaDriverGetVersion(int *version);
cudaError_t cudaRuntimeGetVersion(int *version);
cudaError_t cudaDeviceSynchronize(void);
cudaError_t cudaDeviceReset(void);

enum cudaDriverEntryPointQueryResult { cudaDriverEntryPointSuccess = 0, cudaDriverEntryPointSymbolNotFound = 1 };
#define cudaEnableDefault 0
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned version,
                                             unsigned long long flags, cudaDriverEntryPointQueryResult *found);

// ---- memory ---------------------------------------------------------------------------------------------------------
enum cudaMemcpyKind {
    cudaMemcpyHostToHost,
    cudaMemcpyHostToDevice,
    cudaMemcpyDeviceToHost,
    cudaMemcpyDeviceToDevice,
    cudaMemcpyDefault
};
enum cudaMemoryType { cudaMemoryTypeUnregistered, cudaMemoryTypeHost, cudaMemoryTypeDevice, cudaMemoryTypeManaged };
struct cudaPointerAttributes {
    cudaMemoryType type;
    int device;
    void *devicePointer, *hostPointer;
};
#define cudaHostAllocDefault     0
#define cudaHostAllocPortable    1
#define cudaHostAllocMapped      2
#define cudaHostRegisterDefault  0
#define cudaHostRegisterPortable 1
typedef struct EmuStream *cudaStream_t;
typedef struct EmuEvent *cudaEvent_t;

cudaError_t cudaMalloc(void **p, size_t bytes);
cudaError_t cudaFree(void *p);
cudaError_t cudaMallocHost(void **p, size_t bytes, unsigned flags = 0);
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned flags);
cudaError_t cudaFreeHost(void *p);
cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned flags);
cudaError_t cudaHostUnregister(void *p);
cudaError_t cudaHostGetDevicePointer(void **device, void *host, unsigned flags);
cudaError_t cudaMemGetInfo(size_t *free, size_t *total);
cudaError_t cudaMemset(void *p, int value, size_t bytes);
cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream = nullptr);
cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind);
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream = nullptr);
cudaError_t cudaMemcpy2DAsync(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream = nullptr);
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *a, const void *p);
template <typename T> static inline cudaError_t cudaMalloc(T **p, size_t bytes) {
    return cudaMalloc((void **)p, bytes);
}
template <typename T> static inline cudaError_t cudaMallocHost(T **p, size_t bytes, unsigned flags = 0) {
    return cudaMallocHost((void **)p, bytes, flags);
}
template <typename T> static inline cudaError_t cudaHostAlloc(T **p, size_t bytes, unsigned flags) {
    return cudaHostAlloc((void **)p, bytes, flags);
}
template <typename T> static inline cudaError_t cudaMemcpyToSymbol(T &symbol, const void *src, size_t bytes) {
    return cudaMemcpy(&symbol, src, bytes, cudaMemcpyDefault);
}

// ---- streams, events, graphs ----------------------------------------------------------------------------------------
#define cudaStreamDefault      0
#define cudaStreamNonBlocking  1
#define cudaStreamLegacy       ((cudaStream_t)0)
#define cudaEventDefault       0
#define cudaEventBlockingSync  1
#define cudaEventDisableTiming 2
#define cudaEventWaitDefault   0
cudaError_t cudaStreamCreate(cudaStream_t *s);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned flags);
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int priority);
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest);
cudaError_t cudaStreamDestroy(cudaStream_t s);
cudaError_t cudaStreamSynchronize(cudaStream_t s);
cudaError_t cudaStreamQuery(cudaStream_t s);
cudaError_t cudaStreamWaitEvent(cudaStream_t s, cudaEvent_t e, unsigned flags = 0);
typedef void (*cudaHostFn_t)(void *data);
cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t f, void *data);
cudaError_t cudaEventCreate(cudaEvent_t *e);
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned flags);
cudaError_t cudaEventDestroy(cudaEvent_t e);
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t s = nullptr);
cudaError_t cudaEventSynchronize(cudaEvent_t e);
cudaError_t cudaEventQuery(cudaEvent_t e);
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to);

typedef struct EmuGraph *cudaGraph_t;
typedef struct EmuGraphExec *cudaGraphExec_t;
enum cudaStreamCaptureMode {
    cudaStreamCaptureModeGlobal,
    cudaStreamCaptureModeThreadLocal,
    cudaStreamCaptureModeRelaxed
};
enum cudaStreamCaptureStatus {
    cudaStreamCaptureStatusNone,
    cudaStreamCaptureStatusActive,
    cudaStreamCaptureStatusInvalidated
};
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode mode);
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g);
cudaError_t cudaStreamIsCapturing(cudaStream_t s, cudaStreamCaptureStatus *status);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long flags = 0);
cudaError_t cudaGraphGetNodes(cudaGraph_t g, void **nodes, size_t *n);
cudaError_t cudaGraphUpload(cudaGraphExec_t x, cudaStream_t s);
cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x);
cudaError_t cudaGraphDestroy(cudaGraph_t g);

// ---- launches -------------------------------------------------------------------------------------------------------
enum cudaFuncAttribute {
    cudaFuncAttributeMaxDynamicSharedMemorySize = 8,
    cudaFuncAttributePreferredSharedMemoryCarveout = 9
};
struct cudaFuncAttributes {
    size_t sharedSizeBytes, constSizeBytes, localSizeBytes;
    int maxThreadsPerBlock, numRegs, ptxVersion, binaryVersion, maxDynamicSharedSizeBytes;
};
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *a, const void *kernel);
cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value);

enum cudaLaunchAttributeID {
    cudaLaunchAttributeIgnore = 0,
    cudaLaunchAttributePriority = 8,
    cudaLaunchAttributeProgrammaticStreamSerialization = 6
};
struct cudaLaunchAttribute {
    cudaLaunchAttributeID id;
    union {
        int programmaticStreamSerializationAllowed, priority;
    } val;
};
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    size_t dynamicSmemBytes;
    cudaStream_t stream;
    cudaLaunchAttribute *attrs;
    unsigned numAttrs;
};
// Checks the launch as the hardware does and puts it into its stream; `body` runs one thread of the kernel, and
// `params` are its arguments as a GPU gets them, for the machine of tests/ptx.
// What this thread launches from now on does not write those bytes, so that it may read them before
// cudaGridDependencySynchronize. The machine for PTX holds it to that.
void emu_constant(const void *p, size_t bytes);
cudaError_t emu_launch(const cudaLaunchConfig_t *config, const void *kernel, std::function<void()> body,
                       std::vector<unsigned char> params);
template <typename T> static inline void emu_pack(std::vector<unsigned char> &params, const T &value) {
    size_t at = (params.size() + alignof(T) - 1) / alignof(T) * alignof(T);
    params.resize(at + sizeof(T));
    memcpy(&params[at], (const void *)&value, sizeof(T));
}
// Refuses an argument that points into memory the host alone can reach.
cudaError_t emu_check_pointer(const void *kernel, int argument, const void *p);

template <typename T> static inline cudaError_t emu_check_argument(const void *kernel, int argument, const T &value) {
    if constexpr (std::is_pointer_v<T>)
        if constexpr (!std::is_function_v<std::remove_pointer_t<T>>)
            return emu_check_pointer(kernel, argument, (const void *)value);
    return cudaSuccess;
}
template <typename... P, typename... A>
static inline cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t *config, void (*kernel)(P...), A &&...args) {
    std::tuple<std::decay_t<P>...> values(std::forward<A>(args)...);
    int k = 0;
    cudaError_t bad = cudaSuccess;
    std::apply(
        [&](const auto &...value) {
            ((bad = bad != cudaSuccess ? bad : emu_check_argument((const void *)kernel, k++, value)), ...);
        },
        values);
    if (bad != cudaSuccess) return bad;
    std::vector<unsigned char> params;
    std::apply([&](const auto &...value) { (emu_pack(params, value), ...); }, values);
    return emu_launch(
        config, (const void *)kernel, [kernel, values] { std::apply(kernel, values); }, std::move(params));
}
// How many blocks of so many threads and so much dynamic shared memory a multiprocessor runs at once.
int emu_blocks_at_once(const void *kernel, int threads, size_t shared);
template <typename F>
static inline cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int *blocks, F kernel, int threads,
                                                                        size_t shared) {
    *blocks = emu_blocks_at_once((const void *)kernel, threads, shared);
    return cudaSuccess;
}

// ---- inside a kernel ------------------------------------------------------------------------------------------------
// The running thread's place. `site` arguments name the source line of a collective in diagnostics.
extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
static const int warpSize = 32;

struct EmuSite {
    const char *file;
    int line;
};
#define EMU_SITE       EmuSite site = {__builtin_FILE(), __builtin_LINE()}
#define EMU_EVERY_LANE 0xffffffffu
[[noreturn]] void emu_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

// Shared arrays. A fixed one lives in static storage, where AddressSanitizer guards it, and is filled with NaN when the
// first thread of a block meets it; so is the dynamic one when a block begins.
#define EMU_SHARED(type, name, dims)                                                                                   \
    static type name dims __attribute__((aligned(16)));                                                                \
    static uint64_t name##_block_;                                                                                     \
    emu_shared_fixed(&name##_block_, (void *)&name, sizeof(name))
extern uint64_t emu_block_number;
void emu_shared_fill(uint64_t *block, void *p, size_t bytes);
static inline void emu_shared_fixed(uint64_t *block, void *p, size_t bytes) {
    if (*block != emu_block_number) emu_shared_fill(block, p, bytes);
}
void *emu_shared_dynamic(void);
// Whether all of p[0..bytes) is the running block's shared memory.
bool emu_is_shared(const void *p, size_t bytes);

// Barriers of the block. `what` 0: no result; else or, and, count of the predicate.
int emu_barrier(int what, int predicate, EmuSite site);
static inline void emu_syncthreads(EMU_SITE) { emu_barrier(0, 0, site); }
static inline int emu_syncthreads_or(int p, EMU_SITE) { return emu_barrier(1, p, site); }
static inline int emu_syncthreads_and(int p, EMU_SITE) { return emu_barrier(2, p, site); }
static inline int emu_syncthreads_count(int p, EMU_SITE) { return emu_barrier(3, p, site); }
#define __syncthreads       emu_syncthreads
#define __syncthreads_or    emu_syncthreads_or
#define __syncthreads_and   emu_syncthreads_and
#define __syncthreads_count emu_syncthreads_count

// A collective of a warp: every lane of `mask` brings its `room`; the last to arrive runs resolve on all of them (NULL
// where a lane is not in the mask), then all go on. All must bring the same resolve, mask and site.
typedef void (*EmuResolve)(void *room[32]);
void emu_collect(const char *name, unsigned mask, void *room, EmuResolve resolve, EmuSite site);
static inline void emu_syncwarp(unsigned mask = EMU_EVERY_LANE, EMU_SITE) {
    emu_collect("__syncwarp", mask, &mask, nullptr, site);
}
#define __syncwarp emu_syncwarp

template <typename T> struct EmuShuffle {
    T value, result;
    int from; // lane, or -1: the own value
};
template <typename T> static void emu_resolve_shuffle(void *room[32]) {
    for (int lane = 0; lane < 32; lane++) {
        EmuShuffle<T> *s = (EmuShuffle<T> *)room[lane];
        if (!s) continue;
        EmuShuffle<T> *from = s->from < 0 ? s : (EmuShuffle<T> *)room[s->from];
        if (from) s->result = from->value;
        else memset((void *)&s->result, 0xff, sizeof s->result); // a lane that takes no part has nothing to give
    }
}
int emu_lane(void);
template <typename T> static inline T emu_shuffle(const char *name, unsigned mask, T value, int from, EmuSite site) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8 || sizeof(T) == 2, "a shuffle moves 2, 4 or 8 bytes");
    EmuShuffle<T> s = {value, value, from};
    emu_collect(name, mask, &s, emu_resolve_shuffle<T>, site);
    return s.result;
}
template <typename T> static inline T __shfl_sync(unsigned mask, T value, int from, int width = 32, EMU_SITE) {
    int first = emu_lane() & ~(width - 1);
    return emu_shuffle("__shfl_sync", mask, value, first + (from & (width - 1)), site);
}
template <typename T> static inline T __shfl_xor_sync(unsigned mask, T value, int bits, int width = 32, EMU_SITE) {
    int lane = emu_lane(), from = lane ^ bits;
    return emu_shuffle("__shfl_xor_sync", mask, value, from < (lane & ~(width - 1)) + width ? from : -1, site);
}
template <typename T> static inline T __shfl_up_sync(unsigned mask, T value, unsigned by, int width = 32, EMU_SITE) {
    int lane = emu_lane(), from = lane - (int)by;
    return emu_shuffle("__shfl_up_sync", mask, value, from >= (lane & ~(width - 1)) ? from : -1, site);
}
template <typename T> static inline T __shfl_down_sync(unsigned mask, T value, unsigned by, int width = 32, EMU_SITE) {
    int lane = emu_lane(), from = lane + (int)by;
    return emu_shuffle("__shfl_down_sync", mask, value, from < (lane & ~(width - 1)) + width ? from : -1, site);
}
unsigned emu_ballot(const char *name, unsigned mask, int predicate, EmuSite site);
static inline unsigned __ballot_sync(unsigned mask, int p, EMU_SITE) {
    return emu_ballot("__ballot_sync", mask, p, site);
}
static inline int __any_sync(unsigned mask, int p, EMU_SITE) { return emu_ballot("__any_sync", mask, p, site) != 0; }
static inline int __all_sync(unsigned mask, int p, EMU_SITE) { return emu_ballot("__all_sync", mask, !p, site) == 0; }

template <typename T> struct EmuReduce {
    T value, result;
    int how; // 0 sum, 1 minimum, 2 maximum, 3 and, 4 or, 5 xor
};
template <typename T> static void emu_resolve_reduce(void *room[32]) {
    T all = 0;
    bool first = true;
    for (int lane = 0; lane < 32; lane++) {
        EmuReduce<T> *r = (EmuReduce<T> *)room[lane];
        if (!r) continue;
        T v = r->value;
        switch (r->how) {
        case 0: all = (T)((unsigned)all + (unsigned)v); break;
        case 1: all = first || v < all ? v : all; break;
        case 2: all = first || v > all ? v : all; break;
        case 3: all = first ? v : (T)(all & v); break;
        case 4: all |= v; break;
        default: all ^= v;
        }
        first = false;
    }
    for (int lane = 0; lane < 32; lane++)
        if (room[lane]) ((EmuReduce<T> *)room[lane])->result = all;
}
template <typename T> static inline T emu_reduce(const char *name, unsigned mask, T v, int how, EmuSite site) {
    static_assert(sizeof(T) == 4 && std::is_integral_v<T>, "reductions of a warp are of 32-bit integers");
    EmuReduce<T> r = {v, v, how};
    emu_collect(name, mask, &r, emu_resolve_reduce<T>, site);
    return r.result;
}
#define EMU_REDUCE(name, how)                                                                                          \
    template <typename T> static inline T name(unsigned mask, T v, EMU_SITE) {                                         \
        return emu_reduce(#name, mask, v, how, site);                                                                  \
    }
EMU_REDUCE(__reduce_add_sync, 0)
EMU_REDUCE(__reduce_min_sync, 1)
EMU_REDUCE(__reduce_max_sync, 2)
EMU_REDUCE(__reduce_and_sync, 3)
EMU_REDUCE(__reduce_or_sync, 4)
EMU_REDUCE(__reduce_xor_sync, 5)

// Threads change only at barriers and collectives, so atomics need no more than the operation. Float atomics are left
// out on purpose: their order is not fixed.
#define EMU_ATOMIC(name, expression)                                                                                   \
    template <typename T> static inline T name(T *p, std::common_type_t<T> v) {                                        \
        static_assert(std::is_integral_v<T>, #name " is for integers");                                                \
        T old = *p;                                                                                                    \
        *p = (T)(expression);                                                                                          \
        return old;                                                                                                    \
    }
EMU_ATOMIC(atomicAdd, (std::make_unsigned_t<T>)old + (std::make_unsigned_t<T>)v)
EMU_ATOMIC(atomicSub, (std::make_unsigned_t<T>)old - (std::make_unsigned_t<T>)v)
EMU_ATOMIC(atomicMax, old > v ? old : v)
EMU_ATOMIC(atomicMin, old < v ? old : v)
EMU_ATOMIC(atomicExch, v)
EMU_ATOMIC(atomicAnd, old &v)
EMU_ATOMIC(atomicOr, old | v)
EMU_ATOMIC(atomicXor, old ^ v)
EMU_ATOMIC(atomicInc, old >= v ? 0 : old + 1)
EMU_ATOMIC(atomicDec, old == 0 || old > v ? v : old - 1)
template <typename T> static inline T atomicCAS(T *p, std::common_type_t<T> expected, std::common_type_t<T> v) {
    T old = *p;
    if (old == expected) *p = v;
    return old;
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}
static inline void __threadfence_system() {}
// Lets the block's other threads run. Waiting for another block never ends here: blocks run one after another.
void emu_yield(void);
static inline void __nanosleep(unsigned) { emu_yield(); }
[[noreturn]] static inline void __trap() { emu_fail("__trap"); }
unsigned __activemask() __attribute__((error("which lanes are active is up to the compiler: name them in a mask")));
static inline long long clock64() { return 0; }
static inline void cudaGridDependencySynchronize() {}
static inline void cudaTriggerProgrammaticLaunchCompletion() {}

// ---- arithmetic -----------------------------------------------------------------------------------------------------
template <typename To, typename From> static inline To emu_bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "bits change their name, not their number");
    To y;
    memcpy((void *)&y, &x, sizeof y);
    return y;
}
static inline int __float_as_int(float x) { return emu_bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return emu_bits<unsigned>(x); }
static inline float __int_as_float(int x) { return emu_bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return emu_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return emu_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return emu_bits<double>(x); }

static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll((unsigned long long)x) : 64; }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline unsigned __brev(unsigned x) {
    unsigned y = 0;
    for (int i = 0; i < 32; i++) y |= (x >> i & 1u) << (31 - i);
    return y;
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((unsigned long long)a * b >> 32); }
static inline int __mulhi(int a, int b) { return (int)((long long)a * b >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)((unsigned __int128)a * b >> 64);
}
static inline unsigned __funnelshift_l(unsigned low, unsigned high, unsigned by) {
    return (unsigned)((((unsigned long long)high << 32 | low) << (by & 31)) >> 32);
}
static inline unsigned __funnelshift_r(unsigned low, unsigned high, unsigned by) {
    return (unsigned)(((unsigned long long)high << 32 | low) >> (by & 31));
}
static inline unsigned __byte_perm(unsigned a, unsigned b, unsigned select) {
    unsigned long long both = (unsigned long long)b << 32 | a;
    unsigned y = 0;
    for (int i = 0; i < 4; i++) {
        unsigned s = select >> 4 * i & 0xf, byte = (unsigned)(both >> 8 * (s & 7)) & 0xff;
        if (s & 8) byte = byte & 0x80 ? 0xff : 0;
        y |= byte << 8 * i;
    }
    return y;
}

#define EMU_MIN_MAX(T)                                                                                                 \
    static inline T min(T a, T b) { return b < a ? b : a; }                                                            \
    static inline T max(T a, T b) { return a < b ? b : a; }
EMU_MIN_MAX(int)
EMU_MIN_MAX(unsigned)
EMU_MIN_MAX(long)
EMU_MIN_MAX(unsigned long)
EMU_MIN_MAX(long long)
EMU_MIN_MAX(unsigned long long)
static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

static inline float rsqrtf(float x) { return (float)(1 / sqrt((double)x)); }
static inline double rsqrt(double x) { return 1 / sqrt(x); }
// The fast variants. (glibc keeps functions of these names to itself.)
#define __expf    expf
#define __exp10f  exp10f
#define __logf    logf
#define __log2f   log2f
#define __log10f  log10f
#define __sinf    sinf
#define __cosf    cosf
#define __tanf    tanf
#define __powf    powf
#define __sincosf sincosf
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline float __frcp_rn(float x) { return 1 / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __frsqrt_rn(float x) { return rsqrtf(x); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }
static inline float __saturatef(float x) { return x > 0 ? x < 1 ? x : 1.0f : 0.0f; }
static inline float __double2float_rn(double x) { return (float)x; }
static inline float __int2float_rn(int x) { return (float)x; }
static inline float __uint2float_rn(unsigned x) { return (float)x; }
static inline float __ll2float_rn(long long x) { return (float)x; }
static inline double __int2double_rn(int x) { return (double)x; }
static inline double __ll2double_rn(long long x) { return (double)x; }
static inline int __float2int_rn(float x) { return (int)rintf(x); }
static inline int __float2int_rd(float x) { return (int)floorf(x); }
static inline int __float2int_rz(float x) { return (int)x; }
static inline unsigned __float2uint_rn(float x) { return (unsigned)rintf(x); }

template <typename T> static inline T __ldg(const T *p) { return *p; }
template <typename T> static inline T __ldcs(const T *p) { return *p; }
template <typename T> static inline T __ldcg(const T *p) { return *p; }
template <typename T> static inline T __ldca(const T *p) { return *p; }
template <typename T> static inline T __ldcv(const T *p) { return *p; }
template <typename T> static inline T __ldlu(const T *p) { return *p; }
template <typename T> static inline void __stcs(T *p, T v) { *p = v; }
template <typename T> static inline void __stcg(T *p, T v) { *p = v; }
template <typename T> static inline void __stwb(T *p, T v) { *p = v; }
template <typename T> static inline void __stwt(T *p, T v) { *p = v; }
