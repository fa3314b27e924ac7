// The GRPO step as a whole: the numerics contract, numbers that are not finite.
#include "child.h"
#include "file.h"
#include "near.h"
#include "on_device.h"
#include "train_fixture.h"
#include <math.h>

// Log-prob, logsumexp and entropy of every sampled token by the training path, `size` sequences a micro-batch, against
// those of the sampler. `shared`: neighbours of a group share their prompt's rows.
static void assert_trained_equals_sampled(Fixture *f, int size, bool shared) {
    Trainer *t = &f->t;
    Batch *b = &t->generation.batch;
    for (int at = 0; at < b->n; at += size) {
        int n = b->n - at < size ? b->n - at : size;
        packing_clear(&t->generation.packing);
        for (int i = at; i < at + n; i++) {
            const Ids *prompt = &b->prompt[i / b->group];
            size_t first = shared ? prompt->n - 1 : 0, own = prompt->n - first;
            if (i == at || i % b->group == 0)
                assert_true(packing_prefix(&t->generation.packing, prompt->id, (int64_t)first));
            memcpy(t->generation.joined, prompt->id + first, own * 4);
            memcpy(t->generation.joined + own, b->ids + i * b->max_completion, (size_t)b->len[i] * 4);
            assert_true(packing_add(&t->generation.packing, t->generation.joined, (int64_t)own + b->len[i],
                                    (int64_t)own, NULL));
        }
        TrainWork w = micro_pack(&t->learner, &t->generation.packing);
        micro_forward(t->learner.engine.device, &t->learner.engine.policy, &w, 1);
        const Tensor trained[] = {w.logp, w.lse, w.entropy};
        const float *const sampled[] = {b->logp, b->lse, b->entropy};
        for (int k = 0; k < 3; k++) {
            float *all = bytes_of(t->learner.engine.device, trained[k]), *x = all;
            for (int i = at; i < at + n; x += b->len[i++])
                assert_memory_equal(x, sampled[k] + i * b->max_completion, (size_t)b->len[i] * 4);
            free(all);
        }
    }
}

static void sampled_equals_trained(void **state) {
    const char *const dtypes[] = {"f32", "bf16"};
    const int slots[] = {1, 2, 7, 64}, micro[] = {1, 2, 7, 64};
    Fixture f;
    fixture_dir(&f);
    for (int d = 0; d < 2; d++) {
        float *first = NULL;
        for (int s = 0; s < 4; s++) {
            char more[256];
            snprintf(more, sizeof more,
                     "dtype=%s rollout_batch=%d per_device_train_batch_size=64 gradient_accumulation_steps=1 beta=0 "
                     "num_generations=8 threads=%d",
                     dtypes[d], slots[s], s % 3 + 1);
            fixture_open(&f, more);
            // weights of a size that makes the distribution uneven
            Tensor w = f.t.learner.engine.policy.slab;
            w.data = bytes_of(f.t.learner.engine.device, w);
            for (int64_t i = 0; i < tensor_numel(w); i++)
                if (i % 64 != 63) tensor_set(w, i, 2 * tensor_get(w, i));
            put_bytes(f.t.learner.engine.device, f.t.learner.engine.policy.slab, w.data);
            free(w.data);
            Error e = {0};
            for (int p = 0; p < f.t.generation.batch.prompts; p++)
                assert_true(prompter_next(&f.t.questions.prompter, f.t.questions.data, &f.t.generation.batch, p, &e));
            for (int i = 0; i < f.t.generation.batch.n; i++) f.t.generation.batch.key[i] = i;
            assert_true(rollout_run(&f.t.learner.engine.rollout, f.t.learner.engine.device, &f.t.learner.engine.policy,
                                    f.t.learner.engine.tokenizer, engine_stop_rule(&f.t.learner.engine),
                                    sample_params(&f.cfg), &f.t.generation.batch, (RolloutWatch){0}, &e));
            size_t bytes = (size_t)f.t.generation.batch.n * (size_t)f.t.generation.batch.max_completion * 4;
            if (!first) first = memcpy(xmalloc(bytes), f.t.generation.batch.logp, bytes);
            assert_memory_equal(first, f.t.generation.batch.logp,
                                bytes); // the same seed gives the same text at any batch size
            assert_trained_equals_sampled(&f, micro[s], true);
            if (micro[s] <= 7) assert_trained_equals_sampled(&f, micro[s], false); // there is room for so many prompts
            fixture_close(&f);
        }
        free(first);
    }
    fixture_remove(&f);
}

