// The data set: real GSM8K, every kind of bad line, shuffling, resuming.
#include "data.h"
#include "dataset.h"
#include "jsonl.h"
#include "str.h"
#include <string.h>
#include <sys/stat.h>

static Config config(bool shuffle, int bad_lines) {
    return (Config){.question_field = "question",
                    .answer_field = "answer",
                    .answer_marker = "####",
                    .bad_lines = bad_lines,
                    .shuffle = shuffle,
                    .seed = 42};
}

static char dir[] = "/tmp/grpo-dataset-XXXXXX", path[64];

static int make_dir(void **state) {
    if (!mkdtemp(dir)) return -1;
    snprintf(path, sizeof path, "%s/data.jsonl", dir);
    return 0;
}

static int remove_dir(void **state) {
    unlink(path);
    return rmdir(dir);
}

static void write_bytes(const char *bytes, size_t n) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void write_rows(int n) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    for (int i = 0; i < n; i++) fprintf(f, "{\"question\": \"q%d\", \"answer\": \"because #### %d\"}\n", i, i);
    assert_int_equal(fclose(f), 0);
}

static Dataset *open_or_fail(const Config *c) {
    Error e = {0};
    Dataset *d = dataset_open(path, c, NULL, &e);
    if (!d) fail_msg("%s", e.text);
    return d;
}

// Checks one GSM8K file: rows, and how many golds hold a comma, a minus sign and a point.
static void check_gsm8k(const char *file, int64_t rows, int commas, int minuses) {
    Config c = config(false, BAD_LINES_FAIL);
    Error e = {0};
    Dataset *d = dataset_open(file, &c, NULL, &e);
    if (!d) fail_msg("%s", e.text);
    assert_int_equal(dataset_rows(d), rows);
    assert_int_equal(dataset_skipped(d), 0);
    int comma = 0, minus = 0;
    for (int64_t i = 0; i < rows; i++) {
        Row row;
        assert_true(dataset_next(d, &row, &e));
        assert_int_equal(row.line, i + 1);
        assert_true(strlen(row.question) > 0);
        const char *gold = strstr(row.answer, "#### ") + 5; // exactly one in every answer
        assert_string_equal(row.gold, gold);
        assert_int_equal(strspn(row.gold, "0123456789,-"), strlen(row.gold));
        comma += strchr(row.gold, ',') != NULL;
        minus += row.gold[0] == '-';
        row_free(&row);
    }
    assert_int_equal(comma, commas);
    assert_int_equal(minus, minuses);
    assert_int_equal(dataset_cursor(d).index, rows);
    dataset_free(d);
}

static void gsm8k_train(void **state) { check_gsm8k(data_path("gsm8k_train", "gsm8k/train.jsonl"), 7473, 79, 3); }
static void gsm8k_test(void **state) { check_gsm8k(data_path("gsm8k_test", "gsm8k/test.jsonl"), 1319, 14, 2); }

// Byte-order mark, CRLF, blank lines, the last marker of several, Unicode space, no final newline.
static void forms_of_lines(void **state) {
    static const char text[] = "\xef\xbb\xbf{\"question\": \"a\", \"answer\": \"#### 0 #### 1\"}\r\n"
                               "\r\n \t\n"
                               "{\"answer\": \"####\\u3000-1,000\\n\", \"question\": \"b\", \"other\": [1]}\n"
                               "{\"question\": \"\", \"answer\": \"x####y z\"}";
    static const char *const question[] = {"a", "b", ""}, *const gold[] = {"1", "-1,000", "y z"};
    static const int64_t line[] = {1, 4, 5};
    write_bytes(text, sizeof text - 1);
    Config c = config(false, BAD_LINES_FAIL);
    Dataset *d = open_or_fail(&c);
    assert_int_equal(dataset_rows(d), 3);
    for (int i = 5; i >= 0; i--) { // any order, and again
        Row row;
        Error e;
        assert_true(dataset_row(d, i % 3, &row, &e));
        assert_string_equal(row.question, question[i % 3]);
        assert_string_equal(row.gold, gold[i % 3]);
        assert_int_equal(row.line, line[i % 3]);
        row_free(&row);
    }
    dataset_free(d);
}

static void an_empty_marker_takes_the_whole_answer(void **state) {
    static const char text[] = "{\"question\": \"a\", \"answer\": \" 7 #### 8 \"}\n";
    write_bytes(text, sizeof text - 1);
    Config c = config(false, BAD_LINES_FAIL);
    c.answer_marker = "";
    Dataset *d = open_or_fail(&c);
    Row row;
    Error e;
    assert_true(dataset_next(d, &row, &e));
    assert_string_equal(row.gold, "7 #### 8");
    row_free(&row);
    dataset_free(d);
}

