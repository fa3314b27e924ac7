// Tensor: a pointer, a type and a shape. Contiguous, row-major, owns nothing; pass it by value.
//
// Shape letters, used beside every pointer in this project:
//   B sequences      T packed tokens   N selected tokens   R rows of the KV cache
//   H query heads    K kv heads        d head size         D hidden (H * d)
//   F intermediate   V vocabulary      L layers            G completions a group
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define HEAD_MAX 256 // the largest head size d that attention and RoPE support; even

typedef enum { F32, BF16, F16, I32, I64, U8, U16, DTYPE_COUNT } DType; // F16 exists in files only

typedef struct {
    void *data;
    DType dtype;
    int ndim;
    int64_t dim[4];
} Tensor;

static inline size_t dtype_size(DType t) {
    static const size_t size[DTYPE_COUNT] = {4, 2, 2, 4, 8, 1, 2};
    return size[t];
}
static inline const char *dtype_name(DType t) {
    static const char *const name[DTYPE_COUNT] = {"f32", "bf16", "f16", "i32", "i64", "u8", "u16"};
    return name[t];
}

static inline Tensor tensor(void *data, DType t, int ndim, int64_t a, int64_t b, int64_t c, int64_t e) {
    Tensor x = {data, t, ndim, {a, b, c, e}};
    for (int i = ndim; i < 4; i++) x.dim[i] = 1;
    return x;
}
static inline Tensor tensor1(void *p, DType t, int64_t a) { return tensor(p, t, 1, a, 1, 1, 1); }
static inline Tensor tensor2(void *p, DType t, int64_t a, int64_t b) { return tensor(p, t, 2, a, b, 1, 1); }
static inline Tensor tensor3(void *p, DType t, int64_t a, int64_t b, int64_t c) { return tensor(p, t, 3, a, b, c, 1); }

// NONE is an absent optional argument; present says whether one is there.
#define NONE tensor(NULL, F32, 0, 0, 0, 0, 0)
static inline bool present(Tensor x) { return x.data != NULL; }

static inline int64_t tensor_numel(Tensor x) { return x.dim[0] * x.dim[1] * x.dim[2] * x.dim[3]; }
static inline size_t tensor_bytes(Tensor x) { return (size_t)tensor_numel(x) * dtype_size(x.dtype); }
// Elements of one row: everything but the first dim.
static inline int64_t tensor_width(Tensor x) { return x.dim[1] * x.dim[2] * x.dim[3]; }
// Rows [first, first + n) as a view.
static inline Tensor tensor_rows(Tensor x, int64_t first, int64_t n) {
    if (x.data) x.data = (char *)x.data + (size_t)(first * tensor_width(x)) * dtype_size(x.dtype);
    x.dim[0] = n;
    return x;
}

static inline float *f32(Tensor x) { return (float *)x.data; }
static inline uint16_t *bf16(Tensor x) { return (uint16_t *)x.data; }
static inline int32_t *i32(Tensor x) { return (int32_t *)x.data; }
static inline int64_t *i64(Tensor x) { return (int64_t *)x.data; }

// bf16 is the upper half of an f32. f32_to_bf16 rounds to nearest, ties to even, and keeps NaN a NaN.
static inline float bf16_to_f32(uint16_t h) {
    uint32_t u = (uint32_t)h << 16;
    float f;
    memcpy(&f, &u, 4);
    return f;
}
static inline uint16_t f32_to_bf16(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    if ((u & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((u >> 16) | 0x40);
    return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}
// Element i of an f32 or bf16 tensor, for code where speed does not matter.
static inline float tensor_get(Tensor x, int64_t i) { return x.dtype == F32 ? f32(x)[i] : bf16_to_f32(bf16(x)[i]); }
static inline void tensor_set(Tensor x, int64_t i, float v) {
    if (x.dtype == F32) f32(x)[i] = v;
    else bf16(x)[i] = f32_to_bf16(v);
}
