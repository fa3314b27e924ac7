// A reward model of tests/golden/reward_model.json as a directory: weights by the formula of tools/golden_model.py, the
// tokenizer of models/tiny.
#pragma once
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

// Relative to 1 where the number is smaller.
static inline double off_by(double got, double want) { return fabs(got - want) / fmax(1, fabs(want)); }
