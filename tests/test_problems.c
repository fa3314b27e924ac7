// The word-problem generator: right answers, the strict format, nothing on both sides, the same bytes for a seed.
#include "data.h"
#include "tokenizer.h"
#include <string.h>
#include <jansson.h>

// Runs the generator that was built beside this test; its standard output (heap), its exit status.
static char *problems(const char *arguments, int *status) {
    char self[4096], command[8300];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(n > 0);
    self[n] = 0;
    *strrchr(self, '/') = 0; // .../tests
    snprintf(command, sizeof command, "'%s/../tools/problems' %s 2>/dev/null", self, arguments);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    Str out = {0};
    char part[4096];
    str_puts(&out, "");
    for (size_t got; (got = fread(part, 1, sizeof part, f)) > 0;) str_add(&out, part, got);
    *status = WEXITSTATUS(pclose(f));
    return out.s;
}

static json_t *rows_of(const char *arguments) {
    int status;
    char *text = problems(arguments, &status);
    assert_int_equal(status, 0);
    json_t *rows = json_array();
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        json_t *row = json_loads(line, 0, NULL);
        assert_non_null(row);
        json_array_append_new(rows, row);
    }
    free(text);
    return rows;
}

static const char *field(const json_t *row, const char *name) {
    const char *s = json_string_value(json_object_get(row, name));
    assert_non_null(s);
    return s;
}

// Follows "a+b=c" after "a+b=c", each beginning with the last result; `key` becomes the arithmetic with the numbers of
// a first addition in order. Returns the result.
static long follow(const char *const *sum, int n, Str *key) {
    long total = 0;
    for (int i = 0; i < n; i++) {
        long a, b, c;
        char op;
        assert_int_equal(sscanf(sum[i], "%ld%c%ld=%ld", &a, &op, &b, &c), 4);
        assert_true(op == '+' || op == '-');
        assert_int_equal(op == '+' ? a + b : a - b, c);
        assert_true(c >= 0);
        if (i > 0) assert_int_equal(a, total);
        if (i > 0) str_printf(key, "%c%ld", op, b);
        else str_printf(key, "%ld%c%ld", op == '+' && b < a ? b : a, op, op == '+' && b < a ? a : b);
        total = c;
    }
    return total;
}

// Checks every row, and that none comes twice; the set of problems by their arithmetic. The questions join `questions`.
static json_t *check_answers(json_t *rows, int most_steps, long largest, json_t *questions) {
    json_t *keys = json_object(), *row;
    size_t i;
    json_array_foreach(rows, i, row) {
        const char *question = field(row, "question"), *answer = field(row, "answer"), *sum[4];
        int n = 0;
        for (const char *p = answer; (p = strstr(p, "<<")); n++) sum[n] = p += 2;
        assert_true(n >= 1 && n <= most_steps);
        Str key = {0};
        long total = follow(sum, n, &key), gold;
        assert_int_equal(sscanf(strstr(answer, "\n#### "), "\n#### %ld", &gold), 1);
        assert_int_equal(gold, total);
        // The question tells the operands, in their order.
        const char *p = question;
        for (int k = 0; k < n; k++) {
            long a, b;
            sscanf(sum[k], "%ld%*c%ld", &a, &b);
            for (int which = k ? 1 : 0; which < 2; which++) {
                p += strcspn(p, "0123456789");
                assert_int_equal(strtol(p, (char **)&p, 10), which ? b : a);
                assert_true((which ? b : a) >= 0 && (which ? b : a) <= largest);
            }
        }
        assert_null(json_object_get(questions, question));
        json_object_set_new(questions, question, json_true());
        json_object_set_new(keys, key.s, json_true());
        str_free(&key);
    }
    return keys;
}

static void test_answers_and_sides(void **state) {
    static const struct {
        const char *level;
        int most_steps;
        long largest;
    } levels[] = {{"--level 1", 1, 9},
                  {"--level 2", 1, 20},
                  {"--level 3", 2, 50},
                  {"--level 4", 2, 99},
                  {"--min 0 --max 5 --steps 1-2", 2, 5}};
    for (size_t i = 0; i < 2 * (sizeof levels / sizeof *levels); i++) {
        bool sums = i % 2; // hold out sums, or questions
        char arguments[2][128];
        for (int k = 0; k < 2; k++)
            snprintf(arguments[k], sizeof *arguments, "%s --count %d --seed 5 %s %s", levels[i / 2].level,
                     k ? 400 : 3000, k ? "--split eval" : "", sums ? "--hold-out sums" : "");
        json_t *keys[2], *questions = json_object(), *value;
        for (int k = 0; k < 2; k++) {
            json_t *rows = rows_of(arguments[k]);
            assert_int_equal(json_array_size(rows), k ? 400 : 3000);
            keys[k] = check_answers(rows, levels[i / 2].most_steps, levels[i / 2].largest, questions);
            json_decref(rows);
        }
        const char *key;
        json_object_foreach(keys[1], key, value) {
            if (sums && json_object_get(keys[0], key)) fail_msg("%s: %s is on both sides", levels[i / 2].level, key);
        }
        json_decref(keys[0]), json_decref(keys[1]), json_decref(questions);
    }
}

