// config.json and generation_config.json of a Qwen2.5 model directory. What the engine would compute differently from
// transformers is refused here, with the reason, before any weight is read.
#include "hf.h"
#include "file.h"
#include "json.h"
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <stdint.h>
#include <string.h>

// Reads fields one after another; the first problem stays in *e and makes ok false.
typedef struct {
    const json_t *j;
    const char *path;
    Error *e;
    bool ok;
} Fields;

#define refuse(f, ...)                                                                                                 \
    do {                                                                                                               \
        if ((f)->ok) (f)->ok = error_set((f)->e, EXIT_INPUT, __VA_ARGS__);                                             \
    } while (0)

static const json_t *field(const Fields *f, const char *name) {
    const json_t *v = json_object_get(f->j, name);
    return json_is_null(v) ? NULL : v;
}

// A whole number in [low, high]. `fallback` stands for an absent one; < 0: it must be there.
static int int_field(Fields *f, const char *name, int64_t low, int64_t high, int fallback) {
    const json_t *v = field(f, name);
    if (!v && fallback >= 0) return fallback;
    if (!v) refuse(f, "%s: \"%s\" is missing; take the config.json that came with the weights", f->path, name);
    else if (!json_is_integer(v)) refuse(f, "%s: \"%s\" is not a whole number", f->path, name);
    else if (json_integer_value(v) < low || json_integer_value(v) > high)
        refuse(f, "%s: \"%s\" is %lld, outside %lld..%lld; the file is damaged or not for this program", f->path, name,
               (long long)json_integer_value(v), (long long)low, (long long)high);
    else return (int)json_integer_value(v);
    return 1;
}

static float positive_field(Fields *f, const char *name, double fallback) {
    const json_t *v = field(f, name);
    if (!v) return (float)fallback;
    double x = json_number_value(v);
    if (json_is_number(v) && x > 0 && isfinite((float)x) && (float)x > 0) return (float)x;
    refuse(f, "%s: \"%s\" is not a positive number", f->path, name);
    return (float)fallback;
}

static bool bool_field(Fields *f, const char *name) {
    const json_t *v = field(f, name);
    if (v && !json_is_boolean(v)) refuse(f, "%s: \"%s\" is not true or false", f->path, name);
    return json_is_true(v);
}

// A field that, where present, must be this string.
static void text_must_be(Fields *f, const char *name, const char *text, const char *why) {
    const json_t *v = field(f, name);
    if (!v) return;
    const char *s = json_text(v);
    if (!s) refuse(f, "%s: \"%s\" is not a string without NUL", f->path, name);
    else if (strcmp(s, text)) refuse(f, "%s: \"%s\" is \"%.64s\", not \"%s\": %s", f->path, name, s, text, why);
}

// A list that, where present, holds strings that are all `text`.
static void list_must_be(Fields *f, const char *name, const char *text, const char *why) {
    const json_t *list = field(f, name), *item;
    if (!list) return;
    if (!json_is_array(list)) refuse(f, "%s: \"%s\" is not a list", f->path, name);
    size_t i;
    json_array_foreach(list, i, item) {
        const char *s = json_text(item);
        if (!s || strcmp(s, text))
            refuse(f, "%s: \"%s\" holds %s%.64s%s, not \"%s\": %s", f->path, name, s ? "\"" : "", s ? s : "no string",
                   s ? "\"" : "", text, why);
    }
}

static void rope_must_be_plain(Fields *f) {
    const char *why = "scaled rotary embeddings are not supported; set it to null to use the model up to its "
                      "trained length";
    text_must_be(f, "rope_type", "default", why);
    text_must_be(f, "type", "default", why);
    if (positive_field(f, "partial_rotary_factor", 1) != 1)
        refuse(f, "%s: \"partial_rotary_factor\" is not 1: partial rotary embeddings are not supported", f->path);
    const char *layers;
    json_t *value;
    json_object_foreach((json_t *)f->j, layers, value) if (json_is_object(value))
        refuse(f, "%s: rotary parameters of \"%.64s\" alone: layers that differ are not supported", f->path, layers);
}

// An object of config.json; absent, null or empty: NULL.
static const json_t *object_field(Fields *f, const char *name) {
    const json_t *v = field(f, name);
    if (v && !json_is_object(v)) refuse(f, "%s: \"%s\" is not an object", f->path, name);
    return json_object_size(v) ? v : NULL;
}

// rope_parameters (transformers 5), unless there is a rope_scaling (transformers 4), which replaces it whole, theta included;
// a theta beside them counts where theirs is absent.
static void rope_fields(Fields *f, ModelDims *n) {
    const json_t *scaling = object_field(f, "rope_scaling"), *parameters = object_field(f, "rope_parameters");
    Fields rope = {scaling ? scaling : parameters, f->path, f->e, f->ok};
    if (rope.j) rope_must_be_plain(&rope);
    f->ok = rope.ok;
    if (positive_field(f, "partial_rotary_factor", 1) != 1)
        refuse(f, "%s: \"partial_rotary_factor\" is not 1: partial rotary embeddings are not supported", f->path);
    n->rope_theta = positive_field(f, "rope_theta", 10000); // transformers' default
    n->rope_theta = positive_field(&rope, "rope_theta", (double)n->rope_theta);
    f->ok = f->ok && rope.ok;
    double unread = scaling ? json_number_value(json_object_get(parameters, "rope_theta")) : 0;
    static bool said; // a config.json is read again at every save
    if (!f->ok || unread == 0 || (float)unread == n->rope_theta || said) return;
    said = true;
    note(
        "%s: \"rope_scaling\" stands beside \"rope_parameters\" and, as in transformers, replaces it: theta is %g, not "
        "%g; take \"rope_scaling\" out, or write \"rope_theta\" into it",
        f->path, (double)n->rope_theta, unread);
}

