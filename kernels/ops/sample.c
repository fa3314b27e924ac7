// sample: draws one token for each row from the head's distribution, and gives its log-prob and the distribution's
// logsumexp and entropy.
//
// A draw is the Gumbel-max trick: argmax over v of z_v + G_v, where G_v = -log(-log(U_v)) comes from Philox keyed by
// (seed, sequence, position, v). It needs no normalisation, so it can be made while the head is streamed; and because
// every random number belongs to its (sequence, position, token), a draw does not depend on the batch or the order of
// work. Filters (repetition penalty, top-k, top-p, min-p) need the whole distribution: then a row's logits are kept,
// those that the filters remove become -inf, and the rest compete with the same random numbers.
#include "head.h"
#include "parallel.h"
#include "philox_vec.h"
#include "sample.h"

typedef struct {
    float score, z; // z + G, or z alone where greedy
    int32_t id;
} Candidate;

static inline vf pick(vi mask, vf a, vf b) { return (vf)(((vi)a & mask) | ((vi)b & ~mask)); }

// Gumbel numbers from random words: -log of the exponential -log(1 - u), with u in (0, 1). That keeps its relative
// precision where u is small, which is where the winners are: so even the rarest token is drawn at its own rate.
static inline vf gumbel(vu bits) {
    vf u = (__builtin_convertvector(bits, vf) + 0.5f) * 0x1p-32f;
    vi large = u > 0.29f; // where it is not, log(1 - u) needs no exponent, and f = -u is exact
    vi s = (vi)vf_max(1.0f - u, vf_set(0x1p-25f)) - VF_SQRT_HALF;
    vf e = pick(large, __builtin_convertvector(s >> 23, vf), vf_set(0));
    vf f = pick(large, (vf)((s & 0x7fffff) + VF_SQRT_HALF) - 1.0f, -u);
    return -vf_log(-vf_log_reduced(f, e));
}

// What gumbel(bits) does not exceed, for a twelfth of its time: -log(1 - u) is at least u, and log(u) at least the
// exponent's. The thousandth is more than the rounding of either.
static inline vf gumbel_most(vu bits) {
    vi exponent = (vi)(__builtin_convertvector(bits, vf) + 0.5f) >> 23; // of 2^32 u, and the bias of 127
    return __builtin_convertvector(127 + 32 - exponent, vf) * 0.693147182f + 0.001f;
}

// The best candidate among the logits z[n] of tokens v, v + 1, ...; v is a multiple of 64; the lowest id wins a tie. z
// is padded with -inf to whole vectors.
static Candidate best_of(const float *z, int64_t v, int64_t n, bool greedy, uint64_t seed, int64_t key, int32_t pos) {
    const vi lane = vi_lanes();
    vf top = vf_set(-INFINITY);
    vi at = {0};
    float most = -INFINITY; // the best score so far, of all lanes
    PhiloxTokens bits;
    for (int64_t i = 0; i < n; i += LANES) {
        vf score = vf_load(z + i);
        if (!greedy) {
            if (i % 64 == 0) bits = philox_tokens(seed, key, pos, (uint32_t)(v + i));
            const vu words = bits.v[i % 64 / LANES];
            // A tie with an earlier token loses, and rounding a sum keeps the order of what is added.
            if (!vi_any(score + gumbel_most(words) > most)) continue;
            score += gumbel(words);
        }
        vi better = score > top;
        top = pick(better, score, top);
        at = (better & (lane + (int32_t)i)) | (~better & at);
        if (!greedy) most = vf_max_lane(top);
    }
    int best = 0;
    for (int l = 1; l < LANES; l++)
        if (top[l] > top[best] || (top[l] == top[best] && at[l] < at[best])) best = l;
    return (Candidate){top[best], z[at[best]], (int32_t)v + at[best]};
}

// --- Filters, as HF's LogitsProcessors define them ---

