// Low-rank adapters of a model's projections (LoRA, Hu et al. 2021), as huggingface/peft has them: y = W x + scale B (A
// x). The model's own weights do not change; A and B, and the head of a reward model, are f32, whatever the model's
// dtype.
#pragma once
#include "ops.h"

// PEFT's target modules: name in its files, the product that it belongs to.
#define LORA_TARGETS(T)                                                                                                \
    T(q_proj, "self_attn", PRODUCT_QKV)                                                                                \
    T(k_proj, "self_attn", PRODUCT_QKV)                                                                                \
    T(v_proj, "self_attn", PRODUCT_QKV)                                                                                \
    T(o_proj, "self_attn", PRODUCT_O)                                                                                  \
    T(gate_proj, "mlp", PRODUCT_GATE_UP)                                                                               \
    T(up_proj, "mlp", PRODUCT_GATE_UP)                                                                                 \
    T(down_proj, "mlp", PRODUCT_DOWN)
// "q_proj, k_proj, ... down_proj, ", for help and messages.
#define LORA_TARGET_NAME(name, block, product)  #name ", "
#define LORA_TARGET_NAMES                       LORA_TARGETS(LORA_TARGET_NAME)
#define LORA_TARGET_ENTRY(name, block, product) TARGET_##name,
enum { LORA_TARGETS(LORA_TARGET_ENTRY) N_TARGETS };
extern const char *const lora_target_names[N_TARGETS];

// The products of a layer, whose projections lie side by side.
typedef enum { PRODUCT_QKV, PRODUCT_O, PRODUCT_GATE_UP, PRODUCT_DOWN, N_PRODUCTS } LayerProduct;

typedef struct {
    int rank; // 0: no adapter
    double alpha;
    bool rslora;            // scale = alpha / sqrt(rank) (Kalajdzievski 2023), not alpha / rank
    bool target[N_TARGETS]; // in every layer
    bool scores;            // with the head of a reward model, trained whole (PEFT's modules_to_save)
} AdapterSpec;
#define ADAPTER_HEAD "base_model.model.score.weight" // PEFT's name of that head
float adapter_scale(const AdapterSpec *s);
bool adapter_spec_equal(const AdapterSpec *a, const AdapterSpec *b);

// The adapters of one product. a[R,K]: its projections' A below each other; b: their B, each turned, [r,N]. The one's
// LowRank has x's columns, the other's has y's.
typedef struct {
    Tensor a, b; // NONE: no projection has one
    LowRank in, out;
} ProductAdapter;

typedef struct Adapter {
    AdapterSpec spec;
    char base[64]; // checksums of the weights it is trained beside, see adapter_beside; empty: unknown
    Tensor slab;   // [n] F32, without padding between tensors
    int n_params;
    struct Param *params;                // [n_params] PEFT's names; B is [r,N], in files [N,r]
    ProductAdapter (*layer)[N_PRODUCTS]; // [L]
    Tensor head;                         // [1,D] F32 in the place of the model's own; NONE: none
} Adapter;
