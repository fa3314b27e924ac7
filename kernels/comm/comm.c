// Collectives of ranks on the CPU, through windows of shared memory: every rank fills its window, they meet, every rank
// reads the others' windows. Each rank has two, in turns, so one meeting for each windowful is enough. Sums run in rank
// order.
//
// Also the collectives that are the same on both devices, made from these: slices, small sums, bytes of any number.
#include "board.h"
#include <stdlib.h>

// ---- one host's CPU -----------------------------------------------------------------------------------------------

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

static bool exchange(Comm *c, const char *name, void *data, const uint64_t *end, Error *e) {
    uint64_t longest = 0, total = end[c->world - 1];
    for (int r = 0; r < c->world; r++) {
        uint64_t n = end[r] - (r ? end[r - 1] : 0);
        if (n > longest) longest = n;
    }
    for (uint64_t at = 0; at < longest || at == 0; at += BOARD_WINDOW) { // a share of nothing is a barrier
        uint64_t begin = (c->rank ? end[c->rank - 1] : 0) + at, stop = end[c->rank];
        if (begin < stop)
            memcpy(board_window_next(c->board, c->rank), (char *)data + begin, least(stop - begin, BOARD_WINDOW));
        if (!board_meet(c->board, name, total, c->timeout, e)) return false;
        for (int r = 0; r < c->world; r++) {
            begin = (r ? end[r - 1] : 0) + at, stop = end[r];
            if (r != c->rank && begin < stop)
                memcpy((char *)data + begin, board_window_last(c->board, r), least(stop - begin, BOARD_WINDOW));
        }
    }
    return true;
}

static bool all_gather(Comm *c, const char *name, Tensor x, Error *e) {
    uint64_t end[COMM_RANKS];
    for (int r = 0; r < c->world; r++) {
        int64_t first, count;
        comm_slice(tensor_numel(x), r, c->world, &first, &count);
        end[r] = (uint64_t)(first + count) * dtype_size(x.dtype);
    }
    return exchange(c, name, x.data, end, e);
}

// x[n] = the sum, in rank order, of what each rank's window holds for this rank; a window has `piece` elements for each
// rank.
static void add_pieces(Comm *c, void *x, DType t, int64_t n, int64_t piece) {
    for (int64_t i = 0; i < n; i++) {
        float sum = 0;
        for (int r = 0; r < c->world; r++) {
            const void *from = board_window_last(c->board, r);
            int64_t at = c->rank * piece + i;
            float v = t == F32 ? ((const float *)from)[at] : bf16_to_f32(((const uint16_t *)from)[at]);
            sum = r ? sum + v : v;
        }
        if (t == F32) ((float *)x)[i] = sum;
        else ((uint16_t *)x)[i] = f32_to_bf16(sum);
    }
}

// The elements of [first, first + count) that lie in a rank's slice of x[n].
typedef struct {
    int64_t first, count;
} Own;
static Own own_of(const Comm *c, int rank, int64_t n, int64_t first, int64_t count) {
    int64_t begin, end;
    comm_slice(n, rank, c->world, &begin, &end);
    end += begin;
    if (begin < first) begin = first;
    if (end > first + count) end = first + count;
    return (Own){begin, end > begin ? end - begin : 0};
}

static bool reduce_part(Comm *c, const char *name, Tensor x, int64_t first, int64_t count, Error *e) {
    size_t size = dtype_size(x.dtype);
    int64_t piece = (int64_t)(BOARD_WINDOW / size) / c->world, n = tensor_numel(x), most = 0;
    for (int r = 0; r < c->world; r++) {
        Own own = own_of(c, r, n, first, count);
        if (own.count > most) most = own.count;
    }
    for (int64_t at = 0; at < most; at += piece) {
        char *out = board_window_next(c->board, c->rank);
        for (int r = 0; r < c->world; r++) {
            Own own = own_of(c, r, n, first, count);
            int64_t here = own.count - at < piece ? own.count - at : piece;
            if (here > 0)
                memcpy(out + (size_t)(r * piece) * size, (char *)x.data + (size_t)(own.first + at) * size,
                       (size_t)here * size);
        }
        if (!board_meet(c->board, name, (uint64_t)count * size, c->timeout, e)) return false;
        Own own = own_of(c, c->rank, n, first, count);
        int64_t here = own.count - at < piece ? own.count - at : piece;
        add_pieces(c, (char *)x.data + (size_t)(own.first + at) * size, x.dtype, here, piece);
    }
    return true;
}

