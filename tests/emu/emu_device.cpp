// The runtime API's devices and memory.
#include "emu_state.h"
#include "cuda.h"
#include "../ptx/ptx.h"
#include <sys/mman.h>

using namespace emu;

static size_t memory_size() { return (size_t)from_env("EMU_MEMORY_MIB", 16384) << 20; }

// ---- devices --------------------------------------------------------------------------------------------------------
// EMU_DRIVER: the CUDA version the driver knows (1000 major + 10 minor); 0: no driver.
cudaError_t cudaDriverGetVersion(int *version) {
    *version = (int)from_env("EMU_DRIVER", CUDART_VERSION);
    return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int *version) {
    *version = CUDART_VERSION;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int *n) {
    *n = 0;
    int driver;
    cudaDriverGetVersion(&driver);
    if (driver < CUDART_VERSION) return result(cudaErrorInsufficientDriver);
    int devices = (int)from_env("EMU_DEVICES", 1);
    if (devices <= 0) return result(cudaErrorNoDevice);
    *n = devices;
    return cudaSuccess;
}
cudaError_t emu::check_device(int device) {
    int n;
    cudaError_t e = cudaGetDeviceCount(&n);
    if (e != cudaSuccess) return e;
    return device < 0 || device >= n ? result(cudaErrorInvalidDevice) : cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
    cudaError_t e = check_device(device);
    if (e == cudaSuccess) device_now = device;
    return e;
}
cudaError_t cudaGetDevice(int *device) {
    *device = device_now;
    return cudaSuccess;
}
int emu::shared_most() { return (int)from_env("EMU_SHARED_KIB", 227) * 1024; }
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *p, int device) {
    cudaError_t e = check_device(device);
    if (e != cudaSuccess) return e;
    *p = {};
    snprintf(p->name, sizeof p->name, "emulated GPU");
    int arch = (int)from_env("EMU_ARCH", 80);
    p->major = arch / 10, p->minor = arch % 10;
    p->totalGlobalMem = memory_size();
    p->sharedMemPerBlock = 48 * 1024;
    p->sharedMemPerBlockOptin = (size_t)shared_most();
    p->sharedMemPerMultiprocessor = (size_t)shared_most() + 1024;
    p->totalConstMem = 64 * 1024;
    p->regsPerBlock = 65536;
    p->warpSize = 32;
    p->maxThreadsPerBlock = 1024;
    p->maxThreadsDim[0] = p->maxThreadsDim[1] = 1024, p->maxThreadsDim[2] = 64;
    p->maxGridSize[0] = INT_MAX, p->maxGridSize[1] = p->maxGridSize[2] = 65535;
    p->multiProcessorCount = (int)from_env("EMU_SMS", 4);
    p->maxThreadsPerMultiProcessor = 2048;
    p->l2CacheSize = 50 << 20;
    p->unifiedAddressing = p->concurrentKernels = p->asyncEngineCount = 1;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int *value, cudaDeviceAttr attribute, int device) {
    cudaDeviceProp p;
    cudaError_t e = cudaGetDeviceProperties(&p, device);
    if (e != cudaSuccess) return e;
    switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = p.maxThreadsPerBlock; break;
    case cudaDevAttrMultiProcessorCount: *value = p.multiProcessorCount; break;
    case cudaDevAttrComputeCapabilityMajor: *value = p.major; break;
    case cudaDevAttrComputeCapabilityMinor: *value = p.minor; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = (int)p.sharedMemPerBlockOptin; break;
    default: return result(cudaErrorInvalidValue);
    }
    return cudaSuccess;
}
// ---- the driver's API -----------------------------------------------------------------------------------------------
cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **function, unsigned, unsigned long long,
                                             cudaDriverEntryPointQueryResult *found) {
    bool known = !strcmp(name, "cuTensorMapEncodeTiled");
    *function = known ? (void *)cuTensorMapEncodeTiled : nullptr;
    *found = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}
