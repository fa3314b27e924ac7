// The C twins of the CPU's instructions (kernels/cpu/twin.h): against the hardware where it is there, instruction by
// instruction and then op by op; and against what the manual says, spelled out in another way, everywhere.
#include "cases.h"
#include "ops.h"
#include "twin.h"
#include <fenv.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cmocka.h>

static uint64_t state = 88172645463325252u;
static uint32_t bits(void) { // xorshift
    state ^= state << 13, state ^= state >> 7, state ^= state << 17;
    return (uint32_t)(state >> 16);
}
// An f32, or the bf16 in its upper half, of any sign and digits with an exponent of `span` from `from` on.
static uint32_t with_exponent(uint32_t from, uint32_t span) {
    return (bits() & 0x807fffff) | (from + bits() % span) << 23;
}
static float value(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}
static bool same(float x, float y) { return !memcmp(&x, &y, sizeof x) || (isnan(x) && isnan(y)); }

// What the exponents of an accumulator and of the factors are.
static const struct {
    const char *name;
    uint32_t acc, acc_span, a, a_span;
} inputs[] = {
    {"random", 0, 256, 0, 256},        {"ordinary", 110, 30, 120, 14}, {"large", 200, 54, 170, 40},
    {"overflowing", 240, 15, 185, 10}, {"tiny", 1, 10, 55, 14},        {"at the least normal number", 0, 3, 62, 3},
    {"denormal", 0, 3, 0, 3},          {"cancelling", 127, 1, 127, 1},
};
enum { INPUTS = sizeof inputs / sizeof *inputs };

static void fill_pairs(uint32_t *pair, int n, int kind) {
    for (int i = 0; i < n; i++)
        pair[i] = (with_exponent(inputs[kind].a, inputs[kind].a_span) & 0xffff0000) |
                  with_exponent(inputs[kind].a, inputs[kind].a_span) >> 16;
}
static void fill_sums(float *x, int n, int kind) {
    for (int i = 0; i < n; i++) x[i] = value(with_exponent(inputs[kind].acc, inputs[kind].acc_span));
}
static float first(uint32_t pair) { return value(pair << 16); }
static float second(uint32_t pair) { return value(pair & 0xffff0000); }

static void soft_multiply_adds_are_fused(void **ctx) {
    for (int round = 0; round < 200000; round++) {
        float a[4], b[4], c[4], out[4], hard[4];
        fill_sums(c, 4, round % INPUTS);
        for (int i = 0; i < 4; i++) {
            a[i] = value(with_exponent(inputs[round % INPUTS].a, inputs[round % INPUTS].a_span));
            b[i] = value(with_exponent(inputs[round % INPUTS].a, inputs[round % INPUTS].a_span));
            if (round % 3 == 0) c[i] = -a[i] * b[i]; // what the product lost in rounding is left
            if (round == 1) a[i] = 0x1.0002p0f, b[i] = 0x1.fffcp-25f, c[i] = 0x1.000002p0f; // a tie, but for 2^-54
        }
        Twin4 soft = twin_fma_soft(twin_load(a), twin_load(b), twin_load(c));
        memcpy(out, &soft, sizeof out);
        twin_fma(hard, a, b, c, 4);
        for (int i = 0; i < 4; i++)
            if (!same(out[i], fmaf(a[i], b[i], c[i])) || !same(hard[i], out[i]))
                fail_msg("%a * %a + %a is %a, not %a or %a", a[i], b[i], c[i], fmaf(a[i], b[i], c[i]), out[i], hard[i]);
    }
}

// --- bf16: the manual's words, one lane at a time ---

static float flushed(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0, x) : x; }
// Fused, rounded to nearest even; tiny after rounding, as if exponents had no end: scaled up, where they have none.
static float flushing_fma(float a, float b, float c) {
    a = flushed(a), b = flushed(b), c = flushed(c);
    float far = fabsf(c) < 1 && fabsf(a) < 1 ? fmaf(a * 0x1p60f, b, c * 0x1p60f) : 0; // exact factors
    if (far && fabsf(far) < 0x1p-66f) return copysignf(0, far);
    return flushed(fmaf(a, b, c));
}
static float flushing_add(float a, float b) { return flushed(flushed(a) + flushed(b)); }

static float pair_of_words(float acc, uint32_t a, uint32_t b) {
    return flushing_fma(first(a), first(b), flushing_fma(second(a), second(b), acc));
}
static void tile_of_words(float c[16][16], uint32_t a[16][16], uint32_t b[16][16]) {
    for (int m = 0; m < 16; m++)
        for (int n = 0; n < 16; n++) {
            float low = 0, high = 0;
            for (int k = 0; k < 16; k++) {
                low = flushing_fma(first(a[m][k]), first(b[k][n]), low);
                high = flushing_fma(second(a[m][k]), second(b[k][n]), high);
            }
            c[m][n] = flushing_add(c[m][n], flushing_add(low, high));
        }
}

