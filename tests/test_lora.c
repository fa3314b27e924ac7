// Adapters against PEFT and torch (goldens that tools/golden_lora.py writes), in bf16, and as files.
#include "adapter_case.h"
#include "commands.h"
#include "config_dims.h"
#include "json.h"
#include "model_case.h"
#include "on_device.h"
#include "optim.h"
#include "safetensors.h"
#include "train_fixture.h"
#include <math.h>
#include <stdio.h>
#include <unistd.h>

static Device *device;

static double number(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }

static ModelDims golden_dims(const json_t *g) {
    HfConfig c;
    Error e = {0};
    if (json_object_get(g, "config")) return config_dims(json_object_get(g, "config"));
    if (!hf_config_read("models/tiny", &c, &e)) fail_msg("%s", e.text);
    return c.dims;
}

// The golden's model beside the adapter that PEFT saved, and its batch.
static ModelCase *golden_case(const json_t *g, Keep keep) {
    int32_t ids[512];
    int length[16], T = 0, B = 0;
    const json_t *list = json_object_get(g, "ids"), *one, *id;
    size_t i, k;
    json_array_foreach(list, i, one) {
        length[B++] = (int)json_array_size(one);
        json_array_foreach(one, k, id) ids[T++] = (int32_t)json_integer_value(id);
    }
    char *dir = xasprintf("tests/golden/lora/%s", json_string_value(json_object_get(g, "name")));
    CaseSpec spec = {.dims = golden_dims(g), .dtype = F32, .tokens = T, .keep = keep};
    Error e = {0};
    if (!adapter_describe(dir, &spec.lora, &e)) fail_msg("%s", e.text);
    ModelCase *c = model_case(device, spec);
    for (int p = 0; p < c->model.n_params; p++) {
        const json_t *fill = json_object_get(json_object_get(g, "fills"), c->model.params[p].name);
        param_fill(&c->model.params[p], (float)json_number_value(json_array_get(fill, 0)),
                   (float)json_number_value(json_array_get(fill, 1)));
    }
    if (!adapter_read(dir, device, c->model.adapter, &e)) fail_msg("%s", e.text);
    case_pack(c, ids, length, B);
    for (int64_t n = 0; n < c->N; n++) f32(c->dlogp)[n] = -1 / (float)c->N, f32(c->dentropy)[n] = 0;
    free(dir);
    return c;
}

static double loss_now(ModelCase *c, bool backward) {
    case_forward(c, 1, false);
    if (backward) {
        device->fill(device, c->grad.adapter->slab, 0);
        case_backward(c, 1);
    }
    return case_loss(c);
}

static void loss_gradients_and_steps_are_pefts(void **state) {
    json_t *golden = json_load_file("tests/golden/lora.json", 0, NULL), *g;
    size_t i;
    assert_non_null(golden);
    json_array_foreach(json_object_get(golden, "cases"), i, g) {
        const json_t *adam = json_object_get(g, "adam"), *losses = json_object_get(g, "losses");
        for (int keep = test_on_cuda() ? KEEP_ALL : KEEP_RESIDUALS; keep <= KEEP_ALL; keep++) {
            ModelCase *c = golden_case(g, (Keep)keep);
            Adapter *a = c->model.adapter, *da = c->grad.adapter;
            size_t bytes = tensor_bytes(a->slab);
            Tensor m = a->slab, v = a->slab;
            m.data = shared_memory(device, bytes), v.data = shared_memory(device, bytes);
            int steps = keep == KEEP_ALL ? (int)json_array_size(losses) - 1 : 1;
            for (int step = 0; step < steps; step++) {
                double loss = loss_now(c, true), want = json_number_value(json_array_get(losses, (size_t)step));
                if (!(fabs(loss - want) < 1e-5 * want))
                    fail_msg("loss %.9g of step %d, PEFT's is %.9g", loss, step, want);
                if (step == 0) {
                    double error = samples_error(da, json_object_get(g, "gradients"));
                    if (!(error < 1e-4)) fail_msg("gradients: error %g", error);
                }
                AdamParams p = {number(adam, "lr"), 0.9, 0.999, number(adam, "eps"), number(adam, "weight_decay"), 1,
                                step + 1,           0,   0};
                device->adamw(device, a->slab, NONE, m, v, da->slab, p);
                device->sync(device);
            }
            if (keep == KEEP_ALL) {
                double error = samples_error(a, json_object_get(g, "after")), loss = loss_now(c, false);
                if (!(error < 1e-5)) fail_msg("after %d steps: error %g", steps, error);
                assert_true(fabs(loss - json_number_value(json_array_get(losses, (size_t)steps))) < 1e-5 * loss);
            }
            device->host_free(device, m.data, bytes), device->host_free(device, v.data, bytes);
            model_case_free(c);
        }
    }
    json_decref(golden);
}

