// Saves a model as a directory that transformers and vLLM load unchanged.
#include "file.h"
#include "hf.h"
#include "json.h"
#include "safetensors.h"
#include "whole.h"
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <stdio.h>

static const size_t copied_limit = (size_t)256 << 20; // bytes of one file; a tokenizer.json has about 10 MB

// The other files of a model directory; copied where the source has them.
static const char *const copied_files[] = {
    "generation_config.json", "tokenizer.json",      "tokenizer_config.json",   "vocab.json",        "merges.txt",
    "added_tokens.json",      "chat_template.jinja", "special_tokens_map.json", "chat_template.json"};
enum { N_COPIED = sizeof copied_files / sizeof *copied_files };

struct HfFiles {
    struct {
        char *name, *bytes;
        size_t n;
    } file[N_COPIED + 1]; // and config.json
    int n;
    char *source_dir;
};

void hf_files_put(HfFiles *f, const char *name, const char *bytes, size_t n) {
    if (f->n == N_COPIED + 1) die("hf_files_put: %s is one too many", name);
    char *copy = xmalloc(n + 1);
    memcpy(copy, bytes, n);
    f->file[f->n].name = xstrdup(name), f->file[f->n].bytes = copy, f->file[f->n++].n = n;
}

void hf_files_free(HfFiles *f) {
    if (!f) return;
    for (int i = 0; i < f->n; i++) free(f->file[i].name), free(f->file[i].bytes);
    free(f->source_dir);
    free(f);
}

uint64_t hf_bytes(const HfFiles *f, const Model *m) {
    uint64_t bytes = (uint64_t)tensor_bytes(m->slab) + ((uint64_t)1 << 20); // 1 MiB: headers, index
    for (int i = 0; i < f->n; i++) bytes += f->file[i].n;
    return bytes;
}

static bool file_copy(HfFiles *f, const char *name, Error *e) {
    char *path = xasprintf("%s/%s", f->source_dir, name);
    bool ok = true;
    if (access(path, F_OK) == 0) {
        size_t n;
        char *text = file_read(path, copied_limit, &n, e);
        ok = text != NULL;
        if (ok) hf_files_put(f, name, text, n);
        free(text);
    }
    free(path);
    return ok;
}

// Writes the rotary base under both its names: transformers 4 reads "rope_theta" alone and takes 10,000 where it is
// absent, 5 reads "rope_parameters" first. "rope_scaling" is written only where frequencies are scaled, for
// transformers 4; in 5 it replaces "rope_parameters", and both have the same values.
static void rope_write(json_t *j, RopeSpec rope) {
    char text[32];
    int digits = 1; // as few as bring the f32 back: what was read, not 10000.099609375 for 10000.1
    do snprintf(text, sizeof text, "%.*g", digits, (double)rope.theta);
    while (strtof(text, NULL) != rope.theta && ++digits < 10);
    json_t *read = json_object_get(j, "rope_scaling"), *value = json_real(strtod(text, NULL));
    if (!json_object_size(read)) read = json_object_get(j, "rope_parameters");
    json_t *scaling = rope.type == ROPE_DEFAULT ? json_object() : json_copy(read);
    json_object_set_new(scaling, "rope_type", json_string(rope_type_names[rope.type]));
    json_object_del(scaling, "rope_theta");
    if (rope.type == ROPE_DEFAULT) json_object_del(j, "rope_scaling");
    else json_object_set_new(j, "rope_scaling", json_copy(scaling));
    json_object_set(scaling, "rope_theta", value);
    json_object_set_new(j, "rope_parameters", scaling);
    json_object_set_new(j, "rope_theta", value);
}

// Makes of a causal model's config.json that of a classifier with one label, and names the token that pads texts.
static void scoring_write(json_t *j, ModelDims n) {
    json_object_set_new(j, "architectures", json_pack("[s]", n.family->scoring));
    json_object_set_new(j, "id2label", json_pack("{s:s}", "0", "LABEL_0"));
    json_object_set_new(j, "label2id", json_pack("{s:i}", "LABEL_0", 0));
    json_object_del(j, "num_labels");
    if (n.padded) json_object_set_new(j, "pad_token_id", json_integer(n.pad));
}

