// A run that was killed and goes on, and one whose masters are split, against the run that neither happened to.
#include "file.h"
#include "on_device.h"
#include "train_fixture.h"

static const char half_used[] =
    "steps_per_generation=4 num_iterations=2 sync_ref_model=true ref_model_sync_steps=2 max_steps=6";

// Runs to max_steps; the run is dropped, as by kill -9, after `stop` steps (saved every step), and opened again.
static void run_with_stop(Fixture *f, const char *more, int stop) {
    for (int part = 0; part < 2; part++) {
        Error e = {0};
        fixture_open(f, more);
        if (!trainer_resume(&f->t, &e)) fail_msg("%s", e.text);
        assert_int_equal(f->t.state.step, part ? stop : 0);
        while (f->t.state.step < (part ? f->t.total_steps : stop)) {
            StepResult s = fixture_step(f);
            assert_int_equal(s, STEP_DONE);
            assert_true(train_log(&f->t, s, &e));
            if (!trainer_save(&f->t, &e)) fail_msg("%s", e.text);
        }
        if (part == 0) { // a step begun and lost
            fixture_step(f);
            fixture_close(f);
        }
    }
}

static void assert_same_file(const Fixture *a, const Fixture *b, const char *name) {
    char *x = xasprintf("%s/%s", a->dir, name), *y = xasprintf("%s/%s", b->dir, name);
    size_t n, m;
    char *one = file_read(x, 1 << 20, &n, NULL), *other = file_read(y, 1 << 20, &m, NULL);
    assert_non_null(one);
    assert_non_null(other);
    assert_string_equal(one, other);
    free(one), free(other), free(x), free(y);
}

static void resumed_run_is_the_same_run(void **state) {
    const char *const variants[] = {"",
                                    half_used,
                                    "use_adaptive_entropy=true entropy_coef=0.01 entropy_target=100",
                                    "dtype=bf16",
                                    "dtype=bf16 optim_dtype=f32_split",
                                    "dtype=bf16 optim_dtype=bf16 dynamic_sampling=2",
                                    "dtype=bf16 lora_r=3 lora_target=q_proj,v_proj,up_proj,down_proj"};
    for (size_t v = 0; v < sizeof variants / sizeof *variants; v++) {
        Fixture straight, stopped;
        fixture_dir(&straight);
        run_with_stop(&straight, variants[v], 0);
        char *metrics = metrics_text(&straight);
        for (int stop = 1; stop < 6; stop += v == 1 ? 1 : 2) {
            fixture_dir(&stopped);
            run_with_stop(&stopped, variants[v], stop);
            const Learner *a = &straight.t.learner, *b = &stopped.t.learner;
            const Tensor mine[] = {model_trained(&a->engine.policy).slab, a->moment1, a->moment2, a->reference.slab,
                                   a->master},
                         its[] = {model_trained(&b->engine.policy).slab, b->moment1, b->moment2, b->reference.slab,
                                  b->master};
            for (int i = 0; i < 5; i++) {
                if (!present(mine[i])) continue;
                void *bytes = bytes_of(a->engine.device, mine[i]);
                assert_bytes(b->engine.device, its[i], bytes);
                free(bytes);
            }
            assert_int_equal(straight.t.state.next_key, stopped.t.state.next_key);
            assert_same_file(&straight, &stopped, "out/step_6/state/train.json");
            char *again = metrics_text(&stopped);
            assert_string_equal(metrics, again);
            free(again);
            fixture_close(&stopped);
            fixture_remove(&stopped);
        }
        free(metrics);
        fixture_close(&straight);
        fixture_remove(&straight);
    }
}

// A split master is a master: the same run, but for where its bits lie.
static void split_masters_train_alike(void **state) {
    Fixture f[2];
    for (int k = 0; k < 2; k++) {
        fixture_dir(&f[k]);
        fixture_open(&f[k],
                     k ? "dtype=bf16 learning_rate=1e-3 optim_dtype=f32_split" : "dtype=bf16 learning_rate=1e-3");
        for (int i = 0; i < 3; i++) assert_int_equal(fixture_step(&f[k]), STEP_DONE);
    }
    Learner *whole = &f[0].t.learner, *split = &f[1].t.learner;
    const Tensor all[2][4] = {{whole->engine.policy.slab, whole->moment1, whole->moment2, whole->master},
                              {split->engine.policy.slab, split->moment1, split->moment2, split->master}};
    void *bytes[2][4];
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 4; i++) bytes[k][i] = bytes_of(whole->engine.device, all[k][i]);
    assert_memory_equal(bytes[0][0], bytes[1][0], tensor_bytes(all[0][0]));
    assert_memory_equal(bytes[0][1], bytes[1][1], tensor_bytes(all[0][1]));
    const uint32_t *v = bytes[0][2], *signed_v = bytes[1][2], *master = bytes[0][3];
    const uint16_t *w = bytes[1][0], *low = bytes[1][3];
    int64_t moved = 0;
    for (int64_t i = 0; i < tensor_numel(all[0][3]); i++) {
        assert_int_equal(v[i], signed_v[i] & 0x7fffffff);
        assert_int_equal(master[i], ((uint32_t)w[i] << 16 | low[i]) - (signed_v[i] >> 31 << 16));
        moved += low[i] != 0;
    }
    assert_true(moved > tensor_numel(all[0][3]) / 2);
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < 4; i++) free(bytes[k][i]);
        fixture_close(&f[k]);
        fixture_remove(&f[k]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resumed_run_is_the_same_run),
        cmocka_unit_test(split_masters_train_alike),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