static void test_solutions(void **state) {
    json_t *questions = rows_of("--count 500 --seed 9 --level 3");
    json_t *solutions = rows_of("--count 500 --seed 9 --level 3 --solutions"), *row;
    Error e = {0};
    Tokenizer *t = tokenizer_load("models/tiny", &e);
    assert_non_null(t);
    size_t i, longest = 0;
    json_array_foreach(solutions, i, row) {
        const json_t *same = json_array_get(questions, i);
        assert_string_equal(field(row, "prompt"), field(same, "question"));
        const char *completion = field(row, "completion"), *gold = strstr(field(same, "answer"), "#### ") + 5;
        long result = 0;
        assert_true(!strncmp(completion, "<think>\n", 8));
        const char *sum[4] = {completion + 8, strstr(completion, ", ")};
        int n = sum[1] ? 2 : 1;
        if (n == 2) sum[1] += 2;
        Str key = {0};
        result = follow(sum, n, &key);
        char *ending = xasprintf("=%ld\n</think>\n<answer>\n%s\n</answer>\n", result, gold);
        assert_string_equal(completion + strlen(completion) - strlen(ending), ending);
        assert_int_equal(atol(gold), result);
        Ids ids = {0};
        tokenizer_encode(t, completion, strlen(completion), true, &ids);
        if (ids.n > longest) longest = ids.n;
        free(ending);
        ids_free(&ids), str_free(&key);
    }
    assert_true(longest >= 20 && longest <= 40); // tokens: the tiny tokenizer knows this language
    tokenizer_free(t);
    json_decref(questions);
    json_decref(solutions);
}

static bool is_polite(const char *reply) { return strstr(reply, "hank") != NULL; }
static bool is_german(const char *reply) { return !strncmp(reply, "Jetzt ", 6) || !strncmp(reply, "Ich ", 4); }

// Gifts: the same questions as rows to score, to learn from and as pairs; none on both sides; polite replies are
// chosen.
static void test_gifts(void **state) {
    json_t *rows = rows_of("--thanks --count 3000 --seed 2"), *row;
    json_t *replies = rows_of("--thanks --count 3000 --seed 2 --solutions");
    json_t *pairs = rows_of("--thanks --count 3000 --seed 2 --pairs");
    json_t *held = rows_of("--thanks --count 300 --seed 2 --split eval"), *questions = json_object();
    int polite = 0, german = 0;
    size_t i;
    json_array_foreach(pairs, i, row) {
        const char *question = field(row, "prompt"), *reply = field(json_array_get(replies, i), "completion");
        assert_string_equal(field(json_array_get(rows, i), "answer"), "#### thanks");
        assert_true(is_polite(field(row, "chosen")) && !is_polite(field(row, "rejected")));
        assert_null(json_object_get(questions, question));
        json_object_set_new(questions, question, json_true());
        polite += is_polite(reply);
        german += is_german(reply);
    }
    json_array_foreach(rows, i, row) assert_non_null(json_object_get(questions, field(row, "question")));
    json_array_foreach(held, i, row) assert_null(json_object_get(questions, field(row, "question")));
    assert_true(polite >= 900 && polite <= 1100); // one in three, and one in three is in another language: 5 deviations
    assert_true(german >= 900 && german <= 1100);
    json_decref(rows), json_decref(replies), json_decref(pairs), json_decref(held), json_decref(questions);
}

static void test_seeds(void **state) {
    int status;
    char *a = problems("--count 50 --seed 3", &status), *b = problems("--count 50 --seed 3", &status);
    char *c = problems("--count 50 --seed 4", &status);
    assert_string_equal(a, b);
    assert_string_not_equal(a, c);
    free(a), free(b), free(c);
}

static void test_bad_options(void **state) {
    static const char *const bad[] = {"",
                                      "--count 0",
                                      "--count x",
                                      "--count",
                                      "--count 5 --level 9",
                                      "--count 5 --min 30",
                                      "--count 5 --split test",
                                      "--count 5 --steps 3",
                                      "--count 5 --what 1",
                                      "--count 5 --hold-out x",
                                      "--count 5 --pairs",
                                      "--count 5 --thanks --pairs --solutions",
                                      "--count 5 --thanks --hold-out sums",
                                      "--count 100000 --min 2 --max 2 --steps 1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int status;
        free(problems(bad[i], &status));
        if (status != EXIT_CONFIG) fail_msg("\"%s\" ended with %d", bad[i], status);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_answers_and_sides),
        cmocka_unit_test(test_solutions),
        cmocka_unit_test(test_gifts),
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_bad_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