// The rules are those of the driver's manual, for what is used here.
CUresult cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *address,
                                const cuuint64_t *size, const cuuint64_t *stride, const cuuint32_t *box,
                                const cuuint32_t *step, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                CUtensorMapL2promotion, CUtensorMapFloatOOBfill) {
    if (type != CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 || interleave || rank < 2 || rank > 5) return CUDA_ERROR_INVALID_VALUE;
    if ((uintptr_t)map % 64 || (uintptr_t)address % 16) return CUDA_ERROR_INVALID_VALUE;
    if (swizzle == CU_TENSOR_MAP_SWIZZLE_128B && box[0] * 2 > 128) return CUDA_ERROR_INVALID_VALUE;
    ptx::TensorMap m;
    m.magic = ptx::TENSOR_MAP, m.rank = rank, m.address = (uint64_t)address, m.swizzle = (uint8_t)swizzle;
    m.type = 10; // bf16, as tensormap.replace counts
    for (cuuint32_t k = 0; k < rank; k++) {
        bool wrong = !size[k] || size[k] > 1ull << 32 || !box[k] || box[k] > 256 || step[k] != 1;
        if (wrong || (k && (!stride[k - 1] || stride[k - 1] % 16 || stride[k - 1] >= 1ull << 40)))
            return CUDA_ERROR_INVALID_VALUE;
        m.dim[k] = (uint32_t)size[k], m.box[k] = box[k], m.step[k] = step[k];
        if (k) m.stride[k - 1] = stride[k - 1];
    }
    memcpy((void *)map, &m, sizeof m);
    return CUDA_SUCCESS;
}

cudaError_t cudaDeviceSynchronize(void) {
    if (EmuStream *s = recording()) return spoil(s);
    finish_device();
    return failed_already();
}
cudaError_t cudaDeviceReset(void) { return cudaDeviceSynchronize(); }

// ---- memory ---------------------------------------------------------------------------------------------------------
static cudaError_t allocate(void **p, size_t bytes, cudaMemoryType type) {
    *p = nullptr;
    if (sticky != cudaSuccess) return failed_already();
    cudaError_t e = check_device(device_now);
    if (e != cudaSuccess) return e;
    if (EmuStream *s = recording()) return spoil(s);
    if (bytes == 0) return cudaSuccess;
    std::lock_guard<std::mutex> hold(state_lock);
    if (fail_alloc > 0 && --fail_alloc == 0) return result(cudaErrorMemoryAllocation);
    if (type == cudaMemoryTypeDevice && bytes > memory_size() - device_bytes) return result(cudaErrorMemoryAllocation);
    void *q = nullptr;
    bool in_pages = guarded && type == cudaMemoryTypeDevice;
    if (in_pages ? !(q = take_pages(bytes)) : posix_memalign(&q, 256, bytes) != 0)
        return result(cudaErrorMemoryAllocation);
    // What was never written is NaN. Large memory is fresh from the system, zero: filling it would take it all.
    if (bytes <= (size_t)1 << 20) memset(q, 0xff, bytes);
    if (in_pages && !working) mprotect(q, pages(bytes), PROT_NONE);
    ranges[(uintptr_t)q] = {bytes, type, device_now};
    if (type == cudaMemoryTypeDevice) device_bytes += bytes;
    *p = q;
    return cudaSuccess;
}
static cudaError_t give_back(void *p, cudaMemoryType type) {
    if (!p) return cudaSuccess;
    if (EmuStream *s = recording()) return spoil(s);
    finish_device(); // as the real one does
    size_t bytes;
    {
        std::lock_guard<std::mutex> hold(state_lock);
        auto at = ranges.find((uintptr_t)p);
        if (at == ranges.end() || at->second.type != type) return result(cudaErrorInvalidValue);
        bytes = at->second.bytes;
        if (type == cudaMemoryTypeDevice) device_bytes -= bytes;
        ranges.erase(at);
    }
    if (guarded && type == cudaMemoryTypeDevice) munmap(p, pages(bytes));
    else free(p);
    return failed_already();
}
cudaError_t cudaMalloc(void **p, size_t bytes) { return allocate(p, bytes, cudaMemoryTypeDevice); }
cudaError_t cudaFree(void *p) { return give_back(p, cudaMemoryTypeDevice); }
cudaError_t cudaMallocHost(void **p, size_t bytes, unsigned) { return allocate(p, bytes, cudaMemoryTypeHost); }
cudaError_t cudaHostAlloc(void **p, size_t bytes, unsigned) { return allocate(p, bytes, cudaMemoryTypeHost); }
cudaError_t cudaFreeHost(void *p) { return give_back(p, cudaMemoryTypeHost); }
cudaError_t cudaHostRegister(void *p, size_t bytes, unsigned) {
    if (!p || !bytes) return result(cudaErrorInvalidValue);
    std::lock_guard<std::mutex> hold(state_lock);
    uintptr_t start;
    const Range *r = find_range(p, &start);
    if (r && (uintptr_t)p < start + r->bytes) return result(cudaErrorHostMemoryAlreadyRegistered);
    ranges[(uintptr_t)p] = {bytes, cudaMemoryTypeHost, device_now};
    return cudaSuccess;
}
cudaError_t cudaHostUnregister(void *p) {
    finish_device();
    std::lock_guard<std::mutex> hold(state_lock);
    return ranges.erase((uintptr_t)p) ? cudaSuccess : result(cudaErrorHostMemoryNotRegistered);
}
cudaError_t cudaHostGetDevicePointer(void **device, void *p, unsigned) {
    *device = p;
    return type_of(p) == cudaMemoryTypeHost ? cudaSuccess : result(cudaErrorInvalidValue);
}
cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *all) {
    std::lock_guard<std::mutex> hold(state_lock);
    *all = memory_size();
    *free_bytes = *all - device_bytes;
    return cudaSuccess;
}
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes *a, const void *p) {
    std::lock_guard<std::mutex> hold(state_lock);
    uintptr_t start;
    const Range *r = find_range(p, &start);
    if (r && (uintptr_t)p == start + r->bytes) r = nullptr; // its end is not in it
    *a = {};
    a->device = -2;
    if (!r) {
        a->hostPointer = (void *)p;
        return cudaSuccess;
    }
    a->type = r->type;
    a->device = r->device;
    a->devicePointer = (void *)p;
    a->hostPointer = r->type == cudaMemoryTypeHost ? (void *)p : nullptr;
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *p, int value, size_t bytes, cudaStream_t stream) {
    if (bytes && type_of(p) == cudaMemoryTypeUnregistered) return result(cudaErrorInvalidValue);
    return emu_submit(stream, [=] {
        if (bytes) memset(p, value, bytes);
    });
}
cudaError_t cudaMemset(void *p, int value, size_t bytes) { return cudaMemsetAsync(p, value, bytes, nullptr); }

