// Rewards: the recipe's vectors, Python's idea of text, the registry, the command.
#include "child.h"
#include "commands.h"
#include "data.h"
#include "file.h"
#include "json.h"
#include "jsonl.h"
#include "near.h"
#include "reward_set.h"
#include "text.h"
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static float score_one(const char *spec, const char *completion, size_t n, const char *answer) {
    Reward r;
    Error e = {0};
    if (!reward_parse(spec, &r, &e)) fail_msg("%s", e.text);
    Sample s = {.prompt = "", .completion = completion, .completion_len = n, .answer = answer};
    float score;
    r.info->fn(&r, &s, 1, &score);
    return score;
}

static float score_text(const char *spec, const char *completion) {
    return score_one(spec, completion, strlen(completion), "7");
}

static void recipe_vectors(void **state) {
    LineReader reader;
    Error e = {0};
    char *line;
    size_t n;
    int got, scores = 0;
    assert_true(line_reader_open(&reader, data_path("recipe_vectors", "rewards/seed_recipe.jsonl"), &e));
    while ((got = line_reader_next(&reader, &line, &n, &e)) > 0) {
        json_t *j = json_parse(line, n, reader.path, &e);
        assert_non_null(j);
        const json_t *completion = json_object_get(j, "completion"), *expected;
        const char *name;
        json_object_foreach(json_object_get(j, "rewards"), name, expected) {
            float score = score_one(name, json_string_value(completion), json_string_length(completion),
                                    json_string_value(json_object_get(j, "answer")));
            if (!(fabs((double)score - json_number_value(expected)) <= 1e-6))
                fail_msg("line %lld: %s gives %g, not %g", (long long)reader.line, name, (double)score,
                         json_number_value(expected));
            scores++;
        }
        json_decref(j);
    }
    assert_int_equal(got, 0);
    line_reader_close(&reader);
    assert_true(scores > 0 && scores % 7 == 0);
    printf("recipe_vectors: %d scores equal\n", scores);
}

// FNV-1a over the code points that `is` accepts, in order, as four bytes each.
static uint64_t class_hash(bool (*is)(uint32_t), int *count) {
    uint64_t h = 0xcbf29ce484222325u;
    *count = 0;
    for (uint32_t c = 0; c < 0x110000; c++) {
        if (!is(c)) continue;
        ++*count;
        for (int k = 0; k < 4; k++) h = (h ^ (c >> 8 * k & 0xff)) * 0x100000001b3u;
    }
    return h;
}

// The hashes were computed by CPython 3.11 with str.isdigit and str.isspace over all code points.
static void character_classes(void **state) {
    int count;
    assert_true(class_hash(text_is_digit, &count) == 0x402d1c139139a24u);
    assert_int_equal(count, 788);
    assert_true(class_hash(text_is_decimal, &count) == 0x8f2fd98a6590547du);
    assert_int_equal(count, 660);
    assert_true(class_hash(text_is_space, &count) == 0xe01483c03d9600d5u);
    assert_int_equal(count, 29);
}

