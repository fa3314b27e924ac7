// A random start of a model or an adapter. Element i of parameter p depends on (seed, p, i) alone.
#pragma once
#include "model.h"

// Draws the weights: N(0, init), norms 1, biases 0.
void model_init_random(Device *d, Model *m, uint64_t seed);
// Draws the weights of parameter number p alone, the same numbers.
void model_init_param(Device *d, Model *m, int p, uint64_t seed);
// Draws an adapter as PEFT starts one: A uniform in +- 1 / sqrt(its columns), or `gaussian` N(0, 1 / rank). B stays 0,
// as fresh memory is.
void adapter_init_random(Device *d, Adapter *a, uint64_t seed, bool gaussian);
