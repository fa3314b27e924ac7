// tokenizer.json files that are malformed, or ask for what is not computed: each is refused with file and place.
#include "file.h"
#include "tokenizer.h"
#include "tokenizer_edit.h"

static void check_refused(const char *path, const char *says, const char *what) {
    Error e = {0};
    Tokenizer *t = tokenizer_load(path, &e);
    if (t) fail_msg("%s: taken", what);
    assert_int_equal(e.code, EXIT_INPUT);
    assert_non_null(strstr(e.text, "tokenizer.json"));
    if (!strstr(e.text, says)) fail_msg("%s: %s", what, e.text);
}

static void write_text(const char *path, const char *text, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    fclose(f);
}

// Edits are merged into the tiny tokenizer's file.
static const struct {
    const char *edit, *says;
} refused[] = {
    {"{'normalizer': {'type': 'NFKC'}}", "normalizer: type NFKC"},
    {"{'normalizer': {'type': 'Sequence', 'normalizers': [{'type': 'NFC'}, {'type': 'Lowercase'}]}}", "Lowercase"},
    {"{'normalizer': 3}", "normalizer: type (not an object)"},
    {"{'normalizer': {'type': null}}", "normalizer: type (no type)"},
    {"{'pre_tokenizer': null}", "no ByteLevel"},
    {"{'pre_tokenizer': {'type': 'Metaspace', 'pretokenizers': null}}", "Metaspace"},
    {"{'pre_tokenizer': {'pretokenizers': []}}", "no ByteLevel"},
    {"{'pre_tokenizer': {'pretokenizers': [{'type': 'ByteLevel', 'add_prefix_space': true}]}}", "add_prefix_space"},
    {"{'pre_tokenizer': {'pretokenizers': [{'type': 'ByteLevel', 'add_prefix_space': false, 'use_regex': false}, "
     "{'type': 'Digits'}]}}",
     "Digits after ByteLevel"},
    {"{'pre_tokenizer': {'pretokenizers': [{'type': 'Split', 'pattern': {'String': ' '}, 'behavior': 'Isolated'}]}}",
     "pattern.Regex"},
    {"{'pre_tokenizer': {'pretokenizers': [{'type': 'Split', 'pattern': {'Regex': ' '}, 'behavior': 'Removed'}]}}",
     "behavior Isolated"},
    {"{'pre_tokenizer': {'pretokenizers': [{'type': 'Split', 'pattern': {'Regex': ' '}, 'behavior': 'Isolated', "
     "'invert': true}]}}",
     "invert"},
    {"{'post_processor': {'type': 'BertProcessing'}}", "BertProcessing"},
    {"{'post_processor': {'type': 'TemplateProcessing'}}", "TemplateProcessing without a list \"single\""},
    {"{'post_processor': {'type': 'TemplateProcessing', 'single': [{'SpecialToken': {'id': '<s>'}}]}}",
     "no ids of <s>"},
    {"{'post_processor': {'type': 'TemplateProcessing', 'single': [{'SpecialToken': {'id': '<s>'}}], "
     "'special_tokens': {'<s>': {'ids': [512]}}}}",
     "an id of <s> is no token's"},
    {"{'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': [{'type': 'Digits', 'individual_digits': 1}]}}",
     "individual_digits is not true or false"},
    {"{'decoder': {'type': 'WordPiece'}}", "WordPiece"},
    {"{'model': {'type': 'Unigram'}}", "model: type Unigram"},
    {"{'model': 3}", "has no \"model\""},
    {"{'model': {'dropout': 0.1}}", "model.dropout"},
    {"{'model': {'unk_token': '<unk>'}}", "model.unk_token"},
    {"{'model': {'continuing_subword_prefix': '##'}}", "model.continuing_subword_prefix"},
    {"{'model': {'end_of_word_suffix': '</w>'}}", "model.end_of_word_suffix"},
    {"{'model': {'byte_fallback': true}}", "model.byte_fallback"},
    {"{'model': {'vocab': [1]}}", "model.vocab: not an object"},
    {"{'model': {'vocab': {'zzz': 3}}}", "have the same id 3"},
    {"{'model': {'vocab': {'zzz': -1}}}", "\"zzz\" is not a whole number"},
    {"{'model': {'vocab': {'zzz': 1.5}}}", "\"zzz\" is not a whole number"},
    {"{'model': {'vocab': {'zzz': '5'}}}", "\"zzz\" is not a whole number"},
    {"{'model': {'vocab': {'zzz': 4194304}}}", "from 0 to 4194303"},
    {"{'model': {'vocab': {'zzz': 9223372036854775807}}}", "from 0 to 4194303"},
    {"{'model': {'merges': {}}}", "model.merges: not a list"},
    {"{'model': {'merges': ['a b c']}}", "model.merges[0]"},
    {"{'model': {'merges': ['ab']}}", "model.merges[0]"},
    {"{'model': {'merges': [['a']]}}", "model.merges[0]"},
    {"{'model': {'merges': [['t', 'h'], ['a', 3]]}}", "model.merges[1]"},
    {"{'model': {'merges': ['nowhere e']}}", "model.merges[0]: \"nowhere\" is not in model.vocab"},
    {"{'model': {'merges': ['e nowhere']}}", "model.merges[0]: \"nowhere\" is not in model.vocab"},
    {"{'model': {'merges': ['q q']}}", "model.merges[0]: \"qq\" is not in model.vocab"},
    {"{'model': {'merges': [['t', 'h'], 't h']}}", "model.merges[1]: \"th\" is made"},
    {"{'model': {'merges': [' ']}}", "model.merges[0]: \"\" is not in"},
    {"{'added_tokens': {}}", "added_tokens: not a list"},
    {"{'added_tokens': [3]}", "added_tokens[0]: no content"},
    {"{'added_tokens': [{'id': 509, 'content': ''}]}", "added_tokens[0]: no content"},
    {"{'added_tokens': [{'content': 'x y'}]}", "added_tokens[0]: the id of \"x y\""},
    {"{'added_tokens': [{'id': 509, 'content': 'x y', 'special': 1}]}", "special is not true or false"},
    {"{'added_tokens': [{'id': 509, 'content': 'x y', 'single_word': true}]}", "single_word"},
    {"{'added_tokens': [{'id': 3, 'content': 'x y'}]}", "have the same id 3"},
    {"{'added_tokens': [{'id': 600, 'content': 'x y'}]}", "gives it 509"},
    {"{'added_tokens': [{'id': 509, 'content': 'x y'}, {'id': 509, 'content': 'x y'}]}", "listed twice"},
    {"{'added_tokens': [{'id': 509, 'content': 'th'}]}", "\"th\" has id 509 here"},
};

