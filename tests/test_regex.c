// Patterns of others under limits: adversarial ones end, score 0 and are counted.
#include "regex_cases.h"
#include "scoring.h"
#include "str.h"
#include <stdlib.h>
#include <time.h>

static void found_whole_gold(void **state) {
    assert_near(score_text("regex:pattern=b+", "aabba", NULL), 1, 0);
    assert_near(score_text("regex:pattern=^b+$", "aabba", NULL), 0, 0);
    assert_near(score_text("regex:pattern=[ab]+,want=whole", "aabba", NULL), 1, 0);
    assert_near(score_text("regex:pattern=[ab]+,want=whole", "aabbac", NULL), 0, 0);
    assert_near(score_text("regex:pattern=answer: (\\d+),want=gold", "the answer: 42.", "42"), 1, 0);
    assert_near(score_text("regex:pattern=answer: (\\d+),want=gold", "the answer: 43.", "42"), 0, 0);
    assert_near(score_text("regex:pattern=x(y)?,want=gold", "x", ""), 1, 0); // the group took no part
    assert_near(score_text("regex:pattern=\\d+,want=gold", "is 42", " 42\n"), 1, 0);
    assert_near(score_text("regex:pattern=a\\,b{1\\,2}$", "a,bb", NULL), 1, 0); // commas in a value
    assert_near(score_text("regex:pattern=^\\w+$", "Größe中", NULL), 1, 0);
    assert_near(score_text("regex:pattern=^.{3}$", "a\xff\xc3", NULL), 1, 0); // invalid bytes: one character each
    assert_near(score_text("regex:pattern=^$", "", NULL), 1, 0);
    assert_cannot_open("regex", "needs a pattern");
    assert_cannot_open("regex:pattern=(", "wrong at byte 1");
    assert_cannot_open("regex:pattern=[\xff]", "wrong at byte");
    assert_cannot_open("regex:pattern=\\C", "wrong at byte");
}

static void adversarial_patterns_end(void **state) {
    for (size_t i = 0; i < sizeof regex_cases / sizeof *regex_cases; i++) {
        char spec[256];
        snprintf(spec, sizeof spec, "regex:pattern=%s", regex_cases[i].pattern);
        Reward r = reward_opened(spec);
        Str s = {0};
        str_puts(&s, regex_cases[i].before);
        while (s.n < regex_cases[i].bytes) str_puts(&s, regex_cases[i].unit);
        str_puts(&s, regex_cases[i].after);
        struct timespec from, to;
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &from);
        float score = score_by(&r, s.s, NULL);
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &to);
        double seconds = (double)(to.tv_sec - from.tv_sec) + 1e-9 * (double)(to.tv_nsec - from.tv_nsec);
        assert_near(score, 0, 0);
        if (regex_cases[i].limit && reward_faults(&r, REWARD_REGEX_LIMIT) != 1)
            fail_msg("%s: no limit was hit", regex_cases[i].pattern);
        if (seconds > 10) fail_msg("%s took %g s of processor time", regex_cases[i].pattern, seconds);
        printf("%-28s %7zu bytes %.3f s%s\n", regex_cases[i].pattern, s.n, seconds,
               reward_faults(&r, REWARD_REGEX_LIMIT) ? ", limit" : "");
        str_free(&s);
        reward_close(&r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(found_whole_gold),
        cmocka_unit_test(adversarial_patterns_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