// Also where training computes the log-probs itself.
static void first_ratio_is_one(void **state) {
    Fixture f;
    fixture_dir(&f);
    for (int exact = 0; exact < 2; exact++) {
        fixture_open(&f, "");
        assert_true(f.t.generation.exact);
        f.t.generation.exact = exact;
        assert_int_equal(fixture_step(&f), STEP_DONE);
        for (int i = 0; i < f.t.generation.batch.n; i++) {
            assert_true(f.t.generation.metric[i][GM_RATIO_MIN] == 1 && f.t.generation.metric[i][GM_RATIO_MAX] == 1);
            assert_true(f.t.generation.metric[i][GM_KL] == 0); // the reference is the policy still
        }
        assert_true(f.t.stats.grad_norm > 0);
        fixture_close(&f);
    }
    fixture_remove(&f);
}

static void threads_do_not_matter(void **state) {
    Fixture f;
    fixture_dir(&f);
    const char *const dtypes[] = {"dtype=f32", "dtype=bf16", "dtype=bf16 optim_dtype=bf16 grad_dtype=bf16"};
    for (int d = 0; d < 3; d++) {
        void *first = NULL;
        for (int threads = 1; threads <= 3; threads++) {
            char more[256];
            snprintf(more, sizeof more, "threads=%d %s learning_rate=0.01", threads, dtypes[d]);
            fixture_open(&f, more);
            Device *device = f.t.learner.engine.device;
            void *start = bytes_of(device, f.t.learner.engine.policy.slab);
            for (int s = 0; s < 3; s++) assert_int_equal(fixture_step(&f), STEP_DONE);
            void *end = bytes_of(device, f.t.learner.engine.policy.slab);
            assert_memory_not_equal(start, end, tensor_bytes(f.t.learner.engine.policy.slab));
            free(start);
            if (!first) first = end;
            else {
                assert_memory_equal(first, end, tensor_bytes(f.t.learner.engine.policy.slab));
                free(end);
            }
            fixture_close(&f);
        }
        free(first);
    }
    fixture_remove(&f);
}

static Device real;
static int logprobs;     // calls of the op
static int64_t rows_run; // what the model ran over for them
static void counted_logprob(Device *d, Tensor logp, Tensor lse, Tensor entropy, Tensor x, Tensor rows, Tensor w,
                            Tensor target, float temperature) {
    logprobs++;
    rows_run += x.dim[0];
    real.logprob(d, logp, lse, entropy, x, rows, w, target, temperature);
}
static void counted_logprob_bwd(Device *d, Tensor dx, Tensor dw, Tensor dlogp, Tensor dentropy, Tensor x, Tensor rows,
                                Tensor w, Tensor target, Tensor lse, Tensor entropy, float temperature) {
    logprobs++;
    real.logprob_bwd(d, dx, dw, dlogp, dentropy, x, rows, w, target, lse, entropy, temperature);
}

