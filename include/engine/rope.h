// Rotary position embeddings (Su et al. 2021): how a model's frequencies are defined, and the table of them that ops
// take.
#pragma once
#include "tensor.h"

// How frequencies are scaled so that a model reads longer texts than it was trained on, by the formulas of transformers
// 5.24. Its other types (dynamic, longrope ...) depend on how long the texts of a batch are, so that a token's result
// would not be a function of its prefix.
typedef enum { ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN, ROPE_TYPES } RopeType;
extern const char *const rope_type_names[ROPE_TYPES]; // config.json's words

typedef struct {
    RopeType type;
    float theta;       // the base
    double factor;     // all but default: how many times longer
    double trained;    // llama3, yarn: positions that the model was trained on
    double low, high;  // llama3: waves that fit less than `low` times into `trained` are slowed, more than `high` kept
    double fast, slow; // yarn: the same, for pairs that make so many turns: less than `slow`, more than `fast`
    double scale;      // yarn: sine and cosine are multiplied by it
    bool truncate;     // yarn: those bounds are rounded to whole pairs
} RopeSpec;

typedef struct {
    float inv_freq[HEAD_MAX / 2]; // [d/2] radians a position
    float scale;                  // sine and cosine are multiplied by it
} RopeTable;

// The table for heads of size d, even, at most HEAD_MAX.
RopeTable rope_table(RopeSpec spec, int d);
