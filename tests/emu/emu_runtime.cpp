// The runtime API: devices, memory, streams, events, graphs, launches.
#include "emu_internal.h"
#include "cuda.h"
#include "../ptx/ptx.h"
#include <atomic>
#include <chrono>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <sys/mman.h>
#include <thread>
#include <vector>

typedef std::function<bool()> Work; // false: not yet, ask again

struct EmuGraph {
    std::vector<Work> nodes;
};
struct EmuGraphExec {
    std::vector<Work> nodes;
};
struct EmuStream {
    std::recursive_mutex lock; // held while its work runs: work of a stream is in order
    std::deque<Work> work;
    EmuGraph *graph = nullptr;   // what it records into
    EmuStream *origin = nullptr; // the stream whose capture it takes part in
    bool invalidated = false;
    int device = 0;
};
struct EmuEvent {
    std::atomic<int64_t> asked{0}, done{0};
    EmuStream *stream = nullptr;
    EmuStream *captured = nullptr; // recorded into the capture of this stream
    std::chrono::steady_clock::time_point time;
};

namespace {

struct Range {
    size_t bytes;
    cudaMemoryType type;
    int device;
};

std::mutex state_lock; // guards what follows
std::map<uintptr_t, Range> ranges;
std::map<std::string, int64_t> counts;
std::map<const void *, int> shared_limit;
std::set<EmuStream *> streams;
size_t device_bytes;
int64_t total, replayed, fail_alloc;
thread_local bool replaying; // work of a graph is running
std::string fail_launch;
bool deferred, guarded;
int working;                          // threads that run a stream's work
uint64_t seed = 1, seeded;            // launches since
std::atomic<int> sticky{cudaSuccess}; // a crash: every call gives it from then on
thread_local cudaError_t last = cudaSuccess;
thread_local int device_now;
EmuStream default_stream;

int64_t from_env(const char *name, int64_t usual) {
    const char *text = getenv(name);
    return text && *text ? strtoll(text, nullptr, 0) : usual;
}
struct FromEnvironment {
    FromEnvironment() {
        seed = (uint64_t)from_env("EMU_SEED", 1);
        fail_alloc = from_env("EMU_FAIL_ALLOC", 0);
        deferred = from_env("EMU_DEFER", 0) != 0;
        guarded = from_env("EMU_GUARD", 0) != 0;
        const char *name = getenv("EMU_FAIL_LAUNCH");
        fail_launch = name ? name : "";
    }
} from_environment;

EmuStream *stream_of(cudaStream_t s) { return s ? s : &default_stream; }
cudaError_t result(cudaError_t e) {
    if (e != cudaSuccess && e != cudaErrorNotReady) last = e;
    return e;
}
cudaError_t failed_already() { return result((cudaError_t)sticky.load()); }
size_t memory_size() { return (size_t)from_env("EMU_MEMORY_MIB", 16384) << 20; }

// The range that p lies in, or whose end it is.
const Range *find_range(const void *p, uintptr_t *start) {
    auto at = ranges.upper_bound((uintptr_t)p);
    if (at == ranges.begin()) return nullptr;
    --at;
    if ((uintptr_t)p > at->first + at->second.bytes) return nullptr;
    *start = at->first;
    return &at->second;
}
cudaMemoryType type_of(const void *p) {
    std::lock_guard<std::mutex> hold(state_lock);
    uintptr_t start;
    const Range *r = find_range(p, &start);
    return r ? r->type : cudaMemoryTypeUnregistered;
}

// Where memory is guarded, it is there while somebody works on it, and only then.
size_t pages(size_t bytes) { return (bytes + 4095) / 4096 * 4096; }
void guard(int more) {
    if (!guarded) return;
    std::lock_guard<std::mutex> hold(state_lock);
    bool were = working > 0, are = (working += more) > 0;
    if (were == are) return;
    for (auto &r : ranges)
        if (r.second.type == cudaMemoryTypeDevice)
            mprotect((void *)r.first, pages(r.second.bytes), are ? PROT_READ | PROT_WRITE : PROT_NONE);
}
void *take_pages(size_t bytes) {
    void *p = mmap(nullptr, pages(bytes), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) return nullptr;
    madvise(p, pages(bytes), MADV_HUGEPAGE); // fewer of them to guard
    return p;
}

// Whether a piece of work was done; false where there is none, or where it waits for somebody.
bool run_one(EmuStream *s) {
    std::lock_guard<std::recursive_mutex> hold(s->lock);
    if (s->work.empty()) return false;
    Work next = s->work.front();
    guard(1);
    bool waits = sticky == cudaSuccess && !next();
    guard(-1);
    if (waits) return false;
    s->work.pop_front();
    return true;
}
bool idle(EmuStream *s) {
    std::lock_guard<std::recursive_mutex> hold(s->lock);
    return s->work.empty();
}
// Runs what can run now; finish waits for the rest.
void advance(EmuStream *s) {
    while (run_one(s)) continue;
}
void nap() { std::this_thread::sleep_for(std::chrono::microseconds(50)); }
void finish(EmuStream *s) {
    for (advance(s); !idle(s); advance(s)) nap();
}
std::vector<EmuStream *> streams_of(int device) {
    std::lock_guard<std::mutex> hold(state_lock);
    std::vector<EmuStream *> found = {&default_stream};
    for (EmuStream *s : streams)
        if (device < 0 || s->device == device) found.push_back(s);
    return found;
}
void advance_all() {
    for (EmuStream *s : streams_of(-1)) advance(s);
}
void finish_device() {
    for (EmuStream *s : streams_of(device_now)) finish(s);
}
// Calls that a stream must not see while it records spoil the recording.
cudaError_t spoil(EmuStream *s) {
    (s->origin ? s->origin : s)->invalidated = true;
    return result(cudaErrorStreamCaptureUnsupported);
}
EmuStream *recording() {
    std::lock_guard<std::mutex> hold(state_lock);
    for (EmuStream *s : streams)
        if (s->graph) return s;
    return nullptr;
}

} // namespace

