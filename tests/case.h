// A case: one op at one shape and dtype on one device, with inputs made from a seed. cases.h lists them; correctness,
// gradients, determinism and speed all run from that list.
//
// An op describes itself by a CaseOp: `make` declares its arguments by name, `run` calls d->op with them, `oracle`
// writes what the outputs must be, in f64 and as plainly as possible. A backward op gives `objective` instead: the sum
// of cotangent x forward output in f64, whose finite differences its gradients are held against.
#pragma once
#include "ops.h"
#include "random.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdint.h>
#include <string.h>

typedef enum {
    ARG_IN,    // read
    ARG_OUT,   // set
    ARG_ADD,   // added to
    ARG_INOUT, // changed in place
    ARG_SPENT, // read, and afterwards not defined
    ARG_AUX,   // not the op's: what `objective` differentiates by where the op itself does not need it
} Role;

typedef struct {
    const char *name;
    Tensor t; // on the device
    Role role;
    bool per_row;         // its first dim counts the rows of the op: a row of outputs needs only that row of inputs
    const char *gradient; // the argument that is the objective's gradient by this one, or NULL
    size_t align;         // bytes that divide its address; 0: those of an element
    bool raw;             // I64 whose bits its values keep: they are f64 numbers, or whole ones beyond 2^53
    double traffic;       // bytes of it the op must move
    double *before;       // [numel] values before the run, in f64
    double *want;         // [numel] what the oracle asks for, or NULL
} Arg;

// Whether the op sets it.
static inline bool arg_is_set(const Arg *a) { return a->role == ARG_OUT || a->role == ARG_ADD || a->role == ARG_INOUT; }

// Dimensions as in tensor.h; what an op does not use stays 0.
typedef struct {
    int64_t T, D, F, V, H, K, d;
    const int *len; // sequence lengths, ended by -1; their sum is T
    bool opt;       // optional arguments are given
} CaseShape;

typedef struct Case Case;
typedef struct {
    const char *name;
    void (*make)(Case *c);
    void (*run)(Case *c);
    void (*oracle)(Case *c);            // NULL where objective is given
    double (*objective)(const Case *c); // NULL where oracle is given
    double (*flops)(const Case *c);     // NULL: memory-bound, not counted
    bool exact;                         // outputs equal the oracle's once rounded
    bool grads;                         // has arguments of the gradient dtype, which may differ from the others
    bool one_type;                      // the dtype changes none of its arguments
    bool by_library;                    // on a GPU cuBLASLt multiplies: bits may follow shape and alignment (cuda.cuh)
} CaseOp;
// op_rmsnorm, from rmsnorm_make and rmsnorm_run and what else it is given
#define CASE_OP(op, ...) static const CaseOp op_##op = {.name = #op, .make = op##_make, .run = op##_run, __VA_ARGS__}

// Whether the op has cases of its own for these types.
static inline bool case_differs(const CaseOp *op, DType dtype, DType grad) {
    return (!op->one_type || dtype == F32) && (op->grads || grad == F32);
}

enum { CASE_ARGS = 16 };
struct Case {
    const CaseOp *op;
    CaseShape s;
    DType dtype, grad; // of activations and weights; of parameter gradients
    Device *d;         // NULL: only shapes are declared, no memory is there
    uint64_t random;
    bool repeat; // large tensors repeat a block of random numbers: for a benchmark, which cares for their kind alone
    int n_args;
    Arg arg[CASE_ARGS];
};

// The case's next random bits.
static inline uint64_t case_random(Case *c) { return random_mix(c->random += RANDOM_STEP); }
static inline double case_uniform(Case *c) { return (double)(case_random(c) >> 11) * 0x1p-53; }
static inline double case_normal(Case *c) {
    double u = 1 - case_uniform(c), v = case_uniform(c);
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * v);
}
static inline int64_t case_below(Case *c, int64_t n) { return (int64_t)(case_random(c) % (uint64_t)n); }

// What x becomes when it is stored.
static inline double stored(DType t, double x) {
    if (t == BF16) return (double)bf16_to_f32(f32_to_bf16((float)x));
    return t == F32 ? (double)(float)x : x;
}

