// Log-probs of given tokens by the streamed head (head.cuh), and their gradient.
//
// logprob: lse = log sum e^z, logp = z[target] - lse, entropy = lse - sum p z, with z = x[rows] w[V,D]^T / temperature.
//   A block owns HEAD_CHUNK tokens of the vocabulary and up to 128 rows, and stores a summary of 12 bytes for each row;
//   a second kernel has a block for each row and combines its summaries. Floor: 2 N V D FLOP; w is read once for a pass
//   of some 500 rows, and the products of so many rows hide that. The logits cross shared memory once and are read from
//   there twice, which is expected to add about a third of the product's time at D = 896, a tenth at 3584.
// logprob_bwd: computes the logits again, the same bits, and turns them into their gradient on the way to scratch
//   dz_v = (1/temperature) (dlogp (1[v = target] - p_v) - dentropy p_v (log p_v + entropy))
//   as dz[tokens of the vocabulary, rows]; then dx += dz^T w and dw += dz x by cuBLASLt. Blocks of rows and of the
//   vocabulary keep it within scratch. Floor: 6 N V D FLOP; 8,192 rows of 0.5B move about 4 GB of sums beside that.
#include "cuda.cuh"
#include "head.cuh"

#define COMBINE_THREADS LSE_THREADS
#define SUMMARIES_ROOM  ((size_t)7 << 20) // bytes of summaries in one pass

// ---- forward -------------------------------------------------------------------------------------------------------
// What head_kernel does with a chunk's logits: stores each row's summary, and the target's logit where the chunk has
// it.
struct Summarise {
    Lse *summary;          // [n, chunks]
    float *z_target;       // [n]
    const int32_t *target; // [n]
    int64_t n, chunks;

    template <int X> __device__ __forceinline__ void run(HeadRoom<X> *room, int64_t row, int64_t token, int len) const {
        Lse l = head_summary(room);
        int64_t n_row = row + threadIdx.x;
        if (threadIdx.x >= X || n_row >= n) return;
        summary[n_row * chunks + token / HEAD_CHUNK] = l;
        int64_t y = target[n_row] - token;
        if (y >= 0 && y < len) z_target[n_row] = room->z[y][threadIdx.x];
    }
};

// Combines a row's summaries, a block for each row. logp comes in as z[target].
static __global__ void combine_kernel(float *logp, float *lse, float *entropy, const Lse *summary, int64_t chunks) {
    SHARED(double, room, [32]);
    RowLse l = head_lse(summary + blockIdx.x * chunks, chunks, room);
    if (threadIdx.x) return;
    lse[blockIdx.x] = l.lse;
    logp[blockIdx.x] -= l.lse;
    if (entropy) entropy[blockIdx.x] = l.entropy;
}

void cuda_logprob(Device *d, Tensor logp, Tensor lse, Tensor entropy, Tensor x, Tensor rows, Tensor w, Tensor target,
                  float temperature) {
    int64_t N = rows.dim[0], V = w.dim[0], D = tensor_width(w), chunks = head_chunks(V);
    int64_t most = (int64_t)(SUMMARIES_ROOM / ((size_t)chunks * sizeof(Lse))) / 128 * 128;
    if (most < 128) most = 128;
    size_t mark = arena_mark(&d->scratch);
    Lse *summary = (Lse *)arena_take(&d->scratch, (size_t)((N < most ? N : most) * chunks) * sizeof *summary);
    for (int64_t first = 0; first < N; first += most) {
        int64_t n = N - first < most ? N - first : most;
        Summarise done = {summary, f32(logp) + first, i32(target) + first, n, chunks};
        DISPATCH(x.dtype, T,
                 head_launch<T>(
                     d,
                     {data_of<T>(x), data_of<T>(w), i32(rows) + first, NULL, n, V, 0, (int)D, head_scale(temperature)},
                     chunks, done));
        LAUNCH(d, combine_kernel, (unsigned)n, COMBINE_THREADS, 0, f32(logp) + first, f32(lse) + first,
               present(entropy) ? f32(entropy) + first : NULL, summary, chunks);
    }
    arena_rewind(&d->scratch, mark);
}

// ---- backward ------------------------------------------------------------------------------------------------------
#define GATHER_THREADS 128

// Copies to[n, D] = x[rows[n]], and zeros to the rows from n to gridDim.x.
template <typename T>
static __global__ void gather_kernel(T *to, const T *x, const int32_t *rows, int64_t n, int64_t D) {
    bool there = blockIdx.x < n;
    const T *from = x + (there ? rows[blockIdx.x] * D : 0);
    for (int64_t k = threadIdx.x; k < D; k += GATHER_THREADS)
        to[blockIdx.x * D + k] = there ? from[k] : from_float<T>(0);
}
// Copies back: x[rows[n]] = from[n, D].
template <typename T> static __global__ void scatter_kernel(T *x, const float *from, const int32_t *rows, int64_t D) {
    T *to = x + rows[blockIdx.x] * D;
    for (int64_t k = threadIdx.x; k < D; k += GATHER_THREADS) to[k] = from_float<T>(from[blockIdx.x * D + k]);
}

