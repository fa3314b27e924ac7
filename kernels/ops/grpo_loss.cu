// grpo_loss: group advantages, ratios, clipping, KL, entropy bonus, the loss, its gradients and the metric sums, in one
// launch for a micro-batch. grpo_loss.c explains the formulas; both devices share them through grpo_token.h.
//
// A completion is cut into segments of 2,048 tokens, counted from its first, and a block owns one segment: thread i
// sums tokens i, i + 128, ... in ascending order, then lanes are added as a tree and warps in order; the block that
// finishes last adds the segments in ascending order. All in f64. So a completion's results are the same bits in every
// micro-batch. Where the loss of a token depends on all tokens of its completion (one ratio a sequence, vespo, the
// off-policy mask), one block owns all segments of a completion, one after the other.
//
// Bytes moved for a token: logp, old_logp and dlogp (12), 4 each for the reference, the entropy and its gradient where
// they are in use: 24 in all, 6.1 us for 2^20 tokens at 4.1 TB/s. A micro-batch of 8,192 tokens is 100 to 200 kB: there
// the time is that of one launch and its longest chain of dependent steps.
//
// The kernel before this one gave a completion one block of 256 threads, two passes and an advantage by one thread. It
// took, on an H200 (2026-11-28), 14 us for 8,192 tokens in 8 completions and 1.0 ms for 2^20 in 8 (0.6 % of copy), with
// 305 instructions for a token and warp and 118 registers. This one has some 180 in one pass, 66 of them f64 (4.7 us of
// 132 SMs' f64 units for 2^20 tokens), and 520 blocks there. Predicted, not measured: 10 to 15 us for 2^20 tokens, 6 to
// 8 for 8,192.
#include "cuda.cuh"
#include "grpo_token.h"

#define THREADS 128
#define WARPS   (THREADS / WARP)
#define SEGMENT 2048 // tokens

typedef struct {
    const float *rewards, *weights, *logp, *old_logp, *ref_logp, *entropy;
    const int32_t *index, *offsets;
    const uint8_t *mask;
    float *advantage, *dlogp, *dentropy, *metrics;
    int64_t n, group_size, n_rewards;
    TokenSums *partial; // [blocks] a segment's sums; NULL where a block owns a whole completion
    unsigned *arrived;  // [n] how many segments of a completion are done; 0 before and after the kernel
} Columns;

// ---- the advantage, by one warp -------------------------------------------------------------------------------------
// The moments of value(j) for j < n; every lane gets them.
template <typename F> static __device__ __forceinline__ Moments warp_moments(int64_t n, F value) {
    Moments m = {0, 0, 0};
    int lane = threadIdx.x % WARP;
    for (int64_t j = lane; j < n; j += WARP) moments_add(&m, value(j));
    m.n = (int64_t)warp_sum((double)m.n), m.sum = warp_sum(m.sum);
    for (int64_t j = lane; j < n; j += WARP) moments_spread(&m, value(j));
    m.squares = warp_sum(m.squares);
    return m;
}

// grpo_advantage (grpo_math.h), with a lane for each completion of the group.
static __device__ double find_advantage(const Columns &c, int64_t row, const GrpoParams *p) {
    int64_t i = row % c.group_size;
    const float *group = c.rewards + (row - i) * c.n_rewards; // [group_size, n_rewards]
    if (p->aggregation == SUM_THEN_NORMALIZE) {
        Moments m = warp_moments(
            c.group_size, [&](int64_t j) { return grpo_reward(group + j * c.n_rewards, c.weights, c.n_rewards); });
        return reward_advantage(grpo_reward(group + i * c.n_rewards, c.weights, c.n_rewards), &m, p);
    }
    double sum = 0;
    bool scored = false;
    for (int64_t k = 0; k < c.n_rewards; k++) {
        float score = group[i * c.n_rewards + k];
        if (isnan(score)) continue; // the whole warp
        Moments m = warp_moments(c.group_size, [&](int64_t j) { return group[j * c.n_rewards + k]; });
        sum += normalized_score(score, c.weights[k], &m);
        scored = true;
    }
    return normalized_advantage(scored ? sum : (double)NAN, p);
}