// Test cases stand in the answer field as they are.
static void lists_and_objects_are_answers(void **state) {
    static const char text[] = "{\"question\": \"a\", \"answer\": [\"assert f(1) == 2\", \"x\"]}\n"
                               "{\"question\": \"a\", \"answer\": {\"inputs\": [ 1 ]}}\n";
    write_bytes(text, sizeof text - 1);
    Config c = config(false, BAD_LINES_FAIL);
    c.answer_marker = "";
    Dataset *d = open_or_fail(&c);
    static const char *const gold[] = {"[\"assert f(1) == 2\",\"x\"]", "{\"inputs\":[1]}"};
    for (int i = 0; i < 2; i++) {
        Row row;
        Error e;
        assert_true(dataset_next(d, &row, &e));
        assert_string_equal(row.gold, gold[i]);
        row_free(&row);
    }
    dataset_free(d);
}

#define GOOD "{\"question\": \"a\", \"answer\": \"#### 1\"}\n"
#define BAD(text, why)                                                                                                 \
    { text, sizeof(text) - 1, why }

// Each of these stops a run with file:line, or is counted and left out, whatever the place.
static void bad_lines(void **state) {
    static const struct {
        const char *text;
        size_t n;
        const char *why;
    } cases[] = {
        BAD("[1]", "not a JSON object"),
        BAD("7", "data.jsonl:2"),
        BAD("{\"question\": \"a\"}", "no field \"answer\""),
        BAD("{\"answer\": \"#### 1\"}", "no field \"question\""),
        BAD("{\"question\": 7, \"answer\": \"#### 1\"}", "\"question\" is not a string"),
        BAD("{\"question\": \"a\", \"answer\": null}", "\"answer\" is not a string"),
        BAD("{\"question\": \"a\", \"answer\": \"1\"}", "answer_marker"),
        BAD("{\"question\": \"a\", \"answer\": \"#### \"}", "empty"),
        BAD("{\"question\": \"a\\u0000b\", \"answer\": \"#### 1\"}", "NUL"),
        BAD("{\"question\": \"a\", \"answer\": \"#### 1\"", "data.jsonl:2"),
        BAD("{\"question\": \"a\", \"answer\": \"#### 1\"} x", "data.jsonl:2"),
        BAD("{\"question\": \"\xff\", \"answer\": \"#### 1\"}", "data.jsonl:2"),
        BAD("{\"question\": \"a\0\", \"answer\": \"#### 1\"}", "data.jsonl:2"),
        BAD("\0", "data.jsonl:2"),
        BAD("\xef\xbb\xbf{\"question\": \"a\", \"answer\": \"#### 1\"}", "data.jsonl:2"),
        BAD("question,answer", "data.jsonl:2"),
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Str s = {0};
        str_puts(&s, GOOD);
        str_add(&s, cases[i].text, cases[i].n);
        str_puts(&s, "\n" GOOD);
        write_bytes(s.s, s.n);
        str_free(&s);
        Config c = config(false, BAD_LINES_FAIL);
        Error e = {0};
        assert_null(dataset_open(path, &c, NULL, &e));
        assert_int_equal(e.code, EXIT_INPUT);
        if (!strstr(e.text, cases[i].why)) fail_msg("'%s' is not in: %s", cases[i].why, e.text);
        assert_non_null(strstr(e.text, "data.jsonl:2"));
        c.bad_lines = BAD_LINES_SKIP;
        Dataset *d = open_or_fail(&c);
        assert_int_equal(dataset_rows(d), 2);
        assert_int_equal(dataset_skipped(d), 1);
        Row row;
        assert_true(dataset_row(d, 1, &row, &e));
        assert_int_equal(row.line, 3);
        row_free(&row);
        dataset_free(d);
    }
}

