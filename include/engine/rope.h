// Rotary position embeddings (Su et al. 2021): how a model's frequencies come about, and the table of them that ops take.
#pragma once
#include "tensor.h"

// How frequencies are changed so that a model reaches further than it was trained; the formulas of transformers 5.24. Its
// other types (dynamic, longrope ...) depend on how long the texts of a batch are: a token's value would not be a function
// of its prefix.
typedef enum { ROPE_DEFAULT, ROPE_LINEAR, ROPE_LLAMA3, ROPE_YARN, ROPE_TYPES } RopeType;
extern const char *const rope_type_names[ROPE_TYPES]; // config.json's words

typedef struct {
    RopeType type;
    float theta;       // the base
    double factor;     // all but default: how many times further
    double trained;    // llama3, yarn: positions that the model was trained on
    double low, high;  // llama3: the waves that fit so many times into `trained` bound the smooth part
    double fast, slow; // yarn: the same, in turns
    double scale;      // yarn: sine and cosine are multiplied by it
    bool truncate;     // yarn: those bounds are whole pairs
} RopeSpec;

typedef struct {
    float inv_freq[HEAD_MAX / 2]; // [d/2] radians a position
    float scale;                  // of sine and cosine
} RopeTable;

// The table for heads of size d, even, at most HEAD_MAX.
RopeTable rope_table(RopeSpec spec, int d);
