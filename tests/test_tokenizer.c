// The tokenizer against HF tokenizers' ids: published and computed vectors, variants of the tiny tokenizer; then what
// must agree within: scanner and regex, heap and plain merging, streaming and decoding, threads.
#include "data.h"
#include "jsonl.h"
#include "random.h"
#include "tokenizer.h"
#include "tokenizer_edit.h"
#include "tokenizer_parts.h"
#include <pthread.h>
#include <string.h>
#include <time.h>
#include <utf8proc.h>

static Tokenizer *load(const char *path) {
    Error e = {0};
    Tokenizer *t = tokenizer_load(path, &e);
    if (!t) fail_msg("%s", e.text);
    return t;
}

static Tokenizer *qwen(const char *test) {
    static Tokenizer *t; // read once for all tests
    const char *path = data_path(test, "qwen2.5/tokenizer.json");
    if (!t) t = load(path);
    return t;
}

static void check_ids(const Tokenizer *t, const json_t *text, bool special, const json_t *wanted, const char *place) {
    Ids got = {0};
    const char *s = json_string_value(text);
    size_t n = json_string_length(text);
    tokenizer_encode(t, s, n, special, &got);
    bool same = got.n == json_array_size(wanted);
    for (size_t i = 0; same && i < got.n; i++) same = json_integer_value(json_array_get(wanted, i)) == got.id[i];
    if (!same) {
        Str shown = {0};
        str_json(&shown, s, n < 200 ? n : 200);
        str_puts(&shown, " gave");
        for (size_t i = 0; i < got.n && i < 40; i++) str_printf(&shown, " %d", got.id[i]);
        fail_msg("%s: %s", place, shown.s);
    }
    ids_free(&got);
}

static void check_text(const Tokenizer *t, const json_t *ids, bool skip_special, const json_t *wanted,
                       const char *place) {
    Ids v = {0};
    Str got = {0};
    for (size_t i = 0; i < json_array_size(ids); i++) ids_add(&v, (int32_t)json_integer_value(json_array_get(ids, i)));
    tokenizer_decode(t, v.id, v.n, skip_special, &got);
    if (got.n != json_string_length(wanted) || (got.n && memcmp(got.s, json_string_value(wanted), got.n)))
        fail_msg("%s: decoded to \"%s\"", place, got.n ? got.s : "");
    ids_free(&v);
    str_free(&got);
}

// ---- vectors of the real tokenizer ----------------------------------------------------------------------------------

static json_t *read_rows(const char *path) {
    Error e = {0};
    LineReader reader;
    char *line;
    size_t n;
    json_t *rows = json_array();
    assert_true(line_reader_open(&reader, path, &e));
    while (line_reader_next(&reader, &line, &n, &e) > 0)
        json_array_append_new(rows, json_loadb(line, n, JSON_ALLOW_NUL, NULL));
    line_reader_close(&reader);
    return rows;
}

static size_t check_rows(const Tokenizer *t, const char *path) {
    json_t *rows = read_rows(path), *row;
    size_t i, n = json_array_size(rows);
    json_array_foreach(rows, i, row) {
        char place[64];
        snprintf(place, sizeof place, "%s:%zu", strrchr(path, '/') + 1, i + 1);
        const json_t *special = json_object_get(row, "parse_special");
        check_ids(t, json_object_get(row, "text"), !json_is_false(special), json_object_get(row, "ids"), place);
    }
    json_decref(rows);
    return n;
}

static void test_vectors(void **state) {
    const Tokenizer *t = qwen("test_vectors");
    assert_int_equal(tokenizer_size(t), 151665);
    assert_int_equal(tokenizer_id(t, "<tool_call>"), 151657);
    assert_int_equal(tokenizer_id(t, "no such token"), -1);
    assert_int_equal(check_rows(t, data_path("test_vectors", "tokenizer/hf_tokenizers_edge.jsonl")), 4774);
    assert_int_equal(check_rows(t, data_path("test_vectors", "tokenizer/published_dashscope.jsonl")), 4);
    assert_int_equal(check_rows(t, data_path("test_vectors", "tokenizer/published_llamacpp_qwen2.jsonl")), 47);
    assert_int_equal(check_rows(t, data_path("test_vectors", "tokenizer/published_hf_transformers_qwen2.jsonl")), 3);
}

