// Draws one token a row from the head's distribution, and gives its log-prob.
//
// A draw is the Gumbel-max trick: argmax over v of z_v + G_v, where G_v = -log(-log(U_v)) comes from Philox keyed by
// (seed, sequence, position, v). It needs no normalisation, so it rides along the streamed head; and because every
// random number belongs to its (sequence, position, token), a draw does not depend on the batch or the order of work.
// Filters (repetition penalty, top-k, top-p, min-p) need the whole distribution: there the row's logits are kept and
// sorted, each filter cuts off a prefix of the order, and the survivors compete with the same random numbers.
#include "head.h"
#include "philox.h"
#include "simd.h"
#ifdef _OPENMP
#include <omp.h>
#endif

typedef struct {
    float score, z; // z + G, or z alone where greedy
    int32_t id;
} Candidate;

// Gumbel numbers of 16 random words. With u in (0, 1), the exponential -log(1 - u) keeps its relative precision where
// u is small, which is where the winners are: the rarest token is still drawn at its own rate.
static inline vf gumbel(vu bits) {
    vf u = (__builtin_convertvector(bits, vf) + 0.5f) * 0x1p-32f;
    vi large = u > 0.29f; // below, 1 - u needs no exponent split, and -u is exact
    vf w = 1.0f - u;
    w = vf_max(w, vf_set(0x1p-25f));
    vi s = (vi)w - 0x3f3504f3;
    vf e = (vf)((vi) __builtin_convertvector(s >> 23, vf) & large);
    vf m = (vf)((s & 0x7fffff) + 0x3f3504f3) - 1.0f;
    vf f = (vf)(((vi)m & large) | ((vi)-u & ~large));
    return -vf_log(-vf_log_reduced(f, e));
}

// Gumbel numbers of tokens v .. v + 63; v is a multiple of 4.
static void gumbel64(float *g, uint64_t seed, int64_t key, int32_t pos, int64_t v) {
    uint32_t bits[64];
    for (int b = 0; b < 16; b++) {
        Philox r = philox_tokens(seed, key, pos, (uint32_t)v + 4 * (uint32_t)b);
        memcpy(bits + 4 * b, r.v, sizeof r.v);
    }
    for (int i = 0; i < 64; i += LANES) {
        vu u;
        memcpy(&u, bits + i, sizeof u);
        vf_store(g + i, gumbel(u));
    }
}

// The best of one chunk's logits z[n], tokens v, v + 1, ...; the lowest id wins a tie.
static Candidate best_of(const float *z, int64_t v, int64_t n, bool greedy, uint64_t seed, int64_t key, int32_t pos) {
    Candidate best = {-INFINITY, z[0], (int32_t)v};
    float g[64] = {0};
    for (int64_t i = 0; i < n; i++) {
        if (!greedy && i % 64 == 0) gumbel64(g, seed, key, pos, v + i);
        float score = z[i] + g[i % 64];
        if (score > best.score) best = (Candidate){score, z[i], (int32_t)(v + i)};
    }
    return best;
}

// --- The filtered path ---

typedef struct {
    uint32_t order; // the logit's bits, mapped so that unsigned order is float order
    int32_t id;
} Entry;

static uint32_t order_of(float z) {
    uint32_t u;
    z += 0.0f; // -0 and 0 are one value
    memcpy(&u, &z, 4);
    return u ^ (u >> 31 ? 0xffffffffu : 0x80000000u);
}
static float logit_of(uint32_t order) {
    uint32_t u = order ^ (order >> 31 ? 0x80000000u : 0xffffffffu);
    float z;
    memcpy(&z, &u, 4);
    return z;
}

// Stable radix sort, ascending; the result is in `a`. Equal logits stay in ascending id.
static void sort_entries(Entry *a, Entry *b, int64_t n) {
    for (int shift = 0; shift < 32; shift += 8) {
        int64_t at[257] = {0};
        for (int64_t i = 0; i < n; i++) at[(a[i].order >> shift & 255) + 1]++;
        for (int k = 0; k < 256; k++) at[k + 1] += at[k];
        for (int64_t i = 0; i < n; i++) b[at[a[i].order >> shift & 255]++] = a[i];
        Entry *t = a;
        a = b;
        b = t;
    }
}

// What a user wrote as 0.9 arrives as the nearest float; HF computes with the decimal.
static double decimal(float x) { return rint((double)x * 1e7) / 1e7; }

// Sum of e^(z - max) over [first, n).
static double mass(const Entry *e, int64_t first, int64_t n) {
    double sum = 0, max = logit_of(e[n - 1].order);
    for (int64_t i = first; i < n; i++) sum += exp(logit_of(e[i].order) - max);
    return sum;
}

