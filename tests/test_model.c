// The transformer against HF transformers (goldens that tools/golden.py writes), and its gradients
// against finite differences and against each other.
#include "config_dims.h"
#include "hf.h"
#include "json.h"
#include "micro.h"
#include "model_case.h"
#include "near.h"
#include "on_device.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>
#include <stdio.h>
#include <unistd.h>

static Device *device;
static const char *const golden_names[] = {"qwen2_tiny", "qwen2_gqa7", "qwen2_gqa6",
                                           "qwen3_tied", "qwen3_yarn", "llama_head256"};
#define GOLDENS 6

static json_t *golden_read(const char *name) {
    char path[64];
    Error e;
    snprintf(path, sizeof path, "tests/golden/%s.json", name);
    json_t *g = json_read(path, &e);
    if (!g) fail_msg("%s", e.text);
    return g;
}

static const json_t *member(const json_t *o, const char *key) {
    const json_t *v = json_object_get(o, key);
    if (!v) fail_msg("no %s in a golden", key);
    return v;
}
static double number(const json_t *o, const char *key) { return json_number_value(member(o, key)); }
static int64_t numbers(const json_t *list, float *out) {
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v) out[i] = (float)json_number_value(v);
    return (int64_t)i;
}
static int64_t integers(const json_t *list, int32_t *out) {
    size_t i;
    json_t *v;
    json_array_foreach(list, i, v) out[i] = (int32_t)json_integer_value(v);
    return (int64_t)i;
}

// A golden holds a config.json whole, or Qwen2.5's sizes in our words.
static ModelDims golden_dims(const json_t *g) {
    if (json_object_get(g, "config")) return config_dims(member(g, "config"));
    const json_t *n = member(g, "dims");
    return (ModelDims){
        .family = &qwen2_family,
        .V = (int)number(n, "V"),
        .D = (int)number(n, "D"),
        .F = (int)number(n, "F"),
        .L = (int)number(n, "L"),
        .H = (int)number(n, "H"),
        .K = (int)number(n, "K"),
        .d = (int)number(n, "d"),
        .max_positions = (int)number(n, "max_positions"),
        .rms_eps = (float)number(n, "rms_eps"),
        .rope.theta = (float)number(n, "rope_theta"),
        .tied = json_is_true(member(n, "tied")),
        .padded = json_object_get(g, "pad") != NULL,
        .pad = (int)json_integer_value(json_object_get(g, "pad")),
    };
}

static ModelCase *golden_case(const json_t *g, CaseSpec spec) {
    spec.dims = golden_dims(g);
    ModelCase *c = model_case(device, spec);
    const json_t *fills = member(g, "fills");
    assert_int_equal(json_object_size(fills), c->model.n_params);
    for (int i = 0; i < c->model.n_params; i++) {
        float fill[2];
        assert_int_equal(numbers(member(fills, c->model.params[i].name), fill), 2);
        param_fill(&c->model.params[i], fill[0], fill[1]);
    }
    return c;
}

// Packs the golden's sequences and runs forward and backward with its weights for log-probs and entropies.
static ModelCase *golden_run(const json_t *g, DType dtype) {
    int32_t ids[512];
    int length[16], T = 0, B;
    const json_t *sequences = member(g, "ids");
    for (B = 0; B < (int)json_array_size(sequences); B++)
        T += length[B] = (int)integers(json_array_get(sequences, (size_t)B), ids + T);
    ModelCase *c = golden_case(g, (CaseSpec){.dtype = dtype, .tokens = T, .keep = KEEP_ALL});
    case_pack(c, ids, length, B);
    assert_int_equal(numbers(member(g, "a"), f32(c->dlogp)), c->N);
    assert_int_equal(numbers(member(g, "b"), f32(c->dentropy)), c->N);
    float temperature = (float)number(g, "temperature");
    case_forward(c, temperature, false);
    case_backward(c, temperature);
    return c;
}

