// Writes what a model directory says of conversations: the chat template, and the ids that end a text. A checkpoint
// gets those of its run, so that other programs prompt the model, and stop it, as it was trained.
#include "chat.h"
#include "hf.h"
#include "json.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static json_t *json_beside(const char *dir, const char *name, Error *e) {
    char *path = xasprintf("%s/%s", dir, name);
    struct stat info;
    json_t *j = stat(path, &info) ? json_object() : json_read(path, e); // a directory need not have it
    free(path);
    return j;
}

static bool put_json(OutDir *out, const char *name, const json_t *j, Error *e) {
    Str text = {0};
    json_write(&text, j, JSON_LINES);
    bool ok = outdir_put(out, name, text.s, text.n, e);
    str_free(&text);
    return ok;
}

static bool write_ends(OutDir *out, const char *dir, const HfVoice *v, const HfConfig *source, Error *e) {
    json_t *j = json_beside(dir, "generation_config.json", e), *list = json_array();
    if (!j) return false;
    for (int i = 0; i < v->n_eos; i++) json_array_append_new(list, json_integer(v->eos[i]));
    json_object_set_new(j, "eos_token_id", list);
    if (source->pad >= 0) json_object_set_new(j, "pad_token_id", json_integer(source->pad));
    if (source->bos >= 0) json_object_set_new(j, "bos_token_id", json_integer(source->bos));
    bool ok = put_json(out, "generation_config.json", j, e);
    json_decref(j);
    return ok;
}

// Writes the template into both files that may have it: transformers reads chat_template.jinja first, older releases
// know tokenizer_config.json alone.
static bool write_template(OutDir *out, const char *dir, const HfVoice *v, Error *e) {
    json_t *j = json_beside(dir, "tokenizer_config.json", e);
    if (!j) return false;
    char *jinja = chat_jinja(v->template);
    bool ok = outdir_put(out, "chat_template.jinja", jinja, strlen(jinja), e);
    if (ok && json_object_size(j)) {
        json_object_set_new(j, "chat_template", json_string(jinja));
        ok = put_json(out, "tokenizer_config.json", j, e);
    }
    free(jinja);
    json_decref(j);
    return ok;
}

bool hf_voice_write(OutDir *out, const char *source_dir, const HfVoice *v, HfVoiceFiles *written, Error *e) {
    HfConfig source;
    const char *own;
    char *unknown, *tokenizer = xasprintf("%s/tokenizer.json", source_dir);
    bool ok = hf_config_read(source_dir, &source, e) && chat_template_of(tokenizer, &own, &unknown, e);
    free(tokenizer);
    if (!ok) return false;
    free(unknown);
    *written = (HfVoiceFiles){.templates = v->template && (!own || strcmp(own, v->template))};
    for (int i = 0; i < v->n_eos; i++) {
        int at = 0;
        while (at < source.n_own && source.own[at] != v->eos[i]) at++;
        written->ends |= at == source.n_own;
    }
    return (!written->templates || write_template(out, source_dir, v, e)) &&
           (!written->ends || write_ends(out, source_dir, v, &source, e));
}
