// What a model directory's files mean, held against what HF transformers made of them (tools/golden.py files).
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <unistd.h>
#include <cmocka.h>
#include "engine.h"
#include "file.h"
#include "hf.h"
#include "json.h"
#include "near.h"
#include "safetensors.h"
#include "scratch.h"

static const ModelDims small = {.family = &qwen2_family,
                                .V = 40,
                                .D = 12,
                                .F = 20,
                                .L = 2,
                                .H = 3,
                                .K = 1,
                                .d = 4,
                                .max_positions = 64,
                                .rms_eps = 1e-6f,
                                .rope.theta = 10000,
                                .tied = false};
static const char embedding[] = "model.embed_tokens.weight", head[] = "lm_head.weight";

// at(dir)/config.json for `small`, with the fields of `patch`.
static void put_config(const char *dir, json_t *patch) {
    mkdir(at("%s", dir), 0777);
    json_t *j = json_pack("{s:s,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:b}", "model_type", "qwen2", "vocab_size", 40,
                          "hidden_size", 12, "intermediate_size", 20, "num_hidden_layers", 2, "num_attention_heads", 3,
                          "num_key_value_heads", 1, "max_position_embeddings", 64, "tie_word_embeddings", 1);
    json_object_update(j, patch);
    assert_int_equal(json_dump_file(j, at("%s/config.json", dir), 0), 0);
    json_decref(j);
}

static json_t *golden_of(const char *file, const char *table) {
    json_t *j = json_load_file(file, 0, NULL), *rows = json_incref(json_object_get(j, table));
    json_decref(j);
    assert_true(json_object_size(rows) + json_array_size(rows) > 7);
    return rows;
}
static json_t *golden(const char *table) { return golden_of("tests/golden/hf_files.json", table); }
static json_t *families(const char *table) { return golden_of("tests/golden/families.json", table); }

static float theta_of(const char *dir) {
    HfConfig c;
    Error e = {0};
    if (!hf_config_read(at("%s", dir), &c, &e)) fail_msg("%s", e.text);
    return c.dims.rope.theta;
}

// What is saved has the base where transformers 4 looks (rope_theta) and where 5 does (rope_parameters), and nothing
// that would keep 5 from looking there.
static void rotary_base_is_transformers(void **state) {
    json_t *rows = golden("rope"), *row;
    Model m = model_make(small, F32, 3);
    size_t i;
    json_array_foreach(rows, i, row) {
        float want = (float)json_number_value(json_object_get(row, "theta"));
        put_config("source", json_object_get(row, "config"));
        if (theta_of("source") != want)
            fail_msg("row %zu: theta %g, not %g", i, (double)theta_of("source"), (double)want);
        m.dims.rope.theta = want;
        Error e = {0};
        if (!hf_save(at("saved"), at("source"), NULL, &m, &e)) fail_msg("%s", e.text);
        json_t *j = json_read(at("saved/config.json"), NULL), *new = json_object_get(j, "rope_parameters");
        assert_true((float)json_real_value(json_object_get(j, "rope_theta")) == want);
        assert_true((float)json_real_value(json_object_get(new, "rope_theta")) == want);
        assert_string_equal(json_string_value(json_object_get(new, "rope_type")), "default");
        assert_null(json_object_get(j, "rope_scaling"));
        json_decref(j);
        assert_true(theta_of("saved") == want);
    }
    model_drop(&m);
    json_decref(rows);

    // The digits that were read come back, not those of the f32.
    json_t *patch = json_loads("{\"rope_theta\": 10000.1}", 0, NULL);
    put_config("source", patch);
    json_decref(patch);
    Model n = model_make(small, F32, 3);
    n.dims.rope.theta = theta_of("source");
    assert_true(hf_save(at("saved"), at("source"), NULL, &n, NULL));
    size_t bytes;
    char *text = file_read(at("saved/config.json"), 1 << 16, &bytes, NULL);
    assert_non_null(strstr(text, "\"rope_theta\": 10000.1,"));
    free(text);
    model_drop(&n);
}

static HfConfig read_whole(const char *dir, const json_t *config) {
    HfConfig c;
    Error e = {0};
    mkdir(at("%s", dir), 0777);
    if (config) assert_int_equal(json_dump_file(config, at("%s/config.json", dir), 0), 0);
    if (!hf_config_read(at("%s", dir), &c, &e)) fail_msg("%s", e.text);
    return c;
}

