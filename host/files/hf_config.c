// Reads config.json and generation_config.json of a model directory. A model that the engine would compute differently
// from transformers is refused here, with the reason, before any weight is read.
#include "hf.h"
#include "file.h"
#include "hf_fields.h"
#include <dirent.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

static const Family *family_field(Fields *f) {
    const char *name = text_field(f, "model_type");
    const Family *family = name ? family_find(name) : NULL;
    if (!field(f, "model_type")) refuse(f, "%s: \"model_type\" is missing; there are %s", f->path, family_names());
    else if (!name) return NULL;
    else if (strstr(name, "moe") || strstr(name, "mixtral"))
        refuse(f, "%s: \"model_type\" is \"%.64s\": mixtures of experts are not supported; there are %s", f->path, name,
               family_names());
    else if (!family)
        refuse(f, "%s: \"model_type\" is \"%.64s\", a family that is not known here; there are %s", f->path, name,
               family_names());
    return family;
}

// Refuses fields with which transformers would compute something else than this engine.
static void unsupported_fields(Fields *f, const Family *family) {
    text_must_be(f, "hidden_act", "silu", "the MLP computed here is SwiGLU");
    list_must_be(f, "layer_types", "full_attention", "sliding windows and other kinds of attention are not supported");
    const json_t *kinds = field(f, "layer_types");
    if (json_is_array(kinds) && (int)json_array_size(kinds) != int_field(f, "num_hidden_layers", 1, 4096, -1))
        refuse(f, "%s: \"layer_types\" has %zu entries, not one for each of \"num_hidden_layers\"", f->path,
               json_array_size(kinds));
    if (bool_field(f, "use_sliding_window", false))
        refuse(f,
               "%s: \"use_sliding_window\" is true: sliding windows are not supported; set it to false if your "
               "sequences are shorter than the window",
               f->path);
    if (bool_field(f, "use_mrope", false))
        refuse(f, "%s: \"use_mrope\" is true: multimodal rotary embeddings are not supported", f->path);
    for (int i = 0; i < 2 && family->bias_switches[i]; i++)
        if (bool_field(f, family->bias_switches[i], false))
            refuse(f, "%s: \"%s\" is true: %s models are computed without these biases", f->path,
                   family->bias_switches[i], family->model_type);
    if (field(f, "quantization_config"))
        refuse(f, "%s: \"quantization_config\": quantised models are not supported; take the bf16 weights", f->path);
    const json_t *dropout = field(f, "attention_dropout");
    if (dropout && (!json_is_number(dropout) || json_number_value(dropout) != 0))
        refuse(f, "%s: \"attention_dropout\" is not 0: there is no dropout here; set it to 0", f->path);
}

// How many labels a classifier has, as transformers counts them.
static int label_count(Fields *f) {
    const json_t *names = field(f, "id2label");
    if (json_is_object(names)) return (int)json_object_size(names);
    return int_field(f, "num_labels", 1, 1 << 20, 2);
}

// Reads which head the model has: a causal language model's, or one that gives a text a score.
static void head_fields(Fields *f, ModelDims *n) {
    const json_t *list = field(f, "architectures"), *item;
    size_t i;
    if (list && !json_is_array(list)) refuse(f, "%s: \"architectures\" is not a list", f->path);
    json_array_foreach(list, i, item) {
        const char *s = json_text(item);
        n->scores = s && !strcmp(s, n->family->scoring);
        if (!s || (!n->scores && strcmp(s, n->family->architecture)))
            refuse(f,
                   "%s: \"architectures\" holds %s%.64s%s, not \"%s\": only causal language models are supported, and "
                   "reward models (\"%s\")",
                   f->path, s ? "\"" : "", s ? s : "no string", s ? "\"" : "", n->family->architecture,
                   n->family->scoring);
    }
    int labels = n->scores && f->ok ? label_count(f) : 1;
    if (labels != 1)
        refuse(f, "%s: a model of %d labels; a reward model has one (\"id2label\" has one entry)", f->path, labels);
}

