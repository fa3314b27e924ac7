// Scoring on threads: the same scores on any number of them and in any order of arrival; rewards of a group see the
// whole group; a scorer that hangs keeps nobody else from a score; a stop leaves what nobody has begun.
#include "reward_threads.h"
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>
#include <string.h>

enum { PROMPTS = 6, GROUP = 4, N = PROMPTS * GROUP };

static Batch batch_of_texts(int rewards) {
    Batch b = batch_new(PROMPTS, GROUP, 8, rewards);
    for (int p = 0; p < PROMPTS; p++) {
        b.question[p] = xasprintf("question %d", p);
        b.answer[p] = xasprintf("%d", p);
    }
    for (int i = 0; i < N; i++) {
        b.state[i] = SEQ_DECODED;
        b.len[i] = i % 9;
        b.text[i] = xasprintf("<think>\nw%d\n</think>\n<answer>\n%d\n</answer>\n%.*s", i, i % 5, i * 7 % 40,
                              "the same the same the same the same again");
    }
    return b;
}

static void select_rewards(Rewards *rw, const char *list) {
    char *all = xasprintf("rewards=%s", list);
    Config c;
    Error e = {0};
    char *args[] = {all};
    if (!config_read(&c, NULL, args, 1, &e) || !rewards_select(&c, rw, &e) || !rewards_open(rw, &e))
        fail_msg("%s", e.text);
    config_free(&c);
    free(all);
}

// Adds the completions in an order that `turn` decides.
static void score(const Rewards *rw, Batch *b, int threads, int turn) {
    Error e = {0};
    Scorer *s = scorer_open(rw, threads, &e);
    assert_non_null(s);
    for (int again = 0; again < 2; again++) { // a scorer serves many batches
        scorer_begin(s, b);
        for (int i = 0; i < N; i++) scorer_add(s, (i * (turn % 2 ? 5 : 1) + turn) % N);
        assert_true(scorer_end(s, true, NULL));
    }
    scorer_close(s);
    for (int i = 0; i < N; i++) assert_int_equal(b->state[i], SEQ_SCORED);
}

static void threads_and_order_do_not_matter(void **state) {
    Rewards rw;
    select_rewards(&rw, "correctness,xmlcount,length,accuracy,repetition_penalty,completion_length");
    Batch want = batch_of_texts(rw.n);
    for (int k = 0; k < rw.n; k++) { // as the definition says: all at once, in order
        Sample all[N];
        float column[N];
        for (int i = 0; i < N; i++)
            all[i] = (Sample){.prompt = want.question[i / GROUP],
                              .completion = want.text[i],
                              .completion_len = strlen(want.text[i]),
                              .answer = want.answer[i / GROUP],
                              .ids = want.ids + i * want.max_completion,
                              .n_ids = want.len[i],
                              .group = i / GROUP};
        rw.reward[k].info->fn(&rw.reward[k], all, N, column);
        for (int i = 0; i < N; i++) want.score[i * rw.n + k] = column[i];
    }
    for (int i = 0; i < N; i++) want.reward[i] = reward_total(rw.reward, rw.n, want.score + i * rw.n);
    const int threads[] = {1, 2, 7, 0};
    for (int t = 0; t < 8; t++) {
        Batch b = batch_of_texts(rw.n);
        score(&rw, &b, threads[t % 4], t);
        assert_memory_equal(b.score, want.score, (size_t)(N * rw.n) * sizeof *b.score);
        assert_memory_equal(b.reward, want.reward, N * sizeof *b.reward);
        batch_free(&b);
    }
    batch_free(&want);
    rewards_close(&rw);
}

// Rewards of our own.
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t change = PTHREAD_COND_INITIALIZER;
static int finished, most, groups;
static bool released;

