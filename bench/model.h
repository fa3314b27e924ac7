// Models the benchmark runs: the tiny one, and one of Qwen2.5-0.5B's shape with random weights.
#pragma once
#include "bench.h"
#include "host.h"

typedef enum { TINY, HALF_B } Shape;

typedef struct {
    Run run;
    Config cfg;
    char *dir; // a temporary model directory, or NULL
} BenchModel;

// Dies with the reason where the model cannot be opened: a benchmark has nobody to report to.
void bench_model_open(BenchModel *m, Shape shape, DType dtype, RunShape run_shape);
void bench_model_close(BenchModel *m);
// FLOP a token of the forward pass over sequences of T tokens, with the head or without.
double forward_flop(ModelDims s, int64_t T, bool head);
