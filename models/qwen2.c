// Qwen2 and Qwen2.5: the projections to q, k and v have a bias.
#include "params.h"

static const ParamSpec params[] = {
    PARAM_MATRICES,
    PARAM_NORM1,
    PARAM_BIAS("model.layers.%d.self_attn.q_proj.bias", SYM_HD, false),
    PARAM_BIAS("model.layers.%d.self_attn.k_proj.bias", SYM_KD, true),
    PARAM_BIAS("model.layers.%d.self_attn.v_proj.bias", SYM_KD, true),
    PARAM_NORM2,
    PARAM_FINAL_NORM,
};

const Family qwen2_family = {
    .model_type = "qwen2",
    .architecture = "Qwen2ForCausalLM",
    .scoring = "Qwen2ForSequenceClassification",
    .published = "Qwen2.5",
    FAMILY_PARAMS(params),
    .kv_heads = 32,
    .max_positions = 32768,
    .bos = -1,
    .eos = -1,
};
