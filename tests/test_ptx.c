// The machine of tests/ptx on foreign code: kernels written in Triton and compiled offline (tests/golden/ptx, made by
// tools/golden_ptx.py), against what numpy says; in other orders of warps, with tensor cores that round in other ways;
// and broken on purpose, one place at a time, which the machine or the result must tell.
#include "case.h"
#include "ptx_run.h"
#include "random.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <jansson.h>

#define FOLDER "tests/golden/ptx/"

static json_t *kernels;

static const char *string(const json_t *o, const char *key) { return json_string_value(json_object_get(o, key)); }
static double real(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }

static size_t element(const char *type) { return strcmp(type, "fp32") ? 2 : 4; }
// f16 and back: what the library has for bf16. Inputs are not tiny, outputs of softmax may be.
static uint16_t f16_of(float x) {
    _Static_assert(sizeof(float) == 4, "");
    uint32_t u;
    memcpy(&u, &x, 4);
    uint32_t sign = u >> 16 & 0x8000, a = u & 0x7fffffff;
    if (a < 0x38800000) return (uint16_t)(sign | (uint32_t)lrintf(fabsf(x) * 0x1p24f));
    a -= 0x38000000;
    return (uint16_t)(sign | (a + 0xfff + (a >> 13 & 1)) >> 13);
}
static float f16_to(uint16_t h) {
    int e = h >> 10 & 31, m = h & 0x3ff;
    float v = e ? ldexpf((float)(1024 + m), e - 25) : ldexpf((float)m, -24);
    return h & 0x8000 ? -v : v;
}
// As `numbers` in tools/golden_ptx.py.
static void numbers(const char *path, const json_t *a, const char *type) {
    int64_t n = (int64_t)real(a, "n");
    char *bytes = xmalloc((size_t)n * 4);
    for (int64_t i = 0; i < n; i++) {
        uint64_t z = random_mix(((uint64_t)real(a, "seed") << 32 | (uint64_t)i) * RANDOM_STEP);
        float x = (float)(real(a, "low") + (real(a, "high") - real(a, "low")) * ((double)(z >> 11) * 0x1p-53));
        uint16_t h = strcmp(type, "fp16") ? f32_to_bf16(x) : f16_of(x);
        if (element(type) == 4) memcpy(bytes + 4 * i, &x, 4);
        else memcpy(bytes + 2 * i, &h, 2);
    }
    put_bytes(path, bytes, (size_t)n * element(type));
    free(bytes);
}
static double *read_numbers(const char *path, const char *type, int64_t n) {
    char *bytes = ptx_read(path);
    double *x = xmalloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++) {
        uint16_t h;
        float f;
        memcpy(&h, bytes + 2 * i, 2);
        if (element(type) == 4) memcpy(&f, bytes + 4 * i, 4);
        x[i] = (double)(element(type) == 4 ? f : strcmp(type, "fp16") ? bf16_to_f32(h) : f16_to(h));
    }
    free(bytes);
    return x;
}

// Runs a kernel of the list as `file`, with options; the greatest relative error of its outputs, or a negative number
// where the machine stopped it (`says` why).
static double run_kernel(const json_t *k, const char *file, const char *options, char *says, size_t room) {
    Str line = {0};
    const char *place = scratch;
    str_printf(&line, "%s %s grid=%s block=%d shared=%d %s", file, string(k, "entry"), string(k, "grid"),
               (int)real(k, "threads"), (int)real(k, "shared"), options);
    size_t i;
    const json_t *a;
    json_array_foreach(json_object_get(k, "arguments"), i, a) {
        const char *in = string(a, "in"), *out = string(a, "out"), *both = string(a, "inout");
        int64_t n = (int64_t)real(a, "n");
        if (in) numbers(at("%zu", i), a, in), str_printf(&line, " in:%s/%zu", place, i);
        else if (out) str_printf(&line, " out:%zu:%s/%zu", (size_t)n * element(out), place, i);
        else if (both) {
            float *zeros = xcalloc((size_t)n, sizeof *zeros);
            put_bytes(at("%zu", i), zeros, (size_t)n * sizeof *zeros);
            free(zeros);
            str_printf(&line, " inout:%s/%zu", place, i);
        } else str_printf(&line, " %s", string(a, "text"));
    }
    int code = ptx_run(line.s, says, room);
    str_free(&line);
    if (code) return code == 1 || code == 3 ? -1 : -2;
    char *want = xasprintf(FOLDER "%s.bin", string(k, "name"));
    char *wanted = ptx_read(want);
    free(want);
    int64_t done = 0;
    double worst = 0;
    json_array_foreach(json_object_get(k, "arguments"), i, a) {
        const char *type = string(a, "out") ? string(a, "out") : string(a, "inout");
        if (!type) continue;
        int64_t n = (int64_t)real(a, "n");
        double *got = read_numbers(at("%zu", i), type, n), *x = xmalloc((size_t)n * sizeof *x);
        for (int64_t j = 0; j < n; j++) {
            float f;
            memcpy(&f, wanted + 4 * (done + j), 4);
            x[j] = (double)f;
        }
        double e = relative_error(got, x, n);
        if (!(e <= worst)) worst = e;
        free(got), free(x);
        done += n;
    }
    free(wanted);
    return worst;
}
static const json_t *find_kernel(const char *name) {
    size_t i;
    const json_t *k;
    json_array_foreach(json_object_get(kernels, "kernels"), i, k) if (!strcmp(string(k, "name"), name)) return k;
    fail_msg("there is no kernel %s", name);
    return NULL;
}