static void cuts_do_not_matter(void **state) {
#define NAME_OF(NAME, name, sum, clip, level, help) #name,
    const char *const losses[] = {LOSSES(NAME_OF)};
    Fixture f;
    fixture_dir(&f);
    for (int k = 0; k < LOSS_COUNT; k++) {
        float *loss = NULL, *grad = NULL;
        const int sizes[] = {8, 4, 2, 1};
        for (int s = 0; s < 4; s++) {
            char more[256];
            snprintf(more, sizeof more,
                     "loss_type=%s epsilon_high=2 per_device_train_batch_size=%d gradient_accumulation_steps=%d "
                     "entropy_coef=0.01",
                     losses[k], sizes[s], 8 / sizes[s]);
            fixture_open(&f, more);
            assert_int_equal(fixture_step(&f), STEP_DONE);
            Tensor g = f.t.learner.grad.slab;
            if (s == 0) {
                loss = memcpy(xmalloc(8 * sizeof *loss), f.t.generation.batch.loss, 8 * sizeof *loss);
                grad = bytes_of(f.t.learner.engine.device, g);
            }
            assert_memory_equal(loss, f.t.generation.batch.loss, 8 * sizeof *loss);
            float *now = bytes_of(f.t.learner.engine.device, g);
            double error = distance_of(now, grad, tensor_numel(g));
            free(now);
            if (!(error < 1e-6)) fail_msg("%s, %d a micro-batch: gradients differ by %g", losses[k], sizes[s], error);
            fixture_close(&f);
        }
        free(loss);
        free(grad);
    }
    fixture_remove(&f);
}

// What sequences of a whole generation lose, and its gradients, when prompts are shared and when they are not.
static void sharing_changes_no_loss(void **state) {
    static const struct {
        const char *options;
        int micros[2];  // of the training of one step, alone and shared
        int planned[2]; // completions and prompts that memory is planned for, where prompts are shared
        bool whole;     // no group is cut by a micro-batch of the reference
    } cases[] = {
        {"per_device_train_batch_size=8 gradient_accumulation_steps=1", {1, 1}, {8, 2}, true},
        // groups of 4: one to a micro-batch
        {"per_device_train_batch_size=6 gradient_accumulation_steps=2", {2, 3}, {4, 1}, true},
        // 6, 2 + 4, 4 + 2, 6
        {"per_device_train_batch_size=6 gradient_accumulation_steps=4 num_generations=8", {4, 4}, {6, 2}, false},
        {"per_device_train_batch_size=1 gradient_accumulation_steps=8", {8, 8}, {1, 1}, false},
        // Each of a micro-batch may be of another group; the reference runs them in their groups all the same.
        {"per_device_train_batch_size=8 gradient_accumulation_steps=2 steps_per_generation=4", {2, 3}, {8, 8}, true},
        {"per_device_train_batch_size=8 gradient_accumulation_steps=1 dtype=bf16", {1, 1}, {8, 2}, true},
    };
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        float *grad = NULL, *loss = NULL, *reference = NULL;
        for (int shared = 0; shared < 2; shared++) {
            Fixture f;
            char more[256];
            snprintf(more, sizeof more, "share_prompts=%s entropy_coef=0.01 learning_rate=0 %s",
                     shared ? "true" : "false", cases[k].options);
            fixture_dir(&f);
            fixture_open(&f, more);
            Learner *l = &f.t.learner;
            const Batch *b = &f.t.generation.batch;
            int size = (int)f.cfg.per_device_train_batch_size, prompts = shared ? cases[k].planned[1] : size;
            assert_int_equal(l->work.ids.dim[0], (shared ? cases[k].planned[0] : size) * f.cfg.max_completion_length +
                                                     prompts * f.cfg.max_prompt_length);
            real = *l->engine.device;
            l->engine.device->logprob_bwd = counted_logprob_bwd;
            l->engine.device->logprob = counted_logprob;
            logprobs = 0, rows_run = 0;
            assert_int_equal(fixture_step(&f), STEP_DONE);
            int references = logprobs - cases[k].micros[shared];
            assert_int_equal(references, (b->n + size - 1) / size + (k == 1 && shared));
            int64_t whole =
                0; // a prompt but its last token, once or for each, and all completions but their last token
            for (int p = 0; p < b->prompts; p++) whole += ((int64_t)b->prompt[p].n - 1) * (shared ? 1 : b->group);
            for (int i = 0; i < b->n; i++) whole += b->len[i];
            assert_int_equal(rows_run == whole, !shared || cases[k].whole);
            assert_int_equal(f.t.stats.rows < f.t.stats.rows_alone, shared && f.cfg.per_device_train_batch_size > 1);
            double saved = 0; // where all groups are whole: each prompt but its last token, of all completions but one
            for (int p = 0; p < b->prompts; p++) saved += (double)(b->group - 1) * (double)(b->prompt[p].n - 1);
            if (shared && cases[k].micros[1] == 1) assert_true(f.t.stats.rows_alone - f.t.stats.rows == saved);
            for (int i = 0; i < f.t.generation.steps_per_pass - 1; i++) assert_int_equal(fixture_step(&f), STEP_DONE);
            size_t tokens = (size_t)b->n * (size_t)b->max_completion;
            int64_t n = tensor_numel(l->grad.slab);
            float *now = bytes_of(l->engine.device, l->grad.slab);
            if (!shared) {
                grad = now;
                loss = memcpy(xmalloc((size_t)b->n * 4), b->loss, (size_t)b->n * 4);
                reference = memcpy(xmalloc(tokens * 4), b->ref_logp, tokens * 4);
            } else {
                assert_memory_equal(loss, b->loss, (size_t)b->n * 4);
                assert_memory_equal(reference, b->ref_logp, tokens * 4);
                double error = distance_of(now, grad, n), most = f.cfg.dtype == DTYPE_F32 ? 1e-6 : 0x1p-6;
                if (!(error < most)) fail_msg("%s: gradients differ by %g", cases[k].options, error);
                free(now);
            }
            fixture_close(&f);
            fixture_remove(&f);
        }
        free(grad), free(loss), free(reference);
    }
}

