// Collectives of ranks on GPUs, by NCCL. The ranks of a host first meet on their Board, which finds out who is missing,
// dead or in another collective; then NCCL moves the bytes, and while a rank waits it watches the communicator's
// errors, the Board and the clock. Communicators are non-blocking, so that no call of NCCL can keep a rank from
// leaving.
//
//   all_gather       in place over the slices (ncclAllGather; the surplus of the last, longer slice by ncclBroadcast)
//   reduce_scatter   every rank sends each other rank that rank's slice and adds what it receives in rank order, so
//                    that the sum depends on the inputs alone. Bytes moved: as a ring's, (world - 1) / world of x each
//                    way.
//   exchange         bytes in host memory, copied through scratch
#include "clock.h"
#include "comm.h"
#include "common.cuh"

#ifndef GRPO_NCCL

static bool no_nccl(Error *e) {
    return error_set(e, EXIT_CONFIG,
                     "gpus: this build has no NCCL, and so computes on one GPU; install NCCL's "
                     "development files and build again, or leave gpus out");
}
bool cuda_comm_id(char *id, Error *e) { return no_nccl(e); }
Comm *cuda_comm_open(Device *d, const CommConfig *how, Error *e) {
    no_nccl(e);
    return NULL;
}

#else
#include <nccl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static_assert(sizeof(ncclUniqueId) == COMM_ID_BYTES, "the id by which ranks find each other");

struct Nccl {
    Device *d;
    ncclComm_t comm;
    bool broken; // whether the communicator has been aborted
};

static Nccl *of(Comm *c) { return (Nccl *)c->backend; }

static void nap(void) {
    struct timespec t = {0, 20000};
    nanosleep(&t, NULL);
}

// ---- failing and waiting -------------------------------------------------------------------------------------------

// Aborts the communicator, which ends the other ranks' waits too. Always false: *e says why already.
static bool leave(Comm *c, Error *e) {
    if (!of(c)->broken && of(c)->comm) ncclCommAbort(of(c)->comm);
    of(c)->broken = true;
    return false;
}
// Reports a failure to *e and the Board, and leaves.
static bool fail(Comm *c, const char *name, const char *why, Error *e) {
    char text[400];
    snprintf(text, sizeof text, "rank %d, collective `%s`: %s", c->rank, name, why);
    board_fail(c->board, EXIT_COMM, text);
    error_set(e, EXIT_COMM, "%s", text);
    return leave(c, e);
}

// Why a collective failed. NCCL says only that CUDA failed; the stream knows how.
static const char *reason(Comm *c, cudaError_t cuda, ncclResult_t nccl) {
    Device *d = of(c)->d;
    if (nccl == ncclUnhandledCudaError) cuda = cudaStreamQuery(cuda_stream(d));
    if (cuda != cudaErrorNotReady) cuda_failed(d, cuda, "NCCL");
    return d->error[0] ? d->error : ncclGetErrorString(nccl);
}

// Leaves after a failure of NCCL or CUDA. If the Board already has a failure of some rank, that is the reason given:
// the others only lost their connection to that rank.
static bool fail_or_tell(Comm *c, const char *name, cudaError_t cuda, ncclResult_t nccl, Error *e) {
    return board_broken(c->board, e) ? leave(c, e) : fail(c, name, reason(c, cuda, nccl), e);
}

// Whether comm_timeout is over since a call began; then *e says so.
static bool late(Comm *c, const char *name, double since, Error *e) {
    if (clock_seconds() - since <= c->timeout) return false;
    fail(c, name, "not every rank answered within comm_timeout; see the other hosts' output", e);
    return true;
}

// Waits until NCCL has accepted a call that answered `status`. False after filling *e.
static bool settle(Comm *c, const char *name, ncclResult_t status, double since, Error *e) {
    while (status == ncclInProgress) {
        if (board_broken(c->board, e)) return leave(c, e);
        if (late(c, name, since, e)) return false;
        board_beat(c->board);
        nap();
        ncclResult_t asked = ncclCommGetAsyncError(of(c)->comm, &status);
        if (asked != ncclSuccess) status = asked;
    }
    return status == ncclSuccess || fail_or_tell(c, name, cudaSuccess, status, e);
}

// Waits until the stream has finished. False after filling *e.
static bool finish(Comm *c, const char *name, double since, Error *e) {
    Device *d = of(c)->d;
    for (;;) {
        cudaError_t done = cudaStreamQuery(cuda_stream(d));
        if (done == cudaSuccess) return !d->error[0] || fail(c, name, d->error, e);
        if (done != cudaErrorNotReady) return fail_or_tell(c, name, done, ncclSuccess, e);
        ncclResult_t status;
        if (ncclCommGetAsyncError(of(c)->comm, &status) != ncclSuccess) status = ncclSystemError;
        if (status != ncclSuccess && status != ncclInProgress) return fail_or_tell(c, name, cudaSuccess, status, e);
        if (board_broken(c->board, e)) return leave(c, e);
        if (late(c, name, since, e)) return false;
        board_beat(c->board);
        nap();
    }
}