// Accumulates a relative L2 error over several tensors.
typedef struct {
    double error, norm;
} Distance;
static void distance_add(Distance *d, double x, double ref) { d->error += pow(x - ref, 2), d->norm += ref * ref; }
static double relative(Distance d) { return d.error == 0 ? 0 : sqrt(d.error / d.norm); }
static double relative_list(const float *x, const json_t *ref) {
    Distance e = {0};
    size_t i;
    json_t *v;
    json_array_foreach(ref, i, v) distance_add(&e, x[i], json_number_value(v));
    return relative(e);
}

// Logits of the stored positions, out[positions, V], in f64 from the hidden states.
static float *logits_at(const ModelCase *c, const json_t *positions) {
    int64_t n = (int64_t)json_array_size(positions), V = c->spec.dims.V, D = c->spec.dims.D;
    float *z = xmalloc((size_t)(n * V) * sizeof *z);
    for (int64_t i = 0; i < n; i++) {
        int64_t t = json_integer_value(json_array_get(positions, (size_t)i));
        for (int64_t v = 0; v < V; v++) {
            double s = 0;
            for (int64_t k = 0; k < D; k++)
                s += (double)tensor_get(c->acts.out, t * D + k) * tensor_get(c->model.head, v * D + k);
            z[i * V + v] = (float)s;
        }
    }
    return z;
}
static double logits_error(const ModelCase *c, const json_t *g, const float *z, const char *key) {
    Distance e = {0};
    const json_t *rows = member(g, key);
    for (size_t i = 0; i < json_array_size(rows); i++)
        for (int64_t v = 0; v < c->spec.dims.V; v++)
            distance_add(&e, z[(int64_t)i * c->spec.dims.V + v],
                         json_number_value(json_array_get(json_array_get(rows, i), (size_t)v)));
    return relative(e);
}

// One parameter's gradient against the golden's sample of it. *half: HF's own bf16 error on that sample.
static Distance gradient_error(const ModelCase *c, const json_t *gradients, int i, Distance *half) {
    const Param *p = &c->grad.params[i];
    const json_t *want = member(gradients, p->name), *index = member(want, "index"), *value = member(want, "value");
    Distance e = {0};
    for (size_t k = 0; k < json_array_size(index); k++)
        distance_add(&e, f32(p->t)[json_integer_value(json_array_get(index, k))],
                     json_number_value(json_array_get(value, k)));
    *half = (Distance){pow(number(want, "bf16_error"), 2), e.norm};
    return e;
}

// The whole of a tensor against a dump of tools/golden.py --full.
static double full_error(const char *directory, const char *model, const Param *p) {
    char path[1024];
    snprintf(path, sizeof path, "%s/%s.%s.f32", directory, model, p->name);
    FILE *f = fopen(path, "rb");
    if (!f) fail_msg("%s: cannot be read", path);
    Distance e = {0};
    float x;
    int64_t i = 0;
    for (; fread(&x, sizeof x, 1, f) == 1; i++) distance_add(&e, f32(p->t)[i], x);
    fclose(f);
    assert_int_equal(i, tensor_numel(p->t));
    return relative(e);
}

