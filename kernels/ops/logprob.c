// Log-probs of given tokens by the streamed head: the logits z = x[rows] w[V,D]^T / temperature are never whole in
// memory.
//
// Forward: lse = log sum e^z, logp = z[target] - lse, entropy = lse - sum p z.
// Backward: the logits are computed again, block by block, and turned into their gradient in place:
//   dz_v = (1/temperature) (dlogp (1[v = target] - p_v) - dentropy p_v (log p_v + entropy))
// then dx += dz w and dw += dz^T x.
#include "head.h"
#include "simd.h"

void head_chunk(float *z, Lse *summary, int64_t stride, Rows x, int64_t m, Rows w, int64_t n, int64_t D, float scale) {
    dot_block(z, HEAD_CHUNK, x, m, w, n, D);
    for (int64_t i = 0; i < m; i++) {
        float *row = z + i * HEAD_CHUNK;
        for (int64_t v = n; v % LANES; v++) row[v] = -INFINITY;
        vf top = vf_set(-INFINITY), sum = {0}, dot = {0};
        for (int64_t v = 0; v < n; v += LANES) {
            vf s = vf_load(row + v) * scale;
            vf_store(row + v, s);
            top = vf_max(s, top);
        }
        float max = vf_max_lane(top);
        for (int64_t v = 0; v < n; v += LANES) {
            vf s = vf_max(vf_load(row + v) - max, vf_set(-200)); // where e^s is 0, s must not be -inf: 0 * inf
            vf e = vf_exp(s);
            sum += e;
            dot = vf_fma(e, s, dot);
        }
        summary[i * stride] = (Lse){max, vf_sum(sum), vf_sum(dot)};
    }
}

float head_lse(const Lse *summary, int64_t chunks, float *entropy) {
    float max = -INFINITY;
    for (int64_t c = 0; c < chunks; c++) max = summary[c].max > max ? summary[c].max : max;
    double sum = 0, dot = 0;
    for (int64_t c = 0; c < chunks; c++) {
        double shift = (double)summary[c].max - max, e = exp(shift);
        sum += e * summary[c].sum;
        dot += e * (summary[c].dot + shift * summary[c].sum);
    }
    if (entropy) *entropy = (float)(log(sum) - dot / sum);
    return (float)(max + log(sum));
}

// Copies x[rows[first .. first + n)] to one block in scratch, ready to be multiplied with the head's rows.
static Rows gather(Arena *a, Tensor x, Tensor rows, int64_t first, int64_t n) {
    size_t bytes = (size_t)tensor_width(x) * dtype_size(x.dtype);
    char *to = arena_take(a, (size_t)n * bytes);
    for (int64_t i = 0; i < n; i++)
        memcpy(to + (size_t)i * bytes, (char *)x.data + (size_t)i32(rows)[first + i] * bytes, bytes);
    return dot_ready(a, (Rows){to, x.dtype, tensor_width(x), false, NULL, 0}, n, tensor_width(x));
}

#define PASS 512 // rows in one pass over the head: their summaries are in scratch

void cpu_logprob(Device *d, Tensor logp, Tensor lse, Tensor entropy, Tensor x, Tensor rows, Tensor w, Tensor target,
                 float temperature) {
    int64_t N = rows.dim[0], V = w.dim[0], D = tensor_width(w), chunks = head_chunks(V);
    float scale = head_scale(temperature);
    for (int64_t first = 0; first < N; first += PASS) {
        int64_t n = N - first < PASS ? N - first : PASS;
        size_t mark = arena_mark(&d->scratch);
        Rows xs = gather(&d->scratch, x, rows, first, n);
        Lse *summary = arena_take(&d->scratch, (size_t)(n * chunks) * sizeof *summary); // [n, chunks]
        float *zt = f32(logp) + first;                                                  // [n] first holds z[target]
        const int32_t *y = i32(target) + first;
#pragma omp parallel for collapse(2) schedule(dynamic) if (n * V * D > 1 << 17)
        for (int64_t c = 0; c < chunks; c++)
            for (int64_t i = 0; i < n; i += HEAD_ROWS) {
                int64_t m = n - i < HEAD_ROWS ? n - i : HEAD_ROWS, v = c * HEAD_CHUNK;
                int64_t len = V - v < HEAD_CHUNK ? V - v : HEAD_CHUNK;
                float z[HEAD_ROWS * HEAD_CHUNK];
                head_chunk(z, summary + i * chunks + c, chunks, rows_at(xs, i), m, rows_at(rows_of(w), v), len, D,
                           scale);
                for (int64_t r = 0; r < m; r++)
                    if (y[i + r] >= v && y[i + r] < v + len) zt[i + r] = z[r * HEAD_CHUNK + y[i + r] - v];
            }
        for (int64_t i = 0; i < n; i++) {
            f32(lse)[first + i] =
                head_lse(summary + i * chunks, chunks, present(entropy) ? f32(entropy) + first + i : NULL);
            zt[i] -= f32(lse)[first + i];
        }
        arena_rewind(&d->scratch, mark);
    }
}