// A mistake in the plan of a micro-batch is noticed before anything is written, and says which shapes do not fit.
static void step_in_too_little_room(const void *with) {
    note_quiet(true); // of prompts that are cut
    Fixture f = *(const Fixture *)with;
    fixture_open(&f, "per_device_train_batch_size=8 gradient_accumulation_steps=1 beta=0");
    f.t.generation.packing.max_tokens = 40;
    fixture_step(&f);
}
static void what_does_not_fit_dies_with_its_shape(void **state) {
    Fixture f;
    fixture_dir(&f);
    assert_dies(step_in_too_little_room, &f,
                "a micro-batch of 8 completions (the first is 0) does not fit its 40 rows of 8 sequences");
    fixture_remove(&f);
}

// Completions of one length: whatever the type of loss, a step's gradient is the same, also where it trains on a part
// of a generation. (While the policy is the one that sampled; later the types weigh ratios differently.)
static void equal_lengths_make_losses_equal(void **state) {
    static const char *const losses[] = {LOSSES(NAME_OF)};
    Fixture f;
    fixture_dir(&f);
    for (int accumulation = 1; accumulation <= 4; accumulation *= 2) {
        float *grad = NULL;
        for (int k = 0; k < LOSS_COUNT; k++) {
            if (k == LOSS_LUSPO) continue; // divides by no length
            char more[256];
            snprintf(more, sizeof more,
                     "loss_type=%s epsilon_high=2 beta=0 steps_per_generation=4 gradient_accumulation_steps=%d "
                     "max_completion_length=2",
                     losses[k], accumulation);
            fixture_open(&f, more);
            assert_int_equal(fixture_step(&f), STEP_DONE);
            for (int i = 0; i < f.t.generation.batch.n; i++) assert_int_equal(f.t.generation.batch.len[i], 2);
            Tensor g = f.t.learner.grad.slab;
            float *now = bytes_of(f.t.learner.engine.device, g);
            if (!grad) grad = now;
            else {
                double error = distance_of(now, grad, tensor_numel(g));
                free(now);
                if (!(error < 1e-6)) fail_msg("%s, %d of 4: gradients differ by %g", losses[k], accumulation, error);
            }
            fixture_close(&f);
        }
        free(grad);
    }
    fixture_remove(&f);
}

