// rope: adds the bias, applies rotary position embedding (Su et al. 2021), and writes keys and values into the KV
// cache; and backward, with the bias' gradient.
//
//   (x[i], x[i + d/2]) is rotated by the angle pos * inv_freq[i], for the query and key heads
//
// Angles are f32 products as in HF; their sine and cosine are computed in f64 (positions reach 32768, where an f32
// reduction would lose all digits), once for a token and pair, for all its heads.
//
// Memory-bound: qkv read and written, 2 (H + 2K) d elements of a token; with a cache 2 K d more. The floor is those
// bytes over the bandwidth. A thread moves 16 bytes of both halves of a head where the alignment allows it, else one
// element of both.
#include "common.cuh"
#include <math.h>

#define THREADS  256
#define BWD_ROWS 32 // tokens whose angles rope_bwd_kernel has in shared memory at a time

typedef struct {
    RopeTable table;
    int half, heads, rotated; // d / 2, H + 2K, H + K
} Rope;

static Rope rope_of(Tensor qkv, const RopeTable *table, int n_kv) {
    int64_t d = qkv.dim[2];
    if (d > HEAD_MAX) die("rope: heads of size %d; at most %d", (int)d, HEAD_MAX);
    return Rope{*table, (int)(d / 2), (int)qkv.dim[1], (int)qkv.dim[1] - n_kv};
}

// Sine and cosine by range reduction to within pi/4 of 0 and power series, in f64: both right to the last bit of f32 or
// so.
static __device__ __forceinline__ void sine_cosine(float x, float *sine, float *cosine) {
    double turns = rint((double)x * 0.63661977236758134308); // quarter turns
    double r = ((double)x - turns * 1.57079632679489655800) - turns * 6.12323399573676603587e-17, z = r * r;
    double s =
        r * (1 + z * (-1.0 / 6 + z * (1.0 / 120 + z * (-1.0 / 5040 + z * (1.0 / 362880 + z * (-1.0 / 39916800))))));
    double c =
        1 + z * (-0.5 + z * (1.0 / 24 + z * (-1.0 / 720 + z * (1.0 / 40320 + z * (-1.0 / 3628800 + z / 479001600)))));
    int quarter = (int)turns & 3;
    double sn = quarter & 1 ? c : s, cs = quarter & 1 ? s : c;
    *sine = (float)(quarter & 2 ? -sn : sn);
    *cosine = (float)((quarter + 1) & 2 ? -cs : cs);
}
// Fills angle[rows, half], cosine and sine, for the `rows` tokens from `first` on.
static __device__ __forceinline__ void make_angles(float2 *angle, const Rope &r, const int32_t *pos, int64_t first,
                                                   int rows) {
    for (int i = (int)threadIdx.x; i < rows * r.half; i += THREADS) {
        float sine, cosine;
        sine_cosine((float)pos[first + i / r.half] * r.table.inv_freq[i % r.half], &sine, &cosine);
        angle[i] = make_float2(cosine * r.table.scale, sine * r.table.scale);
    }
}

// Loads N neighbouring elements as floats; store_n stores them. PACKS: p is aligned and N is whole packs.
template <typename T, int N, bool PACKS> static __device__ __forceinline__ void load_n(float x[N], const T *p) {
    constexpr int P = Pack<T>::N;
    if (PACKS)
#pragma unroll
        for (int k = 0; k < N / P; k++) {
            Pack<T> v = load_pack(p + k * P);
#pragma unroll
            for (int i = 0; i < P; i++) x[(k * P + i) % N] = to_float(v.x[i]);
        }
    else
        for (int i = 0; i < N; i++) x[i] = to_float(p[i]);
}
template <typename T, int N, bool PACKS> static __device__ __forceinline__ void store_n(T *p, const float x[N]) {
    if (PACKS) {
        Pack<T> v;
#pragma unroll
        for (int i = 0; i < Pack<T>::N; i++) v.x[i] = from_float<T>(x[i % N]);
        store_pack(p, v);
    } else
        for (int i = 0; i < N; i++) p[i] = from_float<T>(x[i]);
}