// What head_kernel does with a chunk's logits in the backward pass: stores their gradient in dz[tokens of the
// vocabulary, stride], zeros in columns from n on.
template <typename T> struct Differentiate {
    T *dz;
    int64_t stride, n, first;                      // first: the token that dz's first row belongs to
    const float *dlogp, *dentropy, *lse, *entropy; // [n]; dentropy and entropy may be NULL
    const int32_t *target;                         // [n]
    float scale;

    template <int X> __device__ __forceinline__ void run(HeadRoom<X> *room, int64_t row, int64_t token, int len) const {
        float *row_lse = room->max[0], *row_entropy = room->max[1], *g_logp = room->sum[0], *g_entropy = room->dot[0];
        int32_t *y = room->id[0];
        if (threadIdx.x < X) {
            int t = (int)threadIdx.x;
            bool there = row + t < n;
            row_lse[t] = there ? lse[row + t] : 0;
            g_logp[t] = there ? dlogp[row + t] : 0;
            g_entropy[t] = there && dentropy ? dentropy[row + t] : 0;
            row_entropy[t] = there && dentropy ? entropy[row + t] : 0;
            y[t] = there ? (int32_t)(target[row + t] - token) : -1;
        }
        __syncthreads();
        constexpr int PACK = Pack<T>::N;
        for (int i = (int)threadIdx.x; i < len * (X / PACK); i += HEAD_THREADS) {
            int v = i / (X / PACK), t = i % (X / PACK) * PACK;
            if (row + t >= stride) continue;
            Pack<T> g;
#pragma unroll
            for (int e = 0; e < PACK; e++) {
                float logp = room->z[v][t + e] - row_lse[t + e], p = __expf(logp);
                float slope = g_logp[t + e] * ((v == y[t + e] ? 1 : 0) - p);
                slope -= g_entropy[t + e] * (p * (fmaxf(logp, -200) + row_entropy[t + e]));
                g.x[e] = from_float<T>(scale * slope);
            }
            store_pack(dz + (token - first + v) * stride + row + t, g);
        }
    }
};

static int64_t at_most(int64_t n, int64_t most) { return n < most ? n : most; }

template <typename T>
static void logprob_bwd(Device *d, Tensor dx, Tensor dw, Tensor dlogp, Tensor dentropy, Tensor x, Tensor rows, Tensor w,
                        Tensor target, Tensor lse, Tensor entropy, float temperature) {
    int64_t N = rows.dim[0], V = w.dim[0], D = tensor_width(w);
    float scale = head_scale(temperature);
    // Choose how many rows and tokens go at a time: scratch holds a row's copy and f32 sum, and a gradient for each
    // logit; the rest is the products' workspace. Rows are padded to whole packs, with dz and x 0 there.
    int64_t row_bytes = D * (int64_t)(sizeof(T) + sizeof(float)), budget = DEVICE_SCRATCH / 2 - (4 << 20);
    int64_t row_block = at_most(at_most(4096, budget / row_bytes / 128 * 128), (N + 7) / 8 * 8);
    if (row_block < 8) row_block = 8;
    int64_t vocab_block = at_most(budget / (row_block * (int64_t)sizeof(T)) / HEAD_CHUNK, head_chunks(V)) * HEAD_CHUNK;
    size_t mark = arena_mark(&d->scratch);
    T *xs = (T *)arena_take(&d->scratch, (size_t)(row_block * D) * sizeof(T));
    float *sum = (float *)arena_take(&d->scratch, (size_t)(row_block * D) * sizeof(float)); // dx of these rows
    T *dz = (T *)arena_take(&d->scratch, (size_t)(vocab_block * row_block) * sizeof(T));
    cuda_fill(d, dx, 0);
    for (int64_t first = 0; first < N; first += row_block) {
        int64_t n = at_most(N - first, row_block), stride = (n + 7) / 8 * 8;
        LAUNCH(d, gather_kernel<T>, (unsigned)stride, GATHER_THREADS, 0, xs, data_of<T>(x), i32(rows) + first, n, D);
        for (int64_t v = 0; v < V; v += vocab_block) {
            int64_t len = at_most(V - v, vocab_block);
            Differentiate<T> done = {dz,
                                     stride,
                                     n,
                                     v,
                                     f32(dlogp) + first,
                                     present(dentropy) ? f32(dentropy) + first : NULL,
                                     f32(lse) + first,
                                     present(dentropy) ? f32(entropy) + first : NULL,
                                     i32(target) + first,
                                     scale};
            head_launch<T>(d, {xs, data_of<T>(w), NULL, NULL, n, V, v / HEAD_CHUNK, (int)D, scale}, head_chunks(len),
                           done);
            Tensor g = tensor2(dz, x.dtype, len, stride);
            cuda_product(d, tensor2(sum, F32, stride, D), v > 0, g, true, tensor_rows(w, v, len), false);
            if (present(dw))
                cuda_product(d, tensor_rows(dw, v, len), true, g, false, tensor2(xs, x.dtype, stride, D), false);
        }
        LAUNCH(d, scatter_kernel<T>, (unsigned)n, GATHER_THREADS, 0, data_of<T>(dx), sum, i32(rows) + first, D);
    }
    arena_rewind(&d->scratch, mark);
}

void cuda_logprob_bwd(Device *d, Tensor dx, Tensor dw, Tensor dlogp, Tensor dentropy, Tensor x, Tensor rows, Tensor w,
                      Tensor target, Tensor lse, Tensor entropy, float temperature) {
    DISPATCH(x.dtype, T, logprob_bwd<T>(d, dx, dw, dlogp, dentropy, x, rows, w, target, lse, entropy, temperature));
}