typedef struct {
    uint32_t order; // the logit's bits, mapped so that their unsigned order is the logits' order
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

// A thread's memory for filtering a row; V is padded to whole vectors.
typedef struct {
    float *z;             // [V]
    Entry *entry, *spare; // [V]
    uint8_t *seen;        // [V]
} Room;
static int64_t padded(int64_t V) { return (V + LANES - 1) / LANES * LANES; }
static size_t room_bytes(int64_t V) {
    return (size_t)padded(V) * (sizeof(float) + 2 * sizeof(Entry) + 1) + 4 * ARENA_ALIGN;
}

// Sorts a[n] ascending by a stable radix sort, so that equal logits stay in ascending id. b[n] is spare.
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

// Applies the repetition penalty to z[V] for every id in seen[n], once even if the id stands there several times.
static void penalise(float *z, uint8_t *done, int64_t V, const int32_t *seen, int64_t n, float penalty) {
    memset(done, 0, (size_t)V);
    for (int64_t i = 0; i < n; i++) {
        int32_t v = seen[i];
        if (v < 0 || v >= V || done[v]) continue;
        done[v] = 1;
        z[v] = z[v] < 0 ? z[v] * penalty : z[v] / penalty;
    }
}

// A bound that at least k logits reach, and few more than k: the k-th largest among the maxima of 1024 groups.
static float bound_top_k(const float *z, int64_t V, int64_t k, Room room) {
    enum { GROUPS = 1024, VECTORS = GROUPS / LANES };
    vf top[VECTORS];
    if (k > GROUPS || V < GROUPS) return -INFINITY;
    for (int i = 0; i < VECTORS; i++) top[i] = vf_set(-INFINITY);
    for (int64_t v = 0; v < V; v += LANES) {
        vf *group = &top[v / LANES % VECTORS];
        *group = vf_max(vf_load(z + v), *group);
    }
    for (int i = 0; i < GROUPS; i++) room.entry[i] = (Entry){order_of(top[i / LANES][i % LANES]), i};
    sort_entries(room.entry, room.spare, GROUPS);
    return logit_of(room.entry[GROUPS - k].order);
}

// Sums of e^(z - max) over the logits from `bound` on (*upper) and below it (*lower).
static void masses(const float *z, int64_t V, float max, float bound, double *upper, double *lower) {
    const int64_t chunk = 1024;
    *upper = *lower = 0;
    for (int64_t v = 0; v < V; v += chunk) {
        vf up = {0}, low = {0};
        for (int64_t i = v; i < v + chunk && i < V; i += LANES) {
            vf x = vf_load(z + i), e = vf_exp(x - max);
            vi above = x >= bound;
            up += pick(above, e, vf_set(0));
            low += pick(above, vf_set(0), e);
        }
        *upper += vf_sum(up);
        *lower += vf_sum(low);
    }
}

// Sets to -inf what top-k, top-p and min-p remove from z[V], each applied to what the one before it left. Every filter
// cuts a prefix off the ascending order (of logit, then id). So the candidates above a safe bound are sorted, and the
// first entry that stays describes the cut. Ties with the k-th stay; the token that crosses top_p's mass stays; the
// best always stays.
static void filter(float *z, Room room, int64_t V, SampleParams p) {
    vf top = vf_set(-INFINITY);
    for (int64_t v = 0; v < V; v += LANES) top = vf_max(vf_load(z + v), top);
    float max = vf_max_lane(top), bound = -INFINITY;
    double upper = 0, lower = 0;
    bool top_k = p.top_k > 0 && p.top_k < V;
    if (top_k) {
        bound = bound_top_k(z, V, p.top_k, room);
    } else {
        masses(z, V, max, bound, &upper, &lower);
        // All logits with p < (1 - top_p) / V weigh less than 1 - top_p together. The margin covers rounding.
        if (p.top_p < 1) bound = max + (float)log((1 - (double)p.top_p) / (double)V * upper) - 0.01f;
        if (p.min_p > 0) bound = fmaxf(bound, max + logf(p.min_p) - 0.01f);
        masses(z, V, max, bound, &upper, &lower);
    }
    Entry *e = room.entry;
    int64_t n = 0, first = 0;
    for (int64_t v = 0; v < V; v++)
        if (z[v] >= bound) e[n++] = (Entry){order_of(z[v]), (int32_t)v};
    if (n == 0) return; // not a number
    sort_entries(e, room.spare, n);
    if (top_k) {
        first = n - p.top_k;
        while (first > 0 && e[first - 1].order == e[first].order) first--;
        for (int64_t i = first; i < n; i++) upper += exp((double)logit_of(e[i].order) - max);
    }
    double sum = upper + lower;
    if (p.top_p < 1) {
        float cut = (float)(1 - sample_decimal(p.top_p));
        double below = lower / sum;
        for (; first < n - 1; first++) {
            double x = exp((double)logit_of(e[first].order) - max);
            below += (float)(x / sum);
            if ((float)below > cut) break;
            upper -= x;
        }
    }
    float least = (float)sample_decimal(p.min_p) * (float)(1 / upper);
    while (first < n - 1 && (float)(exp((double)logit_of(e[first].order) - max) / upper) < least) first++;
    float last = logit_of(e[first].order);
    for (int64_t v = 0; v < V; v++)
        if (z[v] < last || (z[v] == last && v < e[first].id)) z[v] = -INFINITY;
}

#define PASS        512                  // rows in one pass over the head
#define LOGITS_ROOM (DEVICE_SCRATCH / 2) // bytes of whole rows of logits, where filters need them

// One pass: n active rows and what the head gives for them.
typedef struct {
    Rows x;            // [n, D] the active rows, gathered
    const int32_t *at; // [n] their rows in the batch
    int64_t n;
    Lse *summary;    // [n, chunks]
    Candidate *best; // [n, chunks]; where filtered, only [n, 0] is used
    float *logits;   // [n, V] where filtered
} Draw;

// Streams the head over the rows: fills in the summaries, and either each chunk's best candidate or the logits
// themselves.
static void stream_head(Draw *draw, Tensor w, const int64_t *key, const int32_t *pos, SampleParams p) {
    int64_t V = w.dim[0], D = tensor_width(w), chunks = head_chunks(V);
#pragma omp parallel for collapse(2) schedule(dynamic) if (draw->n * V * D > 1 << 17)
    for (int64_t c = 0; c < chunks; c++)
        for (int64_t i = 0; i < draw->n; i += HEAD_ROWS) {
            int64_t m = draw->n - i < HEAD_ROWS ? draw->n - i : HEAD_ROWS, v = c * HEAD_CHUNK;
            int64_t len = V - v < HEAD_CHUNK ? V - v : HEAD_CHUNK;
            float z[HEAD_ROWS * HEAD_CHUNK];
            head_chunk(z, draw->summary + i * chunks + c, chunks, rows_at(draw->x, i), m, rows_at(rows_of(w), v), len,
                       D, head_scale(p.temperature));
            for (int64_t r = i; r < i + m; r++) {
                const float *row = z + (r - i) * HEAD_CHUNK;
                int64_t b = draw->at[r];
                if (draw->logits) memcpy(draw->logits + r * V + v, row, (size_t)len * sizeof *row);
                else draw->best[r * chunks + c] = best_of(row, v, len, p.temperature <= 0, p.seed, key[b], pos[b]);
            }
        }
}

// Filters every row's logits and draws from what is left, with as many threads as scratch has room for.
static void draw_rows(Draw *draw, Device *d, int64_t V, const int64_t *key, const int32_t *pos, Tensor seen,
                      Tensor seen_len, SampleParams p) {
    int64_t chunks = head_chunks(V), width = present(seen) ? tensor_width(seen) : 0;
    int threads = threads_that_fit(d, room_bytes(V), draw->n);
    Room rooms[threads];
    for (int t = 0; t < threads; t++) {
        size_t n = (size_t)padded(V);
        rooms[t].z = arena_take(&d->scratch, n * sizeof(float));
        rooms[t].entry = arena_take(&d->scratch, n * sizeof(Entry));
        rooms[t].spare = arena_take(&d->scratch, n * sizeof(Entry));
        rooms[t].seen = arena_take(&d->scratch, n);
    }
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t r = 0; r < draw->n; r++) {
        Room room = rooms[thread_index()];
        int64_t b = draw->at[r];
        const float *z = draw->logits + r * V;
        memcpy(room.z, z, (size_t)V * sizeof *z);
        for (int64_t v = V; v < padded(V); v++) room.z[v] = -INFINITY;
        if (present(seen) && p.repetition_penalty != 1)
            penalise(room.z, room.seen, V, i32(seen) + b * width, present(seen_len) ? i32(seen_len)[b] : width,
                     p.repetition_penalty);
        if (sample_filters(&p)) filter(room.z, room, V, p);
        Candidate best = best_of(room.z, 0, V, p.temperature <= 0, p.seed, key[b], pos[b]);
        best.z = z[best.id];
        draw->best[r * chunks] = best;
    }
}

