// Model directories as Hugging Face lays them out.
#pragma once
#include "error.h"
#include "model.h"
#include "ops.h"
#include "outdir.h"
#include "tokenizer.h"

// The contents of config.json and generation_config.json.
typedef struct {
    ModelDims dims;
    int32_t eos[MAX_EOS]; // generation_config.json's, else config.json's, else the family's
    int n_eos;
    int32_t own[MAX_EOS]; // those at which other programs stop: generation_config.json's alone where there is one (it
    int n_own;            // may list none), else config.json's
    int32_t pad, bos;     // -1 where absent
    char dtype[32];       // type of the weights by config.json's "dtype", else "torch_dtype"; empty: neither is there
    bool dtype_won;       // "torch_dtype" is there too, says something else, and was ignored
    char rope_won[256]; // where two keys of the rotary embeddings contradict each other: which one was used; else empty
} HfConfig;
// Reads both files of a model directory; refuses a model that the engine would not compute as transformers does (other
// model types, sliding window in use ...).
bool hf_config_read(const char *dir, HfConfig *out, Error *e);
// Whether `dir` is where a run writes its checkpoints; then *e names the newest of them.
bool hf_is_output_dir(const char *dir, Error *e);
// Whether the model in `dir` has a row for every id of the tokenizer; false after filling *e.
bool hf_tokenizer_fits(const HfConfig *hf, const char *dir, const Tokenizer *t, Error *e);
// Makes of a causal model's configuration that of a model which scores texts, of the same shape. What pads is
// config.json's token, else generation_config.json's, else the one that ends a text.
void hf_scoring(HfConfig *c);
// Sets dims->tied to false, with a note, where config.json says that the head is the embedding but the weight files
// have a head with other values: transformers uses the head then, too. Called before memory is laid out.
bool hf_head_read(const char *dir, ModelDims *dims, Error *e);
// Fills m->slab (d's memory) from model.safetensors or its shards. Every parameter must be there, with its shape.
bool hf_weights_read(const char *dir, Device *d, Model *m, int load_mode, Error *e);
// The same without the head of a model that scores: what is there may be a causal model's.
bool hf_weights_read_body(const char *dir, Device *d, Model *m, int load_mode, Error *e);
// Reads the weights once more, into other memory, from a directory that hf_weights_read has taken: nothing is said
// again of tensors that are not part of the model.
bool hf_weights_again(const char *dir, Device *d, Model *m, Error *e);
// Checks files, names and shapes as hf_weights_read does, but reads no values. m may be a measured model.
bool hf_weights_check(const char *dir, const Model *m, Error *e);
// How a model directory says to hold a conversation; hf_voice.c puts it where the source says something else.
typedef struct {
    const char *template; // name of the chat template; NULL: the source's own
    const int32_t *eos;   // [n_eos] ids that end a text
    int n_eos;
} HfVoice;
typedef struct {
    bool templates, ends; // chat_template.jinja and tokenizer_config.json; generation_config.json
} HfVoiceFiles;
// All files of a model directory but the weights, in memory: what a run saves, however late, is what it began with,
// whatever becomes of the directory meanwhile.
typedef struct HfFiles HfFiles;
// Reads them from the directory that `m` came from; config.json gets the dtype of `m`, its rotary base and its head.
// Where `v` is not NULL the chat template and end ids are those of `v`. NULL after filling *e.
HfFiles *hf_files_read(const char *source_dir, const HfVoice *v, const Model *m, Error *e);
void hf_files_put(HfFiles *f, const char *name, const char *bytes, size_t n);
void hf_files_free(HfFiles *f);
bool hf_voice_take(HfFiles *f, const char *source_dir, const HfVoice *v, HfVoiceFiles *taken, Error *e);
// Writes a directory that AutoModelForCausalLM.from_pretrained and vLLM load: config.json and the tokenizer files are
// copied from source_dir (dtype updated), the weights written as m->dtype, in shards of at most 5 GB. Takes the place
// of a model directory at `dir` that holds nothing else; refuses to replace anything else.
bool hf_save(const char *dir, const char *source_dir, Device *d, const Model *m, Error *e);
// Writes the same files into a directory that is under construction, each file of weights at most `shard_bytes` (but
// one tensor at least). hf_bytes estimates their size.
#define HF_SHARD_BYTES ((size_t)5000000000)
bool hf_write(OutDir *out, const HfFiles *f, Device *d, const Model *m, size_t shard_bytes, Error *e);
uint64_t hf_bytes(const HfFiles *f, const Model *m);
