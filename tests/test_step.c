// What one step does, piece by piece, against the plainest account of it: which tokens count, which questions are drawn
// again, how far weights and the reference move. What supervised tuning learns: test_sft_loss.c.
#include "commands.h"
#include "eval.h"
#include "file.h"
#include "optim.h"
#include "train_fixture.h"
#include <math.h>

// Weights after the first update, from those before and the gradients: Adam's moments are then the gradient and its
// square, and an epsilon of 1 keeps the size of the clipped gradient in the result.
static void weights_move_as_adamw_moves_them(void **state) {
    static const double max_norm[] = {0, 1e-3, 1e6};
    Fixture f;
    fixture_dir(&f);
    for (int k = 0; k < 3; k++) {
        char more[160];
        snprintf(more, sizeof more, "max_grad_norm=%g adam_epsilon=1 weight_decay=0.5 learning_rate=0.1", max_norm[k]);
        fixture_open(&f, more);
        Learner *l = &f.t.learner;
        float *before = bytes_of(l->engine.device, l->engine.policy.slab);
        assert_int_equal(fixture_step(&f), STEP_DONE);
        float *after = bytes_of(l->engine.device, l->engine.policy.slab), *g = bytes_of(l->engine.device, l->grad.slab);
        double squares = 0;
        for (int64_t i = 0; i < l->grad.slab.dim[0]; i++) squares += (double)g[i] * (double)g[i];
        double norm = sqrt(squares), scale = k == 1 ? max_norm[k] / norm : 1;
        assert_true(norm > 2e-3 && fabs(f.t.stats.grad_norm - norm) < 1e-6 * norm);
        for (int p = 0; p < l->engine.policy.n_params; p++) {
            const Param *param = &l->engine.policy.params[p];
            bool decays = !strstr(param->name, "norm") && !strstr(param->name, "bias");
            for (int64_t i = param->offset; i < param->offset + tensor_numel(param->t); i++) {
                double x = scale * (double)g[i];
                double want = (double)before[i] * (decays ? 1 - 0.1 * 0.5 : 1) - 0.1 * x / (fabs(x) + 1);
                if (!(fabs((double)after[i] - want) <= 1e-6 * (1 + fabs(want))))
                    fail_msg("%s: %g became %g, not %g (max_grad_norm %g)", param->name, (double)before[i],
                             (double)after[i], want, max_norm[k]);
            }
        }
        free(before), free(after), free(g);
        fixture_close(&f);
    }
    fixture_remove(&f);
}

// Completions cut for their length carry no token of the loss where the option says so, and all of theirs elsewhere.
static void truncated_completions_count_by_option(void **state) {
    Fixture f;
    fixture_dir(&f);
    for (int masked = 0; masked < 2; masked++) {
        fixture_open(&f, masked ? "stop=e,a mask_truncated_completions=true" : "stop=e,a");
        assert_int_equal(fixture_step(&f), STEP_DONE);
        const Batch *b = &f.t.generation.batch;
        int cut = 0;
        for (int i = 0; i < b->n; i++) {
            bool counts = !masked || b->finish[i] != FINISH_LENGTH;
            assert_true(f.t.generation.metric[i][GM_TOKENS] == (float)(counts ? b->len[i] : 0));
            cut += b->finish[i] == FINISH_LENGTH;
        }
        assert_true(cut >= 1 && cut <= b->n - 1);
        fixture_close(&f);
    }
    fixture_remove(&f);
}

