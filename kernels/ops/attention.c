// Causal grouped-query attention over packed sequences, forward (the core of attention.h) and backward (Dao et al. 2022).
//
// Forward work is cut into tiles of at most 64 positions of one sequence and one kv head, with all the query heads of
// its group; a tile reads its keys once. Backward work is cut into (sequence, kv head): whoever owns one owns all its
// sums, so their order is fixed.
#include "attention.h"
#include "parallel.h"

#define TILE_ROWS 512 // (position, head) rows of a tile at most

typedef struct {
    int64_t H, K, d, dp, group;
    int64_t positions; // of a tile: a power of two that divides CHUNK, so that a tile ends within its last chunk
    int64_t block;     // rows computed together
    float scale;
    DType t;
} Shape;

static Shape shape_of(Tensor qkv, int n_kv) {
    Shape s = {.K = n_kv, .H = qkv.dim[1] - 2 * n_kv, .d = qkv.dim[2], .t = qkv.dtype, .positions = CHUNK};
    s.dp = padded(s.d);
    s.group = s.H / s.K;
    while (s.positions > 1 && s.positions * s.group > TILE_ROWS) s.positions /= 2;
    s.block = s.group < BLOCK_ROWS ? BLOCK_ROWS / s.group * s.group : BLOCK_ROWS;
    s.scale = 1.0f / sqrtf((float)s.d);
    return s;
}

// Head `head` of token t in x[T, heads, d].
static inline void *head_at(Tensor x, int64_t t, int64_t head) {
    return (char *)x.data + (size_t)((t * x.dim[1] + head) * x.dim[2]) * dtype_size(x.dtype);
}

// Pointers to the keys (or values) of n tokens from t on.
static void head_rows(const void **row, Tensor x, int64_t t, int64_t n, int64_t head) {
    for (int64_t i = 0; i < n; i++) row[i] = head_at(x, t + i, head);
}

// Rows that belong to no sequence give 0.
static void clear_rest(Tensor x, int64_t first) {
    if (first < x.dim[0])
        memset(tensor_rows(x, first, 1).data, 0, tensor_bytes(tensor_rows(x, first, x.dim[0] - first)));
}

typedef struct {
    int32_t seq, pos; // sequence, first position in it
} Tile;

// All tiles of the batch, in scratch; *count of them.
static Tile *tiles_of(Arena *a, const int32_t *seq, int64_t B, int64_t positions, int64_t *count) {
    int64_t n = 0;
    for (int64_t b = 0; b < B; b++) n += (seq[b + 1] - seq[b] + positions - 1) / positions;
    Tile *tile = arena_take(a, (size_t)n * sizeof *tile); // [n]
    *count = n;
    n = 0;
    for (int32_t b = 0; b < B; b++)
        for (int32_t p = 0; p < seq[b + 1] - seq[b]; p += (int32_t)positions) tile[n++] = (Tile){b, p};
    return tile;
}

static void attention_tile(const Shape *s, Tensor y, Tensor lse, Tensor qkv, int64_t start, int64_t pos, int64_t count,
                           int64_t k, float *room) {
    float *kt = room, *v = kt + CHUNK * s->dp;
    int64_t rows = count * s->group;
    Queries q = queries_at(v + CHUNK * s->dp, rows, s->dp);
    for (int64_t r = 0; r < rows; r++)
        query_start(q, r, head_at(qkv, start + pos + r / s->group, k * s->group + r % s->group), s->t, s->d, s->scale);
    for (int64_t j = 0; j < pos + count; j += CHUNK) {
        int64_t keys = pos + count - j < CHUNK ? pos + count - j : CHUNK;
        const void *row[CHUNK];
        head_rows(row, qkv, start + j, keys, s->H + k);
        pack_transposed(kt, row, keys, s->t, s->d);
        head_rows(row, qkv, start + j, keys, s->H + s->K + k);
        pack_rows(v, row, keys, s->t, s->d);
        for (int64_t first = 0; first < rows; first += s->block) {
            int64_t n = rows - first < s->block ? rows - first : s->block, seen[BLOCK_ROWS];
            for (int64_t r = 0; r < n; r++) {
                seen[r] = pos + (first + r) / s->group + 1 - j;
                if (seen[r] > CHUNK) seen[r] = CHUNK;
            }
            attend(q, first, (int)n, seen, kt, v, s->d);
        }
    }
    for (int64_t r = 0; r < rows; r++) {
        int64_t t = start + pos + r / s->group, h = k * s->group + r % s->group;
        query_finish(q, r, head_at(y, t, h), y.dtype, s->d);
        f32(lse)[t * s->H + h] = q.m[r] + logf(q.l[r]);
    }
}