static inline Arg *case_find(const Case *c, const char *name) {
    for (int i = 0; i < c->n_args; i++)
        if (!strcmp(c->arg[i].name, name)) return (Arg *)&c->arg[i];
    return NULL;
}
// The tensor of that name; NONE where the case leaves it out.
static inline Tensor arg(const Case *c, const char *name) {
    Arg *a = case_find(c, name);
    return a ? a->t : NONE;
}
static inline double *before(const Case *c, const char *name) {
    Arg *a = case_find(c, name);
    return a ? a->before : NULL;
}
// Where the oracle writes; starts as the values before the run.
static inline double *want(Case *c, const char *name) {
    Arg *a = case_find(c, name);
    if (!a) return NULL;
    size_t bytes = (size_t)tensor_numel(a->t) * sizeof(double);
    if (!a->want) a->want = memcpy(xmalloc(bytes + 1), a->before, bytes);
    return a->want;
}

// Element i as f64.
static inline double host_get(Tensor x, int64_t i) {
    switch (x.dtype) {
    case U8: return ((uint8_t *)x.data)[i];
    case I32: return i32(x)[i];
    case I64: return (double)i64(x)[i];
    default: return (double)tensor_get(x, i);
    }
}
static inline double *tensor_values(Device *d, Tensor x) {
    int64_t n = tensor_numel(x);
    Tensor host = x;
    host.data = xmalloc(tensor_bytes(x) + 1);
    d->copy(d, host.data, x.data, tensor_bytes(x));
    d->sync(d);
    double *v = xmalloc((size_t)n * sizeof *v + 1);
    for (int64_t i = 0; i < n; i++) v[i] = host_get(host, i);
    free(host.data);
    return v;
}

// The values of an argument as it is on the device; the caller frees them.
static inline double *arg_values(Device *d, const Arg *a) {
    double *v = tensor_values(d, a->t);
    if (a->raw) d->copy(d, v, a->t.data, tensor_bytes(a->t));
    return v;
}

// Declares an argument with the given contents (host memory, of the tensor's dtype).
static inline Arg *case_arg(Case *c, const char *name, Role role, Tensor host) {
    if (c->n_args == CASE_ARGS) die("tests: case %s has too many arguments", c->op->name);
    Arg *a = &c->arg[c->n_args++];
    *a = (Arg){.name = name, .t = host, .role = role};
    if (c->d) {
        a->t.data = c->d->alloc(c->d, tensor_bytes(host) + 1);
        if (!a->t.data) die("tests: no memory for %s of %s", name, c->op->name);
        c->d->copy(c->d, a->t.data, host.data, tensor_bytes(host));
        c->d->sync(c->d);
    }
    a->traffic = (double)tensor_bytes(host) * (role == ARG_AUX ? 0 : role == ARG_ADD || role == ARG_INOUT ? 2 : 1);
    return a;
}
// A [a, b, e] tensor of normal numbers with the given mean and deviation; b and e may be 0: fewer dims.
static inline Arg *case_floats(Case *c, const char *name, Role role, DType t, int64_t n0, int64_t n1, int64_t n2,
                               double mean, double deviation) {
    static char nowhere;
    Tensor x = tensor(&nowhere, t, n2 ? 3 : n1 ? 2 : 1, n0, n1 ? n1 : 1, n2 ? n2 : 1, 1);
    if (!c->d) return case_arg(c, name, role, x);
    x.data = xcalloc(1, tensor_bytes(x) + 1);
    int64_t n = tensor_numel(x), block = c->repeat && n > 1 << 18 ? 1 << 18 : n;
    for (int64_t i = 0; i < block; i++) tensor_set(x, i, (float)(mean + deviation * case_normal(c)));
    for (int64_t i = block; i < n; i += block)
        memcpy((char *)x.data + (size_t)i * dtype_size(t), x.data,
               (size_t)(n - i < block ? n - i : block) * dtype_size(t));
    Arg *a = case_arg(c, name, role, x);
    free(x.data);
    return a;
}
static inline Arg *case_rows(Arg *a) {
    a->per_row = true;
    return a;
}
static inline Arg *case_gradient(Arg *a, const char *gradient) {
    a->gradient = gradient;
    return a;
}
static inline Arg *case_ints(Case *c, const char *name, Tensor host) { return case_arg(c, name, ARG_IN, host); }

