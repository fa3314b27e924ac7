// grpo_loss: group advantages, ratios, clipping, KL, entropy bonus, the loss, its gradients and the metric sums, in one
// launch a micro-batch. The formulas are told in grpo_loss.c; both devices share them through grpo_token.h.
//
// A block owns a completion. Everything inside is f64: thread i sums tokens i, i + 256, ... in ascending order, then lanes
// are added as a tree and warps in order, so a completion's results are the same bits in whatever micro-batch it arrives.
// Moved a token: logp, old_logp and dlogp (12 bytes), 4 each for the reference, the entropy and its gradient where they
// are in use; logp, old_logp and the entropy are read twice, the second time from the cache. A micro-batch of 8,192 tokens
// is 100 to 200 kB: what counts is one launch and the length of its longest chain of dependent steps.
#include "common.cuh"
#include "grpo_token.h"

#define THREADS 256
#define WARPS   (THREADS / WARP)
#define ROOM    4096 // scores of one group that are kept in shared memory

typedef struct {
    const float *rewards, *weights, *logp, *old_logp, *ref_logp, *entropy;
    const int32_t *index, *offsets;
    const uint8_t *mask;
    float *advantage, *dlogp, *dentropy, *metrics;
    int64_t group_size, n_rewards;
} Columns;

static __device__ __forceinline__ double warp_larger(double x) {
    for (int k = WARP / 2; k; k /= 2) x = larger(x, __shfl_xor_sync(FULL, x, k));
    return x;
}
static __device__ __forceinline__ double warp_smaller(double x) {
    for (int k = WARP / 2; k; k /= 2) x = smaller(x, __shfl_xor_sync(FULL, x, k));
    return x;
}

// The advantage of completion `row`, by the first warp: its lanes bring the group's scores, its first thread does the
// arithmetic, which is a chain of dependent steps.
static __device__ void find_advantage(float *result, float *scores, const Columns &c, int64_t row,
                                      const GrpoParams *p) {
    int64_t i = row % c.group_size, n = c.group_size * c.n_rewards;
    const float *group = c.rewards + (row - i) * c.n_rewards; // [group_size, n_rewards]
    if (n <= ROOM) {
        for (int64_t k = threadIdx.x; k < n; k += WARP) scores[k] = group[k];
        group = scores;
    }
    __syncwarp();
    if (threadIdx.x == 0) *result = (float)grpo_advantage(group, i, c.group_size, c.weights, c.n_rewards, p);
}

static __global__ void __launch_bounds__(THREADS, 2) grpo_loss_kernel(Columns all, GrpoParams p) {
    SHARED(float, scores, [ROOM]);
    SHARED(float, found, [1]);
    SHARED(SequenceSums, wholes, [WARPS]);
    SHARED(TokenSums, sums, [WARPS]);
    int64_t b = blockIdx.x, first = all.offsets[b];
    int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    Completion c;
    c.n = all.offsets[b + 1] - first;
    c.logp = all.logp + first;
    c.old_logp = all.old_logp + first;
    c.ref_logp = p.beta != 0 ? all.ref_logp + first : nullptr;
    c.entropy = all.entropy ? all.entropy + first : nullptr;
    c.dlogp = all.dlogp + first;
    c.dentropy = all.dentropy ? all.dentropy + first : nullptr;
    float *metric = all.metrics + b * GM_COUNT; // [GM_COUNT]
    bool counts = c.n > 0 && all.mask[b];

    if (warp == 0) find_advantage(found, scores, all, all.index[b], &p);
    SequenceSums whole = sequence_sums();
    for (int64_t t = threadIdx.x; counts && t < c.n; t += THREADS) sequence_add(&whole, &c, t, &p);
    whole.log_ratio = warp_sum(whole.log_ratio);
    whole.clamped = warp_sum(whole.clamped);
    whole.kl = warp_sum(whole.kl);
    for (int k = WARP / 2; k; k /= 2) whole.kept += __shfl_xor_sync(FULL, whole.kept, k);
    if (lane == 0) wholes[warp] = whole;
    __syncthreads();
    float advantage = found[0];
    if (threadIdx.x == 0) all.advantage[b] = advantage;
    if (!counts) { // the whole block: nobody waits below
        for (int64_t t = threadIdx.x; t < c.n; t += THREADS) c.dlogp[t] = 0;
        for (int64_t t = threadIdx.x; c.dentropy && t < c.n; t += THREADS) c.dentropy[t] = 0;
        if (threadIdx.x == 0) masked_metrics(metric, advantage, &p);
        return;
    }
    whole = sequence_sums();
    for (int w = 0; w < WARPS; w++) sequence_join(&whole, &wholes[w]);
    SequenceTerms s = sequence_terms(c.n, advantage, &whole, &p);

    TokenSums sum = token_sums();
    for (int64_t t = threadIdx.x; t < c.n; t += THREADS) token_loss(&sum, &c, t, &s, &p);
    sum.loss = warp_sum(sum.loss);
    sum.kl = warp_sum(sum.kl);
    sum.entropy = warp_sum(sum.entropy);
    sum.kept_entropy = warp_sum(sum.kept_entropy);
    sum.ratio = warp_sum(sum.ratio);
    sum.ratio_max = warp_larger(sum.ratio_max);
    sum.ratio_min = warp_smaller(sum.ratio_min);
    for (int k = WARP / 2; k; k /= 2) {
        sum.low += __shfl_xor_sync(FULL, sum.low, k);
        sum.high += __shfl_xor_sync(FULL, sum.high, k);
    }
    if (lane == 0) sums[warp] = sum;
    __syncthreads();
    if (threadIdx.x > 0) return;
    for (int w = 1; w < WARPS; w++) token_join(&sum, &sums[w]);
    sequence_metrics(metric, c.n, advantage, &sum, &s, &p);
}

void cuda_grpo_loss(Device *d, GrpoOut out, GrpoIn in, GrpoParams p) {
    grpo_loss_check(out, in, &p);
    Columns c = {};
    c.rewards = data_of<float>(in.rewards), c.weights = data_of<float>(in.weights);
    c.logp = data_of<float>(in.logp), c.old_logp = data_of<float>(in.old_logp);
    c.ref_logp = data_of<float>(in.ref_logp), c.entropy = data_of<float>(in.entropy);
    c.index = data_of<int32_t>(in.index), c.offsets = data_of<int32_t>(in.offsets);
    c.mask = data_of<uint8_t>(in.mask);
    c.advantage = data_of<float>(out.advantage), c.dlogp = data_of<float>(out.dlogp);
    c.dentropy = data_of<float>(out.dentropy), c.metrics = data_of<float>(out.metrics);
    c.group_size = in.group_size, c.n_rewards = in.n_rewards;
    LAUNCH(d, grpo_loss_kernel, (unsigned)in.index.dim[0], THREADS, 0, c, p);
}
