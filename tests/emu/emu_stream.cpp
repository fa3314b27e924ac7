// The runtime API's streams, events and graphs.
#include "emu_state.h"

using namespace emu;

// ---- streams and events ---------------------------------------------------------------------------------------------
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

// ---- graphs ---------------------------------------------------------------------------------------------------------
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