#if defined(__x86_64__) && __has_include(<amxtileintrin.h>)
__attribute__((target("avx512f,avx512bf16"))) static void pair_of_hardware(float acc[16], const uint32_t a[16],
                                                                           const uint32_t b[16]) {
    __m512 x = _mm512_loadu_ps(acc);
    x = _mm512_dpbf16_ps(x, (__m512bh)_mm512_loadu_si512(a), (__m512bh)_mm512_loadu_si512(b));
    _mm512_storeu_ps(acc, x);
}
__attribute__((target("amx-tile,amx-bf16"))) static void tile_of_hardware(float c[16][16], uint32_t a[16][16],
                                                                          uint32_t b[16][16]) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } all = {.palette = 1, .bytes = {64, 64, 64}, .rows = {16, 16, 16}};
    __asm__ volatile(
        "ldtilecfg %0\n tileloadd (%1,%4,1), %%tmm0\n tileloadd (%2,%4,1), %%tmm1\n tileloadd (%3,%4,1), %%tmm2\n"
        "tdpbf16ps %%tmm2, %%tmm1, %%tmm0\n tilestored %%tmm0, (%1,%4,1)\n tilerelease"
        :
        : "m"(all), "r"(c), "r"(a), "r"(b), "r"((int64_t)64)
        : "memory");
}
static const bool compiled_here = true;
#else
static const bool compiled_here = false;
static void pair_of_hardware(float acc[16], const uint32_t a[16], const uint32_t b[16]) {}
static void tile_of_hardware(float c[16][16], uint32_t a[16][16], uint32_t b[16][16]) {}
#endif

static void pairs_of_bf16(void **ctx) {
    const bool hardware = compiled_here && !cpu_isa_missing(CPU_ISA_avx512_bf16);
    long far = 0;
    for (int round = 0; round < 40000; round++) {
        int kind = round % INPUTS;
        uint32_t a[16], b[16];
        float acc[16], twin[16], hard[16];
        fill_pairs(a, 16, kind), fill_pairs(b, 16, kind), fill_sums(acc, 16, kind);
        for (int i = 0; i < 16 && !strcmp(inputs[kind].name, "cancelling"); i++)
            acc[i] = -second(a[i]) * second(b[i]) - (round & 8 ? first(a[i]) * first(b[i]) : 0);
        if (round == INPUTS) acc[0] = 0x1p-126f, a[0] = 0x9a40, b[0] = 0x1900;     // - 1.5 * 2^-152: rounds to it
        if (round == 2 * INPUTS) acc[0] = 0x1p-126f, a[0] = 0x99c0, b[0] = 0x1a80; // - 1.5 * 2^-150: does not
        for (int i = 0; i < 16; i += 4) {
            Twin4 x = twin_dpbf16(twin_load(acc + i), twin_pairs(a + i), twin_pairs(b + i));
            memcpy(twin + i, &x, sizeof x);
        }
        memcpy(hard, acc, sizeof hard);
        if (hardware) pair_of_hardware(hard, a, b);
        for (int i = 0; i < 16; i++) {
            float words = pair_of_words(acc[i], a[i], b[i]);
            far += twin[i] == 0;
            if (!same(twin[i], words) || (hardware && !same(twin[i], hard[i])))
                fail_msg("%s: %a and %08x . %08x: twin %a, words %a, hardware %a", inputs[kind].name, acc[i], a[i],
                         b[i], twin[i], words, hard[i]);
        }
    }
    assert_true(far > 1000); // denormals did come up
    if (!hardware) print_message("SKIP VDPBF16PS itself: this CPU does not have it\n");
}

static void tiles_of_bf16(void **ctx) {
    const bool hardware = compiled_here && !cpu_isa_missing(CPU_ISA_amx);
    for (int round = 0; round < 20 * INPUTS; round++) {
        int kind = round % INPUTS;
        uint32_t a[16][16], b[16][16];
        float twin[16][16], words[16][16], hard[16][16];
        fill_pairs(*a, 256, kind), fill_pairs(*b, 256, kind), fill_sums(*twin, 256, kind);
        const bool cancelling = !strcmp(inputs[kind].name, "cancelling"); // each product's opposite comes next
        for (int k = 0; cancelling && k < 16; k += 2)
            for (int i = 0; i < 16; i++)
                a[i][k + 1] = a[i][k] ^ 0x80008000, b[k + 1][i] = b[k][i] + (round & 8 ? 0x10001 : 0);
        memcpy(words, twin, sizeof words);
        memcpy(hard, twin, sizeof hard);
        if (hardware) tile_of_hardware(hard, a, b);
        twin_tdpbf16(twin, a, b);
        tile_of_words(words, a, b);
        for (int m = 0; m < 16; m++)
            for (int n = 0; n < 16; n++)
                if (!same(twin[m][n], words[m][n]) || (hardware && !same(twin[m][n], hard[m][n])))
                    fail_msg("%s: row %d, column %d: twin %a, words %a, hardware %a", inputs[kind].name, m, n,
                             twin[m][n], words[m][n], hard[m][n]);
    }
    if (!hardware) print_message("SKIP TDPBF16PS itself: this CPU does not have it\n");
}

