// The field's own reward tests: every case of Open R1 and TRL that is about a reward here, and the graders' verdicts.
#include "data_lines.h"
#include "reward.h"
#include "str.h"
#include <string.h>

static float score(const char *spec, const json_t *line) {
    Reward r;
    Error e = {0};
    if (!reward_parse(spec, &r, &e)) fail_msg("%s", e.text);
    const json_t *completion = json_object_get(line, "completion"), *gold = json_object_get(line, "gold");
    Sample s = {.prompt = "",
                .completion = json_string_value(completion),
                .completion_len = json_string_length(completion),
                .answer = gold ? json_string_value(gold) : ""};
    float out;
    r.info->fn(&r, &s, 1, &out);
    return out;
}

static void expect(const char *spec, const json_t *line, const char *grader, int64_t number) {
    double want = json_number_value(json_object_get(json_object_get(line, "rewards"), grader));
    double got = (double)score(spec, line);
    if (!(fabs(got - want) <= 1e-6)) fail_msg("line %lld: %s gives %g, not %g", (long long)number, spec, got, want);
}

static void check_formats(const json_t *line, int64_t number) {
    expect("think_format", line, "trl_think_format", number);
    expect("format", line, "open_r1_format", number);
    expect("tag_count", line, "open_r1_tag_count", number);
    expect("reasoning_steps", line, "open_r1_reasoning_steps", number);
}

static void format_vectors(void **state) {
    assert_true(each_line("format_vectors", "rewards/format.jsonl", check_formats) > 0);
}

static void check_graders(const json_t *line, int64_t number) {
    expect("gsm8k_strict", line, "verl_gsm8k_strict", number);
    expect("gsm8k_flexible", line, "verl_gsm8k_flexible", number);
}

static void gsm8k_graders(void **state) {
    assert_true(each_line("gsm8k_graders", "rewards/crafted_gsm8k.jsonl", check_graders) > 0);
}

// ---- the cases of Open R1's and TRL's tests: a function, its parameters, lists of inputs, expected scores -----------

static int cases_run, cases_left_out;

static bool reward_of(const char *function, bool ids, Str *spec) {
    static const char *const names[][2] = {{"format_reward", "format"},
                                           {"tag_count_reward", "tag_count"},
                                           {"reasoning_steps_reward", "reasoning_steps"},
                                           {"think_format_reward", "think_format"},
                                           {"soft_overlong_punishment", "soft_overlong"},
                                           {"soft_overlong_punishment_reward", "soft_overlong"},
                                           {"repetition_penalty_reward", "repetition_penalty"},
                                           {"accuracy_reward", "accuracy"},
                                           {"reasoning_accuracy_reward", "reasoning_accuracy"},
                                           {"len_reward", "length"},
                                           {"cosine_scaled_reward", "cosine"},
                                           {"code_format_reward", "code_format"}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (strcmp(function, names[i][0]) != 0) continue;
        str_puts(spec, names[i][1]);
        if (ids && strcmp(names[i][1], "repetition_penalty") == 0) str_puts(spec, ":language=ids");
        if (ids && strcmp(names[i][1], "cosine") == 0) str_puts(spec, ":unit=tokens,clamp=yes"); // as TRL
        return true;
    }
    return false;
}

static Reward reward_for(const json_t *line, Str *spec) {
    const char *key;
    json_t *value, *params = json_object_get(line, "params");
    json_object_foreach(params, key, value) {
        str_printf(spec, "%s%s=", strchr(spec->s, ':') ? "," : ":", key);
        if (json_is_string(value)) str_puts(spec, json_string_value(value));
        else str_printf(spec, "%.17g", json_number_value(value));
    }
    const json_t *delimiters = json_object_get(json_object_get(line, "inputs"), "reasoning_delimiters");
    if (delimiters) str_printf(spec, ":delimiter=%s", json_string_value(json_array_get(delimiters, 0)));
    Reward r;
    Error e = {0};
    if (!reward_parse(spec->s, &r, &e)) fail_msg("%s", e.text);
    return r;
}

