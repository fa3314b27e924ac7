// Llama 3.x, and models of the same structure (SmolLM2): no bias, no norms but the two of each layer.
#include "params.h"

static const ParamSpec params[] = {
    PARAM_MATRICES,
    PARAM_NORM1,
    PARAM_NORM2,
    PARAM_FINAL_NORM,
};

const Family llama_family = {
    .model_type = "llama",
    .architecture = "LlamaForCausalLM",
    .scoring = "LlamaForSequenceClassification",
    .published = "Llama 3, SmolLM2",
    FAMILY_PARAMS(params),
    .max_positions = 2048,
    .bos = 1,
    .eos = 2,
    .bias_switches = {"attention_bias", "mlp_bias"},
};
