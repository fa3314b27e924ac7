// The GRPO loss: against finite differences, and what must hold exactly. Against TRL: test_grpo_trl.c.
#include "grpo_case.h"
#include "on_device.h"

// ---- exact properties -----------------------------------------------------------------------------------------------

static uint64_t seed = 1;
static double uniform(void) { // (0, 1); xorshift64*
    seed ^= seed >> 12, seed ^= seed << 25, seed ^= seed >> 27;
    return ((double)((seed * 2685821657736338717ull) >> 11) + 0.5) / 9007199254740992.0;
}

#define SEQUENCES 12
static const int lengths[SEQUENCES] = {3, 1, 7, 0, 12, 5, 2, 9, 4, 6, 1, 8};

// Two scores each, ratios between about 0.6 and 1.6.
static Case random_batch(uint64_t s, int64_t groups, int64_t group_size, const int *length) {
    seed = s;
    Case c = case_new(groups, group_size, 2, length);
    for (int64_t i = 0; i < 2 * c.n; i++) f32(c.in.rewards)[i] = (float)uniform();
    for (int64_t t = 0; t < c.tokens; t++) {
        f32(c.in.old_logp)[t] = (float)(-3 * uniform());
        f32(c.in.logp)[t] = f32(c.in.old_logp)[t] + (float)(uniform() - 0.5);
        f32(c.in.ref_logp)[t] = f32(c.in.old_logp)[t] + (float)(uniform() - 0.5);
        f32(c.in.entropy)[t] = (float)uniform();
    }
    return c;
}
// Three groups of four.
static Case random_case(uint64_t s) {
    Case c = random_batch(s, 3, 4, lengths);
    f32(c.in.rewards)[9] = NAN;
    ((uint8_t *)c.in.mask.data)[5] = 0;
    return c;
}

// Every loss type at both levels, all options on.
#define KINDS (2 * LOSS_COUNT)
static GrpoParams busy_params(int i, const Case *c) {
    GrpoParams p = plain;
    p.loss_type = (LossType)(i % LOSS_COUNT);
    p.level = (RatioLevel)(i / LOSS_COUNT % 2);
    p.scale_rewards = (ScaleRewards)(i % 3);
    p.aggregation = i % 4 == 3 ? NORMALIZE_THEN_SUM : SUM_THEN_NORMALIZE;
    p.epsilon_high = p.loss_type == LOSS_CISPO ? 1.1f : 0.28f;
    p.delta = i % 2 ? 1.35f : -1;
    p.beta = 0.1f;
    p.entropy_coef = 0.03f;
    p.kl_ratio = i % 3 > 0;
    p.off_policy_threshold = i < LOSS_COUNT ? 0.05f : -1;
    case_scalars(c, &p, 0.7, 12);
    return p;
}

// A micro-batch of `n` sequences, the first of them `first`, in reversed order where asked, into its own outputs.
static void run_part(const Case *c, GrpoParams p, int64_t first, int64_t n, bool reversed, GrpoOut *all) {
    int length[SEQUENCES] = {0};
    const int32_t *offset = i32(c->in.offsets);
    for (int64_t j = 0; j < n; j++) {
        int64_t i = reversed ? first + n - 1 - j : first + j;
        length[j] = offset[i + 1] - offset[i];
    }
    Case part = case_new(1, n, 1, length);
    GrpoIn in = part.in;
    in.groups = c->in.groups, in.group_size = c->in.group_size, in.n_rewards = c->in.n_rewards;
    in.rewards = c->in.rewards, in.weights = c->in.weights;
    for (int64_t j = 0; j < n; j++) {
        int64_t i = reversed ? first + n - 1 - j : first + j;
        i32(in.index)[j] = (int32_t)i;
        ((uint8_t *)in.mask.data)[j] = ((uint8_t *)c->in.mask.data)[i];
        Tensor from[] = {c->in.logp, c->in.old_logp, c->in.ref_logp, c->in.entropy};
        Tensor to[] = {in.logp, in.old_logp, in.ref_logp, in.entropy};
        for (int k = 0; k < 4; k++)
            memcpy(f32(to[k]) + i32(in.offsets)[j], f32(from[k]) + i32(c->in.offsets)[i], sizeof(float) * length[j]);
    }
    run_on_device(part.out, in, p);
    for (int64_t j = 0; j < n; j++) {
        int64_t i = i32(in.index)[j], t = i32(c->in.offsets)[i], u = i32(in.offsets)[j];
        f32(all->advantage)[i] = f32(part.out.advantage)[j];
        memcpy(f32(all->metrics) + i * GM_COUNT, f32(part.out.metrics) + j * GM_COUNT, sizeof(float) * GM_COUNT);
        memcpy(f32(all->dlogp) + t, f32(part.out.dlogp) + u, sizeof(float) * length[j]);
        memcpy(f32(all->dentropy) + t, f32(part.out.dentropy) + u, sizeof(float) * length[j]);
    }
    case_free(&part);
}