// What would make transformers compute something else than this engine.
static void unsupported_fields(Fields *f) {
    const json_t *type = field(f, "model_type");
    if (!type) refuse(f, "%s: \"model_type\" is missing; this must be the config.json of a Qwen2.5 model", f->path);
    text_must_be(f, "model_type", "qwen2", "only Qwen2 and Qwen2.5 models are supported");
    list_must_be(f, "architectures", "Qwen2ForCausalLM", "only causal language models are supported");
    text_must_be(f, "hidden_act", "silu", "the MLP computed here is SwiGLU");
    list_must_be(f, "layer_types", "full_attention", "sliding windows are not supported");
    if (bool_field(f, "use_sliding_window"))
        refuse(f,
               "%s: \"use_sliding_window\" is true: sliding windows are not supported; set it to false if your "
               "sequences are shorter than the window",
               f->path);
    if (bool_field(f, "use_mrope"))
        refuse(f, "%s: \"use_mrope\" is true: multimodal rotary embeddings are not supported", f->path);
    if (field(f, "quantization_config"))
        refuse(f, "%s: \"quantization_config\": quantised models are not supported; take the bf16 weights", f->path);
    const json_t *dropout = field(f, "attention_dropout");
    if (dropout && json_number_value(dropout) != 0)
        refuse(f, "%s: \"attention_dropout\" is not 0: there is no dropout here; set it to 0", f->path);
}

static void dims_fields(Fields *f, ModelDims *n) {
    n->V = int_field(f, "vocab_size", 1, 1 << 24, -1);
    n->D = int_field(f, "hidden_size", 1, 1 << 17, -1);
    n->F = int_field(f, "intermediate_size", 1, 1 << 20, -1);
    n->L = int_field(f, "num_hidden_layers", 1, 4096, -1);
    n->H = int_field(f, "num_attention_heads", 1, 4096, -1);
    n->K = int_field(f, "num_key_value_heads", 1, 4096, n->H);
    n->max_positions = int_field(f, "max_position_embeddings", 1, 1 << 28, 32768); // transformers' default
    n->rms_eps = positive_field(f, "rms_norm_eps", 1e-6);                          // the same
    n->tied = bool_field(f, "tie_word_embeddings");
    if (n->H % n->K)
        refuse(f, "%s: \"num_attention_heads\" (%d) is not a multiple of \"num_key_value_heads\" (%d)", f->path, n->H,
               n->K);
    if (!field(f, "head_dim") && n->D % n->H)
        refuse(f, "%s: \"hidden_size\" (%d) is not a multiple of \"num_attention_heads\" (%d)", f->path, n->D, n->H);
    n->d = int_field(f, "head_dim", 2, 1 << 17, n->D / n->H);
    if (n->d % 2 || n->d < 2 || n->d > HEAD_MAX)
        refuse(f, "%s: heads of size %d: it must be even (rotary embeddings turn pairs), and at most %d", f->path, n->d,
               HEAD_MAX);
    if (f->ok && model_param_count(*n) > (int64_t)1 << 40)
        refuse(f, "%s: these sizes make %lld parameters, more than any machine holds; the file is damaged", f->path,
               (long long)model_param_count(*n));
}

// An id field: absent or null leaves *id alone; -1 is how some files say that there is none.
static void id_field(Fields *f, const char *name, int vocab, int32_t *id) {
    if (field(f, name)) *id = int_field(f, name, -1, vocab - 1, -1);
}

// The row of the embedding that gets no gradient: torch's padding_idx, which transformers sets to config.json's
// pad_token_id (not to generation_config.json's); there -1 is the last row.
static void padding_field(Fields *f, ModelDims *n) {
    int32_t id = 0;
    id_field(f, "pad_token_id", n->V, &id);
    n->padded = field(f, "pad_token_id") != NULL;
    n->pad = id < 0 ? n->V - 1 : id;
}

// eos_token_id: a number or a list of numbers; where absent, what is there stays.
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
    unsupported_fields(&f);
    rope_fields(&f, &out->dims);
    dims_fields(&f, &out->dims);
    if (f.ok) token_fields(&f, out);
    if (f.ok) padding_field(&f, &out->dims);
    json_decref(j);
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

// What stands where a model directory should, and what to do.
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

bool hf_config_read(const char *dir, HfConfig *out, Error *e) {
    *out = (HfConfig){.pad = -1, .bos = -1};
    struct stat s;
    if (stat(dir, &s) || !S_ISDIR(s.st_mode)) return no_directory(dir, e);
    char *config = xasprintf("%s/config.json", dir), *generation = xasprintf("%s/generation_config.json", dir);
    bool ok = config_fields(config, out, e) && generation_fields(generation, out, e);
    free(config);
    free(generation);
    return ok;
}
