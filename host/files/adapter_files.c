// Adapters in PEFT's format, in and out. In memory B is turned ([r,N]); in files it is not.
#include "adapter_files.h"
#include "config.h"
#include "device.h"
#include "fingerprint.h"
#include "hf.h"
#include "hf_fields.h"
#include "safetensors.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char config_name[] = "adapter_config.json", weights_name[] = "adapter_model.safetensors";
static const char base_key[] = "base"; // of the file's __metadata__

bool adapter_is(const char *dir) {
    char *path = xasprintf("%s/%s", dir, config_name);
    bool there = access(path, F_OK) == 0;
    free(path);
    return there;
}

// ---- the config -----------------------------------------------------------------------------------------------------

// Whether a field asks for something: it is there, and is neither null nor false nor empty.
static bool asks_for(const Fields *f, const char *name) {
    const json_t *v = field(f, name);
    if (!v || json_is_false(v)) return false;
    if (json_is_array(v)) return json_array_size(v) > 0;
    return json_is_object(v) ? json_object_size(v) > 0 : true;
}

// Refuses modules that are trained whole, but a reward model's head: PEFT lists that one under both names that heads
// have in its classifiers, whatever the family.
static void whole_modules(Fields *f) {
    const json_t *all = field(f, "modules_to_save"), *one;
    size_t k;
    bool head = !all || json_is_array(all);
    json_array_foreach(all, k, one) {
        const char *name = json_text(one);
        head = head && name && (!strcmp(name, "score") || !strcmp(name, "classifier"));
    }
    if (!head)
        refuse(f,
               "%s: \"modules_to_save\" has others than score: of whole modules only a reward model's head is trained "
               "beside an adapter",
               f->path);
}

static void unsupported(Fields *f) {
    static const char *const others[] = {"use_dora",
                                         "use_qalora",
                                         "fan_in_fan_out",
                                         "lora_bias",
                                         "rank_pattern",
                                         "alpha_pattern",
                                         "layers_to_transform",
                                         "layer_replication",
                                         "target_parameters",
                                         "trainable_token_indices",
                                         "alora_invocation_tokens",
                                         "arrow_config",
                                         "use_bdlora",
                                         "kasa_config",
                                         "velora_config",
                                         "monteclora_config"};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (asks_for(f, others[i]))
            refuse(f, "%s: \"%s\" is set: an adapter of that kind is not computed here", f->path, others[i]);
    text_must_be(f, "bias", "none", "biases stay those of the model");
    whole_modules(f);
    const char *init =
        json_text(field(f, "init_lora_weights")); // some take their start from the model's weights, and change them
    if (init && strcmp(init, "gaussian") && strcmp(init, "orthogonal") && strcmp(init, "eva"))
        refuse(f,
               "%s: \"init_lora_weights\" is \"%.20s\", which may have changed the model's weights too; save the "
               "adapter as "
               "one of the model's own weights (PEFT: path_initial_model_for_weight_conversion)",
               f->path, init);
}

static bool config_read_spec(const char *dir, AdapterSpec *s, Error *e) {
    char *path = xasprintf("%s/%s", dir, config_name);
    json_t *j = json_read(path, e);
    Fields f = {.j = j, .path = path, .e = e, .ok = j != NULL};
    text_must_be(&f, "peft_type", "LORA", "adapters of other methods are not computed here");
    unsupported(&f);
    s->rank = int_field(&f, "r", 1, 4096, -1);
    s->alpha = positive_field(&f, "lora_alpha", 8);
    s->rslora = bool_field(&f, "use_rslora", false);
    json_decref(j);
    free(path);
    return f.ok;
}

// ---- the weights ----------------------------------------------------------------------------------------------------

static bool is_b(const Param *p) { return strstr(p->name, ".lora_B.") != NULL; }

static bool weights_open(SafeTensors *file, const char *dir, Error *e) {
    char *path = xasprintf("%s/%s", dir, weights_name);
    bool ok = safetensors_open(file, path, e);
    free(path);
    return ok;
}

