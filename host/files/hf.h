// Model directories as Hugging Face lays them out.
#pragma once
#include "error.h"
#include "model.h"
#include "ops.h"
#include "outdir.h"

// What config.json and generation_config.json say.
typedef struct {
    ModelDims dims;
    int32_t eos[8]; // generation_config.json's, else config.json's, else the family's
    int n_eos;
    int32_t pad, bos;   // -1 where absent
    char dtype[32];     // what config.json says its weights are: "dtype", else "torch_dtype"; empty: nothing
    bool dtype_won;     // "torch_dtype" is there and says something else
    char rope_won[256]; // which key of the rotary embeddings counted, where another one says something else; or empty
} HfConfig;
// Reads both of a model directory; refuses what the engine does not compute (other model types, sliding window in use ...).
bool hf_config_read(const char *dir, HfConfig *out, Error *e);
// Where config.json says that the head is the embedding but the files have a head with other values, it is not: then
// dims->tied becomes false, and a note says so. What transformers decides while it loads; here it decides the memory.
bool hf_head_read(const char *dir, ModelDims *dims, Error *e);
// Fills m->slab (d's memory) from model.safetensors or its shards. Every parameter must be there, with its shape.
bool hf_weights_read(const char *dir, Device *d, Model *m, int load_mode, Error *e);
// The same without reading a value: files, names and shapes. m may be a measured model.
bool hf_weights_check(const char *dir, const Model *m, Error *e);
// What a model directory says of conversations; hf_voice.c writes it where the source says something else.
typedef struct {
    const char *template; // name of the chat template; NULL: the source's own
    const int32_t *eos;   // [n_eos] ids that end a text
    int n_eos;
} HfVoice;
typedef struct {
    bool templates, ends; // chat_template.jinja and tokenizer_config.json; generation_config.json
} HfVoiceFiles;
bool hf_voice_write(OutDir *out, const char *source_dir, const HfVoice *v, HfVoiceFiles *written, Error *e);
// Writes a directory that AutoModelForCausalLM.from_pretrained and vLLM load: config.json and the tokenizer files are
// copied from source_dir (dtype updated), the weights written as m->dtype, in shards of at most 5 GB. Takes the place
// of a model directory at `dir`; refuses to replace anything else.
bool hf_save(const char *dir, const char *source_dir, Device *d, const Model *m, Error *e);
// The same files into a directory being written; `shard_bytes` is the most one file of weights holds (one tensor at
// least). Where `v` is not NULL, they say of conversations what it says. hf_bytes: about what they take.
#define HF_SHARD_BYTES ((size_t)5000000000)
bool hf_write(OutDir *out, const char *source_dir, const HfVoice *v, Device *d, const Model *m, size_t shard_bytes,
              Error *e);
uint64_t hf_bytes(const char *source_dir, const Model *m);