static void cut_does_not_matter(void **state) {
    Case c = random_case(7), again = random_case(7);
    for (int i = 0; i < KINDS; i++) {
        GrpoParams p = busy_params(i, &c);
        case_run(&c, p);
        for (int64_t cut = 1; cut <= 12; cut++) {
            for (int64_t first = 0; first < c.n; first += cut)
                run_part(&c, p, first, cut < c.n - first ? cut : c.n - first, cut % 2, &again.out);
            assert_memory_equal(c.out.advantage.data, again.out.advantage.data, tensor_bytes(c.out.advantage));
            assert_memory_equal(c.out.dlogp.data, again.out.dlogp.data, tensor_bytes(c.out.dlogp));
            assert_memory_equal(c.out.dentropy.data, again.out.dentropy.data, tensor_bytes(c.out.dentropy));
            assert_memory_equal(c.out.metrics.data, again.out.metrics.data, tensor_bytes(c.out.metrics));
        }
    }
    case_free(&c), case_free(&again);
}

// Completions longer than what one block of a GPU takes, next to short ones: alone they have the same bits, and their
// sums are those of all their tokens.
static void long_completions_are_whole(void **state) {
    static const int length[] = {5000, 0, 2048, 2049};
    Case c = random_batch(31, 1, 4, length), again = random_batch(31, 1, 4, length);
    const int32_t *offset = i32(c.in.offsets);
    for (int i = 0; i < KINDS; i++) {
        GrpoParams p = busy_params(i, &c);
        if (i % 2) p.off_policy_threshold = -1;
        case_run(&c, p);
        for (int64_t s = 0; s < 4; s++) run_part(&c, p, s, 1, false, &again.out);
        assert_memory_equal(c.out.dlogp.data, again.out.dlogp.data, tensor_bytes(c.out.dlogp));
        assert_memory_equal(c.out.dentropy.data, again.out.dentropy.data, tensor_bytes(c.out.dentropy));
        assert_memory_equal(c.out.metrics.data, again.out.metrics.data, tensor_bytes(c.out.metrics));
        for (int64_t s = 0; s < 4; s++) {
            double kept = 0, entropy = 0, ratio = 0, high = -INFINITY, mean = 0;
            for (int32_t t = offset[s]; t < offset[s + 1]; t++)
                mean += ((double)f32(c.in.logp)[t] - f32(c.in.old_logp)[t]) / length[s];
            for (int32_t t = offset[s]; t < offset[s + 1]; t++) {
                double w = exp(p.level == LEVEL_SEQUENCE ? mean : (double)f32(c.in.logp)[t] - f32(c.in.old_logp)[t]);
                kept += f32(c.in.entropy)[t] >= p.entropy_threshold;
                entropy += f32(c.in.entropy)[t];
                ratio += w, high = fmax(high, w);
            }
            assert_true(metric(&c, s, GM_TOKENS) == (float)length[s]);
            assert_true(metric(&c, s, GM_POLICY_TOKENS) == (float)kept);
            assert_near(metric(&c, s, GM_ENTROPY), entropy, 1e-6 * entropy);
            assert_near(metric(&c, s, GM_RATIO_SUM), ratio, 1e-6 * ratio);
            if (length[s]) assert_near(metric(&c, s, GM_RATIO_MAX), high, 1e-6);
        }
    }
    case_free(&c), case_free(&again);
}