// Lengths of bytes.decode(errors="replace") in CPython.
static void invalid_utf8_lengths(void **state) {
    static const struct {
        const char *bytes;
        size_t length;
    } cases[] = {
        {"", 0},
        {"abc", 3},
        {"\xc3\xa9", 1},
        {"\xff", 1},
        {"\xc3", 1},
        {"\xe2\x82", 1},
        {"\xe2\x82x", 2},
        {"\xf0\x9f\x98", 1},
        {"\xf0\x9f\x98\x80", 1},
        {"\xed\xa0\x80", 3},
        {"\xc0\xaf", 2},
        {"\xf5\x80\x80", 3},
        {"\xf4\x90\x80\x80", 4},
        {"\x80\x80", 2},
        {"12345678\xe2\x28\xa1"
         "12345678",
         19},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(text_length(text_of(cases[i].bytes)), cases[i].length);
}

static void strips_as_python(void **state) {
    Text t = text_strip(text_of("\x1c \u00a0\u2003\u3000 a b\xc2\x85\u2029\r\n\x1f"));
    assert_int_equal(t.n, 3);
    assert_memory_equal(t.s, "a b", 3);
    assert_int_equal(text_strip(text_of(" \u2003 ")).n, 0);
    assert_int_equal(text_strip(text_of("\u200b")).n, 3); // a zero-width space is no white space
    assert_int_equal(text_strip(text_of("\xf0\xc2\x85")).n, 1);
    assert_false(text_all_digits(text_of("")));
    assert_true(text_all_digits(text_of("12\u00b2\u0663")));
    assert_false(text_all_digits(text_of("1\u00bd"))); // a half is numeric, but no digit
}

static void recipe_edges(void **state) {
    // Tags that share a newline are counted once: str.count does not overlap.
    assert_near(score_text("xmlcount", "\n</think>\n</think>\n"), 0.125, 1e-6);
    assert_near(score_text("xmlcount", "<think>\na\n</think>\n<answer>\n7\n</answer>\n"), 0.5, 1e-6);
    assert_near(score_text("xmlcount", "\n</answer>"), 0.126, 1e-6);
    assert_near(score_text("soft_format", "<think>a</think> \u2003\n\n<answer>b</answer> tail"), 0.5, 0);
    assert_near(score_text("soft_format", "<think>a\rb</think><answer></answer>"), 0.5, 0);
    assert_near(score_text("soft_format", "<think>a\nb</think><answer></answer>"), 0, 0);
    assert_near(score_text("soft_format", "<think></think>x</think><answer>a<answer></answer>"), 0.5, 0);
    assert_near(score_text("soft_format", " <think>a</think><answer>b</answer>"), 0, 0);
    assert_near(score_text("strict_format", "<think>\na\n</think>\n<answer>\nb\n</answer>\n\n"), 0.5, 0);
    assert_near(score_text("strict_format", "<think>\na\n</think>\n<answer>\nb\n</answer>\n\n\n"), 0, 0);
    assert_near(score_text("strict_format", "<think>\na\n</think>\n<answer>\nb\n</answer>"), 0, 0);
    assert_near(score_text("correctness", "<answer>1</answer><answer> 7\n</answer> 8"), 2, 0);
    assert_near(score_text("correctness", " 7 "), 2, 0);
    assert_near(score_text("int", "<answer>-7</answer>"), 0, 0);
    assert_near(score_one("correctness", "7\0", 2, "7"), 0, 0); // NUL is a character like any other
    assert_near(score_one("completion_length", "a\0b", 3, ""), 0.03, 1e-6);
}

static void field_edges(void **state) {
    assert_near(score_text("format", "<think>\n\n</think>\n<answer>\n\n</answer>\ntail"), 1, 0);
    assert_near(score_text("format", "<think>\n</think>\n<answer>\n\n</answer>"), 0, 0); // one newline is not two
    assert_near(score_text("format", "<think>\na\n</think>\n<answer>\nb\n</answer> c\n</answer>"), 1, 0);
    assert_near(score_text("format", "<think>\na\n</think>\n<answer>\nb\n</answer> "), 0, 0);
    assert_near(score_text("format:form=old", "<think>a\nb</think>\u2003\n<answer>c\n</answer>"), 1, 0);
    assert_near(score_text("format:form=old", "<think>a</think>b</think><answer>c</answer>"), 1, 0);
    assert_near(score_text("format:form=old", "<think>a</think>b<answer>c</answer>"), 0, 0);
    assert_near(score_text("format:form=old", "<think>a</think><answer>c</answer>b"), 0, 0);
    assert_near(score_text("reasoning_steps", "12. a\n- b Step \u0663:"), 1, 1e-6);
    assert_near(score_text("reasoning_steps", "a 12. Step \u00b2: Step : Nextly"), 0, 0);
    assert_near(score_text("repetition_penalty:ngram_size=1", "\u00c9a \u00e9A\u00a0x"), -1.0 / 3, 1e-6);
    // A capital sigma at a word's end, and the capital that becomes two characters, as Python has them.
    assert_near(score_text("repetition_penalty:ngram_size=1",
                           "\u039f\u03a3 \u03bf\u03c2 \u039f\u03a3\u0391 \u03bf\u03c3\u03b1"),
                -2.0 / 4, 1e-6);
    assert_near(score_text("repetition_penalty:ngram_size=1", "\u03a3 \u03c3 \u039f\u03a3'\u0391 \u03bf\u03c3'\u03b1"),
                -2.0 / 4, 1e-6);
    assert_near(score_text("repetition_penalty:ngram_size=1", "\u0130 i i\u0307"), -1.0 / 3, 1e-6);
    assert_near(score_text("repetition_penalty:ngram_size=2,language=zh", "这个abc 这个abc 12。"), -1.0 / 5, 1e-6);
    assert_true(isnan(score_text("repetition_penalty:language=ids", "a a a a"))); // no ids known
    assert_true(isnan(score_text("soft_overlong", "a")));
    assert_near(score_text("cosine:max_len=9", "\\boxed{7}"), 0.5, 1e-6);
    assert_near(score_text("cosine:max_len=3", "\\boxed{7}"), 0.5, 1e-6); // 3 pi: it has turned back and gone again
    assert_near(score_text("cosine:max_len=6", "\\boxed{7}"), 0.75, 1e-6);
    assert_near(score_text("cosine:max_len=6,clamp=yes", "\\boxed{7}"), 0.5, 1e-6);
    assert_near(score_text("cosine:max_len=9", "\\boxed{8}"), -0.5, 1e-6);
    assert_near(score_text("length", "\\boxed{7}"), 0, 0); // alone
    assert_near(score_text("code_format:language=c", "<think>\na\n</think>\n<answer>\n```c\nx\n```\n</answer>"), 1, 0);
    assert_near(score_text("code_format", "<think>\na\n</think>\n<answer>\n```c\nx\n```\n</answer>"), 0, 0);
    assert_near(score_text("code_format", "<think>\na\n</think>\n<answer>\n```python\nx\n</answer>"), 0, 0);
    assert_near(score_text("reasoning_accuracy", "\\boxed{7}</think>\\boxed{8}"), 0, 0);
    assert_near(score_text("reasoning_accuracy:delimiter=##", "\\boxed{8}##\\boxed{7}"), 1, 0);
    assert_near(score_text("gsm8k_strict", "#### 8 ##### 7,"), 1, 0);
    assert_near(score_text("gsm8k_flexible", "7 ..."), 0, 0); // "..." is a number there
    assert_near(score_text("gsm8k_flexible", "8 7 ."), 1, 0);
}

static float score_tokens(const char *spec, int n) {
    static const int32_t ids[16] = {0};
    Reward r;
    Error e = {0};
    if (!reward_parse(spec, &r, &e)) fail_msg("%s", e.text);
    Sample s = {.prompt = "", .completion = "", .answer = "", .ids = ids, .n_ids = n};
    float score;
    r.info->fn(&r, &s, 1, &score);
    return score;
}

static void bounds_are_met(void **state) {
    assert_near(score_tokens("soft_overlong:max_completion_len=10,soft_punish_cache=4", 6), 0, 0);
    assert_near(score_tokens("soft_overlong:max_completion_len=10,soft_punish_cache=4", 7), -0.25, 0);
    assert_near(score_tokens("soft_overlong:max_completion_len=10,soft_punish_cache=4", 10), -1, 0);
    assert_near(score_tokens("soft_overlong:max_completion_len=10,soft_punish_cache=0", 10), 0, 0);
    assert_near(score_tokens("soft_overlong:max_completion_len=10,soft_punish_cache=0", 11), -1, 0);
    // verl looks at the last 300 characters, not bytes.
    for (int fill = 294; fill <= 295; fill++) {
        Str s = {0};
        str_puts(&s, "#### 7");
        for (int i = 0; i < fill; i++) str_puts(&s, "\u00e9");
        assert_near(score_text("gsm8k_strict", s.s), fill == 294, 0);
        str_free(&s);
    }
}

// The scanners against the regular expressions they stand for, on random texts made of their own pieces.
static void formats_match_their_patterns(void **state) {
    static const char *const pieces[] = {"<think>", "</think>", "<answer>", "</answer>", "\n", "\n", " ", "x", "</"};
    static const char *const name[] = {"soft_format", "strict_format"};
    static const char *const pattern[] = {"^<think>.*?</think>\\s*<answer>.*?</answer>",
                                          "^<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>\n$"};
    static const char *const good[] = {"<think>x</think> <answer>x</answer>",
                                       "<think>\nx\n</think>\n<answer>\nx\n</answer>\n"};
    uint32_t random = 1;
    int matches = 0;
    for (int k = 0; k < 2; k++) {
        int code;
        size_t at;
        pcre2_code *re = pcre2_compile((PCRE2_SPTR)pattern[k], PCRE2_ZERO_TERMINATED, 0, &code, &at, NULL);
        assert_non_null(re);
        pcre2_match_data *data = pcre2_match_data_create_from_pattern(re, NULL);
        for (int trial = 0; trial < 20000; trial++) {
            Str s = {0};
            int n = trial % 9 == 0 ? trial % 2 : (int)((random = random * 1664525 + 1013904223) >> 24) % 12;
            str_puts(&s, trial % 3 == 0 ? good[k] : "<think>");
            for (int i = 0; i < n; i++) str_puts(&s, pieces[((random = random * 1664525 + 1013904223) >> 16) % 9]);
            if (trial % 3 == 0) { // a small change somewhere in a good text
                s.s[(random = random * 1664525 + 1013904223) % s.n] = trial % 2 ? '\n' : 'y';
            }
            int rc = pcre2_match(re, (PCRE2_SPTR)s.s, s.n, 0, 0, data, NULL);
            assert_true(rc > 0 || rc == PCRE2_ERROR_NOMATCH);
            matches += rc > 0;
            if ((score_text(name[k], s.s) == 0.5f) != (rc > 0)) fail_msg("%s differs on:\n%s", name[k], s.s);
            str_free(&s);
        }
        pcre2_match_data_free(data);
        pcre2_code_free(re);
    }
    assert_true(matches > 1000);
}

// Texts on which a backtracking matcher is quadratic or worse; these must simply end.
static void long_texts_take_linear_time(void **state) {
    static const char *const unit[] = {
        "<think>",     "</think>",     "<answer>", "</answer>", "</think><answer>", "\n</answer>",
        "</think> \n", "\n</think>\n", " ",        "<",         "\u2003",           "9"};
    static const char *const rewards[] = {
        "xmlcount",        "soft_format",  "strict_format",      "int",
        "correctness",     "format",       "format:form=old",    "tag_count",
        "reasoning_steps", "think_format", "repetition_penalty", "repetition_penalty:language=zh",
        "gsm8k_strict"};
    for (size_t u = 0; u < sizeof unit / sizeof *unit; u++) {
        Str s = {0};
        str_puts(&s, "<think>\n");
        if (u % 2) s.n--;
        while (s.n < 300000) str_puts(&s, unit[u]);
        for (size_t k = 0; k < sizeof rewards / sizeof *rewards; k++)
            assert_false(isnan(score_one(rewards[k], s.s, s.n, "7")));
        str_free(&s);
    }
}

static void refused(const char *spec, const char *expected) {
    Reward r;
    Error e = {0};
    assert_false(reward_parse(spec, &r, &e));
    assert_int_equal(e.code, EXIT_CONFIG);
    if (!strstr(e.text, expected)) fail_msg("'%s' is not in: %s", expected, e.text);
    assert_null(strchr(e.text, '\n'));
}

static void selections_are_read(void **state) {
    Reward r;
    Error e = {0};
    assert_true(reward_parse("int", &r, &e));
    assert_true(r.weight == 1);
    assert_true(reward_parse("int:weight=-0.25", &r, &e));
    assert_true(r.weight == -0.25);
    assert_string_equal(r.info->name, "int");
    assert_string_equal(r.name, "int");
    assert_true(reward_parse("regex:pattern=a,as=two.digits_1-x", &r, &e));
    assert_string_equal(r.name, "two.digits_1-x");
    assert_string_equal(r.info->name, "regex");
    refused("int:as=", "as must be");
    refused("int:as=a/b", "as must be");
    refused("int:as=0123456789012345678901234567890123456789", "as must be 1 to 39");
    refused("int:as=a,as=b", "as is given twice");
    refused("xmlcout", "xmlcount");
    refused("", "known: ");
    refused("zzzzzzzzzz", "correctness");
    refused("int:wieght=2", "weight");
    refused("int:weight", "key=value");
    refused("int:", "key=value");
    refused("int:weight=2,", "key=value");
    refused("int:weight=", "number");
    refused("int:weight=nan", "number");
    refused("int:weight=inf", "number");
    refused("int:weight=1e999", "number");
    refused("int:weight=0x10", "number");
    refused("int:weight=2 ", "number");
    refused("int:weight=1e10", "from");
    assert_true(reward_parse("repetition_penalty:language=ids,ngram_size=5,weight=2,max_penalty=-0.5", &r, &e));
    assert_true(reward_number(&r, "ngram_size") == 5 && reward_number(&r, "max_penalty") == -0.5 && r.weight == 2);
    assert_true(reward_chose(&r, "language", "ids") && !reward_chose(&r, "language", "zh"));
    refused("repetition_penalty:max_penalty=1", "max_penalty must be from");
    refused("cosine:max_len=5,clamp=yes,max_len=5", "max_len is given twice");
    refused("cosine:weight=1,weight=2", "weight is given twice");
    refused("repetition_penalty:ngram_size=0", "ngram_size must be from");
    refused("repetition_penalty:ngram_size=2.5", "whole number");
    refused("repetition_penalty:language=e", "one of en|zh|ids");
    refused("repetition_penalty:language=", "one of en|zh|ids");
    refused("code_format:language=", "from 1 to 1023 bytes");
    assert_true(reward_parse("code_format:language=a\\,b:c=d,weight=2", &r, &e)); // a comma within a value
    assert_string_equal(reward_text(&r, "language"), "a,b:c=d");
    assert_true(r.weight == 2);
    refused("language_consistency:language=eng", "one of en|zh|ja");
    refused("cod", "did you mean code");
    refused("code:timout=3", "did you mean timeout");
    refused("code:timeout=0", "timeout must be from");
    refused("judge:retries=-1", "retries must be from");
    refused("cosine:max_len=0", "max_len must be from");
    refused("soft_overlong:max_completion_len=0", "max_completion_len must be from");
}

static void ask_number(const void *r) { reward_number(r, "max_length"); }
static void ask_text_as_number(const void *r) { reward_number(r, "language"); }
static void ask_choice(const void *r) { reward_chose(r, "want", "all"); }
static void ask_choice_of_number(const void *r) { reward_chose(r, "max_len", "1000"); }
static void ask_text(const void *r) { reward_text(r, "want"); }

// A name in a reward's code that its table lacks is our own mistake; it ends the program at once.
static void names_outside_the_table_end_it(void **state) {
    static const struct {
        const char *spec, *says;
        void (*ask)(const void *);
    } all[] = {
        {"cosine", "reward cosine has no number named max_length", ask_number},
        {"code_format", "reward code_format has no number named language", ask_text_as_number},
        {"regex", "reward regex: want has no choice all", ask_choice},
        {"cosine", "reward cosine: max_len has no choice 1000", ask_choice_of_number},
        {"regex", "reward regex has no text named want", ask_text},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        Reward r;
        Error e = {0};
        assert_true(reward_parse(all[i].spec, &r, &e));
        assert_dies(all[i].ask, &r, all[i].says);
    }
}

// MATH-500's rows: the whole answer field is one formula.
static void evaluations_are_graded(void **state) {
    static const struct {
        const char *answer, *text;
        bool right;
    } rows[] = {
        {"\\frac{1}{2}", "so $\\boxed{0.5}$.", true},
        {"\\frac{1}{2}", "so $\\boxed{\\dfrac{2}{4}}$.", true},
        {"\\frac{1}{2}", "so $\\boxed{2}$.", false},
        {"\\left( 3, \\frac{\\pi}{2} \\right)", "it is $\\boxed{(3,\\pi/2)}$", true},
        {"\\left( 3, \\frac{\\pi}{2} \\right)", "it is $\\boxed{(\\pi/2, 3)}$", false},
        {"p - q", "Thus $\\boxed{-q+p}$", true},
        {"p - q", "nothing", false},
    };
    enum { ROWS = sizeof rows / sizeof *rows };
    Config c;
    Error e = {0};
    char *args[] = {(char *)"eval_grader=accuracy:gold=latex"};
    assert_true(config_read(&c, NULL, args, 1, &e));
    Rewards rw;
    if (!rewards_select(&c, &rw, &e) || !rewards_open(&rw, &e)) fail_msg("%s", e.text);
    Batch b = batch_new(ROWS, 1, 4, rw.n);
    for (int i = 0; i < ROWS; i++) {
        b.question[i] = xstrdup("");
        b.answer[i] = xstrdup(rows[i].answer);
        b.text[i] = xstrdup(rows[i].text);
    }
    float score[ROWS];
    rewards_grade(&rw, &b, score);
    for (int i = 0; i < ROWS; i++)
        if (rewards_right(score[i]) != rows[i].right)
            fail_msg("%s and %s: %g", rows[i].answer, rows[i].text, (double)score[i]);
    batch_free(&b);
    rewards_close(&rw);
    config_free(&c);
    args[0] = (char *)"eval_grader=acuracy";
    assert_false(config_read(&c, NULL, args, 1, &e));
    assert_non_null(strstr(e.text, "did you mean accuracy?"));
}

static void totals_leave_out_abstentions(void **state) {
    Reward r[3] = {{.weight = 1}, {.weight = 2}, {.weight = 0.5}};
    assert_near(reward_total(r, 3, (float[]){1, 2, 4}), 7, 0);
    assert_near(reward_total(r, 3, (float[]){NAN, 2, 4}), 6, 0);
    assert_near(reward_total(r, 3, (float[]){0, NAN, NAN}), 0, 0);
    assert_true(isnan(reward_total(r, 3, (float[]){NAN, NAN, NAN})));
    assert_true(isnan(reward_total(r, 0, NULL)));
}

// Runs `grpo reward` in this process; its output (heap) in *out.
static ExitCode run_command(const char *spec, const char *input, char **out, Error *e) {
    char dir[] = "/tmp/grpo-rewards-XXXXXX", in_path[64], out_path[64];
    assert_non_null(mkdtemp(dir));
    snprintf(in_path, sizeof in_path, "%s/in.jsonl", dir);
    snprintf(out_path, sizeof out_path, "%s/out.jsonl", dir);
    FILE *f = fopen(in_path, "w");
    assert_non_null(f);
    fputs(input, f);
    fclose(f);
    fflush(stdout);
    int saved = dup(STDOUT_FILENO);
    assert_non_null(freopen(out_path, "w", stdout));
    *e = (Error){0};
    ExitCode code = command_reward(spec[0] == '-' ? 1 : 2, (char *[]){(char *)spec, in_path}, e);
    fflush(stdout);
    dup2(saved, STDOUT_FILENO);
    close(saved);
    size_t n;
    Error read_error;
    *out = file_read(out_path, 1 << 20, &n, &read_error);
    assert_non_null(*out);
    unlink(in_path);
    unlink(out_path);
    rmdir(dir);
    return code;
}

static void command_scores_lines(void **state) {
    char *out;
    Error e;
    assert_int_equal(run_command("correctness",
                                 "{\"completion\": \"<answer>7</answer>\", \"answer\": \"7\", \"group\": 3}\r\n\n"
                                 "{\"completion\": \"8\", \"answer\": \"7\", \"ids\": [1, 2], \"prompt\": \"?\"}",
                                 &out, &e),
                     EXIT_OK);
    assert_string_equal(out, "{\"reward\": 2}\n{\"reward\": 0}\n");
    free(out);
    assert_int_equal(run_command("int:weight=3", "{\"completion\": \"8\"}\n", &out, &e), EXIT_OK);
    assert_string_equal(out, "{\"reward\": 1.5}\n");
    free(out);
    // Groups may lie anywhere in the file; scores come back line for line.
    assert_int_equal(run_command("length",
                                 "{\"completion\": \"\\\\boxed{7}\", \"answer\": \"7\", \"group\": 2}\n"
                                 "{\"completion\": \"\\\\boxed{8}\", \"answer\": \"7\", \"group\": 1}\n"
                                 "{\"completion\": \"\\\\boxed{7} .....\", \"answer\": \"7\", \"group\": 2}\n"
                                 "{\"completion\": \"\\\\boxed{8} .....\", \"answer\": \"7\", \"group\": 1}\n",
                                 &out, &e),
                     EXIT_OK);
    assert_string_equal(out, "{\"reward\": 0.5}\n{\"reward\": 0}\n{\"reward\": -0.5}\n{\"reward\": -0.5}\n");
    free(out);
    assert_int_equal(run_command("cosine", "{\"completion\": \"\\\\boxed{7}\", \"answer\": \"seven\"}\n", &out, &e),
                     EXIT_OK);
    assert_string_equal(out, "{\"reward\": null}\n");
    free(out);
    assert_int_equal(run_command("--list", "", &out, &e), EXIT_OK);
    for (int i = 0; i < reward_count; i++) assert_non_null(strstr(out, reward_registry[i].name));
    free(out);
}

static void command_refuses(void **state) {
    static const struct {
        const char *spec, *input, *expected;
        ExitCode code;
    } cases[] = {
        {"correctnes", "", "correctness", EXIT_CONFIG},
        {"correctness", "{\"completion\": \"8\"}\n", "in.jsonl:1: no field \"answer\"", EXIT_INPUT},
        {"int", "{\"completion\": \"8\"}\n{\"answer\": \"8\"}\n", "in.jsonl:2: no string \"completion\"", EXIT_INPUT},
        {"int", "[]\n", "not a JSON object", EXIT_INPUT},
        {"int", "{\"completion\": 8}\n", "completion", EXIT_INPUT},
        {"int", "{\"completion\": \"8\", \"ids\": [1, -1]}\n", "ids[1]", EXIT_INPUT},
        {"int", "{\"completion\": \"8\", \"ids\": 1}\n", "ids", EXIT_INPUT},
        {"int", "{\"completion\": \"8\", \"group\": \"a\"}\n", "group", EXIT_INPUT},
        {"int", "{\"completion\": \"8\", \"answer\": \"a\\u0000b\"}\n", "NUL", EXIT_INPUT},
        {"int", "{\"completion\": \"8\"", "in.jsonl:1", EXIT_INPUT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *out;
        Error e;
        assert_int_equal(run_command(cases[i].spec, cases[i].input, &out, &e), cases[i].code);
        if (!strstr(e.text, cases[i].expected)) fail_msg("'%s' is not in: %s", cases[i].expected, e.text);
        free(out);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recipe_vectors),
        cmocka_unit_test(character_classes),
        cmocka_unit_test(invalid_utf8_lengths),
        cmocka_unit_test(strips_as_python),
        cmocka_unit_test(recipe_edges),
        cmocka_unit_test(field_edges),
        cmocka_unit_test(formats_match_their_patterns),
        cmocka_unit_test(long_texts_take_linear_time),
        cmocka_unit_test(selections_are_read),
        cmocka_unit_test(names_outside_the_table_end_it),
        cmocka_unit_test(evaluations_are_graded),
        cmocka_unit_test(bounds_are_met),
        cmocka_unit_test(totals_leave_out_abstentions),
        cmocka_unit_test(command_scores_lines),
        cmocka_unit_test(command_refuses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
