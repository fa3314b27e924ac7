// sample: draws one token for each row from the head's distribution, and gives its log-prob and the distribution's
// logsumexp and entropy. sample.c explains what is drawn and why.
//
// Without filters (the usual case) the draw is made while the head is streamed (head.cuh): of each row and chunk of the
// vocabulary the best candidate, by z + Gumbel, is kept beside the summary; a second kernel has a block for each row
// and chooses among them. No logit reaches memory. Floor: w is read once in a pass, 2 V D bytes; and 2 B V D FLOP. Each
// logit also costs a quarter of a Philox counter and an upper bound of its Gumbel number (draw.cuh), 30 instructions
// where all logarithms would be 55. With many rows on Hopper head_hopper.cu makes the draw. With filters, the logits of
// as many rows as scratch holds are kept, and a block for each row does the rest (filter.cuh).
//
// The random bits of a token are the same as on the CPU. The formula on them uses this device's logarithm, so scores
// differ from the CPU's in the last bits, and a draw may differ where two scores are as close as that.
#include "cuda.cuh"
#include "draw.cuh"
#include "filter.cuh"
#include "head.cuh"
#include "sample.h"

#define COMBINE_THREADS LSE_THREADS
#define ROWS_ROOM       ((size_t)32 << 20) // bytes of summaries and candidates in one pass

// Where the results of a pass go.
typedef struct {
    int32_t *token;       // [n]
    float *logp;          // [n]
    float *lse, *entropy; // [n]; NULL where not wanted
} Outs;

// Stores the result of row n: the token it drew, whose logit is z.
static __device__ __forceinline__ void give(const Outs &to, int64_t n, int32_t token, float z, RowLse l) {
    to.token[n] = token;
    to.logp[n] = z - l.lse;
    if (to.lse) to.lse[n] = l.lse;
    if (to.entropy) to.entropy[n] = l.entropy;
}

// The best score of the block and its id, in every thread.
static __device__ __forceinline__ void block_best(float *score, int32_t *id, float *room, int32_t *room_id) {
    for (int k = WARP / 2; k; k /= 2) {
        float s = __shfl_xor_sync(FULL, *score, k);
        int32_t i = __shfl_xor_sync(FULL, *id, k);
        if (beats(s, i, *score, *id)) *score = s, *id = i;
    }
    __syncthreads();
    if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = *score, room_id[threadIdx.x / WARP] = *id;
    __syncthreads();
    for (int w = 0; w < (int)blockDim.x / WARP; w++)
        if (beats(room[w], room_id[w], *score, *id)) *score = room[w], *id = room_id[w];
}

// ---- without filters -----------------------------------------------------------------------------------------------
// What head_kernel does with a chunk's logits.
struct Choose : Choices {
    template <int X> __device__ __forceinline__ void run(HeadRoom<X> *room, int64_t row, int64_t token, int len) const {
        typedef HeadRoom<X> R;
        Lse l = head_summary(room);
        int t = R::row(), slice = R::slice();
        bool active = row + t < n && draw.key[row + t] >= 0;
        Candidate c = {-INFINITY, 0, 0}; // its id in the chunk
        if (active)
            c = draw_best<R::QUADS, 2>(draw, draw.key[row + t], draw.pos[row + t], (int32_t)token, R::token_of,
                                       [&](int k, int i) { return room->z[R::token_of(k) + 16 * i][t]; });
        __syncthreads(); // head_summary's sums have been read
        room->max[slice][t] = c.score;
        room->id[slice][t] = c.id;
        __syncthreads();
        if (threadIdx.x >= X || !active) return;
        for (int p = 1; p < R::PARTS; p++) take_better(&c, {room->max[p][t], 0, room->id[p][t]});
        int64_t at = (row + t) * chunks + token / HEAD_CHUNK;
        summary[at] = l;
        best[at] = {c.score, room->z[c.id][t], (int32_t)token + c.id};
    }
};

static void choose(Device *d, Head<float> h, Choices to) { head_launch(d, h, to.chunks, Choose{to}); }
static void choose(Device *d, Head<Bf16> h, Choices to) {
    if (!hopper_choose(d, h, to)) head_launch(d, h, to.chunks, Choose{to});
}