// Four steps, with the numbers that the sampler kept or (`exact` false) with those computed again: the calls of
// `logprob`.
static int train_four_steps(Fixture *f, const char *more, bool exact) {
    Error e = {0};
    fixture_dir(f);
    fixture_open(f, more);
    if (!trainer_resume(&f->t, &e)) fail_msg("%s", e.text);
    f->t.generation.exact = exact;
    real = *f->t.learner.engine.device;
    f->t.learner.engine.device->logprob = counted_logprob;
    logprobs = 0;
    for (int s = 0; s < 4; s++) {
        assert_int_equal(fixture_step(f), STEP_DONE);
        assert_true(train_log(&f->t, STEP_DONE, &e));
    }
    return logprobs;
}

// While the weights are those that sampled, training takes the sampler's numbers: the same bytes as computing them
// again.
static void kept_numbers_train_the_same(void **state) {
    static const struct {
        const char *options;
        int calls[2]; // of `logprob` in four steps: computed, kept
    } variants[] = {
        {"beta=0", {8, 0}},
        {"dtype=bf16 optim_dtype=bf16 grad_dtype=bf16 entropy_coef=0.01", {16, 8}}, // the reference's
        {"beta=0 top_entropy_quantile=0.4 entropy_coef=0.1", {16, 0}},
        {"beta=0 temperature=0.7 top_p=0.8 repetition_penalty=1.2 loss_type=cispo epsilon_high=2", {8, 0}},
        // each generation is used in four parts, and only the first of them is of the weights that sampled
        {"beta=0 steps_per_generation=4 num_iterations=2 top_entropy_quantile=0.6", {16, 12}},
    };
    for (size_t v = 0; v < sizeof variants / sizeof *variants; v++) {
        Fixture f[2];
        char *metrics[2], *completions[2];
        for (int exact = 0; exact < 2; exact++) {
            assert_int_equal(train_four_steps(&f[exact], variants[v].options, exact), variants[v].calls[exact]);
            metrics[exact] = metrics_text(&f[exact]);
            completions[exact] = output_text(&f[exact], "completions.jsonl");
        }
        assert_string_equal(metrics[0], metrics[1]);
        assert_string_equal(completions[0], completions[1]);
        const Learner *a = &f[0].t.learner, *b = &f[1].t.learner;
        const Tensor mine[] = {a->engine.policy.slab, a->grad.slab, a->moment1, a->moment2},
                     its[] = {b->engine.policy.slab, b->grad.slab, b->moment1, b->moment2};
        for (int i = 0; i < 4; i++) {
            void *bytes = bytes_of(a->engine.device, mine[i]);
            assert_bytes(b->engine.device, its[i], bytes);
            free(bytes);
        }
        for (int k = 0; k < 2; k++) {
            free(metrics[k]), free(completions[k]);
            fixture_close(&f[k]);
            fixture_remove(&f[k]);
        }
    }
}

// Faults: the device is a table, so a test can put itself in front of an op.
static int calls_left; // the op is poisoned when this reaches 0

static void poison(Device *d, Tensor x) {
    uint16_t half = 0x7fc0; // NaN
    float single = NAN;
    if (--calls_left == 0) d->copy(d, x.data, x.dtype == F32 ? (void *)&single : (void *)&half, dtype_size(x.dtype));
}
static void bad_sample(Device *d, SampleOut to, Tensor x, Tensor w, Tensor key, Tensor pos, Tensor seen,
                       Tensor seen_len, SampleParams p) {
    real.sample(d, to, x, w, key, pos, seen, seen_len, p);
    poison(d, to.logp);
}
static void bad_logprob(Device *d, Tensor logp, Tensor lse, Tensor entropy, Tensor x, Tensor rows, Tensor w,
                        Tensor target, float temperature) {
    real.logprob(d, logp, lse, entropy, x, rows, w, target, temperature);
    poison(d, logp);
}
static void bad_matmul_bwd(Device *d, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w) {
    real.matmul_bwd(d, dx, dw, dy, x, w);
    poison(d, dw);
}
static void bad_reward(const Reward *r, const Sample *s, int n, float *score) {
    for (int i = 0; i < n; i++) score[i] = i == 3 ? INFINITY : 1;
}