static void test_gsm8k(void **state) {
    const Tokenizer *t = qwen("test_gsm8k");
    json_t *source = read_rows(data_path("test_gsm8k", "gsm8k/train.jsonl"));
    json_t *rows = read_rows(data_path("test_gsm8k", "tokenizer/gsm8k_train_ids.jsonl")), *row;
    size_t i;
    assert_int_equal(json_array_size(rows), 14946);
    json_array_foreach(rows, i, row) {
        const json_t *question = json_array_get(source, (size_t)json_integer_value(json_object_get(row, "row")));
        const json_t *text = json_object_get(question, json_string_value(json_object_get(row, "field")));
        char place[64];
        snprintf(place, sizeof place, "gsm8k_train_ids.jsonl:%zu", i + 1);
        check_ids(t, text, true, json_object_get(row, "ids"), place);
        check_text(t, json_object_get(row, "ids"), false, text, place);
    }
    json_decref(source);
    json_decref(rows);
}

// ---- small vocabularies ---------------------------------------------------------------------------------------------

static void test_toy_vocabulary(void **state) {
    json_t *toy = json_load_file(data_path("test_toy_vocabulary", "tokenizer/published_hf_toy_vocab.json"), 0, NULL),
           *c;
    json_t *file = tiny_file(), *model = json_object_get(file, "model");
    size_t i;
    json_object_set(model, "vocab", json_object_get(toy, "vocab"));
    json_object_set(model, "merges", json_object_get(toy, "merges"));
    json_object_set_new(file, "added_tokens",
                        json_pack("[{s:s, s:i, s:b}, {s:s, s:i, s:b}]", "content", "<|endoftext|>", "id", 270,
                                  "special", 1, "content", "<|im_start|>", "id", 271, "special", 1));
    char *path = edited_write(file);
    Tokenizer *t = load(path);
    json_array_foreach(json_object_get(toy, "cases"), i, c) {
        check_ids(t, json_object_get(c, "text"), true, json_object_get(c, "ids"), "toy");
        if (json_object_get(c, "decoded"))
            check_text(t, json_object_get(c, "ids"), false, json_object_get(c, "decoded"), "toy");
    }
    json_array_foreach(json_object_get(toy, "decode_cases"), i, c)
        check_text(t, json_object_get(c, "ids"), false, json_object_get(c, "text"), "toy");
    tokenizer_free(t);
    edited_remove(path);
    json_decref(toy);
    json_decref(file);
}

static void merges_as(json_t *file, bool strings) {
    json_t *merges = json_object_get(json_object_get(file, "model"), "merges"), *merge;
    size_t i;
    json_array_foreach(merges, i, merge) {
        const char *space = json_is_string(merge) ? strchr(json_string_value(merge), ' ') : NULL;
        if (strings && json_is_array(merge))
            json_array_set_new(merges, i,
                               json_sprintf("%s %s", json_string_value(json_array_get(merge, 0)),
                                            json_string_value(json_array_get(merge, 1))));
        else if (!strings && space)
            json_array_set_new(
                merges, i,
                json_pack("[s%,s]", json_string_value(merge), (size_t)(space - json_string_value(merge)), space + 1));
    }
}

static void test_golden_variants(void **state) {
    json_t *golden = json_load_file("tests/golden/tokenizer.json", JSON_ALLOW_NUL, NULL), *variant, *c;
    size_t i, k, cases = 0;
    assert_non_null(golden);
    json_array_foreach(json_object_get(golden, "variants"), i, variant) {
        const char *name = json_string_value(json_object_get(variant, "name"));
        json_t *file = tiny_file();
        json_object_update_recursive(file, json_object_get(variant, "edit"));
        if (!strcmp(name, "merges as strings")) merges_as(file, true);
        if (!strcmp(name, "merges as pairs")) merges_as(file, false);
        char *path = edited_write(file);
        Tokenizer *t = load(path);
        json_array_foreach(json_object_get(variant, "cases"), k, c) {
            const json_t *text = json_object_get(c, "text"), *ids = json_object_get(c, "decode");
            check_ids(t, text, true, json_object_get(c, "ids"), name);
            check_ids(t, text, false, json_object_get(c, "ids_no_special"), name);
            check_text(t, ids, false, json_object_get(c, "text_with_special"), name);
            check_text(t, ids, true, json_object_get(c, "text_without_special"), name);
            cases++;
        }
        tokenizer_free(t);
        edited_remove(path);
        json_decref(file);
    }
    assert_int_equal(cases, 15 * 45);
    json_decref(golden);
}