// The slopes of the loss along token j of every sequence's column x[N], slope[SEQUENCES]: a sequence's loss depends on
// its own tokens alone, so two evaluations serve all. GM_LOSS is f32, so the step is large.
static void slopes(Case *c, GrpoParams p, float *x, int j, double *slope) {
    float kept[SEQUENCES] = {0}, step = 1e-2f;
    double up[SEQUENCES];
    for (int side = 1; side >= -1; side -= 2) {
        for (int s = 0; s < SEQUENCES; s++) {
            float *at = x + i32(c->in.offsets)[s] + j;
            if (j >= lengths[s]) continue;
            if (side > 0) kept[s] = *at;
            *at = kept[s] + (float)side * step;
        }
        case_run(c, p);
        for (int s = 0; s < SEQUENCES; s++) {
            double loss = metric(c, s, GM_LOSS), width = (double)(kept[s] + step) - (double)(kept[s] - step);
            if (side > 0) up[s] = loss;
            else slope[s] = (up[s] - loss) / width;
        }
    }
    for (int s = 0; s < SEQUENCES; s++)
        if (j < lengths[s]) x[i32(c->in.offsets)[s] + j] = kept[s];
}

static void gradients_are_slopes(void **state) {
    for (int i = 0; i < KINDS; i++) {
        Case c = random_case(11);
        GrpoParams p = busy_params(i, &c);
        p.loss_scale = p.entropy_scale = 1;
        // cispo's gradient leaves the ratio out: with the ratio at its cap everywhere that is the slope too.
        if (p.loss_type == LOSS_CISPO) p.epsilon_high = 0.3f;
        // vespo's leaves phi out: it does not move where the ratio of the sequence is below its bound and has no power.
        if (p.loss_type == LOSS_VESPO) {
            p.vespo_k_pos = p.vespo_k_neg = 0;
            p.off_policy_threshold = -1;
            for (int64_t t = 0; t < c.tokens; t++) f32(c.in.old_logp)[t] += 25;
        }
        case_run(&c, p);
        float *dlogp = xmalloc(tensor_bytes(c.out.dlogp)), *dentropy = xmalloc(tensor_bytes(c.out.dentropy));
        memcpy(dlogp, c.out.dlogp.data, tensor_bytes(c.out.dlogp));
        memcpy(dentropy, c.out.dentropy.data, tensor_bytes(c.out.dentropy));
        double error = 0, norm = 0, by_logp[SEQUENCES], by_entropy[SEQUENCES];
        for (int j = 0; j < 12; j++) {
            slopes(&c, p, f32(c.in.logp), j, by_logp);
            slopes(&c, p, f32(c.in.entropy), j, by_entropy);
            for (int s = 0; s < SEQUENCES; s++) {
                if (j >= lengths[s]) continue;
                int32_t t = i32(c.in.offsets)[s] + j;
                // Away from the clipping edges, which have no slope: a ratio of one sequence is far from them anyway.
                double w = exp((double)f32(c.in.logp)[t] - f32(c.in.old_logp)[t]);
                double edges[] = {1 - (double)p.epsilon, 1 + (double)p.epsilon_high, p.delta >= 0 ? p.delta : 9};
                bool at_edge = false;
                for (int k = 0; k < 3; k++) at_edge |= fabs(w - edges[k]) < 0.02;
                if (p.level == LEVEL_TOKEN && at_edge) continue;
                error += pow(by_logp[s] - dlogp[t], 2), norm += pow(by_logp[s], 2);
                // The threshold is fixed: moving an entropy must not move it, nor carry the token over it.
                if (fabsf(f32(c.in.entropy)[t] - p.entropy_threshold) < 0.02f) continue;
                error += pow(by_entropy[s] - dentropy[t], 2), norm += pow(by_entropy[s], 2);
            }
        }
        assert_true(norm > 0.1);
        if (!(sqrt(error / norm) < 5e-4)) {
            print_error("loss type %d, level %d: %g\n", p.loss_type, p.level, sqrt(error / norm));
            fail();
        }
        free(dlogp), free(dentropy), case_free(&c);
    }
}

