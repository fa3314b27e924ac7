// The CUDA device: its memory, copies, events and graphs, and the table of ops.
#include "cuda.cuh"
#include <cuda_profiler_api.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static CudaDevice *of(Device *d) { return (CudaDevice *)d->backend; }

static void *alloc(Device *d, size_t bytes) {
    void *p = NULL;
    if (cudaMalloc(&p, bytes ? bytes : 1) != cudaSuccess) {
        (void)cudaGetLastError(); // it is the caller's to report
        return NULL;
    }
    if (cuda_failed(d, cudaMemsetAsync(p, 0, bytes, of(d)->stream), "clearing memory")) {
        cudaFree(p);
        return NULL;
    }
    return p;
}
static void release(Device *d, void *p, size_t bytes) {
    if (p) cuda_failed(d, cudaFree(p), "giving memory back");
}

static void copy(Device *d, void *dst, const void *src, size_t bytes) {
    if (d->error[0] || !bytes) return;
    cudaPointerAttributes to = {}, from = {};
    if (cuda_failed(d, cudaPointerGetAttributes(&to, dst), "copy") ||
        cuda_failed(d, cudaPointerGetAttributes(&from, src), "copy") ||
        cuda_failed(d, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, of(d)->stream), "copy"))
        return;
    // Copies within the device are ordered by the stream. But host memory may be read or overwritten by the caller as
    // soon as this returns, so wait.
    if (to.type != cudaMemoryTypeDevice || from.type != cudaMemoryTypeDevice)
        cuda_failed(d, cudaStreamSynchronize(of(d)->stream), "copy");
}
static void wait_all(Device *d) {
    if (!cuda_failed(d, cudaStreamSynchronize(of(d)->stream), "a kernel before this point"))
        cuda_failed(d, cudaStreamSynchronize(of(d)->fetches), "copy");
}
static size_t memory(Device *d) { return of(d)->memory; }
static size_t memory_used(Device *d) {
    size_t free_bytes = 0, all = 0;
    return cuda_failed(d, cudaMemGetInfo(&free_bytes, &all), "asking for free memory") ? 0 : all - free_bytes;
}

static void *host_alloc(Device *d, size_t bytes) {
    void *p = NULL;
    if (cudaHostAlloc(&p, bytes ? bytes : 1, cudaHostAllocDefault) == cudaSuccess) return p;
    (void)cudaGetLastError(); // it is the caller's to report
    return NULL;
}
static void host_free(Device *d, void *host, size_t bytes) {
    if (host) cuda_failed(d, cudaFreeHost(host), "giving host memory back");
}
static void copy_async(Device *d, void *dst, const void *src, size_t bytes) {
    if (!d->error[0] && bytes)
        cuda_failed(d, cudaMemcpyAsync(dst, src, bytes, cudaMemcpyDefault, of(d)->stream), "copy");
}

struct Event {
    cudaEvent_t event;
};
static void fetch_async(Device *d, void *host, const void *src, size_t bytes, Event *e) {
    CudaDevice *c = of(d);
    if (d->error[0] || cuda_failed(d, cudaEventRecord(c->asked, c->stream), "recording an event") ||
        cuda_failed(d, cudaStreamWaitEvent(c->fetches, c->asked, 0), "waiting for an event") ||
        cuda_failed(d, cudaMemcpyAsync(host, src, bytes, cudaMemcpyDefault, c->fetches), "copy"))
        return;
    cuda_failed(d, cudaEventRecord(e->event, c->fetches), "recording an event");
}
static Event *event_new(Device *d) {
    Event *e = (Event *)xcalloc(1, sizeof *e);
    // A thread that waits sleeps instead of spinning: reward threads need its core.
    if (!cuda_failed(d, cudaEventCreateWithFlags(&e->event, cudaEventDisableTiming | cudaEventBlockingSync),
                     "making an event"))
        return e;
    free(e);
    return NULL;
}
static void event_record(Device *d, Event *e) {
    if (!d->error[0]) cuda_failed(d, cudaEventRecord(e->event, of(d)->stream), "recording an event");
}
static void event_wait(Device *d, Event *e) {
    if (!d->error[0]) cuda_failed(d, cudaEventSynchronize(e->event), "a kernel before this point");
}
static void event_free(Device *d, Event *e) {
    if (!e) return;
    cuda_failed(d, cudaEventDestroy(e->event), "giving an event back");
    free(e);
}