// Values of transformers' get_scheduler at a peak of 1.
static void schedules_are_transformers(void **state) {
    static const struct {
        char *option[2];
        int64_t step, total;
        double rate;
    } cases[] = {
        {{"lr_scheduler_type=cosine", "warmup_ratio=0.1"}, 0, 1868, 0},
        {{"lr_scheduler_type=cosine", "warmup_ratio=0.1"}, 1, 1868, 0.005347593583},
        {{"lr_scheduler_type=cosine", "warmup_ratio=0.1"}, 186, 1868, 0.994652406417},
        {{"lr_scheduler_type=cosine", "warmup_ratio=0.1"}, 187, 1868, 1},
        {{"lr_scheduler_type=cosine", "warmup_ratio=0.1"}, 934, 1868, 0.586926336442},
        {{"lr_scheduler_type=cosine", "warmup_ratio=0.1"}, 1867, 1868, 8.73181e-07},
        {{"lr_scheduler_type=linear", "warmup_ratio=0.25"}, 2, 10, 0.666666666667},
        {{"lr_scheduler_type=linear", "warmup_ratio=0.25"}, 9, 10, 0.142857142857},
        {{"lr_scheduler_type=linear", "warmup_steps=3"}, 5, 10, 0.714285714286},
        {{"lr_scheduler_type=constant", "warmup_ratio=0.4"}, 2, 7, 0.666666666667},
        {{"lr_scheduler_type=constant", "warmup_ratio=0.4"}, 6, 7, 1},
    };
    Config c;
    Error e = {0};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *arg[] = {cases[i].option[0], cases[i].option[1], "learning_rate=1"};
        if (!config_read(&c, NULL, arg, 3, &e)) fail_msg("%s", e.text);
        assert_true(fabs(optim_learning_rate(&c, cases[i].step, cases[i].total) - cases[i].rate) < 1e-11);
        config_free(&c);
    }
    assert_true(config_read(&c, NULL, NULL, 0, &e));
    static const double epochs[] = {1, 0.29, 2.001, 0.0001, 3};
    static const int64_t steps[] = {100, 29, 201, 1, 300};
    for (int i = 0; i < 5; i++) {
        c.num_train_epochs = epochs[i];
        assert_int_equal(optim_total_steps(&c, 100), steps[i]);
    }
    c.max_steps = 7;
    assert_int_equal(optim_total_steps(&c, 100), 7);
    config_free(&c);
}

typedef struct {
    int64_t row[16], key[64];
    bool flat[16];
    int prompts, group;
    int64_t next_key, index;
} Draw;

static Draw draw_with(Fixture *f, const char *more) {
    fixture_open(f, more);
    assert_int_equal(fixture_step(f), STEP_DONE);
    const Batch *b = &f->t.generation.batch;
    Draw x = {.prompts = b->prompts,
              .group = b->group,
              .next_key = f->t.generation.next_key,
              .index = f->t.state.cursor.file[0].at.index};
    assert_true(b->prompts >= 2 && b->prompts <= 16);
    assert_true(b->n >= 2 && b->n <= 64);
    for (int p = 0; p < b->prompts; p++) x.row[p] = b->row[p], x.flat[p] = group_is_flat(b, p);
    memcpy(x.key, b->key, (size_t)b->n * sizeof *b->key);
    fixture_close(f);
    return x;
}

// Groups that teach nothing get the next questions of the data set; the others stay as they are; so many times at most.
static void flat_groups_are_drawn_again(void **state) {
#define DRAWN "num_generations=2 per_device_train_batch_size=16 rewards=regex:pattern=.*e max_completion_length=6 "
    Fixture f;
    fixture_dir(&f);
    Draw once = draw_with(&f, DRAWN), twice = draw_with(&f, DRAWN "dynamic_sampling=1");
    int flat = 0;
    for (int p = 0; p < once.prompts; p++) {
        for (int i = p * once.group; i < (p + 1) * once.group; i++)
            assert_int_equal(twice.key[i],
                             once.flat[p] ? once.next_key + flat * once.group + i - p * once.group : once.key[i]);
        if (!once.flat[p]) assert_int_equal(twice.row[p], once.row[p]);
        flat += once.flat[p];
    }
    assert_true(flat >= 1 && flat <= once.prompts - 1);
    assert_int_equal(twice.next_key, once.next_key + flat * once.group);
    assert_int_equal(twice.index, once.prompts + flat);
    for (int rounds = 0; rounds < 3; rounds++) { // all are right: every group is drawn again each time
        char more[160];
        snprintf(more, sizeof more, "rewards=regex:pattern=^ dynamic_sampling=%d", rounds);
        Draw all = draw_with(&f, more);
        assert_int_equal(all.next_key, (1 + rounds) * all.prompts * all.group);
    }
    fixture_remove(&f);
}