static __global__ void choose_kernel(Outs to, const Candidate *best, const Lse *summary, const int64_t *key,
                                     int64_t chunks) {
    SHARED(double, room, [32]);
    SHARED(float, score_room, [32]);
    SHARED(int32_t, id_room, [32]);
    wait_for_earlier();
    if (key[blockIdx.x] < 0) return; // the whole block
    RowLse l = head_lse(summary + blockIdx.x * chunks, chunks, room);
    float top = -INFINITY;
    int32_t at = 0; // its chunk
    best += blockIdx.x * chunks;
    for (int32_t c = (int32_t)threadIdx.x; c < chunks; c += COMBINE_THREADS)
        if (beats(best[c].score, c, top, at)) top = best[c].score, at = c;
    block_best(&top, &at, score_room, id_room);
    if (threadIdx.x) return;
    give(to, blockIdx.x, best[at].id, best[at].z, l);
}

// ---- with filters --------------------------------------------------------------------------------------------------
// What head_kernel does with a chunk's logits where filters need them: stores each row's summary, and the logits.
struct Keep {
    Lse *summary;  // [n, chunks]
    float *logits; // [n, V]
    int64_t n, chunks, V;

    template <int X> __device__ __forceinline__ void run(HeadRoom<X> *room, int64_t row, int64_t token, int len) const {
        Lse l = head_summary(room);
        int t = (int)threadIdx.x;
        if (t < X && row + t < n) summary[(row + t) * chunks + token / HEAD_CHUNK] = l;
        for (int i = t; i < X * HEAD_CHUNK; i += HEAD_THREADS) {
            int r = i / HEAD_CHUNK, v = i % HEAD_CHUNK;
            if (row + r < n && v < len) logits[(row + r) * V + token + v] = room->z[v][r];
        }
    }
};

typedef struct {
    Outs to;
    const float *logits;     // [n, V]
    uint32_t *seen_bits;     // [n, words]; NULL: no penalty
    const Lse *summary;      // [n, chunks]
    const int32_t *seen;     // [n, width]
    const int32_t *seen_len; // [n]; NULL: width each
    int64_t V, chunks, words, width;
    float penalty;
    bool warp; // whether there are filters other than the penalty
    Filters filters;
    Draw draw;
} Rest;

static __global__ void __launch_bounds__(FILTER_THREADS, 1) filter_kernel(Rest a) {
    SHARED(FilterRoom, room, [1]);
    SHARED(float, score_room, [32]);
    SHARED(int32_t, id_room, [32]);
    int64_t n = blockIdx.x, key = a.draw.key[n];
    if (key < 0) return; // the whole block
    FilterRow row = {a.logits + n * a.V, a.seen_bits ? a.seen_bits + n * a.words : NULL, a.penalty, a.V};
    if (row.seen) {
        uint32_t *bits = a.seen_bits + n * a.words;
        for (int64_t i = threadIdx.x; i < a.words; i += FILTER_THREADS) bits[i] = 0;
        __syncthreads();
        int64_t seen = a.seen_len ? a.seen_len[n] : a.width;
        for (int64_t i = threadIdx.x; i < seen; i += FILTER_THREADS) {
            int32_t v = a.seen[n * a.width + i];
            if (v >= 0 && v < a.V) atomicOr(&bits[v / 32], 1u << v % 32);
        }
        __syncthreads();
    }
    Kept kept = {0, 0, 0, 1};
    if (a.warp) kept = filter_row(row, room, a.filters);
    float top = -INFINITY;
    int32_t id = 0, pos = a.draw.pos[n];
    for (int64_t quad = threadIdx.x; quad < (a.V + 63) / 64 * 16; quad += FILTER_THREADS) {
        int64_t first = quad / 16 * 64 + quad % 16;
        float z[4];
        bool any = false, in[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int64_t v = first + 16 * i;
            z[i] = v < a.V ? row_value(row, v) : 0;
            in[i] = v < a.V && is_kept(kept, z[i], v);
            any |= in[i];
        }
        if (!any) continue;
        Philox bits = {};
        if (!a.draw.greedy) bits = philox_quad(a.draw.seed, key, pos, (uint32_t)first);
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float score = z[i] + (a.draw.greedy ? 0 : gumbel(bits.v[i]));
            if (in[i] && beats(score, (int32_t)first + 16 * i, top, id)) top = score, id = (int32_t)first + 16 * i;
        }
    }
    __syncthreads();
    block_best(&top, &id, score_room, id_room);
    RowLse l = head_lse(a.summary + n * a.chunks, a.chunks, room->sum);
    if (threadIdx.x) return;
    give(a.to, n, id, row.z[id], l);
}