struct Graph {
    cudaGraphExec_t exec;
};
static void set_constant(Device *d, Tensor x) {
    of(d)->constant = x;
#ifdef GRPO_EMU
    emu_constant(x.data, present(x) ? tensor_bytes(x) : 0);
#endif
}
static void graph_begin(Device *d, Tensor constant) {
    set_constant(d, constant);
    if (!d->error[0])
        cuda_failed(d, cudaStreamBeginCapture(of(d)->stream, cudaStreamCaptureModeThreadLocal), "recording a graph");
}
static Graph *graph_end(Device *d) {
    set_constant(d, NONE);
    cudaGraph_t graph = NULL;
    cudaError_t ended = cudaStreamEndCapture(of(d)->stream, &graph); // even where an op failed: it ends the capture
    if (d->error[0] || cuda_failed(d, ended, "recording a graph")) {
        if (graph) cudaGraphDestroy(graph);
        return NULL;
    }
    Graph *g = (Graph *)xcalloc(1, sizeof *g);
    bool failed = cuda_failed(d, cudaGraphInstantiate(&g->exec, graph, 0), "preparing a graph");
    cudaGraphDestroy(graph);
    if (!failed) return g;
    free(g);
    return NULL;
}
static void graph_run(Device *d, Graph *g) {
    if (!d->error[0]) cuda_failed(d, cudaGraphLaunch(g->exec, of(d)->stream), "running a graph");
}
static void graph_free(Device *d, Graph *g) {
    if (!g) return;
    cudaGraphExecDestroy(g->exec);
    free(g);
}

static void range(Device *d, const char *name) {
    if (name) nvtxRangePushA(name);
    else nvtxRangePop();
}

static void record(Device *d, bool on) {
    d->sync(d);
    cuda_failed(d, on ? cudaProfilerStart() : cudaProfilerStop(), "telling the profiler");
}

// Wraps an op in an NVTX range of its name, for profilers.
template <auto op, typename Name> struct Ranged;
template <typename... A, void (*op)(Device *, A...), typename Name> struct Ranged<op, Name> {
    static void run(Device *d, A... a) {
        nvtxRangePushA(Name::text());
        op(d, a...);
        nvtxRangePop();
    }
};
#define OP_NAME(name, args)                                                                                            \
    struct name_of_##name {                                                                                            \
        static const char *text() { return #name; }                                                                    \
    };
OPS(OP_NAME)

// Does nothing of use: find_card asks CUDA about it, which is the only way to learn whether this build has code for the
// card.
static __global__ void probe_kernel(int *x) { *x = 0; }

static bool open_failed(Error *e, ExitCode code, cudaError_t status, const char *what, const char *todo) {
    return error_set(e, code, "device=cuda: %s (%s); %s", what, cudaGetErrorString(status), todo);
}