// ref = alpha policy + (1 - alpha) ref after every n-th step, and never between.
static void the_reference_follows_by_its_steps(void **state) {
    Fixture f;
    fixture_dir(&f);
    fixture_open(&f, "sync_ref_model=true ref_model_sync_steps=2 ref_model_mixup_alpha=0.25");
    Learner *l = &f.t.learner;
    int64_t n = l->engine.policy.slab.dim[0];
    for (int step = 1; step <= 5; step++) {
        float *ref = bytes_of(l->engine.device, l->reference.slab);
        assert_int_equal(fixture_step(&f), STEP_DONE);
        if (step % 2) assert_bytes(l->engine.device, l->reference.slab, ref);
        else {
            float *policy = bytes_of(l->engine.device, l->engine.policy.slab),
                  *now = bytes_of(l->engine.device, l->reference.slab);
            double moved = 0;
            for (int64_t i = 0; i < n; i++) {
                double want = 0.25 * (double)policy[i] + 0.75 * (double)ref[i];
                assert_true(fabs((double)now[i] - want) <= 1e-6 * (1 + fabs(want)));
                moved += fabs((double)now[i] - (double)ref[i]);
            }
            assert_true(moved > 0);
            free(policy), free(now);
        }
        free(ref);
    }
    fixture_close(&f);
    fixture_remove(&f);
}

// With alpha 1 the reference is the policy anew, to the bit, whatever it was; so the next step begins with a KL of 0.
static void the_reference_is_set_anew(void **state) {
    const char *const types[] = {"dtype=f32", "dtype=bf16"};
    for (int k = 0; k < 2; k++) {
        Fixture f;
        fixture_dir(&f);
        char *more =
            xasprintf("%s sync_ref_model=true ref_model_sync_steps=3 ref_model_mixup_alpha=1 learning_rate=0.01 "
                      "max_steps=8",
                      types[k]);
        fixture_open(&f, more);
        Learner *l = &f.t.learner;
        for (int step = 1; step <= 7; step++) {
            void *old = bytes_of(l->engine.device, l->reference.slab);
            assert_int_equal(fixture_step(&f), STEP_DONE);
            double kl = 0;
            for (int i = 0; i < f.t.generation.batch.n; i++) kl += (double)f.t.generation.metric[i][GM_KL];
            assert_true(step % 3 == 1 ? kl == 0 : kl > 0);
            void *policy = bytes_of(l->engine.device, l->engine.policy.slab);
            assert_bytes(l->engine.device, l->reference.slab, step % 3 ? old : policy);
            assert_int_not_equal(memcmp(old, policy, tensor_bytes(l->reference.slab)), 0);
            free(old), free(policy);
        }
        fixture_close(&f);
        fixture_remove(&f);
        free(more);
    }
}

// Groups of 4, 8 and 16: a group answers one question, its advantages are its rewards less their mean over their
// deviation.
static void groups_have_the_size_that_is_asked_for(void **state) {
    Fixture f;
    fixture_dir(&f);
    for (int group = 4; group <= 16; group *= 2) {
        char *more = xasprintf("num_generations=%d per_device_train_batch_size=16 rewards=completion_length", group);
        fixture_open(&f, more);
        assert_int_equal(fixture_step(&f), STEP_DONE);
        const Batch *b = &f.t.generation.batch;
        assert_int_equal(b->group, group);
        assert_int_equal(b->n, 32);
        for (int p = 0; p < b->prompts; p++) {
            double mean = 0, squares = 0;
            for (int i = p * group; i < (p + 1) * group; i++) mean += (double)b->reward[i] / group;
            for (int i = p * group; i < (p + 1) * group; i++)
                squares += ((double)b->reward[i] - mean) * ((double)b->reward[i] - mean);
            double std = sqrt(squares / (group - 1));
            for (int i = p * group; i < (p + 1) * group; i++)
                assert_true(fabs((double)b->advantage[i] - ((double)b->reward[i] - mean) / (std + 1e-4)) < 1e-4);
            assert_true(std > 0 || group_is_flat(b, p));
        }
        fixture_close(&f);
        free(more);
    }
    fixture_remove(&f);
}

