// Models: decoder transformers of several families. Their dimensions, parameters and activations; forward, backward,
// and decoding of one token.
//
// A family describes its parameters by a table (models/qwen2.c and its neighbours), and loader, allocator, initialiser,
// optimizer, checkpoint and tests all walk that table.
#pragma once
#include "adapter.h"
#include "ops.h"

// A dimension of a parameter as a symbol, whose value is in ModelDims.
typedef enum { SYM_NONE, SYM_ONE, SYM_V, SYM_D, SYM_F, SYM_HD /* H*d */, SYM_KD /* K*d */, SYM_HEAD /* d */ } Sym;

// Which models have a parameter: all; those whose head over the vocabulary is not the embedding; those that give a text
// one number instead (a reward model).
typedef enum { IN_ALL, IN_UNTIED, IN_SCORING } ParamOf;

typedef struct {
    const char *name; // HF name; "%d" is the layer
    Sym rows, cols;   // cols SYM_NONE: a vector
    bool per_layer;
    bool decay;  // weight decay applies: matrices yes; biases and norms no
    bool joined; // follows the row before it without padding: q,k,v and gate,up are one matrix each
    ParamOf of;
    float init; // standard deviation of a random start; < 0: all ones
} ParamSpec;

// A family: what config.json calls it, its parameters, and the values that transformers 5.24 assumes for keys that
// config.json leaves out. What the table lacks (a bias, the norms of q and k), its models do without.
typedef struct {
    const char *model_type, *architecture; // config.json's words: "qwen2", "Qwen2ForCausalLM"
    const char *scoring;                   // "Qwen2ForSequenceClassification"
    const char *published;                 // the published models it stands for, for messages
    const ParamSpec *params;               // [n_params] decaying rows first, then the others
    int n_params;
    int head_dim;                 // 0: hidden_size / num_attention_heads
    int kv_heads;                 // num_key_value_heads; 0: as many as heads
    int max_positions;            // max_position_embeddings
    int bos, eos;                 // -1: none
    const char *bias_switches[2]; // keys that would add biases the table does not have
} Family;

// Every family, a line each: its file has `const Family NAME_family`.
#define FAMILIES(F)                                                                                                    \
    F(qwen2)                                                                                                           \
    F(qwen3)                                                                                                           \
    F(llama)
#define FAMILY_EXTERN(name) extern const Family name##_family;
FAMILIES(FAMILY_EXTERN)

// The family of a model_type, or NULL. family_names: all of them for a message, "qwen2 (Qwen2.5), ...".
const Family *family_find(const char *model_type);
const char *family_names(void);

typedef struct {
    const Family *family;
    int V, D, F, L, H, K, d; // see tensor.h
    int max_positions;       // longest context the model was made for
    float rms_eps;
    RopeSpec rope;
    bool tied;    // the head is the embedding
    bool scores;  // the head is score.weight[1,D]: a text's score is that of its last token
    bool padded;  // token `pad` learns nothing as an input, as torch's padding_idx
    int pad;      // its id
    int low_rank; // of the adapter that runs beside the model: what its activations need; 0: none
} ModelDims;

typedef struct Param {
    char name[96];         // HF name, layer filled in
    Tensor t;              // view into the slab
    int64_t offset;        // first element in the slab; the same for every dtype
    const ParamSpec *spec; // NULL: an adapter's
    int layer;             // -1: the embedding; L: what comes after the last layer
} Param;

// The weights of a layer as the forward pass uses them; neighbouring parameters (q, k, v; gate, up) as one matrix.
typedef struct {
    Tensor norm1_w, qkv_w, qkv_b, o_w; // [D], [(H+2K)d, D], [(H+2K)d]?, [D, Hd]
    Tensor q_norm, k_norm;             // [d]? [d]?
    Tensor norm2_w, gate_up_w, down_w; // [D], [2F, D], [D, F]
} Layer;

typedef struct {
    ModelDims dims;
    DType dtype;
    Tensor slab;     // [n] all parameters, padding between tensors stays zero
    int64_t n_decay; // elements [0, n_decay) decay, the rest does not
    int n_params;
    Param *params; // [n_params], in slab order
    Layer *layer;  // [L]
    RopeTable rope;
    Tensor embedding, head, final_norm; // [V,D], [V,D] (the embedding where tied; [1,D] where it scores), [D]
    Adapter *adapter;                   // what runs beside it, not its own; NULL: nothing
} Model;

// Parameters as HF counts them (a tied head once, no padding).
int64_t model_param_count(ModelDims dims);
// FLOP of a forward pass: of `rows` tokens through the blocks, in sequences of `context` tokens, and of `head_rows`
// tokens through the head. A backward pass has twice as many.
double model_forward_flop(ModelDims dims, double rows, double context, double head_rows);
// Whether two models' parameters are the same in name and shape. model_dims_text: all of dims as a text, in static
// memory, by which ranks compare their models.
bool model_dims_equal(ModelDims a, ModelDims b);
const char *model_dims_text(ModelDims dims);
// Takes a model's parameters from an arena (data is NULL while measuring); its tables are heap memory, freed by
// model_free, as its adapter is.
Model model_carve(Arena *a, ModelDims dims, DType dtype);
void model_free(Model *m);
// The parameter of that HF name, or NULL.
const Param *model_param(const Model *m, const char *name);

// Takes an adapter's parameters from an arena, as model_carve; heap memory, freed by adapter_free.
Adapter *adapter_carve(Arena *a, ModelDims dims, const AdapterSpec *s);
void adapter_free(Adapter *a);