// A sparse file whose second line has 1 GB: refused in bounded memory; the lines around it are still good.
static void a_huge_line(void **state) {
    write_bytes(GOOD, sizeof GOOD - 1);
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    assert_int_equal(fseeko(f, (off_t)1 << 30, SEEK_SET), 0);
    fputs("\n" GOOD, f);
    assert_int_equal(fclose(f), 0);
    Config c = config(false, BAD_LINES_FAIL);
    Error e = {0};
    assert_null(dataset_open(path, &c, NULL, &e));
    assert_int_equal(e.code, EXIT_INPUT);
    assert_non_null(strstr(e.text, "data.jsonl:2: the line is longer than 16 MiB"));
    c.bad_lines = BAD_LINES_SKIP;
    Dataset *d = open_or_fail(&c);
    assert_int_equal(dataset_rows(d), 2);
    Row row;
    assert_true(dataset_row(d, 1, &row, &e));
    assert_int_equal(row.line, 3);
    assert_string_equal(row.gold, "1");
    row_free(&row);
    dataset_free(d);
}

// Lines just under and just over the limit, and one that crosses every buffer size on the way.
static void lines_near_the_limit(void **state) {
    for (size_t extra = 0; extra < 2; extra++) {
        Str s = {0};
        str_puts(&s, "{\"question\": \"");
        size_t tail = strlen("\", \"answer\": \"#### 1\"}\n");
        while (s.n + tail < JSONL_MAX_LINE + extra) str_puts(&s, "x");
        str_puts(&s, "\", \"answer\": \"#### 1\"}\n" GOOD);
        write_bytes(s.s, s.n);
        str_free(&s);
        Config c = config(false, BAD_LINES_SKIP);
        Dataset *d = open_or_fail(&c);
        assert_int_equal(dataset_rows(d), 2 - (int)extra);
        Row row;
        Error e;
        assert_true(dataset_row(d, 0, &row, &e));
        assert_int_equal(row.line, 1 + (int)extra);
        row_free(&row);
        dataset_free(d);
    }
}

// More than 2^31 bytes lie before the last row.
static void a_file_over_two_gigabytes(void **state) {
    write_bytes("", 0);
    FILE *f = fopen(path, "r+");
    assert_non_null(f);
    fseeko(f, ((off_t)1 << 31) + 5, SEEK_SET);
    fputs("\n" GOOD GOOD, f);
    assert_int_equal(fclose(f), 0);
    Config c = config(false, BAD_LINES_SKIP);
    Dataset *d = open_or_fail(&c);
    assert_int_equal(dataset_rows(d), 2);
    Row row;
    Error e;
    assert_true(dataset_row(d, 1, &row, &e));
    assert_int_equal(row.line, 3);
    row_free(&row);
    dataset_free(d);
}

static void refused(const char *file, int bad, const char *why) {
    Config c = config(false, bad);
    Error e = {0};
    assert_null(dataset_open(file, &c, NULL, &e));
    assert_int_equal(e.code, EXIT_INPUT);
    if (!strstr(e.text, why)) fail_msg("'%s' is not in: %s", why, e.text);
}