static void masked_tokens_cannot_poison(void **state) {
    for (int i = 0; i < KINDS; i++) {
        Case c = random_case(13), clean = random_case(13);
        GrpoParams p = busy_params(i, &c);
        float bad[] = {-INFINITY, INFINITY, NAN, -1e30f, 1e30f};
        for (int32_t t = i32(c.in.offsets)[5], k = 0; t < i32(c.in.offsets)[6]; t++, k++) {
            f32(c.in.logp)[t] = bad[k % 5];
            f32(c.in.old_logp)[t] = bad[(k + 1) % 5];
            f32(c.in.ref_logp)[t] = bad[(k + 2) % 5];
            f32(c.in.entropy)[t] = bad[(k + 3) % 5];
        }
        case_run(&c, p), case_run(&clean, p);
        assert_memory_equal(c.out.dlogp.data, clean.out.dlogp.data, tensor_bytes(c.out.dlogp));
        assert_memory_equal(c.out.dentropy.data, clean.out.dentropy.data, tensor_bytes(c.out.dentropy));
        assert_memory_equal(c.out.metrics.data, clean.out.metrics.data, tensor_bytes(c.out.metrics));
        for (int32_t t = i32(c.in.offsets)[5]; t < i32(c.in.offsets)[6]; t++) assert_true(f32(c.out.dlogp)[t] == 0);
        assert_true(metric(&c, 5, GM_TOKENS) == 0 && metric(&c, 5, GM_LOSS) == 0);
        case_free(&c), case_free(&clean);
    }
}

// A NaN in a token that counts must show, for the step to be skipped, and in its own sequence alone.
static void broken_tokens_show(void **state) {
    for (int i = 0; i < KINDS; i++) {
        Case c = random_case(19), clean = random_case(19);
        GrpoParams p = busy_params(i, &c);
        p.off_policy_threshold = -1, p.beta = 0;
        f32(c.in.logp)[i32(c.in.offsets)[4] + 3] = NAN;
        memset(c.out.metrics.data, 0, tensor_bytes(c.out.metrics)),
            memset(c.out.dlogp.data, 0, tensor_bytes(c.out.dlogp));
        case_run(&c, p), case_run(&clean, p);
        assert_true(isnan(metric(&c, 4, GM_LOSS)) && isnan(f32(c.out.dlogp)[i32(c.in.offsets)[4] + 3]));
        memcpy(f32(c.out.metrics) + 4 * GM_COUNT, f32(clean.out.metrics) + 4 * GM_COUNT, 4 * GM_COUNT);
        assert_memory_equal(c.out.metrics.data, clean.out.metrics.data, tensor_bytes(c.out.metrics));
        case_free(&c), case_free(&clean);
    }
}

// A ratio beyond all bounds is clipped like any other where the advantage is positive; its gradient is 0, not inf * 0.
static void overflowing_ratio_is_clipped(void **state) {
    static const int two[2] = {2, 2};
    for (int i = 0; i < KINDS; i++) {
        Case c = case_new(1, 2, 1, two);
        GrpoParams p = plain;
        p.loss_type = (LossType)(i % LOSS_COUNT), p.level = (RatioLevel)(i / LOSS_COUNT);
        f32(c.in.rewards)[0] = 1;
        f32(c.in.old_logp)[0] = -5000;
        case_run(&c, p);
        assert_true(isfinite(metric(&c, 0, GM_LOSS)) && isfinite(f32(c.out.dlogp)[0]));
        if (p.loss_type != LOSS_CISPO) assert_true(f32(c.out.dlogp)[0] == 0);
        if (p.loss_type == LOSS_VESPO) assert_true(metric(&c, 0, GM_PHI) == 0);
        case_free(&c);
    }
}