// ---- agreement within -----------------------------------------------------------------------------------------------

static uint64_t random_state = 1;
static unsigned draw(unsigned n) { return (unsigned)(random_mix(random_state += RANDOM_STEP) >> 16) % n; }

static void same_ids(const Tokenizer *a, const Tokenizer *b, const char *s, size_t n) {
    Ids x = {0}, y = {0};
    tokenizer_encode(a, s, n, true, &x);
    tokenizer_encode(b, s, n, true, &y);
    if (x.n != y.n || (x.n && memcmp(x.id, y.id, x.n * sizeof *x.id))) {
        Str shown = {0};
        str_json(&shown, s, n);
        fail_msg("%s: %zu and %zu ids", shown.s, x.n, y.n);
    }
    ids_free(&x), ids_free(&y);
}

// Normal form C as HF tokenizers 0.23 has it, Hangul included: U+11A7 is no trailing consonant.
static void test_nfc(void **state) {
    static const char *const cases[][2] = {{"e\u0301", "\u00e9"},
                                           {"\u1100\u1161\u11a8", "\uac01"},
                                           {"\u1100\u1161\u11a7", "\uac00\u11a7"},
                                           {"\uac00\u11a7", "\uac00\u11a7"},
                                           {"\uac00\u11a8", "\uac01"},
                                           {"\uac01\u11a8", "\uac01\u11a8"},
                                           {"\uac00\u11a7\u11a8", "\uac00\u11a7\u11a8"},
                                           {"\u1100\u1161\u11a7\u0301\u0323", "\uac00\u11a7\u0323\u0301"},
                                           {"\ud788\u11c2", "\ud7a3"},
                                           {"\u11a7\u0323\u0301", "\u11a7\u0323\u0301"},
                                           {"\u212b\u0344", "\u00c5\u0308\u0301"},
                                           {"\u0958", "\u0915\u093c"},
                                           {"a\u0323\u0307", "\u1ea1\u0307"},
                                           {"\U00011131\U00011127", "\U0001112e"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Str out = {0};
        utf8_nfc(&out, cases[i][0], strlen(cases[i][0]));
        if (strcmp(out.s, cases[i][1])) fail_msg("case %zu: %s", i, out.s);
        str_free(&out);
    }
    // Every syllable without a trailing consonant is the same.
    for (uint32_t c = 0xac00; c <= 0xd7a3; c += 28) {
        const char text[] = {
            (char)(0xe0 | c >> 12), (char)(0x80 | (c >> 6 & 63)), (char)(0x80 | (c & 63)), '\xe1', '\x86', '\xa7', 0};
        Str out = {0};
        utf8_nfc(&out, text, 6);
        assert_string_equal(out.s, text);
        str_free(&out);
    }
}

// Characters of Unicode 17 and 18, as ranges without one of Unicode 16: a newer PCRE2 than the library of HF knows
// them.
static bool is_newer(uint32_t c) {
    static const uint32_t range[][2] = {
        {0x558, 0x558},     {0x58b, 0x58c},     {0x5c8, 0x5c9},     {0x88f, 0x88f},     {0xb53, 0xb54},
        {0xc5c, 0xc5c},     {0xcdc, 0xcdc},     {0x1acf, 0x1af0},   {0x208f, 0x208f},   {0x209d, 0x209f},
        {0x20c1, 0x20c4},   {0x2b96, 0x2b96},   {0x2e60, 0x2e63},   {0xa7ce, 0xa7cf},   {0xa7d2, 0xa7d2},
        {0xa7d4, 0xa7d4},   {0xa7dd, 0xa7f1},   {0xab6c, 0xab6d},   {0xfbc3, 0xfbd2},   {0xfd90, 0xfd91},
        {0xfdc8, 0xfdce},   {0x107bb, 0x107bf}, {0x10940, 0x10959}, {0x10ec5, 0x10efb}, {0x11b0a, 0x11b67},
        {0x11db0, 0x11df1}, {0x1246f, 0x1246f}, {0x12475, 0x1247f}, {0x12550, 0x12686}, {0x16ea0, 0x16ed3},
        {0x16ff2, 0x16ff6}, {0x187f8, 0x187ff}, {0x18cd6, 0x18cda}, {0x18d09, 0x191d2}, {0x1b123, 0x1b128},
        {0x1b168, 0x1b168}, {0x1ccfa, 0x1ccfc}, {0x1ceba, 0x1cefd}, {0x1d127, 0x1d128}, {0x1d1eb, 0x1d1ff},
        {0x1d250, 0x1d281}, {0x1d6a6, 0x1d6a6}, {0x1db00, 0x1db1c}, {0x1df1f, 0x1df24}, {0x1df2b, 0x1dfff},
        {0x1e6c0, 0x1e6ff}, {0x1f1ae, 0x1f1ae}, {0x1f6d8, 0x1f6d9}, {0x1f777, 0x1f77a}, {0x1f7da, 0x1f7db},
        {0x1f7f1, 0x1f7ff}, {0x1f8d0, 0x1f8d8}, {0x1fa54, 0x1fa57}, {0x1fa8a, 0x1fa8e}, {0x1fac8, 0x1facd},
        {0x1fadd, 0x1fadd}, {0x1faea, 0x1faef}, {0x1faf9, 0x1fafa}, {0x1fbfa, 0x1fbfa}, {0x2b73a, 0x2b73f},
        {0x2b81e, 0x2b81e}, {0x2cea2, 0x2cead}, {0x323b0, 0x3fc3f}};
    for (size_t i = 0; i < sizeof range / sizeof *range; i++)
        if (c >= range[i][0] && c <= range[i][1]) return true;
    return false;
}

// The characters of each class, among all of Unicode, as HF tokenizers 0.23 matches them (Oniguruma, Unicode 16): how
// many, and the sum over them of each times a power of 31. Alone, within a class, and what the complement leaves.
static void test_classes(void **state) {
    static const struct {
        const char *escape;
        int n;
        uint32_t sum;
    } classes[] = {
        {"\\s", 25, 0xc16bf75a},         {"\\d", 760, 0x40761edc},        {"\\p{L}", 141028, 0x7c7aa1ea},
        {"\\p{M}", 2501, 0x417cbded},    {"\\p{N}", 1911, 0xc1066893},    {"\\p{P}", 855, 0x4cd13a95},
        {"\\p{S}", 8514, 0xa8611377},    {"\\p{Lu}", 1858, 0x83405ae1},   {"\\p{Ll}", 2258, 0x7f0eb033},
        {"\\p{Lt}", 31, 0x554c4736},     {"\\p{Lm}", 404, 0xbee4a160},    {"\\p{Lo}", 136477, 0x9671dd90},
        {"\\p{Mc}", 468, 0x62ef7351},    {"\\p{Me}", 13, 0x4644c44d},     {"\\p{Nd}", 760, 0x40761edc},
        {"\\p{Nl}", 236, 0x97014e2b},    {"\\p{No}", 915, 0xb517869a},    {"\\p{Z}", 19, 0x090b83ca},
        {"\\p{Zs}", 17, 0x3727172b},     {"\\p{Zl}", 1, 0x00002028},      {"\\p{Zp}", 1, 0x00002029},
        {"\\p{Pc}", 10, 0x2e6a72e6},     {"\\p{Pd}", 27, 0x2253a37f},     {"\\p{Ps}", 79, 0xe388c0e1},
        {"\\p{Pe}", 77, 0xd132f04a},     {"\\p{Pi}", 12, 0xcfa4a291},     {"\\p{Pf}", 10, 0x4a0f1a44},
        {"\\p{Po}", 640, 0x216676ac},    {"\\p{Sm}", 950, 0x0348455d},    {"\\p{Sc}", 63, 0x513475e9},
        {"\\p{Sk}", 125, 0xac907178},    {"\\p{So}", 7376, 0x9ef2d37d},   {"\\p{Cc}", 65, 0x55df867f},
        {"\\p{Co}", 137468, 0xea43483e}, {"\\p{Han}", 99030, 0x381004d2},
    };
    for (size_t i = 0; i < sizeof classes / sizeof *classes; i++)
        for (int form = 0; form < 3; form++) {
            char pattern[32];
            snprintf(pattern, sizeof pattern, form == 1 ? "[\U0010ffff%s]" : "%s", classes[i].escape);
            if (form == 2) pattern[1] ^= 0x20; // the complement
            Split split = {0};
            Error e = {0};
            if (!split_compile(&split, pattern, "test", &e)) fail_msg("%s", e.text);
            pcre2_match_data *match = NULL;
            int n = 0;
            uint32_t sum = 0;
            for (uint32_t c = 0; c < 0x110000; c++) {
                utf8proc_uint8_t bytes[4];
                size_t from, to;
                if ((c >= 0xd800 && c < 0xe000) || is_newer(c)) continue;
                if (c == 0x295 && !strcmp(classes[i].escape, "\\p{Lo}")) continue; // since Unicode 18 no Ll any more
                utf8proc_ssize_t length = utf8proc_encode_char((int32_t)c, bytes);
                bool in = split_next(&split, &match, (const char *)bytes, (size_t)length, 0, &from, &to) != (form == 2);
                in = in && !(form == 1 && c == 0x10ffff); // stands in the class beside it
                n += in;
                sum = in ? sum * 31 + c : sum;
            }
            if (n != classes[i].n || sum != classes[i].sum)
                fail_msg("%s: %d characters, not %d, sum %08x", pattern, n, classes[i].n, sum);
            pcre2_match_data_free(match);
            split_free(&split);
        }
}

// The scanner serves only the exact patterns of Qwen2 and Llama 3: in a group of its own, the pattern goes through
// PCRE2.
static void scanner_equals_regex(bool llama3) {
    static const char *const pieces[] = {"'",      "s",      "T",      "re",     "LL",     "v",         "e",
                                         "m",      " ",      " ",      "\n",     "\r",     "\t",        "\v",
                                         "\f",     "a",      "Zq",     "1",      "23",     "!",         "-",
                                         "<",      "(",      "\x1f",   "\x7f",   "\u00e9", "\u017f",    "\u00a0",
                                         "\u3000", "\u0663", "\u2019", "\u4e2d", "\u0301", "\U0001F600"};
    json_t *file = pairs_file("aqZeEmMvVlLrRtTsSdD123!-<(\x1f\x7f\n\r\t\v\f '");
    json_t *pattern = json_object_get(
        json_array_get(json_object_get(json_object_get(file, "pre_tokenizer"), "pretokenizers"), 0), "pattern");
    if (llama3) { // numbers of up to three digits
        const char *regex = json_string_value(json_object_get(pattern, "Regex")), *number = strstr(regex, "\\p{N}| ?");
        assert_non_null(number);
        int head = (int)(number - regex) + 5;
        json_object_set_new(pattern, "Regex", json_sprintf("%.*s{1,3}%s", head, regex, regex + head));
    }
    char *plain = edited_write(file);
    json_object_set_new(pattern, "Regex", json_sprintf("(?:%s)", json_string_value(json_object_get(pattern, "Regex"))));
    char *path = edited_write(file);
    Tokenizer *scanner = load(plain), *regex = load(path);
    for (int i = 0; i < 60000; i++) {
        Str s = {0};
        // Half of the strings are pure ASCII.
        unsigned kinds = draw(2) ? 26 : sizeof pieces / sizeof *pieces;
        for (unsigned k = draw(12) + 1; k; k--) str_puts(&s, pieces[draw(kinds)]);
        same_ids(scanner, regex, s.s, s.n);
        str_free(&s);
    }
    for (int i = 0; i < 4000; i++) {
        char s[24];
        size_t n = draw(sizeof s) + 1u;
        for (size_t k = 0; k < n; k++) s[k] = (char)draw(i % 2 ? 128 : 256);
        same_ids(scanner, regex, s, n < sizeof s ? n : sizeof s);
    }
    tokenizer_free(scanner), tokenizer_free(regex);
    edited_remove(plain), edited_remove(path);
    json_decref(file);
}
static void test_scanner_equals_regex(void **state) {
    scanner_equals_regex(false);
    scanner_equals_regex(true);
}

// BPE in its plainest form, over strings: merge the pair that comes first in the list, leftmost first.
static size_t plain_bpe(const json_t *merges, char (*token)[64], size_t n) {
    for (;;) {
        size_t best = SIZE_MAX, at = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            size_t rank;
            json_t *merge;
            json_array_foreach(merges, rank, merge) {
                if (rank >= best) break;
                if (strcmp(json_string_value(json_array_get(merge, 0)), token[i]) ||
                    strcmp(json_string_value(json_array_get(merge, 1)), token[i + 1]))
                    continue;
                best = rank, at = i;
            }
        }
        if (best == SIZE_MAX) return n;
        size_t left = strlen(token[at]);
        for (size_t k = 0; left + k < sizeof *token && (token[at][left + k] = token[at + 1][k]); k++) {
        }
        n--;
        memmove(token + at + 1, token + at + 2, (n - at - 1) * sizeof *token);
    }
}