// ---- what is told ---------------------------------------------------------------------------------------------------

// Two passes over a generation: the second has ratios to clip. Every number is summed up anew from the batch.
static void metrics_tell_what_the_batch_holds(void **state) {
    Fixture f;
    Error e = {0};
    fixture_dir(&f);
    fixture_open(&f, "stop=e,a num_iterations=2 learning_rate=0.02 epsilon=0.01 top_entropy_quantile=0.25");
    assert_true(run_resume(&f.t.learner, &f.t.state, NULL, &f.t.report.metrics, &e));
    const Batch *b = &f.t.generation.batch;
    double tokens = 0;
    for (int step = 1; step <= 4; step++) {
        StepResult done = fixture_step(&f);
        assert_int_equal(done, STEP_DONE);
        assert_true(train_log(&f.t, done, &e));
        double ended = 0, ended_tokens = 0, all = 0, shortest = 1e9, longest = 0, reward = 0, scored = 0, flat = 0,
               kl = 0;
        double squares[2] = {0}, group_std = 0;
        double low = 0, high = 0, least_low = 1e9, most_high = 0, entropy = 0, policy = 0;
        for (int i = 0; i < b->n; i++) {
            const float *m = f.t.generation.metric[i];
            if (step % 2) tokens += (double)b->prompt[i / b->group].n + b->len[i];
            ended += b->finish[i] != FINISH_LENGTH;
            ended_tokens += b->finish[i] != FINISH_LENGTH ? b->len[i] : 0;
            all += b->len[i];
            shortest = fmin(shortest, b->len[i]), longest = fmax(longest, b->len[i]);
            reward += (double)b->reward[i] / b->n, scored += (double)b->score[i * b->n_rewards] / b->n;
            flat += i % b->group == 0 && group_is_flat(b, i / b->group);
            low += (double)m[GM_CLIP_LOW], high += (double)m[GM_CLIP_HIGH], kl += (double)m[GM_KL];
            least_low = fmin(least_low, (double)m[GM_CLIP_LOW] / b->len[i]);
            most_high = fmax(most_high, (double)m[GM_CLIP_HIGH] / b->len[i]);
            entropy += (double)m[GM_ENTROPY], policy += (double)m[GM_LOSS];
        }
        for (int i = 0; i < b->n; i++) {
            squares[0] += pow((double)b->reward[i] - reward, 2);
            squares[1] += pow((double)b->score[i * b->n_rewards] - scored, 2);
        }
        for (int p = 0; p < b->prompts; p++) {
            double mean = 0, sum = 0;
            for (int i = p * b->group; i < (p + 1) * b->group; i++) mean += (double)b->reward[i] / b->group;
            for (int i = p * b->group; i < (p + 1) * b->group; i++) sum += pow((double)b->reward[i] - mean, 2);
            group_std += sqrt(sum / (b->group - 1)) / b->prompts;
        }
        json_t *j = last_line(&f);
        assert_told(j, "reward_std", sqrt(squares[0] / (b->n - 1)));
        assert_told(j, "rewards/completion_length/std", sqrt(squares[1] / (b->n - 1)));
        assert_told(j, "reward_group_std", group_std);
        assert_told(j, "step", step);
        assert_told(j, "num_tokens", tokens);
        assert_told(j, "completions/mean_length", all / b->n);
        assert_told(j, "completions/min_length", shortest);
        assert_told(j, "completions/max_length", longest);
        assert_told(j, "completions/clipped_ratio", 1 - ended / b->n);
        assert_told(j, "completions/mean_terminated_length", ended_tokens / ended);
        assert_told(j, "reward", reward);
        assert_told(j, "rewards/completion_length/mean", scored);
        assert_told(j, "frac_reward_zero_std", flat / b->prompts);
        assert_told(j, "clip_ratio/low_mean", low / all);
        assert_told(j, "clip_ratio/high_mean", high / all);
        assert_told(j, "clip_ratio/low_min", least_low);
        assert_told(j, "clip_ratio/high_max", most_high);
        assert_told(j, "kl", kl / all);
        assert_told(j, "entropy", entropy / all);
        assert_told(j, "loss", policy);
        assert_told(j, "grad_norm", f.t.stats.grad_norm);
        if (step % 2 == 0) assert_true(low + high > 0 && most_high > least_low);
        json_decref(j);
    }
    fixture_close(&f);
    fixture_remove(&f);
}