static void equal_rewards_give_nothing(void **state) {
    static const int eights[8] = {2, 2, 2, 2, 2, 2, 2, 2};
    static const float values[] = {0.1f, 0.7f, -1.3f, 1e-30f, 3e37f, 1.0f / 3};
    for (int v = 0; v < 6; v++) {
        for (int s = 0; s < 4; s++) {
            Case c = case_new(1, 8, 3, eights);
            for (int64_t i = 0; i < c.n; i++)
                for (int64_t k = 0; k < 3; k++) f32(c.in.rewards)[i * 3 + k] = values[v] * (float)(k + 1);
            for (int64_t k = 0; k < 3; k++) f32(c.in.weights)[k] = 0.3f;
            // A ratio that overflows must not turn nothing into NaN.
            for (int64_t t = 0; t < c.tokens; t++) f32(c.in.old_logp)[t] = -5000, f32(c.in.logp)[t] = -1;
            GrpoParams p = plain;
            p.scale_rewards = (ScaleRewards)(s % 3);
            p.aggregation = s == 3 ? NORMALIZE_THEN_SUM : SUM_THEN_NORMALIZE;
            case_scalars(&c, &p, 1, 2);
            case_run(&c, p);
            for (int64_t i = 0; i < c.n; i++) assert_true(f32(c.out.advantage)[i] == 0 && metric(&c, i, GM_LOSS) == 0);
            for (int64_t t = 0; t < c.tokens; t++) assert_true(f32(c.out.dlogp)[t] == 0);
            case_free(&c);
        }
    }
}

static void group_of_one_gives_nothing(void **state) {
    static const int two[2] = {1, 1};
    for (int s = 0; s < 4; s++) {
        Case c = case_new(2, 1, 1, two);
        f32(c.in.rewards)[0] = 1, f32(c.in.rewards)[1] = 3;
        GrpoParams p = plain;
        p.scale_rewards = (ScaleRewards)(s % 3);
        p.aggregation = s == 3 ? NORMALIZE_THEN_SUM : SUM_THEN_NORMALIZE;
        case_scalars(&c, &p, 1, 1);
        case_run(&c, p);
        assert_true(f32(c.out.advantage)[0] == 0 && f32(c.out.advantage)[1] == 0);
        case_free(&c);
    }
}

// A completion of exactly average reward is neither better nor worse, whatever the order of the sum: its ratios are not
// clipped, and it moves nothing. In the second group that holds for decimals, as they are in f32.
static void average_rewards_give_nothing(void **state) {
    static const float rewards[3][6] = {
        {.125f, .125f, .125f, .5f, 2, .125f}, {.1f, .2f, .3f, .1f, .2f, .3f}, {-.7f, .7f, .2f, -.2f, 0, 0}};
    static const int average[3] = {3, 4, 5}, ones[6] = {1, 1, 1, 1, 1, 1};
    for (int k = 0; k < 3; k++)
        for (int s = 0; s < 4; s++) {
            Case c = case_new(1, 6, 1, ones);
            memcpy(c.in.rewards.data, rewards[k], sizeof rewards[k]);
            for (int t = 0; t < 6; t++) f32(c.in.old_logp)[t] = -1; // the ratio is e
            GrpoParams p = plain;
            p.scale_rewards = (ScaleRewards)(s % 3);
            p.aggregation = s == 3 ? NORMALIZE_THEN_SUM : SUM_THEN_NORMALIZE;
            case_scalars(&c, &p, 1, 1);
            case_run(&c, p);
            assert_true(f32(c.out.advantage)[average[k]] == 0 && f32(c.out.dlogp)[average[k]] == 0);
            assert_true(metric(&c, average[k], GM_CLIP_REGION) == 0);
            case_free(&c);
        }
}