// Makes the inputs of a benchmark's case.
static inline Case case_open_fast(Device *d, const CaseOp *op, CaseShape s, DType dtype, DType grad) {
    Case c = {.op = op, .s = s, .dtype = dtype, .grad = grad, .d = d, .random = 20240229, .repeat = true};
    op->make(&c);
    return c;
}
// Only declares the arguments: what the op must move and compute.
static inline Case case_open_shapes(const CaseOp *op, CaseShape s, DType dtype, DType grad) {
    Case c = {.op = op, .s = s, .dtype = dtype, .grad = grad, .random = 20240229};
    op->make(&c);
    return c;
}
// Makes the inputs. `values`: also their f64 copies, for the oracle (a benchmark does without).
static inline Case case_open(Device *d, const CaseOp *op, CaseShape s, DType dtype, DType grad, bool values) {
    Case c = {.op = op, .s = s, .dtype = dtype, .grad = grad, .d = d, .random = 20240229};
    op->make(&c);
    for (int i = 0; values && i < c.n_args; i++) c.arg[i].before = arg_values(d, &c.arg[i]);
    return c;
}
static inline void case_close(Case *c) {
    for (int i = 0; i < c->n_args; i++) {
        if (c->d) c->d->free(c->d, c->arg[i].t.data, tensor_bytes(c->arg[i].t) + 1);
        free(c->arg[i].before);
        free(c->arg[i].want);
    }
    c->n_args = 0;
}
static inline double case_bytes(const Case *c) {
    double sum = 0;
    for (int i = 0; i < c->n_args; i++) sum += c->arg[i].traffic;
    return sum;
}
// "rmsnorm T=3 D=65 bf16/f32 opt"
static inline const char *case_name(const Case *c, char *text, size_t size) {
    const struct {
        const char *name;
        int64_t n;
    } dim[] = {{"T", c->s.T}, {"D", c->s.D}, {"F", c->s.F}, {"V", c->s.V}, {"H", c->s.H}, {"K", c->s.K}, {"d", c->s.d}};
    int n = snprintf(text, size, "%s", c->op->name);
    for (size_t i = 0; i < sizeof dim / sizeof *dim; i++)
        if (dim[i].n) n += snprintf(text + n, size - (size_t)n, " %s=%lld", dim[i].name, (long long)dim[i].n);
    snprintf(text + n, size - (size_t)n, " %s/%s%s", dtype_name(c->dtype), dtype_name(c->grad), c->s.opt ? " opt" : "");
    return text;
}

// ||got - want|| / ||want||; absolute where `want` is 0.
static inline double relative_error(const double *got, const double *wanted, int64_t n) {
    double num = 0, den = 0;
    for (int64_t i = 0; i < n; i++) {
        double e = got[i] - wanted[i];
        num += e * e;
        den += wanted[i] * wanted[i];
    }
    return sqrt(den > 0 ? num / den : num);
}

// After run and oracle: the error of one output. An exact op's wanted value is rounded as the output is.
static inline double arg_error(const Case *c, const Arg *a) {
    int64_t n = tensor_numel(a->t);
    double *got = arg_values(c->d, a), *wanted = xmalloc((size_t)n * sizeof *wanted + 1);
    for (int64_t i = 0; i < n; i++) wanted[i] = c->op->exact ? stored(a->t.dtype, a->want[i]) : a->want[i];
    double e = relative_error(got, wanted, n);
    free(wanted);
    free(got);
    return e;
}

// After run: the error of the gradient by argument x, from central differences of the objective. Where x has few
// elements every one is moved on its own; else x is moved along random directions u, and since u is normal the mean of
// (fd - <gradient, u>)^2 is the squared norm of the gradient's error, so this too is a relative L2 error.
static inline double gradient_error(Case *c, Arg *x) {
    enum { FEW = 128, DIRECTIONS = 12 };
    Arg *g = case_find(c, x->gradient);
    int64_t n = tensor_numel(x->t);
    double *after = tensor_values(c->d, g->t), *u = xmalloc((size_t)n * sizeof *u + 1), *home = x->before;
    double *moved = xmalloc((size_t)n * sizeof *u + 1), num = 0, den = 0;
    int64_t directions = n <= FEW ? n : DIRECTIONS;
    for (int64_t k = 0; k < directions; k++) {
        double dot = 0, h = 1e-5, side[2];
        for (int64_t i = 0; i < n; i++) u[i] = n <= FEW ? (double)(i == k) : case_normal(c);
        for (int64_t i = 0; i < n; i++) dot += u[i] * (after[i] - (g->role == ARG_ADD ? g->before[i] : 0));
        for (int s = 0; s < 2; s++) {
            for (int64_t i = 0; i < n; i++) moved[i] = home[i] + (s ? h : -h) * u[i];
            x->before = moved;
            side[s] = c->op->objective(c);
        }
        double fd = (side[1] - side[0]) / (2 * h);
        num += (fd - dot) * (fd - dot);
        den += fd * fd;
    }
    x->before = home;
    free(after);
    free(u);
    free(moved);
    return sqrt(den > 0 ? num / den : num);
}