// The first surviving entry of the ascending order; HF's TopK-, TopP- and MinPLogitsWarper, each on what the one
// before it left. Ties with the k-th stay; the token that crosses top_p's mass stays; the best always stays.
static int64_t filter(const Entry *e, int64_t n, SampleParams p) {
    int64_t first = 0;
    double max = logit_of(e[n - 1].order);
    if (p.top_k > 0 && p.top_k < n) {
        first = n - p.top_k;
        while (first > 0 && e[first - 1].order == e[first].order) first--;
    }
    if (p.top_p < 1) {
        float cut = (float)(1 - decimal(p.top_p));
        double sum = mass(e, first, n), below = 0;
        for (; first < n - 1; first++) {
            below += (float)(exp(logit_of(e[first].order) - max) / sum);
            if ((float)below > cut) break;
        }
    }
    if (p.min_p > 0) {
        double sum = mass(e, first, n);
        float least = (float)decimal(p.min_p) * (float)(1 / sum);
        while (first < n - 1 && (float)(exp(logit_of(e[first].order) - max) / sum) < least) first++;
    }
    return first;
}

// The marks of HF's RepetitionPenaltyLogitsProcessor: mark[V] is 1 for every id seen.
static void mark_seen(uint8_t *mark, int64_t V, const int32_t *seen, int64_t n) {
    memset(mark, 0, (size_t)V);
    for (int64_t i = 0; i < n; i++)
        if (seen[i] >= 0 && seen[i] < V) mark[seen[i]] = 1;
}
static float penalised(float z, float penalty) { return z < 0 ? z * penalty : z / penalty; }

// One thread's room for a filtered row.
typedef struct {
    Entry *entry, *spare; // [V]
    uint8_t *mark;        // [V]
} Sorter;
#define SORTER_BYTES(V) ((size_t)(V) * (2 * sizeof(Entry) + 1) + 3 * ARENA_ALIGN)

// Draws from one row's logits z[V].
static Candidate draw_filtered(const float *z, Sorter s, int64_t V, bool greedy, int64_t key, int32_t pos,
                               SampleParams p) {
    int64_t first = 0;
    for (int64_t v = 0; v < V; v++)
        s.entry[v] = (Entry){order_of(s.mark[v] ? penalised(z[v], p.repetition_penalty) : z[v]), (int32_t)v};
    if (!greedy) {
        sort_entries(s.entry, s.spare, V);
        first = filter(s.entry, V, p);
    }
    Candidate best = {-INFINITY, 0, s.entry[V - 1].id};
    for (int64_t i = first; i < V; i++) {
        int32_t id = s.entry[i].id;
        float g[64] = {0};
        if (!greedy) gumbel64(g, p.seed, key, pos, id / 4 * 4);
        float score = logit_of(s.entry[i].order) + g[id % 4];
        if (score > best.score || (score == best.score && id < best.id)) best = (Candidate){score, 0, id};
    }
    best.z = z[best.id];
    return best;
}

#define PASS        512                  // rows at a time
#define LOGITS_ROOM (DEVICE_SCRATCH / 2) // bytes of whole rows of logits, where filters need them

typedef struct {
    Rows x;            // [n, D] the active rows, gathered
    const int32_t *at; // [n] which row of the batch each is
    int64_t n;
    Lse *part;       // [n, chunks]
    Candidate *best; // [n, chunks]; where filtered, only [n, 0] is used
    float *logits;   // [n, V] where filtered
} Draw;

// Streams the head over the rows: summaries, and either each chunk's best candidate or the logits themselves.
static void stream_head(Draw *draw, Tensor w, const int64_t *key, const int32_t *pos, SampleParams p) {
    int64_t V = w.dim[0], D = tensor_width(w), chunks = head_chunks(V);
#pragma omp parallel for collapse(2) schedule(dynamic) if (draw->n * V * D > 1 << 17)
    for (int64_t c = 0; c < chunks; c++)
        for (int64_t i = 0; i < draw->n; i += HEAD_ROWS) {
            int64_t m = draw->n - i < HEAD_ROWS ? draw->n - i : HEAD_ROWS, v = c * HEAD_CHUNK;
            int64_t len = V - v < HEAD_CHUNK ? V - v : HEAD_CHUNK;
            float z[HEAD_ROWS * HEAD_CHUNK];
            head_chunk(z, draw->part + i * chunks + c, chunks, rows_at(draw->x, i), m, rows_at(rows_of(w), v), len, D,
                       head_scale(p.temperature));
            for (int64_t r = i; r < i + m; r++) {
                const float *row = z + (r - i) * HEAD_CHUNK;
                int64_t b = draw->at[r];
                if (draw->logits) memcpy(draw->logits + r * V + v, row, (size_t)len * sizeof *row);
                else draw->best[r * chunks + c] = best_of(row, v, len, p.temperature <= 0, p.seed, key[b], pos[b]);
            }
        }
}