static void check_all(const char *options, const char *only) {
    size_t i;
    const json_t *k;
    char says[4096];
    json_array_foreach(json_object_get(kernels, "kernels"), i, k) {
        if (only && !strstr(string(k, "name"), only)) continue;
        char *file = xasprintf(FOLDER "%s.ptx", string(k, "name"));
        double e = run_kernel(k, file, options, says, sizeof says);
        free(file);
        if (e < 0) fail_msg("%s %s: %s", string(k, "name"), options, says);
        printf("%-26s %-16s error %.1e  %s", string(k, "name"), options, e,
               strchr(says, ':') ? strchr(says, ':') + 2 : says);
        if (!(e <= real(k, "tolerance")))
            fail_msg("%s %s: error %g above %g", string(k, "name"), options, e, real(k, "tolerance"));
    }
}
// Adds what is said of a kernel that ran to the table, a row of tests/ptx/foreign.md.
static void add_row(Str *table, const json_t *k, double error, const char *says) {
    size_t i, numbers = 0;
    const json_t *a;
    json_array_foreach(json_object_get(k, "arguments"), i, a) if (string(a, "out") || string(a, "inout")) numbers +=
        (size_t)real(a, "n");
    const char *count = strstr(says, ": ");
    str_printf(table, "| %s | %d | %zu | %.1e | %.1e | %lld |\n", string(k, "name"), (int)real(k, "threads") / 32,
               numbers, error, real(k, "tolerance"), count ? atoll(count + 2) : -1LL);
}
// Errors hang on the machine's exp2, a little; they have their bounds.
static void hide_errors(char *table) {
    int cell = 0;
    for (char *c = table; *c; c++)
        if (*c == '\n') cell = 0;
        else if (*c == '|') cell++;
        else if (cell == 4) *c = ' ';
}
// All of them, as the committed table says; PTX_TABLE=FILE writes it anew.
static void foreign_kernels_match_numpy(void **state) {
    Str table = {0};
    size_t i;
    const json_t *k;
    str_printf(&table,
               "Kernels of Triton %s on the machine for PTX, against numpy %s. Written by\n"
               "`PTX_TABLE=tests/ptx/foreign.md make run-test_ptx TEST='foreign*'`; the last part of a name is the "
               "target. An error is\n"
               "the 2-norm of the differences over that of the numbers, of a kernel's worst output.\n\n"
               "| kernel | warps | numbers compared | relative error | bound | thread-instructions |\n"
               "|---|---|---|---|---|---|\n",
               string(kernels, "triton"), string(kernels, "numpy"));
    json_array_foreach(json_object_get(kernels, "kernels"), i, k) {
        char says[4096], *file = xasprintf(FOLDER "%s.ptx", string(k, "name"));
        double e = run_kernel(k, file, "threads=1", says, sizeof says); // the same run again: counts are the same
        free(file);
        if (!(e >= 0 && e <= real(k, "tolerance")))
            fail_msg("%s: error %g above %g; %s", string(k, "name"), e, real(k, "tolerance"), says);
        add_row(&table, k, e, says);
    }
    printf("%s", table.s);
    if (getenv("PTX_TABLE")) put_text(getenv("PTX_TABLE"), table.s);
    char *committed = ptx_read("tests/ptx/foreign.md");
    hide_errors(committed), hide_errors(table.s);
    assert_string_equal(table.s, committed);
    free(committed), str_free(&table);
}
static void in_any_order(void **state) {
    for (int seed = 2; seed < 5; seed++) {
        char *options = xasprintf("seed=%d threads=%d", seed, seed % 3 + 1);
        check_all(options, "90");
        free(options);
    }
}
// However the tensor cores round, the results are within the same bounds; and they do differ.
static void with_any_units(void **state) {
    static const char *const models[] = {"units=groups8", "units=groups16", "units=unlike"};
    for (int m = 0; m < 3; m++) check_all(models[m], "matmul"), check_all(models[m], "descriptors");
    const json_t *k = find_kernel("descriptors_fp32_4_90");
    char says[4096];
    double usual = run_kernel(k, FOLDER "descriptors_fp32_4_90.ptx", "", says, sizeof says);
    double cut = run_kernel(k, FOLDER "descriptors_fp32_4_90.ptx", "units=groups8", says, sizeof says);
    assert_true(usual >= 0 && cut >= 0 && usual != cut);
}

