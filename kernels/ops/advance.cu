// advance: after a decode step has drawn its tokens, brings the rows of the batch one token further and closes the gaps
// of sequences that have ended, without asking the host (ops.h).
//
// One block owns all rows and takes them in tiles of THREADS. A thread holds one row in registers, takes in its token,
// decides whether the sequence goes on, and writes the row to its new place. That is never after the old one, so tiles
// in ascending order overwrite nothing that is still to be read. About 100 bytes of a row are moved: the floor is the
// launch. The ids that the repetition penalty looks at are many, and move only where a row has left: a second kernel
// does that, with a thread for each column.
#include "common.cuh"

#define THREADS 1024

struct Row {
    int64_t key;
    int ids, pos, kv_row, place, slot, seen_len;
    int4 span;
};

// The columns of DecodeRows as pointers, because a kernel's argument cannot hold that many Tensors.
struct Columns {
    int *ids, *pos, *kv_row, *place, *slot, *seen_len;
    int4 *span;      // [B]
    int64_t *key;    // [B]
    int *seen;       // [B,width] or NULL
    const int *stop; // [slots]
    int *count;      // [2]
    int *drawn;      // [S,DRAWN_COUNT,slots]
    int64_t width, slots, ring;
};

// What was drawn for n rows, as 32-bit words to copy into the ring. token NULL: nothing was drawn.
struct Words {
    const int *token, *logp, *lse, *entropy; // [n]
    int n;
};

static __device__ __forceinline__ Row row_load(const Columns &c, int j) {
    return Row{c.key[j], c.ids[j], c.pos[j], c.kv_row[j], c.place[j], c.slot[j], c.seen ? c.seen_len[j] : 0, c.span[j]};
}
static __device__ __forceinline__ void row_store(const Columns &c, int j, const Row &r) {
    c.key[j] = r.key;
    c.ids[j] = r.ids;
    c.pos[j] = r.pos;
    c.kv_row[j] = r.kv_row;
    c.place[j] = r.place;
    c.slot[j] = r.slot;
    c.span[j] = r.span;
    if (c.seen) c.seen_len[j] = r.seen_len;
}

static __device__ __forceinline__ bool row_ended(const Columns &c, const Row &r, const EndRule &rule) {
    bool ended = c.stop[r.slot] != 0 || r.place >= rule.max_completion;
#pragma unroll
    for (int k = 0; k < MAX_EOS; k++) ended |= k < rule.n_eos && r.place > 0 && r.ids == rule.eos[k];
    return ended;
}

// Does all of it but moving the seen ids. from[j] becomes the old place of row j, for the rows in use; NULL where not
// needed.
static __global__ void __launch_bounds__(THREADS)
    advance_kernel(Columns c, Words in, int first, int B, int *from, EndRule rule) {
    SHARED(int, going, [WARP]); // how many rows of each warp go on
    int warp = (int)threadIdx.x / WARP, lane = (int)threadIdx.x % WARP, live = 0;
    wait_for_earlier();
    int *to = c.drawn + (in.token ? (int64_t)(c.count[1] % (int)c.ring) * DRAWN_COUNT * c.slots : 0);
    for (int64_t i = threadIdx.x; in.token && i < c.slots; i += THREADS) {
        bool mine = i < in.n && c.key[first + i] >= 0;
        to[DRAWN_SLOT * c.slots + i] = mine ? c.slot[first + i] : -1;
        if (!mine) continue;
        to[DRAWN_TOKEN * c.slots + i] = in.token[i];
        to[DRAWN_LOGP * c.slots + i] = in.logp[i];
        to[DRAWN_LSE * c.slots + i] = in.lse[i];
        to[DRAWN_ENTROPY * c.slots + i] = in.entropy[i];
    }
    __syncthreads(); // before rows move
    for (int tile = 0; tile < B; tile += THREADS) {
        int j = tile + (int)threadIdx.x;
        Row r = {};
        bool on = false;
        if (j < B) {
            r = row_load(c, j);
            if (r.key >= 0) {
                if (in.token && j >= first && j < first + in.n) {
                    r.ids = in.token[j - first];
                    r.pos++;
                    r.kv_row++;
                    r.span.w++;
                    r.place++;
                    if (c.seen) c.seen[j * c.width + r.seen_len++] = r.ids;
                }
                on = !row_ended(c, r, rule);
            }
        }
        unsigned vote = __ballot_sync(FULL, on);
        if (lane == 0) going[warp] = __popc(vote);
        __syncthreads();
        int place = live + __popc(vote & ((1u << lane) - 1));
        for (int w = 0; w < THREADS / WARP; w++) {
            if (w < warp) place += going[w];
            live += going[w];
        }
        if (on) {
            row_store(c, place, r);
            if (from) from[place] = j;
        }
        __syncthreads(); // before `going` and the rows of this tile are written again
    }
    for (int j = live + (int)threadIdx.x; j < B; j += THREADS)
        row_store(c, j, Row{-1, 0, 0, -1, 0, -1, 0, make_int4(0, 0, 0, 0)});
    if (threadIdx.x == 0) {
        c.count[0] = live;
        if (in.token) c.count[1]++;
    }
}

// Moves the seen ids of rows that have a new place. A thread owns a column, so that it can move rows in ascending order
// without waiting for other threads.
static __global__ void seen_kernel(int *seen, int64_t width, const int *from, const int *count) {
    int64_t column = (int64_t)blockIdx.x * 128 + threadIdx.x, live = count[0];
    if (column >= width || live == 0 || from[live - 1] == live - 1) return; // no row has moved
    for (int64_t j = 0; j < live; j++)
        if (from[j] != j) seen[j * width + column] = seen[from[j] * width + column];
}

void cuda_advance(Device *d, DecodeRows r, SampleOut drawn, int64_t first, EndRule rule) {
    Columns c = {};
    c.ids = i32(r.ids);
    c.pos = i32(r.pos);
    c.kv_row = i32(r.kv_row);
    c.place = i32(r.place);
    c.slot = i32(r.slot);
    c.seen_len = i32(r.seen_len);
    c.span = (int4 *)r.span.data;
    c.key = i64(r.key);
    c.seen = i32(r.seen);
    c.stop = i32(r.stop);
    c.count = i32(r.count);
    c.drawn = i32(r.drawn);
    c.width = tensor_width(r.seen);
    c.slots = r.drawn.dim[2];
    c.ring = r.drawn.dim[0];
    Words in = {i32(drawn.token), i32(drawn.logp), i32(drawn.lse), i32(drawn.entropy),
                present(drawn.token) ? (int)drawn.token.dim[0] : 0};
    int B = (int)r.ids.dim[0];
    size_t mark = arena_mark(&d->scratch);
    int *from = c.seen ? (int *)arena_take(&d->scratch, (size_t)B * sizeof(int)) : NULL;
    LAUNCH_EARLY(d, advance_kernel, 1, THREADS, 0, c, in, (int)first, B, from, rule);
    if (c.seen) LAUNCH(d, seen_kernel, blocks_for(c.width, 128), 128, 0, c.seen, c.width, from, c.count);
    arena_rewind(&d->scratch, mark);
}
