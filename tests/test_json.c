// JSON: the grammar, the limits, and what an error says.
#include "file.h"
#include "json.h"
#include "scratch.h"
#include <time.h>

// Of this program's own computing: what else the machine does is left out.
static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// JSONTestSuite: y_ must be accepted, n_ refused; i_ may be either, but must end.
static void suite_behaves_as_marked(void **state) {
    char dir[4096];
    snprintf(dir, sizeof dir, "%s", data_path("suite_behaves_as_marked", "formats/jsontestsuite/test_parsing"));
    DIR *d = opendir(dir);
    int n = 0, wrong = 0;
    for (struct dirent *entry; (entry = readdir(d));) {
        char kind = entry->d_name[0];
        if (!strstr(entry->d_name, ".json") || !strchr("yni", kind)) continue;
        char *path = xasprintf("%s/%s", dir, entry->d_name);
        size_t bytes;
        Error e = {0};
        char *text = file_read(path, SIZE_MAX - 1, &bytes, &e);
        assert_non_null(text);
        double start = seconds();
        json_t *j = json_parse(text, bytes, "here", &e);
        assert_true(seconds() - start < 1);
        n++;
        if ((kind == 'y' && !j) || (kind == 'n' && j)) {
            wrong++;
            printf("%s: %s\n", entry->d_name, j ? "accepted" : e.text);
        }
        if (!j) {
            assert_int_equal(e.code, EXIT_INPUT);
            SAYS(&e, "here:");
        }
        json_decref(j);
        free(text);
        free(path);
    }
    closedir(d);
    assert_int_equal(n, 318);
    assert_int_equal(wrong, 0);
}

static json_t *parse(const char *text, Error *e) { return json_parse(text, strlen(text), "f:7", e); }

static void depth_is_limited(void **state) {
    for (int depth = 63; depth <= 66; depth++) {
        Str s = {0};
        for (int i = 0; i < depth; i++) str_puts(&s, i % 2 ? "{\"a\":" : "[");
        str_puts(&s, "1");
        for (int i = depth; i-- > 0;) str_puts(&s, i % 2 ? "}" : "]");
        Error e = {0};
        json_t *j = parse(s.s, &e);
        if (depth <= 64) assert_non_null(j);
        else {
            assert_null(j);
            SAYS(&e, "f:7:", "64 levels");
        }
        json_decref(j);
        str_free(&s);
    }
    // Brackets inside strings do not count.
    Str s = {0};
    str_puts(&s, "\"\\\"");
    for (int i = 0; i < 1000; i++) str_puts(&s, "[{");
    str_puts(&s, "\"");
    json_t *j = parse(s.s, NULL);
    assert_non_null(j);
    json_decref(j);
    str_free(&s);
}

static void nested_megabyte_ends_at_once(void **state) {
    size_t n = 16 << 20;
    char *text = xmalloc(n);
    for (int kind = 0; kind < 3; kind++) {
        memset(text, "[{\""[kind], n);
        double start = seconds();
        assert_null(json_parse(text, n, "f", NULL));
        assert_true(seconds() - start < 2);
    }
    free(text);
}

static void repeated_keys(void **state) {
    const char *text = "{\"a\": 1,\n \"b\": {\"c\": 1, \"c\": 2}}";
    json_t *j = json_parse(text, strlen(text), "f", NULL);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(j, "b"), "c")), 2);
    json_decref(j);
    Error e = {0};
    assert_null(json_parse_unique(text, strlen(text), "f", &e));
    SAYS(&e, "f:2:", "duplicate");
    put_text(at("x.json"), text);
    assert_null(json_read(at("x.json"), &e));
    SAYS(&e, at("x.json:2:"), "duplicate");
}

static void nul_in_strings_and_keys(void **state) {
    json_t *j = parse("{\"a\\u0000b\": \"x\\u0000y\", \"\\\\u0000\": 1}", NULL);
    assert_non_null(j);
    const json_t *value = json_object_get(j, "a\xe2\x90\x80"
                                             "b");
    assert_int_equal(json_string_length(value), 3);
    assert_memory_equal(json_string_value(value), "x\0y", 3);
    assert_non_null(json_object_get(j, "\\u0000")); // a backslash, then the text u0000: no escape
    json_decref(j);
    Error e = {0};
    assert_null(json_parse("[1]\0", 4, "f", &e));
    SAYS(&e, "f:4:", "NUL");
}