template <typename T>
static void sample(Device *d, SampleOut out, Tensor x, Tensor w, Tensor key, Tensor pos, Tensor seen, Tensor seen_len,
                   SampleParams p) {
    int64_t B = x.dim[0], V = w.dim[0], chunks = head_chunks(V), words = (V + 31) / 32;
    bool warp = sample_filters(&p);
    bool penalty = present(seen) && p.repetition_penalty != 1, filtered = warp || penalty;
    size_t summaries = (size_t)chunks * sizeof(Lse), margin = 4 * ARENA_ALIGN;
    size_t row_bytes = summaries + (filtered ? (size_t)V * sizeof(float) + (penalty ? (size_t)words * 4 : 0)
                                             : (size_t)chunks * sizeof(Candidate));
    size_t room = filtered ? d->scratch.cap - d->scratch.used - margin : ROWS_ROOM;
    int64_t most = (int64_t)(room / row_bytes);
    if (most > B) most = B;
    if (most < 1) most = 1;
    size_t mark = arena_mark(&d->scratch);
    Lse *summary = (Lse *)arena_take(&d->scratch, (size_t)most * summaries);
    Candidate *best = filtered ? NULL : (Candidate *)arena_take(&d->scratch, (size_t)(most * chunks) * sizeof *best);
    float *logits = filtered ? (float *)arena_take(&d->scratch, (size_t)(most * V) * sizeof *logits) : NULL;
    uint32_t *bits = penalty ? (uint32_t *)arena_take(&d->scratch, (size_t)(most * words) * sizeof *bits) : NULL;
    for (int64_t first = 0; first < B; first += most) {
        int64_t n = B - first < most ? B - first : most, width = penalty ? tensor_width(seen) : 0;
        Draw draw = {i64(key) + first, i32(pos) + first, p.seed, p.temperature <= 0};
        int D = (int)tensor_width(w);
        Head<T> h = {data_of<T>(x) + first * D, data_of<T>(w), NULL, draw.key, n, V, 0, D, head_scale(p.temperature)};
        Outs to = {i32(out.token) + first, f32(out.logp) + first, present(out.lse) ? f32(out.lse) + first : NULL,
                   present(out.entropy) ? f32(out.entropy) + first : NULL};
        if (!filtered) {
            choose(d, h, {summary, best, n, chunks, draw});
            LAUNCH_EARLY(d, choose_kernel, (unsigned)n, COMBINE_THREADS, 0, to, best, summary, draw.key, chunks);
            continue;
        }
        head_launch<T>(d, h, chunks, Keep{summary, logits, n, chunks, V});
        double tail = 1 - (double)p.top_p;
        Filters filters = {p.top_k, p.top_p < 1 ? (float)(1 - sample_decimal(p.top_p)) : -1,
                           (float)log(tail > 0 ? tail : 1), (float)sample_decimal(p.min_p),
                           p.min_p > 0 ? logf(p.min_p) : 0};
        Rest rest = {to,
                     logits,
                     bits,
                     summary,
                     penalty ? i32(seen) + first * width : NULL,
                     penalty && present(seen_len) ? i32(seen_len) + first : NULL,
                     V,
                     chunks,
                     words,
                     width,
                     p.repetition_penalty,
                     warp,
                     filters,
                     draw};
        LAUNCH(d, filter_kernel, (unsigned)n, FILTER_THREADS, 0, rest);
    }
    arena_rewind(&d->scratch, mark);
}

void cuda_sample(Device *d, SampleOut to, Tensor x, Tensor w, Tensor key, Tensor pos, Tensor seen, Tensor seen_len,
                 SampleParams p) {
    DISPATCH(x.dtype, T, sample<T>(d, to, x, w, key, pos, seen, seen_len, p));
}
