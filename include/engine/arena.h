// Arena: one allocation that is handed out piece by piece, from the front. An arena whose base is NULL only measures,
// so that the same code can run once to find the size and once to take the memory.
#pragma once
#include "error.h"
#include "tensor.h"

#define ARENA_ALIGN 64 // bytes; one cache line, one AVX-512 register

typedef struct {
    char *base;  // NULL while measuring
    size_t cap;  // bytes; ignored while measuring
    size_t used; // bytes
    size_t peak; // the largest `used` so far, bytes
} Arena;

static inline Arena arena_over(void *base, size_t cap) {
    Arena a = {(char *)base, cap, 0, 0};
    return a;
}
static inline Arena arena_measure(void) { return arena_over(NULL, 0); }

// Takes `bytes` of memory, aligned to ARENA_ALIGN; NULL while measuring. Ends the program where they exceed `cap`: a
// bug.
static inline void *arena_take(Arena *a, size_t bytes) {
    size_t start = (a->used + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    if (a->base && (start > a->cap || bytes > a->cap - start))
        die("arena: %zu bytes wanted, %zu of %zu used", bytes, a->used, a->cap);
    a->used = start + bytes;
    if (a->used > a->peak) a->peak = a->used;
    return a->base ? a->base + start : NULL;
}
// Takes the memory of a tensor of the given dims; its data is NULL while measuring.
static inline Tensor arena_tensor(Arena *a, DType t, int ndim, const int64_t *dim) {
    Tensor x = {NULL, t, ndim, {1, 1, 1, 1}};
    for (int i = 0; i < ndim; i++) x.dim[i] = dim[i];
    x.data = arena_take(a, tensor_bytes(x));
    return x;
}
#define arena_new(a, dtype, ...)                                                                                       \
    arena_tensor(a, dtype, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})

// arena_rewind gives back everything taken since arena_mark: the way to use scratch.
static inline size_t arena_mark(const Arena *a) { return a->used; }
static inline void arena_rewind(Arena *a, size_t mark) { a->used = mark; }