static bool meet(Comm *c, const char *name, uint64_t bytes, Error *e) {
    return board_meet(c->board, name, bytes, c->timeout, e) || leave(c, e);
}

// ---- collectives ---------------------------------------------------------------------------------------------------

static bool all_gather(Comm *c, const char *name, Tensor x, Error *e) {
    if (!meet(c, name, tensor_bytes(x), e)) return false;
    double since = clock_seconds();
    ncclComm_t comm = of(c)->comm;
    cudaStream_t stream = cuda_stream(of(c)->d);
    int64_t first, each, last, n;
    comm_slice(tensor_numel(x), 0, c->world, &first, &each);
    comm_slice(tensor_numel(x), c->world - 1, c->world, &last, &n);
    size_t size = dtype_size(x.dtype), piece = (size_t)each * size, rest = (size_t)(n - each) * size;
    char *all = (char *)x.data, *tail = all + (size_t)(last + each) * size;
    ncclResult_t s = ncclSuccess;
    if (piece) s = ncclAllGather(all + (size_t)c->rank * piece, all, piece, ncclUint8, comm, stream);
    if (!settle(c, name, s, since, e)) return false;
    if (rest) s = ncclBroadcast(tail, tail, rest, ncclUint8, c->world - 1, comm, stream);
    return settle(c, name, s, since, e) && finish(c, name, since, e);
}

// x[n] = the sum over ranks in rank order: x holds the values of rank `self`, `got` those of the others, `stride`
// apart.
template <typename T>
static __global__ void add_pieces_kernel(T *x, const T *got, int64_t n, int64_t stride, int self, int world) {
    int64_t step = (int64_t)gridDim.x * blockDim.x;
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
        float sum = 0;
        for (int r = 0; r < world; r++) {
            float v = to_float(r == self ? x[i] : got[(r - (r > self)) * stride + i]);
            sum = r ? sum + v : v;
        }
        x[i] = from_float<T>(sum);
    }
}

// Sends elements [at, at + piece) of every other rank's slice and receives as many of this rank's from each.
static ncclResult_t exchange(Comm *c, Tensor x, char *got, int64_t at, int64_t piece) {
    size_t size = dtype_size(x.dtype);
    int64_t first, count;
    ncclResult_t s = ncclGroupStart();
    for (int r = 0; r < c->world && s == ncclSuccess; r++) {
        if (r == c->rank) continue;
        comm_slice(tensor_numel(x), r, c->world, &first, &count);
        int64_t theirs = count - at < piece ? count - at : piece;
        if (theirs > 0)
            s = ncclSend((char *)x.data + (size_t)(first + at) * size, (size_t)theirs * size, ncclUint8, r, of(c)->comm,
                         cuda_stream(of(c)->d));
        comm_slice(tensor_numel(x), c->rank, c->world, &first, &count);
        int64_t mine = count - at < piece ? count - at : piece;
        if (mine > 0 && (s == ncclSuccess || s == ncclInProgress))
            s = ncclRecv(got + (size_t)((r - (r > c->rank)) * piece) * size, (size_t)mine * size, ncclUint8, r,
                         of(c)->comm, cuda_stream(of(c)->d));
        if (s == ncclInProgress) s = ncclSuccess; // ncclGroupEnd returns the group's status
    }
    ncclResult_t end = ncclGroupEnd();
    return s == ncclSuccess ? end : s;
}

static bool reduce_scatter(Comm *c, const char *name, Tensor x, Error *e) {
    if (!meet(c, name, tensor_bytes(x), e)) return false;
    double since = clock_seconds();
    Device *d = of(c)->d;
    size_t size = dtype_size(x.dtype), mark = arena_mark(&d->scratch);
    int64_t first, count, most;
    comm_slice(tensor_numel(x), c->world - 1, c->world, &first, &most); // the last slice is the longest
    int others = c->world > 1 ? c->world - 1 : 1;
    int64_t piece = (int64_t)(DEVICE_SCRATCH / 2 / size) / others / 64 * 64;
    if (piece > most) piece = most;
    char *got = (char *)arena_take(&d->scratch, (size_t)(piece * others) * size);
    comm_slice(tensor_numel(x), c->rank, c->world, &first, &count);
    bool ok = true;
    for (int64_t at = 0; at < most && ok; at += piece) {
        ok = settle(c, name, exchange(c, x, got, at, piece), since, e);
        int64_t here = count - at < piece ? count - at : piece;
        if (!ok || here <= 0) continue;
        Tensor mine = tensor_rows(tensor1(x.data, x.dtype, tensor_numel(x)), first + at, here);
        DISPATCH(x.dtype, T,
                 LAUNCH(d, add_pieces_kernel<T>, grid_for(d, here, 256), 256, 0, data_of<T>(mine), (const T *)got, here,
                        piece, c->rank, c->world));
    }
    arena_rewind(&d->scratch, mark);
    return ok && finish(c, name, since, e);
}