// Draws every row from its whole logits, as many threads as there is room for.
static void draw_rows(Draw *draw, Arena *a, int64_t V, const int64_t *key, const int32_t *pos, Tensor seen,
                      Tensor seen_len, SampleParams p) {
    int64_t chunks = head_chunks(V), width = present(seen) ? tensor_width(seen) : 0;
    bool penalty = present(seen) && p.repetition_penalty != 1;
    int threads = 1;
#ifdef _OPENMP
    threads = omp_get_max_threads();
    int64_t most = (int64_t)((a->cap - a->used) / SORTER_BYTES(V));
    if (threads > most) threads = (int)most;
    if (threads > draw->n) threads = (int)draw->n;
#endif
    Sorter sorter[threads];
    for (int t = 0; t < threads; t++) {
        sorter[t].entry = arena_take(a, (size_t)V * sizeof(Entry));
        sorter[t].spare = arena_take(a, (size_t)V * sizeof(Entry));
        sorter[t].mark = arena_take(a, (size_t)V);
    }
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t r = 0; r < draw->n; r++) {
        int thread = 0;
#ifdef _OPENMP
        thread = omp_get_thread_num();
#endif
        Sorter s = sorter[thread];
        int64_t b = draw->at[r], len = penalty ? (present(seen_len) ? i32(seen_len)[b] : width) : 0;
        mark_seen(s.mark, V, penalty ? i32(seen) + b * width : NULL, len);
        draw->best[r * chunks] = draw_filtered(draw->logits + r * V, s, V, p.temperature <= 0, key[b], pos[b], p);
    }
}

void cpu_sample(Device *d, Tensor token, Tensor logp, Tensor x, Tensor w, Tensor key, Tensor pos, Tensor seen,
                Tensor seen_len, SampleParams p) {
    int64_t B = x.dim[0], V = w.dim[0], chunks = head_chunks(V);
    size_t row_bytes = (size_t)tensor_width(x) * dtype_size(x.dtype);
    bool warped = p.temperature > 0 && (p.top_k > 0 || p.top_p < 1 || p.min_p > 0);
    bool filtered = warped || (present(seen) && p.repetition_penalty != 1);
    int64_t most = filtered ? (int64_t)(LOGITS_ROOM / ((size_t)V * sizeof(float))) : PASS;
    if (most > PASS) most = PASS;
    for (int64_t b = 0; b < B;) {
        size_t mark = arena_mark(&d->scratch);
        int32_t *at = arena_take(&d->scratch, (size_t)most * sizeof *at);
        char *xs = arena_take(&d->scratch, (size_t)most * row_bytes);
        Draw draw = {{xs, x.dtype, tensor_width(x)}, at, 0, NULL, NULL, NULL};
        for (; b < B && draw.n < most; b++) {
            if (i64(key)[b] < 0) continue;
            memcpy(xs + (size_t)draw.n * row_bytes, (char *)x.data + (size_t)b * row_bytes, row_bytes);
            at[draw.n++] = (int32_t)b;
        }
        draw.part = arena_take(&d->scratch, (size_t)(draw.n * chunks) * sizeof *draw.part);
        draw.best = arena_take(&d->scratch, (size_t)(draw.n * chunks) * sizeof *draw.best);
        if (filtered) draw.logits = arena_take(&d->scratch, (size_t)(draw.n * V) * sizeof(float));
        stream_head(&draw, w, i64(key), i32(pos), p);
        if (filtered && draw.n) draw_rows(&draw, &d->scratch, V, i64(key), i32(pos), seen, seen_len, p);
        for (int64_t r = 0; r < draw.n; r++) {
            Candidate best = draw.best[r * chunks];
            for (int64_t c = 1; !filtered && c < chunks; c++)
                if (draw.best[r * chunks + c].score > best.score) best = draw.best[r * chunks + c];
            i32(token)[at[r]] = best.id;
            f32(logp)[at[r]] = best.z - head_lse(draw.part + r * chunks, chunks, NULL);
        }
        arena_rewind(&d->scratch, mark);
    }
}
