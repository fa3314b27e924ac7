// Chat templates against the real ones' output, text and ids; R1-Zero's form; what is refused.
#include "chat.h"
#include "data.h"
#include "file.h"
#include "json.h"
#include "jsonl.h"
#include "outdir.h"
#include "tokenizer.h"
#include <stdlib.h>
#include <string.h>

static char *render(const char *template, const char *messages, bool generate, Error *e) {
    json_t *m = json_parse(messages, strlen(messages), "test", NULL);
    assert_non_null(m);
    Str out = {0};
    str_puts(&out, "");
    bool ok = chat_render(template, m, NULL, generate, &out, e);
    json_decref(m);
    if (ok) return out.s;
    str_free(&out);
    return NULL;
}

static void test_vectors(void **state) {
    char *tokenizer_json = xstrdup(data_path("test_vectors", "qwen2.5/tokenizer.json"));
    const char *path = data_path("test_vectors", "tokenizer/chat_template_vectors.jsonl");
    Error e = {0};
    Tokenizer *t = tokenizer_load(tokenizer_json, &e);
    if (!t) fail_msg("%s", e.text);
    LineReader reader;
    assert_true(line_reader_open(&reader, path, &e));
    char *line;
    size_t n;
    int rows = 0;
    for (; line_reader_next(&reader, &line, &n, &e) > 0; rows++) {
        json_t *row = json_loadb(line, n, 0, NULL);
        const char *name = json_string_value(json_object_get(row, "name"));
        bool base = !strcmp(json_string_value(json_object_get(row, "model")), "base");
        Str out = {0};
        if (!chat_render(base ? "qwen2.5-base" : "qwen2.5", json_object_get(row, "messages"),
                         json_object_get(row, "tools"), json_is_true(json_object_get(row, "add_generation_prompt")),
                         &out, &e))
            fail_msg("%s: %s", name, e.text);
        if (strcmp(out.s, json_string_value(json_object_get(row, "text")))) fail_msg("%s:\n%s", name, out.s);
        Ids ids = {0};
        tokenizer_encode(t, out.s, out.n, true, &ids);
        const json_t *wanted = json_object_get(row, "ids");
        assert_int_equal(ids.n, json_array_size(wanted));
        for (size_t i = 0; i < ids.n; i++)
            if (ids.id[i] != json_integer_value(json_array_get(wanted, i))) fail_msg("%s: id %zu differs", name, i);
        ids_free(&ids);
        str_free(&out);
        json_decref(row);
    }
    assert_int_equal(rows, 92);
    line_reader_close(&reader);
    tokenizer_free(t);
    free(tokenizer_json);
}

// Tools and arguments stand in the text as Python's json.dumps writes them. Expected strings are Python's.
static void test_json_as_python(void **state) {
    static const char *const pairs[][2] = {
        {"{\"b\": 1, \"a\": [ ], \"c\": { }}", "{\"b\": 1, \"a\": [], \"c\": {}}"},
        {"[true,false,null,-7]", "[true, false, null, -7]"},
        {"\"q\\\" \\\\ \\/ \\b\\f\\n\\r\\t \\u0001\\u007f\\u00e9\\ud83d\\ude00 <b>&'\"",
         "\"q\\\" \\\\ / \\b\\f\\n\\r\\t \\u0001\x7f\u00e9\U0001F600 <b>&'\""},
        {"[0.1, 1.0, -0.0, 100.0, 1e15, 1e16, 123456789012345678.0, 0.0001, 0.00001, 1.5e-7, 3.14159, 1e300, 2.5e22]",
         "[0.1, 1.0, -0.0, 100.0, 1000000000000000.0, 1e+16, 1.2345678901234568e+17, 0.0001, 1e-05, 1.5e-07, 3.14159, "
         "1e+300, 2.5e+22]"},
    };
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        json_t *messages = json_pack("[{s:s, s:n, s:[{s:s, s:o}]}]", "role", "assistant", "content", "tool_calls",
                                     "name", "f", "arguments", json_loads(pairs[i][0], JSON_DECODE_ANY, NULL));
        Error e = {0};
        Str out = {0};
        assert_true(chat_render("qwen2.5", messages, NULL, false, &out, &e));
        char *wanted =
            xasprintf("<|im_start|>assistant\n<tool_call>\n{\"name\": \"f\", \"arguments\": %s}\n</tool_call>"
                      "<|im_end|>\n",
                      pairs[i][1]);
        const char *got = strstr(out.s, "<|im_start|>assistant");
        assert_string_equal(got, wanted);
        free(wanted);
        str_free(&out);
        json_decref(messages);
    }
}