static void abstaining_completions_stay_out(void **state) {
    static const int ones[6] = {1, 1, 1, 1, 1, 1};
    static const float scores[6] = {1, NAN, 0, 4, 2, NAN};
    Case with = case_new(1, 6, 1, ones), without = case_new(1, 4, 1, ones);
    for (int i = 0, j = 0; i < 6; i++) {
        f32(with.in.rewards)[i] = scores[i];
        if (!isnan(scores[i])) f32(without.in.rewards)[j++] = scores[i];
    }
    for (int s = 0; s < 4; s++) {
        GrpoParams p = plain;
        p.scale_rewards = (ScaleRewards)(s % 3);
        p.aggregation = s == 3 ? NORMALIZE_THEN_SUM : SUM_THEN_NORMALIZE;
        case_scalars(&with, &p, 1, 1);
        case_run(&with, p);
        case_scalars(&without, &p, 1, 1);
        case_run(&without, p);
        for (int i = 0, j = 0; i < 6; i++) {
            float want = isnan(scores[i]) ? 0 : f32(without.out.advantage)[j++];
            assert_true(f32(with.out.advantage)[i] == want);
        }
    }
    // By hand: mean 7/4, std sqrt(35/12).
    GrpoParams p = plain;
    case_run(&with, p);
    assert_near(f32(with.out.advantage)[3], 2.25 / (sqrt(35.0 / 12) + 1e-4), 1e-6);
    case_free(&with), case_free(&without);
}

static void first_update_has_gradient_but_no_loss(void **state) {
    for (int i = 0; i < KINDS; i++) {
        Case c = random_case(17);
        memcpy(c.in.logp.data, c.in.old_logp.data, tensor_bytes(c.in.logp));
        GrpoParams p = plain;
        p.loss_type = (LossType)(i % LOSS_COUNT), p.level = (RatioLevel)(i / LOSS_COUNT);
        if (p.loss_type == LOSS_CISPO) p.epsilon_high = 5;
        case_run(&c, p);
        for (int64_t s = 0; s < c.n; s++) {
            if (metric(&c, s, GM_TOKENS) == 0) continue;
            assert_true(metric(&c, s, GM_RATIO_MIN) == 1 && metric(&c, s, GM_RATIO_MAX) == 1);
            assert_true(metric(&c, s, GM_CLIP_REGION) == 0);
            bool by_length = p.loss_type == LOSS_GRPO || p.loss_type == LOSS_SAPO;
            for (int32_t t = i32(c.in.offsets)[s]; t < i32(c.in.offsets)[s + 1]; t++)
                assert_near(f32(c.out.dlogp)[t], -f32(c.out.advantage)[s] / (by_length ? (float)lengths[s] : 1), 1e-6);
        }
        case_free(&c);
    }
}

