// RMSNorm (Zhang & Sennrich 2019) after a residual addition:
//
//   sum[T,D] = x + delta        y = sum * rstd * w        rstd[T] = 1 / sqrt(mean(sum^2) + eps)
//
// and backward, with g = dy * w:
//   dx = dres + rstd * (g - sum * rstd^2 * mean(g * sum)),   dw += sum_t dy * sum * rstd
//
// A team of warps owns a row, one warp up to D = 1024 in bf16: a lane has GROUPS groups of 16 bytes of it, all loaded
// before the first is used, and the same columns of every row, so that the gradient of w stays in registers. A row is
// read once and stays there between the two passes over it; of a row longer than a block is wide, the rest is read
// again. Bytes moved for an element of bf16: x, delta, sum and y (8), backward dy, sum, dres and dx (8); w comes from
// the L1, and the statistics are small beside that.
//
// Expected on an H200 at D = 896: 90 % of a copy at 32,768 rows, backward 85 %. An SM then moves 18 bytes a clock, 405
// clocks a row, and a row is about 560 instructions of one warp, backward 830: a third and a half of what is issued
// meanwhile. The loads under way in an SM: 24 warps x 3.5 KB, backward 16 x 5.25 KB, each half the time or more, where
// 30 KB at all times would do. 264 blocks of the backward pass write 1 MB of sums, which takes one more launch to add.
// Before, in 50 and 101 registers, 9 and 4 blocks of 128 threads ran at once, with a barrier a row: 76 and 45 %.
//
// The order of a row's sum (row_norm.cuh) does not depend on how many groups a lane has.
//
// In the backward pass a block takes R rows, which its teams deal among themselves, R = ceil(T / MOST_BLOCKS) but at
// least 8, which does not depend on the card. The teams' sums of dw are added in order, and cuda_add_column_sums adds
// the blocks' sums in order.
#include "row_norm.cuh"

#define GROUPS      4                 // of a lane
#define TEAM_WARPS  (STRIPS / GROUPS) // at most
#define BWD_WARPS   8                 // of a block of the backward pass
#define MOST_BLOCKS 264               // of it: two for each of an H200's multiprocessors
#define LEAST_ROWS  BWD_WARPS         // of such a block

// How a row lies in a team: lane l of warp w has groups WARP (w + k warps) + l, k < GROUPS.
typedef struct {
    int D, warps, strips; // strips: those that a row has, STRIPS at most
    bool whole;
} Row;

static Row row_of(int64_t D, int E, bool whole) {
    int64_t strips = (D + E * WARP - 1) / (E * WARP);
    if (strips > STRIPS) strips = STRIPS;
    return Row{(int)D, (int)(strips + GROUPS - 1) / GROUPS, (int)strips, whole};
}

// The sum over a row of the lanes' sums of each of their groups; all lanes of the team get it. `room` is a shared array
// of STRIPS of the team's own.
static __device__ __forceinline__ float row_sum(const float part[GROUPS], float *room, const Row &r, int warp) {
    float sum[GROUPS];
#pragma unroll
    for (int k = 0; k < GROUPS; k++) sum[k] = warp_sum(part[k]);
    if (r.warps == 1) return ((sum[0] + sum[1]) + sum[2]) + sum[3]; // strips that the row lacks are 0
#pragma unroll
    for (int k = 0; k < GROUPS; k++)
        if (threadIdx.x % WARP == 0) room[warp + k * r.warps] = sum[k];
    __syncthreads();
    float total = room[0];
    for (int s = 1; s < r.strips; s++) total += room[s];
    return total;
}

// Calls f(k, i) for the lane's groups, which begin at columns i, of the columns from `base` on.
template <int E, typename Fn>
static __device__ __forceinline__ void for_groups(const Row &r, int warp, int base, Fn f) {
#pragma unroll
    for (int k = 0; k < GROUPS; k++) {
        int i = base + ((warp + k * r.warps) * WARP + (int)threadIdx.x % WARP) * E;
        if (i < r.D) f(k, i);
    }
}