// Whether the file has every parameter of the adapter with its shape, and nothing else. False after filling *e.
static bool weights_match(const SafeTensors *file, const Adapter *a, Error *e) {
    for (int i = 0; i < a->n_params; i++) {
        const Param *p = &a->params[i];
        const FileTensor *t = safetensors_find(file, p->name);
        int64_t rows = p->t.dim[is_b(p)], cols = p->t.dim[!is_b(p)];
        if (!t)
            return error_set(e, EXIT_INPUT,
                             "%s: there is no %s; an adapter here has the same projections in every layer of the model",
                             file->path, p->name);
        bool low_rank =
            t->ndim == 2 && strcmp(p->name, ADAPTER_HEAD); // one dimension is the rank, the other the model's
        if (low_rank && t->dim[is_b(p)] != (uint64_t)p->t.dim[0] && t->dim[!is_b(p)] == (uint64_t)p->t.dim[1])
            return error_set(
                e, EXIT_INPUT, "%s: %s has rank %llu, \"r\" in %s is %lld; take the two files that were saved together",
                file->path, p->name, (unsigned long long)t->dim[is_b(p)], config_name, (long long)p->t.dim[0]);
        if (t->ndim != 2 || t->dim[0] != (uint64_t)rows || t->dim[1] != (uint64_t)cols)
            return error_set(e, EXIT_INPUT,
                             "%s: %s is [%llu,%llu], beside this model it would be [%lld,%lld]: it is an adapter of "
                             "another base; give the model that it was trained beside",
                             file->path, p->name, (unsigned long long)(t->ndim > 0 ? t->dim[0] : 0),
                             (unsigned long long)(t->ndim > 1 ? t->dim[1] : 0), (long long)rows, (long long)cols);
    }
    if (file->n == a->n_params) return true;
    for (int i = 0; i < file->n; i++) {
        bool known = false;
        for (int k = 0; k < a->n_params && !known; k++) known = !strcmp(file->tensor[i].name, a->params[k].name);
        if (!known)
            return error_set(
                e, EXIT_INPUT,
                "%s: tensor %.150s is none that is computed here: adapters stand on the projections of all "
                "layers of this model (q_proj to down_proj)",
                file->path, file->tensor[i].name);
    }
    return true;
}

bool adapter_describe(const char *dir, AdapterSpec *s, Error *e) {
    SafeTensors file;
    *s = (AdapterSpec){0};
    if (!adapter_is(dir) && hf_is_output_dir(dir, e)) return false;
    if (!config_read_spec(dir, s, e) || !weights_open(&file, dir, e)) return false;
    char middle[32];
    bool any = false;
    for (int t = 0; t < N_TARGETS; t++) {
        snprintf(middle, sizeof middle, ".%s.lora_A.weight", lora_target_names[t]);
        for (int i = 0; i < file.n && !s->target[t]; i++) s->target[t] = strstr(file.tensor[i].name, middle) != NULL;
        any |= s->target[t];
    }
    const FileTensor *head = safetensors_find(&file, ADAPTER_HEAD);
    s->scores = head != NULL;
    bool ok = any || error_set(e, EXIT_INPUT,
                               "%s: no tensor of it is the lora_A of a projection (q_proj to down_proj); its first is "
                               "%.100s. Adapters of other parts, lm_head or embed_tokens, are not computed here",
                               file.path, file.n ? file.tensor[0].name : "none");
    if (ok && head && head->ndim == 2 && head->dim[0] != 1)
        ok = error_set(e, EXIT_INPUT, "%s: %s is of %llu labels; a reward model has one, whose value is the score",
                       file.path, ADAPTER_HEAD, (unsigned long long)head->dim[0]);
    safetensors_close(&file);
    return ok;
}

// rows[r,c] as [c,r].
static void turn(float *to, const float *from, int64_t r, int64_t c) {
    for (int64_t i = 0; i < r; i++)
        for (int64_t j = 0; j < c; j++) to[j * r + i] = from[i * c + j];
}

// Turns every B where it lies, from [r,c] as its file has it to [c,r].
static void turn_all(Device *d, const Adapter *a) {
    for (int i = 0; i < a->n_params; i++) {
        Tensor x = a->params[i].t;
        if (!is_b(&a->params[i])) continue;
        float *from = xmalloc(tensor_bytes(x)), *to = xmalloc(tensor_bytes(x));
        d->copy(d, from, x.data, tensor_bytes(x));
        d->sync(d);
        turn(to, from, x.dim[1], x.dim[0]);
        d->copy(d, x.data, to, tensor_bytes(x));
        d->sync(d);
        free(from);
        free(to);
    }
}

// The checksum that a base's text (adapter_beside) has of weights in a dtype, "crc32c 01234567"; NULL: none.
static const char *sum_in(const char *base, const char *dtype) {
    size_t n = strlen(dtype);
    for (const char *s = base; *s; s += strcspn(s, ","), s += strspn(s, ", "))
        if (!strncmp(s, dtype, n) && s[n] == ' ') return s + n + 1;
    return NULL;
}

// Whether both bases are of the same weights, as far as they say: in f32 where both were in f32, else as rounded to
// bf16.
static bool same_base(const SafeTensors *file, const Adapter *a, Error *e) {
    static const char *const dtypes[] = {"f32", "bf16"};
    const char *saved = json_text(json_object_get(file->metadata, base_key));
    for (int i = 0; saved && i < 2; i++) {
        const char *was = sum_in(saved, dtypes[i]), *is = sum_in(a->base, dtypes[i]);
        if (!was || !is) continue;
        return !strncmp(was, is, strlen("crc32c 01234567")) ||
               error_set(e, EXIT_INPUT,
                         "%s: an adapter of another base: it was trained beside weights of %.15s, the model has %.15s "
                         "(in %s); give the model that it was trained beside",
                         file->path, was, is, dtypes[i]);
    }
    return true;
}