// Takes the source's config.json with what this engine changed: the dtype of what is saved (transformers 5 writes it
// as "dtype", earlier ones as "torch_dtype"; every release reads both), the rotary base, whether the head is tied.
static bool config_take(HfFiles *f, const Model *m, Error *e) {
    char *path = xasprintf("%s/config.json", f->source_dir);
    json_t *j = json_read(path, e);
    free(path);
    if (!j) return false;
    rope_write(j, m->dims.rope);
    if (json_is_true(json_object_get(j, "tie_word_embeddings")) != m->dims.tied)
        json_object_set_new(j, "tie_word_embeddings", json_boolean(m->dims.tied));
    if (m->dims.scores) scoring_write(j, m->dims);
    const char *key = json_object_get(j, "dtype") ? "dtype" : "torch_dtype";
    json_object_set_new(j, key, json_string(m->dtype == F32 ? "float32" : "bfloat16"));
    if (!strcmp(key, "dtype")) json_object_del(j, "torch_dtype");
    Str text = {0};
    json_write(&text, j, JSON_LINES);
    hf_files_put(f, "config.json", text.s, text.n);
    str_free(&text);
    json_decref(j);
    return true;
}

// Writes one file of weights with params[n].
static bool weights_write(OutDir *out, Device *d, const char *name, const Param *params, int n, Error *e) {
    Str header = {0};
    safetensors_header(&header, params, n, NULL, NULL);
    bool ok = outdir_open(out, name, e) && outdir_write(out, header.s, header.n, e);
    for (int i = 0; ok && i < n; i++) ok = outdir_write_device(out, d, params[i].t.data, tensor_bytes(params[i].t), e);
    str_free(&header);
    return ok && outdir_close(out, e);
}

// One past the last parameter of the shard that begins at `first`.
static int shard_end(const Model *m, int first, size_t shard_bytes) {
    size_t bytes = tensor_bytes(m->params[first].t);
    int end = first + 1;
    while (end < m->n_params && bytes + tensor_bytes(m->params[end].t) <= shard_bytes)
        bytes += tensor_bytes(m->params[end++].t);
    return end;
}

static bool shards_write(OutDir *out, Device *d, const Model *m, size_t shard_bytes, Error *e) {
    int n_shards = 0;
    for (int p = 0; p < m->n_params; p = shard_end(m, p, shard_bytes)) n_shards++;
    if (n_shards == 1) return weights_write(out, d, "model.safetensors", m->params, m->n_params, e);

    json_t *map = json_object();
    size_t total = 0;
    bool ok = true;
    for (int first = 0, end, k = 1; ok && first < m->n_params; first = end, k++) {
        char name[64];
        snprintf(name, sizeof name, "model-%05d-of-%05d.safetensors", k, n_shards);
        end = shard_end(m, first, shard_bytes);
        ok = weights_write(out, d, name, m->params + first, end - first, e);
        for (int p = first; p < end; p++) {
            total += tensor_bytes(m->params[p].t);
            json_object_set_new(map, m->params[p].name, json_string(name));
        }
    }
    json_t *index = json_pack("{s:{s:I},s:o}", "metadata", "total_size", (json_int_t)total, "weight_map", map);
    char *text = json_dumps(index, JSON_INDENT(2));
    ok = ok && outdir_put(out, "model.safetensors.index.json", text, strlen(text), e);
    free(text);
    json_decref(index);
    return ok;
}

// Whether config.json's dims `a` can be those of a model with dims `b`.
static bool same_dims(ModelDims a, ModelDims b) {
    a.tied = a.tied && b.tied; // a head of its own may turn up in the files only: see hf_head_read
    a.scores = b.scores;       // a reward model may have begun as a causal one
    return model_dims_equal(a, b);
}

static bool files_read(HfFiles *f, const HfVoice *v, const Model *m, Error *e) {
    HfConfig config;
    if (!hf_config_read(f->source_dir, &config, e)) return false;
    if (!same_dims(config.dims, m->dims))
        return error_set(
            e, EXIT_INPUT,
            "%s/config.json: describes another model than the one being saved; give the directory the model "
            "came from",
            f->source_dir);
    if (!config_take(f, m, e)) return false;
    HfVoiceFiles taken = {0};
    if (v && !hf_voice_take(f, f->source_dir, v, &taken, e)) return false;
    for (int i = 0; i < N_COPIED; i++) {
        const char *name = copied_files[i];
        bool ends = !strcmp(name, "generation_config.json"), templates = !strcmp(name, "chat_template.jinja");
        templates |= !strcmp(name, "tokenizer_config.json");
        if ((ends && taken.ends) || (templates && taken.templates)) continue;
        if (!file_copy(f, name, e)) return false;
    }
    return true;
}