static void dims_fields(Fields *f, ModelDims *n) {
    n->V = int_field(f, "vocab_size", 1, 1 << 24, -1);
    n->D = int_field(f, "hidden_size", 1, 1 << 17, -1);
    n->F = int_field(f, "intermediate_size", 1, 1 << 20, -1);
    n->L = int_field(f, "num_hidden_layers", 1, 4096, -1);
    n->H = int_field(f, "num_attention_heads", 1, 4096, -1);
    // What null means, transformers does not take from what a missing key means.
    bool as_heads = json_object_get(f->j, "num_key_value_heads") || !n->family->kv_heads;
    n->K = int_field(f, "num_key_value_heads", 1, 4096, as_heads ? n->H : n->family->kv_heads);
    n->max_positions = int_field(f, "max_position_embeddings", 1, 1 << 28, n->family->max_positions);
    n->rms_eps = (float)positive_field(f, "rms_norm_eps", 1e-6); // transformers' default, of every family
    n->tied = bool_field(f, "tie_word_embeddings", false);
    if (n->H % n->K)
        refuse(f, "%s: \"num_attention_heads\" (%d) is not a multiple of \"num_key_value_heads\" (%d%s)", f->path, n->H,
               n->K, as_heads ? "" : ": it is not there, and so many are taken then");
    int head = n->family->head_dim;
    if (!field(f, "head_dim") && !head && n->D % n->H)
        refuse(f, "%s: \"hidden_size\" (%d) is not a multiple of \"num_attention_heads\" (%d)", f->path, n->D, n->H);
    n->d = int_field(f, "head_dim", 2, 1 << 17, head ? head : n->D / n->H);
    if (n->d % 2 || n->d < 2 || n->d > HEAD_MAX)
        refuse(f, "%s: heads of size %d: it must be even (rotary embeddings turn pairs), and at most %d", f->path, n->d,
               HEAD_MAX);
    if (f->ok && model_param_count(*n) > (int64_t)1 << 40)
        refuse(f, "%s: these sizes make %lld parameters, more than any machine holds; the file is damaged", f->path,
               (long long)model_param_count(*n));
}

// Reads a token id into *id. Absent or null leaves *id alone; some files write -1 for "none".
static void id_field(Fields *f, const char *name, int vocab, int32_t *id) {
    if (field(f, name)) *id = int_field(f, name, -1, vocab - 1, -1);
}

// Sets the row of the embedding that gets no gradient: torch's padding_idx, which transformers sets to config.json's
// pad_token_id (not to generation_config.json's). To torch, -1 is the last row.
static void padding_field(Fields *f, ModelDims *n) {
    int32_t id = 0;
    id_field(f, "pad_token_id", n->V, &id);
    n->padded = field(f, "pad_token_id") != NULL;
    n->pad = id < 0 ? n->V - 1 : id;
}

// Reads eos_token_id, a number or a list of numbers; where absent, c->eos stays as it is.
static void eos_field(Fields *f, HfConfig *c) {
    const json_t *v = field(f, "eos_token_id"), *item;
    const size_t most = sizeof c->eos / sizeof *c->eos;
    if (!json_is_array(v)) {
        if (!v) return;
        id_field(f, "eos_token_id", c->dims.V, &c->eos[0]);
        c->n_eos = c->eos[0] >= 0;
        return;
    }
    if (json_array_size(v) > most) {
        refuse(f, "%s: \"eos_token_id\" lists %zu tokens; at most %zu can end a text", f->path, json_array_size(v),
               most);
        return;
    }
    c->n_eos = 0;
    size_t i;
    json_array_foreach(v, i, item) {
        int64_t id = json_is_integer(item) ? json_integer_value(item) : -1;
        if (id < 0 || id >= c->dims.V)
            refuse(f, "%s: \"eos_token_id\" holds something that is not a token id below %d", f->path, c->dims.V);
        c->eos[c->n_eos++] = (int32_t)id;
    }
}

static void token_fields(Fields *f, HfConfig *c) {
    eos_field(f, c);
    id_field(f, "pad_token_id", c->dims.V, &c->pad);
    id_field(f, "bos_token_id", c->dims.V, &c->bos);
    c->n_own = field(f, "eos_token_id") ? c->n_eos : 0;
    memcpy(c->own, c->eos, sizeof c->own);
}

// Reads the dtype of the weights, for messages alone: the option `dtype` decides the type they have in memory.
static void dtype_field(Fields *f, HfConfig *c) {
    const json_t *new = field(f, "dtype"), *old = field(f, "torch_dtype");
    const char *won = text_field(f, new ? "dtype" : "torch_dtype");
    if (won) snprintf(c->dtype, sizeof c->dtype, "%s", won);
    c->dtype_won = new &&old && !json_equal((json_t *)new, (json_t *)old);
}

static json_t *object_read(const char *path, Error *e) {
    json_t *j = json_read(path, e);
    if (!j || json_is_object(j)) return j;
    json_decref(j);
    error_set(e, EXIT_INPUT, "%s: not a JSON object", path);
    return NULL;
}