// Turns one row of logits z[len] (tokens v, v + 1, ...) into its gradient, stored as the model's type.
static void grad_logits(Rows dz, int64_t r, const float *z, int64_t v, int64_t len, int32_t target, float lse,
                        float dlogp, float dent, float entropy, float scale) {
    void *out = (void *)rows_at(dz, r).data;
    for (int64_t i = 0; i < len; i += LANES) {
        vf logp = vf_load(z + i) * scale - lse, p = vf_exp(logp);
        vf g = -scale * (dlogp * p + dent * (p * (vf_max(logp, vf_set(-200)) + entropy)));
        if (i + LANES <= len) row_store(out, dz.dtype, i, g);
        else
            for (int64_t l = 0; i + l < len; l++) elem_store(out, dz.dtype, i + l, g[l]);
    }
    if (target >= v && target < v + len) {
        float logp = z[target - v] * scale - lse, p = expf(logp);
        elem_store(out, dz.dtype, target - v, scale * (dlogp * (1 - p) - dent * (p * (logp + entropy))));
    }
}

void cpu_logprob_bwd(Device *d, Tensor dx, Tensor dw, Tensor dlogp, Tensor dentropy, Tensor x, Tensor rows, Tensor w,
                     Tensor target, Tensor lse, Tensor entropy, float temperature) {
    int64_t N = rows.dim[0], V = w.dim[0], D = tensor_width(w);
    size_t size = dtype_size(x.dtype);
    float scale = head_scale(temperature);
    memset(dx.data, 0, tensor_bytes(dx));
    // Choose how many rows and tokens go at a time: scratch holds a row's copies and f32 sum, and a gradient for each
    // logit.
    int64_t row_block = 1024, row_bytes = D * (int64_t)(2 * size + sizeof(float));
    while (row_block > HEAD_ROWS && row_block * row_bytes > (int64_t)DEVICE_SCRATCH / 2) row_block /= 2;
    if (row_block > N) row_block = N;
    int64_t vocab_block = 4096, token_bytes = (int64_t)size * row_block;
    while (vocab_block > HEAD_CHUNK / 8 && vocab_block * token_bytes > (int64_t)DEVICE_SCRATCH * 3 / 8)
        vocab_block /= 2;
    for (int64_t first = 0; first < N; first += row_block) {
        int64_t n = N - first < row_block ? N - first : row_block;
        size_t mark = arena_mark(&d->scratch);
        Rows xs = gather(&d->scratch, x, rows, first, n);
        Rows sum = {
            arena_take(&d->scratch, (size_t)(n * D) * sizeof(float)), F32, D, false, NULL, 0}; // dx of these rows
        for (int64_t v = 0; v < V; v += vocab_block) {
            int64_t len = V - v < vocab_block ? V - v : vocab_block;
            size_t inner = arena_mark(&d->scratch);
            Rows dz = {arena_take(&d->scratch, (size_t)(n * len) * size), x.dtype, len, false, NULL, 0};
            Rows wv = rows_at(rows_of(w), v);
#pragma omp parallel for collapse(2) schedule(dynamic) if (n * len * D > 1 << 17)
            for (int64_t c = 0; c < len; c += HEAD_CHUNK)
                for (int64_t i = 0; i < n; i += HEAD_ROWS) {
                    int64_t m = n - i < HEAD_ROWS ? n - i : HEAD_ROWS, cn = len - c < HEAD_CHUNK ? len - c : HEAD_CHUNK;
                    float z[HEAD_ROWS * HEAD_CHUNK];
                    dot_block(z, HEAD_CHUNK, rows_at(xs, i), m, rows_at(wv, c), cn, D);
                    Rows to = rows_at(dz, i);
                    to.data = (const char *)to.data + (size_t)c * size;
                    for (int64_t r = 0; r < m; r++) {
                        int64_t at = first + i + r;
                        grad_logits(to, r, z + r * HEAD_CHUNK, v + c, cn, i32(target)[at], f32(lse)[at], f32(dlogp)[at],
                                    present(dentropy) ? f32(dentropy)[at] : 0, present(dentropy) ? f32(entropy)[at] : 0,
                                    scale);
                    }
                }
            dot_all(&d->scratch, sum, v > 0, dz, n, columns_of(wv), D, len);
            if (present(dw))
                dot_all(&d->scratch, rows_at(rows_of(dw), v), true, columns_of(dz), len, columns_of(xs), D, n);
            arena_rewind(&d->scratch, inner);
        }
        for (int64_t i = 0; i < n; i++) {
            const float *s = rows_at(sum, i).data;
            for (int64_t k = 0; k < D; k++) tensor_set(dx, i32(rows)[first + i] * D + k, s[k]);
        }
        arena_rewind(&d->scratch, mark);
    }
}