// A block owns `each` tokens. Its threads take items, (token, head, N pairs); value heads are items too, but are not
// rotated.
template <typename T, typename U, int N>
static __global__ void __launch_bounds__(THREADS) rope_kernel(T *qkv, const U *bias, const int32_t *pos, T *kv,
                                                              const int32_t *kv_row, Rope r, int64_t tokens, int each) {
    constexpr bool PACKS = N > 1;
    SHARED_DYNAMIC(float2, angle); // [each, half]
    int64_t first = (int64_t)blockIdx.x * each;
    int rows = (int)(tokens - first < each ? tokens - first : each), d = 2 * r.half, packs = r.half / N;
    int heads = bias || kv ? r.heads : r.rotated; // without bias and cache, values stay as they are
    wait_for_earlier();
    make_angles(angle, r, pos, first, rows);
    __syncthreads();
    for (int i = (int)threadIdx.x; i < rows * heads * packs; i += THREADS) {
        int t = i / (heads * packs), head = i / packs % heads, c = i % packs * N;
        int64_t at = head * d + c;
        T *low = qkv + (first + t) * r.heads * d + at, *high = low + r.half;
        float x[N], y[N];
        load_n<T, N, PACKS>(x, low), load_n<T, N, PACKS>(y, high);
        if (bias) {
            float u[N], v[N];
            load_n<U, N, PACKS>(u, bias + at), load_n<U, N, PACKS>(v, bias + at + r.half);
#pragma unroll
            for (int e = 0; e < N; e++) x[e] += u[e], y[e] += v[e];
        }
        if (head < r.rotated)
#pragma unroll
            for (int e = 0; e < N; e++) {
                float cs = angle[t * r.half + c + e].x, sn = angle[t * r.half + c + e].y, a = x[e];
                x[e] = a * cs - y[e] * sn;
                y[e] = y[e] * cs + a * sn;
            }
        store_n<T, N, PACKS>(low, x), store_n<T, N, PACKS>(high, y);
        int in_cache = head - (2 * r.rotated - r.heads); // past the query heads
        if (kv && in_cache >= 0 && kv_row[first + t] >= 0) {
            T *to = kv + ((int64_t)kv_row[first + t] * 2 * (r.heads - r.rotated) + in_cache) * d + c;
            store_n<T, N, PACKS>(to, x), store_n<T, N, PACKS>(to + r.half, y);
        }
    }
}

// How many rows a block of the bias gradient's column sums has; there are at most 256 blocks, which are added in order.
// Within a block several threads, the lanes, share a column: lane k takes rows k, k + lanes, ..., and the lanes are
// added in order. All this depends on the shape alone: where rows are not aligned, a thread has the same columns, an
// element at a time.
static inline int64_t block_rows(int64_t T) {
    int64_t rows = (T + 255) / 256;
    return rows < BWD_ROWS ? BWD_ROWS : rows;
}

// Grid (row blocks, head blocks): a block owns `rows` rows of `own` heads. Fills partial[row blocks, (H+2K) d] f32, if
// not NULL.
template <typename T, int N, bool PACKS>
static __global__ void __launch_bounds__(THREADS, 2)
    rope_bwd_kernel(T *dqkv, float *partial, const int32_t *pos, Rope r, int64_t tokens, int rows, int own) {
    SHARED_DYNAMIC(float2, angle); // [BWD_ROWS, half]
    SHARED(float, sums, [THREADS * 2 * N]);
    int head0 = (int)blockIdx.y * own, heads = min(own, (partial ? r.heads : r.rotated) - head0), d = 2 * r.half;
    int packs = r.half / N, items = heads * packs, lanes = THREADS / items, thread = (int)threadIdx.x;
    int item = thread % items, lane = thread / items, head = head0 + item / packs, c = item % packs * N;
    int64_t first = (int64_t)blockIdx.x * rows, last = first + rows < tokens ? first + rows : tokens;
    int64_t at = (int64_t)head * d + c;
    float sum[2][N] = {};
    for (int64_t row0 = first; row0 < last; row0 += BWD_ROWS) {
        int n = (int)(last - row0 < BWD_ROWS ? last - row0 : BWD_ROWS);
        __syncthreads();
        make_angles(angle, r, pos, row0, n);
        __syncthreads();
        for (int t = lane; t < n && lane < lanes; t += lanes) {
            T *low = dqkv + (row0 + t) * r.heads * d + at, *high = low + r.half;
            float x[N], y[N];
            load_n<T, N, PACKS>(x, low), load_n<T, N, PACKS>(y, high);
            if (head < r.rotated) {
#pragma unroll
                for (int e = 0; e < N; e++) {
                    float cs = angle[t * r.half + c + e].x, sn = angle[t * r.half + c + e].y, a = x[e];
                    x[e] = a * cs + y[e] * sn;
                    y[e] = y[e] * cs - a * sn;
                }
                store_n<T, N, PACKS>(low, x), store_n<T, N, PACKS>(high, y);
            }
#pragma unroll
            for (int e = 0; e < N; e++) sum[0][e] += x[e], sum[1][e] += y[e];
        }
    }
    if (!partial) return; // the whole block
#pragma unroll
    for (int e = 0; e < 2 * N; e++) sums[e * THREADS + thread] = sum[e / N][e % N];
    __syncthreads();
    if (lane) return;
    for (int e = 0; e < 2 * N; e++) {
        float s = sums[e * THREADS + item];
        for (int k = 1; k < lanes; k++) s += sums[e * THREADS + k * items + item];
        partial[(int64_t)blockIdx.x * r.heads * d + at + e / N * r.half + e % N] = s;
    }
}
template <typename U>
static __global__ void add_partials_kernel(U *dbias, const float *partial, int64_t blocks, int64_t width) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= width) return;
    float sum = to_float(dbias[i]);
    for (int64_t b = 0; b < blocks; b++) sum += partial[b * width + i];
    dbias[i] = from_float<U>(sum);
}