static bool find_card(int ordinal, cudaDeviceProp *card, Error *e) {
    int n = 0, driver = 0, runtime = 0;
    cudaError_t status = cudaGetDeviceCount(&n);
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (status == cudaErrorInsufficientDriver && driver == 0) status = cudaErrorNoDevice; // no driver at all
    if (status == cudaErrorInsufficientDriver && driver > 0)
        return error_set(e, EXIT_CONFIG,
                         "device=cuda: the driver knows CUDA %d.%d, this build needs %d.%d; install a newer NVIDIA "
                         "driver, or build with an older toolkit, or use device=cpu",
                         driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    if (status != cudaSuccess || n == 0)
        return open_failed(e, EXIT_CONFIG, status == cudaSuccess ? cudaErrorNoDevice : status, "no GPU answers",
                           "nvidia-smi shows what the driver sees; device=cpu runs without one");
    if (ordinal >= n)
        return error_set(
            e, EXIT_CONFIG,
            "device=cuda: GPU %d is asked for, but there are %d; use fewer gpus, or let every rank see all GPUs "
            "of its machine (CUDA_VISIBLE_DEVICES)",
            ordinal, n);
    if ((status = cudaSetDevice(ordinal)) != cudaSuccess ||
        (status = cudaGetDeviceProperties(card, ordinal)) != cudaSuccess)
        return open_failed(e, EXIT_CONFIG, status, "the GPU cannot be used", "nvidia-smi shows who uses it");
    cudaFuncAttributes code;
    if ((status = cudaFuncGetAttributes(&code, (const void *)probe_kernel)) != cudaSuccess)
        return error_set(e, EXIT_CONFIG,
                         "device=cuda: this build has no code for %s (sm_%d%d): %s; build on this machine, or with "
                         "make CUDA_ARCH=%d%d",
                         card->name, card->major, card->minor, cudaGetErrorString(status), card->major, card->minor);
    return true;
}

// Dense bf16 products with f32 sums, TFLOP/s, from the data sheets. The first name that the card's has in it counts.
static double peak_flops(const char *card) {
    static const struct {
        const char *name;
        double tflops;
    } known[] = {{"A100", 312}, {"H100 PCIe", 756}, {"H100 NVL", 835}, {"H100", 989}, {"H200", 989}, {"L40S", 362}};
    for (const auto &k : known)
        if (strstr(card, k.name)) return k.tflops * 1e12;
    return 0;
}

extern "C" Device *cuda_open(int ordinal, Error *e) {
    cudaDeviceProp card;
    if (!find_card(ordinal, &card, e)) return NULL;
    Device *d = (Device *)xcalloc(1, sizeof *d);
    CudaDevice *c = (CudaDevice *)xcalloc(1, sizeof *c);
    d->backend = c;
    d->name = "cuda";
    c->sm_count = card.multiProcessorCount;
    c->memory = card.totalGlobalMem;
    // Kernels start early only where the code was compiled to wait: ptxVersion says for which generation, even where
    // the driver has translated it.
    cudaFuncAttributes code;
    c->overlaps = cudaFuncGetAttributes(&code, (const void *)probe_kernel) == cudaSuccess && code.ptxVersion >= 90;
    snprintf(d->about, sizeof d->about, "%.80s, sm_%d%d, %d SMs, %.1f GiB, CUDA %d.%d", card.name, card.major,
             card.minor, c->sm_count, (double)c->memory / (1 << 30), CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
    d->peak_flops = peak_flops(card.name);
    snprintf(d->numerics, sizeof d->numerics, "sm_%d%d", card.major, card.minor);
    c->shared = card.sharedMemPerBlockOptin;
    d->alloc = alloc;
    d->free = release;
    d->copy = copy;
    d->sync = wait_all;
    d->memory = memory;
    d->memory_used = memory_used;
    d->host_alloc = host_alloc;
    d->host_free = host_free;
    d->copy_async = copy_async;
    d->fetch_async = fetch_async;
    d->event_new = event_new;
    d->event_record = event_record;
    d->event_wait = event_wait;
    d->event_free = event_free;
    d->graph_begin = graph_begin;
    d->graph_end = graph_end;
    d->graph_run = graph_run;
    d->graph_free = graph_free;
    d->range = range;
    d->record = record;
    d->variant = cuda_variant;
#define OP_ENTRY(name, args) d->name = Ranged<cuda_##name, name_of_##name>::run;
    OPS(OP_ENTRY)
    if (!cuda_failed(d, cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking), "opening a stream") &&
        !cuda_failed(d, cudaStreamCreateWithFlags(&c->fetches, cudaStreamNonBlocking), "opening a stream") &&
        !cuda_failed(d, cudaEventCreateWithFlags(&c->asked, cudaEventDisableTiming), "making an event")) {
        // Where there is much of it: the sums of attention's gradient (ops/attention_bwd_hopper.cu) then fit at once,
        // and the head's move less often.
        const size_t bytes = card.major == 9 ? 4 * DEVICE_SCRATCH : DEVICE_SCRATCH;
        void *scratch = alloc(d, bytes);
        d->scratch = arena_over(scratch, bytes);
        if (scratch && product_open(d) && hopper_open(d, card.major * 10 + card.minor)) return d;
    }
    bool no_room = !d->scratch.base && !d->error[0];
    error_set(e, no_room || d->error_code == EXIT_MEMORY ? EXIT_MEMORY : EXIT_CONFIG, "device=cuda: %s",
              no_room ? "not even the kernels' scratch memory (64 MiB; on a Hopper 256) is free on the GPU; end what "
                        "else uses it (nvidia-smi)"
                      : d->error);
    cuda_close(d);
    return NULL;
}

extern "C" void cuda_close(Device *d) {
    if (!d) return;
    CudaDevice *c = of(d);
    if (c->stream) cudaStreamSynchronize(c->stream);
    if (c->fetches) cudaStreamSynchronize(c->fetches);
    product_close(d);
    if (d->scratch.base) cudaFree(d->scratch.base);
    if (c->asked) cudaEventDestroy(c->asked);
    if (c->fetches) cudaStreamDestroy(c->fetches);
    if (c->stream) cudaStreamDestroy(c->stream);
    free(c);
    free(d);
}