// ---- sums of a block ------------------------------------------------------------------------------------------------
static __device__ __forceinline__ int64_t warp_sum(int64_t x) {
    for (int k = WARP / 2; k; k /= 2) x += __shfl_xor_sync(FULL, x, k);
    return x;
}

// The sums over the block, in thread 0. `room` may be used again after the next barrier.
static __device__ __forceinline__ TokenSums block_tokens(TokenSums sum, TokenSums *room) {
    sum.loss = warp_sum(sum.loss), sum.kl = warp_sum(sum.kl);
    sum.entropy = warp_sum(sum.entropy), sum.policy_entropy = warp_sum(sum.policy_entropy);
    sum.ratio = warp_sum(sum.ratio);
    int64_t counts = warp_sum(sum.low | sum.high << 21 | sum.policy_tokens << 42), mask = (1 << 21) - 1;
    sum.low = counts & mask, sum.high = counts >> 21 & mask, sum.policy_tokens = counts >> 42;
    for (int k = WARP / 2; k; k /= 2) {
        double high = __shfl_xor_sync(FULL, sum.ratio_max, k), low = __shfl_xor_sync(FULL, sum.ratio_min, k);
        sum.ratio_max = high > sum.ratio_max ? high : sum.ratio_max;
        sum.ratio_min = low < sum.ratio_min ? low : sum.ratio_min;
    }
    if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = sum;
    __syncthreads();
    for (int w = 1; threadIdx.x == 0 && w < WARPS; w++) token_join(&sum, &room[w]);
    return sum;
}

// The sums over the block, in every thread.
static __device__ __forceinline__ SequenceSums block_sequence(SequenceSums sum, SequenceSums *room) {
    sum.log_ratio = warp_sum(sum.log_ratio), sum.clamped = warp_sum(sum.clamped);
    sum.kl = warp_sum(sum.kl), sum.policy_tokens = warp_sum(sum.policy_tokens);
    if (threadIdx.x % WARP == 0) room[threadIdx.x / WARP] = sum;
    __syncthreads();
    sum = room[0];
    for (int w = 1; w < WARPS; w++) sequence_join(&sum, &room[w]);
    return sum;
}

// Calls f(t, token) for this thread's tokens of [first, end), loading the next one meanwhile.
template <typename F>
static __device__ __forceinline__ void for_tokens(const Completion &c, int64_t first, int64_t end, F f) {
    int64_t t = first + threadIdx.x;
    Token next = {0, 0, 0, 0};
    if (t < end) next = token_at(&c, t);
    for (; t < end; t += THREADS) {
        Token now = next;
        if (t + THREADS < end) next = token_at(&c, t + THREADS);
        f(t, now);
    }
}

// ---- which block does what ------------------------------------------------------------------------------------------
// The first block of completion b: each completion has as many blocks as segments, and perhaps one more that has
// nothing to do.
static __device__ __forceinline__ int64_t first_block(const int32_t *offsets, int64_t b) {
    return offsets[b] / SEGMENT + b;
}
// The completion, among n, that `block` works on, by a 32-way search.
static __device__ __forceinline__ int64_t completion_of(const int32_t *offsets, int64_t n, int64_t block) {
    int64_t low = 0, high = n;
    while (high - low > 1) {
        int64_t step = (high - low + WARP - 1) / WARP, at = low + threadIdx.x % WARP * step;
        unsigned begun = __ballot_sync(FULL, at < high && first_block(offsets, at) <= block);
        low += (__popc(begun) - 1) * step;
        high = low + step < high ? low + step : high;
    }
    return low;
}