static void check_merging(json_t *file, const char *letters, int words) {
    enum { LONGEST = 160 };
    static char token[LONGEST][64];
    char *path = edited_write(file);
    Tokenizer *t = load(path);
    json_t *merges = json_object_get(json_object_get(file, "model"), "merges");
    for (int i = 0; i < words; i++) {
        char word[LONGEST + 1] = {0};
        size_t n = 1 + draw(i % 3 ? 60 : LONGEST); // both sides of the length from which the heap is used
        for (size_t k = 0; k < n; k++) {
            word[k] = letters[draw((unsigned)strlen(letters))];
            snprintf(token[k], sizeof *token, "%c", word[k]);
        }
        size_t wanted = plain_bpe(merges, token, n);
        Ids ids = {0};
        tokenizer_encode(t, word, n, true, &ids);
        assert_int_equal(ids.n, wanted);
        for (size_t k = 0; k < wanted; k++) assert_int_equal(ids.id[k], tokenizer_id(t, token[k]));
        ids_free(&ids);
    }
    tokenizer_free(t);
    edited_remove(path);
    json_decref(file);
}

static void test_merging_equals_plain(void **state) {
    json_t *tiny = tiny_file();
    merges_as(tiny, false);
    check_merging(tiny, "thinkaowersdp", 120);  // letters of many merges
    check_merging(pairs_file("qa"), "qa", 150); // pairs of one rank that overlap
}

