// How both devices read SampleParams.
#pragma once
#include "ops.h"
#include <math.h>

// Whether a filter other than the repetition penalty is on; greedy draws need none.
static inline bool sample_filters(const SampleParams *p) {
    return p->temperature > 0 && (p->top_k > 0 || p->top_p < 1 || p->min_p > 0);
}
// The decimal number that a user wrote: 0.9 arrives as the nearest float, but HF computes with 0.9 itself.
static inline double sample_decimal(float x) { return rint((double)x * 1e7) / 1e7; }