// What metrics.jsonl says of the fixture's eight completions, in two groups, with these rewards in the place of theirs.
static json_t *told_of_rewards(const char *options, const float *reward) {
    Fixture f;
    Error e = {0};
    char more[160];
    fixture_dir(&f);
    snprintf(more, sizeof more, "rewards=completion_length %s", options);
    fixture_open(&f, more);
    assert_true(run_resume(&f.t.learner, &f.t.state, NULL, &f.t.report.metrics, &e));
    assert_int_equal(fixture_step(&f), STEP_DONE);
    assert_int_equal(f.t.generation.batch.n, 8);
    for (int i = 0; i < 8; i++)
        f.t.generation.batch.reward[i] = f.t.generation.batch.score[i * f.t.generation.batch.n_rewards] = reward[i];
    assert_true(train_log(&f.t, STEP_DONE, &e));
    json_t *j = last_line(&f);
    fixture_close(&f);
    fixture_remove(&f);
    return j;
}

// Equal rewards have no deviation, whatever they are; one alone has none that could be told; and where advantages are
// divided by the batch's, frac_reward_zero_std is about that one.
static void deviations_of_rewards(void **state) {
    static const float equal[8] = {2.7f, 2.7f, 2.7f, 2.7f, 2.7f, 2.7f, 2.7f, 2.7f},
                       groups[8] = {.1f, .1f, .1f, .1f, .3f, .3f, .3f, .3f},
                       one[8] = {NAN, NAN, 2, NAN, NAN, NAN, NAN, NAN};
    json_t *j = told_of_rewards("", equal);
    assert_true(json_number_value(json_object_get(j, "reward_std")) == 0);
    assert_told(j, "frac_reward_zero_std", 1);
    json_decref(j);
    j = told_of_rewards("", groups);
    assert_told(j, "reward_std", sqrt(8 * .01 / 7));
    assert_true(json_number_value(json_object_get(j, "reward_group_std")) == 0);
    assert_told(j, "frac_reward_zero_std", 1);
    assert_null(json_object_get(j, "frac_groups_equal"));
    json_decref(j);
    j = told_of_rewards("scale_rewards=batch", groups);
    assert_told(j, "frac_reward_zero_std", 0);
    assert_told(j, "frac_groups_equal", 1);
    json_decref(j);
    j = told_of_rewards("multi_objective_aggregation=normalize_then_sum", groups);
    assert_told(j, "frac_reward_zero_std", 1);
    json_decref(j);
    j = told_of_rewards("", one);
    assert_told(j, "reward", 2);
    assert_true(json_is_null(json_object_get(j, "reward_std")) && json_is_null(json_object_get(j, "reward_group_std")));
    assert_told(j, "frac_reward_zero_std", 0);
    json_decref(j);
}

