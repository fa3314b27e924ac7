// What the parts of the benchmark share: the device, the probe, timing, and one table whose rows stand beside a limit and a
// peer.
#pragma once
#include "ops.h"
#include <stdint.h>
#include <stdio.h>

// What this machine can do at best, measured in the same run.
typedef struct {
    double read; // GB/s: a streaming read by all threads; on a GPU a device-to-device copy, read + written
    double f32;  // GFLOP/s: multiply-adds on registers, all threads; on a GPU a large product
    double bf16; // the same of bf16: dot products, f32's where the CPU has none; on a GPU a product of 8192 cubed
    const char *bf16_unit; // which unit that is; NULL: none
    int threads;           // 0: a GPU
} Probe;

typedef struct {
    Device *device;
    bool gpu;
    Probe probe;
    const char *only;      // a part of a row's name: other rows are not measured; NULL: all
    int iterations;        // > 0: run everything just so often, for a profiler; nothing is measured
    int64_t tokens;        // of the contract's test; 0: the device's default
    const char *size;      // of models: "0.5b", "1.5b", "7b", or a list of them
    FILE *csv;             // rows go there too, or NULL
    const char *origin[4]; // the CSV's last columns: device, driver, toolkit, commit
    char date[16];
    bool peers;  // run those that are installed
    bool floors; // of the part `floor`: no device is there, rows are what they must take and are expected to
    bool failed; // a row fell below what it must reach
} Bench;

Probe probe_run(void);
// A GPU's; the zero Probe where only a fixed number of iterations is asked for.
Probe probe_device(const Bench *b);

// A monotonic clock, seconds.
// Seconds of one call of fn(arg, i): the median of many, after a call to warm up. i counts the calls, so that fn can
// rotate its inputs and the caches do not lie. The device has finished when the clock stops.
double bench_time(const Bench *b, void (*fn)(void *arg, int i), void *arg);
// The same of two, called in turn: a machine that others slow down for a while slows both. The second warms up for both.
void bench_time_both(const Bench *b, void (*fn)(void *arg, int i), void *const arg[2], double seconds[2]);
// The same where fn only asks for ops: on a GPU many calls are recorded as a graph, so that the time is the GPU's, not
// that of asking.
double bench_time_ops(const Bench *b, void (*fn)(void *arg, int i), void *arg);

// The most memory this process held since the last reset, GiB.
void peak_memory_reset(void);
double peak_memory(void);

// Heads the rows of a section.
void bench_section(const Bench *b, const char *title);
// Is a row of that name wanted?
bool bench_wants(const Bench *b, const char *name);
// One row: value (in `unit`), beside `limit` in the same unit (0: none) and the peer's value of that name. `must`: the
// share of the limit below which the benchmark fails (0: none).
void bench_row(Bench *b, const char *name, double value, const char *unit, double limit, double must);
// A row of time, where less is more: `limit` is the floor, in the same unit.
void bench_row_time(Bench *b, const char *name, double value, const char *unit, double limit);

// A row of what `bytes` to move and `flop` to compute take on the cards of the goals at least, and are expected to.
void bench_row_floor(const Bench *b, const char *name, double bytes, double flop, DType dtype);
// The share of its limit that a row is expected to reach on a GPU; NaN: nobody has said (predict.c).
double predicted_share(const char *name);

// Runs bench/peers/SCRIPT SECTION where python3 ($PYTHON) and its packages are there, else says SKIP. Its lines
// "name<TAB>value" fill the peer column of the rows that follow.
void peer_run(const Bench *b, const char *script, const char *section);
double peer_value(const char *name); // NaN where there is none

// The parts, in the order they are printed.
void bench_products(Bench *b);
void bench_ops(Bench *b);
void bench_train(Bench *b);
void bench_groups(Bench *b);
void bench_long(Bench *b);
void bench_rollout(Bench *b);
void bench_step(Bench *b);
void bench_contract(Bench *b);
void bench_host(Bench *b);
void bench_floor(Bench *b);