// The metric sums read off their definitions in grpo.h.
static void metrics_by_hand(void **state) {
    Case c = random_case(23);
    for (int i = 0; i < KINDS; i++) {
        GrpoParams p = busy_params(i, &c);
        case_run(&c, p);
        for (int64_t s = 0; s < c.n; s++) {
            int32_t first = i32(c.in.offsets)[s], n = lengths[s];
            double mean = 0, want[GM_COUNT] = {0}, a = f32(c.out.advantage)[s];
            want[GM_RATIO_MAX] = -INFINITY, want[GM_RATIO_MIN] = INFINITY, want[GM_ADVANTAGE] = a;
            for (int32_t t = first; t < first + n; t++) mean += ((double)f32(c.in.logp)[t] - f32(c.in.old_logp)[t]) / n;
            for (int32_t t = first; t < first + n && ((uint8_t *)c.in.mask.data)[s]; t++) {
                double l = f32(c.in.logp)[t], r = f32(c.in.ref_logp)[t] - l;
                double w = exp(p.level == LEVEL_SEQUENCE ? mean : l - f32(c.in.old_logp)[t]);
                bool cispo = p.loss_type == LOSS_CISPO, clips = p.loss_type != LOSS_SAPO && p.loss_type != LOSS_VESPO;
                bool keep = f32(c.in.entropy)[t] >= p.entropy_threshold;
                want[GM_TOKENS]++;
                want[GM_KL] += (exp(r) - r - 1) * (p.kl_ratio ? w : 1);
                want[GM_ENTROPY] += f32(c.in.entropy)[t];
                want[GM_POLICY_TOKENS] += keep;
                want[GM_POLICY_ENTROPY] += keep ? f32(c.in.entropy)[t] : 0;
                want[GM_CLIP_LOW] += clips && !cispo && w < 1 - (double)p.epsilon && a < 0;
                want[GM_CLIP_HIGH] += clips && w > (cispo ? 0 : 1) + (double)p.epsilon_high && a > 0;
                want[GM_RATIO_SUM] += w;
                want[GM_RATIO_MAX] = fmax(w, want[GM_RATIO_MAX]);
                want[GM_RATIO_MIN] = fmin(w, want[GM_RATIO_MIN]);
            }
            bool counts = want[GM_TOKENS] > 0;
            double log_w = counts ? mean * n : 0, k = a < 0 ? p.vespo_k_neg : p.vespo_k_pos;
            double lambda = a < 0 ? p.vespo_lambda_neg : p.vespo_lambda_pos;
            if (p.loss_type == LOSS_VESPO) want[GM_PHI] = exp(lambda + k * log_w - lambda * exp(log_w));
            want[GM_POLICY] = metric(&c, s, GM_LOSS) + p.entropy_coef * p.entropy_scale * want[GM_POLICY_ENTROPY];
            want[GM_CLIP_REGION] = want[GM_CLIP_LOW] + want[GM_CLIP_HIGH];
            for (int m = 0; m < GM_COUNT; m++) {
                double got = metric(&c, s, (GrpoMetric)m);
                if (m != GM_LOSS &&
                    !(got == want[m] || fabs(got - want[m]) <= 1e-6 * fmax(fabs(want[m]), m == GM_POLICY)))
                    fail_msg("params %d, sequence %d, metric %d: %g, not %g", i, (int)s, m, got, want[m]);
            }
        }
    }
    case_free(&c);
}

// Groups of thousands, as a batch of one question would have; the micro-batch has three of its completions, one of them
// longer than a block of threads.
static void large_groups_and_long_completions(void **state) {
    enum { G = 3000, K = 2, LONG = 1000 };
    static const int length[3] = {LONG, 1, 300};
    static const int32_t of[3] = {2999, 3000, 5999}; // two groups
    seed = 29;
    Case c = case_new(1, 3, 1, length);
    Tensor rewards = tensor2(xcalloc(2 * G * K, 4), F32, 2 * G, K), weights = tensor1(xcalloc(K, 4), F32, K);
    for (int i = 0; i < 2 * G * K; i++) f32(rewards)[i] = (float)uniform();
    f32(weights)[0] = 0.25f, f32(weights)[1] = 2;
    GrpoIn in = c.in;
    in.groups = 2, in.group_size = G, in.n_rewards = K, in.rewards = rewards, in.weights = weights;
    memcpy(in.index.data, of, sizeof of);
    double loss = 0, sum = 0, low = INFINITY, high = 0;
    for (int t = 0; t < c.tokens; t++) f32(in.logp)[t] = (float)(-3 * uniform());
    for (int t = 0; t < LONG; t++) {
        double w = exp((double)f32(in.logp)[t]);
        sum += w, low = fmin(low, w), high = fmax(high, w);
    }
    for (int aggregation = 0; aggregation < 2; aggregation++) {
        GrpoParams p = plain;
        p.loss_type = LOSS_DAPO, p.aggregation = (RewardAggregation)aggregation, p.batch_std = 0.5f;
        run_on_device(c.out, in, p);
        for (int s = 0; s < 3; s++)
            assert_near(f32(c.out.advantage)[s], grpo_advantage(f32(rewards), of[s], G, f32(weights), K, &p), 1e-6);
        double a = f32(c.out.advantage)[0];
        loss = 0;
        for (int t = 0; t < LONG; t++) {
            double w = exp((double)f32(in.logp)[t]);
            loss -= fmin(w * a, fmin(fmax(w, 1 - (double)p.epsilon), 1 + (double)p.epsilon_high) * a);
        }
        assert_near(metric(&c, 0, GM_LOSS), loss, 1e-5 * fabs(loss));
        assert_near(metric(&c, 0, GM_RATIO_SUM), sum, 1e-5 * sum);
        assert_near(metric(&c, 0, GM_RATIO_MAX), high, 1e-6);
        assert_near(metric(&c, 0, GM_RATIO_MIN), low, 1e-6);
    }
    free(rewards.data), free(weights.data), case_free(&c);
}

