// The sampling filters (repetition penalty, top-k, top-p, min-p) on one row of logits, by one block, exactly: in HF's
// order and with the results of sample.c, ties included.
//
// Each of the last three cuts a prefix off the ascending order of (logit, id). The row is never sorted for that: the
// first key that is kept is found digit by digit (a radix select), from histograms of the weight under each digit.
// Weights are integers (a count, or a probability in units of 2^-60), so that the order of the additions does not
// matter. Only keys above a safe bound are looked at: in a list in shared memory where they fit, as they do for the
// distributions of language models; else in the row itself.
//
// Reads the row six times (0.6 MB each at Qwen's vocabulary, from the second-level cache), and eight times more where a
// flat distribution has more keys above the bound than the list holds.
#pragma once
#include "common.cuh"

#define FILTER_THREADS 512
#define FILTER_LIST    4096 // candidates in shared memory

// The filters of SampleParams as the kernel takes them.
typedef struct {
    int top_k;     // 0: off
    float cut;     // 1 - top_p; negative: off
    float log_cut; // log(1 - top_p)
    float min_p;   // 0: off
    float log_min_p;
} Filters;

// A row of logits with the repetition penalty (row_value applies it).
typedef struct {
    const float *z;       // [V]
    const uint32_t *seen; // [V / 32] a bit for each token, set where the penalty applies; or NULL
    float penalty;
    int64_t V;
} FilterRow;

static __device__ __forceinline__ float row_value(const FilterRow &r, int64_t v) {
    float z = r.z[v];
    if (!r.seen || !(r.seen[v / 32] >> v % 32 & 1)) return z;
    return z < 0 ? z * r.penalty : z / r.penalty;
}

// The pair (logit, id) as one unsigned number of the same order; -0 and 0 are equal.
static __device__ __forceinline__ uint64_t key_of(float z, int64_t id) {
    uint32_t u = __float_as_uint(z + 0.0f);
    u ^= u >> 31 ? 0xffffffffu : 0x80000000u;
    return (uint64_t)u << 32 | (uint64_t)id;
}
static __device__ __forceinline__ float logit_of(uint64_t key) {
    uint32_t u = (uint32_t)(key >> 32);
    return __uint_as_float(u ^ (u >> 31 ? 0x80000000u : 0xffffffffu));
}

typedef struct {
    uint64_t list[FILTER_LIST];
    unsigned long long histogram[2][256]; // atomicAdd's own type for 64 bits
    double sum[32], other_sum[32];
    float max[32];
    uint64_t key, base;
    int count;
} FilterRoom;

static __device__ __forceinline__ float filter_max(float x, FilterRoom *room) {
    x = warp_max(x);
    __syncthreads(); // other threads may still be reading the last maximum
    if (threadIdx.x % WARP == 0) room->max[threadIdx.x / WARP] = x;
    __syncthreads();
    for (int w = 0; w < FILTER_THREADS / WARP; w++) x = fmaxf(x, room->max[w]);
    return x;
}

// Calls f(key) for every key from `low` on, spread over the threads: those of the list, or where it overflowed (count >
// FILTER_LIST) those of the row.
template <typename F>
static __device__ __forceinline__ void for_keys(const FilterRow &r, const FilterRoom *room, uint64_t low, F f) {
    if (room->count <= FILTER_LIST) {
        for (int i = (int)threadIdx.x; i < room->count; i += FILTER_THREADS)
            if (room->list[i] >= low) f(room->list[i]);
    } else {
        for (int64_t v = threadIdx.x; v < r.V; v += FILTER_THREADS) {
            float z = row_value(r, v);
            uint64_t key = key_of(z, v);
            if (key >= low && z == z) f(key);
        }
    }
}