// Every kind of frequencies, in the words of transformers 4, of 5 and of both; what is saved gives the same ones again,
// by its own words of 5 as by those of 4.
static void rotary_tables_are_transformers(void **state) {
    json_t *rows = families("ropes"), *base = families("base"), *row;
    size_t i, k;
    json_array_foreach(rows, i, row) {
        json_t *config = json_copy(base), *want = json_object_get(row, "inv_freq"), *value;
        json_object_update(config, json_object_get(row, "config"));
        HfConfig c = read_whole("source", config);
        RopeTable table = rope_table(c.dims.rope, c.dims.d);
        assert_int_equal(json_array_size(want), c.dims.d / 2);
        json_array_foreach(want, k, value) {
            float x = (float)json_number_value(value);
            if (!(fabsf(table.inv_freq[k] - x) <= 1e-6f * x)) // an ulp of a wave is more where a mean is taken
                fail_msg("row %zu, pair %zu: %.9g, not %.9g", i, k, (double)table.inv_freq[k], (double)x);
        }
        assert_near(table.scale, json_number_value(json_object_get(row, "scale")), 1e-6);

        Model m = model_make(c.dims, F32, 3);
        Error e = {0};
        if (!hf_save(at("saved"), at("source"), NULL, &m, &e)) fail_msg("%s", e.text);
        model_drop(&m);
        for (int words = 3; words < 6; words++) { // of both, of 4, of 5
            json_t *saved = json_read(at("saved/config.json"), NULL);
            if (words == 4) json_object_del(saved, "rope_parameters");
            if (words == 5) json_object_del(saved, "rope_theta"), json_object_del(saved, "rope_scaling");
            HfConfig again = read_whole("again", saved);
            RopeTable same = rope_table(again.dims.rope, again.dims.d);
            assert_memory_equal(&same, &table, sizeof table);
            json_decref(saved);
        }
        json_decref(config);
    }
    json_decref(base), json_decref(rows);
}

static void published_sizes_are_counted(void **state) {
    json_t *rows = families("sizes"), *row;
    size_t i;
    json_array_foreach(rows, i, row) {
        HfConfig c = read_whole("m", json_object_get(row, "config"));
        if (model_param_count(c.dims) != json_integer_value(json_object_get(row, "parameters")))
            fail_msg("%s: %lld parameters", json_string_value(json_object_get(row, "name")),
                     (long long)model_param_count(c.dims));
    }
    json_decref(rows);
}

// Writes some of the model's parameters as one file.
static void put_weights(const char *name, const Param *params, int n) {
    Str s = {0};
    safetensors_header(&s, params, n, NULL, NULL);
    for (int i = 0; i < n; i++) str_add(&s, params[i].t.data, tensor_bytes(params[i].t));
    put_bytes(at("m/%s", name), s.s, s.n);
    str_free(&s);
}

// The directory that a row describes, of the weights of `m`, which is untied.
static void put_row(const json_t *row, const Model *m) {
    const char *which = json_string_value(json_object_get(row, "head"));
    const char *shards = json_string_value(json_object_get(row, "shards"));
    disk_remove(at("m"), NULL);
    json_t *patch = json_object();
    json_object_set(patch, "tie_word_embeddings", json_object_get(row, "tie_word_embeddings"));
    put_config("m", patch);
    json_decref(patch);
    Param part[2][64];
    int n[2] = {0};
    json_t *map = json_object();
    for (int i = 0; i < m->n_params; i++) {
        Param p = m->params[i];
        bool is_head = !strcmp(p.name, head), is_embedding = !strcmp(p.name, embedding);
        if ((is_head && !strcmp(which, "absent")) || (is_embedding && !json_is_true(json_object_get(row, "embedding"))))
            continue;
        if (is_head && !strcmp(which, "equal")) p.t.data = model_param(m, embedding)->t.data;
        int file = strcmp(shards, "one") && !is_head && !is_embedding;
        part[file][n[file]++] = p;
        if (!is_head || strcmp(shards, "unnamed"))
            json_object_set_new(map, p.name, json_string(file ? "b.safetensors" : "a.safetensors"));
    }
    if (!strcmp(shards, "one")) put_weights("model.safetensors", part[0], n[0]);
    else {
        put_weights("a.safetensors", part[0], n[0]);
        put_weights("b.safetensors", part[1], n[1]);
        json_t *index = json_pack("{s:O}", "weight_map", map);
        assert_int_equal(json_dump_file(index, at("m/model.safetensors.index.json"), 0), 0);
        json_decref(index);
    }
    json_decref(map);
}