uint64_t emu_next_seed(void) { return (seed + (seeded++ << 32)) * 0x9E3779B97F4A7C15u | 1; }

cudaError_t emu_submit(cudaStream_t stream, std::function<void()> work) {
    return emu_submit_polled(stream, [work] {
        work();
        return true;
    });
}
cudaError_t emu_submit_polled(cudaStream_t stream, Work work) {
    EmuStream *s = stream_of(stream);
    if (sticky != cudaSuccess) return failed_already();
    if (s->graph) {
        s->graph->nodes.push_back(std::move(work));
        return cudaSuccess;
    }
    {
        std::lock_guard<std::recursive_mutex> hold(s->lock);
        s->work.push_back(std::move(work));
    }
    if (!deferred) advance(s);
    return cudaSuccess;
}

// ---- emu.h -----------------------------------------------------------------------------------------------------------
int64_t emu_launches(const char *kernel) {
    advance_all();
    std::lock_guard<std::mutex> hold(state_lock);
    auto at = counts.find(kernel);
    return at == counts.end() ? 0 : at->second;
}
int64_t emu_launches_total(void) {
    advance_all();
    std::lock_guard<std::mutex> hold(state_lock);
    return total;
}
int64_t emu_launches_replayed(void) {
    emu_launches_total(); // all are done then
    std::lock_guard<std::mutex> hold(state_lock);
    return replayed;
}
size_t emu_device_bytes(void) {
    std::lock_guard<std::mutex> hold(state_lock);
    return device_bytes;
}
void emu_reset(void) {
    advance_all();
    std::lock_guard<std::mutex> hold(state_lock);
    counts.clear();
    total = replayed = fail_alloc = 0;
    fail_launch = "";
    sticky = cudaSuccess;
    last = cudaSuccess;
}
void emu_seed(uint64_t s) {
    seed = s;
    seeded = 0;
}
void emu_fail_alloc(int64_t k) { fail_alloc = k; }
void emu_fail_launch(const char *kernel) {
    std::lock_guard<std::mutex> hold(state_lock);
    fail_launch = kernel ? kernel : "";
}
void emu_defer(bool on) {
    advance_all();
    deferred = on;
}