static void errors_name_the_place(void **state) {
    const struct {
        const char *text, *place;
    } bad[] = {{"{\"a\": tru}", "f:7:9: "}, {"[1, 2", "f:7:5: "},  {"", "f:7:1: "},
               {"[\"\xff\"]", "f:7:"},      {"[1] []", "f:7:5: "}, {"{\"a\":1,\n\"b\":}", "f:7:2:5: "}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Error e = {0};
        assert_null(parse(bad[i].text, &e));
        SAYS(&e, bad[i].place);
        assert_int_equal(e.code, EXIT_INPUT);
    }
    // Control bytes near an error do not reach the terminal.
    Error e = {0};
    assert_null(parse("[\x1b[31m]", &e));
    assert_null(strchr(e.text, '\x1b'));
}

static void every_prefix_is_refused(void **state) {
    const char *text = "{\"a\": [1, -2.5e3, true, null, \"\\u00e9\\ud83d\\ude00 \\\" x\"], \"b\": {}}";
    for (size_t n = 0; n < strlen(text); n++) {
        char *copy = xmalloc(n + 1); // exact size: reading past it is seen by the sanitizer
        memcpy(copy, text, n);
        copy = xrealloc(copy, n);
        assert_null(json_parse(copy, n, "f", NULL));
        free(copy);
    }
    json_t *j = parse(text, NULL);
    assert_non_null(j);
    json_decref(j);
}

static void files_are_read_whole(void **state) {
    size_t n = 300000;
    char *big = xmalloc(n);
    for (size_t i = 0; i < n; i++) big[i] = (char)(i * 7);
    put_bytes(at("big"), big, n);
    size_t got;
    Error e = {0};
    char *back = file_read(at("big"), n, &got, &e);
    assert_int_equal(got, n);
    assert_memory_equal(back, big, n);
    assert_int_equal(back[n], 0);
    free(back);
    assert_null(file_read(at("big"), n - 1, &got, &e));
    SAYS(&e, at("big"), "larger than 299999");
    free(big);
    assert_null(file_read(at("absent"), n, &got, &e));
    SAYS(&e, at("absent"), "No such file");
    assert_int_equal(e.code, EXIT_INPUT);
    assert_null(file_read(scratch, n, &got, &e));
    SAYS(&e, scratch, "directory");
    assert_int_equal(e.code, EXIT_INPUT);
}

// A number beyond 64 bits is read in the end, so nothing is said of the first try.
static void wide_numbers_leave_no_error(void **state) {
    static const char *const texts[] = {"{\"id\": 18446744073709551615}", "[1e999]"};
    for (int i = 0; i < 2; i++) {
        Error e = {0};
        json_t *j = json_parse(texts[i], strlen(texts[i]), "here", &e);
        assert_non_null(j);
        assert_string_equal(e.text, "");
        assert_int_equal(e.code, EXIT_OK);
        json_decref(j);
    }
}

// What is no number stays none where it is long, and a string that looks like one behind a NUL stays a string.
static void only_numbers_are_wide(void **state) {
    static const char *const wide[] =
        {"18446744073709551616", "-9223372036854775809", "1e999", "-1.5E+400", "1.0e400", "10e400"},
                             *const bad[] = {"018446744073709551616",
                                             "-018446744073709551616",
                                             "00e999",
                                             "01e999",
                                             "+18446744073709551616",
                                             "18446744073709551616.",
                                             "1.e999",
                                             ".1e999",
                                             "1e999e999",
                                             "1e+-999",
                                             "1e999.5",
                                             "1.5.5e999",
                                             "1844674407370955161-6",
                                             "--18446744073709551616",
                                             "18446744073709551616e",
                                             "1e+",
                                             "-"},
                             *const strings[] = {"\\u0000",
                                                 "\\u00001",
                                                 "\\u0000-",
                                                 "\\u00001e5",
                                                 "\\u000018446744073709551616x",
                                                 "\\u0000018446744073709551616",
                                                 "18446744073709551616"};
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++) {
        char *text = xasprintf("[%s, {\"a\": %s}]", wide[i], wide[i]);
        json_t *j = parse(text, NULL);
        assert_string_equal(json_wide_number(json_array_get(j, 0)), wide[i]);
        assert_string_equal(json_wide_number(json_object_get(json_array_get(j, 1), "a")), wide[i]);
        json_decref(j);
        assert_non_null(j = json_parse(wide[i], strlen(wide[i]), "f", NULL)); // alone
        assert_string_equal(json_wide_number(j), wide[i]);
        json_decref(j);
        free(text);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Error e = {0};
        char *text = xasprintf("[1e999, %s]", bad[i]);
        if (parse(text, &e) || parse(bad[i], &e)) fail_msg("accepted: %s", bad[i]);
        SAYS(&e, "f:7:");
        free(text);
    }
    for (size_t i = 0; i < sizeof strings / sizeof *strings; i++) {
        char *text = xasprintf("\"%s\"", strings[i]);
        json_t *j = parse(text, NULL);
        assert_true(json_is_written_string(j));
        assert_null(json_wide_number(j));
        Str again = {0};
        json_write(&again, j, JSON_PYTHON);
        assert_string_equal(again.s, text);
        str_free(&again);
        json_decref(j);
        free(text);
    }
    json_t *small = parse("[1e-999, -1e-999, 9223372036854775807]", NULL); // what is too small is 0, as in Python
    assert_true(json_real_value(json_array_get(small, 0)) == 0 && json_is_real(json_array_get(small, 1)));
    assert_int_equal(json_integer_value(json_array_get(small, 2)), INT64_MAX);
    json_decref(small);
}

