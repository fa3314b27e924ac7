// What runs on several ranks leave behind, and how two of them compare.
#pragma once
#include "clock.h"
#include "json.h"
#include "train_fixture.h"
#include <math.h>
#include <string.h>

static inline const char *program(void) { return getenv("GRPO") ? getenv("GRPO") : "build/grpo"; }

// Variables of the shell that runs the tests must not make its children ranks.
static const char *const launcher_names[] = {"RANK",
                                             "WORLD_SIZE",
                                             "LOCAL_RANK",
                                             "LOCAL_WORLD_SIZE",
                                             "MASTER_ADDR",
                                             "MASTER_PORT",
                                             "SLURM_PROCID",
                                             "SLURM_NTASKS",
                                             "SLURM_LOCALID",
                                             "SLURM_JOB_ID",
                                             "SLURM_STEP_ID",
                                             "SLURM_STEP_NODELIST",
                                             "SLURM_NODELIST",
                                             "SLURM_STEP_NUM_NODES",
                                             "OMPI_COMM_WORLD_RANK",
                                             "OMPI_COMM_WORLD_SIZE",
                                             "OMPI_COMM_WORLD_LOCAL_RANK",
                                             "OMPI_COMM_WORLD_LOCAL_SIZE",
                                             "SLURM_STEP_NUM_TASKS",
                                             "SLURM_STEP_TASKS_PER_NODE",
                                             "SLURM_NTASKS_PER_NODE",
                                             "PMI_RANK",
                                             "PMI_SIZE",
                                             "MPI_LOCALRANKID",
                                             "MPI_LOCALNRANKS",
                                             "TORCHELASTIC_USE_AGENT_STORE",
                                             "TORCHELASTIC_RUN_ID"};

static inline void clear_launchers(void) {
    for (size_t i = 0; i < sizeof launcher_names / sizeof *launcher_names; i++) unsetenv(launcher_names[i]);
}

static inline double since(double start) { return clock_seconds() - start; }

// A file of the fixture's output, whole. Heap.
static inline char *output(const Fixture *f, const char *name, size_t *n) {
    Error e = {0};
    char *path = xasprintf("%s/out/%s", f->dir, name), *text = file_read(path, (size_t)1 << 28, n, &e);
    if (!text) fail_msg("%s", e.text);
    free(path);
    return text;
}

static inline void assert_same_output(const Fixture *a, const Fixture *b, const char *name) {
    size_t n, m;
    char *x = output(a, name, &n), *y = output(b, name, &m);
    if (n != m || memcmp(x, y, n)) fail_msg("%s differs", name);
    free(x);
    free(y);
}

// ||a - b|| / ||b|| of two files of f32.
static inline double distance(const Fixture *a, const Fixture *b, const char *name) {
    size_t n, m;
    char *x = output(a, name, &n), *y = output(b, name, &m);
    double diff = 0, norm = 0;
    assert_int_equal(n, m);
    for (size_t i = 0; i + 4 <= n; i += 4) {
        float p, q;
        memcpy(&p, x + i, 4);
        memcpy(&q, y + i, 4);
        diff += ((double)p - q) * ((double)p - q);
        norm += (double)q * q;
    }
    free(x);
    free(y);
    return sqrt(diff / norm);
}

// The named numbers of a line of metrics.jsonl.
static inline json_t *metrics_line(const Fixture *f, int line) {
    size_t n;
    char *text = output(f, "metrics.jsonl", &n), *at = text;
    for (; line > 1; line--) at = strchr(at, '\n') + 1;
    *strchr(at, '\n') = 0;
    json_t *j = json_loads(at, 0, NULL);
    free(text);
    assert_non_null(j);
    return j;
}

static inline void assert_close(const char *name, const char *variant, double a, double b) {
    if (!(fabs(a - b) <= 1e-6 * fabs(b) + 1e-8)) fail_msg("%s: %s is %.9g and %.9g", variant, name, a, b);
}

static inline void assert_same_checkpoint(const Fixture *a, const Fixture *b, int step, bool master) {
    static const char *const files[] = {"model.safetensors", "state/moment1.bin", "state/moment2.bin"};
    for (int i = 0; i < 3; i++) {
        char name[64];
        snprintf(name, sizeof name, "step_%d/%s", step, files[i]);
        assert_same_output(a, b, name);
    }
    char name[64];
    snprintf(name, sizeof name, "step_%d/state/master.bin", step);
    if (master) assert_same_output(a, b, name);
}