static void matches_hf(void **state) {
    const char *full = getenv("GRPO_GOLDEN_FULL");
    for (int m = 0; m < GOLDENS; m++) {
        json_t *g = golden_read(golden_names[m]);
        ModelCase *c = golden_run(g, F32);
        float *z = logits_at(c, member(g, "logit_positions"));
        double logits = logits_error(c, g, z, "logits"), loss = fabs(case_loss(c) - number(g, "loss"));
        double logp = relative_list(f32(c->logp), member(g, "logp"));
        double entropy = relative_list(f32(c->entropy), member(g, "entropy"));
        double worst = 0, worst_norm = 0, worst_full = 0;
        for (int i = 0; i < c->grad.n_params; i++) {
            const Param *p = &c->grad.params[i];
            Distance half, norm = {0}, e = gradient_error(c, member(g, "gradients"), i, &half);
            for (int64_t k = 0; k < tensor_numel(p->t); k++) distance_add(&norm, 0, f32(p->t)[k]);
            double want = number(member(member(g, "gradients"), p->name), "norm");
            double norm_error = fabs(sqrt(norm.norm) - want) / want;
            if (full) worst_full = worse(worst_full, full_error(full, golden_names[m], p));
            if (!(relative(e) < 1e-4 && norm_error < 1e-4 && worst_full < 1e-4))
                fail_msg("%s, gradient of %s: sample %.2e, norm %.2e, whole %.2e", golden_names[m], p->name,
                         relative(e), norm_error, worst_full);
            worst = worse(worst, relative(e)), worst_norm = worse(worst_norm, norm_error);
        }
        print_message("  %-13s f32: logits %.1e, logp %.1e, entropy %.1e, loss %.1e, worst gradient %.1e, norm %.1e\n",
                      golden_names[m], logits, logp, entropy, loss / fabs(number(g, "loss")), worst, worst_norm);
        if (full) print_message("  %s f32: worst whole gradient %.1e\n", golden_names[m], worst_full);
        assert_true(logits < 1e-5 && logp < 1e-5 && entropy < 1e-5);
        assert_true(loss / fabs(number(g, "loss")) < 1e-4);
        free(z), model_case_free(c), json_decref(g);
    }
}

// Where config.json names a padding token, the row of the embedding learns nothing from it as an input, as torch's;
// where the head is the embedding, it still learns as a target.
static void padding_learns_as_in_hf(void **state) {
    Error e;
    json_t *golden = json_read("tests/golden/padding.json", &e), *g;
    if (!golden) fail_msg("%s", e.text);
    size_t i, k;
    json_array_foreach(json_object_get(golden, "cases"), i, g) {
        ModelCase *c = golden_run(g, F32);
        int64_t D = c->spec.dims.D;
        assert_true(c->spec.dims.padded && json_array_size(member(g, "rows")) == 2);
        for (k = 0; k < 2; k++) {
            int64_t row = json_integer_value(json_array_get(member(g, "rows"), k));
            const float *learned = f32(c->grad.embedding) + row * D;
            const json_t *want = json_array_get(member(g, "embedding"), k);
            double error = relative_list(learned, want);
            if (!(error < 1e-5)) fail_msg("case %zu, token %lld: %g", i, (long long)row, error);
            bool nothing = true;
            for (int64_t j = 0; j < D; j++) nothing = nothing && learned[j] == 0;
            assert_int_equal(nothing, k == 0 && !c->spec.dims.tied);
        }
        model_case_free(c);
    }
    assert_int_equal(i, 2);
    json_decref(golden);
}

// In bf16 our error against HF's f32 may be at most a quarter above HF's own.
static void bf16_no_worse_than_hf(void **state) {
    for (int m = 0; m < GOLDENS; m++) {
        json_t *g = golden_read(golden_names[m]);
        ModelCase *c = golden_run(g, BF16);
        const json_t *positions = member(g, "logit_positions");
        int64_t V = c->spec.dims.V, n = (int64_t)json_array_size(positions);
        float *z = logits_at(c, positions), *half = xmalloc((size_t)(n * V + c->N) * sizeof *half);
        for (int64_t i = 0; i < n; i++) numbers(json_array_get(member(g, "logits_bf16"), (size_t)i), half + i * V);
        double logits = logits_error(c, g, z, "logits") / logits_error(c, g, half, "logits");
        numbers(member(g, "logp_bf16"), half);
        double logp = relative_list(f32(c->logp), member(g, "logp")) / relative_list(half, member(g, "logp"));
        numbers(member(g, "entropy_bf16"), half);
        double entropy =
            relative_list(f32(c->entropy), member(g, "entropy")) / relative_list(half, member(g, "entropy"));
        // Gradients: every parameter's relative error, as one root mean square.
        double ours = 0, theirs = 0, worst = 0;
        for (int i = 0; i < c->grad.n_params; i++) {
            Distance hf, e = gradient_error(c, member(g, "gradients"), i, &hf);
            ours += e.error / e.norm, theirs += hf.error / hf.norm;
            worst = worse(worst, sqrt(e.error / hf.error));
        }
        double gradients = sqrt(ours / theirs);
        print_message("  %s bf16, error over HF's: logits %.2f, logp %.2f, entropy %.2f, gradients %.2f (worst %.2f)\n",
                      golden_names[m], logits, logp, entropy, gradients, worst);
        assert_true(logits < 1.25 && logp < 1.25 && entropy < 1.25 && gradients < 1.25);
        free(z), free(half), model_case_free(c), json_decref(g);
    }
}

