// Qwen3's dense models: no bias; each query and key head gets an RMSNorm before the rotary embedding.
#include "params.h"

static const ParamSpec params[] = {
    PARAM_MATRICES,
    PARAM_NORM1,
    PARAM_NORM("model.layers.%d.self_attn.q_norm.weight", SYM_HEAD, true),
    PARAM_NORM("model.layers.%d.self_attn.k_norm.weight", SYM_HEAD, true),
    PARAM_NORM2,
    PARAM_FINAL_NORM,
};

const Family qwen3_family = {
    .model_type = "qwen3",
    .architecture = "Qwen3ForCausalLM",
    .scoring = "Qwen3ForSequenceClassification",
    .published = "Qwen3",
    FAMILY_PARAMS(params),
    .head_dim = 128,
    .kv_heads = 32,
    .max_positions = 32768,
    .bos = -1,
    .eos = -1,
    .bias_switches = {"attention_bias"},
};
