// The smallest parts: arena, strings, ids, errors.
#include "arena.h"
#include "child.h"
#include "str.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

// ---- arena ----------------------------------------------------------------------------------------------------------
static void arena_measures_what_it_takes(void **state) {
    Arena m = arena_measure();
    assert_null(arena_take(&m, 1));
    assert_null(arena_new(&m, BF16, 3, 5).data);
    assert_null(arena_take(&m, 100));
    size_t bytes = m.peak;
    assert_int_equal(bytes, 2 * ARENA_ALIGN + 100);

    char *base = aligned_alloc(ARENA_ALIGN, 4 * ARENA_ALIGN);
    Arena a = arena_over(base, bytes);
    assert_ptr_equal(arena_take(&a, 1), base);
    Tensor t = arena_new(&a, BF16, 3, 5);
    assert_ptr_equal(t.data, base + ARENA_ALIGN);
    assert_int_equal(t.ndim, 2);
    assert_int_equal(t.dim[0], 3);
    assert_int_equal(t.dim[1], 5);
    assert_int_equal(t.dim[3], 1);
    assert_int_equal(tensor_bytes(t), 30);
    assert_ptr_equal(arena_take(&a, 100), base + 2 * ARENA_ALIGN);
    assert_int_equal(a.used, bytes);
    free(base);
}

static void arena_rewinds_and_remembers_its_peak(void **state) {
    char *base = aligned_alloc(ARENA_ALIGN, 8 * ARENA_ALIGN);
    Arena a = arena_over(base, 8 * ARENA_ALIGN);
    arena_take(&a, ARENA_ALIGN);
    size_t mark = arena_mark(&a);
    void *first = arena_take(&a, 5 * ARENA_ALIGN);
    arena_rewind(&a, mark);
    assert_ptr_equal(arena_take(&a, 1), first);
    assert_int_equal(a.peak, 6 * ARENA_ALIGN);
    free(base);
}

static void overrun(const void *unused) {
    static char memory[2 * ARENA_ALIGN];
    Arena a = arena_over(memory, sizeof memory);
    arena_take(&a, ARENA_ALIGN + 1);
    arena_take(&a, SIZE_MAX - ARENA_ALIGN); // must not wrap around
}

static void arena_overrun_dies_and_says_where(void **state) { assert_dies(overrun, NULL, "arena"); }

// ---- strings --------------------------------------------------------------------------------------------------------
static void assert_json(const char *text, size_t n, const char *expected) {
    Str s = {0};
    str_json(&s, text, n);
    assert_string_equal(s.s, expected);
    str_free(&s);
}

static void str_grows_and_stays_terminated(void **state) {
    Str s = {0};
    for (int i = 0; i < 1000; i++) {
        str_printf(&s, "%d,", i);
        assert_int_equal(strlen(s.s), s.n);
    }
    assert_int_equal(s.n, 10 * 2 + 90 * 3 + 900 * 4);
    assert_string_equal(s.s + s.n - 8, "998,999,");
    str_clear(&s);
    assert_string_equal(s.s, "");
    str_add(&s, "a\0b", 3);
    assert_int_equal(s.n, 3);
    assert_memory_equal(s.s, "a\0b", 4);
    str_free(&s);
    assert_null(s.s);
    str_clear(&s);
    str_add(&s, "", 0);
    assert_string_equal(s.s, "");
    str_free(&s);
}

static void str_json_escapes(void **state) {
    assert_json("", 0, "\"\"");
    assert_json("a\"b\\c/\n\t\r", 9, "\"a\\\"b\\\\c/\\n\\t\\r\"");
    assert_json("\0\1\x1b\x7f", 4, "\"\\u0000\\u0001\\u001b\\u007f\"");
    assert_json("Zürich 東京 \xf0\x9f\x98\x80", strlen("Zürich 東京 \xf0\x9f\x98\x80"),
                "\"Zürich 東京 \xf0\x9f\x98\x80\"");
    // Not UTF-8: a stray tail, an overlong slash, a surrogate, beyond U+10FFFF, an unfinished character.
    assert_json("\x80", 1, "\"\\ufffd\"");
    assert_json("\xc0\xaf", 2, "\"\\ufffd\\ufffd\"");
    assert_json("\xed\xa0\x80", 3, "\"\\ufffd\\ufffd\\ufffd\"");
    assert_json("\xf4\x90\x80\x80", 4, "\"\\ufffd\\ufffd\\ufffd\\ufffd\"");
    assert_json("x\xe6\x9d", 3, "\"x\\ufffd\\ufffd\"");
}

static void str_visible_shows_control_bytes(void **state) {
    Str s = {0};
    const char text[] = "ok\tü\n\x1b[31m\xc2\x9b\x7f\xff\r\xe2\x80\xae\xe2\x81\xa7\xe2\x80\x93";
    str_visible(&s, text, sizeof text - 1);
    assert_string_equal(s.s, "ok\tü\n\\x1b[31m\\xc2\\x9b\\x7f\\xff\\x0d\\xe2\\x80\\xae\\xe2\\x81\\xa7\xe2\x80\x93");
    str_free(&s);
}