static bool kind_fits(cudaMemcpyKind kind, bool to_device, bool from_device) {
    switch (kind) {
    case cudaMemcpyHostToHost: return !to_device && !from_device;
    case cudaMemcpyHostToDevice: return to_device && !from_device;
    case cudaMemcpyDeviceToHost: return !to_device && from_device;
    case cudaMemcpyDeviceToDevice: return to_device && from_device;
    default: return true;
    }
}
cudaError_t cudaMemcpy2DAsync(void *dst, size_t dst_pitch, const void *src, size_t src_pitch, size_t width,
                              size_t height, cudaMemcpyKind kind, cudaStream_t stream) {
    if (!width || !height) return cudaSuccess;
    cudaMemoryType to = type_of(dst), from = type_of(src);
    if (!kind_fits(kind, to == cudaMemoryTypeDevice, from == cudaMemoryTypeDevice) ||
        (height > 1 && (width > dst_pitch || width > src_pitch)))
        return result(cudaErrorInvalidValue);
    EmuStream *s = stream_of(stream);
    // Pageable memory is read at once and written before the call returns; what is pinned, whenever the stream gets
    // there.
    if (from == cudaMemoryTypeUnregistered && !s->graph && deferred) {
        std::vector<char> staged(width * height);
        for (size_t r = 0; r < height; r++) memcpy(&staged[r * width], (const char *)src + r * src_pitch, width);
        cudaError_t e = emu_submit(stream, [=] {
            for (size_t r = 0; r < height; r++) memcpy((char *)dst + r * dst_pitch, &staged[r * width], width);
        });
        if (e != cudaSuccess || to != cudaMemoryTypeUnregistered) return e;
    } else {
        cudaError_t e = emu_submit(stream, [=] {
            for (size_t r = 0; r < height; r++)
                memmove((char *)dst + r * dst_pitch, (const char *)src + r * src_pitch, width);
        });
        if (e != cudaSuccess || to != cudaMemoryTypeUnregistered || s->graph) return e;
    }
    finish(s);
    return failed_already();
}
cudaError_t cudaMemcpyAsync(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    return cudaMemcpy2DAsync(dst, bytes, src, bytes, bytes, 1, kind, stream);
}
cudaError_t cudaMemcpy(void *dst, const void *src, size_t bytes, cudaMemcpyKind kind) {
    cudaError_t e = cudaMemcpyAsync(dst, src, bytes, kind, nullptr);
    return e == cudaSuccess ? cudaStreamSynchronize(nullptr) : e;
}
