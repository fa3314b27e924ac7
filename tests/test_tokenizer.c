// The tokenizer against HF tokenizers' ids: published and computed vectors, both merge forms, flags of added tokens,
// long inputs, malformed files, streaming.
#include "host.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

static const char *data_path(const char *name) {
    static char path[4][512];
    static int turn;
    const char *root = getenv("GRPO_DATA");
    char *p = path[turn++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", root ? root : "../shared/data", name);
    return p;
}

static const char *need(const char *test, const char *name) {
    const char *path = data_path(name);
    if (access(path, R_OK) == 0) return path;
    printf("SKIP %s: %s absent\n", test, path);
    skip();
    return NULL;
}

static Tokenizer *load(const char *path) {
    Error e = {0};
    Tokenizer *t = tokenizer_load(path, &e);
    if (!t) fail_msg("%s", e.text);
    return t;
}

static Tokenizer *qwen(const char *test) {
    static Tokenizer *t; // read once for all tests
    const char *path = need(test, "qwen2.5/tokenizer.json");
    if (!t) t = load(path);
    return t;
}

static void check_ids(const Tokenizer *t, const char *text, size_t n, bool special, const json_t *wanted,
                      const char *place, size_t line) {
    Ids got = {0};
    tokenizer_encode(t, text, n, special, &got);
    bool same = got.n == json_array_size(wanted);
    for (size_t i = 0; same && i < got.n; i++) same = json_integer_value(json_array_get(wanted, i)) == got.id[i];
    if (!same) {
        Str shown = {0};
        str_json(&shown, text, n < 200 ? n : 200);
        str_puts(&shown, " gave");
        for (size_t i = 0; i < got.n && i < 40; i++) str_printf(&shown, " %d", got.id[i]);
        fail_msg("%s:%zu: %s", place, line, shown.s);
    }
    ids_free(&got);
}

typedef void Visit(const Tokenizer *t, const json_t *row, const char *path, size_t line);

static size_t each_row(const Tokenizer *t, const char *path, Visit *visit) {
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    char *text = NULL;
    size_t cap = 0, line = 0;
    for (ssize_t n; (n = getline(&text, &cap, f)) > 0;) {
        json_t *row = json_loadb(text, (size_t)n, JSON_ALLOW_NUL, NULL);
        assert_non_null(row);
        visit(t, row, path, ++line);
        json_decref(row);
    }
    free(text);
    fclose(f);
    return line;
}

static void check_row(const Tokenizer *t, const json_t *row, const char *path, size_t line) {
    const json_t *text = json_object_get(row, "text"), *special = json_object_get(row, "parse_special");
    const char *s = json_string_value(text);
    size_t n = json_string_length(text);
    check_ids(t, s, n, !special || json_is_true(special), json_object_get(row, "ids"), path, line);
    if (special && !json_is_true(special) && !strstr(s, "<|"))
        check_ids(t, s, n, true, json_object_get(row, "ids"), path, line);
}

static void test_vectors(void **state) {
    const Tokenizer *t = qwen("test_vectors");
    assert_int_equal(tokenizer_size(t), 151665);
    assert_true(each_row(t, need("test_vectors", "tokenizer/hf_tokenizers_edge.jsonl"), check_row) >= 4774);
    each_row(t, need("test_vectors", "tokenizer/published_dashscope.jsonl"), check_row);
    each_row(t, need("test_vectors", "tokenizer/published_llamacpp_qwen2.jsonl"), check_row);
    each_row(t, need("test_vectors", "tokenizer/published_hf_transformers_qwen2.jsonl"), check_row);
}

static json_t *gsm8k; // rows of train.jsonl

static void keep_row(const Tokenizer *t, const json_t *row, const char *path, size_t line) {
    json_array_append(gsm8k, (json_t *)row);
}

static void check_gsm8k(const Tokenizer *t, const json_t *row, const char *path, size_t line) {
    const json_t *source = json_array_get(gsm8k, (size_t)json_integer_value(json_object_get(row, "row")));
    const json_t *text = json_object_get(source, json_string_value(json_object_get(row, "field")));
    const json_t *ids = json_object_get(row, "ids");
    check_ids(t, json_string_value(text), json_string_length(text), true, ids, path, line);
    Ids back = {0};
    Str decoded = {0};
    for (size_t i = 0; i < json_array_size(ids); i++)
        ids_add(&back, (int32_t)json_integer_value(json_array_get(ids, i)));
    tokenizer_decode(t, back.id, back.n, false, &decoded);
    assert_int_equal(decoded.n, json_string_length(text));
    assert_memory_equal(decoded.s, json_string_value(text), decoded.n);
    ids_free(&back);
    str_free(&decoded);
}

static void test_gsm8k(void **state) {
    const Tokenizer *t = qwen("test_gsm8k");
    const char *texts = need("test_gsm8k", "gsm8k/train.jsonl"),
               *ids = need("test_gsm8k", "tokenizer/gsm8k_train_ids.jsonl");
    gsm8k = json_array();
    each_row(NULL, texts, keep_row);
    assert_int_equal(each_row(t, ids, check_gsm8k), 14946);
    json_decref(gsm8k);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_gsm8k),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
