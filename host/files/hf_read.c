// Weights of a model directory: finds every parameter in model.safetensors or its shards, then copies them all.
#include "config.h"
#include "hf.h"
#include "json.h"
#include "safetensors.h"
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

// The files of one model, and in which of them each tensor lies.
typedef struct {
    const char *dir;
    SafeTensors *file; // [n]
    int n;
    json_t *place; // name -> index into `file`
} Shards;

static bool file_exists(const char *dir, const char *name) {
    char *path = xasprintf("%s/%s", dir, name);
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

// Opens dir/name as the next shard.
static bool shard_open(Shards *s, const char *name, Error *e) {
    char *path = xasprintf("%s/%s", s->dir, name);
    s->file = xrealloc(s->file, (size_t)(s->n + 1) * sizeof *s->file);
    bool ok = safetensors_open(&s->file[s->n], path, e);
    if (ok) s->n++;
    free(path);
    return ok;
}

static void shards_close(Shards *s) {
    for (int i = 0; i < s->n; i++) safetensors_close(&s->file[i]);
    free(s->file);
    json_decref(s->place);
}

static bool single_open(Shards *s, Error *e) {
    if (!shard_open(s, "model.safetensors", e)) return false;
    for (int i = 0; i < s->file[0].n; i++) json_object_set_new(s->place, s->file[0].tensor[i].name, json_integer(0));
    return true;
}

// Handles one entry of the weight map: opens its file at the first mention and checks that the tensor is in it.
static bool mapped_open(Shards *s, json_t *opened, const char *index, const char *name, const json_t *file, Error *e) {
    const char *shard = json_text(file);
    if (!shard) return error_set(e, EXIT_INPUT, "%s: the file of \"%.200s\" is not a string without NUL", index, name);
    if (!*shard || strchr(shard, '/') || !strcmp(shard, "..") || !strcmp(shard, "."))
        return error_set(e, EXIT_INPUT, "%s: \"%.200s\" lies in \"%.200s\"; only files beside the index are read",
                         index, name, shard);
    json_t *number = json_object_get(opened, shard);
    if (!number) {
        if (!shard_open(s, shard, e)) return error_prefix(e, "%s names a shard that cannot be used", index);
        number = json_integer(s->n - 1);
        json_object_set_new(opened, shard, number);
    }
    if (!safetensors_find(&s->file[json_integer_value(number)], name))
        return error_set(e, EXIT_INPUT, "%s: tensor \"%.200s\" is not in %s; fetch the index and the shards again",
                         index, name, shard);
    json_object_set(s->place, name, number);
    return true;
}

static bool index_open(Shards *s, Error *e) {
    char *index = xasprintf("%s/model.safetensors.index.json", s->dir);
    json_t *j = json_read(index, e), *map = json_object_get(j, "weight_map"), *opened = json_object();
    bool ok = j != NULL;
    if (ok && !json_is_object(map))
        ok = error_set(e, EXIT_INPUT, "%s: \"weight_map\" is missing or not an object", index);
    const char *name;
    json_t *file;
    if (ok) {
        json_object_foreach(map, name, file) {
            ok = mapped_open(s, opened, index, name, file, e);
            if (!ok) break;
        }
    }
    json_decref(opened);
    json_decref(j);
    free(index);
    return ok;
}

// Adds the tensors that lie in the shards without being named by the index: transformers loads them, too.
static void unmapped_open(Shards *s) {
    for (int i = 0; i < s->n; i++)
        for (int k = 0; k < s->file[i].n; k++) {
            const char *name = s->file[i].tensor[k].name;
            if (!json_object_get(s->place, name)) json_object_set_new(s->place, name, json_integer(i));
        }
}

static bool shards_open(Shards *s, const char *dir, Error *e) {
    *s = (Shards){.dir = dir, .place = json_object()};
    if (file_exists(dir, "model.safetensors")) return single_open(s, e);
    if (file_exists(dir, "model.safetensors.index.json")) {
        if (!index_open(s, e)) return false;
        unmapped_open(s);
        return true;
    }
    const char *other = file_exists(dir, "pytorch_model.bin") || file_exists(dir, "pytorch_model.bin.index.json")
                            ? "it holds pytorch_model.bin, which is not read; convert it: python3 -c \"import sys, "
                              "transformers as t; t.AutoModelForCausalLM.from_pretrained(sys.argv[1])"
                              ".save_pretrained(sys.argv[1])\" and the directory"
                            : "fetch the weights too, or start with init=random";
    return error_set(e, EXIT_INPUT, "%s: no model.safetensors and no model.safetensors.index.json; %s", dir, other);
}

static const FileTensor *shards_find(const Shards *s, const char *name, const SafeTensors **file) {
    const json_t *place = json_object_get(s->place, name);
    if (!place) return NULL;
    *file = &s->file[json_integer_value(place)];
    return safetensors_find(*file, name);
}

static bool same_shape(const FileTensor *from, Tensor to) {
    bool same = from->ndim == to.ndim;
    for (int i = 0; same && i < to.ndim; i++) same = from->dim[i] == (uint64_t)to.dim[i];
    return same;
}

static void add_shape(Str *s, const FileTensor *t) {
    str_puts(s, "[");
    for (int i = 0; i < t->ndim && i < 8; i++) str_printf(s, i ? ",%llu" : "%llu", (unsigned long long)t->dim[i]);
    str_puts(s, t->ndim > 8 ? ",...]" : "]");
}

enum { SHOWN = 4 }; // names listed in an error or a note

static const char embedding[] = "model.embed_tokens.weight", head[] = "lm_head.weight";

// Finds the tensor of every parameter; one error names the first that are missing or have another shape.
static bool copies_plan(const Shards *s, const Model *m, TensorCopy *copies, Error *e) {
    Str missing = {0}, shaped = {0};
    int n_missing = 0, n_shaped = 0;
    for (int i = 0; i < m->n_params; i++) {
        const Param *p = &m->params[i];
        TensorCopy *c = &copies[i];
        *c = (TensorCopy){.to = p->t};
        c->from = shards_find(s, p->name, &c->file);
        // Two names of one tensor: either will do, as in transformers.
        if (!c->from && m->dims.tied && !strcmp(p->name, embedding)) c->from = shards_find(s, head, &c->file);
        if (!c->from) {
            if (n_missing++ < SHOWN) str_printf(&missing, "%s%s", n_missing > 1 ? ", " : "", p->name);
        } else if (!same_shape(c->from, p->t) && n_shaped++ < SHOWN) {
            str_printf(&shaped, "%s%s (", n_shaped > 1 ? ", " : "", p->name);
            add_shape(&shaped, c->from);
            str_printf(&shaped, " in %s at byte %llu, ", strrchr(c->file->path, '/') + 1,
                       (unsigned long long)c->from->begin);
            str_printf(&shaped, p->t.ndim == 1 ? "[%lld] wanted)" : "[%lld,%lld] wanted)", (long long)p->t.dim[0],
                       (long long)p->t.dim[1]);
        }
    }
    bool ok = n_missing == 0 && n_shaped == 0;
    bool only_head = !m->dims.tied && n_missing == 1 && !strcmp(missing.s, head);
    if (!ok)
        error_set(e, EXIT_INPUT,
                  "%s: the weights do not fit config.json: %d missing%s%s%s; %d of another shape%s%s%s; %s", s->dir,
                  n_missing, n_missing ? ": " : "", n_missing ? missing.s : "", n_missing > SHOWN ? ", ..." : "",
                  n_shaped, n_shaped ? ": " : "", n_shaped ? shaped.s : "", n_shaped > SHOWN ? ", ..." : "",
                  only_head ? "if the head is the embedding, set \"tie_word_embeddings\" to true in config.json"
                            : "take config.json and weights from the same model");
    str_free(&missing);
    str_free(&shaped);
    return ok;
}

// Looks at the tensors that no parameter asked for. A head beside tied embeddings must at least have their shape; all
// others are named in one note, as transformers does.
static bool extras_check(const Shards *s, const Model *m, Error *e) {
    int n_extra = 0;
    Str names = {0};
    bool ok = true;
    json_t *known = json_object(), *place;
    for (int i = 0; i < m->n_params; i++) json_object_set_new(known, m->params[i].name, json_null());
    const char *name;
    json_object_foreach(s->place, name, place) {
        if (json_object_get(known, name)) continue;
        const SafeTensors *file = NULL;
        const FileTensor *t = shards_find(s, name, &file);
        if (m->dims.tied && !strcmp(name, head)) { // the same values: see hf_head_read
            if (same_shape(t, model_param(m, embedding)->t)) continue;
            ok = error_set(
                e, EXIT_INPUT,
                "%s: tensor lm_head.weight at byte %llu has another shape than the embedding, but config.json "
                "says that they are one; set \"tie_word_embeddings\" to false if the head is its own",
                file->path, (unsigned long long)t->begin);
            break;
        }
        if (n_extra++ < SHOWN) {
            str_puts(&names, n_extra > 1 ? ", " : "");
            str_json(&names, name, strlen(name));
        }
    }
    if (ok && n_extra)
        note("%s: %d tensors are not part of the model and are ignored: %s%s", s->dir, n_extra, names.s,
             n_extra > SHOWN ? ", ..." : "");
    json_decref(known);
    str_free(&names);
    return ok;
}

bool hf_head_read(const char *dir, ModelDims *dims, Error *e) {
    Shards s;
    bool ok = true, equal = true;
    TensorCopy pair[2] = {0};
    if (!dims->tied || dims->scores) return true;
    // Errors are not reported here: hf_weights_read meets them again.
    if (shards_open(&s, dir, NULL)) {
        pair[0].from = shards_find(&s, embedding, &pair[0].file);
        pair[1].from = shards_find(&s, head, &pair[1].file);
        if (pair[0].from && pair[1].from && pair[0].from->numel == pair[1].from->numel)
            ok = safetensors_equal(&pair[0], &pair[1], &equal, e);
    }
    shards_close(&s);
    if (!ok || equal) return ok;
    dims->tied = false;
    note(
        "%s: config.json says \"tie_word_embeddings\": true, but lm_head.weight is there and is not the embedding: the "
        "head is loaded, trained and saved as its own, as transformers does; set it to false",
        dir);
    return true;
}

// Reads m's parameters. What is none of `known`'s is told of; NULL: nothing is.
static bool weights_read(const char *dir, Device *d, const Model *m, int load_mode, const Model *known, Error *e) {
    Shards s;
    TensorCopy *copies = xcalloc((size_t)m->n_params, sizeof *copies);
    bool ok = shards_open(&s, dir, e) && copies_plan(&s, m, copies, e) && (!known || extras_check(&s, known, e)) &&
              safetensors_copy(d, copies, m->n_params, load_mode, e);
    shards_close(&s);
    free(copies);
    return ok;
}

bool hf_weights_read(const char *dir, Device *d, Model *m, int load_mode, Error *e) {
    return weights_read(dir, d, m, load_mode, m, e);
}

bool hf_weights_read_body(const char *dir, Device *d, Model *m, int load_mode, Error *e) {
    Model body = *m;
    body.params = xcalloc((size_t)m->n_params, sizeof *body.params);
    body.n_params = 0;
    for (int p = 0; p < m->n_params; p++)
        if (m->params[p].spec->of != IN_SCORING) body.params[body.n_params++] = m->params[p];
    bool ok = weights_read(dir, d, &body, load_mode, m, e);
    free(body.params);
    return ok;
}

bool hf_weights_again(const char *dir, Device *d, Model *m, Error *e) {
    return weights_read(dir, d, m, LOAD_STRICT, NULL, e);
}

bool hf_weights_check(const char *dir, const Model *m, Error *e) {
    Shards s;
    TensorCopy *copies = xcalloc((size_t)m->n_params, sizeof *copies);
    bool ok = shards_open(&s, dir, e) && copies_plan(&s, m, copies, e);
    shards_close(&s);
    free(copies);
    return ok;
}