// ---- mutants --------------------------------------------------------------------------------------------------------
// The nth place (0: all) where `from` stands becomes `to`. `says`: what the machine must say; NULL: the result is
// wrong.
static const struct {
    const char *kernel, *from, *to;
    int nth;
    const char *says;
} mutants[] = {
#include "ptx_mutants.h"
};
static void mutants_are_killed(void **state) {
    int survivors = 0;
    for (size_t m = 0; m < sizeof mutants / sizeof *mutants; m++) {
        const json_t *k = find_kernel(mutants[m].kernel);
        char *file = xasprintf(FOLDER "%s.ptx", mutants[m].kernel), *text = ptx_read(file), says[4096] = "";
        char *broken = ptx_replace(text, mutants[m].from, mutants[m].to, mutants[m].nth);
        put_text(at("mutant.ptx"), broken);
        bool killed = false;
        double e = 0;
        // Some show in some orders only; of one thread a seed gives the same order again.
        for (int seed = 1; seed <= 8 && !killed; seed++) {
            char *options = xasprintf("seed=%d threads=1 limit=50000000", seed);
            e = run_kernel(k, at("mutant.ptx"), options, says, sizeof says);
            free(options);
            killed = mutants[m].says ? e == -1 && strstr(says, mutants[m].says)
                                     : e == -1 || !(e <= 10 * real(k, "tolerance"));
        }
        printf("%-22s %-44.44s %s: %s", mutants[m].kernel, mutants[m].from, killed ? "killed" : "SURVIVED",
               e < 0 ? says : "wrong result\n");
        survivors += !killed;
        free(file), free(text), free(broken);
    }
    assert_int_equal(survivors, 0);
    assert_true(sizeof mutants / sizeof *mutants >= 20);
}

// Whatever the file says, the machine runs it, or says in one line what is wrong with it: files cut off, with bytes
// changed or lost, with words in the place of others.
static uint64_t changed_file, draws;
static size_t below(size_t n) { return (size_t)(random_bits(1, changed_file, draws++) % n); }
static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == ','; }
// The word at or behind a place.
static void word_at(const char *text, size_t n, size_t at, size_t *from, size_t *length) {
    while (at + 1 < n && is_space(text[at])) at++;
    while (at > 0 && !is_space(text[at - 1])) at--;
    for (*from = at, *length = 0; at < n && !is_space(text[at]); at++) ++*length;
}
static char *change(const char *text, int kind) {
    size_t n = strlen(text), at = below(n), from, length, other, others;
    static const char *const odd[] = {"-1", "0", "4294967296", "0x7fffffffffffffff", "%rd1", "%p1", "{}", "[%r1]"};
    word_at(text, n, at, &from, &length);
    word_at(text, n, below(n), &other, &others);
    switch (kind) {
    case 0: return xasprintf("%.*s", (int)at, text);
    case 1: return xasprintf("%.*s%c%s", (int)at, text, (char)(1 + below(255)), text + at + 1);
    case 2: return xasprintf("%.*s%s", (int)at, text, text + at + 1);
    case 3: return xasprintf("%.*s%.*s%s", (int)from, text, (int)others, text + other, text + from + length);
    case 4: return xasprintf("%.*s%s%s", (int)from, text, odd[below(8)], text + from + length);
    default: return xasprintf("%.*s%s", (int)from, text, text + from + length);
    }
}
static void broken_files_are_refused(void **state) {
    size_t kinds = json_array_size(json_object_get(kernels, "kernels"));
    char says[8192];
    int stopped = 0, ran = 0;
    for (int i = 0; i < 600; i++) {
        const json_t *k = json_array_get(json_object_get(kernels, "kernels"), (size_t)i % kinds);
        char *file = xasprintf(FOLDER "%s.ptx", string(k, "name")), *text = ptx_read(file), *broken;
        changed_file = (uint64_t)i, draws = 0;
        for (int c = 0; c < 1 + i % 3; c++, text = broken) broken = change(text, (int)below(6)), free(text);
        put_text(at("broken.ptx"), text);
        double e = run_kernel(k, at("broken.ptx"), "limit=5000000", says, sizeof says);
        char *newline = strchr(says, '\n');
        // A changed list of parameters is told as a wrong command line.
        bool one_line = newline && !newline[1] && strncmp(says, at("broken.ptx"), strlen(at("broken.ptx"))) == 0;
        if (e < 0 && !one_line) fail_msg("broken file %d: %s", i, says);
        e < 0 ? stopped++ : ran++;
        free(file), free(text);
    }
    printf("%d changed files: %d stopped in one line, %d ran\n", stopped + ran, stopped, ran);
    assert_true(stopped > 200 && ran > 0);
}

static int open_list(void **state) {
    json_error_t e;
    kernels = json_load_file(FOLDER "kernels.json", 0, &e);
    return kernels && !scratch_setup(state) ? 0 : -1;
}
static int close_list(void **state) {
    json_decref(kernels);
    return scratch_teardown(state);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(foreign_kernels_match_numpy),
        cmocka_unit_test(in_any_order),
        cmocka_unit_test(with_any_units),
        cmocka_unit_test(mutants_are_killed),
        cmocka_unit_test(broken_files_are_refused),
    };
    return cmocka_run_group_tests_name("ptx", tests, open_list, close_list);
}