// A megabyte in one word, one run of white space, one run of combining marks: seconds would be quadratic.
static void test_long_input(void **state) {
    static const char *const units[] = {"a",
                                        " ",
                                        "\n",
                                        " \n",
                                        "!",
                                        "<",
                                        "<|im_start|",
                                        "1",
                                        "thinkansw",
                                        "\u00e9",
                                        "\u3000",
                                        "\u0301\u0323",
                                        "\u4e2d",
                                        "'",
                                        "\xff",
                                        "\xe4\xb8",
                                        "<|im_start|>",
                                        "\U0001F600"};
    Tokenizer *t = load("models/tiny");
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        Str s = {0}, back = {0};
        Ids ids = {0};
        while (s.n < 1 << 20) str_puts(&s, units[i]);
        struct timespec a, b;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
        tokenizer_encode(t, s.s, s.n, true, &ids);
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
        double seconds = (double)(b.tv_sec - a.tv_sec) + 1e-9 * (double)(b.tv_nsec - a.tv_nsec);
        if (seconds > 20) fail_msg("1 MiB of \"%s\" took %.1f s", units[i], seconds);
        tokenizer_decode(t, ids.id, ids.n, false, &back);
        // All but malformed bytes and marks out of order come back.
        if ((unsigned char)units[i][0] < 0xe4 && units[i][0] != '\xcc') {
            assert_int_equal(back.n, s.n);
            assert_memory_equal(back.s, s.s, s.n);
        }
        str_free(&s), str_free(&back), ids_free(&ids);
    }
    tokenizer_free(t);
}