static void not_finite_changes_nothing(void **state) {
    Fixture f;
    fixture_dir(&f);
    RewardInfo wild = {.name = "wild", .fn = bad_reward, .reads = REWARD_READS_GROUP};
    for (int k = 0; k < 4; k++) {
        fixture_open(&f, "");
        assert_int_equal(fixture_step(&f), STEP_DONE);
        Learner *l = &f.t.learner;
        real = *l->engine.device;
        calls_left = 2;
        if (k == 0) {
            l->engine.device->sample = bad_sample;
            calls_left = 1; // the first draw: later ones may be in graphs recorded before
        }
        if (k == 1) {
            l->engine.device->logprob = bad_logprob;
            calls_left = 3; // the reference's two micro-batches come first
            f.t.generation.exact = false;
        }
        if (k == 2) l->engine.device->matmul_bwd = bad_matmul_bwd;
        if (k == 3) f.t.scoring.rewards.reward[0].info = &wild;
        Device *d = l->engine.device;
        void *weights = bytes_of(d, l->engine.policy.slab), *m = bytes_of(d, l->moment1), *v = bytes_of(d, l->moment2);
        assert_int_equal(fixture_step(&f), STEP_SKIPPED);
        assert_bytes(d, l->engine.policy.slab, weights);
        assert_bytes(d, l->moment1, m);
        assert_bytes(d, l->moment2, v);
        assert_int_equal(f.t.state.skipped, 1);
        assert_int_equal(f.t.state.step, 2);
        assert_int_equal(f.t.state.updates, 1);
        const char *const named[] = {"sampled log-prob", "loss", "gradient: model.layers.1.mlp.gate_proj.weight",
                                     "reward"};
        if (!strstr(f.t.stats.bad, named[k])) fail_msg("'%s' does not name %s", f.t.stats.bad, named[k]);
        *l->engine.device = real;
        if (k < 3) {
            assert_int_equal(fixture_step(&f), STEP_DONE);
            assert_int_equal(f.t.state.skipped, 0);
        }
        free(weights);
        free(m);
        free(v);
        fixture_close(&f);
    }
    fixture_remove(&f);
}

static void equal_rewards_teach_nothing(void **state) {
    Fixture f;
    fixture_dir(&f);
    fixture_open(&f, "rewards=correctness beta=0 weight_decay=0"); // a random model is never right
    void *weights = bytes_of(f.t.learner.engine.device, f.t.learner.engine.policy.slab);
    assert_int_equal(fixture_step(&f), STEP_DONE);
    assert_true(f.t.stats.grad_norm == 0);
    for (int i = 0; i < f.t.generation.batch.n; i++) assert_true(f.t.generation.batch.advantage[i] == 0);
    assert_bytes(f.t.learner.engine.device, f.t.learner.engine.policy.slab, weights);
    free(weights);
    fixture_close(&f);
    fixture_remove(&f);
}