// A relation [i, op, j or {"value": v}] between scores.
static bool holds(const json_t *relation, const float *got) {
    double a = (double)got[json_integer_value(json_array_get(relation, 0))];
    const char *op = json_string_value(json_array_get(relation, 1));
    const json_t *right = json_array_get(relation, 2);
    double b = json_is_object(right) ? json_number_value(json_object_get(right, "value"))
                                     : (double)got[json_integer_value(right)];
    if (strcmp(op, ">") == 0) return a > b;
    if (strcmp(op, ">=") == 0) return a >= b;
    if (strcmp(op, "<") == 0) return a < b;
    if (strcmp(op, "<=") == 0) return a <= b;
    return strcmp(op, "==") == 0 && a == b;
}

static void check_scores(const json_t *line, const char *spec, const float *got, size_t n) {
    const char *id = json_string_value(json_object_get(line, "id"));
    const json_t *expected = json_object_get(line, "expected"), *relation;
    double tolerance = json_number_value(json_object_get(line, "tolerance"));
    size_t i;
    for (i = 0; json_is_array(expected) && i < n; i++) {
        const json_t *want = json_array_get(expected, i);
        if (json_is_string(want)) continue; // unspecified
        bool equal = json_is_null(want) ? isnan(got[i])
                                        : fabs((double)got[i] - json_number_value(want)) <= fmax(tolerance, 1e-6);
        if (!equal) fail_msg("%s: %s gives %g", id, spec, (double)got[i]);
    }
    json_array_foreach(json_object_get(line, "relations"), i, relation) {
        if (!holds(relation, got)) fail_msg("%s: relation %zu of %s does not hold", id, i, spec);
    }
}

static const int32_t no_ids[1];

static void check_case(const json_t *line, int64_t number) {
    const json_t *inputs = json_object_get(line, "inputs"), *completions = json_object_get(inputs, "completions");
    const json_t *ids = json_object_get(inputs, "completion_ids"), *solutions = json_object_get(inputs, "solution");
    Str spec = {0};
    if (!reward_of(json_string_value(json_object_get(line, "function")), ids != NULL, &spec)) {
        cases_left_out++;
        return;
    }
    Reward r = reward_for(line, &spec);
    size_t n = json_array_size(completions ? completions : ids);
    Sample *sample = xcalloc(n, sizeof *sample);
    Ids *tokens = xcalloc(n, sizeof *tokens);
    float *got = xmalloc(n * sizeof *got);
    for (size_t i = 0; i < n; i++) {
        const json_t *text = json_object_get(json_array_get(json_array_get(completions, i), 0), "content");
        const json_t *list = json_array_get(ids, i), *id;
        size_t k;
        json_array_foreach(list, k, id) ids_add(&tokens[i], (int32_t)json_integer_value(id));
        sample[i] = (Sample){.prompt = "",
                             .completion = text ? json_string_value(text) : "",
                             .completion_len = text ? json_string_length(text) : 0,
                             .answer = solutions ? json_string_value(json_array_get(solutions, i)) : "",
                             .ids = !list          ? NULL
                                    : tokens[i].id ? tokens[i].id
                                                   : no_ids,
                             .n_ids = (int)tokens[i].n};
    }
    r.info->fn(&r, sample, (int)n, got);
    check_scores(line, spec.s, got, n);
    cases_run++;
    for (size_t i = 0; i < n; i++) ids_free(&tokens[i]);
    free(tokens);
    free(sample);
    free(got);
    str_free(&spec);
}

static void open_r1_cases(void **state) {
    cases_run = cases_left_out = 0;
    each_line("open_r1_cases", "rewards/open_r1_cases.jsonl", check_case);
    printf("open_r1_cases: %d pass\n", cases_run);
    assert_true(cases_run > 0 && cases_left_out == 0);
}

static void trl_cases(void **state) {
    cases_run = cases_left_out = 0;
    each_line("trl_cases", "rewards/trl_cases.jsonl", check_case);
    printf("trl_cases: %d pass\n", cases_run);
    assert_true(cases_run > 0 && cases_left_out == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(format_vectors),
        cmocka_unit_test(gsm8k_graders),
        cmocka_unit_test(open_r1_cases),
        cmocka_unit_test(trl_cases),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
