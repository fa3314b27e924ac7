// Adding up the chunks of K of one tile, where several groups of threads have computed one each.
#pragma once
#include "common.cuh"

// Stores a group's chunk of a tile in partial[chunks][SUMS][THREADS]. Returns whether it was the last of the tile's
// groups; then `sum` becomes the sum of all chunks, in ascending order. *arrived counts the groups; it is 0 before and
// after. thread: of the group, below THREADS; before: a word of shared memory; barrier(): of the group.
template <int SUMS, int THREADS, typename Barrier>
static __device__ __forceinline__ bool add_chunks(float *sum, float *partial, int chunk, int chunks, unsigned *arrived,
                                                  unsigned *before, int thread, Barrier barrier) {
    float *mine = partial + (int64_t)chunk * SUMS * THREADS + thread;
#pragma unroll
    for (int j = 0; j < SUMS; j++) __stcg(mine + j * THREADS, sum[j]);
    __threadfence();
    barrier();
    if (thread == 0) *before = atomicAdd(arrived, 1);
    barrier();
    if (*before != (unsigned)chunks - 1) return false;
    __threadfence();
    if (thread == 0) *arrived = 0;
#pragma unroll
    for (int j = 0; j < SUMS; j++) sum[j] = 0;
#pragma unroll 1
    for (int c = 0; c < chunks; c++)
#pragma unroll
        for (int j = 0; j < SUMS; j++) sum[j] += __ldcg(partial + ((int64_t)c * SUMS + j) * THREADS + thread);
    return true;
}
