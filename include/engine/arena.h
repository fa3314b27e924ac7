// Arena: one allocation, handed out from the front. Taking from an arena whose base is NULL measures:
// the same carving code runs once to find the size and once to take the memory.
#pragma once
#include "error.h"
#include "tensor.h"

#define ARENA_ALIGN 64 // bytes; one cache line, one AVX-512 register

typedef struct {
    char *base;  // NULL while measuring
    size_t cap;  // bytes; ignored while measuring
    size_t used; // bytes
    size_t peak; // the largest `used` seen, bytes
} Arena;

static inline Arena arena_over(void *base, size_t cap) {
    Arena a = {(char *)base, cap, 0, 0};
    return a;
}
static inline Arena arena_measure(void) { return arena_over(NULL, 0); }

// `bytes` of memory, aligned to ARENA_ALIGN; NULL while measuring. Running over `cap` is a bug in the plan: dies.
static inline void *arena_take(Arena *a, size_t bytes) {
    size_t start = (a->used + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    if (a->base && (start > a->cap || bytes > a->cap - start))
        die("arena: %zu bytes wanted, %zu of %zu used", bytes, a->used, a->cap);
    a->used = start + bytes;
    if (a->used > a->peak) a->peak = a->used;
    return a->base ? a->base + start : NULL;
}
// A tensor of the given dims. While measuring its data is NULL: carve first, compute later.
static inline Tensor arena_tensor(Arena *a, DType t, int ndim, const int64_t *dim) {
    Tensor x = {NULL, t, ndim, {1, 1, 1, 1}};
    for (int i = 0; i < ndim; i++) x.dim[i] = dim[i];
    x.data = arena_take(a, tensor_bytes(x));
    return x;
}
#define arena_new(a, dtype, ...)                                                                                       \
    arena_tensor(a, dtype, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]){__VA_ARGS__})

// A stack discipline for scratch: everything taken after the mark is given back by the rewind.
static inline size_t arena_mark(const Arena *a) { return a->used; }
static inline void arena_rewind(Arena *a, size_t mark) { a->used = mark; }
