// NCCL between processes or threads of one machine. A pair of ranks has a mailbox for each direction in a shared file;
// a call, or all calls of a group, is a list of messages, and a piece of work in its stream that is asked again and
// again until every message has gone through its mailbox. Calls of one communicator run one after another, in the order
// in which they were made, whatever their streams: as NCCL has it. Reductions send everything to everybody and add in
// rank order.
#include "cuda_bf16.h"
#include "emu_state.h"
#include "nccl.h"
#include <atomic>
#include <chrono>
#include <deque>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

constexpr size_t PIECE = 64 * 1024; // bytes of a message that a mailbox holds at a time

struct Mailbox {
    std::atomic<uint32_t> full;
    uint32_t bytes; // of the piece
    uint64_t total; // of the whole message: what the receiver expects, or it is an error
    char data[PIECE];
};
struct Meeting {
    std::atomic<int> joined, finished, aborted;
    std::atomic<int> world;
    Mailbox box[]; // [from][to]
};

} // namespace

struct EmuComm {
    Meeting *meeting;
    size_t bytes;
    int rank, world;
    std::atomic<int> status{ncclInProgress};
    bool finalized = false;
    std::string path;
    std::deque<EmuStream *> turns; // the streams of the calls that are not through, in the order of the calls
    int64_t called = 0, through = 0;
};