void cpu_sample(Device *d, SampleOut to, Tensor x, Tensor w, Tensor key, Tensor pos, Tensor seen, Tensor seen_len,
                SampleParams p) {
    int64_t B = x.dim[0], V = w.dim[0], chunks = head_chunks(V);
    size_t row_bytes = (size_t)tensor_width(x) * dtype_size(x.dtype);
    bool filtered = sample_filters(&p) || (present(seen) && p.repetition_penalty != 1);
    int64_t most = filtered ? (int64_t)(LOGITS_ROOM / ((size_t)V * sizeof(float))) : PASS;
    if (most > PASS) most = PASS;
    for (int64_t b = 0; b < B;) {
        size_t mark = arena_mark(&d->scratch);
        int32_t *at = arena_take(&d->scratch, (size_t)most * sizeof *at);
        char *xs = arena_take(&d->scratch, (size_t)most * row_bytes);
        Draw draw = {{xs, x.dtype, tensor_width(x), false, NULL, 0}, at, 0, NULL, NULL, NULL};
        for (; b < B && draw.n < most; b++) {
            if (i64(key)[b] < 0) continue;
            memcpy(xs + (size_t)draw.n * row_bytes, (char *)x.data + (size_t)b * row_bytes, row_bytes);
            at[draw.n++] = (int32_t)b;
        }
        draw.summary = arena_take(&d->scratch, (size_t)(draw.n * chunks) * sizeof *draw.summary);
        draw.best = arena_take(&d->scratch, (size_t)(draw.n * chunks) * sizeof *draw.best);
        draw.x = dot_ready(&d->scratch, draw.x, draw.n, tensor_width(x));
        if (filtered) draw.logits = arena_take(&d->scratch, (size_t)(draw.n * V) * sizeof(float));
        stream_head(&draw, w, i64(key), i32(pos), p);
        if (filtered && draw.n) draw_rows(&draw, d, V, i64(key), i32(pos), seen, seen_len, p);
        for (int64_t r = 0; r < draw.n; r++) {
            Candidate best = draw.best[r * chunks];
            for (int64_t c = 1; !filtered && c < chunks; c++)
                if (draw.best[r * chunks + c].score > best.score) best = draw.best[r * chunks + c];
            float entropy, lse = head_lse(draw.summary + r * chunks, chunks, &entropy);
            i32(to.token)[at[r]] = best.id;
            f32(to.logp)[at[r]] = best.z - lse;
            if (present(to.lse)) f32(to.lse)[at[r]] = lse;
            if (present(to.entropy)) f32(to.entropy)[at[r]] = entropy;
        }
        arena_rewind(&d->scratch, mark);
    }
}