static void ids_grow(void **state) {
    Ids v = {0};
    for (int i = 0; i < 1000; i++) ids_add(&v, i * 7);
    assert_int_equal(v.n, 1000);
    for (int i = 0; i < 1000; i++) assert_int_equal(v.id[i], i * 7);
    ids_clear(&v);
    assert_int_equal(v.n, 0);
    ids_free(&v);
    assert_null(v.id);
}

// ---- tensors' small conversions -------------------------------------------------------------------------------------
static uint32_t bits(float f) {
    uint32_t u;
    memcpy(&u, &f, 4);
    return u;
}
static float from_bits(uint32_t u) {
    float f;
    memcpy(&f, &u, 4);
    return f;
}

static void bf16_rounds_to_nearest_even(void **state) {
    assert_int_equal(f32_to_bf16(1.0f), 0x3f80);
    assert_int_equal(f32_to_bf16(from_bits(0x3f808000)), 0x3f80); // halfway, even below
    assert_int_equal(f32_to_bf16(from_bits(0x3f818000)), 0x3f82); // halfway, even above
    assert_int_equal(f32_to_bf16(from_bits(0x3f808001)), 0x3f81);
    assert_int_equal(f32_to_bf16(from_bits(0x7f7fffff)), 0x7f80); // FLT_MAX rounds to infinity
    assert_int_equal(f32_to_bf16(from_bits(0xff800000)), 0xff80);
    assert_true(bf16_to_f32(f32_to_bf16(from_bits(0x7f800001))) != bf16_to_f32(f32_to_bf16(from_bits(0x7f800001))));
    for (uint32_t h = 0; h < 0x7f80; h++) {
        assert_int_equal(f32_to_bf16(bf16_to_f32((uint16_t)h)), h);
        assert_int_equal(bits(bf16_to_f32((uint16_t)(h | 0x8000))), (h | 0x8000) << 16);
    }
}

// ---- errors ---------------------------------------------------------------------------------------------------------
static void error_says_what_and_keeps_its_code(void **state) {
    Error e = {0};
    assert_false(error_set(&e, EXIT_INPUT, "line %d: %s", 7, "no answer"));
    assert_int_equal(e.code, EXIT_INPUT);
    assert_string_equal(e.text, "line 7: no answer");
    assert_false(error_prefix(&e, "%s", "train.jsonl"));
    assert_string_equal(e.text, "train.jsonl: line 7: no answer");
    assert_int_equal(e.code, EXIT_INPUT);
    assert_false(error_set(NULL, EXIT_INPUT, "nobody listens"));
    assert_false(error_prefix(NULL, "nobody listens"));
}

static void error_cuts_what_is_too_long(void **state) {
    Error e = {0};
    char long_text[5000];
    memset(long_text, 'x', sizeof long_text - 1);
    long_text[sizeof long_text - 1] = 0;
    error_set(&e, EXIT_CONFIG, "%s", long_text);
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
    error_prefix(&e, "a file");
    assert_int_equal(strncmp(e.text, "a file: xxx", 11), 0);
    assert_true(strlen(e.text) < sizeof e.text);
    error_set(&e, EXIT_CONFIG, "short");
    error_prefix(&e, "%s", long_text);
    assert_int_equal(strlen(e.text), sizeof e.text - 1);
}

static void ask_too_much(const void *unused) { free(xmalloc(SIZE_MAX / 2)); }
static void ask_too_many(const void *unused) { free(xcalloc(SIZE_MAX / 2, 16)); }

static void no_memory_is_one_line_and_its_exit_code(void **state) {
    void (*body[])(const void *) = {ask_too_much, ask_too_many};
    for (int i = 0; i < 2; i++) {
        char text[4096];
        int status = in_child(body[i], NULL, text, sizeof text);
#if defined(__SANITIZE_ADDRESS__)
        assert_true(WIFEXITED(status)); // the sanitizer's own allocator ends the program first
#else
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_MEMORY);
        assert_non_null(strstr(text, "out of memory"));
        assert_ptr_equal(strchr(text, '\n'), text + strlen(text) - 1);
#endif
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arena_measures_what_it_takes),
        cmocka_unit_test(arena_rewinds_and_remembers_its_peak),
        cmocka_unit_test(arena_overrun_dies_and_says_where),
        cmocka_unit_test(str_grows_and_stays_terminated),
        cmocka_unit_test(str_json_escapes),
        cmocka_unit_test(str_visible_shows_control_bytes),
        cmocka_unit_test(ids_grow),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(error_says_what_and_keeps_its_code),
        cmocka_unit_test(error_cuts_what_is_too_long),
        cmocka_unit_test(no_memory_is_one_line_and_its_exit_code),
    };
    return cmocka_run_group_tests_name("host", tests, NULL, NULL);
}
