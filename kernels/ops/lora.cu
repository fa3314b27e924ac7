// Low-rank adapters beside a product that is not trained: see lora.c for the formulas, and for what w is.
//
//   lora_down   a warp owns 4 tokens and 4 rows of w: each lane every 32nd column, then over the lanes
//   lora_up     a thread owns a column of 4 tokens: a chain over r
//   lora_grad   a thread owns a column of 8 rows of dw and a block of tokens; the blocks are added in order
//
// So what a row gets depends on that row alone. Floor: x read once, y's base read and y written once: about a quarter
// of what the product beside it takes at 8,192 rows; w and z come from the caches.
#include "common.cuh"
#include "memory.cuh"

#define THREADS     128
#define WARPS       (THREADS / WARP)
#define TOKENS      4
#define ROWS        4
#define GRAD_ROWS   8
#define LEAST_CHUNK 128 // tokens

// One projection: pointers to its first column, its first column of z, its first element of w; strides of rows.
template <typename T> struct Projection {
    T *x;
    float *z, *w;
    int64_t tokens, x_row, z_row, columns;
    int r;
    float scale;
};

template <typename T> static __global__ void __launch_bounds__(THREADS) lora_down_kernel(Projection<const T> p) {
    wait_for_earlier();
    int64_t blocks = (p.r + ROWS - 1) / ROWS, item = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    int64_t first = item / blocks * TOKENS, row = item % blocks * ROWS;
    if (first >= p.tokens) return;
    float sum[TOKENS][ROWS] = {};
    for (int64_t k = threadIdx.x % WARP; k < p.columns; k += WARP) {
        float x[TOKENS], w[ROWS];
#pragma unroll
        for (int i = 0; i < TOKENS; i++) x[i] = first + i < p.tokens ? to_float(p.x[(first + i) * p.x_row + k]) : 0;
#pragma unroll
        for (int j = 0; j < ROWS; j++) w[j] = row + j < p.r ? p.w[(row + j) * p.columns + k] : 0;
#pragma unroll
        for (int i = 0; i < TOKENS; i++)
#pragma unroll
            for (int j = 0; j < ROWS; j++) sum[i][j] = fmaf(x[i], w[j], sum[i][j]);
    }
#pragma unroll
    for (int i = 0; i < TOKENS; i++)
#pragma unroll
        for (int j = 0; j < ROWS; j++) {
            float s = warp_sum(sum[i][j]);
            bool mine = threadIdx.x % WARP == 0 && first + i < p.tokens && row + j < p.r;
            if (mine) p.z[(first + i) * p.z_row + row + j] = p.scale * s;
        }
}

// base may be p.x. r = 0: base, rounded.
template <typename T, typename B>
static __global__ void __launch_bounds__(THREADS) lora_up_kernel(Projection<T> p, const B *base) {
    wait_for_earlier();
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= p.columns) return;
    for (int64_t first = (int64_t)blockIdx.y * TOKENS; first < p.tokens; first += (int64_t)gridDim.y * TOKENS) {
        float sum[TOKENS] = {};
        for (int j = 0; j < p.r; j++) {
            float w = p.w[j * p.columns + i];
#pragma unroll
            for (int k = 0; k < TOKENS; k++)
                if (first + k < p.tokens) sum[k] = fmaf(p.z[(first + k) * p.z_row + j], w, sum[k]);
        }
#pragma unroll
        for (int k = 0; k < TOKENS; k++) {
            int64_t at = (first + k) * p.x_row + i;
            if (first + k < p.tokens) p.x[at] = from_float<T>(fmaf(sum[k], p.scale, to_float(base[at])));
        }
    }
}