static void test_streaming(void **state) {
    Tokenizer *t = load("models/tiny");
    for (int i = 0; i < 5000; i++) {
        int32_t ids[24];
        size_t n = draw(24);
        bool skip = draw(2);
        for (size_t k = 0; k < n; k++) ids[k] = (int32_t)draw(540) - 10; // some are no ids
        // Half of the time real characters, cut into bytes.
        if (i % 2) {
            Ids v = {0};
            static const char text[] = "\u4e2d\U0001F600\u00e9x\u0f40\U0001F600";
            tokenizer_encode(t, text, sizeof text - 1, true, &v);
            n = n < v.n ? n : v.n;
            memcpy(ids, v.id + draw((unsigned)(v.n - n) + 1), n * sizeof *ids);
            ids_free(&v);
        }
        Str whole = {0}, piece = {0};
        Utf8Pending pending = {0};
        tokenizer_decode(t, ids, n, skip, &whole);
        str_puts(&piece, ""), str_puts(&whole, "");
        for (size_t k = 0; k < n; k++) {
            tokenizer_stream(t, ids[k], skip, &pending, &piece);
            assert_memory_equal(piece.s, whole.s, piece.n); // what was shown stays
            assert_true(pending.n < 4);
        }
        tokenizer_stream_flush(&pending, &piece);
        assert_int_equal(piece.n, whole.n);
        assert_memory_equal(piece.s, whole.s, whole.n);
        str_free(&whole), str_free(&piece);
    }
    tokenizer_free(t);
}