static bool config_fields(const char *path, HfConfig *out, Error *e) {
    json_t *j = object_read(path, e);
    if (!j) return false;
    Fields f = {j, path, e, true};
    const Family *family = out->dims.family = family_field(&f);
    if (f.ok) {
        unsupported_fields(&f, family);
        head_fields(&f, &out->dims);
        dims_fields(&f, &out->dims);
        rope_fields(&f, &out->dims, out->rope_won, sizeof out->rope_won);
        out->bos = family->bos, out->eos[0] = family->eos, out->n_eos = family->eos >= 0;
    }
    if (f.ok) token_fields(&f, out);
    if (f.ok) padding_field(&f, &out->dims);
    if (f.ok) dtype_field(&f, out);
    json_decref(j);
    static bool said; // a config.json is read again at every save
    if (f.ok && *out->rope_won && !said) {
        said = true;
        note("%s: as in transformers, %s", path, out->rope_won);
    }
    return f.ok;
}

static bool generation_fields(const char *path, HfConfig *out, Error *e) {
    struct stat s;
    if (stat(path, &s)) return true; // a model need not have one
    json_t *j = object_read(path, e);
    if (!j) return false;
    Fields f = {j, path, e, true};
    token_fields(&f, out);
    json_decref(j);
    return f.ok;
}

// Fills *e with what was found in place of a model directory and what the user can do about it. Returns false.
static bool no_directory(const char *dir, Error *e) {
    char head[FILE_HEAD];
    int fd = access(dir, F_OK) ? -1 : file_open(dir, e);
    if (fd < 0 && !access(dir, F_OK)) return false;
    ssize_t n = fd < 0 ? 0 : read(fd, head, sizeof head);
    if (fd >= 0) close(fd);
    if (n > 0 && file_foreign(dir, head, (size_t)n, e)) return false;
    if (fd >= 0) return error_set(e, EXIT_INPUT, "%s: is a file; give the model directory that it lies in", dir);
    const char *slash = strchr(dir, '/');
    bool hub = slash && slash > dir && *dir != '.' && slash[1] && !strchr(slash + 1, '/'); // as owner/name
    return error_set(e, EXIT_INPUT,
                     "%s: there is no such directory; give a model directory as Hugging Face has them (config.json, "
                     "*.safetensors, tokenizer.json)%s%s%s%s",
                     dir, hub ? "; if it is a model on the hub, fetch it first: hf download " : "", hub ? dir : "",
                     hub ? " --local-dir " : "", hub ? dir : "");
}

bool hf_is_output_dir(const char *dir, Error *e) {
    DIR *d = opendir(dir);
    long long newest = -1, step;
    for (struct dirent *entry; d && (entry = readdir(d));) {
        int end = -1;
        if (sscanf(entry->d_name, "step_%18lld%n", &step, &end) == 1 && !entry->d_name[end] && step > newest)
            newest = step;
    }
    if (d) closedir(d);
    return newest >= 0 &&
           !error_set(e, EXIT_INPUT,
                      "%s: is the output_dir of a run; give one of its checkpoints: %s%sstep_%lld is the newest", dir,
                      dir, dir[strlen(dir) - 1] == '/' ? "" : "/", newest);
}

bool hf_tokenizer_fits(const HfConfig *hf, const char *dir, const Tokenizer *t, Error *e) {
    return tokenizer_size(t) <= hf->dims.V ||
           error_set(e, EXIT_INPUT,
                     "%s has ids up to %d, but the model in %s has a vocabulary of %d rows; use the model's own "
                     "tokenizer",
                     tokenizer_path(t), tokenizer_size(t) - 1, dir, hf->dims.V);
}

void hf_scoring(HfConfig *c) {
    int32_t pad = c->pad >= 0 ? c->pad : c->n_eos ? c->eos[0] : -1;
    if (!c->dims.scores && !c->dims.padded && pad >= 0) c->dims.padded = true, c->dims.pad = pad;
    c->dims.scores = true;
}

bool hf_config_read(const char *dir, HfConfig *out, Error *e) {
    *out = (HfConfig){.pad = -1, .bos = -1};
    struct stat s;
    if (stat(dir, &s) || !S_ISDIR(s.st_mode)) return no_directory(dir, e);
    char *config = xasprintf("%s/config.json", dir), *generation = xasprintf("%s/generation_config.json", dir);
    bool ok = (!access(config, F_OK) || !hf_is_output_dir(dir, e)) && config_fields(config, out, e) &&
              generation_fields(generation, out, e);
    free(config);
    free(generation);
    return ok;
}
