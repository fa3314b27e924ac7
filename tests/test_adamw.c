// AdamW against torch.optim.AdamW (tests/golden/adamw.json, written by tools/golden.py), and the stochastic rounding of
// bf16 state: unbiased, a function of (seed, step, element) alone, never moving a value that bf16 holds exactly.
#include "../kernels/cpu/philox.h"
#include "case.h"
#include "on_device.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <jansson.h>

static Tensor vector(DType t, int64_t n) { return tensor1(xcalloc((size_t)n, dtype_size(t)), t, n); }

static void numbers(const json_t *list, Tensor out) {
    assert_int_equal(json_array_size(list), tensor_numel(out));
    for (int64_t i = 0; i < tensor_numel(out); i++)
        tensor_set(out, i, (float)json_number_value(json_array_get(list, (size_t)i)));
}
static double number(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }

static void assert_close(Tensor got, const json_t *list, double limit, const char *what) {
    double *a = xmalloc((size_t)tensor_numel(got) * sizeof *a), *b = xmalloc((size_t)tensor_numel(got) * sizeof *b);
    for (int64_t i = 0; i < tensor_numel(got); i++) {
        a[i] = (double)tensor_get(got, i);
        b[i] = json_number_value(json_array_get(list, (size_t)i));
    }
    double e = relative_error(a, b, tensor_numel(got));
    if (!(e <= limit)) fail_msg("%s: error %g above %g", what, e, limit);
    free(a);
    free(b);
}

// Weights and their state in host memory.
typedef struct {
    Tensor w, master, m, v, dw;
} State;
static void state_free(State *s) {
    Tensor all[] = {s->w, s->master, s->m, s->v, s->dw};
    for (int i = 0; i < 5; i++) free(all[i].data);
}
static Tensor slice(Tensor x, int64_t first, int64_t n) { return present(x) ? tensor_rows(x, first, n) : NONE; }

// A step of elements [first, first + n) on the device under test: all travels there and back.
static void step(Device *d, State *s, int64_t first, int64_t n, AdamParams p) {
    Tensor *home[] = {&s->w, &s->master, &s->m, &s->v, &s->dw}, there[5], part[5];
    for (int i = 0; i < 5; i++) {
        there[i] = to_device(d, *home[i]);
        part[i] = slice(there[i], first, n);
    }
    d->adamw(d, part[0], part[1], part[2], part[3], part[4], p);
    for (int i = 0; i < 5; i++) {
        if (present(there[i])) device_fetch(d, home[i]->data, there[i]);
        device_drop(d, there[i]);
    }
}

// With a master (w is bf16) and without (w is f32), gradients given at a quarter and scaled back.
static void matches_torch(void **state) {
    Device *d = *state;
    json_error_t error;
    json_t *golden = json_load_file("tests/golden/adamw.json", 0, &error), *run;
    if (!golden) fail_msg("tests/golden/adamw.json: %s", error.text);
    size_t i, k;
    json_array_foreach(json_object_get(golden, "runs"), i, run) {
        int64_t n = (int64_t)json_array_size(json_object_get(run, "start"));
        State plain = {vector(F32, n), NONE, vector(F32, n), vector(F32, n), vector(F32, n)};
        State mastered = {vector(BF16, n), vector(F32, n), vector(F32, n), vector(F32, n), vector(F32, n)};
        numbers(json_object_get(run, "start"), plain.w);
        numbers(json_object_get(run, "start"), mastered.master);
        AdamParams p = {.lr = number(run, "lr"),
                        .beta1 = number(run, "beta1"),
                        .beta2 = number(run, "beta2"),
                        .eps = number(run, "eps"),
                        .weight_decay = number(run, "weight_decay"),
                        .grad_scale = 4};
        json_t *grad, *weights = json_object_get(run, "weights");
        json_array_foreach(json_object_get(run, "grads"), k, grad) {
            numbers(grad, plain.dw);
            for (int64_t j = 0; j < n; j++) f32(plain.dw)[j] *= 0.25f;
            memcpy(mastered.dw.data, plain.dw.data, tensor_bytes(plain.dw));
            p.step = (int64_t)k + 1;
            step(d, &plain, 0, n, p);
            step(d, &mastered, 0, n, p);
            assert_close(plain.w, json_array_get(weights, k), 2e-7, "w");
            assert_memory_equal(plain.w.data, mastered.master.data, tensor_bytes(plain.w));
            for (int64_t j = 0; j < n; j++) assert_int_equal(bf16(mastered.w)[j], f32_to_bf16(f32(plain.w)[j]));
        }
        assert_close(plain.m, json_object_get(run, "m"), 1e-6, "m");
        assert_close(plain.v, json_object_get(run, "v"), 2e-6, "v");
        state_free(&plain), state_free(&mastered);
    }
    json_decref(golden);
}