// An adapter of zeros is none, to the bit.
static void zeros_change_nothing(void **state) {
    json_t *golden = json_load_file("tests/golden/lora.json", 0, NULL), *g;
    size_t i;
    assert_non_null(golden);
    json_array_foreach(json_object_get(golden, "cases"), i, g) {
        ModelCase *c = golden_case(g, KEEP_NOTHING);
        Adapter *a = c->model.adapter;
        device->fill(device, a->slab, 0);
        double loss = loss_now(c, false), without = number(g, "without");
        assert_true(fabs(loss - without) < 1e-5 * without);
        c->model.adapter = NULL;
        double bare = loss_now(c, false);
        assert_memory_equal(&bare, &loss, sizeof loss);
        c->model.adapter = a;
        model_case_free(c);
    }
    json_decref(golden);
}

// What a small adapter changes in bf16 is what it changes exactly: a merged weight would have swallowed most of it.
static void small_changes_survive_bf16(void **state) {
    enum { T = 4096, K = 64, N = 48, R = 4 };
    LowRank in = {1, R, {K}, {true}, 1}, out = {1, R, {N}, {true}, 0.5f};
    Tensor shapes[] = {tensor2(NULL, BF16, T, K), tensor2(NULL, BF16, N, K), tensor2(NULL, F32, R, K),
                       tensor2(NULL, F32, R, N),  tensor2(NULL, F32, T, N),  tensor2(NULL, F32, T, R),
                       tensor2(NULL, BF16, T, N), tensor2(NULL, BF16, T, N)};
    enum { X, W, A, B, FULL, LOW, WITH, WITHOUT, ALL };
    Tensor t[ALL];
    for (int i = 0; i < ALL; i++) {
        t[i] = shapes[i];
        t[i].data = shared_memory(device, tensor_bytes(t[i]));
        // ||s B A|| = 1e-3 ||W||: of uniform numbers, sqrt(R) s a b / 3 against w / sqrt(3)
        float size = i == B ? 1e-3f * 3 / (0.5f * sqrtf(3) * 2) : 1;
        for (int64_t k = 0; i <= B && k < tensor_numel(t[i]); k++)
            tensor_set(t[i], k, size * unit(name_hash("slope") + (uint64_t)i * 1000003 + (uint64_t)k));
    }
    device->matmul(device, t[WITHOUT], t[X], t[W]);
    device->matmul(device, t[FULL], t[X], t[W]);
    device->lora_down(device, t[LOW], t[X], t[A], in);
    device->lora_up(device, t[WITH], t[FULL], t[LOW], t[B], out);
    device->sync(device);
    double products = 0, squares = 0, change = 0, size = 0;
    for (int64_t i = 0; i < T; i++)
        for (int64_t j = 0; j < N; j++) {
            double exact = 0;
            for (int r = 0; r < R; r++) {
                double low = 0;
                for (int k = 0; k < K; k++) low += (double)tensor_get(t[X], i * K + k) * f32(t[A])[r * K + k];
                exact += 0.5 * low * f32(t[B])[r * N + j];
            }
            double seen = (double)tensor_get(t[WITH], i * N + j) - tensor_get(t[WITHOUT], i * N + j);
            products += seen * exact, squares += exact * exact;
            change += exact * exact, size += pow(tensor_get(t[WITHOUT], i * N + j), 2);
        }
    double slope = products / squares, share = sqrt(change / size);
    if (!(slope > 0.95 && slope < 1.05)) fail_msg("slope %g", slope);
    assert_true(share > 0.7e-3 && share < 1.4e-3);
    for (int i = 0; i < ALL; i++) device->host_free(device, t[i].data, tensor_bytes(t[i]));
}

