// The GRPO loss against TRL's own trainer: tests/golden/grpo_loss.json, of every option by itself and all together, and
// grpo_options.json, of options drawn at random and generations that are cut (both written by tools/golden.py).
#include "grpo_case.h"

#define OPTIONS "tests/golden/grpo_options.json"
#include "json.h"
#include "on_device.h"

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
#define NAME_OF(NAME, name, sum, clip, level, help) #name,
    static const char *const loss[] = {LOSSES(NAME_OF) NULL};
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
    p.kl_ratio = json_is_true(json_object_get(o, "use_bias_correction_kl"));
    p.vespo_k_pos = (float)number(o, "vespo_k_pos", 2);
    p.vespo_lambda_pos = (float)number(o, "vespo_lambda_pos", 3);
    p.vespo_k_neg = (float)number(o, "vespo_k_neg", 3);
    p.vespo_lambda_neg = (float)number(o, "vespo_lambda_neg", 2);
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

// What a case says of the step: the whole batch, or the micro-batches of one of several steps.
static int64_t step_rows(const json_t *g, const Case *c) {
    return c->n * (int64_t)number(g, "accumulation", 1) / (int64_t)number(g, "steps_per_generation", 1);
}

// The scalars of the step over the first rows; and the coefficient that a controller in the middle of a run applies.
static void golden_scalars(const json_t *g, const Case *c, GrpoParams *p, int max_completion) {
    const json_t *o = json_object_get(g, "options"), *now = json_object_get(g, "entropy_now");
    case_scalars(c, p, number(o, "top_entropy_quantile", 1), max_completion);
    LossCounts counts = {
        .sequences = step_rows(g, c), .generation_sequences = c->n, .max_completion_length = max_completion};
    for (int64_t i = 0; i < c->n; i++) {
        int64_t tokens = i32(c->in.offsets)[i + 1] - i32(c->in.offsets)[i];
        if (!((uint8_t *)c->in.mask.data)[i]) continue;
        counts.generation_tokens += tokens;
        counts.tokens += i < counts.sequences ? tokens : 0;
    }
    p->loss_scale = grpo_loss_scale(p->loss_type, counts);
    if (!now) return;
    double last = json_number_value(json_array_get(now, 1));
    p->entropy_coef = last <= number(o, "entropy_target", NAN) ? (float)json_number_value(json_array_get(now, 0)) : 0;
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
    // GDPO in TRL leaves groups of equal rewards an advantage of some 1e-9, whose sign counts in clip ratios; ours is 0.
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
    if (json_is_true(json_object_get(o, "mask_truncated_completions")))
        for (int64_t s = 0; s < c.n; s++)
            ((uint8_t *)c.in.mask.data)[s] = !json_is_true(json_array_get(json_object_get(b, "truncated"), (size_t)s));
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
        double entropy = metric_sum(&c, GM_KEPT_ENTROPY) / fmax(metric_sum(&c, GM_KEPT), 1);
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
