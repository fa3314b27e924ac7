// The reference's weights, kept (reference_weights=resident) or read again for each generation into the gradients'
// memory (reload): the same run in less memory; and files that are no longer those that the run began with.
#include "on_device.h"
#include "train_fixture.h"

// Trains a step and saves it: a model directory with weights, f->dir/out/step_1.
static void make_model(Fixture *f) {
    Error e = {0};
    fixture_dir(f);
    fixture_open(f, "max_steps=1");
    if (!trainer_resume(&f->t, &e)) fail_msg("%s", e.text);
    assert_int_equal(fixture_step(f), STEP_DONE);
    if (!trainer_save(&f->t, &e)) fail_msg("%s", e.text);
    fixture_close(f);
}

static void open_on(Fixture *f, const char *more) {
    char *all =
        xasprintf("init=load model=%s/out/step_1 output_dir=%s/more learning_rate=0.01 %s", f->dir, f->dir, more);
    fixture_open(f, all);
    free(all);
}

// Whether the reference lies where the gradients do.
static bool shares(const Fixture *f) { return f->t.learner.reference.slab.data == f->t.learner.grad.slab.data; }

static void reading_it_again_changes_no_bit(void **state) {
    static const struct {
        const char *more;
        int steps;
    } variants[] = {{"steps_per_generation=4 num_iterations=2", 5}, // the second generation is the fifth step's
                    {"dtype=bf16 optim_dtype=f32_split gradient_checkpointing=true", 3},
                    {"dtype=f32 grad_dtype=bf16", 2}}; // larger than the gradients
    Fixture f;
    make_model(&f);
    for (size_t v = 0; v < sizeof variants / sizeof *variants; v++) {
        void *kept = NULL;
        float loss = 0;
        size_t params = 0, weights = 0;
        for (int again = 0; again < 2; again++) {
            char more[200];
            snprintf(more, sizeof more, "reference_weights=%s %s", again ? "reload" : "resident", variants[v].more);
            open_on(&f, more);
            Learner *l = &f.t.learner;
            assert_int_equal(shares(&f), again);
            double kl = 0, first = 0;
            for (int step = 0; step < variants[v].steps; step++) {
                assert_int_equal(fixture_step(&f), STEP_DONE);
                for (int i = 0; i < f.t.generation.batch.n; i++) {
                    float x = f.t.generation.metric[i][GM_KL];
                    if (step == 0) first += x;
                    else kl += x;
                }
            }
            assert_true(first == 0 && kl > 0);
            Tensor policy = l->engine.policy.slab;
            if (!again) {
                kept = bytes_of(l->engine.device, policy);
                loss = f.t.generation.batch.loss[0];
                params = l->engine.plan.params, weights = tensor_bytes(policy);
            } else {
                assert_bytes(l->engine.device, policy, kept);
                assert_memory_equal(&f.t.generation.batch.loss[0], &loss, sizeof loss);
                size_t grad = tensor_bytes(l->grad.slab), saved = params - l->engine.plan.params;
                size_t want = grad < weights ? grad : weights, rounded = ARENA_ALIGN; // where the next tensor begins
                assert_true(saved + rounded > want && saved < want + rounded);
            }
            fixture_close(&f);
        }
        free(kept);
    }
    fixture_remove(&f);
}

// By itself the reference is read again on the CPU alone, where there are files of it and it does not move.
static void auto_knows_where(void **state) {
    Fixture f;
    make_model(&f);
    const struct {
        const char *more;
        bool again;
    } cases[] = {{"", !test_on_cuda()}, {"sync_ref_model=true", false}, {"init=random", false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        open_on(&f, cases[i].more);
        assert_int_equal(shares(&f), cases[i].again);
        fixture_close(&f);
    }
    fixture_remove(&f);
}

// Drawn weights are drawn again.
static void drawn_weights_are_drawn_again(void **state) {
    Fixture f;
    void *kept = NULL;
    fixture_dir(&f);
    for (int again = 0; again < 2; again++) {
        fixture_open(&f, again ? "reference_weights=reload" : "reference_weights=resident");
        for (int step = 0; step < 3; step++) assert_int_equal(fixture_step(&f), STEP_DONE);
        if (again) assert_bytes(f.t.learner.engine.device, f.t.learner.engine.policy.slab, kept);
        else kept = bytes_of(f.t.learner.engine.device, f.t.learner.engine.policy.slab);
        fixture_close(&f);
    }
    free(kept);
    fixture_remove(&f);
}

static void change_last_weight(const char *path) {
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, -4, SEEK_END), 0);
    int byte = fgetc(file);
    assert_int_equal(fseek(file, -4, SEEK_END), 0);
    fputc(byte ^ 1, file); // its lowest bit
    assert_int_equal(fclose(file), 0);
}

