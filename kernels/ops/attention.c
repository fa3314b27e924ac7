// Causal grouped-query attention over packed sequences, forward (with the inner loops of attention.h) and backward (Dao
// et al. 2022).
//
// Forward work is cut into tiles of at most 64 positions of one sequence and one kv head, with all the query heads of
// its group; a tile reads its keys once. Backward work is cut into (sequence, kv head) pairs: one thread makes all sums
// of a pair, so their order is fixed. The gradients of keys in a prefix that several sequences share are separate
// pieces of work, 64 keys of a kv head each.
#include "attention.h"
#include "parallel.h"

#define TILE_ROWS 512 // at most so many (position, head) rows in a tile

typedef struct {
    int64_t H, K, d, dp, group;
    int64_t positions; // in a tile: a power of two that divides CHUNK, so that a tile ends within its last chunk
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

// One of the packed sequences: n tokens from token `start` on, at positions `before`, before + 1, ... Positions below
// `before` are those of a shared prefix, another sequence of the pack that begins at token `prefix`.
typedef struct {
    int64_t start, n, prefix, before;
    bool shared; // whether it is the prefix of others
} Sequence;

// The sequences of the batch, made in scratch.
static Sequence *sequences_of(Arena *a, Tensor seq, Tensor prefix) {
    int64_t B = seq.dim[0] - 1;
    const int32_t *offset = i32(seq);                                 // [B+1]
    Sequence *sequence = arena_take(a, (size_t)B * sizeof *sequence); // [B]
    for (int64_t b = 0; b < B; b++) {
        int64_t p = present(prefix) ? i32(prefix)[b] : -1;
        sequence[b] = (Sequence){.start = offset[b], .n = offset[b + 1] - offset[b]};
        if (p < 0) continue;
        if (p >= b || (p < b - 1 && i32(prefix)[b - 1] != p) || i32(prefix)[p] >= 0)
            die("attention: sequence %d cannot go on from sequence %d of %d", (int)b, (int)p, (int)B);
        sequence[b].prefix = sequence[p].start, sequence[b].before = sequence[p].n;
        sequence[p].shared = true;
    }
    return sequence;
}
static inline int64_t end_of(const Sequence *q) { return q->before + q->n; }
// The token at a position of a sequence, which may be one of the prefix's.
static inline int64_t token_at(const Sequence *q, int64_t pos) {
    return pos < q->before ? q->prefix + pos : q->start + pos - q->before;
}

// Makes row[] point to the keys (or values, by `head`) of n positions from pos on.
static void head_rows(const void **row, Tensor x, const Sequence *q, int64_t pos, int64_t n, int64_t head) {
    for (int64_t i = 0; i < n; i++) row[i] = head_at(x, token_at(q, pos + i), head);
}

// Sets to 0 the rows from `first` on, which belong to no sequence.
static void clear_rest(Tensor x, int64_t first) {
    if (first < x.dim[0])
        memset(tensor_rows(x, first, 1).data, 0, tensor_bytes(tensor_rows(x, first, x.dim[0] - first)));
}

typedef struct {
    int32_t seq, pos, count; // sequence, first position, positions
} Tile;

// Where the tile that holds position pos ends: at a multiple of `size`, wherever the sequence begins.
static inline int64_t tile_end(const Sequence *q, int64_t pos, int64_t size) {
    int64_t end = pos / size * size + size;
    return end < end_of(q) ? end : end_of(q);
}

// The tiles of the batch, made in scratch; *count of them.
static Tile *tiles_of(Arena *a, const Sequence *q, int64_t B, int64_t size, int64_t *count) {
    int64_t n = 0;
    for (int64_t b = 0; b < B; b++)
        for (int64_t pos = q[b].before; pos < end_of(&q[b]); pos = tile_end(&q[b], pos, size)) n++;
    Tile *tile = arena_take(a, (size_t)n * sizeof *tile); // [n]
    *count = n;
    n = 0;
    for (int64_t b = 0; b < B; b++)
        for (int64_t pos = q[b].before, end; pos < end_of(&q[b]); pos = end) {
            end = tile_end(&q[b], pos, size);
            tile[n++] = (Tile){(int32_t)b, (int32_t)pos, (int32_t)(end - pos)};
        }
    return tile;
}

// One tile, `count` positions from pos on, for kv head k.
static void attention_tile(const Shape *s, Tensor y, Tensor lse, Tensor qkv, const Sequence *own, int64_t pos,
                           int64_t count, int64_t k, float *room) {
    float *kt = room, *v = kt + CHUNK * s->dp;
    int64_t rows = count * s->group;
    Queries q = queries_at(v + CHUNK * s->dp, rows, s->dp);
    for (int64_t r = 0; r < rows; r++)
        query_start(q, r, head_at(qkv, token_at(own, pos + r / s->group), k * s->group + r % s->group), s->t, s->d,
                    s->scale);
    for (int64_t j = 0; j < pos + count; j += CHUNK) {
        int64_t keys = pos + count - j < CHUNK ? pos + count - j : CHUNK;
        const void *row[CHUNK];
        head_rows(row, qkv, own, j, keys, s->H + k);
        pack_transposed(kt, row, keys, s->t, s->d);
        head_rows(row, qkv, own, j, keys, s->H + s->K + k);
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
        int64_t t = token_at(own, pos + r / s->group), h = k * s->group + r % s->group;
        query_finish(q, r, head_at(y, t, h), y.dtype, s->d);
        f32(lse)[t * s->H + h] = q.m[r] + logf(q.l[r]);
    }
}

void cpu_attention(Device *d, Tensor y, Tensor lse, Tensor qkv, Tensor seq, Tensor prefix, int n_kv) {
    Shape s = shape_of(qkv, n_kv);
    int64_t tiles, B = seq.dim[0] - 1;
    size_t mark = arena_mark(&d->scratch);
    Sequence *sequence = sequences_of(&d->scratch, seq, prefix);
    Tile *tile = tiles_of(&d->scratch, sequence, B, s.positions, &tiles);
    size_t floats = (size_t)(2 * CHUNK * s.dp) + queries_floats(s.positions * s.group, s.dp);
    int threads = threads_that_fit(d, floats * sizeof(float), tiles * s.K);
    float *room = arena_take(&d->scratch, (size_t)threads * floats * sizeof *room); // [threads, floats]
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (int64_t item = tiles * s.K - 1; item >= 0; item--) {
        Tile at = tile[item / s.K];
        attention_tile(&s, y, lse, qkv, &sequence[at.seq], at.pos, at.count, item % s.K,
                       room + (size_t)thread_index() * floats);
    }
    clear_rest(y, i32(seq)[B]);
    clear_rest(lse, i32(seq)[B]);
    arena_rewind(&d->scratch, mark);
}

// Backward. With p = e^(q k - lse), all with q already scaled:
//   dv = p^T dy     dp = dy v^T     ds = p (dp - delta), delta = sum(dy * y)     dq = scale ds k     dk = ds^T q
//
// The keys of a sequence are taken in windows, whose dk and dv are summed in f32; all queries that see a window go
// through it. Where a sequence has several windows, dq is rounded after each. The keys of a shared prefix give only dq
// in this pass: their dk and dv, to which several sequences add, are made by backward_prefix, a chunk at a time, which
// computes p and ds again.
#define BWD_ROWS 64   // rows whose p and ds are computed at once
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

// Turns a row's scores p[CHUNK] into probabilities, and its dp, in ds[CHUNK], into ds; 0 from key n on.
static inline void softmax_bwd(float *p, float *ds, int64_t n, float lse, float delta) {
    const vi lane = vi_lanes();
    int64_t j = 0;
    for (; j < CHUNK && j < n; j += LANES) {
        vi seen = lane < (int32_t)(n - j);
        vf x = vf_exp(vf_load(p + j) - lse);
        vf g = x * (vf_load(ds + j) - delta);
        vf_store(p + j, (vf)((vi)x & seen));
        vf_store(ds + j, (vf)((vi)g & seen));
    }
    for (; j < CHUNK; j += LANES) vf_store(p + j, vf_set(0)), vf_store(ds + j, vf_set(0));
}

// Which sums to make from rows and keys: those of the rows, dq; those of the keys, dk and dv; or both.
typedef enum { FOR_ROWS = 1, FOR_KEYS = 2 } Sums;

// Adds to the sums what rows [first, first + n) of a tile give with one chunk of `keys` keys, the first of them at
// position j. FOR_KEYS makes the sums of keys from number `own` on (and of some before it, which are not used).
// Rows and keys that do not see each other are left out by whole blocks: half of the work where the chunk is the
// tile's own.
static void backward_block(const Shape *s, Backward *b, int64_t pos, int64_t j, int64_t keys, int64_t own,
                           int64_t first, int64_t n, int sums) {
    int64_t dp = s->dp, at = j % WINDOW * dp;
    for (int64_t r = 0; r < n; r += s->block) {
        int rows = (int)(n - r < s->block ? n - r : s->block);
        int64_t most = pos + (first + r + rows - 1) / s->group + 1 - j; // keys that the last row sees
        if (most > keys) most = keys;
        if (most < 0) most = 0;
        scores(b->p + r * CHUNK, b->q + (first + r) * dp, dp, b->kt, s->d, most, rows);
        scores(b->ds + r * CHUNK, b->dy + (first + r) * dp, dp, b->vt, s->d, most, rows);
        for (int64_t i = r; i < r + rows; i++) {
            int64_t seen = pos + (first + i) / s->group + 1 - j;
            softmax_bwd(b->p + i * CHUNK, b->ds + i * CHUNK, seen < most ? seen : most, b->lse[first + i],
                        b->delta[first + i]);
        }
        if (sums & FOR_ROWS) products(b->dq + (first + r) * dp, dp, b->ds + r * CHUNK, CHUNK, 1, b->k, most, rows);
    }
    for (int64_t i = own / BLOCK_ROWS * BLOCK_ROWS; i < keys && sums & FOR_KEYS; i += BLOCK_ROWS) {
        int rows = (int)(keys - i < BLOCK_ROWS ? keys - i : BLOCK_ROWS);
        int64_t r = (j + i - pos) * s->group - first; // the first row that sees key i
        if (r < 0) r = 0;
        if (r >= n) break;
        products(b->dv + at + i * dp, dp, b->p + r * CHUNK + i, 1, CHUNK, b->dy + (first + r) * dp, n - r, rows);
        products(b->dk + at + i * dp, dp, b->ds + r * CHUNK + i, 1, CHUNK, b->q + (first + r) * dp, n - r, rows);
    }
}

// Loads the rows of `count` positions from pos on: scaled q, dy, delta and lse.
static void backward_load(const Shape *s, Backward *b, Tensor dy, Tensor y, Tensor lse, Tensor qkv, const Sequence *own,
                          int64_t pos, int64_t count, int64_t k) {
    for (int64_t r = 0; r < count * s->group; r++) {
        int64_t t = token_at(own, pos + r / s->group), h = k * s->group + r % s->group;
        vf delta = {0};
        for (int64_t i = 0; i < s->dp; i += LANES) {
            vf g = row_load_part(head_at(dy, t, h), s->t, i, s->d - i);
            vf_store(b->q + r * s->dp + i, row_load_part(head_at(qkv, t, h), s->t, i, s->d - i) * s->scale);
            vf_store(b->dy + r * s->dp + i, g);
            delta = vf_fma(g, row_load_part(head_at(y, t, h), s->t, i, s->d - i), delta);
        }
        b->delta[r] = vf_sum(delta);
        b->lse[r] = f32(lse)[t * s->H + h];
    }
}

// Takes the loaded rows through the keys at positions [from, end), a chunk at a time.
static void backward_rows(const Shape *s, Backward *b, Tensor qkv, const Sequence *own, int64_t pos, int64_t count,
                          int64_t from, int64_t end, int64_t k, int sums) {
    int64_t rows = count * s->group, step = BWD_ROWS / s->block * s->block;
    for (int64_t j = from; j < end; j += CHUNK) {
        int64_t keys = end - j < CHUNK ? end - j : CHUNK;
        // In the pass that makes dq, the first `others` keys of the chunk are the prefix's: their sums are made
        // elsewhere.
        int64_t others = sums & FOR_ROWS && own->before > j ? own->before - j : 0;
        const void *row[CHUNK];
        head_rows(row, qkv, own, j, keys, s->H + k);
        pack_transposed(b->kt, row, keys, s->t, s->d);
        pack_rows(b->k, row, keys, s->t, s->d);
        head_rows(row, qkv, own, j, keys, s->H + s->K + k);
        pack_transposed(b->vt, row, keys, s->t, s->d);
        for (int64_t first = 0; first < rows; first += step)
            backward_block(s, b, pos, j, keys, others, first, rows - first < step ? rows - first : step, sums);
    }
}

// One tile, `count` positions from pos on, with the keys it sees of one window.
static void backward_tile(const Shape *s, Backward *b, Tensor dqkv, Tensor dy, Tensor y, Tensor lse, Tensor qkv,
                          const Sequence *own, int64_t pos, int64_t count, int64_t window, int64_t k) {
    int64_t end = pos + count < window + WINDOW ? pos + count : window + WINDOW; // where its keys end
    int64_t rows = count * s->group, dp = s->dp;
    backward_load(s, b, dy, y, lse, qkv, own, pos, count, k);
    memset(b->dq, 0, (size_t)(rows * dp) * sizeof *b->dq);
    backward_rows(s, b, qkv, own, pos, count, window, end, k, own->shared ? FOR_ROWS : FOR_ROWS | FOR_KEYS);
    for (int64_t r = 0; r < rows; r++) {
        void *out = head_at(dqkv, token_at(own, pos + r / s->group), k * s->group + r % s->group);
        for (int64_t i = 0; i < s->d; i += LANES) {
            vf dq = vf_load(b->dq + r * dp + i) * s->scale;
            if (window) dq += row_load_part(out, s->t, i, s->d - i);
            row_store_part(out, s->t, i, s->d - i, dq);
        }
    }
}

// Sets to 0 the sums of n keys, from key `at` of the window on.
static void clear_sums(const Shape *s, Backward *b, int64_t at, int64_t n) {
    memset(b->dk + at * s->dp, 0, (size_t)(n * s->dp) * sizeof *b->dk);
    memset(b->dv + at * s->dp, 0, (size_t)(n * s->dp) * sizeof *b->dv);
}
// Stores those sums as dk and dv of the n tokens from t on.
static void store_sums(const Shape *s, const Backward *b, Tensor dqkv, int64_t t, int64_t n, int64_t at, int64_t k) {
    for (int64_t x = 0; x < 2 * n; x++) {
        const float *from = (x < n ? b->dk : b->dv) + (at + x % n) * s->dp;
        void *to = head_at(dqkv, t + x % n, x < n ? s->H + k : s->H + s->K + k);
        for (int64_t i = 0; i < s->d; i += LANES) row_store_part(to, s->t, i, s->d - i, vf_load(from + i));
    }
}

// dq of a sequence; also dk and dv of its own keys, unless it is a prefix that others share.
static void backward_sequence(const Shape *s, Backward *b, Tensor dqkv, Tensor dy, Tensor y, Tensor lse, Tensor qkv,
                              const Sequence *own, int64_t k) {
    for (int64_t window = 0; window < end_of(own); window += WINDOW) {
        int64_t keys = end_of(own) - window < WINDOW ? end_of(own) - window : WINDOW;
        int64_t first = own->before > window ? own->before : window; // first position that is its own
        clear_sums(s, b, 0, keys);
        for (int64_t pos = first, end; pos < end_of(own); pos = end) {
            end = tile_end(own, pos, s->positions);
            backward_tile(s, b, dqkv, dy, y, lse, qkv, own, pos, end - pos, window, k);
        }
        if (!own->shared && first < window + keys)
            store_sums(s, b, dqkv, token_at(own, first), window + keys - first, first - window, k);
    }
}

// dk and dv of one chunk of a shared prefix's keys, from position j on: first what the prefix's own rows give, then the
// rows of each of the sequences behind it (below `end`) that share it.
static void backward_prefix(const Shape *s, Backward *b, Tensor dqkv, Tensor dy, Tensor y, Tensor lse, Tensor qkv,
                            const Sequence *own, const Sequence *end, int64_t j, int64_t k) {
    int64_t keys = own->n - j < CHUNK ? own->n - j : CHUNK;
    clear_sums(s, b, j % WINDOW, keys);
    for (const Sequence *q = own; q < end && (q == own || (q->before && q->prefix == own->start)); q++)
        for (int64_t pos = q == own ? j : q->before, next; pos < end_of(q); pos = next) {
            next = tile_end(q, pos, s->positions);
            backward_load(s, b, dy, y, lse, qkv, q, pos, next - pos, k);
            backward_rows(s, b, qkv, q, pos, next - pos, j, j + keys, k, FOR_KEYS);
        }
    store_sums(s, b, dqkv, own->start + j, keys, j % WINDOW, k);
}

// A piece of backward work: backward_prefix for a chunk of sequence `seq`, or where chunk < 0 backward_sequence for it.
typedef struct {
    int32_t seq, chunk;
} Piece;

// The pieces of work, made in scratch; *count of them. *keys: the most keys that one of them sums for.
static Piece *pieces_of(Arena *a, const Sequence *q, int64_t B, int64_t *count, int64_t *keys) {
    int64_t n = B;
    *keys = CHUNK;
    for (int64_t b = 0; b < B; b++) {
        if (q[b].shared) n += (q[b].n + CHUNK - 1) / CHUNK;
        if (end_of(&q[b]) > *keys) *keys = end_of(&q[b]) < WINDOW ? end_of(&q[b]) : WINDOW;
    }
    Piece *piece = arena_take(a, (size_t)n * sizeof *piece); // [n]
    *count = n;
    n = 0;
    for (int32_t b = 0; b < B; b++) {
        piece[n++] = (Piece){b, -1};
        for (int32_t c = 0; q[b].shared && c < (q[b].n + CHUNK - 1) / CHUNK; c++) piece[n++] = (Piece){b, c};
    }
    return piece;
}

void cpu_attention_bwd(Device *d, Tensor dqkv, Tensor dy, Tensor y, Tensor lse, Tensor qkv, Tensor seq, Tensor prefix,
                       int n_kv) {
    Shape s = shape_of(qkv, n_kv);
    int64_t B = seq.dim[0] - 1, pieces, keys;
    size_t mark = arena_mark(&d->scratch);
    Sequence *sequence = sequences_of(&d->scratch, seq, prefix);
    Piece *piece = pieces_of(&d->scratch, sequence, B, &pieces, &keys);
    size_t floats = backward_floats(&s, keys);
    int threads = threads_that_fit(d, floats * sizeof(float), pieces * s.K);
    float *room = arena_take(&d->scratch, (size_t)threads * floats * sizeof *room); // [threads, floats]
#pragma omp parallel for schedule(dynamic, 1) num_threads(threads) if (threads > 1)
    for (int64_t item = 0; item < pieces * s.K; item++) {
        Piece at = piece[item / s.K];
        Backward b = backward_at(&s, room + (size_t)thread_index() * floats, keys);
        const Sequence *own = sequence + at.seq;
        if (at.chunk < 0) backward_sequence(&s, &b, dqkv, dy, y, lse, qkv, own, item % s.K);
        else backward_prefix(&s, &b, dqkv, dy, y, lse, qkv, own, sequence + B, (int64_t)at.chunk * CHUNK, item % s.K);
    }
    clear_rest(dqkv, i32(seq)[B]);
    arena_rewind(&d->scratch, mark);
}