// A trained adapter saved and read again is that adapter; beside another model it is refused. The reference is the
// start.
static void files_bring_back_the_adapter(void **state) {
    if (test_on_cuda()) return; // whole runs take too long under emulation
    Fixture f;
    Error e = {0};
    fixture_dir(&f);
    fixture_open(&f, "dtype=bf16 lora_r=4 lora_alpha=6 use_rslora=true beta=0.1");
    Learner *l = &f.t.learner;
    Device *d = l->engine.device;
    void *base = bytes_of(d, l->engine.policy.slab);
    assert_null(l->reference.adapter);
    for (int i = 0; i < 2; i++) assert_int_equal(fixture_step(&f), STEP_DONE);
    assert_bytes(d, l->engine.policy.slab, base); // no weight of the model moves
    if (!trainer_save(&f.t, &e)) fail_msg("%s", e.text);
    Tensor slab = l->engine.policy.adapter->slab;
    void *trained = bytes_of(d, slab);
    fixture_close(&f);

    char *more =
        xasprintf("dtype=bf16 adapter=%s/out/step_2 beta=0.1 output_dir=%s/other learning_rate=0.01", f.dir, f.dir);
    fixture_open(&f, more);
    l = &f.t.learner, d = l->engine.device;
    assert_bytes(d, l->engine.policy.adapter->slab, trained);
    assert_bytes(d, l->reference.adapter->slab, trained);
    assert_true(adapter_scale(&l->engine.lora) == 3);
    assert_int_equal(fixture_step(&f), STEP_DONE);
    assert_bytes(d, l->reference.adapter->slab, trained); // the reference stays, the policy does not
    void *now = bytes_of(d, l->engine.policy.adapter->slab);
    assert_memory_not_equal(now, trained, tensor_bytes(slab));
    free(now), free(more);
    fixture_close(&f);

    more = xasprintf("dtype=bf16 adapter=%s/out/step_2 seed=8", f.dir); // other weights of the same shape
    fixture_config(&f, more);
    if (trainer_open(&f.t, &f.cfg, &e)) fail_msg("an adapter of another base was taken");
    assert_int_equal(e.code, EXIT_INPUT);
    assert_non_null(strstr(e.text, "another base"));
    config_free(&f.cfg), free(more);
    more = xasprintf("dtype=f32 adapter=%s/out/step_2 seed=8", f.dir); // nor in the other dtype
    fixture_config(&f, more);
    if (trainer_open(&f.t, &f.cfg, &e)) fail_msg("an adapter of another base was taken in another dtype");
    assert_int_equal(e.code, EXIT_INPUT);
    assert_non_null(strstr(e.text, "another base"));
    config_free(&f.cfg), free(more);
    more = xasprintf("dtype=f32 adapter=%s/out/step_2 output_dir=%s/f32", f.dir, f.dir); // its own is, in either
    fixture_open(&f, more);
    assert_int_equal(fixture_step(&f), STEP_DONE);
    fixture_close(&f), free(more);
    more = xasprintf("dtype=bf16 adapter=tests/golden/lora/qwen3_tied");
    fixture_config(&f, more);
    if (trainer_open(&f.t, &f.cfg, &e)) fail_msg("an adapter of another shape was taken");
    assert_non_null(strstr(e.text, "another base"));
    config_free(&f.cfg), free(more);
    free(base), free(trained);
    fixture_remove(&f);
}

