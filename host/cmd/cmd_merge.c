// grpo merge: a model and an adapter as one plain model directory, and what rounding makes of it.
#include "adapter_files.h"
#include "commands.h"
#include "device.h"
#include "engine.h"
#include "output.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// Sums of squares: of what the adapter adds, and of what of it the stored weights lack.
typedef struct {
    double change, error;
} Merged;

// w[N,K] += scale b a, of a[r,K] and b turned, [r,N]: summed in f32, rounded once.
static Merged add_product(Tensor w, Tensor a, Tensor b, float scale) {
    int64_t N = w.dim[0], K = w.dim[1], r = a.dim[0];
    double change = 0, error = 0;
    for (int64_t i = 0; i < N; i++)
        for (int64_t k = 0; k < K; k++) {
            float sum = 0, before = tensor_get(w, i * K + k);
            double exact = 0;
            for (int64_t j = 0; j < r; j++) {
                sum += f32(b)[j * N + i] * f32(a)[j * K + k];
                exact += (double)f32(b)[j * N + i] * f32(a)[j * K + k];
            }
            exact *= scale;
            tensor_set(w, i * K + k, before + scale * sum);
            change += exact * exact;
            error += pow(tensor_get(w, i * K + k) - ((double)before + exact), 2);
        }
    return (Merged){change, error};
}

static Tensor on_the_host(Device *d, Tensor x) {
    Tensor h = x;
    h.data = xmalloc(tensor_bytes(x));
    d->copy(d, h.data, x.data, tensor_bytes(x));
    d->sync(d);
    return h;
}

static const Param *adapter_param(const Adapter *a, const char *name) {
    for (int i = 0; i < a->n_params; i++)
        if (!strcmp(a->params[i].name, name)) return &a->params[i];
    die("an adapter without %s", name);
}

// The model's parameter, and the adapter's A and B beside it; NULL: it has none.
static const Param *pair_of(const Adapter *adapter, const Param *w, const Param **b) {
    char name[2][128];
    int stem = (int)strlen(w->name) - (int)strlen(".weight");
    for (int k = 0; k < 2; k++)
        snprintf(name[k], sizeof name[k], "base_model.model.%.*s.lora_%c.weight", stem, w->name, k ? 'B' : 'A');
    for (int i = 0; i < adapter->n_params; i++)
        if (!strcmp(adapter->params[i].name, name[0])) {
            *b = adapter_param(adapter, name[1]);
            return &adapter->params[i];
        }
    return NULL;
}

static Merged merge(Engine *en) {
    Device *d = en->device;
    Merged all = {0};
    const Adapter *adapter = en->policy.adapter;
    for (int i = 0; i < en->policy.n_params; i++) {
        const Param *p = &en->policy.params[i], *b = NULL, *a = pair_of(adapter, p, &b);
        if (!a) continue;
        Tensor w = on_the_host(d, p->t), low = on_the_host(d, a->t), high = on_the_host(d, b->t);
        Merged one = add_product(w, low, high, adapter_scale(&adapter->spec));
        d->copy(d, p->t.data, w.data, tensor_bytes(w));
        d->sync(d);
        all.change += one.change, all.error += one.error;
        free(w.data), free(low.data), free(high.data);
    }
    if (adapter->spec.scores) d->cast(d, en->policy.head, adapter->head);
    return all;
}

ExitCode command_merge(int argc, char **argv, Error *e) {
    Config c;
    if (!config_args(&c, "merge", argc, argv, e)) return e->code;
    Engine en = {0};
    AdapterSpec spec;
    bool ok = adapter_describe(c.adapter, &spec, e) &&
              engine_open(&en, &c, (RunShape){.score_head = spec.scores, .rollout = rollout_shape(1, 1, 1, 1)}, e);
    if (ok) {
        Merged m = merge(&en);
        ok = hf_save(c.merge_output, c.model, en.device, &en.policy, e);
        if (ok)
            printf("%s: %s and %s as one model; of what the adapter adds (norm %.3g), rounding to %s took %.3g %%\n",
                   c.merge_output, c.model, c.adapter, sqrt(m.change), dtype_name(en.policy.dtype),
                   m.change > 0 ? 100 * sqrt(m.error / m.change) : 0.0);
        ok = ok && output_flush(e);
    }
    engine_close(&en);
    config_free(&c);
    return ok ? EXIT_OK : e->code;
}