// Completions and their prompts as training packs them, each alone or after the rows that its prompt shares; forward
// and backward of what is asked of the completions' tokens.
static ModelCase *groups_run(const json_t *g, DType dtype, bool shared) {
    int32_t ids[256];
    Packing p = packing_new(512, 16);
    size_t i, k;
    json_t *group, *completion;
    json_array_foreach(member(g, "groups"), i, group) {
        int64_t prompt = integers(member(group, "prompt"), ids), first = shared ? prompt - 1 : 0;
        assert_true(packing_prefix(&p, ids, first));
        json_array_foreach(member(group, "completions"), k, completion) assert_true(
            packing_add(&p, ids + first, prompt + integers(completion, ids + prompt) - first, prompt - first, NULL));
    }
    ModelCase *c = golden_case(g, (CaseSpec){.dtype = dtype, .tokens = p.T, .keep = KEEP_ALL});
    c->T = p.T, c->B = p.P, c->N = p.N;
    memcpy(c->ids.data, p.ids, (size_t)p.T * 4), memcpy(c->pos.data, p.pos, (size_t)p.T * 4);
    memcpy(c->seq.data, p.seq, (size_t)(p.P + 1) * 4), memcpy(c->prefix.data, p.prefix, (size_t)p.P * 4);
    memcpy(c->rows.data, p.rows, (size_t)p.N * 4), memcpy(c->target.data, p.target, (size_t)p.N * 4);
    packing_free(&p);
    assert_int_equal(numbers(member(g, "a"), f32(c->dlogp)), c->N);
    assert_int_equal(numbers(member(g, "b"), f32(c->dentropy)), c->N);
    case_forward(c, (float)number(g, "temperature"), false);
    case_backward(c, (float)number(g, "temperature"));
    return c;
}

// Every parameter's relative error, as one root mean square; *worst: the largest.
static double groups_error(const ModelCase *c, const json_t *g, double *worst) {
    double sum = 0;
    *worst = 0;
    for (int i = 0; i < c->grad.n_params; i++) {
        Distance half, e = gradient_error(c, member(g, "gradients"), i, &half);
        sum += e.error / e.norm, *worst = worse(*worst, relative(e));
    }
    return sqrt(sum / c->grad.n_params);
}

// Gradients where a prompt's rows stand once for all its completions, against HF's, which runs every completion with
// its prompt: in f32 as near as alone, in bf16 as near up to what two ways of rounding the same numbers differ by in
// one draw (that neither way is nearer is for many draws to say: test_groups.c).
static void shared_prompts_have_the_gradients_of_hf(void **state) {
    Error e;
    json_t *golden = json_read("tests/golden/groups.json", &e), *g;
    if (!golden) fail_msg("%s", e.text);
    size_t i;
    json_array_foreach(json_object_get(golden, "cases"), i, g) {
        for (int half = 0; half < 2; half++) {
            double rms[2], worst[2];
            float *logp = NULL;
            for (int shared = 0; shared < 2; shared++) {
                ModelCase *c = groups_run(g, half ? BF16 : F32, shared);
                rms[shared] = groups_error(c, g, &worst[shared]);
                if (!half) assert_true(relative_list(f32(c->logp), member(g, "logp")) < 1e-5);
                if (!shared) logp = memcpy(xmalloc((size_t)c->N * 4), c->logp.data, (size_t)c->N * 4);
                else assert_memory_equal(logp, c->logp.data, (size_t)c->N * 4);
                model_case_free(c);
            }
            free(logp);
            print_message("  %s %s, gradients: alone %.2e (worst %.1e), shared %.2e (worst %.1e)\n",
                          json_string_value(member(g, "name")), half ? "bf16" : "f32", rms[0], worst[0], rms[1],
                          worst[1]);
            assert_true(half ? rms[1] <= 1.03 * rms[0] : worst[1] < 1e-4);
        }
    }
    json_decref(golden);
}