// The step that needs the reference says that it is gone, and which option would not have needed it.
static void other_files_are_refused(void **state) {
    Fixture f;
    make_model(&f);
    char *weights = xasprintf("%s/out/step_1/model.safetensors", f.dir), *aside = xasprintf("%s.aside", weights);
    for (int there = 0; there < 2; there++) {
        Error e = {0};
        open_on(&f, "reference_weights=reload");
        assert_int_equal(fixture_step(&f), STEP_DONE);
        if (!there) assert_int_equal(rename(weights, aside), 0);
        else change_last_weight(weights);
        assert_int_equal(grpo_step(&f.t, &e), STEP_FAILED);
        assert_int_equal(e.code, EXIT_INPUT);
        assert_non_null(strstr(e.text, f.dir));
        assert_non_null(strstr(e.text, "reference_weights=resident"));
        assert_non_null(strstr(e.text, there ? "no longer those" : "reading the reference's weights again"));
        fixture_close(&f);
        if (!there) assert_int_equal(rename(aside, weights), 0);
    }
    free(weights), free(aside);
    fixture_remove(&f);
}

// What the checkpoint's reference was made of is what the run that goes on makes it of, or the run is refused.
static void another_start_is_refused(void **state) {
    static const struct {
        const char *begun, *goes_on;
        const char *says; // NULL: taken
    } cases[] = {
        {"seed=7", "seed=7", NULL},
        {"seed=7", "seed=8", "began with other weights (crc32c "},          // the weights are drawn by it
        {"seed=7 sync_ref_model=true", "seed=8 sync_ref_model=true", NULL}, // the checkpoint has the reference
        {"seed=7 beta=0", "seed=8 beta=0", NULL},
        {"lora_r=2", "lora_r=2", NULL},
        {"adapter=$A", "adapter=$A", NULL},
        {"adapter=$A", "adapter=$B", "files of model and adapter"},
        {"adapter=$A", "lora_r=2", "now no adapter"},
        {"lora_r=2", "adapter=$A", "(no adapter; now adapter crc32c "},
        {"adapter=$A beta=0", "adapter=$B beta=0", NULL},
    };
    Fixture f;
    Error e = {0};
    fixture_dir(&f);
    char *adapter[2];
    for (int i = 0; i < 2; i++) { // two that stand beside the same weights
        char more[200];
        snprintf(more, sizeof more, "lora_r=2 output_dir=%s/%c learning_rate=0.0%d max_steps=1", f.dir, "AB"[i], i + 1);
        fixture_open(&f, more);
        assert_true(trainer_resume(&f.t, &e));
        assert_int_equal(fixture_step(&f), STEP_DONE);
        f.t.state.step = 1;
        assert_true(trainer_save(&f.t, &e));
        fixture_close(&f);
        adapter[i] = xasprintf("%s/%c/step_1", f.dir, "AB"[i]);
    }
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        for (int again = 0; again < 2; again++) {
            const char *given = again ? cases[i].goes_on : cases[i].begun, *name = strchr(given, '$');
            char *more = xasprintf("%.*s%s%s output_dir=%s/run%zu", (int)strcspn(given, "$"), given,
                                   name ? adapter[name[1] - 'A'] : "", name ? name + 2 : "", f.dir, i);
            fixture_open(&f, more);
            bool taken = trainer_resume(&f.t, &e);
            if (!again) {
                assert_true(taken);
                assert_int_equal(fixture_step(&f), STEP_DONE);
                f.t.state.step = 1;
                if (!trainer_save(&f.t, &e)) fail_msg("%s", e.text);
            } else if (taken != !cases[i].says || (!taken && !strstr(e.text, cases[i].says)))
                fail_msg("%s, then %s: %s", cases[i].begun, given, taken ? "taken" : e.text);
            if (!taken) assert_int_equal(e.code, EXIT_INPUT);
            fixture_close(&f);
            free(more);
        }
    }
    free(adapter[0]), free(adapter[1]);
    fixture_remove(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reading_it_again_changes_no_bit), cmocka_unit_test(auto_knows_where),
        cmocka_unit_test(drawn_weights_are_drawn_again),   cmocka_unit_test(another_start_is_refused),
        cmocka_unit_test(other_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
