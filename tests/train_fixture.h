// A trainer on the tiny model with random weights, over a small file of sums, in a directory of its own.
#pragma once
#include "file.h"
#include "train.h"
#include <assert.h>
#include <ftw.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

// cmocka wants these before it
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

typedef struct {
    char dir[64];
    Config cfg;
    Trainer t;
} Fixture;

static inline int remove_entry(const char *path, const struct stat *st, int flag, struct FTW *ftw) {
    return remove(path);
}

static inline void fixture_dir(Fixture *f) {
    snprintf(f->dir, sizeof f->dir, "%s/grpo-test-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(f->dir));
    char *path = xasprintf("%s/train.jsonl", f->dir);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    for (int i = 0; i < 40; i++)
        fprintf(out,
                "{\"question\": \"Tom has %d pens and gets %d more. How many now?\", \"answer\": \"It is %d.\\n#### "
                "%d\"}\n",
                i % 7, i % 5, i % 7 + i % 5, i % 7 + i % 5);
    fclose(out);
    free(path);
}

static inline void fixture_remove(Fixture *f) { nftw(f->dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS); }

// Reads a configuration: the fixture's defaults, then `more` ("a=1 b=2").
static inline void fixture_config(Fixture *f, const char *more) {
    const char *on = getenv("GRPO_TEST_DEVICE");
    char *all =
        xasprintf("device=%s model=models/tiny init=random dtype=f32 chat_template=r1-zero train_file=%s/train.jsonl "
                  "output_dir=%s/out max_prompt_length=96 max_completion_length=12 num_generations=4 "
                  "per_device_train_batch_size=4 gradient_accumulation_steps=2 learning_rate=1e-3 beta=0.04 "
                  "temperature=1 max_steps=6 save_steps=0 progress=off seed=7 rewards=completion_length,xmlcount %s",
                  on ? on : "cpu", f->dir, f->dir, more);
    char *arg[64];
    int n = 0;
    for (char *word = strtok(all, " "); word; word = strtok(NULL, " ")) arg[n++] = word;
    Error e = {0};
    if (!config_read(&f->cfg, NULL, arg, n, &e)) fail_msg("config: %s", e.text);
    free(all);
}

static inline void fixture_open(Fixture *f, const char *more) {
    Error e = {0};
    fixture_config(f, more);
    if (!trainer_open(&f->t, &f->cfg, &e)) fail_msg("trainer_open: %s", e.text);
}

static inline void fixture_close(Fixture *f) {
    trainer_close(&f->t);
    config_free(&f->cfg);
}

static inline StepResult fixture_step(Fixture *f) {
    Error e = {0};
    StepResult s = grpo_step(&f->t, &e);
    if (s == STEP_FAILED) fail_msg("step: %s", e.text);
    return s;
}

// The bytes of a tensor of the device, copied (heap), or put back; and the assertion that they are still those.
static inline void *bytes_of(Device *d, Tensor x) {
    void *p = xmalloc(tensor_bytes(x));
    d->copy(d, p, x.data, tensor_bytes(x));
    return p;
}
static inline void put_bytes(Device *d, Tensor x, const void *bytes) { d->copy(d, x.data, bytes, tensor_bytes(x)); }
static inline void assert_bytes(Device *d, Tensor x, const void *bytes) {
    void *now = bytes_of(d, x);
    assert_memory_equal(now, bytes, tensor_bytes(x));
    free(now);
}

// The bytes of a file of the run's output, as a string (heap).
static inline char *output_text(const Fixture *f, const char *name) {
    char *path = xasprintf("%s/out/%s", f->dir, name);
    Error e = {0};
    size_t n;
    char *text = file_read(path, 1 << 24, &n, &e);
    if (!text) fail_msg("%s", e.text);
    free(path);
    return text;
}

// metrics.jsonl without what a clock or the system said.
static inline char *metrics_text(const Fixture *f) {
    char *text = output_text(f, "metrics.jsonl");
    Str out = {0};
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *j = json_loads(line, 0, NULL);
        assert_non_null(j);
        const char *const clocks[] = {"step_time",  "time/rollout",   "time/reward",        "time/reference",
                                      "time/train", "time/optimizer", "memory/process_gib", "memory/device_gib"};
        for (size_t i = 0; i < sizeof clocks / sizeof *clocks; i++) json_object_del(j, clocks[i]);
        char *kept = json_dumps(j, 0);
        str_printf(&out, "%s\n", kept);
        free(kept);
        json_decref(j);
    }
    free(text);
    return out.s;
}

// The last line of metrics.jsonl.
static inline json_t *last_line(const Fixture *f) {
    char *path = xasprintf("%s/out/metrics.jsonl", f->dir);
    size_t n;
    Error e = {0};
    char *all = file_read(path, 1 << 20, &n, &e);
    assert_non_null(all);
    while (n && all[n - 1] == '\n') all[--n] = 0;
    char *line = strrchr(all, '\n');
    json_t *j = json_loads(line ? line + 1 : all, 0, NULL);
    assert_non_null(j);
    free(all), free(path);
    return j;
}

static inline void assert_told(const json_t *line, const char *name, double want) {
    const json_t *v = json_object_get(line, name);
    if (!json_is_number(v) || !(fabs(json_number_value(v) - want) <= 1e-6 * (1 + fabs(want))))
        fail_msg("%s is %.9g, not %.9g", name, v ? json_number_value(v) : NAN, want);
}
