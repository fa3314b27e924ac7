// A puppet: a model whose next token is chosen, as a directory. What comes next depends on the last token alone: each
// token that leads somewhere has a row of a Hadamard matrix as its embedding, the layers add nothing, and the head of a
// token is the sum of the rows of those that lead to it.
#pragma once
#include "hf.h"
#include "json.h"
#include "model_case.h"
#include "safetensors.h"
#include "scratch.h"

typedef struct {
    const char *from, *to; // tokens as they stand in tokenizer.json
    float logit;           // of `to` behind `from`; that of all others is 0
} Lead;

enum { PUPPET_WIDTH = 128 }; // most different tokens that lead somewhere

static inline int32_t puppet_token(const Tokenizer *t, const char *text) {
    int32_t id = tokenizer_id(t, text);
    if (id < 0) fail_msg("no token %s", text);
    return id;
}

static inline Tensor puppet_param(const Model *m, const char *name) {
    for (int i = 0; i < m->n_params; i++)
        if (!strcmp(m->params[i].name, name)) return m->params[i].t;
    fail_msg("no parameter %s", name);
    return NONE;
}

// Row k of the matrix, element i.
static inline float hadamard(int k, int64_t i) { return __builtin_parity((unsigned)(k & (int)i)) ? -1 : 1; }

static inline void puppet_weights(Model *m, const Tokenizer *t, const Lead *lead, int n) {
    Tensor embed = puppet_param(m, "model.embed_tokens.weight"), head = puppet_param(m, "lm_head.weight");
    int64_t D = embed.dim[1];
    int32_t row[PUPPET_WIDTH];
    int rows = 0;
    assert_int_equal(D, PUPPET_WIDTH);
    for (int p = 0; p < m->n_params; p++)
        for (int64_t i = 0; i < tensor_numel(m->params[p].t); i++)
            tensor_set(m->params[p].t, i, strstr(m->params[p].name, "norm.weight") ? 1 : 0);
    for (int j = 0; j < n; j++) {
        int32_t from = puppet_token(t, lead[j].from), to = puppet_token(t, lead[j].to);
        int k = 0;
        while (k < rows && row[k] != from) k++;
        assert_true(k < PUPPET_WIDTH);
        if (k == rows) row[rows++] = from;
        for (int64_t i = 0; i < D; i++) {
            tensor_set(embed, from * D + i, hadamard(k, i));
            tensor_set(head, to * D + i, tensor_get(head, to * D + i) + hadamard(k, i) * lead[j].logit / (float)D);
        }
    }
}

// at(name): models/tiny's shape, of one layer, with the keys of `patch` (taken over; NULL: none) in config.json; its
// tokenizer, or the one in the file `tokenizer`.
static inline void put_puppet(const char *name, json_t *patch, const char *tokenizer, const Lead *lead, int n) {
    Error e = {0};
    mkdir(at("%s", name), 0777);
    file_copy_to(tokenizer ? tokenizer : "models/tiny/tokenizer.json", at("%s/tokenizer.json", name));
    file_copy_to("models/tiny/tokenizer_config.json", at("%s/tokenizer_config.json", name));
    Tokenizer *t = tokenizer_load(at("%s", name), &e);
    if (!t) fail_msg("%s", e.text);
    json_t *config = json_load_file("models/tiny/config.json", 0, NULL);
    json_object_set_new(config, "tie_word_embeddings", json_false());
    json_object_set_new(config, "num_hidden_layers", json_integer(1)); // of zeros
    json_object_set_new(config, "vocab_size", json_integer(tokenizer_size(t)));
    if (patch) json_object_update(config, patch);
    assert_int_equal(json_dump_file(config, at("%s/config.json", name), 0), 0);
    json_decref(patch);
    json_decref(config);
    HfConfig hf;
    if (!hf_config_read(at("%s", name), &hf, &e)) fail_msg("%s", e.text);
    Model m = model_make(hf.dims, F32, 0);
    puppet_weights(&m, t, lead, n);
    Str all = {0};
    safetensors_header(&all, m.params, m.n_params, NULL, NULL);
    for (int i = 0; i < m.n_params; i++) str_add(&all, (const char *)m.params[i].t.data, tensor_bytes(m.params[i].t));
    put_bytes(at("%s/model.safetensors", name), all.s, all.n);
    str_free(&all);
    model_drop(&m);
    tokenizer_free(t);
}
