// Code rewards on HumanEval and MBPP: the published solutions pass, spoilt ones do not.
#include "code_fixture.h"
#include "json.h"
#include "jsonl.h"
#include <pthread.h>

typedef struct {
    const Reward *r;
    json_t **row;
    int first, rows, wrong, mutants_passed;
} Share;

// HumanEval: the canonical solution, alone or as a continuation of the prompt; and two ways to spoil it.
static void *humaneval_share(void *arg) {
    Share *s = arg;
    for (int i = s->first; i < s->rows; i += 2) {
        const char *prompt = json_string_value(json_object_get(s->row[i], "prompt"));
        const char *body = json_string_value(json_object_get(s->row[i], "canonical_solution"));
        const char *name = json_string_value(json_object_get(s->row[i], "entry_point"));
        char *text[3] = {
            i % 4 < 2 ? xasprintf("```python\n%s```", body) : xasprintf("```python\n%s%s```", prompt, body),
            xasprintf("```python\n    return None\n```"),
            xasprintf("```python\n%s%s\nright = %s\ndef %s(*a, **k):\n    return [right(*a, **k)]\n```", prompt, body,
                      name, name),
        };
        for (int k = 0; k < 3; k++) {
            Sample sample = {.prompt = prompt,
                             .completion = text[k],
                             .completion_len = strlen(text[k]),
                             .answer = json_string_value(json_object_get(s->row[i], "test"))};
            float score;
            s->r->info->fn(s->r, &sample, 1, &score);
            if (k == 0 && score != 1) printf("HumanEval/%d gives %g\n", i, (double)score);
            if (k > 0 && score == 1) printf("a mutant of HumanEval/%d passes\n", i);
            s->wrong += k == 0 && score != 1;
            s->mutants_passed += k > 0 && !(score < 1);
            free(text[k]);
        }
    }
    return NULL;
}

#define MAX_ROWS 1000
static int read_rows(const char *path, json_t **row, int limit) {
    LineReader reader;
    Error e = {0};
    char *line;
    size_t n;
    int rows = 0;
    assert_true(line_reader_open(&reader, path, &e));
    while (rows < limit && line_reader_next(&reader, &line, &n, &e) > 0) {
        row[rows] = json_parse(line, n, path, &e);
        assert_non_null(row[rows]);
        rows++;
    }
    line_reader_close(&reader);
    return rows;
}

static void humaneval(void **state) {
    const char *path = data_path("humaneval", "datasets/humaneval/HumanEval.jsonl");
    Reward r = need("humaneval", "binary_code:timeout=30,total_timeout=60");
    json_t *row[MAX_ROWS];
    int rows = read_rows(path, row, MAX_ROWS);
    Share share[2] = {{&r, row, 0, rows, 0, 0}, {&r, row, 1, rows, 0, 0}};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, humaneval_share, &share[1]), 0);
    humaneval_share(&share[0]);
    pthread_join(thread, NULL);
    printf("humaneval: %d solutions, %d not right; %d of %d mutants pass\n", rows, share[0].wrong + share[1].wrong,
           share[0].mutants_passed + share[1].mutants_passed, 2 * rows);
    assert_int_equal(rows, 164);
    assert_int_equal(share[0].wrong + share[1].wrong, 0);
    assert_int_equal(share[0].mutants_passed + share[1].mutants_passed, 0);
    for (int i = 0; i < rows; i++) json_decref(row[i]);
    reward_close(&r);
}

static void mbpp(void **state) {
    const char *path = data_path("mbpp", "datasets/mbpp/mbpp.jsonl");
    Reward r = need("mbpp", "code:timeout=30,total_timeout=90");
    json_t *row[40];
    int rows = read_rows(path, row, 40);
    for (int i = 0; i < rows; i++) {
        char *gold = json_dumps(row[i], 0), *tests = json_dumps(json_object_get(row[i], "test_list"), 0);
        char *text = fenced("python", json_string_value(json_object_get(row[i], "code")));
        float score = score_by(&r, text, i % 2 ? gold : tests); // the whole row, or its list
        if (score != 1) fail_msg("MBPP %d gives %g", i + 1, (double)score);
        free(gold);
        free(tests);
        free(text);
        json_decref(row[i]);
    }
    reward_close(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(humaneval),
        cmocka_unit_test(mbpp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
