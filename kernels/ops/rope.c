// rope: adds the bias, applies rotary position embedding (Su et al. 2021), and writes keys and values into the KV
// cache.
//
// Pairs are (x[i], x[i + d/2]), as in HF's rotate_half. Angles are f32 as in HF: pos * inv_freq[i], both f32; their
// sine and cosine are exact to the last bit or so.
#include "parallel.h"
#include "simd.h"

#define HALF_MAX (HEAD_MAX / 2) // d / 2 at most

typedef struct {
    float cos[HALF_MAX], sin[HALF_MAX]; // [d/2]
} Angles;

// Sine and cosine, by range reduction to within pi/4 of 0 and power series, in f64.
static inline void sincos_half(vf_half x, vf_half *sine, vf_half *cosine) {
    const double magic = 0x1.8p52; // adding and subtracting it rounds to an integer
    vd a = vd_of(x);
    vd shifted = a * 0.63661977236758134308 + magic, n = shifted - magic; // quarter turns
    vl quarter = (vl)shifted;                                             // their count is in the low bits
    vd r = (a - n * 1.57079632679489655800) - n * 6.12323399573676603587e-17, z = r * r;
    vd s = r * (1 + z * (-1.0 / 6 + z * (1.0 / 120 + z * (-1.0 / 5040 + z * (1.0 / 362880 + z * (-1.0 / 39916800))))));
    vd c =
        1 + z * (-0.5 + z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320 + z * (-1.0 / 3628800 + z / 479001600)))));
    vl odd = -(quarter & 1), sin_neg = (quarter & 2) << 62, cos_neg = ((quarter + 1) & 2) << 62;
    *sine = vd_round((vd)((((vl)c & odd) | ((vl)s & ~odd)) ^ sin_neg));
    *cosine = vd_round((vd)((((vl)s & odd) | ((vl)c & ~odd)) ^ cos_neg));
}
static inline void sincos_lanes(vf x, vf *sine, vf *cosine) {
    vf_half s[2], c[2];
    sincos_half(vf_low(x), &s[0], &c[0]);
    sincos_half(vf_high(x), &s[1], &c[1]);
    *sine = vf_join(s[0], s[1]), *cosine = vf_join(c[0], c[1]);
}

static inline void angles_at(Angles *a, const RopeTable *r, int64_t half, int32_t pos) {
    for (int64_t i = 0; i < half; i += LANES) {
        vf s, c;
        sincos_lanes((float)pos * vf_load(r->inv_freq + i), &s, &c);
        vf_store(a->sin + i, s * r->scale);
        vf_store(a->cos + i, c * r->scale);
    }
}

static inline vf bias_at(Tensor bias, int64_t i, int64_t n) {
    return present(bias) ? row_load_part(bias.data, bias.dtype, i, n) : vf_set(0);
}

// One token's heads, row[H+2K, d], in place: adds the bias and rotates the first `rotated` heads.
ALWAYS_INLINE void rope_row(void *row, DType t, Tensor bias, const Angles *a, int64_t heads, int64_t rotated,
                            int half) {
    for (int64_t h = 0; h < rotated; h++)
        FOR_LANES(i, n, half, {
            int64_t lo = h * 2 * half + i, hi = lo + half;
            vf x = row_load_part(row, t, lo, n) + bias_at(bias, lo, n);
            vf y = row_load_part(row, t, hi, n) + bias_at(bias, hi, n);
            vf c = vf_load(a->cos + i), s = vf_load(a->sin + i);
            row_store_part(row, t, lo, n, x * c - y * s);
            row_store_part(row, t, hi, n, y * c + x * s);
        });
    int64_t values = rotated * 2 * half, rest = present(bias) ? (heads - rotated) * 2 * half : 0;
    FOR_LANES(i, n, rest, {
        row_store_part(row, t, values + i, n, row_load_part(row, t, values + i, n) + bias_at(bias, values + i, n));
    });
}