void cpu_attention(Device *d, Tensor y, Tensor lse, Tensor qkv, Tensor seq, int n_kv) {
    Shape s = shape_of(qkv, n_kv);
    int64_t tiles, B = seq.dim[0] - 1;
    size_t mark = arena_mark(&d->scratch);
    const int32_t *offset = i32(seq); // [B+1]
    Tile *tile = tiles_of(&d->scratch, offset, B, s.positions, &tiles);
    size_t floats = (size_t)(2 * CHUNK * s.dp) + queries_floats(s.positions * s.group, s.dp);
    int threads = threads_that_fit(d, floats * sizeof(float), tiles * s.K);
    float *room = arena_take(&d->scratch, (size_t)threads * floats * sizeof *room); // [threads, floats]
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (int64_t item = tiles * s.K - 1; item >= 0; item--) {
        Tile at = tile[item / s.K];
        int64_t left = offset[at.seq + 1] - offset[at.seq] - at.pos;
        attention_tile(&s, y, lse, qkv, offset[at.seq], at.pos, left < s.positions ? left : s.positions, item % s.K,
                       room + (size_t)thread_index() * floats);
    }
    clear_rest(y, offset[B]);
    clear_rest(lse, offset[B]);
    arena_rewind(&d->scratch, mark);
}

// Backward. With p = e^(q k - lse), all with q already scaled:
//   dv = p^T dy        dp = dy v^T        ds = p (dp - delta), delta = sum(dy * y)        dq = scale ds k        dk = ds^T q
//
// A sequence is taken in windows of keys, whose dk and dv are summed in f32; each window is met by all queries after it.
// Where a sequence has several, dq is rounded after each.
#define BWD_ROWS 64   // rows whose p and ds are at hand at once
#define WINDOW   4096 // keys

typedef struct {
    float *kt, *vt;     // [d, CHUNK]
    float *k;           // [CHUNK, dp]
    float *p, *ds;      // [BWD_ROWS, CHUNK]
    float *q, *dy, *dq; // [tile rows, dp]
    float *lse, *delta; // [tile rows]
    float *dk, *dv;     // [keys of the window, dp]
} Backward;

static size_t backward_floats(const Shape *s, int64_t keys) {
    int64_t rows = s->positions * s->group;
    return (size_t)(3 * CHUNK * s->dp + 2 * BWD_ROWS * CHUNK + rows * (3 * s->dp + 2) + 2 * keys * s->dp);
}
static float *carve(float **at, int64_t n) {
    float *p = *at;
    *at += n;
    return p;
}
static Backward backward_at(const Shape *s, float *at, int64_t keys) {
    int64_t rows = s->positions * s->group;
    Backward b;
    b.kt = carve(&at, CHUNK * s->dp), b.vt = carve(&at, CHUNK * s->dp), b.k = carve(&at, CHUNK * s->dp);
    b.p = carve(&at, BWD_ROWS * CHUNK), b.ds = carve(&at, BWD_ROWS * CHUNK);
    b.q = carve(&at, rows * s->dp), b.dy = carve(&at, rows * s->dp), b.dq = carve(&at, rows * s->dp);
    b.lse = carve(&at, rows), b.delta = carve(&at, rows);
    b.dk = carve(&at, keys * s->dp), b.dv = carve(&at, keys * s->dp);
    return b;
}

// p and ds of one row from its scores and dp, both [CHUNK]; 0 from key n on.
static inline void softmax_bwd(float *p, float *ds, int64_t n, float lse, float delta) {
    const vi lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int64_t j = 0; j < CHUNK; j += LANES) {
        vi seen = lane < (int32_t)(n - j);
        vf x = vf_exp(vf_load(p + j) - lse);
        vf g = x * (vf_load(ds + j) - delta);
        vf_store(p + j, (vf)((vi)x & seen));
        vf_store(ds + j, (vf)((vi)g & seen));
    }
}

// Rows [first, first + n) of a tile meet one chunk of `keys` keys, the first of them the j-th of the sequence.
static void backward_block(const Shape *s, Backward *b, int64_t pos, int64_t j, int64_t keys, int64_t first,
                           int64_t n) {
    int64_t dp = s->dp, at = j % WINDOW * dp;
    for (int64_t r = 0; r < n; r += s->block) {
        int rows = (int)(n - r < s->block ? n - r : s->block);
        scores(b->p + r * CHUNK, b->q + (first + r) * dp, dp, b->kt, s->d, CHUNK, rows);
        scores(b->ds + r * CHUNK, b->dy + (first + r) * dp, dp, b->vt, s->d, CHUNK, rows);
        for (int64_t i = r; i < r + rows; i++)
            softmax_bwd(b->p + i * CHUNK, b->ds + i * CHUNK, pos + (first + i) / s->group + 1 - j, b->lse[first + i],
                        b->delta[first + i]);
        products(b->dq + (first + r) * dp, dp, b->ds + r * CHUNK, CHUNK, 1, b->k, keys, rows);
    }
    for (int64_t i = 0; i < keys; i += BLOCK_ROWS) {
        int rows = (int)(keys - i < BLOCK_ROWS ? keys - i : BLOCK_ROWS);
        products(b->dv + at + i * dp, dp, b->p + i, 1, CHUNK, b->dy + first * dp, n, rows);
        products(b->dk + at + i * dp, dp, b->ds + i, 1, CHUNK, b->q + first * dp, n, rows);
    }
}