// Each part was done when its call returned.
static bool reduce_end(Comm *c, const char *name, Tensor x, Error *e) { return true; }

static void close_cpu(Comm *c) { free(c); }

Comm *cpu_comm_open(const CommConfig *how, Error *e) {
    if (board_locals(how->board) != how->world) {
        error_set(e, EXIT_CONFIG,
                  "device=cpu: %d of %d ranks are on this host; ranks on the CPU share its memory, so they must all be "
                  "on one host",
                  board_locals(how->board), how->world);
        return NULL;
    }
    Comm *c = xcalloc(1, sizeof *c);
    *c = (Comm){.rank = how->rank,
                .world = how->world,
                .timeout = how->timeout,
                .board = how->board,
                .all_gather = all_gather,
                .reduce_part = reduce_part,
                .reduce_end = reduce_end,
                .exchange = exchange,
                .close = close_cpu};
    return c;
}

// ---- either device ------------------------------------------------------------------------------------------------

void comm_close(Comm *c) {
    if (c) c->close(c);
}

void comm_slice(int64_t n, int rank, int world, int64_t *first, int64_t *count) {
    int64_t each = n / world / 64 * 64;
    *first = rank * each;
    *count = rank == world - 1 ? n - *first : each;
}

bool comm_all_gather(Comm *c, const char *name, Tensor x, Error *e) { return !c || c->all_gather(c, name, x, e); }
bool comm_reduce_part(Comm *c, const char *name, Tensor x, int64_t first, int64_t count, Error *e) {
    return !c || c->reduce_part(c, name, x, first, count, e);
}
bool comm_reduce_end(Comm *c, const char *name, Tensor x, Error *e) { return !c || c->reduce_end(c, name, x, e); }
bool comm_exchange(Comm *c, const char *name, void *data, const uint64_t *end, Error *e) {
    return !c || c->exchange(c, name, data, end, e);
}

// Where each rank's bytes end (as comm_exchange takes it) when every rank has `bytes` of them.
static uint64_t *equal_ends(const Comm *c, uint64_t bytes) {
    uint64_t *end = xcalloc((size_t)c->world, sizeof *end);
    for (int r = 0; r < c->world; r++) end[r] = bytes * (uint64_t)(r + 1);
    return end;
}

bool comm_gather(Comm *c, const char *name, const void *mine, size_t bytes, void *all, Error *e) {
    memcpy((char *)all + (size_t)comm_rank(c) * bytes, mine, bytes);
    if (!c) return true;
    uint64_t *end = equal_ends(c, bytes);
    bool ok = c->exchange(c, name, all, end, e);
    free(end);
    return ok;
}

bool comm_all_reduce(Comm *c, const char *name, double *x, int n, Error *e) {
    if (!c) return true;
    size_t bytes = (size_t)n * sizeof *x;
    double *all = xcalloc((size_t)c->world, bytes); // [world, n]
    bool ok = comm_gather(c, name, x, bytes, all, e);
    for (int i = 0; ok && i < n; i++) {
        x[i] = all[i];
        for (int r = 1; r < c->world; r++) x[i] += all[r * n + i];
    }
    free(all);
    return ok;
}

bool comm_broadcast(Comm *c, const char *name, void *data, size_t bytes, int root, Error *e) {
    if (!c) return true;
    uint64_t *end = xcalloc((size_t)c->world, sizeof *end);
    for (int r = root; r < c->world; r++) end[r] = bytes;
    bool ok = c->exchange(c, name, data, end, e);
    free(end);
    return ok;
}

bool comm_barrier(Comm *c, const char *name, Error *e) {
    char none;
    return comm_broadcast(c, name, &none, 0, 0, e);
}

bool comm_collect(Comm *c, const char *name, const void *mine, size_t bytes, char **all, uint64_t *end, Error *e) {
    if (!c) {
        *all = memcpy(xmalloc(bytes), mine, bytes);
        end[0] = bytes;
        return true;
    }
    *all = NULL;
    uint64_t own = bytes;
    if (!comm_gather(c, name, &own, sizeof own, end, e)) return false;
    for (int r = 1; r < c->world; r++) end[r] += end[r - 1];
    *all = xmalloc(end[c->world - 1]);
    memcpy(*all + (c->rank ? end[c->rank - 1] : 0), mine, bytes);
    if (c->exchange(c, name, *all, end, e)) return true;
    free(*all);
    *all = NULL;
    return false;
}