// Two optimizer steps a generation: the first of them already knows the advantage of every completion, and a checkpoint
// between them goes on only with the same reference or none.
static void a_generation_used_in_parts(void **state) {
    Fixture f;
    Error e = {0};
    fixture_dir(&f);
    fixture_open(&f, "steps_per_generation=4 beta=0");
    assert_true(run_resume(&f.t.learner, &f.t.state, NULL, &f.t.report.metrics, &e));
    assert_int_equal(fixture_step(&f), STEP_DONE);
    const Batch *b = &f.t.generation.batch;
    for (int p = 0; p < b->prompts; p++) {
        double sum = 0, squares = 0;
        for (int i = p * b->group; i < (p + 1) * b->group; i++) {
            sum += (double)b->advantage[i];
            squares += (double)b->advantage[i] * (double)b->advantage[i];
        }
        assert_true(fabs(sum) < 1e-4);
        assert_int_equal(squares == 0, group_is_flat(b, p));
    }
    assert_true(trainer_save(&f.t, &e));
    fixture_close(&f);
    fixture_open(&f, "steps_per_generation=4 beta=0.1");
    assert_false(trainer_resume(&f.t, &e));
    assert_non_null(strstr(e.text, "beta"));
    fixture_close(&f);
    fixture_open(&f, "steps_per_generation=4 beta=0");
    assert_true(trainer_resume(&f.t, &e));
    fixture_close(&f);
    fixture_remove(&f);
}

static void memory_does_not_grow_with_tokens_times_vocabulary(void **state) {
    size_t work[2];
    for (int k = 0; k < 2; k++) {
        ModelDims n = {.family = &qwen2_family,
                       .V = k ? 151936 : 512,
                       .D = 64,
                       .F = 128,
                       .L = 2,
                       .H = 4,
                       .K = 2,
                       .d = 16,
                       .tied = true};
        Arena a = arena_measure();
        Activations x = activations_carve(&a, n, F32, 4096, KEEP_PRODUCTS);
        work[k] = a.peak;
        activations_free(&x);
    }
    assert_int_equal(work[0], work[1]);
    // and the head itself stays within the device's fixed scratch at 4,096 tokens x 151,936 ids (2.5 GB of logits)
    enum { V = 151936, D = 16, N = 4096 };
    Device *d = test_device(0);
    float *x = xcalloc((size_t)N * D, 4), *w = xcalloc((size_t)V * D, 4), *out = xcalloc((size_t)N * 3, 4);
    int32_t *rows = xcalloc(N, 4), *target = xcalloc(N, 4);
    for (int i = 0; i < N * D; i++) x[i] = (float)(i % 17) * 0.01f;
    for (int i = 0; i < N; i++) rows[i] = target[i] = i;
    Tensor there[] = {to_device(d, tensor2(out, F32, 3, N)), to_device(d, tensor2(x, F32, N, D)),
                      to_device(d, tensor1(rows, I32, N)), to_device(d, tensor2(w, F32, V, D)),
                      to_device(d, tensor1(target, I32, N))};
    float *result = there[0].data; // [3, N], on the device
    d->logprob(d, tensor1(result, F32, N), tensor1(result + N, F32, N), tensor1(result + 2 * N, F32, N), there[1],
               there[2], there[3], there[4], 1);
    device_fetch(d, out, there[0]);
    assert_true(fabs(out[5] + log(V)) < 1e-3); // all logits are 0
    assert_true(d->scratch.peak > 0 && d->scratch.peak <= d->scratch.cap);
    for (size_t i = 0; i < sizeof there / sizeof *there; i++) device_drop(d, there[i]);
    free(x);
    free(w);
    free(out);
    free(rows);
    free(target);
    device_close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_does_not_fit_dies_with_its_shape), // the first: its child has no threads of this process
        cmocka_unit_test(sampled_equals_trained),
        cmocka_unit_test(first_ratio_is_one),
        cmocka_unit_test(kept_numbers_train_the_same),
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(cuts_do_not_matter),
        cmocka_unit_test(sharing_changes_no_loss),
        cmocka_unit_test(equal_lengths_make_losses_equal),
        cmocka_unit_test(not_finite_changes_nothing),
        cmocka_unit_test(equal_rewards_teach_nothing),
        cmocka_unit_test(a_generation_used_in_parts),
        cmocka_unit_test(memory_does_not_grow_with_tokens_times_vocabulary),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