void cpu_rope(Device *d, Tensor qkv, Tensor bias, Tensor pos, const RopeTable *table, int n_kv, Tensor kv,
              Tensor kv_row) {
    int64_t T = qkv.dim[0], heads = qkv.dim[1], head = qkv.dim[2], H = heads - 2 * n_kv;
#pragma omp parallel for schedule(static) if (T * heads * head >= PARALLEL_MIN)
    for (int64_t t = 0; t < T; t++) {
        Angles a;
        angles_at(&a, table, head / 2, i32(pos)[t]);
        void *row = tensor_rows(qkv, t, 1).data;
        if (qkv.dtype == F32) rope_row(row, F32, bias, &a, heads, H + n_kv, (int)head / 2);
        else rope_row(row, BF16, bias, &a, heads, H + n_kv, (int)head / 2);
        if (present(kv) && i32(kv_row)[t] >= 0) {
            size_t size = dtype_size(qkv.dtype);
            memcpy(tensor_rows(kv, i32(kv_row)[t], 1).data, (char *)row + (size_t)(H * head) * size,
                   (size_t)(2 * n_kv * head) * size);
        }
    }
}

static inline void add_to(float *sum, int64_t i, int64_t n, vf x) {
    row_store_part(sum, F32, i, n, row_load_part(sum, F32, i, n) + x);
}

// Applies the rotation's transpose to one token's gradient, in place; sum[(H+2K)d] (if not NULL) += the result before
// rounding.
ALWAYS_INLINE void rope_row_bwd(void *row, DType t, float *sum, const Angles *a, int64_t heads, int64_t rotated,
                                int half) {
    for (int64_t h = 0; h < rotated; h++)
        FOR_LANES(i, n, half, {
            int64_t lo = h * 2 * half + i, hi = lo + half;
            vf x = row_load_part(row, t, lo, n), y = row_load_part(row, t, hi, n);
            vf c = vf_load(a->cos + i), s = vf_load(a->sin + i), dx = x * c + y * s, dy = y * c - x * s;
            row_store_part(row, t, lo, n, dx);
            row_store_part(row, t, hi, n, dy);
            if (sum) add_to(sum, lo, n, dx), add_to(sum, hi, n, dy);
        });
    int64_t values = rotated * 2 * half, rest = sum ? (heads - rotated) * 2 * half : 0;
    FOR_LANES(i, n, rest, add_to(sum, values + i, n, row_load_part(row, t, values + i, n)););
}

void cpu_rope_bwd(Device *d, Tensor dqkv, Tensor dbias, Tensor pos, const RopeTable *table, int n_kv) {
    int64_t T = dqkv.dim[0], heads = dqkv.dim[1], head = dqkv.dim[2], width = heads * head;
    int64_t rows = sum_block_rows(T), blocks = (T + rows - 1) / rows;
    size_t mark = arena_mark(&d->scratch);
    float *partial = present(dbias) ? arena_take(&d->scratch, (size_t)(blocks * width) * sizeof *partial) : NULL;
#pragma omp parallel for schedule(static) if (T * width >= PARALLEL_MIN)
    for (int64_t b = 0; b < blocks; b++) {
        float *sum = partial ? partial + b * width : NULL; // [(H+2K)d]
        if (sum) memset(sum, 0, (size_t)width * sizeof *sum);
        for (int64_t t = b * rows; t < T && t < (b + 1) * rows; t++) {
            Angles a;
            angles_at(&a, table, head / 2, i32(pos)[t]);
            void *row = tensor_rows(dqkv, t, 1).data;
            if (dqkv.dtype == F32) rope_row_bwd(row, F32, sum, &a, heads, heads - n_kv, (int)head / 2);
            else rope_row_bwd(row, BF16, sum, &a, heads, heads - n_kv, (int)head / 2);
        }
    }
    if (partial) add_column_sums(dbias, partial, blocks, width);
    arena_rewind(&d->scratch, mark);
}