static void heads_are_tied_as_in_transformers(void **state) {
    json_t *rows = golden("heads"), *row;
    Model m = model_make(small, F32, 3);
    size_t i, bytes = tensor_bytes(model_param(&m, head)->t);
    json_array_foreach(rows, i, row) {
        put_row(row, &m);
        HfConfig c;
        Error e = {0};
        if (!hf_config_read(at("m"), &c, &e) || !hf_head_read(at("m"), &c.dims, &e)) fail_msg("%s", e.text);
        bool tied = json_is_true(json_object_get(row, "tied"));
        if (c.dims.tied != tied) fail_msg("row %zu: tied %d", i, c.dims.tied);
        Model got = model_make(c.dims, F32, 0);
        if (!hf_weights_read(at("m"), NULL, &got, LOAD_STRICT, &e)) fail_msg("row %zu: %s", i, e.text);
        bool equal = !strcmp(json_string_value(json_object_get(row, "head")), "equal");
        const void *files = model_param(&m, equal ? embedding : head)->t.data;
        bool is_the_files = !memcmp(got.head.data, files, bytes);
        assert_int_equal(is_the_files, json_is_true(json_object_get(row, "head_is_the_files")));

        // What is saved says itself what it is.
        if (!hf_save(at("saved"), at("m"), NULL, &got, &e)) fail_msg("%s", e.text);
        HfConfig again;
        assert_true(hf_config_read(at("saved"), &again, NULL) && again.dims.tied == tied);
        Model back = model_make(again.dims, F32, 0);
        assert_true(hf_weights_read(at("saved"), NULL, &back, LOAD_STRICT, NULL));
        assert_same_weights(&got, &back);
        model_drop(&back);
        model_drop(&got);
    }
    model_drop(&m);
    json_decref(rows);
}

// What opens a model for a run reads the head too: a command that only looked at config.json would run and save the
// embedding in its place.
static void an_own_head_is_run_and_saved(void **state) {
    HfConfig tiny;
    Error e = {0};
    assert_true(hf_config_read("models/tiny", &tiny, &e) && tiny.dims.tied);
    tiny.dims.tied = false;
    Model m = model_make(tiny.dims, F32, 3);
    mkdir(at("m"), 0777);
    size_t n;
    char *config = file_read("models/tiny/config.json", 1 << 16, &n, &e);
    put_bytes(at("m/config.json"), config, n);
    free(config);
    put_weights("model.safetensors", m.params, m.n_params);
    char *args[] = {xasprintf("model=%s", at("m")), xstrdup("tokenizer=models/tiny"), xstrdup("device=cpu"),
                    xstrdup("dtype=f32"), xstrdup("raw=true")};
    for (int prepared = 0; prepared < 2; prepared++) {
        Config c;
        Engine en = {0};
        assert_true(config_read(&c, NULL, args, 5, &e));
        if (prepared) assert_true(engine_prepare(&en, &c, &e));
        if (!engine_open(&en, &c, shape_for_rollout(&c, 1, 1), &e)) fail_msg("%s", e.text);
        assert_false(en.policy.dims.tied);
        assert_memory_equal(model_param(&en.policy, head)->t.data, model_param(&m, head)->t.data,
                            tensor_bytes(model_param(&m, head)->t));
        if (!hf_save(at("saved%d", prepared), at("m"), NULL, &en.policy, &e)) fail_msg("%s", e.text);
        json_t *saved = json_read(at("saved%d/config.json", prepared), &e);
        assert_true(json_is_false(json_object_get(saved, "tie_word_embeddings")));
        json_decref(saved);
        engine_close(&en);
        config_free(&c);
    }
    for (int i = 0; i < 5; i++) free(args[i]);
    model_drop(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rotary_base_is_transformers, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(rotary_tables_are_transformers, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(published_sizes_are_counted, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(heads_are_tied_as_in_transformers, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(an_own_head_is_run_and_saved, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