// `count` positions from `pos` on of the sequence at token `start`, against the keys of one window that they see.
static void backward_tile(const Shape *s, Backward *b, Tensor dqkv, Tensor dy, Tensor y, Tensor lse, Tensor qkv,
                          int64_t start, int64_t pos, int64_t count, int64_t window, int64_t k) {
    int64_t end = pos + count < window + WINDOW ? pos + count : window + WINDOW; // of the keys
    int64_t rows = count * s->group, dp = s->dp;
    for (int64_t r = 0; r < rows; r++) {
        int64_t t = start + pos + r / s->group, h = k * s->group + r % s->group;
        vf delta = {0};
        for (int64_t i = 0; i < dp; i += LANES) {
            vf g = row_load_part(head_at(dy, t, h), s->t, i, s->d - i);
            vf_store(b->q + r * dp + i, row_load_part(head_at(qkv, t, h), s->t, i, s->d - i) * s->scale);
            vf_store(b->dy + r * dp + i, g);
            delta = vf_fma(g, row_load_part(head_at(y, t, h), s->t, i, s->d - i), delta);
        }
        b->delta[r] = vf_sum(delta);
        b->lse[r] = f32(lse)[t * s->H + h];
    }
    memset(b->dq, 0, (size_t)(rows * dp) * sizeof *b->dq);
    for (int64_t j = window; j < end; j += CHUNK) {
        int64_t keys = end - j < CHUNK ? end - j : CHUNK;
        const void *row[CHUNK];
        head_rows(row, qkv, start + j, keys, s->H + k);
        pack_transposed(b->kt, row, keys, s->t, s->d);
        pack_rows(b->k, row, keys, s->t, s->d);
        head_rows(row, qkv, start + j, keys, s->H + s->K + k);
        pack_transposed(b->vt, row, keys, s->t, s->d);
        int64_t step = BWD_ROWS / s->block * s->block;
        for (int64_t first = 0; first < rows; first += step)
            backward_block(s, b, pos, j, keys, first, rows - first < step ? rows - first : step);
    }
    for (int64_t r = 0; r < rows; r++) {
        void *out = head_at(dqkv, start + pos + r / s->group, k * s->group + r % s->group);
        for (int64_t i = 0; i < s->d; i += LANES) {
            vf dq = vf_load(b->dq + r * dp + i) * s->scale;
            if (window) dq += row_load_part(out, s->t, i, s->d - i);
            row_store_part(out, s->t, i, s->d - i, dq);
        }
    }
}

static void store_head(Tensor x, int64_t start, int64_t n, int64_t head, const float *from, int64_t dp) {
    for (int64_t t = 0; t < n; t++)
        for (int64_t i = 0; i < x.dim[2]; i += LANES)
            row_store_part(head_at(x, start + t, head), x.dtype, i, x.dim[2] - i, vf_load(from + t * dp + i));
}

void cpu_attention_bwd(Device *d, Tensor dqkv, Tensor dy, Tensor y, Tensor lse, Tensor qkv, Tensor seq, int n_kv) {
    Shape s = shape_of(qkv, n_kv);
    int64_t B = seq.dim[0] - 1, widest = 0;
    const int32_t *offset = i32(seq); // [B+1]
    for (int64_t b = 0; b < B; b++)
        if (offset[b + 1] - offset[b] > widest) widest = offset[b + 1] - offset[b];
    if (widest > WINDOW) widest = WINDOW;
    size_t mark = arena_mark(&d->scratch), floats = backward_floats(&s, widest);
    int threads = threads_that_fit(d, floats * sizeof(float), B * s.K);
    float *room = arena_take(&d->scratch, (size_t)threads * floats * sizeof *room); // [threads, floats]
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (int64_t item = 0; item < B * s.K; item++) {
        int64_t start = offset[item / s.K], n = offset[item / s.K + 1] - start, k = item % s.K;
        Backward b = backward_at(&s, room + (size_t)thread_index() * floats, widest);
        for (int64_t window = 0; window < n; window += WINDOW) {
            int64_t keys = n - window < WINDOW ? n - window : WINDOW;
            memset(b.dk, 0, (size_t)(keys * s.dp) * sizeof *b.dk);
            memset(b.dv, 0, (size_t)(keys * s.dp) * sizeof *b.dv);
            for (int64_t pos = window; pos < n; pos += s.positions)
                backward_tile(&s, &b, dqkv, dy, y, lse, qkv, start, pos, n - pos < s.positions ? n - pos : s.positions,
                              window, k);
            store_head(dqkv, start + window, keys, s.H + k, b.dk, s.dp);
            store_head(dqkv, start + window, keys, s.H + s.K + k, b.dv, s.dp);
        }
    }
    clear_rest(dqkv, offset[B]);
    arena_rewind(&d->scratch, mark);
}