// Greedy tokens of all prompts with one repetition penalty, decoded side by side: prefill, then a token at a time.
static void greedy(const json_t *g, double penalty) {
    enum { WIDTH = 128 };
    int32_t ids[8 * WIDTH], want[8][WIDTH];
    int32_t *seen = shared_memory(device, 8 * WIDTH * sizeof *seen),
            *seen_len = shared_memory(device, 8 * sizeof *seen);
    int length[8], start[8], n = 0, B = 0, new_tokens = 0;
    size_t i;
    json_t *x;
    json_array_foreach(member(g, "generate"), i, x) {
        if (number(x, "repetition_penalty") != penalty) continue;
        start[B] = n;
        length[B] = (int)integers(member(x, "prompt"), ids + n);
        memcpy(seen + B * WIDTH, ids + n, sizeof *ids * (size_t)length[B]);
        n += length[B];
        new_tokens = (int)integers(member(x, "ids"), want[B++]);
    }
    assert_true(B >= 2);
    ModelCase *c = golden_case(g, (CaseSpec){.dtype = F32, .tokens = n, .kv_rows = n + B * new_tokens});
    case_pack(c, ids, length, B);
    for (int t = 0; t < n; t++) i32(c->kv_row)[t] = t;
    case_forward(c, 1, true);

    // The last hidden state of every prompt, side by side.
    int64_t D = c->spec.dims.D;
    size_t hidden_bytes = (size_t)(B * D) * sizeof(float);
    float *hidden = shared_memory(device, hidden_bytes);
    for (int b = 0; b < B; b++)
        memcpy(hidden + b * D, f32(c->acts.out) + (start[b] + length[b] - 1) * D, (size_t)D * 4);
    Tensor x_last = tensor2(hidden, F32, B, D), token = tensor_rows(c->token, 0, B);
    Tensor pos = tensor_rows(c->step_pos, 0, B), key = tensor_rows(c->key, 0, B), kv_row = tensor_rows(c->kv_row, 0, B);
    SampleParams sampling = {.top_p = 1, .repetition_penalty = (float)penalty};
    for (int s = 0; s < new_tokens; s++) {
        for (int b = 0; b < B; b++) {
            i64(key)[b] = b;
            i32(pos)[b] = seen_len[b] = length[b] + s;
        }
        device->sample(device, (SampleOut){token, tensor_rows(c->logp, 0, B), NONE, NONE}, x_last, c->model.head, key,
                       pos, penalty != 1 ? tensor2(seen, I32, B, WIDTH) : NONE,
                       penalty != 1 ? tensor1(seen_len, I32, B) : NONE, sampling);
        device->sync(device);
        for (int b = 0; b < B; b++) {
            if (i32(token)[b] != want[b][s])
                fail_msg("prompt of %d tokens, penalty %g, step %d: token %d, HF %d", length[b], penalty, s,
                         i32(token)[b], want[b][s]);
            seen[b * WIDTH + length[b] + s] = i32(token)[b];
            int32_t row = n + b * new_tokens + s;
            i32(kv_row)[b] = row;
            memcpy(i32(c->span) + 4 * b, (int32_t[]){start[b], length[b], n + b * new_tokens, s + 1}, 16);
        }
        model_decode(device, &c->model, &c->acts, token, pos, &c->cache, kv_row, tensor_rows(c->span, 0, B));
        device->sync(device);
        x_last = tensor_rows(c->acts.out, 0, B);
    }
    device->host_free(device, hidden, hidden_bytes);
    device->host_free(device, seen, 8 * WIDTH * sizeof *seen);
    device->host_free(device, seen_len, 8 * sizeof *seen);
    model_case_free(c);
}

static void greedy_matches_hf(void **state) {
    for (int m = 0; m < GOLDENS; m++) {
        json_t *g = golden_read(golden_names[m]);
        greedy(g, 1.0);
        greedy(g, 1.3);
        json_decref(g);
    }
}

