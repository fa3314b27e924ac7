// Shared by the parts of the benchmark: the device, the probe, timing, and the table, whose rows show a limit and a
// peer's figure beside the measured one.
#pragma once
#include "ops.h"
#include <stdint.h>
#include <stdio.h>

// The probe: the best that this machine can do, measured in the same run.
typedef struct {
    double read; // GB/s: a streaming read by all threads; on a GPU a device-to-device copy, read + written
    double f32;  // GFLOP/s: multiply-adds on registers, all threads; on a GPU a large product
    double bf16; // the same of bf16: dot products, f32's where those are faster; on a GPU a product of 8192 cubed
    const char *bf16_unit; // the CPU's unit for them; NULL: none is faster than f32's
    int threads;           // 0: a GPU
} Probe;

typedef struct {
    Device *device;
    bool gpu;
    Probe probe;
    const char *only;      // a part of a row's name: other rows are not measured; NULL: all
    int iterations;        // > 0: run everything just so often, for a profiler; nothing is measured
    int64_t tokens;        // tokens of the contract's test; 0: the device's default
    const char *size;      // sizes of models: "0.5b", "1.5b", "7b", or a list of them
    FILE *csv;             // gets the rows, too; or NULL
    const char *origin[4]; // the CSV's last columns: device, driver, toolkit, commit
    char date[16];
    bool peers;  // run the peers that are installed
    bool floors; // part `floor`: without a device; prints each row's least and expected time
    bool failed; // a row fell below what it must reach
} Bench;

Probe probe_run(void);
// A GPU's; the zero Probe where only a fixed number of iterations is asked for.
Probe probe_device(const Bench *b);

// Seconds of one call of fn(arg, i): the median of many, after a call to warm up. i counts
// the calls, so that fn can rotate its inputs instead of finding them in the caches. The clock stops when the device
// has finished.
double bench_time(const Bench *b, void (*fn)(void *arg, int i), void *arg);
// Times two functions that are called in turn, so that what slows the machine for a while slows both. The second warms
// up for both.
void bench_time_both(const Bench *b, void (*fn)(void *arg, int i), void *const arg[2], double seconds[2]);
// Seconds of one call of an fn that only launches ops: on a GPU many calls are recorded as one graph, so that the time
// of launching does not count.
double bench_time_ops(const Bench *b, void (*fn)(void *arg, int i), void *arg);

// The most memory this process held since the last reset, GiB.
void peak_memory_reset(void);
double peak_memory(void);

// Heads the rows of a section.
void bench_section(const Bench *b, const char *title);
// Whether a row of that name is to be measured.
bool bench_wants(const Bench *b, const char *name);
bool bench_wanted_any(void); // whether any row was, so far
// One row: value (in `unit`), beside `limit` in the same unit (0: none) and the peer's value of that name. `must`: the
// share of the limit below which the benchmark fails (0: none).
void bench_row(Bench *b, const char *name, double value, const char *unit, double limit, double must);
// A row of time, where less is more: `limit` is the floor, in the same unit.
void bench_row_time(Bench *b, const char *name, double value, const char *unit, double limit);

// The probe's figures, as rows.
void bench_print_probe(Bench *b, const Probe *p);

// A row of the least and of the expected time to move `bytes` and compute `flop` on an H200 and an H100.
void bench_row_floor(const Bench *b, const char *name, double bytes, double flop, DType dtype);
// The share of its limit that a row is expected to reach on a GPU (predict.c); NaN: the table does not say.
double predicted_share(const char *name);

// Runs bench/peers/SCRIPT SECTION where python3 ($PYTHON) and its packages are there, else says SKIP. Its lines
// "name<TAB>value" fill the peer column of the rows that follow; lines "NOTE text" are printed. Where several peers
// print one name, the larger value counts: such a row must be a rate, not a time.
void peer_run(const Bench *b, const char *script, const char *section);
double peer_value(const char *name); // NaN where there is none
void peers_free(void);

// The parts, in the order they are printed.
void bench_products(Bench *b);
void bench_ops(Bench *b);
void bench_train(Bench *b);
void bench_groups(Bench *b);
void bench_long(Bench *b);
void bench_rollout(Bench *b);
void bench_select(Bench *b);
void bench_step(Bench *b);
void bench_contract(Bench *b);
void bench_host(Bench *b);
void bench_floor(Bench *b);