// ---- errors ----------------------------------------------------------------------------------------------------------
static const struct {
    cudaError_t code;
    const char *name, *text;
} errors[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInvalidSymbol, "cudaErrorInvalidSymbol", "invalid device symbol"},
    {cudaErrorInvalidDevicePointer, "cudaErrorInvalidDevicePointer", "invalid device pointer"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorInvalidDeviceFunction, "cudaErrorInvalidDeviceFunction", "invalid device function"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
    {cudaErrorInvalidResourceHandle, "cudaErrorInvalidResourceHandle", "invalid resource handle"},
    {cudaErrorNotReady, "cudaErrorNotReady", "device not ready"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
    {cudaErrorHostMemoryAlreadyRegistered, "cudaErrorHostMemoryAlreadyRegistered",
     "part or all of the requested memory range is already mapped"},
    {cudaErrorHostMemoryNotRegistered, "cudaErrorHostMemoryNotRegistered",
     "pointer does not correspond to a registered memory region"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
    {cudaErrorNotSupported, "cudaErrorNotSupported", "operation not supported"},
    {cudaErrorStreamCaptureUnsupported, "cudaErrorStreamCaptureUnsupported",
     "operation not permitted when stream is capturing"},
    {cudaErrorStreamCaptureInvalidated, "cudaErrorStreamCaptureInvalidated",
     "operation failed due to a previous error during capture"},
    {cudaErrorStreamCaptureUnmatched, "cudaErrorStreamCaptureUnmatched", "capture was not initiated in this stream"},
};
const char *cudaGetErrorString(cudaError_t e) {
    for (auto &x : errors)
        if (x.code == e) return x.text;
    return "unrecognized error code";
}
const char *cudaGetErrorName(cudaError_t e) {
    for (auto &x : errors)
        if (x.code == e) return x.name;
    return "unrecognized error code";
}
cudaError_t cudaPeekAtLastError(void) { return last; }
cudaError_t cudaGetLastError(void) {
    cudaError_t e = last;
    last = (cudaError_t)sticky.load();
    return e;
}

// ---- devices ---------------------------------------------------------------------------------------------------------
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
static cudaError_t check_device(int device) {
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
static int shared_most() { return (int)from_env("EMU_SHARED_KIB", 227) * 1024; }
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
// ---- the driver's API ------------------------------------------------------------------------------------------------
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

// ---- memory ----------------------------------------------------------------------------------------------------------
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
    // Pageable memory is read at once and written before the call returns; what is pinned, whenever the stream gets there.
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

// ---- streams and events ----------------------------------------------------------------------------------------------
cudaError_t cudaStreamCreateWithFlags(cudaStream_t *s, unsigned) {
    if (sticky != cudaSuccess) return failed_already();
    cudaError_t e = check_device(device_now);
    if (e != cudaSuccess) return e;
    *s = new EmuStream();
    (*s)->device = device_now;
    std::lock_guard<std::mutex> hold(state_lock);
    streams.insert(*s);
    return cudaSuccess;
}
cudaError_t cudaStreamCreate(cudaStream_t *s) { return cudaStreamCreateWithFlags(s, cudaStreamDefault); }
cudaError_t cudaStreamCreateWithPriority(cudaStream_t *s, unsigned flags, int) {
    return cudaStreamCreateWithFlags(s, flags);
}
cudaError_t cudaDeviceGetStreamPriorityRange(int *least, int *greatest) {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t s) {
    if (!s) return result(cudaErrorInvalidResourceHandle);
    finish(s);
    {
        std::lock_guard<std::mutex> hold(state_lock);
        streams.erase(s);
    }
    if (!s->origin) delete s->graph;
    delete s;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
    EmuStream *s = stream_of(stream);
    if (s->graph) return spoil(s);
    finish(s);
    return failed_already();
}
// One more piece of work is done whenever somebody asks, so that a loop around the question ends.
cudaError_t cudaStreamQuery(cudaStream_t stream) {
    EmuStream *s = stream_of(stream);
    if (s->graph) return spoil(s);
    run_one(s);
    return idle(s) ? failed_already() : cudaErrorNotReady;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t s, cudaHostFn_t f, void *data) {
    return emu_submit(s, [=] { f(data); });
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *e, unsigned) {
    if (sticky != cudaSuccess) return failed_already();
    *e = new EmuEvent();
    return cudaSuccess;
}
cudaError_t cudaEventCreate(cudaEvent_t *e) { return cudaEventCreateWithFlags(e, cudaEventDefault); }
// Whether the event has happened, once its stream has done what it can.
static bool reached(EmuEvent *e, int64_t asked) {
    while (e->done < asked && run_one(e->stream)) continue;
    return e->done >= asked || sticky != cudaSuccess;
}
static void wait_for(EmuEvent *e) {
    while (e->stream && !reached(e, e->asked)) nap();
}
cudaError_t cudaEventDestroy(cudaEvent_t e) {
    if (!e) return result(cudaErrorInvalidResourceHandle);
    wait_for(e);
    delete e;
    return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t stream) {
    EmuStream *s = stream_of(stream);
    if (s->graph) {
        e->captured = s->origin ? s->origin : s;
        return cudaSuccess;
    }
    e->captured = nullptr;
    e->stream = s;
    int64_t asked = ++e->asked;
    return emu_submit(stream, [=] {
        e->done = asked;
        e->time = std::chrono::steady_clock::now();
    });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t e, unsigned) {
    EmuStream *s = stream_of(stream);
    if (e->captured && e->captured->graph) { // this stream joins the recording
        if (s != e->captured) s->graph = e->captured->graph, s->origin = e->captured;
        return cudaSuccess;
    }
    if (!e->stream) return cudaSuccess;
    int64_t asked = e->asked;
    return emu_submit_polled(stream, [=] { return reached(e, asked); });
}
cudaError_t cudaEventSynchronize(cudaEvent_t e) {
    wait_for(e);
    return failed_already();
}
cudaError_t cudaEventQuery(cudaEvent_t e) {
    if (e->done < e->asked) run_one(e->stream);
    return e->done < e->asked ? cudaErrorNotReady : failed_already();
}
cudaError_t cudaEventElapsedTime(float *ms, cudaEvent_t from, cudaEvent_t to) {
    if (!from->asked || !to->asked) return result(cudaErrorInvalidResourceHandle);
    if (from->done < from->asked || to->done < to->asked) return cudaErrorNotReady;
    *ms = std::chrono::duration<float, std::milli>(to->time - from->time).count();
    return cudaSuccess;
}

// ---- graphs ----------------------------------------------------------------------------------------------------------
cudaError_t cudaStreamBeginCapture(cudaStream_t s, cudaStreamCaptureMode) {
    if (!s) return result(cudaErrorStreamCaptureUnsupported);
    if (s->graph) return result(cudaErrorInvalidValue);
    if (sticky != cudaSuccess) return failed_already();
    s->graph = new EmuGraph();
    s->invalidated = false;
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t s, cudaGraph_t *g) {
    *g = nullptr;
    if (!s || !s->graph || s->origin) return result(cudaErrorStreamCaptureUnmatched);
    EmuGraph *graph = s->graph;
    {
        std::lock_guard<std::mutex> hold(state_lock);
        for (EmuStream *other : streams)
            if (other == s || other->origin == s) other->graph = nullptr, other->origin = nullptr;
    }
    if (s->invalidated) {
        delete graph;
        return result(cudaErrorStreamCaptureInvalidated);
    }
    *g = graph;
    return cudaSuccess;
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus *status) {
    EmuStream *s = stream_of(stream);
    *status = s->graph ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *x, cudaGraph_t g, unsigned long long) {
    *x = nullptr;
    if (!g) return result(cudaErrorInvalidValue);
    if (sticky != cudaSuccess) return failed_already();
    *x = new EmuGraphExec{g->nodes};
    return cudaSuccess;
}
cudaError_t cudaGraphGetNodes(cudaGraph_t g, void **nodes, size_t *n) {
    if (nodes) return result(cudaErrorNotSupported);
    *n = g->nodes.size();
    return cudaSuccess;
}
cudaError_t cudaGraphUpload(cudaGraphExec_t, cudaStream_t) { return failed_already(); }
cudaError_t cudaGraphLaunch(cudaGraphExec_t x, cudaStream_t s) {
    if (!x) return result(cudaErrorInvalidValue);
    for (const Work &node : x->nodes) {
        cudaError_t e = emu_submit_polled(s, [node] {
            replaying = true;
            bool done = node();
            replaying = false;
            return done;
        });
        if (e != cudaSuccess) return e;
    }
    return failed_already();
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t x) {
    delete x;
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t g) {
    delete g;
    return cudaSuccess;
}

// ---- launches --------------------------------------------------------------------------------------------------------
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *a, const void *kernel) {
    *a = {};
    if (!from_env("EMU_IMAGE", 1)) return result(cudaErrorNoKernelImageForDevice);
    a->maxThreadsPerBlock = 1024;
    a->ptxVersion = a->binaryVersion = 80;
    std::lock_guard<std::mutex> hold(state_lock);
    auto at = shared_limit.find(kernel);
    a->maxDynamicSharedSizeBytes = at == shared_limit.end() ? 48 * 1024 : at->second;
    return cudaSuccess;
}
cudaError_t cudaFuncSetAttribute(const void *kernel, cudaFuncAttribute attribute, int value) {
    if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
    if (value < 0 || value > shared_most()) return result(cudaErrorInvalidValue);
    std::lock_guard<std::mutex> hold(state_lock);
    shared_limit[kernel] = value;
    return cudaSuccess;
}
size_t emu_shared_allowed(const void *kernel) {
    std::lock_guard<std::mutex> hold(state_lock);
    auto at = shared_limit.find(kernel);
    return at == shared_limit.end() ? 0 : (size_t)at->second;
}
cudaError_t emu_check_pointer(const void *kernel, int argument, const void *p) {
    if (p && type_of(p) == cudaMemoryTypeUnregistered)
        emu_fail("%s: argument %d is %p, which is neither device nor pinned memory: a GPU cannot reach it",
                 kernel ? emu_kernel_name(kernel).c_str() : "a library call", argument + 1, p);
    return cudaSuccess;
}

std::vector<std::pair<uint64_t, uint64_t>> emu_reachable(void) {
    std::lock_guard<std::mutex> hold(state_lock);
    std::vector<std::pair<uint64_t, uint64_t>> all;
    for (auto &r : ranges) all.push_back({r.first, r.second.bytes});
    return all;
}

cudaError_t emu_launch(const cudaLaunchConfig_t *config, const void *kernel, std::function<void()> body,
                       std::vector<unsigned char> params) {
    if (sticky != cudaSuccess) return failed_already();
    dim3 g = config->gridDim, b = config->blockDim;
    uint64_t threads = (uint64_t)b.x * b.y * b.z;
    if (!g.x || !g.y || !g.z || !threads || g.x > INT_MAX || g.y > 65535 || g.z > 65535 || b.x > 1024 || b.y > 1024 ||
        b.z > 64 || threads > 1024)
        return result(cudaErrorInvalidConfiguration);
    {
        std::lock_guard<std::mutex> hold(state_lock);
        auto at = shared_limit.find(kernel);
        size_t limit = at == shared_limit.end() ? 48 * 1024 : (size_t)at->second;
        if (config->dynamicSmemBytes > limit) return result(cudaErrorInvalidValue);
    }
    EmuLaunch launch = {kernel, g, b, config->dynamicSmemBytes, std::move(body), std::move(params)};
    return emu_submit(config->stream, [launch] {
        std::string name = emu_base_name(emu_kernel_name(launch.kernel));
        {
            std::lock_guard<std::mutex> hold(state_lock);
            total++;
            replayed += replaying;
            counts[name]++;
            if (name == fail_launch) {
                sticky = cudaErrorLaunchFailure;
                return;
            }
        }
        if (!emu_run_on_machine(launch)) emu_run_grid(launch);
    });
}