// The smallest key from `low` on at which crosses(w) holds, w being the weight of all keys from `low` up to and
// including it; where there is none, the largest key that has any weight. Only digits from bit `stop` (32 or 0) up are
// found; the bits below are 0.
template <typename W, typename C>
static __device__ __forceinline__ uint64_t first_crossing(const FilterRow &r, FilterRoom *room, uint64_t low, int stop,
                                                          W weight, C crosses) {
    const int lane = (int)threadIdx.x % WARP, bins = 256 / WARP; // a lane of the first warp looks at 8 bins
    int top_of_id = 0;                                           // the lowest bit of an id's first digit
    while ((r.V - 1) >> top_of_id >> 8) top_of_id += 8;
    if (threadIdx.x == 0) room->key = room->base = 0;
    if (threadIdx.x < 256) room->histogram[0][threadIdx.x] = 0;
    __syncthreads();
    int turn = 0;
    for (int shift = 56; shift >= stop; shift = shift == 32 ? (stop ? -1 : top_of_id) : shift - 8, turn ^= 1) {
        unsigned long long *histogram = room->histogram[turn];
        uint64_t known = room->key; // the digits above `shift`
        for_keys(r, room, low, [=](uint64_t key) {
            if ((key ^ known) >> shift >> 8 == 0) atomicAdd(&histogram[key >> shift & 255], weight(key));
        });
        __syncthreads();
        if (threadIdx.x >= FILTER_THREADS - 256) room->histogram[turn ^ 1][FILTER_THREADS - 1 - threadIdx.x] = 0;
        if (threadIdx.x < WARP) {
            uint64_t mine = 0, below, base = room->base;
            for (int i = 0; i < bins; i++) mine += histogram[lane * bins + i];
            below = mine;
            for (int k = 1; k < WARP; k *= 2) {
                uint64_t lower = __shfl_up_sync(FULL, (unsigned long long)below, k);
                below += lane >= k ? lower : 0;
            }
            below += base - mine;
            int found = -1, last = -1; // among this lane's bins
            uint64_t found_base = 0, last_base = 0;
            for (int i = 0; i < bins; i++) {
                uint64_t n = histogram[lane * bins + i];
                if (n) last = lane * bins + i, last_base = below;
                if (n && found < 0 && crosses(below + n)) found = lane * bins + i, found_base = below;
                below += n;
            }
            uint32_t any_found = __ballot_sync(FULL, found >= 0), any = __ballot_sync(FULL, last >= 0);
            int winner = any_found ? __ffs((int)any_found) - 1 : any ? WARP - 1 - __clz((int)any) : 0;
            if (lane == winner) {
                room->key = known | (uint64_t)(any_found ? found : any ? last : 0) << shift;
                room->base = any_found ? found_base : last_base;
            }
        }
        __syncthreads();
    }
    uint64_t key = room->key;
    __syncthreads(); // before the next call sets it to 0
    return key;
}

// Sums of e^(z - max) over the keys from `low` on (*upper, whose terms are in f64 because it decides) and below it
// (*lower).
static __device__ __forceinline__ void masses(const FilterRow &r, FilterRoom *room, float max, uint64_t low,
                                              double *upper, double *lower) {
    double up = 0, down = 0;
    for (int64_t v = threadIdx.x; v < r.V; v += FILTER_THREADS) {
        float z = row_value(r, v);
        if (!(z == z)) continue;
        if (key_of(z, v) >= low) up += exp((double)z - max);
        else down += expf(z - max);
    }
    up = warp_sum(up), down = warp_sum(down);
    __syncthreads(); // other threads may still be reading the last sums
    if (threadIdx.x % WARP == 0) room->sum[threadIdx.x / WARP] = up, room->other_sum[threadIdx.x / WARP] = down;
    __syncthreads();
    *upper = *lower = 0;
    for (int w = 0; w < FILTER_THREADS / WARP; w++) *upper += room->sum[w], *lower += room->other_sum[w];
}