// Numbers beyond 64 bits are numbers to Qwen3's template, as transformers 5.24 renders it: no texts, and no thoughts.
static void test_wide_numbers(void **state) {
    Error e = {0};
    char *text = render("qwen3",
                        "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"assistant\",\"content\":"
                        "\"<think>\\nt\\n</think>\\n\\nb\",\"reasoning_content\":18446744073709551616,\"tool_calls\":["
                        "{\"name\":\"f\",\"arguments\":18446744073709551616},"
                        "{\"name\":\"g\",\"arguments\":{\"x\":[18446744073709551616,\"\\u00005\"]}},"
                        "{\"name\":\"h\",\"arguments\":\"{\\\"y\\\": 1}\"}]}]",
                        false, &e);
    if (!text) fail_msg("%s", e.text);
    assert_string_equal(
        text,
        "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n<think>\nt\n</think>\n\nb\n<tool_call>\n{\"name\": "
        "\"f\", \"arguments\": 18446744073709551616}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": "
        "{\"x\": [18446744073709551616, \"\\u00005\"]}}\n</tool_call>\n<tool_call>\n{\"name\": \"h\", \"arguments\": "
        "{\"y\": 1}}\n</tool_call><|im_end|>\n");
    free(text);
}

static void test_r1_zero(void **state) {
    Error e = {0};
    Str prompt = {0};
    assert_true(chat_prompt("r1-zero", NULL, NULL, 0, "What is 2+2?", &prompt, &e));
    assert_non_null(strstr(prompt.s, "<think>"));
    assert_non_null(strstr(prompt.s, "\n\nUser: What is 2+2?\nAssistant:\n"));
    assert_int_equal(strlen(strstr(prompt.s, "Assistant:\n")), strlen("Assistant:\n"));
    str_free(&prompt);
    char *text = render("r1-zero",
                        "[{\"role\":\"system\",\"content\":\"S\"},{\"role\":\"user\",\"content\":\"a\"},"
                        "{\"role\":\"assistant\",\"content\":\"b\"},{\"role\":\"user\",\"content\":\"c\"}]",
                        true, &e);
    assert_string_equal(text, "S\n\nUser: a\nAssistant:\nb\n\nUser: c\nAssistant:\n");
    free(text);
}

static void test_prompt(void **state) {
    Error e = {0};
    Str out = {0};
    assert_true(chat_prompt("qwen2.5", chat_system_prompt, NULL, 0, "Q\xff", &out, &e)); // any bytes
    char *wanted = xasprintf("<|im_start|>system\n%s<|im_end|>\n<|im_start|>user\nQ\xff<|im_end|>\n"
                             "<|im_start|>assistant\n",
                             chat_system_prompt);
    assert_string_equal(out.s, wanted);
    str_clear(&out);
    assert_true(chat_prompt("qwen2.5-base", NULL, NULL, 0, "Q", &out, &e));
    assert_non_null(strstr(out.s, "system\nYou are a helpful assistant.<|im_end|>"));
    free(wanted);
    str_free(&out);
}

// A conversation's text, and the bytes that are learned of it, as transformers and TRL have them.
static void check_golden(const char *table) {
    json_t *golden = json_load_file("tests/golden/chat.json", 0, NULL), *c;
    Error e = {0};
    Tokenizer *t = tokenizer_load("models/tiny", &e);
    size_t i;
    assert_true(golden && t);
    json_array_foreach(json_object_get(golden, table), i, c) {
        Str out = {0};
        ChatSpans said = {0};
        Ids ids = {0}; // of the text cut where what is learned begins and ends
        char learned[4096] = "";
        const json_t *row = json_object_get(c, "row");
        const char *name = json_string_value(json_object_get(c, "name"));
        if (!chat_render_said(json_string_value(json_object_get(c, "template")), json_object_get(row, "messages"),
                              json_object_get(row, "tools"), false, &said, &out, &e))
            fail_msg("%s: %s", name, e.text);
        assert_string_equal(out.s, json_string_value(json_object_get(c, "text")));
        for (size_t k = 0, at = 0; k <= 2 * said.n; k++) {
            size_t end = k == 2 * said.n ? out.n : k % 2 ? said.item[k / 2].end : said.item[k / 2].begin;
            tokenizer_encode(t, out.s + at, end - at, true, &ids);
            while (strlen(learned) < ids.n) strcat(learned, k % 2 ? "1" : "0");
            at = end;
        }
        const json_t *wanted = json_object_get(c, "ids");
        assert_int_equal(ids.n, json_array_size(wanted));
        for (size_t k = 0; k < ids.n; k++) assert_int_equal(ids.id[k], json_integer_value(json_array_get(wanted, k)));
        assert_string_equal(learned, json_string_value(json_object_get(c, "learned")));
        ids_free(&ids);
        str_free(&out);
        free(said.item);
    }
    assert_true(i > 10);
    json_decref(golden);
    tokenizer_free(t);
}
static void test_golden(void **state) { check_golden("rows"), check_golden("families"); }