// ---- gradients among themselves -------------------------------------------------------------------------------------

static const ModelDims small = {.family = &qwen2_family,
                                .V = 45,
                                .D = 48,
                                .F = 40,
                                .L = 2,
                                .H = 3,
                                .K = 1,
                                .d = 16,
                                .max_positions = 64,
                                .rms_eps = 1e-6f,
                                .rope.theta = 10000};
static const int small_lengths[] = {7, 12, 2, 20};

// Four sequences; the first `B` of them from number `first` are packed, scored with weights that belong to the
// sequence.
static void small_pack(ModelCase *c, int first, int B) {
    int32_t ids[64];
    int n = 0, skipped = 0;
    for (int b = 0; b < first; b++) skipped += small_lengths[b];
    for (int b = first; b < first + B; b++)
        for (int p = 0; p < small_lengths[b]; p++, n++)
            ids[n] = (int32_t)(mix64((uint64_t)(skipped + n)) % (uint64_t)c->spec.dims.V);
    case_pack(c, ids, small_lengths + first, B);
    for (int64_t k = 0; k < c->N; k++) {
        uint64_t where = (uint64_t)(skipped + i32(c->rows)[k]);
        f32(c->dlogp)[k] = unit(1000 + where);
        f32(c->dentropy)[k] = 0.3f * unit(2000 + where);
    }
}
static ModelCase *small_case(ModelDims dims, DType dtype, Keep keep) {
    ModelCase *c = model_case(device, (CaseSpec){.dims = dims, .dtype = dtype, .tokens = 41, .keep = keep});
    case_fill(c);
    return c;
}
static void small_run(ModelCase *c, int first, int B) {
    small_pack(c, first, B);
    case_forward(c, 0.9f, false);
    case_backward(c, 0.9f);
}
static double slab_error(const Model *x, const Model *ref) {
    Distance e = {0};
    for (int64_t i = 0; i < ref->slab.dim[0]; i++) distance_add(&e, f32(x->slab)[i], f32(ref->slab)[i]);
    return relative(e);
}

// The loss's slope along direction[n] of parameter p, by a central difference of fourth order.
static double slope(ModelCase *c, const Param *p, const float *direction, double step) {
    int64_t n = tensor_numel(p->t);
    float *kept = xmalloc((size_t)n * sizeof *kept);
    memcpy(kept, p->t.data, (size_t)n * sizeof *kept);
    double value[4];
    static const int at[4] = {-2, -1, 1, 2};
    for (int k = 0; k < 4; k++) {
        for (int64_t i = 0; i < n; i++) f32(p->t)[i] = (float)(kept[i] + at[k] * step * direction[i]);
        case_forward(c, 0.9f, false);
        value[k] = case_loss(c);
    }
    memcpy(p->t.data, kept, (size_t)n * sizeof *kept);
    free(kept);
    return (value[0] - 8 * value[1] + 8 * value[2] - value[3]) / (12 * step);
}

// Along the gradient itself the slope is its norm; along a random direction it is the scalar product.
static void gradients_are_slopes(void **state) {
    for (int tied = 0; tied < 2; tied++) {
        ModelDims dims = small;
        dims.tied = tied;
        ModelCase *c = small_case(dims, F32, KEEP_ALL);
        small_run(c, 0, 4);
        double worst = 0;
        for (int i = 0; i < c->model.n_params; i++) {
            const Param *p = &c->model.params[i], *dp = &c->grad.params[i];
            int64_t n = tensor_numel(p->t);
            float *direction = xmalloc((size_t)n * sizeof *direction);
            double norm = 0;
            for (int64_t k = 0; k < n; k++) norm += pow(f32(dp->t)[k], 2);
            norm = sqrt(norm);
            for (int random = 0; random < 2; random++) {
                double length = 0, product = 0;
                for (int64_t k = 0; k < n; k++) {
                    direction[k] = random ? unit(name_hash(p->name) + 77 + (uint64_t)k) : f32(dp->t)[k];
                    length += pow(direction[k], 2);
                }
                for (int64_t k = 0; k < n; k++) {
                    direction[k] = (float)(direction[k] / sqrt(length));
                    product += (double)direction[k] * f32(dp->t)[k];
                }
                double s = slope(c, p, direction, 0.02), error = fabs(s - product) / norm;
                worst = worse(worst, error);
                // A key's bias shifts all scores of a query alike but for its rotation: a gradient near the noise.
                if (!(error <= 2e-3)) fail_msg("%s: slope %g, gradient says %g (norm %g)", p->name, s, product, norm);
            }
            free(direction);
        }
        print_message("  %s: worst %.1e of the gradient's norm\n", tied ? "tied" : "untied", worst);
        model_case_free(c);
    }
}