static bool exchange(Comm *c, const char *name, void *data, const uint64_t *end, Error *e) {
    uint64_t total = end[c->world - 1], longest = 0;
    if (!meet(c, name, total, e)) return false;
    for (int r = 0; r < c->world; r++) {
        uint64_t n = end[r] - (r ? end[r - 1] : 0);
        if (n > longest) longest = n;
    }
    double since = clock_seconds();
    Device *d = of(c)->d;
    cudaStream_t stream = cuda_stream(d);
    size_t mark = arena_mark(&d->scratch), piece = DEVICE_SCRATCH / 2 / (size_t)c->world / 256 * 256;
    if (piece > longest) piece = longest ? (longest + 255) / 256 * 256 : 256;
    char *stage = (char *)arena_take(&d->scratch, piece * (size_t)c->world);
    bool ok = true;
    // A share of nothing is a barrier: one byte from everybody.
    for (uint64_t at = 0; (at < longest || at == 0) && ok; at += piece) {
        ncclResult_t s = ncclGroupStart();
        for (int r = 0; r < c->world && s == ncclSuccess; r++) {
            uint64_t begin = (r ? end[r - 1] : 0) + at, left = begin < end[r] ? end[r] - begin : 0;
            size_t n = left < piece ? (size_t)left : piece;
            char *place = stage + (size_t)r * piece;
            if (r == c->rank && n) d->copy(d, place, (char *)data + begin, n);
            if (!total) n = 1;
            if (n) s = ncclBroadcast(place, place, n, ncclUint8, r, of(c)->comm, stream);
            if (s == ncclInProgress) s = ncclSuccess;
        }
        ncclResult_t over = ncclGroupEnd();
        ok = settle(c, name, s == ncclSuccess ? over : s, since, e) && finish(c, name, since, e);
        for (int r = 0; r < c->world && ok; r++) {
            uint64_t begin = (r ? end[r - 1] : 0) + at, left = begin < end[r] ? end[r] - begin : 0;
            if (r != c->rank && left)
                d->copy(d, (char *)data + begin, stage + (size_t)r * piece, left < piece ? left : piece);
        }
    }
    arena_rewind(&d->scratch, mark);
    return ok && (!d->error[0] || fail(c, name, d->error, e));
}

// ---- opening and closing -------------------------------------------------------------------------------------------

bool cuda_comm_id(char *id, Error *e) {
    ncclUniqueId unique;
    ncclResult_t s = ncclGetUniqueId(&unique);
    if (s != ncclSuccess) return error_set(e, EXIT_COMM, "NCCL cannot begin: %s", ncclGetErrorString(s));
    memcpy(id, &unique, sizeof unique);
    return true;
}

static void close_cuda(Comm *c) {
    Nccl *n = of(c);
    if (n->comm && !n->broken) {
        Error ignored = {};
        // Finalizing needs every rank. If one has failed, settle aborts the communicator instead.
        bool together = settle(c, "close", ncclCommFinalize(n->comm), clock_seconds(), &ignored);
        if (together) ncclCommDestroy(n->comm);
    }
    free(n);
    free(c);
}

Comm *cuda_comm_open(Device *d, const CommConfig *how, Error *e) {
    Comm *c = (Comm *)xcalloc(1, sizeof *c);
    Nccl *n = (Nccl *)xcalloc(1, sizeof *n);
    n->d = d;
    c->rank = how->rank;
    c->world = how->world;
    c->timeout = how->timeout;
    c->board = how->board;
    c->backend = n;
    c->all_gather = all_gather;
    c->reduce_scatter = reduce_scatter;
    c->exchange = exchange;
    c->close = close_cuda;
    ncclUniqueId id;
    memcpy(&id, how->id, sizeof id);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    double since = clock_seconds();
    ncclResult_t s = ncclCommInitRankConfig(&n->comm, c->world, id, c->rank, &config);
    if (settle(c, "open NCCL", s, since, e)) return c;
    close_cuda(c);
    return NULL;
}
#endif