// w, and the split master that stands for the f32 `bits`, as adamw.h says.
static void split(State *s, int64_t i, uint32_t bits) {
    float p;
    memcpy(&p, &bits, 4);
    bf16(s->w)[i] = f32_to_bf16(p);
    ((uint16_t *)s->master.data)[i] = (uint16_t)bits;
    f32(s->v)[i] = copysignf(f32(s->v)[i], bf16(s->w)[i] == bits >> 16 ? 1.0f : -1.0f);
}
static uint32_t bits_at(Tensor x, int64_t i) {
    uint32_t bits;
    memcpy(&bits, f32(x) + i, 4);
    return bits;
}
static void assert_split(const State *whole, const State *parts) {
    int64_t n = tensor_numel(whole->w);
    assert_memory_equal(whole->w.data, parts->w.data, tensor_bytes(whole->w));
    assert_memory_equal(whole->m.data, parts->m.data, tensor_bytes(whole->m));
    for (int64_t i = 0; i < n; i++) {
        uint32_t v = bits_at(parts->v, i), p = (uint32_t)bf16(parts->w)[i] << 16 | ((uint16_t *)parts->master.data)[i];
        assert_int_equal(v & 0x7fffffff, bits_at(whole->v, i));
        assert_int_equal(p - (v >> 31 << 16), bits_at(whole->master, i));
    }
}

