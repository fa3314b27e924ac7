// The rows that the families' tables share, in the order in which the parameters lie in memory; each table adds its
// own.
#pragma once
#include "model.h"

// clang-format off
//   name                                                rows    cols      layer  decay  joined of         init
#define PARAM_MATRICES \
    {"model.embed_tokens.weight",                        SYM_V,  SYM_D,    false, true,  false, IN_ALL,     0.02f}, \
    {"lm_head.weight",                                   SYM_V,  SYM_D,    false, true,  false, IN_UNTIED,  0.02f}, \
    {"score.weight",                                     SYM_ONE, SYM_D,   false, true,  false, IN_SCORING, 0.02f}, \
    {"model.layers.%d.self_attn.q_proj.weight",          SYM_HD, SYM_D,    true,  true,  false, IN_ALL,     0.02f}, \
    {"model.layers.%d.self_attn.k_proj.weight",          SYM_KD, SYM_D,    true,  true,  true,  IN_ALL,     0.02f}, \
    {"model.layers.%d.self_attn.v_proj.weight",          SYM_KD, SYM_D,    true,  true,  true,  IN_ALL,     0.02f}, \
    {"model.layers.%d.self_attn.o_proj.weight",          SYM_D,  SYM_HD,   true,  true,  false, IN_ALL,     0.02f}, \
    {"model.layers.%d.mlp.gate_proj.weight",             SYM_F,  SYM_D,    true,  true,  false, IN_ALL,     0.02f}, \
    {"model.layers.%d.mlp.up_proj.weight",               SYM_F,  SYM_D,    true,  true,  true,  IN_ALL,     0.02f}, \
    {"model.layers.%d.mlp.down_proj.weight",             SYM_D,  SYM_F,    true,  true,  false, IN_ALL,     0.02f}
#define PARAM_NORM(name, rows, per_layer) {name, rows, SYM_NONE, per_layer, false, false, IN_ALL, -1}
#define PARAM_BIAS(name, rows, joined)    {name, rows, SYM_NONE, true, false, joined, IN_ALL, 0}
#define PARAM_NORM1      PARAM_NORM("model.layers.%d.input_layernorm.weight", SYM_D, true)
#define PARAM_NORM2      PARAM_NORM("model.layers.%d.post_attention_layernorm.weight", SYM_D, true)
#define PARAM_FINAL_NORM PARAM_NORM("model.norm.weight", SYM_D, false)
// clang-format on

#define FAMILY_PARAMS(table) .params = table, .n_params = sizeof(table) / sizeof *(table)