// Numbers are answers too, of any size; what does not fit elsewhere in a line is nobody's business.
static void numbers_are_taken_as_their_text(void **state) {
    static const struct {
        const char *answer, *gold;
    } cases[] = {{"5", "5"},
                 {"-7", "-7"},
                 {"2.5", "2.5"},
                 {"5.0", "5.0"},
                 {"0.1", "0.1"},
                 {"18446744073709551616", "18446744073709551616"},
                 {"-9223372036854775809", "-9223372036854775809"},
                 {"[1, 18446744073709551616, \"1\"]", "[1,18446744073709551616,\"1\"]"},
                 {"\"18446744073709551616\"", "18446744073709551616"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *line = xasprintf("{\"question\": \"q\", \"answer\": %s, \"id\": 18446744073709551615, \"x\": {\"y\": "
                               "[-1e999, \"\\\"1e999\"]}}\n",
                               cases[i].answer);
        write_bytes(line, strlen(line));
        free(line);
        Config c = config(false, BAD_LINES_FAIL);
        c.answer_marker = "";
        Dataset *d = open_or_fail(&c);
        Row row;
        Error e;
        assert_true(dataset_row(d, 0, &row, &e));
        assert_string_equal(row.gold, cases[i].gold);
        row_free(&row);
        dataset_free(d);
    }
    static const char wide[] = "{\"question\": 18446744073709551615, \"answer\": \"#### 1\"}\n";
    write_bytes(wide, sizeof wide - 1);
    refused(path, BAD_LINES_FAIL, "\"question\" is not a string");
}

// What is no JSONL is named, whatever bad_lines says, with the line that makes it some.
static void other_formats_are_named(void **state) {
    static const struct {
        const char *bytes;
        size_t n;
        const char *says;
    } cases[] = {{"PAR1\x15\x04\x15\x00", 8, "is a Parquet table; run: python3 -c"},
                 {"\x1f\x8b\x08\x00", 4, "is compressed by gzip; run: gzip -dc"},
                 {"\x28\xb5\x2f\xfd....", 8, "is compressed by zstd; run: zstd -dc"},
                 {"\xff\xfe{\0\"\0", 6, "is text in UTF-16; run: iconv -f UTF-16"},
                 {"version https://git-lfs.github.com/spec/v1\n", 43, "is a Git LFS pointer"},
                 {"question,answer\nWhat?,5\n", 24, "is a table in CSV; run: python3 -c"},
                 {"question\tanswer\nWhat?\t5\n", 24, "is a table with tabs; run"},
                 {"[{\"question\": \"a\", \"answer\": \"#### 1\"}]\n", 41, "is one JSON list"},
                 {"[\n  {\n", 6, "is one JSON list, not an object a line; run: jq -c '.[]'"},
                 {"{\n  \"question\": 1\n}\n", 20, "is JSON over many lines"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_bytes(cases[i].bytes, cases[i].n);
        refused(path, BAD_LINES_SKIP, cases[i].says);
    }
    static const char odd[] = "oops, not JSON\n[1]\n" GOOD; // bad lines, no other format
    write_bytes(odd, sizeof odd - 1);
    Config c = config(false, BAD_LINES_SKIP);
    Dataset *d = open_or_fail(&c);
    assert_int_equal(dataset_skipped(d), 2);
    dataset_free(d);
}

static void no_data(void **state) {
    write_bytes("", 0);
    refused(path, BAD_LINES_FAIL, "the data set is empty");
    write_bytes("\n\r\n  \n", 6);
    refused(path, BAD_LINES_SKIP, "the data set is empty");
    write_bytes("\xef\xbb\xbf", 3);
    refused(path, BAD_LINES_FAIL, "the data set is empty");
    write_bytes("{}\n{}\n", 6);
    refused(path, BAD_LINES_SKIP, "no good line; 2 bad, the first");
    refused(dir, BAD_LINES_FAIL, "directory");
    refused("/nonexistent/x.jsonl", BAD_LINES_FAIL, "No such file");
    refused("/dev/null", BAD_LINES_FAIL, "is a device");
}

// Rows are asked what a run needs of them, and fare as bad lines do; what stops a run whatever the policy does.
static RowFate odd_fate(const void *arg, const Row *row, Error *e) {
    int n = atoi(row->gold);
    if (n % 2 == 0) return ROW_GOOD;
    error_set(e, EXIT_INPUT, "%d is odd", n);
    return n == *(const int *)arg ? ROW_FATAL : ROW_BAD;
}

static void rows_are_asked_as_the_file_is_opened(void **state) {
    enum { ROWS = 9001 }; // more than are looked at at once
    write_rows(ROWS);
    int fatal = 8999, none = -1;
    Config c = config(false, BAD_LINES_FAIL);
    Error e = {0};
    assert_null(dataset_open(path, &c, &(RowCheck){odd_fate, &none}, &e));
    assert_non_null(strstr(e.text, "data.jsonl:2: 1 is odd"));
    c.bad_lines = BAD_LINES_SKIP;
    assert_null(dataset_open(path, &c, &(RowCheck){odd_fate, &fatal}, &e));
    assert_non_null(strstr(e.text, "data.jsonl:9000: 8999 is odd"));
    Dataset *d = dataset_open(path, &c, &(RowCheck){odd_fate, &none}, &e);
    assert_non_null(d);
    assert_int_equal(dataset_rows(d), 4501);
    assert_int_equal(dataset_skipped(d), 4500);
    assert_string_equal(dataset_skipped_text(dataset_skipped(d)), " (4500 bad lines left out)");
    for (int i = 0; i < 4501; i++) {
        Row row;
        assert_true(dataset_row(d, i, &row, &e));
        assert_int_equal(row.line, 2 * i + 1);
        row_free(&row);
    }
    dataset_free(d);
}

static void a_file_that_shrinks_is_noticed(void **state) {
    write_rows(10);
    Config c = config(false, BAD_LINES_FAIL);
    Dataset *d = open_or_fail(&c);
    assert_int_equal(truncate(path, 100), 0);
    Row row;
    Error e = {0};
    assert_false(dataset_row(d, 9, &row, &e));
    assert_non_null(strstr(e.text, "data.jsonl:10"));
    assert_false(dataset_row(d, 2, &row, &e)); // cut in its middle
    assert_non_null(strstr(e.text, "data.jsonl:3"));
    assert_true(dataset_row(d, 0, &row, &e));
    row_free(&row);
    dataset_free(d);
}

static void every_epoch_is_another_permutation(void **state) {
    static const int64_t sizes[] = {1, 2, 3, 4, 5, 16, 17, 1000, 7473, 65537};
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        int64_t n = sizes[k], same = 0;
        unsigned char *seen = xcalloc((size_t)n, 1);
        for (int64_t epoch = 0; epoch < 3; epoch++) {
            for (int64_t i = 0; i < n; i++) {
                int64_t x = shuffle_index(42, epoch, n, i);
                assert_true(x >= 0 && x < n);
                assert_int_equal(seen[x], epoch);
                seen[x]++;
                same += x == shuffle_index(42, epoch + 1, n, i);
                same += x == shuffle_index(43, epoch, n, i);
            }
        }
        if (n >= 1000) assert_true(same < 40); // 6 n pairs that agree with chance 1 / n
        free(seen);
    }
}

// Where the first row lands over many epochs is uniform (chi-square with 15 degrees of freedom, p = 1e-4), and so is
// the step between neighbours.
static void shuffling_is_uniform(void **state) {
    enum { N = 16, EPOCHS = 16000 };
    double at[N] = {0}, step[N] = {0}, chi_at = 0, chi_step = 0;
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++) {
        int64_t a = shuffle_index(7, epoch, N, 0), b = shuffle_index(7, epoch, N, 1);
        at[a]++;
        step[(b - a + N) % N]++;
    }
    assert_true(step[0] == 0);
    for (int i = 0; i < N; i++) chi_at += (at[i] - EPOCHS / N) * (at[i] - EPOCHS / N) / (EPOCHS / N);
    double mean = EPOCHS / (N - 1.0);
    for (int i = 1; i < N; i++) chi_step += (step[i] - mean) * (step[i] - mean) / mean;
    assert_true(chi_at < 44.3);
    assert_true(chi_step < 42.6); // 14 degrees
}