// Every high half with every low half that rounds another way, the ties among them: without gradient or decay p stays,
// and what is kept of it must too. Then steps that move it, of slices too.
static void split_masters_are_exact(void **state) {
    Device *d = *state;
    static const uint16_t lows[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    enum { LOWS = sizeof lows / sizeof *lows, N = LOWS << 16 };
    State whole = {vector(BF16, N), vector(F32, N), vector(F32, N), vector(F32, N), vector(F32, N)};
    State parts = {vector(BF16, N), vector(U16, N), vector(F32, N), vector(F32, N), vector(F32, N)};
    for (int64_t i = 0; i < N; i++) {
        uint32_t bits = (uint32_t)(i / LOWS) << 16 | lows[i % LOWS];
        if ((bits & 0x7fffffff) > 0x7f800000) bits = 0x3f808000; // no NaN
        memcpy(f32(whole.master) + i, &bits, 4);
        split(&parts, i, bits);
    }
    AdamParams p = {.lr = 1e-3, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .grad_scale = 1, .step = 1};
    step(d, &whole, 0, N, p);
    step(d, &parts, 0, N, p);
    for (int64_t i = 0; i < N; i++) {
        uint32_t bits = (uint32_t)(i / LOWS) << 16 | lows[i % LOWS];
        if ((bits & 0x7fffffff) <= 0x7f800000) assert_int_equal(bits_at(whole.master, i), bits);
    }
    assert_split(&whole, &parts);
    p.weight_decay = 0.1;
    for (p.step = 2; p.step < 4; p.step++) {
        for (int64_t i = 0; i < N; i++)
            f32(whole.dw)[i] = f32(parts.dw)[i] = (float)(int)(i * 2654435761u % 2001 - 1000) * 1e-3f;
        step(d, &whole, 0, N, p);
        step(d, &parts, 0, 1003, p);
        step(d, &parts, 1003, N - 1003, p);
        assert_split(&whole, &parts);
    }
    state_free(&whole), state_free(&parts);
}

enum { MANY = 1 << 16 };
static State state_new(float w, float g) {
    State s = {vector(BF16, MANY), NONE, vector(BF16, MANY), vector(BF16, MANY), vector(F32, MANY)};
    for (int i = 0; i < MANY; i++) bf16(s.w)[i] = f32_to_bf16(w), f32(s.dw)[i] = g;
    return s;
}

static const AdamParams plain = {
    .lr = 1e-3, .beta1 = 0.9, .beta2 = 0.99, .eps = 1e-8, .grad_scale = 1, .step = 1, .seed = 9};

// Every element makes the same step, far below bf16's resolution at 1; the mean must come out right. The mean of n
// draws between two values u apart, up with probability q, has deviation u sqrt(q (1 - q) / n).
static void assert_mean(Tensor x, double value, const char *what) {
    double low = INFINITY, high = -INFINITY, sum = 0;
    for (int64_t i = 0; i < MANY; i++) {
        double y = (double)tensor_get(x, i);
        low = fmin(low, y), high = fmax(high, y), sum += y;
    }
    double u = high - low, q = (value - low) / u, sigma = u * sqrt(q * (1 - q) / MANY);
    if (!(high > low && low <= value && value <= high)) fail_msg("%s: %g lies outside %g..%g", what, value, low, high);
    if (!(u <= 0x1p-7 * fabs(high))) fail_msg("%s: %g and %g are no neighbours", what, low, high);
    if (!(fabs(sum / MANY - value) <= 5 * sigma))
        fail_msg("%s: mean %.9g, not %.9g: %g sigma off", what, sum / MANY, value, (sum / MANY - value) / sigma);
}
// The two values differ independently from their means: no noise is used twice.
static void assert_independent(Tensor x, double x_mean, Tensor y, double y_mean, const char *what) {
    int both = 0, x_up = 0, y_up = 0;
    for (int j = 0; j < MANY; j++) {
        bool a = (double)tensor_get(x, j) > x_mean, b = (double)tensor_get(y, j) > y_mean;
        both += a && b, x_up += a, y_up += b;
    }
    double p = (double)x_up / MANY, q = (double)y_up / MANY, sigma = sqrt(p * (1 - p) * q * (1 - q) / MANY);
    double off = (double)both / MANY - p * q;
    if (!(fabs(off) < 5 * sigma)) fail_msg("%s: rounded up together, %g sigma from chance", what, off / sigma);
}
static void rounding_is_unbiased(void **state) {
    Device *d = *state;
    const float weight[] = {1, -1, 0.7f}, grad[] = {0.011f, 0.011f, -3.3f};
    for (int i = 0; i < 3; i++) {
        State s = state_new(weight[i], grad[i]);
        step(d, &s, 0, MANY, plain);
        double g = (double)grad[i], m = (1 - plain.beta1) * g, v = (1 - plain.beta2) * g * g;
        double w = (double)bf16_to_f32(f32_to_bf16(weight[i])) - plain.lr * g / (fabs(g) + plain.eps);
        assert_mean(s.w, w, "w");
        assert_mean(s.m, m, "m");
        assert_mean(s.v, v, "v");
        assert_independent(s.w, w, s.m, m, "w and m");
        assert_independent(s.w, w, s.v, v, "w and v");
        assert_independent(s.m, m, s.v, v, "m and v");
        state_free(&s);
    }
}

// A slice of the tensor gives what the whole gives; other steps and seeds give other noise.
static void noise_depends_on_seed_step_and_element(void **state) {
    Device *d = *state;
    State whole = state_new(1, 0.01f), parts = state_new(1, 0.01f), other = state_new(1, 0.01f);
    step(d, &whole, 0, MANY, plain);
    int64_t cut[] = {0, 1, 18, 5000, 5016, 40001, MANY};
    for (int i = 0; i + 1 < 7; i++) {
        AdamParams p = plain;
        p.first_elem = cut[i];
        int64_t n = cut[i + 1] - cut[i];
        step(d, &parts, cut[i], n, p);
    }
    assert_memory_equal(whole.w.data, parts.w.data, tensor_bytes(whole.w));
    assert_memory_equal(whole.m.data, parts.m.data, tensor_bytes(whole.m));
    assert_memory_equal(whole.v.data, parts.v.data, tensor_bytes(whole.v));
    AdamParams p = plain;
    p.seed++;
    step(d, &other, 0, MANY, p);
    assert_memory_not_equal(whole.w.data, other.w.data, tensor_bytes(whole.w));
    state_free(&whole), state_free(&parts), state_free(&other);
}

// Which random bits round which value: without gradients the weights only decay, and so do the moments, so that what is
// rounded is known exactly. Element e takes half e % 2 of the words 0, 1, 2 (w, m, v) of the counter {e / 2, step}.
static void rounding_takes_its_own_bits(void **state) {
    Device *d = *state;
    enum { N = 1003 };
    AdamParams p = plain;
    p.beta1 = p.beta2 = 0.75, p.weight_decay = 100, p.lr = 0x1p-10, p.step = 0x500000003, p.first_elem = 0x300000001;
    State s = {vector(BF16, N), NONE, vector(BF16, N), vector(BF16, N), vector(F32, N)};
    for (int j = 0; j < N; j++) bf16(s.m)[j] = bf16(s.v)[j] = f32_to_bf16(1 + (float)j / N);
    step(d, &s, 0, N, p);
    State t = {vector(BF16, N), NONE, vector(BF16, N), vector(BF16, N), vector(F32, N)};
    for (int j = 0; j < N; j++) bf16(t.w)[j] = f32_to_bf16(1 + (float)j / N);
    step(d, &t, 0, N, p);
    for (int j = 0; j < N; j++) {
        uint64_t e = (uint64_t)p.first_elem + (uint64_t)j, q = (uint64_t)p.step;
        Philox counter = {{(uint32_t)(e / 2), (uint32_t)(e / 2 >> 32), (uint32_t)q, (uint32_t)(q >> 32) | 0x80000000}};
        Philox r = philox4x32(counter, p.seed);
        float x = bf16_to_f32(f32_to_bf16(1 + (float)j / N));
        float decayed = x * (float)(1 - p.lr * p.weight_decay), moment = x * 0.75f; // m + 0.25 (0 - m), 0.75 v: exact
        Tensor got[] = {t.w, s.m, s.v};
        for (int k = 0; k < 3; k++) {
            float value = k ? moment : decayed;
            uint32_t u;
            memcpy(&u, &value, 4);
            assert_int_equal(bf16(got[k])[j], (u + (r.v[k] >> (e % 2 ? 16 : 0) & 0xffff)) >> 16);
        }
    }
    state_free(&s), state_free(&t);
}

// Nothing to add and nothing to decay: not a bit moves, zeros and infinities included.
static void exact_values_stay(void **state) {
    Device *d = *state;
    State s = state_new(1, 0);
    for (int i = 0; i < MANY; i++) bf16(s.w)[i] = (uint16_t)((i & 0x7fff) > 0x7f80 ? 0x4000 : i); // all but NaN
    Tensor copy = vector(BF16, MANY);
    memcpy(copy.data, s.w.data, tensor_bytes(copy));
    step(d, &s, 0, MANY, plain);
    assert_memory_equal(copy.data, s.w.data, tensor_bytes(copy));
    f32(s.dw)[0] = NAN;
    step(d, &s, 0, MANY, plain);
    assert_true(isnan(tensor_get(s.w, 0)) && isnan(tensor_get(s.m, 0)) && isnan(tensor_get(s.v, 0)));
    free(copy.data);
    state_free(&s);
}

static int open_device(void **state) { return (*state = test_device(0)) ? 0 : -1; }
static int close_device(void **state) {
    device_close(*state);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_torch),
        cmocka_unit_test(split_masters_are_exact),
        cmocka_unit_test(rounding_is_unbiased),
        cmocka_unit_test(noise_depends_on_seed_step_and_element),
        cmocka_unit_test(rounding_takes_its_own_bits),
        cmocka_unit_test(exact_values_stay),
    };
    return cmocka_run_group_tests_name("adamw", tests, open_device, close_device);
}