HfFiles *hf_files_read(const char *source_dir, const HfVoice *v, const Model *m, Error *e) {
    HfFiles *f = xcalloc(1, sizeof *f);
    f->source_dir = xstrdup(source_dir);
    if (files_read(f, v, m, e)) return f;
    hf_files_free(f);
    return NULL;
}

bool hf_write(OutDir *out, const HfFiles *f, Device *d, const Model *m, size_t shard_bytes, Error *e) {
    for (int i = 0; i < f->n; i++)
        if (!outdir_put(out, f->file[i].name, f->file[i].bytes, f->file[i].n, e)) return false;
    return shards_write(out, d, m, shard_bytes, e);
}

// Whether an entry of a directory is one that saving a model makes.
static bool is_ours(const char *name) {
    int k, n, end = -1;
    if (!strcmp(name, "config.json") || !strcmp(name, "model.safetensors") ||
        !strcmp(name, "model.safetensors.index.json"))
        return true;
    if (sscanf(name, "model-%5d-of-%5d.safetensors%n", &k, &n, &end) == 2 && end == (int)strlen(name)) return true;
    for (int i = 0; i < N_COPIED; i++)
        if (!strcmp(name, copied_files[i])) return true;
    return false;
}

// Whether a directory holds a model's config.json, and nothing but regular files that saving a model makes: what else
// is in it would be lost.
static bool is_plain_model(const char *dir, Error *e) {
    HfConfig config;
    if (!hf_config_read(dir, &config, NULL))
        return error_set(e, EXIT_DISK,
                         "%s: is there already and is not a model directory; choose another place or remove it", dir);
    DIR *list = opendir(dir);
    if (!list) return error_set(e, EXIT_DISK, "%s: cannot list the directory: %s", dir, strerror(errno));
    bool ok = true;
    for (struct dirent *d; ok && (d = readdir(list));) {
        struct stat s;
        if (!strcmp(d->d_name, ".") || !strcmp(d->d_name, "..")) continue;
        if (is_ours(d->d_name) && !fstatat(dirfd(list), d->d_name, &s, 0) && S_ISREG(s.st_mode)) continue;
        ok = error_set(e, EXIT_DISK,
                       "%s: is there already and holds %.200s, which is no part of a saved model and would be deleted; "
                       "choose another place, or move it away",
                       dir, d->d_name);
    }
    closedir(list);
    return ok;
}

// Whether a model may be saved at `dir`: it is absent, empty, or a plain model directory other than the source.
static bool replaceable(const char *dir, const char *source_dir, Error *e) {
    struct stat s, source;
    if (lstat(dir, &s)) return errno == ENOENT || error_set(e, EXIT_DISK, "%s: %s", dir, strerror(errno));
    if (!stat(source_dir, &source) && !stat(dir, &s) && s.st_dev == source.st_dev && s.st_ino == source.st_ino)
        return error_set(e, EXIT_DISK, "%s: the model would replace the one it was made from; choose another place",
                         dir);
    return (S_ISDIR(s.st_mode) && rmdir(dir) == 0) || is_plain_model(dir, e);
}

static bool save_at(const char *dir, const char *source_dir, Device *d, const Model *m, Error *e) {
    if (!replaceable(dir, source_dir, e)) return false;
    HfFiles *f = hf_files_read(source_dir, NULL, m, e);
    if (!f) return false;
    OutDir out;
    bool ok = outdir_begin_beside(&out, dir, hf_bytes(f, m), e) && hf_write(&out, f, d, m, HF_SHARD_BYTES, e) &&
              outdir_commit(&out, e);
    outdir_free(&out);
    hf_files_free(f);
    return ok;
}

bool hf_save(const char *dir, const char *source_dir, Device *d, const Model *m, Error *e) {
    size_t n = strlen(dir);
    while (n > 1 && dir[n - 1] == '/') n--;
    char *plain = xstrndup(dir, n), *place = whole_place(plain); // a link to a model stays one
    const char *slash = strrchr(place, '/'), *last = slash ? slash + 1 : place;
    // Another directory comes in the place of what is there: not of one that a shell stands in.
    bool named = strcmp(last, ".") && strcmp(last, "..") && *last;
    bool ok = named ? save_at(place, source_dir, d, m, e)
                    : error_set(e, EXIT_DISK, "%s: a model is saved as a directory of its own; give it a name", dir);
    free(plain), free(place);
    return ok;
}
