// Collectives of ranks on GPUs, by NCCL. The ranks of a host first meet on their Board, which finds out who is missing,
// dead or in another collective; then NCCL moves the bytes, and while a rank waits it watches the communicator's
// errors, the Board and the clock. Communicators are non-blocking, so that no call of NCCL can keep a rank from
// leaving.
//
//   all_gather       in place over the slices (ncclAllGather; the surplus of the last, longer slice by ncclBroadcast)
//   reduce_part      A part is cut into a piece for each rank. Every rank sends each other rank its piece of what it
//                    has and adds what it receives in rank order, so that the sum depends on the inputs alone: 1 / world
//                    of the part comes from each. Then the sums go to the ranks whose slices of x they lie in. All of
//                    it in a stream of its own, behind what the device's stream holds at the call.
//   exchange         bytes in host memory, copied through scratch
//
// Why pieces, when slices say already who wants what: slices are long (ZeRO's, one of all of x to a rank) and parts are
// short (a layer's), so that a part often lies in one slice. To send it there straight would be (world - 1) parts into
// one card while the others' links idle. By pieces a card takes in (world - 1) / world of a part, and its owner as much
// once more at most. The whole of x as one part has slices for pieces, and its second round is empty.
//
// Bytes, into a card, of the gradients G of a step: (world - 1) / world G for the sums, 1 / world of that for handing
// over; as a ring's, and an eighth more on 8 cards. What is not hidden behind the backward pass is its last part (the
// embedding, where a head is tied to it: 0.28 G at 0.5B, 0.15 G at 1.5B). On the links, at 0.5B, f32, 8 cards and 360
// GB/s a direction: all of G takes 4.8 ms, its last part 1.8 ms (predicted; no machine of several GPUs was at hand).
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
    // Of reduce_part: its stream, the point in the device's that it waits for, what the other ranks have sent
    // [COMM_ROOM], and whether there was a part since reduce_end.
    cudaStream_t beside;
    cudaEvent_t final;
    void *room;
    bool reducing;
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
// Reports a failure to the Board, and leaves. *e is the Board's first, mostly this one.
static bool fail(Comm *c, const char *name, const char *why, Error *e) {
    char text[400];
    snprintf(text, sizeof text, "rank %d, collective `%s`: %s", c->rank, name, why);
    board_report(c->board, text, e);
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

// Waits until a stream has finished. False after filling *e.
static bool finish(Comm *c, const char *name, cudaStream_t stream, double since, Error *e) {
    Device *d = of(c)->d;
    for (;;) {
        cudaError_t done = cudaStreamQuery(stream);
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
    return settle(c, name, s, since, e) && finish(c, name, stream, since, e);
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

// Elements [first, end) of x.
struct Range {
    int64_t first, end;
};
static int64_t length(Range x) { return x.end > x.first ? x.end - x.first : 0; }
static Range both(Range x, Range y) { return {x.first > y.first ? x.first : y.first, x.end < y.end ? x.end : y.end}; }
// The slice of a rank in `all`.
static Range slice_of(const Comm *c, Range all, int rank) {
    int64_t first, count;
    comm_slice(length(all), rank, c->world, &first, &count);
    return {all.first + first, all.first + first + count};
}
static char *place(Tensor x, int64_t i) { return (char *)x.data + (size_t)i * dtype_size(x.dtype); }

// Sends elements `out` of x to a rank, receives as many as `in` has from it into `to`; in a group, so that it may
// answer ncclInProgress: only the group knows.
static ncclResult_t swap(Comm *c, int rank, Tensor x, Range out, Range in, char *to) {
    size_t size = dtype_size(x.dtype), sent = (size_t)length(out) * size, got = (size_t)length(in) * size;
    ncclResult_t s = ncclSuccess;
    if (sent) s = ncclSend(place(x, out.first), sent, ncclUint8, rank, of(c)->comm, of(c)->beside);
    if (got && (s == ncclSuccess || s == ncclInProgress))
        s = ncclRecv(to, got, ncclUint8, rank, of(c)->comm, of(c)->beside);
    return s == ncclInProgress ? ncclSuccess : s;
}

// Sends every other rank elements [at, at + most) of its piece of the part, and receives as many of this rank's from
// each into the room, `most` apart.
static ncclResult_t send_pieces(Comm *c, Tensor x, Range part, int64_t at, int64_t most) {
    Range own = slice_of(c, part, c->rank);
    ncclResult_t s = ncclGroupStart();
    for (int r = 0; r < c->world && s == ncclSuccess; r++) {
        if (r == c->rank) continue;
        Range theirs = slice_of(c, part, r), now = {theirs.first + at, theirs.first + at + most};
        char *to = (char *)of(c)->room + (size_t)((r - (r > c->rank)) * most) * dtype_size(x.dtype);
        s = swap(c, r, x, both(theirs, now), both(own, {own.first + at, own.first + at + most}), to);
    }
    ncclResult_t end = ncclGroupEnd();
    return s == ncclSuccess ? end : s;
}

// Sends the sums of this rank's piece to the ranks whose slices of x they lie in, and receives those of its own slice.
// What they replace are this rank's own values, which it has sent already.
static ncclResult_t hand_over(Comm *c, Tensor x, Range part) {
    Range all = {0, tensor_numel(x)}, piece = slice_of(c, part, c->rank), slice = slice_of(c, all, c->rank);
    ncclResult_t s = ncclGroupStart();
    for (int r = 0; r < c->world && s == ncclSuccess; r++) {
        if (r == c->rank) continue;
        Range in = both(slice_of(c, part, r), slice);
        s = swap(c, r, x, both(piece, slice_of(c, all, r)), in, place(x, in.first));
    }
    ncclResult_t end = ncclGroupEnd();
    return s == ncclSuccess ? end : s;
}

// Makes the part's stream wait for what the device's stream holds so far.
static bool behind_the_device(Comm *c) {
    Nccl *n = of(c);
    return !cuda_failed(n->d, cudaEventRecord(n->final, cuda_stream(n->d)), "recording an event") &&
           !cuda_failed(n->d, cudaStreamWaitEvent(n->beside, n->final, 0), "waiting for an event");
}

static bool reduce_part(Comm *c, const char *name, Tensor x, int64_t first, int64_t count, Error *e) {
    // The ranks of a host meet before the first part, where one that is lost shows. That costs nothing: no device is
    // further behind than that of the last rank to come, and its end is the end for all.
    if (!of(c)->reducing && !meet(c, name, tensor_bytes(x), e)) return false;
    of(c)->reducing = true;
    double since = clock_seconds();
    Device *d = of(c)->d;
    if (!behind_the_device(c)) return fail(c, name, d->error, e);
    Range part = {first, first + count}, own = slice_of(c, part, c->rank);
    int64_t longest = length(slice_of(c, part, c->world - 1)); // the last one's
    int64_t most = (int64_t)(COMM_ROOM / dtype_size(x.dtype)) / (c->world > 1 ? c->world - 1 : 1) / 64 * 64;
    if (most > longest) most = longest;
    for (int64_t at = 0; at < longest; at += most) {
        if (!settle(c, name, send_pieces(c, x, part, at, most), since, e)) return false;
        Range now = both(own, {own.first + at, own.first + at + most});
        DISPATCH(x.dtype, T,
                 LAUNCH_ON(d, of(c)->beside, add_pieces_kernel<T>, grid_for(d, length(now), 256), 256, 0,
                           (T *)place(x, now.first), (const T *)of(c)->room, length(now), most, c->rank, c->world));
    }
    return settle(c, name, hand_over(c, x, part), since, e);
}

static bool reduce_end(Comm *c, const char *name, Tensor x, Error *e) {
    of(c)->reducing = false;
    return meet(c, name, tensor_bytes(x), e) && finish(c, name, of(c)->beside, clock_seconds(), e);
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
        ok = settle(c, name, s == ncclSuccess ? over : s, since, e) && finish(c, name, stream, since, e);
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
    if (n->beside) cudaStreamDestroy(n->beside);
    if (n->final) cudaEventDestroy(n->final);
    if (n->room) n->d->free(n->d, n->room, COMM_ROOM);
    free(n);
    free(c);
}

// What reduce_part needs. Its stream goes first where blocks of both wait for a multiprocessor: its kernels are small,
// and what they bring is waited for.
static bool open_beside(Nccl *n, Error *e) {
    int least, greatest;
    if (cuda_failed(n->d, cudaDeviceGetStreamPriorityRange(&least, &greatest), "opening a stream") ||
        cuda_failed(n->d, cudaStreamCreateWithPriority(&n->beside, cudaStreamNonBlocking, greatest),
                    "opening a stream") ||
        cuda_failed(n->d, cudaEventCreateWithFlags(&n->final, cudaEventDisableTiming), "making an event"))
        return error_set(e, EXIT_COMM, "the ranks' GPUs: %s", n->d->error);
    n->room = n->d->alloc(n->d, COMM_ROOM);
    return n->room || error_set(e, EXIT_MEMORY,
                                "not enough memory on the GPU for what ranks send each other (%zu MiB); end what else "
                                "uses it (nvidia-smi)",
                                COMM_ROOM >> 20);
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
    c->reduce_part = reduce_part;
    c->reduce_end = reduce_end;
    c->beside = true;
    c->exchange = exchange;
    c->close = close_cuda;
    ncclUniqueId id;
    memcpy(&id, how->id, sizeof id);
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    double since = clock_seconds();
    ncclResult_t s = ncclCommInitRankConfig(&n->comm, c->world, id, c->rank, &config);
    if (settle(c, "open NCCL", s, since, e) && open_beside(n, e)) return c;
    close_cuda(c);
    return NULL;
}
#endif