// TRL's names: the share of tokens clipped, of sequences where each has one ratio, and a name of its own with cispo.
static void clip_ratios_are_told_as_trl_tells_them(void **state) {
    static const char *const options[] = {"importance_sampling_level=sequence", "loss_type=cispo epsilon_high=1.001",
                                          "loss_type=sapo"};
    Fixture f;
    Error e = {0};
    for (int k = 0; k < 3; k++) {
        char more[200];
        fixture_dir(&f);
        snprintf(more, sizeof more, "%s stop=e,a num_iterations=2 learning_rate=0.02 epsilon=0.001", options[k]);
        fixture_open(&f, more);
        assert_true(run_resume(&f.t.learner, &f.t.state, NULL, &f.t.report.metrics, &e));
        for (int step = 1; step <= 2; step++) {
            assert_int_equal(fixture_step(&f), STEP_DONE);
            assert_true(train_log(&f.t, STEP_DONE, &e));
        }
        const Batch *b = &f.t.generation.batch;
        double high = 0, tokens = 0, sequences = 0;
        for (int i = 0; i < b->n; i++) {
            high += (double)f.t.generation.metric[i][GM_CLIP_HIGH], tokens += b->len[i];
            sequences += f.t.generation.metric[i][GM_CLIP_HIGH] > 0;
        }
        json_t *j = last_line(&f);
        if (k < 2) assert_true(sequences > 0 && sequences < b->n && high < tokens);
        if (k == 0) assert_told(j, "clip_ratio/high_mean", sequences / b->n);
        if (k == 1) assert_told(j, "cispo_clip_ratio", high / tokens);
        assert_true((json_object_get(j, "clip_ratio/high_mean") != NULL) == (k == 0));
        assert_true((json_object_get(j, "cispo_clip_ratio") != NULL) == (k == 1));
        json_decref(j);
        fixture_close(&f);
        fixture_remove(&f);
    }
}

// The coefficient starts at entropy_coef, waits for a step's entropy, and moves by delta after each step, within its
// bounds.
static void the_entropy_coefficient_adapts(void **state) {
    Fixture f;
    Error e = {0};
    fixture_dir(&f);
    fixture_open(&f, "use_adaptive_entropy=true entropy_coef=0.01 entropy_target=100 entropy_coef_delta=0.004 "
                     "entropy_coef_max=0.02 top_entropy_quantile=0.5");
    assert_true(run_resume(&f.t.learner, &f.t.state, NULL, &f.t.report.metrics, &e));
    static const double after[] = {0.014, 0.018, 0.02, 0.016, 0.012}; // then the target is out of reach
    for (int step = 0; step < 5; step++) {
        double before = f.t.state.entropy_coef, policy = 0, loss = 0, sum = 0, kept = 0;
        bool applied = f.t.state.last_entropy >= 0 && f.t.state.last_entropy <= f.cfg.entropy_target;
        if (step == 3) f.cfg.entropy_target = 1e-3, applied = false;
        assert_int_equal(fixture_step(&f), STEP_DONE);
        assert_true(train_log(&f.t, STEP_DONE, &e));
        for (int i = 0; i < f.t.generation.batch.n; i++) {
            policy += (double)f.t.generation.metric[i][GM_POLICY], loss += (double)f.t.generation.metric[i][GM_LOSS];
            sum += (double)f.t.generation.metric[i][GM_POLICY_ENTROPY],
                kept += (double)f.t.generation.metric[i][GM_POLICY_TOKENS];
        }
        json_t *j = last_line(&f);
        assert_told(j, "entropy_coef", after[step]);
        assert_told(j, "policy_loss", policy);
        assert_true(fabs(f.t.state.last_entropy - sum / kept) < 1e-6 &&
                    kept < json_number_value(json_object_get(j, "num_tokens")));
        assert_int_equal(applied, step == 1 || step == 2);
        assert_true(fabs(policy - loss - (applied ? before * sum / kept : 0)) < 1e-6);
        json_decref(j);
    }
    fixture_close(&f);
    fixture_remove(&f);
}

