// RMSNorm (Zhang & Sennrich 2019) after a residual addition:
//
//   sum[T,D] = x + delta        y = sum * rstd * w        rstd[T] = 1 / sqrt(mean(sum^2) + eps)
//
// and backward, with g = dy * w:
//   dx = dres + rstd * (g - sum * rstd^2 * mean(g * sum)),   dw += sum_t dy * sum * rstd
//
// A block owns a row at a time, and a thread the same 16 bytes of every row. A row is read once and stays in registers
// between the two passes over it; of a row longer than the block is wide, the rest is read again. Bytes moved for an
// element of bf16: x, delta, sum and y (8), backward dy, sum, dres and dx (8); w and the statistics are small beside
// that.
//
// The `plain` kernels are for the usual shapes: rows that can be read in groups and are no longer than the block is
// wide.
//
// In the backward pass a block takes R rows in order, R = ceil(T / 1024) but at least 8, which does not depend on the
// card. It keeps its sum of dw in registers; cuda_add_column_sums adds the blocks' sums in order.
#include "memory.cuh"

#define FWD_THREADS 1024 // at most
#define BWD_THREADS 512
#define MOST_BLOCKS 1024 // of the backward pass
#define LEAST_ROWS  8    // rows of such a block

template <typename T, typename W, bool plain>
static __global__ void __launch_bounds__(FWD_THREADS)
    rmsnorm_kernel(T *y, T *sum, float *rstd, const T *x, const T *delta, const W *w, int64_t T_, int D, float eps,
                   bool whole) {
    constexpr int E = GroupOf<T, W>::E;
    SHARED(float, room, [2][WARP]);
    const int own = (int)threadIdx.x * E, step = plain ? D : (int)blockDim.x * E;
    wait_for_earlier();
    Group<W, E> weight = group_load<E, plain>(w + own, D - own, whole);
    int turn = 0;
    for (int64_t t = blockIdx.x; t < T_; t += gridDim.x, turn ^= 1) {
        float squares = 0;
        // The group at column i of the residual stream, rounded as it is stored: the norm must see what later ops will
        // read.
        auto enter = [&](int i) {
            Group<T, E> v = group_load<E, plain>(x + t * D + i, D - i, whole);
            if (delta) {
                Group<T, E> a = group_load<E, plain>(delta + t * D + i, D - i, whole);
#pragma unroll
                for (int j = 0; j < E; j++) v.x[j] = from_float<T>(to_float(v.x[j]) + to_float(a.x[j]));
                group_store<E, plain>(sum + t * D + i, D - i, whole, v);
            }
#pragma unroll
            for (int j = 0; j < E; j++) squares = fmaf(to_float(v.x[j]), to_float(v.x[j]), squares);
            return v;
        };
        Group<T, E> kept = enter(own);
        for (int i = own + step; i < D; i += step) enter(i);
        float r = 1.0f / sqrtf(block_sum(squares, room[turn]) / (float)D + eps);

        auto leave = [&](int i, Group<T, E> v, Group<W, E> g) {
#pragma unroll
            for (int j = 0; j < E; j++) v.x[j] = from_float<T>(to_float(v.x[j]) * r * to_float(g.x[j]));
            group_store<E, plain>(y + t * D + i, D - i, whole, v);
        };
        leave(own, kept, weight);
        const T *stored = delta ? sum : x;
        for (int i = own + step; i < D; i += step)
            leave(i, group_load<E, plain>(stored + t * D + i, D - i, whole), group_load<E, plain>(w + i, D - i, whole));
        if (threadIdx.x == 0) rstd[t] = r;
    }
}

template <typename T, int E> struct Rows { // a thread's elements of a row
    Group<T, E> dy, x, dres;
};