// Whole conversations of the other families, as transformers renders them.
static void test_renders(void **state) {
    json_t *golden = json_load_file("tests/golden/chat.json", 0, NULL), *c;
    size_t i;
    json_array_foreach(json_object_get(golden, "renders"), i, c) {
        const json_t *row = json_object_get(c, "row");
        Str out = {0};
        Error e = {0};
        if (!chat_render(json_string_value(json_object_get(c, "template")), json_object_get(row, "messages"),
                         json_object_get(row, "tools"), json_is_true(json_object_get(c, "generate")), &out, &e))
            fail_msg("render %zu: %s", i, e.text);
        assert_string_equal(out.s, json_string_value(json_object_get(c, "text")));
        str_free(&out);
    }
    assert_true(i > 100);
    json_decref(golden);
}

// What checkpoints carry is what tools/golden_chat.py held against transformers' own rendering.
static void test_jinja(void **state) {
    static const char *const names[] = {"qwen2.5",       "qwen2.5-base", "r1-zero", "qwen3",
                                        "qwen3-nothink", "llama3",       "llama3.1"};
    for (int i = 0; i < 7; i++) {
        Error e = {0};
        size_t n;
        char *path = xasprintf("tests/golden/chat_template.%s.jinja", names[i]), *own = chat_jinja(names[i]);
        char *golden = file_read(path, 1 << 16, &n, &e);
        assert_non_null(golden);
        assert_string_equal(own, golden);
        free(golden), free(own), free(path);
    }
}

static const char *template_of(const char *tokenizer, bool known) {
    const char *name;
    char *unknown;
    Error e = {0};
    if (!chat_template_of(tokenizer, &name, &unknown, &e)) fail_msg("%s", e.text);
    assert_int_equal(unknown == NULL, known);
    free(unknown);
    return name;
}