static json_t *edit_parse(const char *single_quoted) {
    char *text = xstrdup(single_quoted);
    for (char *p = text; *p; p++)
        if (*p == '\'') *p = '"';
    json_t *edit = json_loads(text, 0, NULL);
    assert_non_null(edit);
    free(text);
    return edit;
}

static void test_refused(void **state) {
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++) {
        json_t *file = tiny_file(), *edit = edit_parse(refused[i].edit);
        json_object_update_recursive(file, edit);
        char *path = edited_write(file);
        check_refused(path, refused[i].says, refused[i].edit);
        edited_remove(path);
        json_decref(edit);
        json_decref(file);
    }
}

// Regexes that mean something else to PCRE2 than to HF's engine, or nothing.
static void test_regex_refused(void **state) {
    static const char *const patterns[][2] = {
        {"\\w+", "'\\w'"},
        {"\\b", "'\\b'"},
        {"\\h", "'\\h'"},
        {"[\\S]", "'\\S'"},
        {"[\\P{L}]", "'\\P{L}'"},
        {"^a", "'^'"},
        {"a$", "'$'"},
        {"[a[b]]", "'['"},
        {"[a&&b]", "'&&'"},
        {"a{1,2}+", "'}+'"},
        {"(", "compile"},
        {"\\p{Nowhere}", "'\\p{Nowhere}'"},
        {"\\", "in the regex"},
        {"(a)\\1", "'\\1'"},
        {"[\\w]", "'\\w'"},
        {"\\C", "'\\C'"},
        {"\\p{Greek}", "'\\p{Greek}'"},
        {"\\P{C}", "'\\P{C}'"},
        {"[\\p{Mn}]", "'\\p{Mn}'"},
        {"\\p{^L}", "'\\p{^L}'"},
        {"[\\D]", "'\\D'"},
        {"\\pL", "'\\p'"},
    };
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        json_t *file = tiny_file();
        json_t *split = json_array_get(json_object_get(json_object_get(file, "pre_tokenizer"), "pretokenizers"), 0);
        json_object_set_new(json_object_get(split, "pattern"), "Regex", json_string(patterns[i][0]));
        char *path = edited_write(file);
        check_refused(path, patterns[i][1], patterns[i][0]);
        edited_remove(path);
        json_decref(file);
    }
}