static void count_group(const Reward *r, const Sample *s, int n, float *out) {
    assert_int_equal(n, GROUP);
    for (int i = 0; i < n; i++) {
        assert_int_equal(s[i].group, s[0].group);
        out[i] = (float)i;
    }
    pthread_mutex_lock(&lock);
    groups++;
    pthread_mutex_unlock(&lock);
}
// One completion a question hangs until everybody else is done.
static void hang(const Reward *r, const Sample *s, int n, float *out) {
    assert_int_equal(n, 1);
    bool stuck = s->n_ids == 3;
    pthread_mutex_lock(&lock);
    while (stuck && !released) pthread_cond_wait(&change, &lock);
    if (!stuck && ++finished == most) released = true;
    pthread_cond_broadcast(&change);
    pthread_mutex_unlock(&lock);
    *out = stuck ? 2 : 1;
}

static const RewardInfo hanging = {.name = "hanging", .fn = hang},
                        whole = {.name = "whole", .fn = count_group, .reads = REWARD_READS_GROUP};

static void who_hangs_delays_nobody(void **state) {
    Rewards rw = {.reward = {{.info = &hanging, .weight = 1}, {.info = &whole, .weight = 0}}, .n = 2};
    for (int threads = 1; threads <= 2; threads++) {
        Batch b = batch_of_texts(2);
        for (int i = 0; i < N; i++) b.len[i] = i < 2 ? 3 : 1; // the first two hang: as many as there are threads
        finished = groups = 0;
        most = N - 2;
        released = false;
        Error e = {0};
        Scorer *s = scorer_open(&rw, threads, &e);
        scorer_begin(s, &b);
        for (int i = 0; i < N; i++) scorer_add(s, i);
        assert_true(scorer_end(s, true, NULL));
        for (int i = 0; i < N; i++) assert_true(b.reward[i] == (i < 2 ? 2 : 1));
        assert_int_equal(groups, PROMPTS);
        scorer_close(s);
        batch_free(&b);
    }
}

static void who_batches_sees_a_question_at_once(void **state) {
    static const RewardInfo batching = {.name = "batching", .fn = count_group, .batches = true};
    Rewards rw = {.reward = {{.info = &batching, .weight = 1}}, .n = 1};
    Batch b = batch_of_texts(1);
    groups = 0;
    score(&rw, &b, 3, 1);
    assert_int_equal(groups, 2 * PROMPTS);
    for (int i = 0; i < N; i++) assert_true(b.reward[i] == (float)(i % GROUP));
    batch_free(&b);
    for (int i = 0; i < reward_count; i++) {
        const RewardInfo *info = &reward_registry[i];
        assert_int_equal(info->batches, !strcmp(info->name, "external") || !strcmp(info->name, "judge"));
    }
}

// Only some completions are there: a group that is not complete has no score of the group, and the others are as
// before.
static void parts_and_stops(void **state) {
    Rewards rw = {.reward = {{.info = &whole, .weight = 1}}, .n = 1};
    Batch b = batch_of_texts(1);
    Error e = {0};
    Scorer *s = scorer_open(&rw, 2, &e);
    groups = 0;
    scorer_begin(s, &b);
    for (int i = GROUP; i < 2 * GROUP; i++) scorer_add(s, i);
    scorer_add(s, 0);
    assert_false(scorer_end(s, false, NULL)); // not wanted any more
    assert_int_equal(b.state[GROUP], SEQ_DECODED);
    scorer_begin(s, &b);
    for (int i = GROUP; i < 2 * GROUP; i++) scorer_add(s, i);
    assert_true(scorer_end(s, true, NULL));
    for (int i = 0; i < N; i++) assert_int_equal(b.state[i], i / GROUP == 1 ? SEQ_SCORED : SEQ_DECODED);
    scorer_close(s);
    scorer_close(NULL);
    batch_free(&b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_and_order_do_not_matter),
        cmocka_unit_test(who_hangs_delays_nobody),
        cmocka_unit_test(who_batches_sees_a_question_at_once),
        cmocka_unit_test(parts_and_stops),
    };
    return cmocka_run_group_tests_name("scorer", tests, NULL, NULL);
}
