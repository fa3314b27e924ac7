// What the parts of the benchmark share: the probe, timing, and one table whose rows stand beside a limit and a peer.
#pragma once
#include "error.h"
#include <stdint.h>
#include <stdio.h>

// What this machine can do at best, measured in the same run.
typedef struct {
    double read; // GB/s of a streaming read by all threads
    double f32;  // GFLOP/s of multiply-adds on registers, all threads
    double bf16; // the same of bf16 dot products; f32's where the CPU has none
    int threads;
} Probe;

typedef struct {
    Probe probe;
    const char *only; // a part of a row's name: other rows are not measured; NULL: all
    FILE *csv;        // rows go there too, or NULL
    bool peers;       // run those that are installed
    bool failed;      // a row fell below what it must reach
} Bench;

Probe probe_run(void);

// A monotonic clock, seconds.
double clock_seconds(void);
// Seconds of one call of fn(arg, i): the median of many, after a call to warm up. i counts the calls, so that fn can
// rotate its inputs and the caches do not lie.
double bench_time(void (*fn)(void *arg, int i), void *arg);

// The most memory this process held since the last reset, GiB.
void peak_memory_reset(void);
double peak_memory(void);

// Heads the rows of a section.
void bench_section(const char *title);
// Is a row of that name wanted?
bool bench_wants(const Bench *b, const char *name);
// One row: value (in `unit`), beside `limit` in the same unit (0: none) and the peer's value of that name. `must`: the
// share of the limit below which the benchmark fails (0: none).
void bench_row(Bench *b, const char *name, double value, const char *unit, double limit, double must);

// Runs bench/peers/SCRIPT SECTION where python3 ($PYTHON) and its packages are there, else says SKIP. Its lines
// "name<TAB>value" fill the peer column of the rows that follow.
void peer_run(const Bench *b, const char *script, const char *section);
double peer_value(const char *name); // NaN where there is none

// The parts, in the order they are printed.
void bench_products(Bench *b);
void bench_ops(Bench *b);
void bench_train(Bench *b);
void bench_rollout(Bench *b);
void bench_host(Bench *b);
