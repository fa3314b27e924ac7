// The GRPO loss against TRL's own trainer: tests/golden/grpo_loss.json, of every option by itself and all together, and
// grpo_options.json, of options drawn at random and generations that are cut (both written by tools/golden.py).
#include "grpo_golden.h"
#include "on_device.h"

#define OPTIONS "tests/golden/grpo_options.json"

// Relative L2 error; 0 / 0 is 0.
static double relative(const float *x, const float *ref, int64_t n) {
    double error = 0, norm = 0;
    for (int64_t i = 0; i < n; i++) {
        error += pow((double)x[i] - ref[i], 2);
        norm += pow(ref[i], 2);
    }
    return error == 0 ? 0 : sqrt(error / norm);
}
static double relative_number(double x, double ref) { return x == ref ? 0 : fabs(x - ref) / fabs(ref); }

// Token-level means are over tokens; with a ratio per sequence TRL takes the mean over sequences.
static double clip_mean(const Case *c, RatioLevel level, GrpoMetric m) {
    if (level == LEVEL_TOKEN) return metric_sum(c, m) / metric_sum(c, GM_TOKENS);
    double s = 0;
    for (int64_t i = 0; i < c->n; i++) s += metric(c, i, m) > 0;
    return s / (double)c->n;
}

typedef struct {
    double loss, gradient, advantage, metrics;
} Errors;

static double sum_of(const Case *c, GrpoMetric m, int64_t rows) {
    double s = 0;
    for (int64_t i = 0; i < rows; i++) s += metric(c, i, m);
    return s;
}

// The metrics that are sums of the op's; those that the training loop makes of them are test_step's.
static double metrics_error(const json_t *m, const Case *c, const GrpoParams *p) {
    double tokens = metric_sum(c, GM_TOKENS), worst = 0;
    // GDPO in TRL leaves groups of equal rewards an advantage of some 1e-9, whose sign counts in clip ratios; ours is
    // 0.
    bool clips = p->aggregation == SUM_THEN_NORMALIZE;
    const struct {
        const char *name;
        double value;
        bool told;
    } told[] = {{"kl", metric_sum(c, GM_KL) / tokens, true},
                {"entropy", metric_sum(c, GM_ENTROPY) / tokens, true},
                {"policy_loss", metric_sum(c, GM_POLICY), true},
                {"vespo/phi_seq_mean", metric_sum(c, GM_PHI) / (double)c->n, clips},
                {"reward_std", p->batch_std, clips},
                {"clip_ratio/low_mean", clip_mean(c, p->level, GM_CLIP_LOW), clips},
                {"clip_ratio/high_mean", clip_mean(c, p->level, GM_CLIP_HIGH), clips},
                {"clip_ratio/region_mean", clip_mean(c, p->level, GM_CLIP_REGION), clips},
                {"cispo_clip_ratio", clip_mean(c, p->level, GM_CLIP_HIGH), clips}};
    for (size_t k = 0; k < sizeof told / sizeof *told; k++)
        if (told[k].told && json_object_get(m, told[k].name))
            worst = worse(worst, relative_number(told[k].value, number(m, told[k].name, NAN)));
    return worst;
}