static void test_not_json(void **state) {
    static const char deep[] = "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[";
    static const char *const texts[][2] = {
        {"", ":1"},
        {"[]", "no object"},
        {"{}", "\"model\""},
        {"{\"model\": {\"vocab\": {\"a\": 1, \"a\": 2}}}", "duplicate"},
        {"{\"model\": \"\xff\"}", ":1:"},
        {deep, "deeper"},
    };
    char *path = edited_path();
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        write_text(path, texts[i][0], strlen(texts[i][0]));
        check_refused(path, texts[i][1], texts[i][0]);
    }
    edited_remove(path);
    Error e = {0};
    assert_null(tokenizer_load("no/such/place", &e));
    assert_int_equal(e.code, EXIT_INPUT);
    assert_null(tokenizer_load("tests", &e)); // a directory without the file
    assert_non_null(strstr(e.text, "tests/tokenizer.json"));
}

// Holes in the vocabulary, a token for one byte only, ids at the limit: odd, and fine.
static void test_taken(void **state) {
    static const struct {
        const char *edit, *text;
        size_t ids;
    } taken[] = {
        {"{'model': {'vocab': {'zzz': 5000}}, 'added_tokens': []}", "zzz", 3},
        {"{'model': {'vocab': {'zzz': 4194303}}, 'added_tokens': []}", "zzz", 3},
        {"{'model': {'vocab': {'': 700, 'x y': 701, 'ignored': 702}}, 'added_tokens': []}", "x y", 3},
        {"{'added_tokens': null, 'post_processor': null, 'decoder': null, 'normalizer': null}", "<|im_end|>", 9},
        {"{'truncation': {'max_length': 1}, 'padding': {'strategy': {'Fixed': 9}}}", "Tom has", 2},
        {"{'model': {'merges': []}}", "Tom has", 7},
    };
    for (size_t i = 0; i < sizeof taken / sizeof *taken; i++) {
        json_t *file = tiny_file(), *edit = edit_parse(taken[i].edit);
        json_object_update_recursive(file, edit);
        char *path = edited_write(file);
        Error e = {0};
        Ids ids = {0};
        Str text = {0};
        Tokenizer *t = tokenizer_load(path, &e);
        if (!t) fail_msg("%s: %s", taken[i].edit, e.text);
        tokenizer_encode(t, taken[i].text, strlen(taken[i].text), true, &ids);
        assert_int_equal(ids.n, taken[i].ids);
        tokenizer_decode(t, ids.id, ids.n, false, &text);
        assert_string_equal(text.s, taken[i].text);
        // Absent ids add nothing.
        str_clear(&text);
        tokenizer_decode(t, (const int32_t[]){-1, 4500, INT32_MAX, INT32_MIN}, 4, false, &text);
        assert_int_equal(text.n, 0);
        tokenizer_free(t);
        ids_free(&ids), str_free(&text);
        edited_remove(path);
        json_decref(edit);
        json_decref(file);
    }
    // Only one byte has a token: the others are dropped, as by HF.
    static const char one[] =
        "{\"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"aa\": 1}, \"merges\": [\"a a\"]}, "
        "\"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}}";
    char *path = edited_path();
    write_text(path, one, sizeof one - 1);
    Error e = {0};
    Ids ids = {0};
    Tokenizer *t = tokenizer_load(path, &e);
    if (!t) fail_msg("%s", e.text);
    tokenizer_encode(t, "abaaab", 6, true, &ids);
    assert_int_equal(ids.n, 2); // aa aa
    tokenizer_free(t);
    ids_free(&ids);
    edited_remove(path);
}