static void scalars_by_hand(void **state) {
    LossCounts counts = {.sequences = 32,
                         .tokens = 100,
                         .generation_sequences = 128,
                         .generation_tokens = 600,
                         .max_completion_length = 50};
    assert_near(grpo_loss_scale(LOSS_GRPO, counts), 1.0 / 32, 1e-9);
    assert_near(grpo_loss_scale(LOSS_SAPO, counts), 1.0 / 32, 1e-9);
    assert_near(grpo_loss_scale(LOSS_LUSPO, counts), 1.0 / 32, 1e-9);
    assert_near(grpo_loss_scale(LOSS_BNPO, counts), 1.0 / 100, 1e-9);
    assert_near(grpo_loss_scale(LOSS_DR_GRPO, counts), 1.0 / 1600, 1e-9);
    assert_near(grpo_loss_scale(LOSS_DAPO, counts), 1.0 / 150, 1e-9);
    assert_near(grpo_loss_scale(LOSS_CISPO, counts), 1.0 / 150, 1e-9);
    assert_near(grpo_loss_scale(LOSS_VESPO, counts), 1.0 / 150, 1e-9);
    counts.tokens = counts.generation_tokens = 0; // everything masked
    assert_near(grpo_loss_scale(LOSS_BNPO, counts), 1, 0);
    assert_near(grpo_loss_scale(LOSS_DAPO, counts), 4, 0);

    float e[] = {5, 1, 4, 2, 3};
    int64_t kept;
    assert_true(grpo_entropy_threshold(e, 5, 1, &kept) == -INFINITY && kept == 5);
    assert_near(grpo_entropy_threshold(e, 5, 0.2, &kept), 4.2, 1e-6); // rank 3.2
    assert_int_equal(kept, 1);
    assert_near(grpo_entropy_threshold(e, 5, 0.5, &kept), 3, 0); // rank 2: the token on the edge counts
    assert_int_equal(kept, 3);
    assert_near(grpo_entropy_threshold(e, 5, 0, &kept), 5, 0);
    assert_int_equal(kept, 1);
    assert_true(grpo_entropy_threshold(e, 0, 0.5, &kept) == -INFINITY && kept == 0);
    // A rank that f32 would round to 4: then .5 itself were the threshold, and kept.
    float edge[] = {.1f, .2f, .3f, .4f, .5f, 2};
    assert_true(grpo_entropy_threshold(edge, 6, 0.2, &kept) > .5f);
    assert_int_equal(kept, 1);

    float one = 1, rewards[] = {1, 2, NAN, 4};
    assert_near(grpo_batch_std(rewards, &one, 2, 2, 1, SUM_THEN_NORMALIZE), sqrt(7.0 / 3), 1e-6);
    assert_true(grpo_batch_std(rewards, &one, 1, 1, 1, SUM_THEN_NORMALIZE) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cut_does_not_matter),
        cmocka_unit_test(long_completions_are_whole),
        cmocka_unit_test(gradients_are_slopes),
        cmocka_unit_test(masked_tokens_cannot_poison),
        cmocka_unit_test(broken_tokens_show),
        cmocka_unit_test(overflowing_ratio_is_clipped),
        cmocka_unit_test(equal_rewards_give_nothing),
        cmocka_unit_test(group_of_one_gives_nothing),
        cmocka_unit_test(average_rewards_give_nothing),
        cmocka_unit_test(abstaining_completions_stay_out),
        cmocka_unit_test(first_update_has_gradient_but_no_loss),
        cmocka_unit_test(metrics_by_hand),
        cmocka_unit_test(large_groups_and_long_completions),
        cmocka_unit_test(scalars_by_hand),
    };
    return cmocka_run_group_tests_name("grpo", tests, open_device, close_device);
}
