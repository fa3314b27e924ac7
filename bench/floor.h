// The floor model: the least time that a card with `bw` bytes a second (device-to-device copy, read + written) and `p`
// FLOP a second (bf16 matrix product) needs. Weights and cache are bf16.
#pragma once
#include "model.h"
#include <stdbool.h>

// Weights of the blocks' matrices, and of the head.
static inline double floor_blocks(ModelDims n) {
    double D = n.D, q = (double)n.H * n.d, kv = (double)n.K * n.d;
    return n.L * (2 * D * q + 2 * D * kv + 3 * D * n.F);
}
static inline double floor_head(ModelDims n) { return (double)n.V * n.D; }
static inline double floor_params(ModelDims n) {
    double vectors = (double)n.L * (n.H + 2 * n.K) * n.d + (2.0 * n.L + 1) * n.D;
    return floor_blocks(n) + floor_head(n) * (n.tied ? 1 : 2) + vectors;
}
// FLOP a token of the forward pass over sequences of T tokens, with the head; three times that with the backward pass.
static inline double floor_forward(ModelDims n, double T) { return model_forward_flop(n, 1, T, 1); }
// Bytes of the cache a token.
static inline double floor_kv(ModelDims n) { return 4.0 * n.L * n.K * n.d; }

// The slower of moving `bytes` and computing `flop`, which overlap; seconds.
static inline double floor_of(double bytes, double flop, double bw, double p) {
    return bytes / bw > flop / p ? bytes / bw : flop / p;
}
// One token for each of B sequences at context c.
static inline double floor_decode(ModelDims n, double B, double c, double bw, double p) {
    double weights = floor_blocks(n) + floor_head(n);
    return floor_of(2 * weights + B * c * floor_kv(n), 2 * weights * B + 4.0 * n.L * n.H * n.d * c * B, bw, p);
}
// The head's products for B rows, sampled: its weights are read once.
static inline double floor_sample(ModelDims n, double B, double bw, double p) {
    return floor_of(2 * floor_head(n), 2 * floor_head(n) * B, bw, p);
}
// Log-probs over the vocabulary of N tokens, and the gradients through them.
static inline double floor_loss(ModelDims n, double N, double bw, double p) {
    return floor_of(3 * 2 * floor_head(n), 3 * 2 * floor_head(n) * N, bw, p);
}
// Bytes AdamW moves a parameter: gradient, weights and state of the given sizes; masters where weights are 2 bytes and
// state is 4. 30 with f32 gradients, masters and moments, 14 all in bf16.
static inline double floor_adamw(double weight, double grad, double state) {
    bool mastered = weight < state;
    return grad + 4 * state + (mastered ? 8 + weight : 2 * weight);
}

// A GRPO step: `completions` of `length` tokens on average, `batch` decoded at a time, groups of `group` sharing a
// prompt that is run once; then the update. Decoding takes length x completions / batch steps at the context of half
// way.
static inline double floor_step(ModelDims n, double completions, double group, double prompt, double length,
                                double batch, double bw, double p) {
    double prompts = completions / group * prompt, tokens = completions * length, context = prompt + length;
    double rollout = tokens / batch * floor_decode(n, batch, prompt + length / 2, bw, p);
    double prefill = floor_of(2 * floor_blocks(n), prompts * floor_forward(n, prompt), bw, p);
    double update = 3 * (prompts + tokens) * floor_forward(n, context) / p + 30 * floor_params(n) / bw;
    return rollout + prefill + update;
}