// A run that stops anywhere goes on with the same rows.
static void a_cursor_resumes(void **state) {
    enum { ROWS = 23, TAKEN = 60 };
    write_rows(ROWS);
    Config c = config(true, BAD_LINES_FAIL);
    char *straight[TAKEN];
    Row row;
    Error e;
    Dataset *d = open_or_fail(&c);
    for (int i = 0; i < TAKEN; i++) {
        assert_true(dataset_next(d, &row, &e));
        straight[i] = xstrdup(row.gold);
        row_free(&row);
    }
    dataset_free(d);
    for (int stop = 0; stop < TAKEN; stop += 7) {
        d = open_or_fail(&c);
        for (int i = 0; i < stop; i++) {
            assert_true(dataset_next(d, &row, &e));
            row_free(&row);
        }
        Cursor cursor = dataset_cursor(d);
        dataset_free(d);
        d = open_or_fail(&c);
        dataset_seek(d, cursor);
        for (int i = stop; i < TAKEN; i++) {
            assert_true(dataset_next(d, &row, &e));
            assert_string_equal(row.gold, straight[i]);
            row_free(&row);
        }
        dataset_free(d);
    }
    bool in_file_order = true;
    for (int i = 0; i < ROWS; i++) in_file_order &= atoi(straight[i]) == i;
    assert_false(in_file_order);
    for (int i = 0; i < TAKEN; i++) free(straight[i]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gsm8k_train),
        cmocka_unit_test(gsm8k_test),
        cmocka_unit_test(forms_of_lines),
        cmocka_unit_test(an_empty_marker_takes_the_whole_answer),
        cmocka_unit_test(lists_and_objects_are_answers),
        cmocka_unit_test(bad_lines),
        cmocka_unit_test(a_huge_line),
        cmocka_unit_test(lines_near_the_limit),
        cmocka_unit_test(a_file_over_two_gigabytes),
        cmocka_unit_test(no_data),
        cmocka_unit_test(numbers_are_taken_as_their_text),
        cmocka_unit_test(other_formats_are_named),
        cmocka_unit_test(rows_are_asked_as_the_file_is_opened),
        cmocka_unit_test(a_file_that_shrinks_is_noticed),
        cmocka_unit_test(every_epoch_is_another_permutation),
        cmocka_unit_test(shuffling_is_uniform),
        cmocka_unit_test(a_cursor_resumes),
    };
    return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