namespace {

struct Message {
    char *p;
    size_t bytes, done;
};
struct Calls { // of one communicator, from one group
    EmuComm *comm;
    cudaStream_t stream;
    std::vector<std::deque<Message>> out, in;           // a queue for each peer
    std::vector<std::function<void()>> at_end;          // reductions, once all has come
    std::vector<std::pair<char *, const char *>> moves; // a rank's own part
    std::vector<size_t> move_bytes;
    std::vector<std::shared_ptr<std::vector<char>>> rooms;
};
thread_local int depth;
thread_local std::deque<Calls> open_calls;

size_t size_of(ncclDataType_t t) {
    switch (t) {
    case ncclInt8:
    case ncclUint8: return 1;
    case ncclBfloat16: return 2;
    case ncclInt32:
    case ncclUint32:
    case ncclFloat32: return 4;
    default: return 8;
    }
}
Mailbox &box(EmuComm *c, int from, int to) { return c->meeting->box[from * c->world + to]; }

// One pass over all messages; whether all are through.
bool pass(Calls &calls) {
    EmuComm *c = calls.comm;
    bool through = true;
    for (int peer = 0; peer < c->world; peer++) {
        std::deque<Message> &out = calls.out[(size_t)peer], &in = calls.in[(size_t)peer];
        while (!out.empty()) {
            Mailbox &b = box(c, c->rank, peer);
            if (b.full.load(std::memory_order_acquire)) break;
            Message &m = out.front();
            size_t n = m.bytes - m.done < PIECE ? m.bytes - m.done : PIECE;
            memcpy(b.data, m.p + m.done, n);
            b.bytes = (uint32_t)n;
            b.total = m.bytes;
            b.full.store(1, std::memory_order_release);
            if ((m.done += n) == m.bytes) out.pop_front();
        }
        while (!in.empty()) {
            Mailbox &b = box(c, peer, c->rank);
            if (!b.full.load(std::memory_order_acquire)) break;
            Message &m = in.front();
            if (b.total != m.bytes)
                emu_fail("NCCL: rank %d expects %zu bytes of rank %d, which sends %llu", c->rank, m.bytes, peer,
                         (unsigned long long)b.total);
            memcpy(m.p + m.done, b.data, b.bytes);
            m.done += b.bytes;
            b.full.store(0, std::memory_order_release);
            if (m.done == m.bytes) in.pop_front();
        }
        through &= out.empty() && in.empty();
    }
    return through;
}

ncclResult_t submit(Calls calls) {
    auto state = std::make_shared<Calls>(std::move(calls));
    cudaStreamCaptureStatus recording;
    cudaStreamIsCapturing(state->stream, &recording);
    if (recording != cudaStreamCaptureStatusNone) return ncclInvalidUsage;
    auto begun = std::make_shared<bool>(false);
    int64_t turn = state->comm->called++;
    state->comm->turns.push_back(emu::stream_of(state->stream));
    cudaError_t e = emu_submit_polled(state->stream, [state, begun, turn] {
        EmuComm *c = state->comm;
        if (c->meeting->aborted) {
            c->status = ncclRemoteError;
            return true;
        }
        while (c->through < turn) // a call before this one waits in another stream
            if (!emu::run_one(c->turns.front())) return false;
        if (!*begun)
            for (size_t i = 0; i < state->moves.size(); i++)
                memmove(state->moves[i].first, state->moves[i].second, state->move_bytes[i]);
        *begun = true;
        if (!pass(*state)) return false;
        for (auto &f : state->at_end) f();
        c->turns.pop_front();
        c->through++;
        return true;
    });
    return e == cudaSuccess ? ncclSuccess : ncclUnhandledCudaError;
}

// The calls that this one joins: those of the open group on the same communicator and stream.
Calls &joined_calls(EmuComm *c, cudaStream_t s) {
    for (Calls &k : open_calls)
        if (k.comm == c && k.stream == s) return k;
    Calls k;
    k.comm = c;
    k.stream = s;
    k.out.resize((size_t)c->world);
    k.in.resize((size_t)c->world);
    open_calls.push_back(std::move(k));
    return open_calls.back();
}
ncclResult_t flush() {
    ncclResult_t first = ncclSuccess;
    for (Calls &k : open_calls) {
        ncclResult_t r = submit(std::move(k));
        if (first == ncclSuccess) first = r;
    }
    open_calls.clear();
    return first;
}
// What every call checks first.
ncclResult_t ready(EmuComm *c, std::initializer_list<const void *> pointers) {
    if (!c || c->finalized) return ncclInvalidArgument;
    for (const void *p : pointers)
        if (!p) return ncclInvalidArgument;
        else emu_check_pointer(nullptr, 0, p);
    int status = c->status;
    return status == ncclSuccess ? ncclSuccess : status == ncclInProgress ? ncclInvalidUsage : (ncclResult_t)status;
}
ncclResult_t done() { return depth ? ncclSuccess : flush(); }

void send(Calls &k, int peer, const char *p, size_t bytes) {
    if (bytes) k.out[(size_t)peer].push_back({(char *)p, bytes, 0});
}
void receive(Calls &k, int peer, char *p, size_t bytes) {
    if (bytes) k.in[(size_t)peer].push_back({p, bytes, 0});
}
void move(Calls &k, char *to, const char *from, size_t bytes) {
    if (to == from || !bytes) return;
    k.moves.push_back({to, from});
    k.move_bytes.push_back(bytes);
}

double value(const char *p, ncclDataType_t t, size_t i) {
    switch (t) {
    case ncclFloat32: return ((const float *)p)[i];
    case ncclFloat64: return ((const double *)p)[i];
    case ncclBfloat16: return __bfloat162float(((const __nv_bfloat16 *)p)[i]);
    case ncclInt32: return ((const int32_t *)p)[i];
    case ncclInt64: return (double)((const int64_t *)p)[i];
    default: emu_fail("NCCL: reductions are of f32, f64, bf16, i32 and i64 here");
    }
}
void set_value(char *p, ncclDataType_t t, size_t i, double v) {
    switch (t) {
    case ncclFloat32: ((float *)p)[i] = (float)v; break;
    case ncclFloat64: ((double *)p)[i] = v; break;
    case ncclBfloat16: ((__nv_bfloat16 *)p)[i] = __float2bfloat16_rn((float)v); break;
    case ncclInt32: ((int32_t *)p)[i] = (int32_t)v; break;
    default: ((int64_t *)p)[i] = (int64_t)v;
    }
}
// dst[n] = the parts [world][n] in `room` joined in rank order.
void reduce(char *dst, const std::vector<char> &room, size_t n, ncclDataType_t t, ncclRedOp_t op, int world) {
    size_t bytes = n * size_of(t);
    for (size_t i = 0; i < n; i++) {
        double all = value(room.data(), t, i);
        for (int r = 1; r < world; r++) {
            double v = value(room.data() + (size_t)r * bytes, t, i);
            all = op == ncclMax ? fmax(all, v) : op == ncclMin ? fmin(all, v) : op == ncclProd ? all * v : all + v;
        }
        set_value(dst, t, i, op == ncclAvg ? all / world : all);
    }
}

} // namespace

