// Gradients in bf16 where a prompt's rows stand once for its group, beside the same completions each with its own
// prompt: which of the two is nearer to f64, over many drawn weights, prompts and completions. One of them rounds a
// prompt's gradients eight times and sums, the other sums and rounds once.
#include "micro.h"
#include "model_case.h"
#include "near.h"
#include "on_device.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>

static Device *device;

static const ModelDims dims = {.family = &qwen2_family,
                               .V = 97,
                               .D = 64,
                               .F = 96,
                               .L = 2,
                               .H = 4,
                               .K = 2,
                               .d = 16,
                               .max_positions = 128,
                               .rms_eps = 1e-6f,
                               .rope.theta = 10000};
enum { PROMPTS = 3, GROUP = 8, LONGEST = 40, ROWS = PROMPTS * GROUP * 2 * LONGEST, SEEDS = 16 };

// What is asked of a completion's tokens: GRPO's advantages over its length, which cancel in a group; supervised
// tuning's equal shares, which add up.
typedef enum { ADVANTAGES, EQUAL, ASKED } Asked;
static const char *const asked_name[] = {"advantages", "equal shares"};

static uint64_t draw(uint64_t seed, uint64_t a, uint64_t b) { return mix64(mix64(mix64(seed) + a) + b); }

// The rewards of a group are 0 or 1, as drawn, normalized: never all the same.
static float advantage(uint64_t seed, int group, int k) {
    int right = 1 + (int)(draw(seed, 7, (uint64_t)group) % (GROUP - 1)); // so many of them
    int place = (int)((uint64_t)k + draw(seed, 8, (uint64_t)group)) & (GROUP - 1);
    float mean = (float)right / GROUP, deviation = sqrtf(mean * (1 - mean));
    return ((place < right ? 1 : 0) - mean) / deviation;
}

static int length_of(uint64_t seed, int group, int k) {
    return 5 + (int)(draw(seed, 1, (uint64_t)(group * 100 + k)) % (LONGEST - 4));
}

// Completions packed after their prompts, each with its own or the group with one; forward and backward.
static ModelCase *run(uint64_t seed, DType dtype, Asked asked, bool shared) {
    int32_t ids[2 * LONGEST];
    Packing p = packing_new(ROWS, PROMPTS * GROUP);
    for (int i = 0; i < PROMPTS; i++) {
        int prompt = length_of(seed, i, 99), first = shared ? prompt - 1 : 0;
        for (int j = 0; j < prompt; j++) ids[j] = (int32_t)(draw(seed, 2, (uint64_t)(i * 1000 + j)) % (uint64_t)dims.V);
        assert_true(packing_prefix(&p, ids, first));
        for (int k = 0; k < GROUP; k++) {
            int n = length_of(seed, i, k);
            for (int j = 0; j < n; j++)
                ids[prompt + j] = (int32_t)(draw(seed, 3 + (uint64_t)k, (uint64_t)(i * 1000 + j)) % (uint64_t)dims.V);
            assert_true(packing_add(&p, ids + first, prompt + n - first, prompt - first, NULL));
        }
    }
    ModelCase *c = model_case(device, (CaseSpec){.dims = dims, .dtype = dtype, .tokens = ROWS, .keep = KEEP_ALL});
    for (int i = 0; i < c->model.n_params; i++) { // of both dtypes the same: what bf16 holds
        const Param *w = &c->model.params[i];
        float scale = w->spec->cols == SYM_NONE ? 0.4f : 2 / sqrtf((float)w->t.dim[1]);
        if (strstr(w->name, "embed")) scale = 1;
        float base = strstr(w->name, "norm.weight") ? 1 : 0;
        for (int64_t k = 0; k < tensor_numel(w->t); k++)
            tensor_set(w->t, k,
                       bf16_to_f32(f32_to_bf16(base + scale * unit(draw(seed, name_hash(w->name), (uint64_t)k)))));
    }
    c->T = p.T, c->B = p.P, c->N = p.N;
    memcpy(c->ids.data, p.ids, (size_t)p.T * 4), memcpy(c->pos.data, p.pos, (size_t)p.T * 4);
    memcpy(c->seq.data, p.seq, (size_t)(p.P + 1) * 4), memcpy(c->prefix.data, p.prefix, (size_t)p.P * 4);
    memcpy(c->rows.data, p.rows, (size_t)p.N * 4), memcpy(c->target.data, p.target, (size_t)p.N * 4);
    for (int s = 0; s < PROMPTS * GROUP; s++)
        for (int n = p.offsets[s]; n < p.offsets[s + 1]; n++) {
            float share = 1.0f / (float)(p.offsets[s + 1] - p.offsets[s]);
            f32(c->dlogp)[n] = asked == EQUAL ? share : share * advantage(seed, s / GROUP, s % GROUP);
        }
    packing_free(&p);
    case_forward(c, 1, false);
    case_backward(c, 1);
    return c;
}

// Every parameter's relative error, as one root mean square.
static double distance(const ModelCase *c, const ModelCase *exact) {
    double sum = 0;
    for (int i = 0; i < c->grad.n_params; i++) {
        double error = 0, norm = 0;
        for (int64_t k = 0; k < tensor_numel(c->grad.params[i].t); k++) {
            double want = f32(exact->grad.params[i].t)[k];
            error += pow(f32(c->grad.params[i].t)[k] - want, 2), norm += want * want;
        }
        sum += error / norm;
    }
    return sqrt(sum / c->grad.n_params);
}

// The errors of one draw are the same numbers rounded in two ways, most of them made by roundings that both have: their
// ratio is 1 but for some thousandths, up or down. So its mean over the draws may not be above 1 by more than three
// times its standard error, and that must be small enough for half a percent to show.
static void shared_is_no_further_from_f64(void **state) {
    for (Asked asked = 0; asked < ASKED; asked++) {
        double mean[2] = {0}, sum = 0, squares = 0;
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
            // f32's own error is a ten-thousandth of bf16's.
            ModelCase *exact = run(seed, F32, asked, false);
            double error[2];
            for (int shared = 0; shared < 2; shared++) {
                ModelCase *c = run(seed, BF16, asked, shared);
                error[shared] = distance(c, exact);
                mean[shared] += error[shared] / SEEDS;
                model_case_free(c);
            }
            double gain = log(error[1] / error[0]);
            sum += gain, squares += gain * gain;
            model_case_free(exact);
        }
        double average = sum / SEEDS, deviation = sqrt((squares / SEEDS - average * average) / (SEEDS - 1));
        print_message("  %s: alone %.4e, shared %.4e; shared / alone %.4f, standard error %.4f\n", asked_name[asked],
                      mean[0], mean[1], exp(average), deviation);
        assert_true(deviation < 0.0025 && average < 3 * deviation);
    }
}

static int open_device(void **state) { return (device = test_device(0)) ? 0 : -1; }
static int close_device(void **state) {
    device_close(device);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(shared_is_no_further_from_f64)};
    return cmocka_run_group_tests(tests, open_device, close_device);
}