static void put(const char *dir, const char *name, const char *text) {
    char *path = xasprintf("%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_true(f && fputs(text, f) >= 0 && !fclose(f));
    free(path);
}

// The Jinja file comes first, then the configuration's text or its list; another text than ours is not taken for ours.
static void test_template_files(void **state) {
    char dir[] = "/tmp/grpo-chat-XXXXXX", *base = chat_jinja("qwen2.5-base"), *zero = chat_jinja("r1-zero");
    assert_non_null(mkdtemp(dir));
    char *tokenizer = xasprintf("%s/tokenizer.json", dir);
    const char *name;
    Error e = {0};
    assert_null(template_of(tokenizer, true));
    assert_true(chat_template_choose("auto", tokenizer, &name, &e));
    assert_string_equal(name, "qwen2.5");
    json_t *config = json_pack("{s:[{s:s, s:s}, {s:s, s:s}]}", "chat_template", "name", "tool_use", "template", "x",
                               "name", "default", "template", base);
    char *text = json_dumps(config, 0);
    put(dir, "tokenizer_config.json", text);
    assert_string_equal(template_of(tokenizer, true), "qwen2.5-base");
    put(dir, "chat_template.jinja", zero);
    assert_string_equal(template_of(tokenizer, true), "r1-zero");
    char *edited = strstr(zero, "solves it");
    memcpy(edited, "solves 17", 9);
    put(dir, "chat_template.jinja", zero);
    assert_null(template_of(tokenizer, false));
    assert_false(chat_template_choose("auto", tokenizer, &name, &e));
    assert_non_null(strstr(e.text, "chat_template.jinja: the chat template is none that is known"));
    assert_non_null(strstr(e.text, "chat_template=qwen2.5, qwen2.5-base, qwen3, qwen3-nothink, llama3, llama3.1 or "
                                   "r1-zero"));
    assert_int_equal(e.code, EXIT_INPUT);
    assert_true(chat_template_choose("qwen2.5-base", tokenizer, &name, &e));
    assert_string_equal(name, "qwen2.5-base");
    put(dir, "chat_template.jinja", "");
    assert_null(template_of(tokenizer, false));
    assert_true(disk_remove(dir, &e));
    free(text), free(base), free(zero), free(tokenizer);
    json_decref(config);
}

static void test_template_of(void **state) {
    char *dir = xstrdup(data_path("test_template_of", "qwen2.5/Qwen2.5-0.5B-Instruct/tokenizer_config.json"));
    strcpy(strrchr(dir, '/') + 1, "tokenizer.json");
    assert_string_equal(template_of(dir, true), "qwen2.5");
    free(dir);
    dir = xstrdup(data_path("test_template_of", "qwen2.5/Qwen2.5-0.5B/tokenizer_config.json"));
    strcpy(strrchr(dir, '/') + 1, "tokenizer.json");
    assert_string_equal(template_of(dir, true), "qwen2.5-base");
    free(dir);
    assert_string_equal(template_of("models/tiny/tokenizer.json", true), "qwen2.5");
    assert_null(template_of("nowhere/tokenizer.json", true));
}

static void test_refused(void **state) {
    static const char *const cases[][3] = {
        // template, messages, what the error says
        {"qwen", "[{\"role\":\"user\",\"content\":\"a\"}]", "qwen2.5, qwen2.5-base, qwen3, qwen3-nothink, llama3"},
        {"llama3", "[{\"role\":\"tool\",\"content\":\"a\"}]", "no place for the role \"tool\""},
        {"qwen2.5", "[]", "at least one message"},
        {"qwen2.5", "{}", "not a list"},
        {"qwen2.5", "[\"a\"]", "messages[0]: no string \"role\""},
        {"qwen2.5", "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"user\"}]",
         "messages[1]: no string \"content\""},
        {"qwen2.5", "[{\"role\":\"user\",\"content\":[]}]", "messages[0]: no string \"content\""},
        {"qwen2.5", "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"developer\",\"content\":\"a\"}]", "developer"},
        {"qwen2.5", "[{\"role\":\"assistant\",\"tool_calls\":[{\"name\":\"f\"}]}]", "tool_calls[0]"},
        {"qwen2.5", "[{\"role\":\"assistant\",\"tool_calls\":[3]}]", "tool_calls[0]"},
        // A number beyond 64 bits is no text.
        {"qwen2.5", "[{\"role\":18446744073709551616,\"content\":\"a\"}]", "messages[0]: no string \"role\""},
        {"qwen2.5", "[{\"role\":\"user\\u0000\",\"content\":\"a\"}]", "messages[0]: no string \"role\""},
        {"llama3", "[{\"role\":\"user\",\"content\":18446744073709551616}]", "messages[0]: no string \"content\""},
        {"qwen3", "[{\"role\":\"assistant\",\"tool_calls\":[{\"name\":18446744073709551616,\"arguments\":{}}]}]",
         "tool_calls[0]"},
        {"qwen2.5", "[{\"role\":\"assistant\",\"content\":\"\",\"tool_calls\":3}]", "\"tool_calls\" is not a list"},
        {"r1-zero", "[{\"role\":\"tool\",\"content\":\"a\"}]", "messages[0]"},
        {"r1-zero", "[{\"role\":\"user\",\"content\":\"a\"},{\"role\":\"system\",\"content\":\"a\"}]", "messages[1]"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Error e = {0};
        assert_null(render(cases[i][0], cases[i][1], true, &e));
        if (!strstr(e.text, cases[i][2])) fail_msg("case %zu says: %s", i, e.text);
        assert_int_equal(e.code, i == 0 ? EXIT_CONFIG : EXIT_INPUT);
    }
    Error e = {0};
    Str out = {0};
    json_t *messages = json_pack("[{s:s, s:s}]", "role", "user", "content", "a"), *tools = json_pack("[{}]");
    assert_false(chat_render("r1-zero", messages, tools, true, &out, &e));
    assert_non_null(strstr(e.text, "tools"));
    json_decref(tools);
    // transformers' template takes a list of objects; a text of one is TRL's.
    static const char *const bad[][2] = {{"[5]", "tools[0] is not an object"},
                                         {"[{}, null]", "tools[1]"},
                                         {"[[{}]]", "tools[0]"},
                                         {"\"[5]\"", "tools[0]"},
                                         {"[18446744073709551615]", "tools[0]"},
                                         {"{}", "\"tools\" is not a list"},
                                         {"5", "\"tools\" is not a list"},
                                         {"18446744073709551616", "\"tools\" is not a list"},
                                         {"\"x\"", "\"tools\":1"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_non_null(tools = json_parse(bad[i][0], strlen(bad[i][0]), "here", &e));
        assert_false(chat_render("qwen2.5", messages, tools, true, &out, &e));
        if (!strstr(e.text, bad[i][1]) || e.code != EXIT_INPUT) fail_msg("%s: %s", bad[i][0], e.text);
        json_decref(tools);
    }
    json_decref(messages);
    str_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors), cmocka_unit_test(test_json_as_python), cmocka_unit_test(test_r1_zero),
        cmocka_unit_test(test_prompt),  cmocka_unit_test(test_golden),         cmocka_unit_test(test_renders),
        cmocka_unit_test(test_jinja),   cmocka_unit_test(test_template_files), cmocka_unit_test(test_template_of),
        cmocka_unit_test(test_refused), cmocka_unit_test(test_wide_numbers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