static void gradients_add_up(void **state) {
    ModelCase *whole = small_case(small, F32, KEEP_ALL), *parts = small_case(small, F32, KEEP_ALL);
    small_run(whole, 0, 4);
    small_run(parts, 0, 1), small_run(parts, 1, 2), small_run(parts, 3, 1);
    double error = slab_error(&parts->grad, &whole->grad);
    print_message("  three micro-batches against one: %.1e\n", error);
    assert_true(error < 1e-6);
    model_case_free(whole), model_case_free(parts);
}

static void what_is_kept_changes_nothing(void **state) {
    for (int k = 0; k < 4; k++) {
        int half = k % 2;
        ModelDims dims = small;
        if (k > 1) dims.family = &qwen3_family;
        ModelCase *all = small_case(dims, half ? BF16 : F32, KEEP_ALL);
        small_run(all, 0, 4);
        size_t bytes = all->bytes;
        for (Keep keep = KEEP_PRODUCTS; keep >= KEEP_RESIDUALS; keep--) {
            ModelCase *less = small_case(dims, half ? BF16 : F32, keep);
            small_run(less, 0, 4);
            assert_memory_equal(all->grad.slab.data, less->grad.slab.data, tensor_bytes(all->grad.slab));
            assert_true(less->bytes < bytes);
            bytes = less->bytes;
            model_case_free(less);
        }
        model_case_free(all);
    }
}

// The head and the embedding of a tied model are one matrix, and its gradient is the sum of both.
static void tied_gradient_is_the_sum(void **state) {
    ModelDims dims = small;
    ModelCase *untied = small_case(dims, F32, KEEP_ALL);
    dims.tied = true;
    ModelCase *tied = small_case(dims, F32, KEEP_ALL);
    assert_null(model_param(&tied->model, "lm_head.weight"));
    for (int i = 0; i < tied->model.n_params; i++) {
        const Param *p = &tied->model.params[i];
        memcpy(model_param(&untied->model, p->name)->t.data, p->t.data, tensor_bytes(p->t));
    }
    memcpy(untied->model.head.data, tied->model.embedding.data, tensor_bytes(tied->model.embedding));
    small_run(untied, 0, 4), small_run(tied, 0, 4);
    Distance e = {0};
    for (int64_t i = 0; i < tensor_numel(tied->grad.embedding); i++)
        distance_add(&e, f32(tied->grad.embedding)[i],
                     (double)f32(untied->grad.embedding)[i] + f32(untied->grad.head)[i]);
    assert_true(relative(e) < 1e-6);
    assert_memory_equal(tied->logp.data, untied->logp.data, (size_t)tied->N * 4);
    model_case_free(untied), model_case_free(tied);
}

// ---- when gradients are final ---------------------------------------------------------------------------------------

// What a pass told of: the gradients as they were then, and how many products were behind it.
typedef struct {
    ModelCase *c;
    float *seen;  // [n] the slab
    bool *told;   // [n]
    int layer;    // the next one
    int products; // backward products so far
} Watch;
static Watch *watch;
static void (*real_matmul_bwd)(Device *, Tensor, Tensor, Tensor, Tensor, Tensor);
static void counted_matmul_bwd(Device *d, Tensor dx, Tensor dw, Tensor dy, Tensor x, Tensor w) {
    watch->products++;
    real_matmul_bwd(d, dx, dw, dy, x, w);
}