// Puts the keys from `low` on into the list, in any order; `count` says how many there are, even if they do not fit.
static __device__ __forceinline__ void list_keys(const FilterRow &r, FilterRoom *room, uint64_t low) {
    __syncthreads();
    if (threadIdx.x == 0) room->count = 0;
    __syncthreads();
    for (int64_t v = threadIdx.x; v < r.V; v += FILTER_THREADS) {
        float z = row_value(r, v);
        uint64_t key = key_of(z, v);
        if (key < low || !(z == z)) continue;
        int at = atomicAdd(&room->count, 1);
        if (at < FILTER_LIST) room->list[at] = key;
    }
    __syncthreads();
}

// What the filters keep of a row: the keys from `low` on whose probability e^(z - max) / upper is at least `least`.
typedef struct {
    uint64_t low;
    float max, least;
    double upper;
} Kept;

static __device__ __forceinline__ bool is_kept(const Kept &k, float z, int64_t v) {
    if (key_of(z, v) < k.low) return false;
    return k.least <= 0 || !((float)(exp((double)z - k.max) / k.upper) < k.least);
}

// Runs the filters on a row; all threads of the block call it and get the result.
static __device__ __forceinline__ Kept filter_row(const FilterRow &r, FilterRoom *room, Filters p) {
    Kept kept = {0, 0, 0, 1};
    float mine = -INFINITY;
    for (int64_t v = threadIdx.x; v < r.V; v += FILTER_THREADS) mine = fmaxf(mine, row_value(r, v));
    float max = kept.max = filter_max(mine, room);
    if (!(max > -INFINITY)) return kept; // not a number
    double upper = 0, lower = 0;
    bool top_k = p.top_k > 0 && p.top_k < r.V;
    auto one = [](uint64_t key) { return 1ull; };
    if (top_k) {
        // At least k logits reach the k-th largest of the threads' maxima, and not many more do.
        uint64_t bound = 0;
        if (p.top_k <= FILTER_THREADS) {
            room->list[threadIdx.x] = key_of(mine, 0);
            if (threadIdx.x == 0) room->count = FILTER_THREADS;
            __syncthreads();
            uint64_t under = FILTER_THREADS - (uint64_t)p.top_k;
            bound = first_crossing(r, room, 0, 32, one, [=](uint64_t n) { return n > under; });
        }
        list_keys(r, room, bound);
        uint64_t under = (uint64_t)room->count - (uint64_t)p.top_k;
        kept.low =
            first_crossing(r, room, bound, 32, one, [=](uint64_t n) { return n > under; }); // all ties of the k-th
        masses(r, room, max, kept.low, &upper, &lower);
        lower = 0; // what top-k removed is no longer there
    } else if (p.cut >= 0 || p.min_p > 0) {
        masses(r, room, max, ~0ull, &upper, &lower);
        // All logits with p < (1 - top_p) / V weigh less than 1 - top_p together. The margin covers rounding.
        float bound = -INFINITY;
        if (p.cut >= 0) bound = max + (p.log_cut + (float)log((upper + lower) / (double)r.V)) - 0.01f;
        if (p.min_p > 0) bound = fmaxf(bound, max + p.log_min_p - 0.01f);
        kept.low = key_of(bound, 0);
        list_keys(r, room, kept.low);
        masses(r, room, max, kept.low, &upper, &lower);
    }
    if (p.cut >= 0) {
        double sum = upper + lower, below = lower / sum;
        float cut = p.cut;
        kept.low = first_crossing(
            r, room, kept.low, 0,
            [=](uint64_t key) {
                return (unsigned long long)((double)(float)(exp((double)logit_of(key) - max) / sum) * 0x1p60);
            },
            [=](uint64_t n) { return (float)(below + (double)n * 0x1p-60) > cut; });
        masses(r, room, max, kept.low, &upper, &lower);
    }
    kept.upper = upper;
    kept.least = p.min_p > 0 ? p.min_p * (float)(1 / upper) : 0;
    return kept;
}