template <typename T, typename W, bool plain>
static __global__ void __launch_bounds__(TEAM_WARPS *WARP, plain ? 3 : 1)
    rmsnorm_kernel(T *y, T *sum, float *rstd, const T *x, const T *delta, const W *w, int64_t T_, Row r, float eps) {
    constexpr int E = GroupOf<T, W>::E;
    SHARED(float, room, [2][STRIPS]);
    const int warp = (int)threadIdx.x / WARP, D = r.D, step = plain ? D : r.warps * GROUPS * WARP * E;
    Group<W, E> weight[GROUPS];
    auto load = [&](auto *g, auto *p, int base) {
        for_groups<E>(r, warp, base, [&](int k, int i) { g[k] = group_load<E, plain>(p + i, D - i, r.whole); });
    };
    wait_for_earlier();
    int turn = 0;
    for (int64_t t = blockIdx.x; t < T_; t += gridDim.x, turn ^= 1) {
        const T *x_row = x + t * D, *delta_row = delta + t * D;
        T *sum_row = sum + t * D, *y_row = y + t * D;
        float squares[GROUPS] = {};
        // The residual stream from column `base` on.
        auto enter = [&](Group<T, E> *v, int base) {
            Group<T, E> add[GROUPS];
            load(v, x_row, base);
            if (delta) load(add, delta_row, base);
            for_groups<E>(r, warp, base, [&](int k, int i) {
                if (delta) {
                    v[k] = group_sum<E>(v[k], add[k]);
                    group_store<E, plain>(sum_row + i, D - i, r.whole, v[k]);
                }
                squares[k] = group_squares<E>(squares[k], v[k]);
            });
        };
        Group<T, E> kept[GROUPS], more[GROUPS];
        enter(kept, 0);
        for (int base = step; base < D; base += step) enter(more, base);
        load(weight, w, 0);
        float inverse = row_rstd(row_sum(squares, room[turn], r, warp), D, eps);

        auto leave = [&](const Group<T, E> *v, int base) {
            for_groups<E>(r, warp, base, [&](int k, int i) {
                group_store<E, plain>(y_row + i, D - i, r.whole, group_normed<E>(v[k], inverse, weight[k]));
            });
        };
        leave(kept, 0);
        for (int base = step; base < D; base += step) {
            load(more, delta ? sum_row : x_row, base), load(weight, w, base);
            leave(more, base);
        }
        if (threadIdx.x == 0) rstd[t] = inverse;
    }
}

template <typename T, int E> struct Lane { // a lane's groups of a row
    Group<T, E> dy[GROUPS], x[GROUPS], dres[GROUPS];
};

template <typename T, typename W, bool plain>
static __global__ void __launch_bounds__(BWD_WARPS *WARP, plain ? 2 : 1)
    rmsnorm_bwd_kernel(T *dx, float *partial, const T *dres, const T *dy, const T *sum, const float *rstd, const W *w,
                       int64_t T_, Row r, int rows) {
    constexpr int E = GroupOf<T, W>::E;
    SHARED(float, room, [2][GROUPS * BWD_WARPS]); // the strips of each team
    SHARED_DYNAMIC(float, sums);                  // [teams, strips, E, WARP] of dw, if teams > 1
    const int D = r.D, step = plain ? D : r.warps * GROUPS * WARP * E, teams = (int)blockDim.x / WARP / r.warps;
    const int team = (int)threadIdx.x / WARP / r.warps, warp = (int)threadIdx.x / WARP % r.warps;
    const int64_t first = (int64_t)blockIdx.x * rows;
    const int end = (int)(T_ - first < rows ? T_ - first : rows);
    float *total = partial + (int64_t)blockIdx.x * D; // [D]
    Group<W, E> weight[GROUPS];
    auto load = [&](auto *g, auto *p, int base) {
        for_groups<E>(r, warp, base, [&](int k, int i) { g[k] = group_load<E, plain>(p + i, D - i, r.whole); });
    };
    wait_for_earlier();
    float dw[GROUPS][E] = {};
    for (int base = step; base < D; base += step) // of such a row the team is alone, and adds to the block's sum
        for_groups<E>(r, warp, base, [&](int k, int i) {
            for (int j = i; j < i + E && j < D; j++) total[j] = 0;
        });

    for (int n = team, turn = 0; n - team < end; n += teams, turn ^= 1) {
        const int64_t t = first + n;
        const bool mine = n < end; // a team without a row waits with the others
        Lane<T, E> kept, more;
        float inverse = 0, dots[GROUPS] = {};
        auto fill = [&](Lane<T, E> *a, int base) {
            load(a->dy, dy + t * D, base), load(a->x, sum + t * D, base);
            if (dres) load(a->dres, dres + t * D, base);
        };
        auto enter = [&](Lane<T, E> *a, int base) {
            fill(a, base);
            load(weight, w, base);
            for_groups<E>(r, warp, base, [&](int k, int i) {
                float d[E], v[E], scale[E];
                group_floats<E>(d, a->dy[k]), group_floats<E>(v, a->x[k]), group_floats<E>(scale, weight[k]);
#pragma unroll
                for (int j = 0; j < E; j++) dots[k] = fmaf(d[j] * v[j], scale[j], dots[k]);
            });
        };
        if (mine) {
            inverse = rstd[t];
            enter(&kept, 0);
            for (int base = step; base < D; base += step) enter(&more, base);
        }
        float dot = row_sum(dots, room[turn] + team * r.warps * GROUPS, r, warp);
        float c = dot / (float)D * inverse * inverse;

        // add(k, i, j, x): x is added to the gradient of w[i + j].
        auto leave = [&](const Lane<T, E> &a, int base, auto add) {
            load(weight, w, base);
            for_groups<E>(r, warp, base, [&](int k, int i) {
                float d[E], v[E], scale[E], through[E] = {};
                Group<T, E> out;
                group_floats<E>(d, a.dy[k]), group_floats<E>(v, a.x[k]), group_floats<E>(scale, weight[k]);
                if (dres) group_floats<E>(through, a.dres[k]);
#pragma unroll
                for (int j = 0; j < E; j++) {
                    add(k, i, j, d[j], v[j] * inverse);
                    d[j] = inverse * (d[j] * scale[j] - v[j] * c);
                    if (dres) d[j] += through[j];
                }
                group_round<E>(&out, d);
                group_store<E, plain>(dx + t * D + i, D - i, r.whole, out);
            });
        };
        if (!mine) continue;
        leave(kept, 0, [&](int k, int, int j, float d, float v) { dw[k][j] = fmaf(d, v, dw[k][j]); });
        for (int base = step; base < D; base += step) {
            if (2 * step < D) fill(&more, base); // it has the last of several
            leave(more, base, [&](int, int i, int j, float d, float v) {
                if (i + j < D) total[i + j] = fmaf(d, v, total[i + j]);
            });
        }
    }

    if (teams == 1) {
        for_groups<E>(r, warp, 0, [&](int k, int i) {
#pragma unroll
            for (int j = 0; j < E; j++)
                if (i + j < D) total[i + j] = dw[k][j];
        });
        return; // the whole block
    }
    const int slots = r.strips * E * WARP;
    for_groups<E>(r, warp, 0, [&](int k, int) {
#pragma unroll
        for (int j = 0; j < E; j++)
            sums[team * slots + ((warp + k * r.warps) * E + j) * WARP + (int)threadIdx.x % WARP] = dw[k][j];
    });
    __syncthreads();
    for (int s = (int)threadIdx.x; s < slots; s += (int)blockDim.x) {
        int i = (s / WARP / E * WARP + s % WARP) * E + s / WARP % E;
        if (i >= D) continue;
        float x = sums[s];
        for (int k = 1; k < teams; k++) x += sums[k * slots + s];
        total[i] = x;
    }
}