// Log-probs of the first generation that a model answers with, and its tokens (heap).
static float *first_generation(Fixture *f, const char *more, int32_t **ids, int *n) {
    fixture_open(f, more);
    assert_int_equal(fixture_step(f), STEP_DONE);
    const Batch *b = &f->t.generation.batch;
    *n = b->n * b->max_completion;
    size_t bytes = (size_t)*n * 4;
    float *logp = xmalloc(bytes);
    *ids = xmalloc(bytes);
    for (int i = 0; i < *n; i++) {
        bool used = i % b->max_completion < b->len[i / b->max_completion];
        logp[i] = used ? b->logp[i] : 0, (*ids)[i] = used ? b->ids[i] : 0;
    }
    fixture_close(f);
    return logp;
}

// A merged model answers as the model with its adapter does.
static void merged_model_answers_alike(void **state) {
    if (test_on_cuda()) return; // whole runs take too long under emulation
    Fixture f;
    Error e = {0};
    fixture_dir(&f);
    fixture_open(&f, "lora_r=4 lora_alpha=8 learning_rate=0.02 beta=0");
    for (int i = 0; i < 2; i++) assert_int_equal(fixture_step(&f), STEP_DONE);
    char *base = xasprintf("%s/base", f.dir), *merged = xasprintf("%s/merged", f.dir);
    bool ok = trainer_save(&f.t, &e) &&
              hf_save(base, "models/tiny", f.t.learner.engine.device, &f.t.learner.engine.policy, &e);
    if (!ok) fail_msg("%s", e.text);
    fixture_close(&f);
    char *args[] = {xasprintf("model=%s", base), xasprintf("adapter=%s/out/step_2", f.dir),
                    xasprintf("merge_output=%s", merged), "dtype=f32", "device=cpu"};
    if (command_merge(5, args, &e)) fail_msg("%s", e.text);
    int32_t *ids[2], *bare;
    int n;
    char *with = xasprintf("model=%s init=load %s beta=0", base, args[1]);
    char *plain = xasprintf("model=%s init=load beta=0", merged),
         *without = xasprintf("model=%s init=load beta=0", base);
    float *a = first_generation(&f, with, &ids[0], &n), *b = first_generation(&f, plain, &ids[1], &n),
          *c = first_generation(&f, without, &bare, &n);
    assert_memory_equal(ids[0], ids[1], (size_t)n * 4);
    double far = 0;
    for (int i = 0; i < n; i++) {
        if (!(fabsf(a[i] - b[i]) < 1e-4f))
            fail_msg("log-prob %g with the adapter, %g merged", (double)a[i], (double)b[i]);
        far = fmax(far, fabs((double)a[i] - c[i]));
    }
    assert_true(far > 1e-2);
    char *model[] = {xasprintf("model=%s/out/step_2", f.dir), "prompt=a"};
    assert_int_equal(command_sample(2, model, &e), EXIT_CONFIG);
    assert_non_null(strstr(e.text, "is an adapter; give the model"));
    free(a), free(b), free(c), free(ids[0]), free(ids[1]), free(bare), free(with), free(plain), free(without);
    free(args[0]), free(args[1]), free(args[2]), free(model[0]), free(base), free(merged);
    fixture_remove(&f);
}

static void put(const char *dir, const char *name, const char *text) {
    char *path = xasprintf("%s/%s", dir, name);
    FILE *out = fopen(path, "w");
    assert_non_null(out);
    fputs(text, out);
    fclose(out);
    free(path);
}

