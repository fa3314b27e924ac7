// The arena: a bump pointer that can also measure.
#include "arena.h"
#include "error.h"

void *arena_take(Arena *a, size_t bytes) {
    size_t start = (a->used + ARENA_ALIGN - 1) / ARENA_ALIGN * ARENA_ALIGN;
    if (a->base && (start > a->cap || bytes > a->cap - start))
        die("arena: %zu bytes wanted, %zu of %zu used", bytes, a->used, a->cap);
    a->used = start + bytes;
    if (a->used > a->peak) a->peak = a->used;
    return a->base ? a->base + start : NULL;
}

Tensor arena_tensor(Arena *a, DType t, int ndim, const int64_t *dim) {
    Tensor x = {NULL, t, ndim, {1, 1, 1, 1}};
    for (int i = 0; i < ndim; i++) x.dim[i] = dim[i];
    x.data = arena_take(a, tensor_bytes(x));
    return x;
}