static Errors golden_errors(const json_t *golden, const json_t *g) {
    const json_t *o = json_object_get(g, "options");
    const json_t *b = json_array_get(json_object_get(golden, "batches"), (size_t)number(g, "batch", 0));
    Case c = golden_batch(b);
    GrpoParams p = golden_params(o);
    golden_mask(&c, g, b);
    golden_scalars(g, &c, &p, (int)json_integer_value(json_object_get(golden, "max_completion_length")));
    case_run(&c, p);

    int64_t rows = step_rows(g, &c), tokens = i32(c.in.offsets)[rows];
    for (int64_t t = tokens; t < c.tokens; t++) f32(c.out.dlogp)[t] = 0; // of later steps
    float *want = xmalloc(sizeof(float) * (size_t)(c.tokens + c.n));
    Errors e = {.loss = relative_number(sum_of(&c, GM_LOSS, rows), number(g, "loss", NAN))};
    numbers(json_object_get(g, "advantages"), want, c.n);
    e.advantage = relative(f32(c.out.advantage), want, c.n);
    numbers(json_object_get(g, "dlogp"), want, c.tokens);
    e.gradient = relative(f32(c.out.dlogp), want, c.tokens);
    const json_t *dentropy = json_object_get(g, "dentropy");
    if (json_is_array(dentropy)) {
        numbers(dentropy, want, c.tokens);
        e.gradient = worse(e.gradient, relative(f32(c.out.dentropy), want, c.tokens));
    } else assert_true(p.entropy_coef == 0);
    if (json_object_get(g, "metrics")) e.metrics = metrics_error(json_object_get(g, "metrics"), &c, &p);
    const json_t *next = json_object_get(g, "entropy_next");
    if (next) {
        double entropy = metric_sum(&c, GM_POLICY_ENTROPY) / fmax(metric_sum(&c, GM_POLICY_TOKENS), 1);
        double coef = json_number_value(json_array_get(json_object_get(g, "entropy_now"), 0));
        EntropyRule rule = {number(o, "entropy_target", NAN), number(o, "entropy_coef_delta", NAN),
                            number(o, "entropy_coef_min", NAN), number(o, "entropy_coef_max", NAN)};
        coef = grpo_next_entropy_coef(coef, entropy, rule);
        e.metrics = worse(e.metrics, relative_number(entropy, json_number_value(json_array_get(next, 1))));
        e.metrics = worse(e.metrics, relative_number(coef, json_number_value(json_array_get(next, 0))));
    }
    free(want);
    case_free(&c);
    return e;
}

static void matches_trl_on(const char *path, size_t least) {
    Error error;
    json_t *golden = json_read(path, &error);
    if (!golden) fail_msg("%s", error.text);
    Errors worst = {0};
    size_t i;
    json_t *g;
    json_array_foreach(json_object_get(golden, "cases"), i, g) {
        Errors e = golden_errors(golden, g);
        if (!(e.loss < 1e-5 && e.gradient < 1e-5 && e.advantage < 1e-5 && e.metrics < 1e-5)) {
            char *text = json_dumps(json_object_get(g, "options"), 0);
            fail_msg("case %zu %s: loss %g, gradient %g, advantage %g, metrics %g", i, text, e.loss, e.gradient,
                     e.advantage, e.metrics);
        }
        worst.loss = worse(worst.loss, e.loss), worst.gradient = worse(worst.gradient, e.gradient);
        worst.advantage = worse(worst.advantage, e.advantage), worst.metrics = worse(worst.metrics, e.metrics);
    }
    assert_true(i >= least);
    print_message("  %zu cases; worst relative error: loss %.1e, gradient %.1e, advantage %.1e, metrics %.1e\n", i,
                  worst.loss, worst.gradient, worst.advantage, worst.metrics);
    json_decref(golden);
}

static void every_option_matches_trl(void **state) { matches_trl_on("tests/golden/grpo_loss.json", 50); }
static void options_at_random_match_trl(void **state) { matches_trl_on(OPTIONS, 84); }

static void thresholds_are_those_of_torch(void **state) {
    Error error;
    json_t *golden = json_read(OPTIONS, &error), *q;
    if (!golden) fail_msg("%s", error.text);
    size_t i;
    json_array_foreach(json_object_get(golden, "quantiles"), i, q) {
        float entropy[16], want;
        int64_t kept;
        numbers(json_object_get(q, "entropy"), entropy, (int64_t)json_array_size(json_object_get(q, "entropy")));
        float got = grpo_entropy_threshold(entropy, (int64_t)json_array_size(json_object_get(q, "entropy")),
                                           number(q, "keep", NAN), &kept);
        want = (float)number(q, "threshold", NAN);
        if (got != want) fail_msg("case %zu: %.9g, not %.9g", i, (double)got, (double)want);
    }
    assert_true(i >= 60);
    json_decref(golden);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_option_matches_trl),
        cmocka_unit_test(options_at_random_match_trl),
        cmocka_unit_test(thresholds_are_those_of_torch),
    };
    return cmocka_run_group_tests_name("grpo_trl", tests, open_device, close_device);
}