// What an optimizer changes: the adapter's parameters where there is one, else the model's.
typedef struct {
    Tensor slab;     // [n]
    int64_t n_decay; // as Model's
    int n_params;
    const Param *params; // [n_params]
} Trained;
Trained model_trained(const Model *m);
// Elements [first, end) of a slab.
typedef struct {
    int64_t first, end;
} Span;
// The decaying parameters of a layer (as in Param) in model_trained's slab, where they lie together; together these
// spans are its first n_decay elements. Empty where that has none.
Span model_part(const Model *m, int layer);

// A batch of sequences packed back to back, without padding. All I32 on the device.
typedef struct {
    Tensor ids;    // [T]
    Tensor pos;    // [T] position in its sequence
    Tensor seq;    // [B+1] offsets
    Tensor prefix; // [B]? the sequence that each goes on from: see attention in ops.h
} Packed;

// Which intermediates are stored (and so rounded to the model's dtype), the same on every path:
//   residual stream before each norm, norm outputs, qkv (after the product; where q and k have norms, after these;
//   again after bias + RoPE), attention output, both block outputs, gate_up product, swiglu output, final norm output.
//   f32: rstd, lse, every log-prob. Attention probabilities and logits are never stored.
typedef struct {
    Tensor res1, norm1, rstd1, qkv, att, lse; // [T,D] [T,D] [T] [T,H+2K,d] [T,H,d] [T,H]
    Tensor heads;                             // [T,H+K,d]? q and k before their norms
    Tensor res2, norm2, rstd2, gate_up, mlp;  // [T,D] [T,D] [T] [T,2F]? [T,F]: gate_up where kept, or beside adapters
} LayerActs;

// What a forward pass keeps for the backward one, which computes the rest again by the same kernels: gradients have the
// same bits.
typedef enum {
    KEEP_NOTHING,   // no backward pass
    KEEP_RESIDUALS, // the residual stream before each layer: a layer's intermediates are computed again
    KEEP_PRODUCTS,  // all but norm and swiglu outputs
    KEEP_ALL
} Keep;

typedef struct {
    int64_t capacity;      // tokens
    Keep keep;             // what of each layer is kept for a backward pass
    LayerActs *layer;      // [L]; what is not kept lies in memory that all layers share
    Tensor block;          // [T,D] output of the last o_proj or down_proj
    Tensor final_res;      // [T,D] the final norm's input
    Tensor final_rstd;     // [T]
    Tensor out;            // [T,D] the final norm's output
    Tensor dx;             // [T,D] in: d(loss)/d(out); then the gradient of each norm's output. This one and
    Tensor dres;           // [T,D] those below are present where keep
    Tensor dgate_up, dmlp; // [T,2F] [T,F]
    Tensor dqkv, datt;     // [T,H+2K,d] [T,H,d]
    // Of an adapter's products: before rounding, for a block of rows (absent in f32, where y itself serves); A x, and
    // its gradient.
    Tensor full, low, dlow; // [ADAPTER_ROWS, widest]? [T, 3 rank]? [T, 3 rank]? F32
} Activations;
#define ADAPTER_ROWS 1024

Activations activations_carve(Arena *a, ModelDims dims, DType dtype, int64_t tokens, Keep keep);
void activations_free(Activations *a);

// The KV cache: for each layer [R, 2K, d]; a row is one token's keys and values. The rollout decides which row is
// whose.
typedef struct {
    Tensor kv; // [L, R, 2K, d] as one tensor
    int64_t rows;
} KvCache;
KvCache kv_carve(Arena *a, ModelDims dims, DType dtype, int64_t rows);
Tensor kv_layer(const KvCache *c, int l); // [R, 2K, d]

// Computes the hidden states after the final norm, acts->out[T,D], of packed sequences. With `cache` and kv_row[T]
// (I32) it also stores keys and values there (prefill).
void model_forward(Device *d, const Model *m, Activations *acts, Packed in, const KvCache *cache, Tensor kv_row);
// Whom a backward pass tells that it adds no more to the gradients of a layer (as in Param): L, then L - 1, and so down
// to -1. The ops that add are in the device's stream by then, and need not have run.
typedef struct {
    void (*done)(void *arg, int layer);
    void *arg;
} LayerDone;
// Adds the parameters' gradients to `grad`, given acts->dx = d(loss)/d(out) [T,D], after a model_forward whose
// acts->keep is not KEEP_NOTHING. The head's are there already. Tells of each layer where `told` is not NULL.
// Beside an adapter the gradients are those of grad's adapter, and `grad` itself is a model without memory.
void model_backward(Device *d, const Model *m, Model *grad, Activations *acts, Packed in, const LayerDone *told);
// The score of each hidden state by a reward model's head, score[T,1] F32 of out[T,D]. Beside an adapter the head is
// that one's, in f32.
void model_score(Device *d, const Model *m, Tensor score, Tensor out);
// Sets dx[T,D] = d(loss)/d(out), given dscore[T,1] = d(loss)/d(score) (F32 beside an adapter, else of the model's
// dtype), and adds the head's gradient to `grad`, as model_backward.
void model_score_backward(Device *d, const Model *m, Model *grad, Tensor dx, Tensor dscore, Tensor out);
// Computes acts->out[B,D] for one more token of each sequence: ids[B], pos[B], kv_row[B] and span[B,4] as the op
// rope_decode takes them (ops.h): this token is its span's last key.
void model_decode(Device *d, const Model *m, Activations *acts, Tensor ids, Tensor pos, const KvCache *cache,
                  Tensor kv_row, Tensor span);
