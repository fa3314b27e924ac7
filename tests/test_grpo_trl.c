// The GRPO loss against TRL's own trainer (tests/golden/grpo_loss.json, written by tools/golden.py).
#include "grpo_case.h"
#include "json.h"
#include "on_device.h"

#define GOLDEN "tests/golden/grpo_loss.json"

static double number(const json_t *o, const char *key, double otherwise) {
    const json_t *v = json_object_get(o, key);
    return json_is_number(v) ? json_number_value(v) : otherwise;
}
static int choice(const json_t *o, const char *key, const char *const *names) {
    const char *s = json_string_value(json_object_get(o, key));
    for (int i = 0; s && names[i]; i++)
        if (!strcmp(s, names[i])) return i;
    assert_null(s);
    return 0;
}
static void numbers(const json_t *list, float *out, int64_t n) {
    assert_int_equal(json_array_size(list), n);
    for (int64_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(list, (size_t)i);
        out[i] = json_is_number(v) ? (float)json_number_value(v) : NAN;
    }
}

static GrpoParams golden_params(const json_t *o) {
    static const char *const loss[] = {"grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", NULL};
    static const char *const level[] = {"token", "sequence", NULL};
    static const char *const scale[] = {"group", "batch", "none", NULL};
    static const char *const aggregation[] = {"sum_then_normalize", "normalize_then_sum", NULL};
    GrpoParams p = plain;
    p.loss_type = (LossType)choice(o, "loss_type", loss);
    p.level = (RatioLevel)choice(o, "importance_sampling_level", level);
    p.scale_rewards = (ScaleRewards)choice(o, "scale_rewards", scale);
    p.aggregation = (RewardAggregation)choice(o, "multi_objective_aggregation", aggregation);
    p.epsilon = (float)number(o, "epsilon", 0.2);
    p.epsilon_high = (float)number(o, "epsilon_high", p.epsilon);
    p.delta = (float)number(o, "delta", 0);
    p.beta = (float)number(o, "beta", 0);
    p.entropy_coef = (float)number(o, "entropy_coef", 0);
    p.sapo_tau_pos = (float)number(o, "sapo_temperature_pos", 1);
    p.sapo_tau_neg = (float)number(o, "sapo_temperature_neg", 1.05);
    p.off_policy_threshold = (float)number(o, "off_policy_mask_threshold", 0);
    return p;
}

static Case golden_batch(const json_t *b) {
    int length[64];
    const json_t *lengths = json_object_get(b, "length"), *scores = json_object_get(b, "scores");
    size_t n = json_array_size(lengths), k = json_array_size(json_object_get(b, "weights"));
    assert_true(n <= 64);
    for (size_t i = 0; i < n; i++) length[i] = (int)json_integer_value(json_array_get(lengths, i));
    Case c = case_new(json_integer_value(json_object_get(b, "groups")),
                      json_integer_value(json_object_get(b, "group_size")), (int64_t)k, length);
    for (size_t i = 0; i < n; i++) numbers(json_array_get(scores, i), f32(c.in.rewards) + i * k, (int64_t)k);
    numbers(json_object_get(b, "weights"), f32(c.in.weights), (int64_t)k);
    numbers(json_object_get(b, "logp"), f32(c.in.logp), c.tokens);
    numbers(json_object_get(b, "old"), f32(c.in.old_logp), c.tokens);
    numbers(json_object_get(b, "ref"), f32(c.in.ref_logp), c.tokens);
    numbers(json_object_get(b, "entropy"), f32(c.in.entropy), c.tokens);
    return c;
}

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

static void matches_trl(void **state) {
    Error e;
    json_t *golden = json_read(GOLDEN, &e);
    assert_non_null(golden);
    int max_completion = (int)json_integer_value(json_object_get(golden, "max_completion_length"));
    double worst_loss = 0, worst_gradient = 0, worst_advantage = 0, worst_metric = 0;
    size_t i;
    json_t *g;
    json_array_foreach(json_object_get(golden, "cases"), i, g) {
        const json_t *o = json_object_get(g, "options"), *m = json_object_get(g, "metrics");
        const json_t *b = json_array_get(json_object_get(golden, "batches"), (size_t)number(g, "batch", 0));
        Case c = golden_batch(b);
        GrpoParams p = golden_params(o);
        if (json_is_true(json_object_get(o, "mask_truncated_completions")))
            for (int64_t s = 0; s < c.n; s++)
                ((uint8_t *)c.in.mask.data)[s] =
                    !json_is_true(json_array_get(json_object_get(b, "truncated"), (size_t)s));
        case_scalars(&c, &p, number(o, "top_entropy_quantile", 1), max_completion);
        case_run(&c, p);

        float *want = xmalloc(sizeof(float) * (size_t)(c.tokens + c.n));
        numbers(json_object_get(g, "advantages"), want, c.n);
        double advantage = relative(f32(c.out.advantage), want, c.n);
        numbers(json_object_get(g, "dlogp"), want, c.tokens);
        double gradient = relative(f32(c.out.dlogp), want, c.tokens);
        if (p.entropy_coef != 0) {
            numbers(json_object_get(g, "dentropy"), want, c.tokens);
            gradient = worse(gradient, relative(f32(c.out.dentropy), want, c.tokens));
        }
        double loss = relative_number(metric_sum(&c, GM_LOSS), number(g, "loss", NAN));
        double tokens = metric_sum(&c, GM_TOKENS), metrics = 0;
        if (p.beta != 0) metrics = relative_number(metric_sum(&c, GM_KL) / tokens, number(m, "kl", NAN));
        metrics = worse(metrics, relative_number(metric_sum(&c, GM_ENTROPY) / tokens, number(m, "entropy", NAN)));
        static const struct {
            const char *name;
            GrpoMetric metric;
        } clips[] = {{"clip_ratio/low_mean", GM_CLIP_LOW},
                     {"clip_ratio/high_mean", GM_CLIP_HIGH},
                     {"clip_ratio/region_mean", GM_CLIP_REGION},
                     {"cispo_clip_ratio", GM_CLIP_HIGH}};
        // GDPO in TRL leaves groups of equal rewards an advantage of some 1e-9, whose sign counts in these; ours is 0.
        for (size_t k = 0; k < 4 && p.aggregation == SUM_THEN_NORMALIZE; k++)
            if (json_object_get(m, clips[k].name))
                metrics = worse(
                    metrics, relative_number(clip_mean(&c, p.level, clips[k].metric), number(m, clips[k].name, NAN)));
        if (p.aggregation == SUM_THEN_NORMALIZE)
            metrics = worse(metrics, relative_number(p.batch_std, number(m, "reward_std", NAN)));
        if (!(loss < 1e-5 && gradient < 1e-5 && advantage < 1e-5 && metrics < 1e-5)) {
            char *text = json_dumps(o, 0);
            print_error("case %zu %s: loss %g, gradient %g, advantage %g, metrics %g\n", i, text, loss, gradient,
                        advantage, metrics);
            fail();
        }
        worst_loss = worse(worst_loss, loss);
        worst_gradient = worse(worst_gradient, gradient);
        worst_advantage = worse(worst_advantage, advantage);
        worst_metric = worse(worst_metric, metrics);
        free(want);
        case_free(&c);
    }
    assert_true(i >= 50);
    print_message("  %zu cases; worst relative error: loss %.1e, gradient %.1e, advantage %.1e, metrics %.1e\n", i,
                  worst_loss, worst_gradient, worst_advantage, worst_metric);
    json_decref(golden);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(matches_trl)};
    return cmocka_run_group_tests_name("grpo_trl", tests, open_device, close_device);
}