void cuda_rmsnorm(Device *d, Tensor y, Tensor sum, Tensor rstd, Tensor x, Tensor delta, Tensor w, float eps) {
    int64_t T_ = y.dim[0], D = tensor_width(y);
    if (!present(delta)) sum = NONE;
    DISPATCH2(y.dtype, T, w.dtype, W, {
        constexpr int E = (GroupOf<T, W>::E);
        bool whole = in_groups<E>(data_of<T>(y), D) && in_groups<E>(data_of<T>(sum), D) &&
                     in_groups<E>(data_of<T>(x), D) && in_groups<E>(data_of<T>(delta), D) &&
                     in_groups<E>(data_of<W>(w), D);
        Row r = row_of(D, E, whole);
        bool plain = whole && D <= (int64_t)STRIPS * WARP * E;
        auto rmsnorm = plain ? rmsnorm_kernel<T, W, true> : rmsnorm_kernel<T, W, false>;
        unsigned threads = (unsigned)(r.warps * WARP);
        LAUNCH_EARLY(d, rmsnorm, resident_grid(d, rmsnorm, threads, 0, T_), threads, 0, data_of<T>(y), data_of<T>(sum),
                     data_of<float>(rstd), data_of<T>(x), data_of<T>(delta), data_of<W>(w), T_, r, eps);
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
        Row r = row_of(D, E, whole);
        bool plain = whole && D <= (int64_t)STRIPS * WARP * E;
        auto rmsnorm_bwd = plain ? rmsnorm_bwd_kernel<T, W, true> : rmsnorm_bwd_kernel<T, W, false>;
        int teams = BWD_WARPS / r.warps;
        size_t sums = teams > 1 ? (size_t)(teams * r.strips * E * WARP) * sizeof(float) : 0;
        LAUNCH_EARLY(d, rmsnorm_bwd, (unsigned)blocks, (unsigned)(teams * r.warps * WARP), sums, data_of<T>(dx),
                     partial, data_of<T>(dres), data_of<T>(dy), data_of<T>(sum), data_of<float>(rstd), data_of<W>(w),
                     T_, r, (int)rows);
    });
    if (present(dw)) cuda_add_column_sums(d, dw, partial, blocks, D);
    arena_rewind(&d->scratch, mark);
}