// Of the tokens a share carries the policy's loss: those of the highest entropy, over the whole step.
static void few_tokens_carry_the_loss(void **state) {
    Fixture f;
    fixture_dir(&f);
    fixture_open(&f, "top_entropy_quantile=0.25 beta=0 entropy_coef=0.5");
    assert_int_equal(fixture_step(&f), STEP_DONE);
    const Batch *b = &f.t.generation.batch;
    Tensor d = f.t.learner.work.dlogp; // of the last micro-batch
    float *dlogp = bytes_of(f.t.learner.engine.device, d),
          *bonus = bytes_of(f.t.learner.engine.device, f.t.learner.work.dentropy);
    int first = b->n - (int)f.cfg.per_device_train_batch_size, at = 0, carry = 0, tokens = 0;
    double least = 1e9;
    for (int i = 0; i < b->n; i++) tokens += b->len[i];
    float *all = xmalloc((size_t)tokens * sizeof *all), *to = all;
    for (int i = 0; i < b->n; i++)
        for (int t = 0; t < b->len[i]; t++) *to++ = b->entropy[(size_t)i * (size_t)b->max_completion + (size_t)t];
    for (int i = first; i < b->n; i++)
        for (int t = 0; t < b->len[i]; t++, at++)
            if (dlogp[at] != 0)
                carry++, least = fmin(least, (double)b->entropy[(size_t)i * (size_t)b->max_completion + (size_t)t]);
    assert_true(carry > 0);
    int above = 0; // of the whole step; a group's first tokens have one prefix, and one entropy
    for (int i = 0; i < tokens; i++) above += (double)all[i] > least;
    assert_true(above < tokens / 4);
    double kept = 0; // the bonus is a mean over those that carry the loss
    for (int k = 0; k < at; k++)
        if (bonus[k] != 0) kept = -0.5 / (double)bonus[k];
    assert_true(kept > above && kept < tokens / 3.0);
    free(all), free(dlogp), free(bonus);
    fixture_close(&f);
    fixture_remove(&f);
}

static void the_last_number_is_the_lenient_answer(void **state) {
    static const struct {
        const char *text, *gold;
        int right;
    } cases[] = {{"It is 1,234.", "1234", 1},
                 {"5 and 7", "7", 1},
                 {"5 and 7", "5", 0},
                 {"= 12.50", "12.5", 1},
                 {"-3", "3", 0},
                 {"is -3", "-3", 1},
                 {"7-3", "3", 1},
                 {"007", "7", 1},
                 {"none", "7", 0},
                 {"", "7", 0},
                 {"18.0", "18", 1},
                 {"1,234", "234", 0},
                 {"<answer>\n4\n</answer>", "4", 1},
                 {"0.5", ".5", 1},
                 {"is .50", "0.5", 1},
                 {"is -.5", "-0.5", 1},
                 {"the end.5", ".5", 0},
                 {"is \u22127", "-7", 1},
                 {"is \u22127", "7", 0},
                 {"9\u22127", "7", 1},
                 {"is -0.00", "0", 1},
                 {"is -0.5", "0", 0},
                 {"is 1 250", "1250", 1},
                 {"is 1\u202f250\u00a0000 m", "1250000", 1},
                 {"5 250", "250", 1},
                 {"2024 250", "2024250", 0},
                 {"1 2500", "12500", 0},
                 {"0.5 250", "0.5250", 0},
                 {"$72!", "72", 1},
                 {"72", "72,000", 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (grade_lenient(cases[i].text, cases[i].gold) != cases[i].right)
            fail_msg("%s against %s", cases[i].text, cases[i].gold);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_move_as_adamw_moves_them),
        cmocka_unit_test(truncated_completions_count_by_option),
        cmocka_unit_test(schedules_are_transformers),
        cmocka_unit_test(flat_groups_are_drawn_again),
        cmocka_unit_test(the_reference_follows_by_its_steps),
        cmocka_unit_test(the_reference_is_set_anew),
        cmocka_unit_test(groups_have_the_size_that_is_asked_for),
        cmocka_unit_test(metrics_tell_what_the_batch_holds),
        cmocka_unit_test(deviations_of_rewards),
        cmocka_unit_test(clip_ratios_are_told_as_trl_tells_them),
        cmocka_unit_test(the_entropy_coefficient_adapts),
        cmocka_unit_test(few_tokens_carry_the_loss),
        cmocka_unit_test(the_last_number_is_the_lenient_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
