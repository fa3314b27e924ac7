// A checkpoint on a disk that tests may break: what is saved, and what is found again.
#pragma once
#include "checkpoint.h"
#include "faults.h"
#include "file.h"
#include "scratch.h"
#include <signal.h>

static const ModelDims dims = {.family = &qwen2_family,
                               .V = 9,
                               .D = 4,
                               .F = 6,
                               .L = 1,
                               .H = 2,
                               .K = 1,
                               .d = 2,
                               .max_positions = 8,
                               .rms_eps = 1e-6f,
                               .rope.theta = 10000,
                               .tied = true};
static const char config_json[] =
    "{\"model_type\":\"qwen2\",\"vocab_size\":9,\"hidden_size\":4,\"intermediate_size\":6,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"tie_word_embeddings\":true,\"torch_dtype\":\"float32\"}";

// All that one checkpoint holds, made from its step.
typedef struct {
    TrainState s;
    Model m;
    char moment[2][300];
} World;

static inline World world_make(int step) {
    World w = {.m = model_make(dims, F32, (uint64_t)step)};
    w.s = (TrainState){step,       step - 1,
                       2,          {{{{3, 1000000007ll * step}, 1ll << 50}, {{4, 5}, 6}}, 2},
                       5,          6,
                       7ll << 40,  4,
                       0.1 * step, 1.0 / 3 - step,
                       8,          9,
                       NULL,       0};
    if (step % 2 == 0) {
        w.s.batch_bytes = 5;
        w.s.batch = xstrndup("batch", 5);
    }
    for (int i = 0; i < 300; i++) w.moment[0][i] = (char)(step * i), w.moment[1][i] = (char)(step + i);
    return w;
}
static inline void world_drop(World *w) {
    model_drop(&w->m);
    free(w->s.batch);
}
static inline void blobs_of(World *w, StateBlob *b) {
    b[0] = (StateBlob){"moment1.bin", w->moment[0], sizeof w->moment[0]};
    b[1] = (StateBlob){"moment2.bin", w->moment[1], sizeof w->moment[1]};
}
static inline void assert_same_world(const World *a, const World *b) {
    assert_same_weights(&a->m, &b->m);
    assert_memory_equal(a->moment, b->moment, sizeof a->moment);
    assert_memory_equal(&a->s, &b->s, offsetof(TrainState, batch));
    assert_int_equal(a->s.batch_bytes, b->s.batch_bytes);
    assert_int_equal(!a->s.batch, !b->s.batch);
    if (a->s.batch) assert_memory_equal(a->s.batch, b->s.batch, a->s.batch_bytes);
}

static inline bool save_step(const char *out, int step, int keep, Error *e) {
    World w = world_make(step);
    StateBlob b[2];
    blobs_of(&w, b);
    bool ok = checkpoint_save(out, &w.s, NULL, &w.m, at("source"), "seed: 42\n", b, 2, keep, NULL, e);
    world_drop(&w);
    return ok;
}

// The checkpoint found in `out` is that of `step`, bit for bit; 0: there is none.
static inline void assert_found(const char *out, int step) {
    int64_t found = 0;
    Error e = {.code = EXIT_NUMERIC};
    char *path = checkpoint_find(out, &found, &e);
    if (!path && (step || e.code)) fail_aloud("nothing found: %s", e.code ? e.text : "");
    if (!path) return;
    assert_int_equal(found, step);
    World want = world_make(step), got = world_make(step + 17);
    free(got.s.batch);
    StateBlob b[2];
    blobs_of(&got, b);
    if (!checkpoint_load(path, &got.s, NULL, &got.m, b, 2, &e)) fail_aloud("%s", e.text);
    assert_same_world(&want, &got);
    world_drop(&want);
    world_drop(&got);
    free(path);
}

// What is in directory `out` but checkpoints with their proper names.
static inline int leftovers(const char *out) {
    DIR *d = opendir(out);
    int n = 0;
    for (struct dirent *entry; (entry = readdir(d));)
        n += entry->d_name[0] != '.' && (strchr(entry->d_name, '.') || strncmp(entry->d_name, "step_", 5));
    closedir(d);
    return n;
}

// Notes go to a file while a test damages things on purpose.
static int real_stderr = -1;
static inline void quiet(void) {
    fflush(stderr);
    real_stderr = dup(2);
    int fd = open(at("notes"), O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0600);
    dup2(fd, 2);
    close(fd);
}
static inline void loud(void) {
    fflush(stderr);
    dup2(real_stderr, 2);
    close(real_stderr);
}
static inline char *notes_take(void) {
    size_t n;
    fflush(stderr);
    char *text = file_read(at("notes"), 1 << 20, &n, NULL);
    if (truncate(at("notes"), 0)) fail();
    return text;
}

static inline int setup(void **state) {
    memset(&disk, 0, sizeof disk);
    if (scratch_setup(state)) return -1;
    mkdir(at("source"), 0777);
    put_text(at("source/config.json"), config_json);
    put_text(at("source/tokenizer.json"), "{}");
    quiet();
    return 0;
}
static inline int teardown(void **state) {
    memset(&disk, 0, sizeof disk);
    loud();
    return scratch_teardown(state);
}

// Notes do not go to the terminal, and faults of the disk end with the test.
#define WITH_DISK(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