// --- Every op, on the hardware and by the twin ---

#define DECLARE(name, about)                                                                                           \
    extern const OpTable cpu_ops_##name __attribute__((weak)), cpu_ops_##name##_twin __attribute__((weak));
CPU_ISAS(DECLARE)

static void use(Device *d, const OpTable *ops) {
#define TAKE(name, args) d->name = ops->name;
    OPS(TAKE)
}

// Memory between two pages that nobody may touch, its end within 8 bytes of the second one: an op that reads or writes
// past a tensor ends here.
static size_t page_bytes(void) { return (size_t)sysconf(_SC_PAGESIZE); }
static size_t guarded_bytes(size_t bytes) { return ((bytes + page_bytes() - 1) / page_bytes() + 2) * page_bytes(); }
static void *guarded_alloc(Device *d, size_t bytes) {
    size_t all = guarded_bytes(bytes), page = page_bytes();
    char *p = mmap(NULL, all, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p + page, all - 2 * page, PROT_READ | PROT_WRITE)) return NULL;
    return p + (all - page - bytes) / 8 * 8;
}
static void guarded_free(Device *d, void *p, size_t bytes) {
    if (p) munmap((char *)((uintptr_t)p / page_bytes() * page_bytes() - page_bytes()), guarded_bytes(bytes));
}

// How many outputs of the whole table were compared.
static int compare_ops(Device *d, const OpTable *hardware, const OpTable *twin, const char *isa) {
    static const DType types[][2] = {{F32, F32}, {BF16, F32}, {BF16, BF16}};
    int outputs = 0;
    for (int i = 0; i < CASE_ROWS; i++)
        for (int t = 0; t < 3; t++) {
            const CaseRow *row = &case_table[i];
            if (row->bench || (types[t][1] == BF16 && !row->op->grads)) continue;
            Case x = case_open(d, row->op, row->s, types[t][0], types[t][1], false);
            Case y = case_open(d, row->op, row->s, types[t][0], types[t][1], false);
            use(d, hardware);
            row->op->run(&x);
            use(d, twin);
            row->op->run(&y);
            for (int k = 0; k < x.n_args; k++, outputs++) {
                char name[128];
                if (memcmp(x.arg[k].t.data, y.arg[k].t.data, tensor_bytes(x.arg[k].t)))
                    fail_msg("%s: %s: %s: other bits", isa, case_name(&x, name, sizeof name), x.arg[k].name);
            }
            case_close(&x), case_close(&y);
        }
    return outputs;
}
static void ops_of_every_instruction_set(void **ctx) {
    Error e = {0};
    Device *d = cpu_open(0, CPU_ISA_generic, &e);
    assert_non_null(d);
    d->alloc = guarded_alloc, d->free = guarded_free;
    int sets = 0;
    // By its twin alone where the CPU lacks it: between the pages nobody may touch. Generic code has no twin.
#define COMPARE(name, about)                                                                                           \
    if (&cpu_ops_##name##_twin) {                                                                                      \
        const OpTable *twin = &cpu_ops_##name##_twin,                                                                  \
                      *hardware = cpu_isa_missing(CPU_ISA_##name) ? twin : &cpu_ops_##name;                            \
        if (hardware == twin) print_message("SKIP " #name " itself: %s\n", cpu_isa_missing(CPU_ISA_##name));           \
        assert_true(compare_ops(d, hardware, twin, #name) > 500);                                                      \
        sets++;                                                                                                        \
    }
    CPU_ISAS(COMPARE)
    cpu_close(d);
    assert_true(sets > 0); // some are linked: see the Makefile
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(soft_multiply_adds_are_fused),
        cmocka_unit_test(pairs_of_bf16),
        cmocka_unit_test(tiles_of_bf16),
        cmocka_unit_test(ops_of_every_instruction_set),
    };
    return cmocka_run_group_tests_name("twins", tests, NULL, NULL);
}