static const char thread_text[] =
    "Tom's 12 apples\u2019 caf\u00e9 <|im_end|>\n\n thinkanswerthinkanswerthinkanswerthinkanswerthinkanswer";

static void *encode_often(void *tokenizer) {
    Ids first = {0};
    bool same = true;
    tokenizer_encode(tokenizer, thread_text, sizeof thread_text - 1, true, &first);
    for (int i = 0; i < 2000; i++) {
        Ids ids = {0};
        tokenizer_encode(tokenizer, thread_text, sizeof thread_text - 1, true, &ids);
        same = same && ids.n == first.n && !memcmp(ids.id, first.id, ids.n * sizeof *ids.id);
        ids_free(&ids);
    }
    ids_free(&first);
    return same ? tokenizer : NULL;
}

static void test_threads(void **state) {
    Tokenizer *t = load("models/tiny");
    pthread_t thread[4];
    for (int i = 0; i < 4; i++) assert_int_equal(pthread_create(&thread[i], NULL, encode_often, t), 0);
    for (int i = 0; i < 4; i++) {
        void *good;
        pthread_join(thread[i], &good);
        assert_non_null(good);
    }
    tokenizer_free(t);
}

static void test_tiny(void **state) {
    Tokenizer *t = load("models/tiny/tokenizer.json");
    assert_int_equal(tokenizer_size(t), 512);
    assert_int_equal(tokenizer_id(t, "<|im_end|>"), 511);
    assert_string_equal(tokenizer_path(t), "models/tiny/tokenizer.json");
    tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tiny),
        cmocka_unit_test(test_golden_variants),
        cmocka_unit_test(test_toy_vocabulary),
        cmocka_unit_test(test_vectors),
        cmocka_unit_test(test_gsm8k),
        cmocka_unit_test(test_nfc),
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_scanner_equals_regex),
        cmocka_unit_test(test_merging_equals_plain),
        cmocka_unit_test(test_long_input),
        cmocka_unit_test(test_streaming),
        cmocka_unit_test(test_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