template <typename T, typename W, bool plain>
static __global__ void __launch_bounds__(BWD_THREADS)
    rmsnorm_bwd_kernel(T *dx, float *partial, const T *dres, const T *dy, const T *sum, const float *rstd, const W *w,
                       int64_t T_, int D, int64_t rows, bool whole) {
    constexpr int E = GroupOf<T, W>::E;
    SHARED(float, room, [2][WARP]);
    const int own = (int)threadIdx.x * E, step = plain ? D : (int)blockDim.x * E;
    int64_t first = blockIdx.x * rows, end = first + rows < T_ ? first + rows : T_;
    float *acc = partial + (int64_t)blockIdx.x * D; // [D]
    Group<W, E> weight = group_load<E, plain>(w + own, D - own, whole);
    auto load = [&](int64_t t, int i) {
        Rows<T, E> r;
        r.dy = group_load<E, plain>(dy + t * D + i, D - i, whole);
        r.x = group_load<E, plain>(sum + t * D + i, D - i, whole);
        if (dres) r.dres = group_load<E, plain>(dres + t * D + i, D - i, whole);
        return r;
    };
    float dweight[E] = {};
    for (int i = own + step; i < D; i += step)
        for (int j = i; j < i + E && j < D; j++) acc[j] = 0;

    Rows<T, E> now = load(first, own), next = now;
    for (int64_t t = first; t < end; t++, now = next) {
        float r = rstd[t], dot = 0;
        if (t + 1 < end) next = load(t + 1, own);
        auto enter = [&](const Rows<T, E> &a, Group<W, E> g) {
#pragma unroll
            for (int j = 0; j < E; j++) dot = fmaf(to_float(a.dy.x[j]) * to_float(a.x.x[j]), to_float(g.x[j]), dot);
        };
        enter(now, weight);
        for (int i = own + step; i < D; i += step) enter(load(t, i), group_load<E, plain>(w + i, D - i, whole));
        float c = block_sum(dot, room[t % 2]) / (float)D * r * r;

        auto leave = [&](int i, const Rows<T, E> &a, Group<W, E> weights, float *dw) {
            Group<T, E> out;
#pragma unroll
            for (int j = 0; j < E; j++) {
                float g = to_float(a.dy.x[j]), v = to_float(a.x.x[j]);
                float gradient = r * (g * to_float(weights.x[j]) - v * c);
                if (dres) gradient += to_float(a.dres.x[j]);
                out.x[j] = from_float<T>(gradient);
                if (i + j < D) dw[j] = fmaf(g, v * r, dw[j]);
            }
            group_store<E, plain>(dx + t * D + i, D - i, whole, out);
        };
        leave(own, now, weight, dweight);
        for (int i = own + step; i < D; i += step)
            leave(i, load(t, i), group_load<E, plain>(w + i, D - i, whole), acc + i);
    }
#pragma unroll
    for (int j = 0; j < E; j++)
        if (own + j < D) acc[own + j] = dweight[j];
}

// The number of threads of a block that owns rows of D elements, E for each thread.
static unsigned row_threads(int64_t D, int E, int most) {
    int64_t groups = (D + E - 1) / E, threads = (groups + WARP - 1) / WARP * WARP;
    return (unsigned)(threads < most ? threads : most);
}

void cuda_rmsnorm(Device *d, Tensor y, Tensor sum, Tensor rstd, Tensor x, Tensor delta, Tensor w, float eps) {
    int64_t T_ = y.dim[0], D = tensor_width(y);
    if (!present(delta)) sum = NONE;
    DISPATCH2(y.dtype, T, w.dtype, W, {
        constexpr int E = (GroupOf<T, W>::E);
        unsigned threads = row_threads(D, E, FWD_THREADS);
        int64_t resident = (int64_t)cuda_sm_count(d) * (2048 / threads);
        bool whole = in_groups<E>(data_of<T>(y), D) && in_groups<E>(data_of<T>(sum), D) &&
                     in_groups<E>(data_of<T>(x), D) && in_groups<E>(data_of<T>(delta), D) &&
                     in_groups<E>(data_of<W>(w), D);
        bool plain = whole && D <= (int64_t)threads * E;
        LAUNCH_EARLY(d, (plain ? rmsnorm_kernel<T, W, true> : rmsnorm_kernel<T, W, false>),
                     (unsigned)(T_ < resident ? T_ : resident), threads, 0, data_of<T>(y), data_of<T>(sum),
                     data_of<float>(rstd), data_of<T>(x), data_of<T>(delta), data_of<W>(w), T_, (int)D, eps, whole);
    });
}

void cuda_rmsnorm_bwd(Device *d, Tensor dx, Tensor dw, Tensor dres, Tensor dy, Tensor sum, Tensor rstd, Tensor w) {
    int64_t T_ = dy.dim[0], D = tensor_width(dy);
    int64_t room = (int64_t)(DEVICE_SCRATCH / 2 / sizeof(float)) / D, most = room < MOST_BLOCKS ? room : MOST_BLOCKS;
    int64_t rows = (T_ + most - 1) / most;
    if (rows < LEAST_ROWS) rows = LEAST_ROWS;
    int64_t blocks = (T_ + rows - 1) / rows;
    size_t mark = arena_mark(&d->scratch);
    float *partial = (float *)arena_take(&d->scratch, (size_t)(blocks * D) * sizeof *partial); // [blocks, D] of dw
    DISPATCH2(dy.dtype, T, w.dtype, W, {
        constexpr int E = (GroupOf<T, W>::E);
        bool whole = in_groups<E>(data_of<T>(dx), D) && in_groups<E>(data_of<T>(dres), D) &&
                     in_groups<E>(data_of<T>(dy), D) && in_groups<E>(data_of<T>(sum), D) &&
                     in_groups<E>(data_of<W>(w), D);
        unsigned threads = row_threads(D, E, BWD_THREADS);
        bool plain = whole && D <= (int64_t)threads * E;
        LAUNCH(d, (plain ? rmsnorm_bwd_kernel<T, W, true> : rmsnorm_bwd_kernel<T, W, false>), (unsigned)blocks, threads,
               0, data_of<T>(dx), partial, data_of<T>(dres), data_of<T>(dy), data_of<T>(sum), data_of<float>(rstd),
               data_of<W>(w), T_, (int)D, rows, whole);
    });
    if (present(dw)) cuda_add_column_sums(d, dw, partial, blocks, D);
    arena_rewind(&d->scratch, mark);
}
