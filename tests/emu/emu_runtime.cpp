// The emulated GPU's state, its streams' work, errors and launches. Its devices and memory are in emu_device.cpp,
// streams and graphs as the API has them in emu_stream.cpp.
#include "emu_state.h"
#include <sys/mman.h>

using namespace emu;

namespace emu {

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

} // namespace emu

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

// ---- emu.h ----------------------------------------------------------------------------------------------------------
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

// ---- errors ---------------------------------------------------------------------------------------------------------
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

// ---- launches -------------------------------------------------------------------------------------------------------
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *a, const void *kernel) {
    *a = {};
    if (!from_env("EMU_IMAGE", 1)) return result(cudaErrorNoKernelImageForDevice);
    a->maxThreadsPerBlock = 1024;
    // Code for Hopper on such a card, and always on the machine for PTX: kernels start early there, and have to wait.
    a->ptxVersion = a->binaryVersion = getenv("EMU_PTX") || from_env("EMU_ARCH", 80) >= 90 ? 90 : 80;
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
// The most dynamic shared memory that the kernel can be launched with.
static size_t shared_at_most(const void *kernel) {
    size_t allowed = emu_shared_allowed(kernel);
    return allowed ? allowed : 48 * 1024;
}
int emu_blocks_at_once(const void *kernel, int threads, size_t shared) {
    if (threads <= 0 || shared > shared_at_most(kernel)) return 0;
    int by_threads = threads < 64 ? 32 : 2048 / threads;
    int by_shared = (int)(((size_t)shared_most() + 1024) / (shared + 1024)); // a block has 1 KiB more for itself
    return by_threads < by_shared ? by_threads : by_shared;
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

static thread_local std::pair<uint64_t, uint64_t> constant;
void emu_constant(const void *p, size_t bytes) { constant = {(uint64_t)p, bytes}; }

cudaError_t emu_launch(const cudaLaunchConfig_t *config, const void *kernel, std::function<void()> body,
                       std::vector<unsigned char> params) {
    if (sticky != cudaSuccess) return failed_already();
    dim3 g = config->gridDim, b = config->blockDim;
    uint64_t threads = (uint64_t)b.x * b.y * b.z;
    if (!g.x || !g.y || !g.z || !threads || g.x > INT_MAX || g.y > 65535 || g.z > 65535 || b.x > 1024 || b.y > 1024 ||
        b.z > 64 || threads > 1024)
        return result(cudaErrorInvalidConfiguration);
    if (config->dynamicSmemBytes > shared_at_most(kernel)) return result(cudaErrorInvalidValue);
    bool early = false;
    for (unsigned k = 0; k < config->numAttrs; k++)
        early |= config->attrs[k].id == cudaLaunchAttributeProgrammaticStreamSerialization &&
                 config->attrs[k].val.programmaticStreamSerializationAllowed;
    EmuLaunch launch = {kernel, g, b, config->dynamicSmemBytes, std::move(body), std::move(params), early, constant};
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