// plain (at compile time): the ratio is a token's own and clipped by range, as in grpo's family, and nothing needs
// sequence_sums, which is so in nearly all runs: without the other cases a token takes half the instructions.
template <bool plain> static __global__ void __launch_bounds__(THREADS, 3) grpo_loss_kernel(Columns all, GrpoParams p) {
    SHARED(float, found, [1]);
    SHARED(SequenceSums, wholes, [WARPS]);
    SHARED(TokenSums, room, [WARPS]);

    int64_t b = all.partial ? completion_of(all.offsets, all.n, blockIdx.x) : blockIdx.x, offset = all.offsets[b];
    Completion c;
    c.n = all.offsets[b + 1] - offset;
    int64_t segments = c.n > SEGMENT ? (c.n + SEGMENT - 1) / SEGMENT : 1;
    int64_t segment = all.partial ? blockIdx.x - first_block(all.offsets, b) : 0;
    if (segment >= segments) return;
    int64_t first = segment * SEGMENT, end = all.partial && first + SEGMENT < c.n ? first + SEGMENT : c.n;
    c.logp = all.logp + offset;
    c.old_logp = all.old_logp + offset;
    c.ref_logp = p.beta != 0 ? all.ref_logp + offset : nullptr;
    c.entropy = all.entropy ? all.entropy + offset : nullptr;
    c.dlogp = all.dlogp + offset;
    c.dentropy = all.dentropy ? all.dentropy + offset : nullptr;
    float *metric = all.metrics + b * GM_COUNT; // [GM_COUNT]
    bool counts = c.n > 0 && all.mask[b];

    if (threadIdx.x < WARP) {
        float advantage = (float)find_advantage(all, all.index[b], &p);
        if (threadIdx.x == 0) found[0] = advantage;
        if (threadIdx.x == 0 && segment == 0) all.advantage[b] = advantage;
    }
    SequenceSums whole = sequence_sums();
    if (counts && !plain && needs_sequence_sums(&p)) {
        for_tokens(c, first, end, [&](int64_t, Token x) { sequence_add(&whole, x, &p); });
        whole = block_sequence(whole, wholes);
    }
    __syncthreads();
    float advantage = found[0];
    if (!counts) { // the whole block returns: no barrier below waits for it
        TokenGradients none = {0, 0};
        for (int64_t t = first + threadIdx.x; t < end; t += THREADS) token_leave(&c, t, none);
        if (threadIdx.x == 0 && segment == 0) masked_metrics(metric, advantage, &p);
        return;
    }
    SequenceTerms s = sequence_terms(c.n, advantage, &whole, &p);
    if (plain) p.loss_type = LOSS_GRPO, p.level = LEVEL_TOKEN, s.off_policy = false;

    TokenSums total = token_sums();
    for (; first < end; first += SEGMENT) {
        TokenSums sum = token_sums();
        for_tokens(c, first, first + SEGMENT < end ? first + SEGMENT : end,
                   [&](int64_t t, Token x) { token_leave(&c, t, token_loss(&sum, x, &s, &p)); });
        sum = block_tokens(sum, room);
        if (threadIdx.x == 0) token_join(&total, &sum);
        __syncthreads();
    }
    if (threadIdx.x > 0) return;
    if (all.partial && segments > 1) {
        all.partial[blockIdx.x] = total;
        __threadfence();
        if (atomicAdd(&all.arrived[b], 1) + 1 != segments) return;
        __threadfence();
        all.arrived[b] = 0;
        const TokenSums *partial = all.partial + blockIdx.x - segment; // [segments]
        total = token_sums();
#pragma unroll 4
        for (int64_t k = 0; k < segments; k++) token_join(&total, &partial[k]);
    }
    sequence_metrics(metric, c.n, advantage, &total, &s, &p);
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
    c.n = in.index.dim[0], c.group_size = in.group_size, c.n_rewards = in.n_rewards;
    c.arrived = ((CudaDevice *)d->backend)->arrived;
    int64_t blocks = c.n;
    size_t mark = arena_mark(&d->scratch);
    if (!needs_sequence_sums(&p) && c.n <= BLOCK_COUNTERS) {
        blocks += tensor_numel(in.logp) / SEGMENT;
        c.partial = (TokenSums *)arena_take(&d->scratch, (size_t)blocks * sizeof *c.partial);
    }
    bool plain = loss_kind(p.loss_type).clip == CLIP_RANGE && !needs_sequence_sums(&p);
    LAUNCH(d, (plain ? grpo_loss_kernel<true> : grpo_loss_kernel<false>), (unsigned)blocks, THREADS, 0, c, p);
    arena_rewind(&d->scratch, mark);
}
