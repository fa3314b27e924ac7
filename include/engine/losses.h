// The losses, in one list. From it are made the choices of the option loss_type, what the configuration checks, the
// normalisers, which metrics a step reports, and the table of the reference page. A new loss is a row here, a case in
// token_policy (kernels/ops/grpo_token.h), and a golden.
//
//   LOSS(NAME, name, sum, clip, level, help)     loss_type: name, LOSS_NAME in code; options NAME_... are its own
//
// The names and formulas are those of TRL 1.16.
#pragma once

// How token losses are added up to the loss of an optimizer step.
#define LOSS_SUMS(SUM)                                                                                                 \
    SUM(SUM_SEQUENCE_MEANS, "mean over completions of their mean over tokens")                                         \
    SUM(SUM_SEQUENCES, "mean over completions of their sum")                                                           \
    SUM(SUM_TOKENS, "sum / tokens of the step")                                                                        \
    SUM(SUM_MAX_LENGTH, "sum / (completions x `max_completion_length`)")                                               \
    SUM(SUM_GENERATION_TOKENS, "sum / (tokens of the generation batch x the step's share of its completions)")
#define LOSS_SUM_ENUM(NAME, help) NAME,
typedef enum { LOSS_SUMS(LOSS_SUM_ENUM) } LossSum;
#undef LOSS_SUM_ENUM

// What a loss does with ratios that are far from 1.
typedef enum {
    CLIP_RANGE, // grpo's formula for a token: they count as 1 - epsilon or 1 + epsilon_high where that is the smaller
                // gain; delta bounds the rest
    CLIP_CAP,   // they count as epsilon_high at most
    CLIP_NONE,  // nothing: they are weighed down smoothly
} LossClip;

// Which ratios a loss was made for, a token's or a sequence's; with the other a note is printed.
typedef enum { MADE_FOR_TOKENS, MADE_FOR_SEQUENCES, MADE_FOR_BOTH } LossLevel;

// clang-format off
#define LOSSES(LOSS)                                                                                                   \
    LOSS(GRPO,    grpo,    SUM_SEQUENCE_MEANS,    CLIP_RANGE, MADE_FOR_BOTH,      "`-min(min(w, delta) A, clip(w, 1 - epsilon, 1 + epsilon_high) A)`") \
    LOSS(BNPO,    bnpo,    SUM_TOKENS,            CLIP_RANGE, MADE_FOR_TOKENS,    "as grpo")                           \
    LOSS(DR_GRPO, dr_grpo, SUM_MAX_LENGTH,        CLIP_RANGE, MADE_FOR_TOKENS,    "as grpo")                           \
    LOSS(DAPO,    dapo,    SUM_GENERATION_TOKENS, CLIP_RANGE, MADE_FOR_TOKENS,    "as grpo")                           \
    LOSS(CISPO,   cispo,   SUM_GENERATION_TOKENS, CLIP_CAP,   MADE_FOR_TOKENS,    "`-stop(min(w, epsilon_high)) A l`") \
    LOSS(SAPO,    sapo,    SUM_SEQUENCE_MEANS,    CLIP_NONE,  MADE_FOR_BOTH,      "`-(4 / tau) sigmoid(tau (w - 1)) A`") \
    LOSS(LUSPO,   luspo,   SUM_SEQUENCES,         CLIP_RANGE, MADE_FOR_SEQUENCES, "as grpo")                           \
    LOSS(VESPO,   vespo,   SUM_GENERATION_TOKENS, CLIP_NONE,  MADE_FOR_TOKENS,    "`-stop(phi) A l`, `log phi = lambda + k log W - lambda W`, W the ratio of the whole completion")
// clang-format on

#define LOSS_ENUM(NAME, name, sum, clip, level, help) LOSS_##NAME,
typedef enum { LOSSES(LOSS_ENUM) LOSS_COUNT } LossType;
#undef LOSS_ENUM

// "grpo|bnpo|...", as the option table writes choices.
#define LOSS_CHOICE(NAME, name, sum, clip, level, help) "|" #name
#define LOSS_CHOICES                                    (&(LOSSES(LOSS_CHOICE))[1])

typedef struct {
    LossSum sum;
    LossClip clip;
    LossLevel level;
} LossKind;

#ifdef __CUDACC__
#define LOSS_SHARED static inline __host__ __device__
#else
#define LOSS_SHARED static inline
#endif
LOSS_SHARED LossKind loss_kind(LossType type) {
    LossKind kind = {SUM_SEQUENCE_MEANS, CLIP_RANGE, MADE_FOR_BOTH};
    switch (type) {
#define LOSS_CASE(NAME, name, sum_, clip_, level_, help)                                                               \
    case LOSS_##NAME: kind.sum = sum_, kind.clip = clip_, kind.level = level_; break;
        LOSSES(LOSS_CASE)
#undef LOSS_CASE
    case LOSS_COUNT: break;
    }
    return kind;
}