// Block y adds up tokens from y * chunk on, into partial sum y of p.w[blocks,r,columns].
template <typename T>
static __global__ void __launch_bounds__(THREADS) lora_grad_kernel(Projection<const T> p, int64_t chunk) {
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    int64_t first = (int64_t)blockIdx.y * chunk, end = first + chunk < p.tokens ? first + chunk : p.tokens;
    if (i >= p.columns) return;
    float *partial = p.w + (int64_t)blockIdx.y * p.r * p.columns;
    for (int row = 0; row < p.r; row += GRAD_ROWS) {
        float sum[GRAD_ROWS] = {};
        for (int64_t t = first; t < end; t++) {
            float x = to_float(p.x[t * p.x_row + i]);
#pragma unroll
            for (int j = 0; j < GRAD_ROWS; j++)
                if (row + j < p.r) sum[j] = fmaf(p.z[t * p.z_row + row + j], x, sum[j]);
        }
#pragma unroll
        for (int j = 0; j < GRAD_ROWS; j++)
            if (row + j < p.r) partial[(row + j) * p.columns + i] = p.scale * sum[j];
    }
}

// Calls f(projection, first column) for every projection.
template <typename T, typename F> static void each_projection(Tensor x, Tensor z, Tensor w, const LowRank &p, F f) {
    int64_t column = 0, low = 0, element = 0;
    for (int k = 0; k < p.n; column += p.width[k++]) {
        f(Projection<T>{data_of<T>(x) + column, data_of<float>(z) + low, data_of<float>(w) + element, x.dim[0],
                        tensor_width(x), tensor_width(z), p.width[k], p.low[k] ? p.rank : 0, p.scale},
          column);
        if (p.low[k]) low += p.rank, element += p.rank * p.width[k];
    }
}

void cuda_lora_down(Device *d, Tensor z, Tensor x, Tensor w, LowRank p) {
    DISPATCH(x.dtype, T, each_projection<const T>(x, z, w, p, [&](Projection<const T> one, int64_t) {
                 int64_t items = (one.tokens + TOKENS - 1) / TOKENS * ((one.r + ROWS - 1) / ROWS);
                 LAUNCH_EARLY(d, lora_down_kernel<T>, blocks_for(items, WARPS), THREADS, 0, one);
             }));
}

void cuda_lora_up(Device *d, Tensor y, Tensor base, Tensor z, Tensor w, LowRank p) {
    DISPATCH2(y.dtype, T, base.dtype, B, each_projection<T>(y, z, w, p, [&](Projection<T> one, int64_t column) {
                  int64_t rows = (one.tokens + TOKENS - 1) / TOKENS;
                  dim3 grid(blocks_for(one.columns, THREADS), (unsigned)(rows < MAX_GRID ? rows : MAX_GRID));
                  LAUNCH_EARLY(d, (lora_up_kernel<T, B>), grid, THREADS, 0, one, data_of<B>(base) + column);
              }));
}

void cuda_lora_grad(Device *d, Tensor dw, Tensor z, Tensor x, LowRank p) {
    DISPATCH(x.dtype, T, each_projection<const T>(x, z, dw, p, [&](Projection<const T> one, int64_t) {
                 int64_t n = one.r * one.columns;
                 if (!n || !one.tokens) return;
                 int64_t most = (int64_t)(DEVICE_SCRATCH / 2 / sizeof(float)) / n, chunk = LEAST_CHUNK;
                 while ((one.tokens + chunk - 1) / chunk > most) chunk *= 2;
                 int64_t blocks = (one.tokens + chunk - 1) / chunk;
                 size_t mark = arena_mark(&d->scratch);
                 Tensor to = tensor1(one.w, F32, n);
                 one.w = (float *)arena_take(&d->scratch, (size_t)(blocks * n) * sizeof(float)); // [blocks, r, columns]
                 LAUNCH(d, lora_grad_kernel<T>, dim3(blocks_for(one.columns, THREADS), (unsigned)blocks), THREADS, 0,
                        one, chunk);
                 cuda_add_column_sums(d, to, one.w, blocks, n);
                 arena_rewind(&d->scratch, mark);
             }));
}
