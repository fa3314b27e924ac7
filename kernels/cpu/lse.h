// The summary of logits that the streamed head keeps, on either device.
#pragma once

// One row's logits z over one chunk of the vocabulary.
typedef struct {
    float max; // m = max z
    float sum; // sum of e^(z - m)
    float dot; // sum of e^(z - m) (z - m)
} Lse;

// What logits are multiplied by; 0 stands for greedy draws, whose log-probs are those of temperature 1.
static inline float head_scale(float temperature) { return temperature > 0 ? 1.0f / temperature : 1.0f; }
