// A directory of its own for a test, small files, and a small model to write into them.
#pragma once
#include "data.h"
#include "file.h"
#include "learner.h"
#include "model_init.h"
#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <string.h>

static char scratch[64]; // while a test runs

static inline int scratch_setup(void **state) {
    // Thousands of tiny files: in memory where there is a place for it, to spare the disk.
    snprintf(scratch, sizeof scratch, "%s/grpo-test-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    return mkdtemp(scratch) ? 0 : -1;
}
static inline int scratch_teardown(void **state) { return disk_remove(scratch, NULL) ? 0 : -1; }

// scratch/name, valid until the fourth call after this one.
static inline const char *at(const char *fmt, ...) {
    static char ring[4][4096];
    static int next;
    char *path = ring[next++ % 4];
    int n = snprintf(path, sizeof *ring, "%s/", scratch);
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(path + n, sizeof *ring - (size_t)n, fmt, ap);
    va_end(ap);
    return path;
}

static inline void put_bytes(const char *path, const void *data, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}
static inline void put_text(const char *path, const char *text) { put_bytes(path, text, strlen(text)); }

static inline void file_copy_to(const char *from, const char *to) {
    size_t n;
    Error e = {0};
    char *bytes = file_read(from, 1 << 24, &n, &e);
    if (!bytes) fail_msg("%s", e.text);
    put_bytes(to, bytes, n);
    free(bytes);
}

static inline bool exists(const char *path) { return access(path, F_OK) == 0; }

// fail_msg for tests that have stderr elsewhere.
#define fail_aloud(...)                                                                                                \
    do {                                                                                                               \
        printf(__VA_ARGS__);                                                                                           \
        printf("\n");                                                                                                  \
        fail();                                                                                                        \
    } while (0)

// The error says each of these words.
static inline void assert_says(const Error *e, const char *const *words) {
    for (; *words; words++)
        if (!strstr(e->text, *words)) fail_aloud("\"%s\" is not in: %s", *words, e->text);
    assert_null(strchr(e->text, '\n'));
}
#define SAYS(e, ...) assert_says(e, (const char *const[]){__VA_ARGS__, NULL})

// A model in its own memory, drawn from a seed. Free with model_drop.
static inline Model model_make(ModelDims dims, DType dtype, uint64_t seed) {
    Arena a = arena_measure();
    Model m = model_carve(&a, dims, dtype);
    model_free(&m);
    size_t bytes = (a.peak + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    void *memory = aligned_alloc(ARENA_ALIGN, bytes);
    memset(memory, 0, bytes);
    a = arena_over(memory, bytes);
    m = model_carve(&a, dims, dtype);
    if (seed) model_init_random(NULL, &m, seed);
    return m;
}
static inline void model_drop(Model *m) {
    free(m->slab.data);
    model_free(m);
}
static inline void assert_same_weights(const Model *a, const Model *b) {
    assert_int_equal(tensor_bytes(a->slab), tensor_bytes(b->slab));
    assert_memory_equal(a->slab.data, b->slab.data, tensor_bytes(a->slab));
}
