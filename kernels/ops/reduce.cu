// sumsq, and cuda_add_column_sums (memory.cuh): sums whose order depends on the shape alone.
//
// sumsq: out = sum of x^2 in f64. A warp owns a chunk of 4096 elements; lane l adds groups l, l + 32, ... in ascending
// order, then the lanes are added as a tree. The chunks' sums are summed by the same kernel until one is left: 494
// million elements take three launches. Reads x once: 4 (f32) or 2 (bf16) bytes an element; what follows is 1/500 of
// that.
//
// add_column_sums: partial[blocks, n] is read once; a block owns 32 columns. Warp s adds rows [s R, (s + 1) R) in
// ascending order, R = ceil(blocks / 32), then the 32 sums are added in ascending order. The rows were just written:
// they are in L2.
#include "memory.cuh"

#define CHUNK   4096
#define THREADS 256
#define WARPS   (THREADS / WARP)
#define AHEAD   4 // groups that a thread loads at once; 4096 is a multiple of AHEAD x 32 groups

static __device__ __forceinline__ double square_of(float x) { return (double)x * (double)x; }
static __device__ __forceinline__ double term(float x) { return square_of(x); }
static __device__ __forceinline__ double term(Bf16 x) { return square_of(to_float(x)); }
static __device__ __forceinline__ double term(double x) { return x; } // a chunk's sum already

// Adds this lane's elements of x[left], at most a chunk, to the sums of the even and of the odd ones.
template <bool plain, typename T>
static __device__ __forceinline__ void add_chunk(double sum[2], const T *x, int left, bool whole) {
    constexpr int E = GroupOf<T>::E;
    for (int first = (int)threadIdx.x % WARP * E; first < left; first += AHEAD * WARP * E) {
        Group<T, E> g[AHEAD];
#pragma unroll
        for (int k = 0; k < AHEAD; k++)
            g[k] = group_load<E, plain>(x + first + k * WARP * E, left - first - k * WARP * E, whole);
#pragma unroll
        for (int k = 0; k < AHEAD; k++)
#pragma unroll
            for (int j = 0; j < E; j++) sum[j % 2] += term(g[k].x[j]);
    }
}

template <typename T>
static __global__ void __launch_bounds__(THREADS) sum_kernel(double *out, const T *x, int64_t n, bool whole) {
    int64_t chunk = (int64_t)blockIdx.x * WARPS + threadIdx.x / WARP, begin = chunk * CHUNK;
    wait_for_earlier();
    if (chunk > 0 && begin >= n) return; // chunk 0 goes on, so that an empty x gives 0
    double sum[2] = {0, 0};
    if (whole && n - begin >= CHUNK) add_chunk<true>(sum, x + begin, CHUNK, true);
    else add_chunk<false>(sum, x + begin, (int)(n - begin < CHUNK ? n - begin : CHUNK), whole);
    double total = warp_sum(sum[0] + sum[1]);
    if (threadIdx.x % WARP == 0) out[chunk] = total;
}

template <typename T> static void sum_chunks(Device *d, double *out, const T *x, int64_t n) {
    int64_t chunks = n > CHUNK ? (n + CHUNK - 1) / CHUNK : 1;
    size_t mark = arena_mark(&d->scratch);
    double *partial =
        chunks > 1 ? (double *)arena_take(&d->scratch, (size_t)chunks * sizeof *partial) : out; // [chunks]
    LAUNCH_EARLY(d, sum_kernel<T>, blocks_for(chunks, WARPS), THREADS, 0, partial, x, n,
                 in_groups<GroupOf<T>::E>(x, 0));
    if (chunks > 1) sum_chunks(d, out, (const double *)partial, chunks);
    arena_rewind(&d->scratch, mark);
}

void cuda_sumsq(Device *d, Tensor out, Tensor x) {
    DISPATCH(x.dtype, T, sum_chunks(d, data_of<double>(out), (const T *)x.data, tensor_numel(x)));
}

#define COLUMN_THREADS (WARP * WARP)

template <typename T>
static __global__ void __launch_bounds__(COLUMN_THREADS)
    column_sums_kernel(T *out, const float *partial, int64_t blocks, int64_t n) {
    SHARED(float, room, [WARP][WARP]);
    int lane = threadIdx.x % WARP, slice = threadIdx.x / WARP;
    int64_t column = (int64_t)blockIdx.x * WARP + lane, rows = (blocks + WARP - 1) / WARP;
    int64_t end = (slice + 1) * rows < blocks ? (slice + 1) * rows : blocks;
    float sum = 0;
    wait_for_earlier();
    if (column < n)
#pragma unroll 8
        for (int64_t b = slice * rows; b < end; b++) sum += partial[b * n + column];
    room[slice][lane] = sum;
    __syncthreads();
    if (slice > 0 || column >= n) return;
    float total = to_float(out[column]);
    for (int s = 0; s < WARP; s++) total += room[s][lane];
    out[column] = from_float<T>(total);
}

void cuda_add_column_sums(Device *d, Tensor out, const float *partial, int64_t blocks, int64_t n) {
    if (!blocks) return;
    DISPATCH(out.dtype, T,
             LAUNCH_EARLY(d, column_sums_kernel<T>, blocks_for(n, WARP), COLUMN_THREADS, 0, data_of<T>(out), partial,
                          blocks, n));
}