// PEFT's two ways to draw A; B is 0, so that nothing is added before the first step.
static void a_new_adapter_is_drawn_as_peft_draws_it(void **state) {
    enum { RANK = 4 };
    static const char *const ways[] = {"kaiming_uniform", "gaussian"};
    for (int gaussian = 0; gaussian < 2; gaussian++) {
        Fixture f;
        fixture_dir(&f);
        char more[80];
        snprintf(more, sizeof more, "lora_r=%d lora_init=%s", RANK, ways[gaussian]);
        fixture_open(&f, more);
        Adapter *a = f.t.learner.engine.policy.adapter;
        for (int p = 0; p < a->n_params; p++) {
            Tensor x = a->params[p].t;
            float *values = bytes_of(f.t.learner.engine.device, x);
            double squares = 0, most = 0, n = (double)tensor_numel(x), bound = 1 / sqrt((double)x.dim[1]);
            for (int64_t i = 0; i < tensor_numel(x); i++) {
                squares += (double)values[i] * (double)values[i];
                most = fmax(most, fabs((double)values[i]));
            }
            bool is_a = strstr(a->params[p].name, ".lora_A.");
            double want = !is_a ? 0 : gaussian ? 1.0 / RANK : bound / sqrt(3); // the deviation
            double sure = 6 / sqrt(2 * n);                                     // of it, six standard errors
            if (!(fabs(sqrt(squares / n) - want) <= sure * want)) fail_msg("%s: %s", ways[gaussian], a->params[p].name);
            assert_true(!is_a || gaussian || (most < bound && most > 0.95 * bound));
            free(values);
        }
        fixture_close(&f);
        fixture_remove(&f);
    }
}

// What PEFT would compute in another way is refused by its name.
static void other_adapters_are_refused(void **state) {
    static const char *const cases[][2] = {
        {"\"r\": 0, \"lora_alpha\": 1", "\"r\" is 0"},
        {"\"lora_alpha\": 1", "\"r\" is missing"},
        {"\"r\": 2, \"lora_alpha\": 5, \"use_dora\": true", "use_dora"},
        {"\"r\": 2, \"lora_alpha\": 5, \"rank_pattern\": {\"q_proj\": 4}", "rank_pattern"},
        {"\"r\": 2, \"lora_alpha\": 5, \"modules_to_save\": [\"lm_head\"]", "modules_to_save"},
        {"\"r\": 2, \"lora_alpha\": 5, \"bias\": \"all\"", "bias"},
        {"\"r\": 2, \"lora_alpha\": 5, \"init_lora_weights\": \"pissa\"", "pissa"},
        {"\"r\": 2, \"lora_alpha\": 5, \"peft_type\": \"IA3\"", "IA3"},
        {"\"r\": 3, \"lora_alpha\": 5", "has rank 2, \"r\" in adapter_config.json is 3"},
        {"\"r\": 2, \"lora_alpha\": 5", NULL},
    };
    Fixture f;
    fixture_dir(&f);
    char *copy = xasprintf("cp tests/golden/lora/qwen2_tiny/adapter_model.safetensors %s", f.dir);
    assert_int_equal(system(copy), 0);
    HfConfig c;
    Error e = {0};
    assert_true(hf_config_read("models/tiny", &c, &e));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *text = xasprintf("{%s}", cases[i][0]);
        put(f.dir, "adapter_config.json", text);
        AdapterSpec spec;
        bool ok = adapter_describe(f.dir, &spec, &e) && adapter_check(f.dir, c.dims, &spec, &e);
        assert_true(ok == (cases[i][1] == NULL));
        if (!ok && !strstr(e.text, cases[i][1])) fail_msg("%s: %s", cases[i][0], e.text);
        free(text);
    }
    free(copy);
    fixture_remove(&f);
}

static int open_device(void **state) {
    device = test_device(0);
    return 0;
}
static int close_device(void **state) {
    device_close(device);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(loss_gradients_and_steps_are_pefts), cmocka_unit_test(zeros_change_nothing),
        cmocka_unit_test(small_changes_survive_bf16),         cmocka_unit_test(files_bring_back_the_adapter),
        cmocka_unit_test(merged_model_answers_alike),         cmocka_unit_test(a_new_adapter_is_drawn_as_peft_draws_it),
        cmocka_unit_test(other_adapters_are_refused),
    };
    return cmocka_run_group_tests(tests, open_device, close_device);
}
