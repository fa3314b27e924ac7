// What metrics.jsonl says of a step against what TRL's trainer logs of the same completions
// (tests/golden/grpo_options.json).
#include "grpo_golden.h"
#include "train_fixture.h"

// A trainer with a case's options. Its batch and sums are then filled from the case's, as after a step.
static void open_for(Fixture *f, const json_t *g, const Case *c) {
    static const char *const names[] = {"completion_length", "xmlcount", "int"};
    Str all = {0};
    str_printf(&all,
               "num_generations=%lld per_device_train_batch_size=%lld gradient_accumulation_steps=1 "
               "log_completions=false rewards=",
               (long long)c->in.group_size, (long long)c->n);
    for (int64_t k = 0; k < c->in.n_rewards; k++)
        str_printf(&all, "%s%s:weight=%.9g", k ? "," : "", names[k], (double)f32(c->in.weights)[k]);
    const char *key;
    json_t *v;
    json_object_foreach(json_object_get(g, "options"), key, v) {
        if (json_is_boolean(v)) str_printf(&all, " %s=%s", key, json_is_true(v) ? "true" : "false");
        else if (json_is_string(v)) str_printf(&all, " %s=%s", key, json_string_value(v));
        else str_printf(&all, " %s=%.17g", key, json_number_value(v));
    }
    note_quiet(true);
    fixture_open(f, all.s);
    note_quiet(false);
    str_free(&all);
}

static void fill(Trainer *t, const json_t *g, const Case *c) {
    Batch *b = &t->generation.batch;
    grpo_order(t->generation.order, b->n, 1, 0, 0);
    assert_true(b->n == c->n && b->n_rewards == c->in.n_rewards);
    memcpy(b->score, c->in.rewards.data, tensor_bytes(c->in.rewards));
    for (int i = 0; i < b->n; i++) {
        b->reward[i] = reward_total(t->scoring.rewards.reward, b->n_rewards, b->score + i * b->n_rewards);
        memcpy(t->generation.metric[i], f32(c->out.metrics) + i * GM_COUNT, sizeof t->generation.metric[i]);
        b->len[i] = i32(c->in.offsets)[i + 1] - i32(c->in.offsets)[i];
    }
    const json_t *next = json_object_get(g, "entropy_next");
    if (next) t->state.entropy_coef = json_number_value(json_array_get(next, 0));
}

// Our rewards stand for r0, r1, r2.
static const json_t *told(const json_t *line, const Trainer *t, const char *name) {
    char ours[128];
    int k;
    char rest[64];
    if (sscanf(name, "rewards/r%d/%63s", &k, rest) != 2) return json_object_get(line, name);
    snprintf(ours, sizeof ours, "rewards/%s/%s", t->scoring.rewards.reward[k].name, rest);
    return json_object_get(line, ours);
}

static void compare(const json_t *golden, const json_t *g, int *compared) {
    const json_t *b = json_array_get(json_object_get(golden, "batches"), (size_t)number(g, "batch", 0));
    Case c = golden_batch(b);
    GrpoParams p = golden_params(json_object_get(g, "options"));
    golden_mask(&c, g, b);
    golden_scalars(g, &c, &p, (int)json_integer_value(json_object_get(golden, "max_completion_length")));
    case_run(&c, p);
    Fixture f;
    Error e = {0};
    fixture_dir(&f);
    open_for(&f, g, &c);
    assert_true(run_resume(&f.t.learner, &f.t.state, NULL, &f.t.report.metrics, &e));
    fill(&f.t, g, &c);
    assert_true(train_log(&f.t, STEP_DONE, &e));
    char *path = xasprintf("%s/out/metrics.jsonl", f.dir);
    json_t *line = json_read(path, &e);
    if (!line) fail_msg("%s", e.text);
    const char *name;
    json_t *want;
    json_object_foreach(json_object_get(g, "metrics"), name, want) {
        // GDPO in TRL leaves groups of equal rewards an advantage of some 1e-9, whose sign counts in these; ours is 0.
        bool signs = p.aggregation == NORMALIZE_THEN_SUM &&
                     (!strncmp(name, "clip_", 5) || !strncmp(name, "cispo", 5) || !strncmp(name, "vespo", 5));
        if (signs) continue;
        const json_t *got = told(line, &f.t, name);
        double x = json_number_value(got), y = json_number_value(want);
        if (!json_is_number(got) || !(fabs(x - y) <= 1e-5 * fabs(y) + 1e-7)) {
            char *options = json_dumps(json_object_get(g, "options"), 0);
            fail_msg("%s of %s: %.9g, TRL says %.9g", name, options, got ? x : NAN, y);
        }
        ++*compared;
    }
    json_decref(line);
    free(path);
    fixture_close(&f);
    fixture_remove(&f);
    case_free(&c);
}

static void metrics_are_those_of_trl(void **state) {
    Error e;
    json_t *golden = json_read("tests/golden/grpo_options.json", &e), *g;
    if (!golden) fail_msg("%s", e.text);
    int compared = 0;
    size_t i;
    json_array_foreach(json_object_get(golden, "cases"), i, g) if (json_object_get(g, "metrics"))
        compare(golden, g, &compared);
    print_message("  %d numbers\n", compared);
    assert_true(compared > 400);
    json_decref(golden);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(metrics_are_those_of_trl)};
    return cmocka_run_group_tests(tests, open_device, close_device);
}
