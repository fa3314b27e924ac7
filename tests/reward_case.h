// A reward model of tests/golden/reward_model.json as a directory: weights by the formula of tools/golden_model.py, the
// tokenizer of models/tiny.
#pragma once
#include "adapter_files.h"
#include "json.h"
#include "model_case.h"
#include "near.h"
#include "safetensors.h"
#include "scratch.h"

static json_t *golden;

static inline int read_golden(void **state) {
    golden = json_load_file("tests/golden/reward_model.json", 0, NULL);
    return golden ? 0 : -1;
}
static inline int drop_golden(void **state) {
    json_decref(golden);
    return 0;
}

// at(name) for a case of the golden.
static inline void put_reward_model(const char *name, const json_t *one) {
    mkdir(at("%s", name), 0777);
    assert_int_equal(json_dump_file(json_object_get(one, "config"), at("%s/config.json", name), 0), 0);
    file_copy_to("models/tiny/tokenizer.json", at("%s/tokenizer.json", name));
    file_copy_to("models/tiny/tokenizer_config.json", at("%s/tokenizer_config.json", name));
    HfConfig hf;
    Error e = {0};
    if (!hf_config_read(at("%s", name), &hf, &e)) fail_msg("%s", e.text);
    Model m = model_make(hf.dims, F32, 0);
    Str all = {0};
    safetensors_header(&all, m.params, m.n_params, NULL, NULL);
    for (int i = 0; i < m.n_params; i++) {
        const json_t *fill = json_object_get(json_object_get(one, "fills"), m.params[i].name);
        assert_int_equal(json_array_size(fill), 2);
        param_fill(&m.params[i], (float)json_number_value(json_array_get(fill, 0)),
                   (float)json_number_value(json_array_get(fill, 1)));
        str_add(&all, (const char *)m.params[i].t.data, tensor_bytes(m.params[i].t));
    }
    assert_int_equal(json_object_size(json_object_get(one, "fills")), m.n_params);
    put_bytes(at("%s/model.safetensors", name), all.s, all.n);
    str_free(&all);
    model_drop(&m);
}

// The adapter of tests/golden/lora that the golden's case has, as at(name), beside the model at(beside).
static inline void put_adapter(const char *name, const json_t *adapter, const char *beside) {
    char *from = xasprintf("tests/golden/lora/%s", json_string_value(json_object_get(adapter, "name")));
    char *config = xasprintf("%s/adapter_config.json", from),
         *weights = xasprintf("%s/adapter_model.safetensors", from);
    mkdir(at("%s", name), 0777);
    json_t *j = json_load_file(config, 0, NULL);
    json_object_set_new(j, "base_model_name_or_path", json_string(beside));
    assert_int_equal(json_dump_file(j, at("%s/adapter_config.json", name), 0), 0);
    file_copy_to(weights, at("%s/adapter_model.safetensors", name));
    json_decref(j);
    free(from), free(config), free(weights);
}
// The case that has one.
static inline const json_t *case_with_adapter(void) {
    const json_t *one;
    size_t k;
    json_array_foreach(json_object_get(golden, "cases"), k, one) if (json_object_get(one, "adapter")) return one;
    fail_msg("no case has an adapter");
    return NULL;
}

// Relative to 1 where the number is smaller.
static inline double off_by(double got, double want) { return fabs(got - want) / fmax(1, fabs(want)); }