// What HF puts before a text: transformers 5.24 gives these ids, but for texts that begin with the token themselves,
// where it writes it twice.
static void test_lead(void **state) {
#define BEGIN(token, id)                                                                                               \
    "{'type': 'TemplateProcessing', 'single': [{'SpecialToken': {'id': '" token "', 'type_id': 0}}, "                  \
    "{'Sequence': {'id': 'A', 'type_id': 0}}, {'SpecialToken': {'id': '<|im_end|>', 'type_id': 0}}], 'pair': [], "     \
    "'special_tokens': {'" token "': {'id': '" token "', 'ids': [" id "], 'tokens': ['" token "']}}}"
#define BYTES "{'type': 'ByteLevel', 'add_prefix_space': true, 'trim_offsets': false, 'use_regex': true}"
    static const struct {
        const char *edit, *text;
        int32_t ids[4];
        size_t n;
    } cases[] = {
        {"{}", "a", {64}, 1},
        {"{}", "", {0}, 0},
        {"{'post_processor': " BEGIN("<|endoftext|>", "509") "}", "a", {509, 64}, 2},
        {"{'post_processor': " BEGIN("<|endoftext|>", "509") "}", "", {509}, 1},
        {"{'post_processor': " BEGIN("<|endoftext|>", "509") "}", "<|endoftext|>a", {509, 64}, 2},
        {"{'post_processor': " BEGIN("<|endoftext|>", "509") "}", "<|im_start|>a", {509, 510, 64}, 3},
        {"{'post_processor': {'type': 'Sequence', 'processors': [" BYTES ", " BEGIN("<|im_start|>", "510") "]}}",
         "a",
         {510, 64},
         2},
        {"{'post_processor': {'type': 'Sequence', 'processors': [" BEGIN("<|im_start|>", "510") ", " BEGIN(
             "<|endoftext|>", "509") "]}}",
         "a",
         {509, 510, 64},
         3},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *file = tiny_file(), *edit = edit_parse(cases[i].edit);
        json_object_update(file, edit);
        char *path = edited_write(file);
        Error e = {0};
        Ids ids = {0};
        Tokenizer *t = tokenizer_load(path, &e);
        if (!t) fail_msg("%s: %s", cases[i].edit, e.text);
        ids_add(&ids, 7); // ids are added
        tokenizer_encode_raw(t, cases[i].text, strlen(cases[i].text), &ids);
        assert_int_equal(ids.n, 1 + cases[i].n);
        assert_int_equal(ids.id[0], 7);
        if (cases[i].n) assert_memory_equal(ids.id + 1, cases[i].ids, cases[i].n * sizeof *ids.id);
        ids_clear(&ids);
        tokenizer_encode(t, "a", 1, true, &ids); // what a chat template wrote has its own
        assert_int_equal(ids.n, 1);
        tokenizer_free(t);
        ids_free(&ids);
        edited_remove(path);
        json_decref(edit);
        json_decref(file);
    }
}

// Random damage: whatever the file says, it is refused or it works.
static void test_damaged(void **state) {
    Error e = {0};
    size_t n;
    char *good = file_read("models/tiny/tokenizer.json", 1 << 20, &n, &e), *path = edited_path();
    assert_non_null(good);
    uint64_t x = 7;
    int loaded = 0;
    for (int i = 0; i < 400; i++) {
        char *bad = xstrndup(good, n);
        for (int k = 0; k < 1 + i % 3; k++) {
            x = x * 6364136223846793005u + 1442695040888963407u;
            static const char bytes[] = "09 \"{}[],:\\ue-a\xc4";
            bad[(x >> 33) % n] = bytes[(x >> 20) % (sizeof bytes - 1)];
        }
        write_text(path, bad, i % 10 ? n : (size_t)(x >> 33) % n);
        Tokenizer *t = tokenizer_load(path, &e);
        if (t) {
            Ids ids = {0};
            tokenizer_encode(t, "Tom has 12 apples.\n\n  \u4e2d <|im_end|>", 34, true, &ids);
            for (size_t k = 0; k < ids.n; k++) assert_true(ids.id[k] >= 0 && ids.id[k] <= tokenizer_size(t) - 1);
            ids_free(&ids);
            tokenizer_free(t);
            loaded++;
        } else assert_int_equal(e.code, EXIT_INPUT);
        free(bad);
    }
    assert_true(loaded >= 1 && loaded <= 399); // both happen
    edited_remove(path);
    free(good);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_refused), cmocka_unit_test(test_regex_refused), cmocka_unit_test(test_not_json),
        cmocka_unit_test(test_taken),   cmocka_unit_test(test_damaged),       cmocka_unit_test(test_lead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
