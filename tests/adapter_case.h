// An adapter's parameters beside samples of what PEFT has (tools/golden_lora.py, tools/golden_reward.py).
#pragma once
#include "adapter_files.h"
#include "data.h"
#include "json.h"
#include "near.h"
#include <string.h>

// Element i of a parameter's file, where B is not turned.
static inline double file_element(const Param *p, int64_t i) {
    bool b = strstr(p->name, "lora_B") != NULL;
    int64_t rank = p->t.dim[0], cols = p->t.dim[1];
    return (double)f32(p->t)[b ? i % rank * cols + i / rank : i];
}

// An adapter in its own memory, all zeros. Free with adapter_drop.
static inline Adapter *adapter_make(ModelDims dims, const AdapterSpec *spec) {
    Arena measure = arena_measure();
    adapter_free(adapter_carve(&measure, dims, spec));
    Arena over = arena_over(xcalloc(1, measure.peak), measure.peak);
    return adapter_carve(&over, dims, spec);
}
static inline void adapter_drop(Adapter *a) {
    free(a->slab.data);
    adapter_free(a);
}

// The largest relative L2 error that a parameter's samples have; its norm counts too.
static inline double samples_error(const Adapter *a, const json_t *samples) {
    double worst = 0;
    assert_int_equal(json_object_size(samples), a->n_params);
    for (int p = 0; p < a->n_params; p++) {
        const json_t *s = json_object_get(samples, a->params[p].name), *index = json_object_get(s, "index"), *v;
        double error = 0, norm = 0, all = 0, whole = json_number_value(json_object_get(s, "norm"));
        size_t k;
        assert_non_null(s);
        json_array_foreach(json_object_get(s, "value"), k, v) {
            double x = json_number_value(v);
            error += pow(file_element(&a->params[p], json_integer_value(json_array_get(index, k))) - x, 2);
            norm += x * x;
        }
        for (int64_t i = 0; i < tensor_numel(a->params[p].t); i++) all += pow((double)f32(a->params[p].t)[i], 2);
        worst = worse(worst, worse(sqrt(error / norm), fabs(sqrt(all) - whole) / whole));
    }
    return worst;
}