bool adapter_read(const char *dir, Device *d, Adapter *a, Error *e) {
    SafeTensors file;
    if (!weights_open(&file, dir, e)) return false;
    TensorCopy *copies = xcalloc((size_t)a->n_params, sizeof *copies);
    bool ok = weights_match(&file, a, e) && same_base(&file, a, e);
    for (int i = 0; ok && i < a->n_params; i++)
        copies[i] = (TensorCopy){&file, safetensors_find(&file, a->params[i].name), a->params[i].t};
    ok = ok && safetensors_copy(d, copies, a->n_params, LOAD_STRICT, e);
    if (ok) turn_all(d, a);
    free(copies);
    safetensors_close(&file);
    return ok;
}

bool adapter_check(const char *dir, ModelDims dims, const AdapterSpec *s, Error *e) {
    SafeTensors file;
    if (!weights_open(&file, dir, e)) return false;
    Arena measure = arena_measure();
    Adapter *a = adapter_carve(&measure, dims, s);
    bool ok = weights_match(&file, a, e);
    adapter_free(a);
    safetensors_close(&file);
    return ok;
}

void adapter_beside(Device *d, const Model *m) {
    char *base = m->adapter->base;
    size_t room = sizeof m->adapter->base;
    int n = snprintf(base, room, "bf16 crc32c %08x", weights_sum_bf16(d, m->slab));
    if (m->dtype == F32) snprintf(base + n, room - (size_t)n, ", f32 crc32c %08x", weights_sum(d, m->slab));
}

char *adapter_model_dir(const char *dir, Error *e) {
    char *path = xasprintf("%s/%s", dir, config_name);
    json_t *j = json_read(path, e);
    const char *model = json_text(json_object_get(j, "base_model_name_or_path"));
    char *found = model && *model && !access(model, R_OK) ? xstrdup(model) : NULL;
    if (j && !found)
        error_set(
            e, EXIT_INPUT,
            "%s: the model that it was trained beside (\"base_model_name_or_path\", %.200s) is no directory here; "
            "`grpo merge` makes one model of both",
            path, model && *model ? model : "not given");
    json_decref(j);
    free(path);
    return found;
}

// ---- writing --------------------------------------------------------------------------------------------------------

uint64_t adapter_bytes(const Adapter *a) { return tensor_bytes(a->slab) + ((uint64_t)1 << 18); }

static bool config_write(OutDir *out, const char *base_model, const AdapterSpec *s, Error *e) {
    json_t *targets = json_array();
    for (int t = 0; t < N_TARGETS; t++)
        if (s->target[t]) json_array_append_new(targets, json_string(lora_target_names[t]));
    bool whole = s->alpha == floor(s->alpha);
    json_t *j = json_pack("{s:s, s:s, s:s, s:i, s:o, s:f, s:o, s:b, s:s, s:b, s:b, s:b}", "peft_type", "LORA",
                          "task_type", s->scores ? "SEQ_CLS" : "CAUSAL_LM", "base_model_name_or_path", base_model, "r",
                          s->rank, "lora_alpha", whole ? json_integer((json_int_t)s->alpha) : json_real(s->alpha),
                          "lora_dropout", 0.0, "target_modules", targets, "use_rslora", s->rslora, "bias", "none",
                          "fan_in_fan_out", false, "init_lora_weights", true, "inference_mode", true);
    if (s->scores) json_object_set_new(j, "modules_to_save", json_pack("[s]", "score"));
    Str text = {0};
    json_write(&text, j, JSON_LINES);
    bool ok = outdir_put(out, config_name, text.s, text.n, e);
    str_free(&text);
    json_decref(j);
    return ok;
}

bool adapter_write(OutDir *out, const char *base_model, Device *d, const Adapter *a, Error *e) {
    if (!config_write(out, base_model, &a->spec, e)) return false;
    Param *shown = xcalloc((size_t)a->n_params, sizeof *shown); // as the file has them
    for (int i = 0; i < a->n_params; i++) {
        const Param *p = &a->params[i];
        shown[i] = *p;
        if (is_b(p)) shown[i].t = tensor2(NULL, F32, p->t.dim[1], p->t.dim[0]);
    }
    Str header = {0};
    safetensors_header(&header, shown, a->n_params, base_key, a->base);
    bool ok = outdir_open(out, weights_name, e) && outdir_write(out, header.s, header.n, e);
    for (int i = 0; ok && i < a->n_params; i++) {
        Tensor x = a->params[i].t;
        float *from = xmalloc(tensor_bytes(x)), *to = xmalloc(tensor_bytes(x));
        d->copy(d, from, x.data, tensor_bytes(x));
        d->sync(d);
        if (is_b(&a->params[i])) turn(to, from, x.dim[0], x.dim[1]);
        ok = device_ok(d, e) && outdir_write(out, is_b(&a->params[i]) ? to : from, tensor_bytes(x), e);
        free(from);
        free(to);
    }
    str_free(&header);
    free(shown);
    return ok && outdir_close(out, e);
}
