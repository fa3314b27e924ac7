// What one step does, piece by piece, against the plainest account of it: which tokens count, which questions are drawn
// again, how far weights and the reference move, what supervised tuning learns.
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
        Run *r = &f.t.run;
        float *before = bytes_of(r->device, r->policy.slab);
        assert_int_equal(fixture_step(&f), STEP_DONE);
        float *after = bytes_of(r->device, r->policy.slab), *g = bytes_of(r->device, r->grad.slab);
        double squares = 0;
        for (int64_t i = 0; i < r->grad.slab.dim[0]; i++) squares += (double)g[i] * (double)g[i];
        double norm = sqrt(squares), scale = k == 1 ? max_norm[k] / norm : 1;
        assert_true(norm > 2e-3 && fabs(f.t.stats.grad_norm - norm) < 1e-6 * norm);
        for (int p = 0; p < r->policy.n_params; p++) {
            const Param *param = &r->policy.params[p];
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
        const Batch *b = &f.t.batch;
        int cut = 0;
        for (int i = 0; i < b->n; i++) {
            bool counts = !masked || b->finish[i] != FINISH_LENGTH;
            assert_true(f.t.metric[i][GM_TOKENS] == (float)(counts ? b->len[i] : 0));
            cut += b->finish[i] == FINISH_LENGTH;
        }
        assert_in_range(cut, 1, b->n - 1);
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
    const Batch *b = &f->t.batch;
    Draw x = {.prompts = b->prompts, .group = b->group, .next_key = f->t.next_key, .index = f->t.at.cursor.index};
    assert_in_range(b->prompts, 2, 16);
    assert_in_range(b->n, 2, 64);
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
    assert_in_range(flat, 1, once.prompts - 1);
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
    Run *r = &f.t.run;
    int64_t n = r->policy.slab.dim[0];
    for (int step = 1; step <= 5; step++) {
        float *ref = bytes_of(r->device, r->reference.slab);
        assert_int_equal(fixture_step(&f), STEP_DONE);
        if (step % 2) assert_bytes(r->device, r->reference.slab, ref);
        else {
            float *policy = bytes_of(r->device, r->policy.slab), *now = bytes_of(r->device, r->reference.slab);
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

// ---- supervised tuning --------------------------------------------------------------------------------------------

// Ids of an example, `learned` or not as they are added.
typedef struct {
    Ids ids;
    uint8_t wanted[512];
} Wanted;

static void want(const Fixture *f, Wanted *x, const char *text, bool special, bool learned) {
    size_t first = x->ids.n;
    tokenizer_encode(f->t.run.tokenizer, text, strlen(text), special, &x->ids);
    for (size_t i = first; i < x->ids.n; i++) x->wanted[i] = learned;
}
static void want_end(const Fixture *f, Wanted *x) {
    ids_add(&x->ids, f->t.run.hf.eos[0]);
    x->wanted[x->ids.n - 1] = true;
}

// The mean of - log-prob over the tokens that are to be learned, by the model that the fixture holds.
static double mean_nll(Fixture *f, const Wanted *x) {
    Run *r = &f->t.run;
    float logp[512];
    Packing p = packing_new(r->shape.train_tokens, r->shape.train_seqs);
    assert_true(packing_add(&p, x->ids.id, (int64_t)x->ids.n, 0, x->wanted));
    TrainWork w = micro_pack(r, &p);
    micro_forward(r, &r->policy, &w, 1);
    micro_keep(r, 0, w.logp);
    micro_kept(r, p.N, logp);
    double sum = 0;
    for (int64_t i = 0; i < p.N; i++) sum -= (double)logp[i] / (double)p.N;
    packing_free(&p);
    return sum;
}

// The loss that `grpo sft` logs for a file of one line.
static double sft_loss(const Fixture *f, const char *template, const char *line) {
    char *file = xasprintf("%s/sft.jsonl", f->dir), *out = xasprintf("%s/sft-%s-%zu", f->dir, template, strlen(line));
    FILE *to = fopen(file, "w");
    assert_true(to && fputs(line, to) >= 0 && !fclose(to));
    char *all =
        xasprintf("device=cpu model=models/tiny init=random dtype=f32 seed=7 progress=off max_steps=1 save_steps=0 "
                  "max_length=400 per_device_train_batch_size=1 gradient_accumulation_steps=1 "
                  "system_prompt=S chat_template=%s train_file=%s output_dir=%s",
                  template, file, out);
    char *arg[32];
    int n = 0;
    for (char *word = strtok(all, " "); word; word = strtok(NULL, " ")) arg[n++] = word;
    Error e = {0};
    if (command_sft(n, arg, &e) != EXIT_OK) fail_msg("sft: %s", e.text);
    char *path = xasprintf("%s/metrics.jsonl", out);
    size_t bytes;
    char *metrics = file_read(path, 1 << 16, &bytes, &e);
    json_t *j = metrics ? json_loads(metrics, 0, NULL) : NULL;
    double loss = json_number_value(json_object_get(j, "loss"));
    json_decref(j);
    free(metrics), free(path), free(all), free(file), free(out);
    return loss;
}

static void answers_and_their_ends_are_learned(void **state) {
    static const struct {
        const char *template, *first, *between; // around the first answer's turn
        bool ends; // an answer's end is a token that ends sampling, written by the template
    } cases[] = {{"qwen2.5", "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
                  "\n<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant\n", true},
                 {"r1-zero", "S\n\nUser: Hi\nAssistant:\n", "\n\nUser: And?\nAssistant:\n", false}};
    Fixture f;
    fixture_dir(&f);
    fixture_open(&f, "max_prompt_length=400 per_device_train_batch_size=4");
    for (int k = 0; k < 2; k++) {
        Wanted x = {0};
        want(&f, &x, cases[k].first, true, false);
        want(&f, &x, "It is 3.", false, true);
        want_end(&f, &x);
        double loss = sft_loss(&f, cases[k].template, "{\"prompt\": \"Hi\", \"completion\": \"It is 3.\"}\n");
        assert_true(fabs(loss - mean_nll(&f, &x)) < 1e-5);
        ids_free(&x.ids);

        // Two turns: where the template writes no end that stops sampling, only the last answer can be followed by one.
        x = (Wanted){0};
        want(&f, &x, cases[k].first, true, false);
        want(&f, &x, "It is 3.", false, true);
        if (cases[k].ends) want(&f, &x, "<|im_end|>", true, true);
        want(&f, &x, cases[k].between, true, false);
        want(&f, &x, "4", false, true);
        if (cases[k].ends) want(&f, &x, "<|im_end|>", true, true), want(&f, &x, "\n", true, false);
        else want_end(&f, &x);
        loss = sft_loss(&f, cases[k].template,
                        "{\"messages\": [{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"user\", \"content\": "
                        "\"Hi\"}, {\"role\": \"assistant\", \"content\": \"It is 3.\"}, {\"role\": \"user\", "
                        "\"content\": \"And?\"}, {\"role\": \"assistant\", \"content\": \"4\"}]}\n");
        double wanted = mean_nll(&f, &x);
        if (!(fabs(loss - wanted) < 1e-5)) fail_msg("%s: loss %.7f, not %.7f", cases[k].template, loss, wanted);
        ids_free(&x.ids);
    }
    fixture_close(&f);
    fixture_remove(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_move_as_adamw_moves_them),   cmocka_unit_test(truncated_completions_count_by_option),
        cmocka_unit_test(schedules_are_transformers),         cmocka_unit_test(flat_groups_are_drawn_again),
        cmocka_unit_test(the_reference_follows_by_its_steps), cmocka_unit_test(answers_and_their_ends_are_learned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