const char *ncclGetErrorString(ncclResult_t r) {
    switch (r) {
    case ncclSuccess: return "no error";
    case ncclUnhandledCudaError: return "unhandled cuda error";
    case ncclSystemError: return "unhandled system error";
    case ncclInternalError: return "internal error";
    case ncclInvalidArgument: return "invalid argument";
    case ncclInvalidUsage: return "invalid usage";
    case ncclRemoteError: return "remote process exited or there was a network error";
    case ncclInProgress: return "NCCL operation in progress";
    }
    return "unknown result code";
}
const char *ncclGetLastError(ncclComm_t) { return ""; }
ncclResult_t ncclGetVersion(int *version) {
    *version = 22700;
    return ncclSuccess;
}

ncclResult_t ncclGetUniqueId(ncclUniqueId *id) {
    static std::atomic<unsigned> number{0};
    memset(id, 0, sizeof *id);
    auto now = std::chrono::steady_clock::now().time_since_epoch().count();
    snprintf(id->internal, sizeof id->internal, "/dev/shm/emu-nccl-%d-%u-%llx", (int)getpid(), number++,
             (unsigned long long)now);
    return ncclSuccess;
}
ncclResult_t ncclCommInitRankConfig(ncclComm_t *out, int world, ncclUniqueId id, int rank, ncclConfig_t *config) {
    *out = nullptr;
    if (world < 1 || rank < 0 || rank >= world || !memchr(id.internal, 0, sizeof id.internal))
        return ncclInvalidArgument;
    size_t bytes = sizeof(Meeting) + (size_t)world * (size_t)world * sizeof(Mailbox);
    int fd = open(id.internal, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return ncclSystemError;
    void *p =
        ftruncate(fd, (off_t)bytes) ? MAP_FAILED : mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (p == MAP_FAILED) return ncclSystemError;
    EmuComm *c = new EmuComm();
    c->meeting = (Meeting *)p;
    c->bytes = bytes;
    c->rank = rank;
    c->world = world;
    c->path = id.internal;
    c->meeting->joined++;
    *out = c;
    if (config && !config->blocking) return ncclInProgress;
    ncclResult_t status = ncclInProgress;
    while (ncclCommGetAsyncError(c, &status) == ncclSuccess && status == ncclInProgress)
        std::this_thread::sleep_for(std::chrono::microseconds(100));
    return status;
}
ncclResult_t ncclCommInitRank(ncclComm_t *c, int world, ncclUniqueId id, int rank) {
    return ncclCommInitRankConfig(c, world, id, rank, nullptr);
}
ncclResult_t ncclCommGetAsyncError(ncclComm_t c, ncclResult_t *status) {
    if (!c) return ncclInvalidArgument;
    Meeting *m = c->meeting;
    if (m->aborted) c->status = ncclRemoteError;
    else if (c->finalized) c->status = m->finished == c->world ? ncclSuccess : ncclInProgress;
    else if (c->status == ncclInProgress && m->joined == c->world) {
        c->status = ncclSuccess;
        unlink(c->path.c_str()); // everybody has it open
    }
    *status = (ncclResult_t)c->status.load();
    return ncclSuccess;
}
ncclResult_t ncclCommFinalize(ncclComm_t c) {
    if (!c || c->finalized) return ncclInvalidArgument;
    c->finalized = true;
    c->meeting->finished++;
    ncclResult_t status;
    ncclCommGetAsyncError(c, &status);
    return status;
}
ncclResult_t ncclCommDestroy(ncclComm_t c) {
    if (!c) return ncclInvalidArgument;
    munmap(c->meeting, c->bytes);
    delete c;
    return ncclSuccess;
}
ncclResult_t ncclCommAbort(ncclComm_t c) {
    if (!c) return ncclInvalidArgument;
    c->meeting->aborted = 1;
    unlink(c->path.c_str());
    cudaDeviceSynchronize(); // its work in the streams sees that it is over
    return ncclCommDestroy(c);
}

ncclResult_t ncclGroupStart(void) {
    depth++;
    return ncclSuccess;
}
ncclResult_t ncclGroupEnd(void) {
    if (depth == 0) return ncclInvalidUsage;
    return --depth ? ncclSuccess : flush();
}
ncclResult_t ncclSend(const void *p, size_t n, ncclDataType_t t, int peer, ncclComm_t c, cudaStream_t s) {
    ncclResult_t r = ready(c, {p});
    if (r != ncclSuccess || peer < 0 || peer >= c->world) return r != ncclSuccess ? r : ncclInvalidArgument;
    send(joined_calls(c, s), peer, (const char *)p, n * size_of(t));
    return done();
}
ncclResult_t ncclRecv(void *p, size_t n, ncclDataType_t t, int peer, ncclComm_t c, cudaStream_t s) {
    ncclResult_t r = ready(c, {p});
    if (r != ncclSuccess || peer < 0 || peer >= c->world) return r != ncclSuccess ? r : ncclInvalidArgument;
    receive(joined_calls(c, s), peer, (char *)p, n * size_of(t));
    return done();
}
ncclResult_t ncclBroadcast(const void *src, void *dst, size_t n, ncclDataType_t t, int root, ncclComm_t c,
                           cudaStream_t s) {
    ncclResult_t r = ready(c, {dst});
    if (r != ncclSuccess || root < 0 || root >= c->world) return r != ncclSuccess ? r : ncclInvalidArgument;
    Calls &k = joined_calls(c, s);
    size_t bytes = n * size_of(t);
    if (c->rank == root) {
        for (int peer = 0; peer < c->world; peer++)
            if (peer != root) send(k, peer, (const char *)src, bytes);
        move(k, (char *)dst, (const char *)src, bytes);
    } else {
        receive(k, root, (char *)dst, bytes);
    }
    return done();
}
ncclResult_t ncclAllGather(const void *src, void *dst, size_t n, ncclDataType_t t, ncclComm_t c, cudaStream_t s) {
    ncclResult_t r = ready(c, {src, dst});
    if (r != ncclSuccess) return r;
    Calls &k = joined_calls(c, s);
    size_t bytes = n * size_of(t);
    for (int peer = 0; peer < c->world; peer++) {
        char *part = (char *)dst + (size_t)peer * bytes;
        if (peer == c->rank) move(k, part, (const char *)src, bytes);
        else send(k, peer, (const char *)src, bytes), receive(k, peer, part, bytes);
    }
    return done();
}
// Elements [first[r], first[r] + n) of src go to rank r, and everybody joins what came.
static ncclResult_t reduce_to(const void *src, void *dst, size_t n, ncclDataType_t t, ncclRedOp_t op, bool scattered,
                              ncclComm_t c, cudaStream_t s) {
    ncclResult_t r = ready(c, {src, dst});
    if (r != ncclSuccess) return r;
    Calls &k = joined_calls(c, s);
    size_t bytes = n * size_of(t);
    auto room = std::make_shared<std::vector<char>>(bytes * (size_t)c->world);
    k.rooms.push_back(room);
    for (int peer = 0; peer < c->world; peer++) {
        const char *part = (const char *)src + (scattered ? (size_t)peer * bytes : 0);
        char *place = room->data() + (size_t)peer * bytes;
        if (peer == c->rank) move(k, place, part, bytes);
        else send(k, peer, part, bytes), receive(k, peer, place, bytes);
    }
    int world = c->world;
    k.at_end.push_back([=] { reduce((char *)dst, *room, n, t, op, world); });
    return done();
}
ncclResult_t ncclAllReduce(const void *src, void *dst, size_t n, ncclDataType_t t, ncclRedOp_t op, ncclComm_t c,
                           cudaStream_t s) {
    return reduce_to(src, dst, n, t, op, false, c, s);
}
ncclResult_t ncclReduceScatter(const void *src, void *dst, size_t n, ncclDataType_t t, ncclRedOp_t op, ncclComm_t c,
                               cudaStream_t s) {
    return reduce_to(src, dst, n, t, op, true, c, s);
}