template <typename T, typename U>
static void rope(Device *d, Tensor qkv, Tensor bias, Tensor pos, const Rope &r, Tensor kv, Tensor kv_row) {
    int64_t tokens = qkv.dim[0];
    int each = tokens < 4 * (int64_t)cuda_sm_count(d) ? 1 : 4;
    bool packs = aligned_rows(data_of<T>(qkv), r.half) && aligned_rows(data_of<T>(kv), r.half) &&
                 aligned_rows(data_of<U>(bias), r.half);
    unsigned grid = blocks_for(tokens, each);
    size_t shared = (size_t)(each * r.half) * sizeof(float2);
    if (packs)
        LAUNCH_EARLY(d, (rope_kernel<T, U, Pack<T>::N>), grid, THREADS, shared, data_of<T>(qkv), data_of<U>(bias),
                     i32(pos), data_of<T>(kv), i32(kv_row), r, tokens, each);
    else
        LAUNCH_EARLY(d, (rope_kernel<T, U, 1>), grid, THREADS, shared, data_of<T>(qkv), data_of<U>(bias), i32(pos),
                     data_of<T>(kv), i32(kv_row), r, tokens, each);
}

void cuda_rope(Device *d, Tensor qkv, Tensor bias, Tensor pos, const RopeTable *table, int n_kv, Tensor kv,
               Tensor kv_row) {
    Rope r = rope_of(qkv, table, n_kv);
    DType u = present(bias) ? bias.dtype : qkv.dtype;
    DISPATCH2(qkv.dtype, T, u, U, rope<T, U>(d, qkv, bias, pos, r, kv, kv_row));
}

template <typename T, int N, bool PACKS>
static void rope_bwd(Device *d, Tensor dqkv, float *partial, Tensor pos, const Rope &r) {
    int64_t rows = block_rows(dqkv.dim[0]);
    int heads = partial ? r.heads : r.rotated, packs = r.half / N, own = packs < 64 ? 64 / packs : 1;
    int blocks = (heads + own - 1) / own;
    own = (heads + blocks - 1) / blocks;
    LAUNCH(d, (rope_bwd_kernel<T, N, PACKS>), dim3(blocks_for(dqkv.dim[0], rows), (unsigned)blocks), THREADS,
           (size_t)(BWD_ROWS * r.half) * sizeof(float2), data_of<T>(dqkv), partial, i32(pos), r, dqkv.dim[0], (int)rows,
           own);
}

void cuda_rope_bwd(Device *d, Tensor dqkv, Tensor dbias, Tensor pos, const RopeTable *table, int n_kv) {
    Rope r = rope_of(dqkv, table, n_kv);
    int64_t width = tensor_width(dqkv), blocks = blocks_for(dqkv.dim[0], block_rows(dqkv.dim[0]));
    size_t mark = arena_mark(&d->scratch);
    float *partial = NULL;
    if (present(dbias)) partial = (float *)arena_take(&d->scratch, (size_t)(blocks * width) * sizeof *partial);
    DISPATCH(dqkv.dtype, T, {
        constexpr int N = Pack<T>::N;
        if (aligned_rows(data_of<T>(dqkv), r.half)) rope_bwd<T, N, true>(d, dqkv, partial, pos, r);
        else if (r.half % N == 0) rope_bwd<T, N, false>(d, dqkv, partial, pos, r);
        else rope_bwd<T, 1, false>(d, dqkv, partial, pos, r);
    });
    if (partial)
        DISPATCH(dbias.dtype, U,
                 LAUNCH(d, add_partials_kernel<U>, blocks_for(width, THREADS), THREADS, 0, data_of<U>(dbias), partial,
                        blocks, width));
    arena_rewind(&d->scratch, mark);
}