// Such numbers are read from files too, as Python reads them, and written again as they were: model_max_length is one
// in most models' tokenizer_config.json. Other numbers come back in the fewest digits, as json.dumps writes them.
static void numbers_are_written_as_they_were(void **state) {
    static const char text[] = "{\n  \"model_max_length\": 1000000000000000019884624838656,\n  \"eps\": 1e-06,\n"
                               "  \"third\": 0.30000000000000004,\n  \"empty\": {},\n  \"none\": [],\n"
                               "  \"list\": [\n    -9223372036854775809,\n    {\n      \"x\": -1E999\n    },\n"
                               "    9223372036854775807,\n    1e+16,\n    2.0,\n    true,\n    null\n  ],\n"
                               "  \"text\": \"\\\"\\\\\\n\\t\\u0000\\u001b/\x7f\xc3\xa9\"\n}",
                      python[] = "{\"model_max_length\": 1000000000000000019884624838656, \"eps\": 1e-06, "
                                 "\"third\": 0.30000000000000004, \"empty\": {}, \"none\": [], "
                                 "\"list\": [-9223372036854775809, {\"x\": -1E999}, 9223372036854775807, 1e+16, 2.0, "
                                 "true, null], \"text\": \"\\\"\\\\\\n\\t\\u0000\\u001b/\x7f\xc3\xa9\"}",
                      tight[] =
                          "{\"model_max_length\":1000000000000000019884624838656,\"eps\":1e-06,"
                          "\"third\":0.30000000000000004,\"empty\":{},\"none\":[],"
                          "\"list\":[-9223372036854775809,{\"x\":-1E999},9223372036854775807,1e+16,2.0,true,null],"
                          "\"text\":\"\\\"\\\\\\n\\t\\u0000\\u001b/\x7f\xc3\xa9\"}";
    static const char *const wanted[] = {[JSON_PYTHON] = python, [JSON_TIGHT] = tight, [JSON_LINES] = text};
    put_text(at("x.json"), text);
    Error e = {0};
    json_t *j = json_read(at("x.json"), &e);
    assert_string_equal(e.text, "");
    assert_non_null(j);
    assert_string_equal(json_wide_number(json_object_get(j, "model_max_length")), "1000000000000000019884624838656");
    assert_false(json_is_written_string(json_object_get(j, "model_max_length")));
    assert_true(json_is_written_string(json_object_get(j, "text")));
    for (int layout = 0; layout < 3; layout++) {
        Str s = {0};
        json_write(&s, j, layout);
        assert_string_equal(s.s, wanted[layout]);
        str_free(&s);
    }
    json_decref(j);
    // Beside such a number, too, keys that repeat are refused, and an error has its line.
    put_text(at("x.json"), "{\"a\": 18446744073709551616,\n\"a\": 1}");
    assert_null(json_read(at("x.json"), &e));
    SAYS(&e, at("x.json:2:"), "duplicate");
    put_text(at("x.json"), "{\"a\": 18446744073709551616,\n\"b\": tru}");
    assert_null(json_read(at("x.json"), &e));
    SAYS(&e, at("x.json:2:"), "tru");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(suite_behaves_as_marked),
        cmocka_unit_test(depth_is_limited),
        cmocka_unit_test(nested_megabyte_ends_at_once),
        cmocka_unit_test_setup_teardown(repeated_keys, scratch_setup, scratch_teardown),
        cmocka_unit_test(nul_in_strings_and_keys),
        cmocka_unit_test(errors_name_the_place),
        cmocka_unit_test(wide_numbers_leave_no_error),
        cmocka_unit_test(only_numbers_are_wide),
        cmocka_unit_test_setup_teardown(numbers_are_written_as_they_were, scratch_setup, scratch_teardown),
        cmocka_unit_test(every_prefix_is_refused),
        cmocka_unit_test_setup_teardown(files_are_read_whole, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