static void see(Watch *w, Span s) {
    const float *grad = f32(model_trained(&w->c->grad).slab);
    for (int64_t i = s.first; i < s.end; i++) {
        assert_false(w->told[i]);
        w->told[i] = true;
        w->seen[i] = grad[i];
    }
}

static void layer_done(void *arg, int layer) {
    Watch *w = arg;
    int L = w->c->spec.dims.L, below = layer < 0 ? 0 : layer;
    Trained t = model_trained(&w->c->grad);
    assert_int_equal(layer, w->layer--);
    assert_int_equal(w->products, 4 * (L - below)); // those of the layers below are still to come
    device->sync(device);
    see(w, model_part(&w->c->grad, layer));
    if (layer < 0) see(w, (Span){t.n_decay, t.slab.dim[0]});
}

// A layer that the pass tells of has the gradients of the end, and the layers together are all there is. From a second
// micro-batch on, so that there were gradients before.
static void told_layers_are_final(void **state) {
    real_matmul_bwd = device->matmul_bwd;
    for (int k = 0; k < 8; k++) {
        ModelDims dims = small;
        dims.tied = k % 2, dims.L = 3;
        if (k == 4 || k == 5) dims.family = &qwen3_family;
        if (k == 7) dims.scores = true;
        CaseSpec spec = {.dims = dims, .tokens = 41, .keep = k % 4 > 1 ? KEEP_RESIDUALS : KEEP_ALL};
        if (k == 6)
            spec.lora = (AdapterSpec){.rank = 3, .alpha = 6, .target = {true, true, false, true, false, true, true}};
        ModelCase *c = model_case(device, spec);
        case_fill(c);
        Trained t = model_trained(&c->grad);
        size_t n = (size_t)t.slab.dim[0];
        Watch w = {c, xcalloc(n, sizeof(float)), xcalloc(n, sizeof(bool)), dims.L, 0};
        LayerDone told = {layer_done, &w};
        watch = &w;
        if (!dims.scores) small_run(c, 0, 2);
        c->told = &told;
        device->matmul_bwd = counted_matmul_bwd;
        if (!dims.scores) small_run(c, 2, 2);
        else {
            small_pack(c, 0, 4);
            model_forward(device, &c->model, &c->acts, case_packed(c), NULL, NONE);
            Tensor dscore = tensor2(c->dlogp.data, F32, c->T, 1), dx = tensor_rows(c->acts.dx, 0, c->T);
            device->matmul_bwd = real_matmul_bwd; // the head's is before the pass
            model_score_backward(device, &c->model, &c->grad, dx, dscore, tensor_rows(c->acts.out, 0, c->T));
            device->matmul_bwd = counted_matmul_bwd;
            model_backward(device, &c->model, &c->grad, &c->acts, case_packed(c), &told);
            device->sync(device);
        }
        device->matmul_bwd = real_matmul_bwd;
        assert_int_equal(w.layer, -2);
        for (size_t i = 0; i < n; i++) assert_true(w.told[i]);
        assert_memory_equal(w.seen, t.slab.data, n * sizeof(float));
        double all = 0;
        for (size_t i = 0; i < n; i++) all += fabs((double)w.seen[i]);
        assert_true(all > 0);
        free(w.seen), free(w.told);
        model_case_free(c);
    }
}

static int open_device(void **state) {
    device = test_device(0);
    return device ? 0 : -1;
}
static int close_device(void **state) {
    device_close(device);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(matches_hf),
        cmocka_unit_test(padding_learns_as_in_hf),
        cmocka_unit_test(bf16_no_worse_than_hf),
        cmocka_unit_test(shared_prompts_have_the_gradients_of_hf),
        cmocka_unit_test(greedy_matches_hf),
        cmocka_unit_test(gradients_are_slopes),
        cmocka_unit_test(gradients_add_up),
        cmocka_unit_test(what_is_kept_changes_nothing),
        cmocka_unit_test(tied_gradient_is_the_sum),
        cmocka_unit_test(told_layers_are_final),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
