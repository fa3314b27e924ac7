// Takes what a model directory says of conversations: the chat template, and the ids that end a text. A checkpoint
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

static void put_json(HfFiles *f, const char *name, const json_t *j) {
    Str text = {0};
    json_write(&text, j, JSON_LINES);
    hf_files_put(f, name, text.s, text.n);
    str_free(&text);
}

static bool take_ends(HfFiles *f, const char *dir, const HfVoice *v, const HfConfig *source, Error *e) {
    json_t *j = json_beside(dir, "generation_config.json", e), *list = json_array();
    if (!j) return false;
    for (int i = 0; i < v->n_eos; i++) json_array_append_new(list, json_integer(v->eos[i]));
    json_object_set_new(j, "eos_token_id", list);
    if (source->pad >= 0) json_object_set_new(j, "pad_token_id", json_integer(source->pad));
    if (source->bos >= 0) json_object_set_new(j, "bos_token_id", json_integer(source->bos));
    put_json(f, "generation_config.json", j);
    json_decref(j);
    return true;
}

// Puts the template into both files that may have it: transformers reads chat_template.jinja first, older releases
// know tokenizer_config.json alone.
static bool take_template(HfFiles *f, const char *dir, const HfVoice *v, Error *e) {
    json_t *j = json_beside(dir, "tokenizer_config.json", e);
    if (!j) return false;
    char *jinja = chat_jinja(v->template);
    hf_files_put(f, "chat_template.jinja", jinja, strlen(jinja));
    if (json_object_size(j)) {
        json_object_set_new(j, "chat_template", json_string(jinja));
        put_json(f, "tokenizer_config.json", j);
    }
    free(jinja);
    json_decref(j);
    return true;
}

bool hf_voice_take(HfFiles *f, const char *source_dir, const HfVoice *v, HfVoiceFiles *taken, Error *e) {
    HfConfig source;
    const char *own;
    char *unknown, *tokenizer = xasprintf("%s/tokenizer.json", source_dir);
    bool ok = hf_config_read(source_dir, &source, e) && chat_template_of(tokenizer, &own, &unknown, e);
    free(tokenizer);
    if (!ok) return false;
    free(unknown);
    *taken = (HfVoiceFiles){.templates = v->template && (!own || strcmp(own, v->template))};
    for (int i = 0; i < v->n_eos; i++) {
        int at = 0;
        while (at < source.n_own && source.own[at] != v->eos[i]) at++;
        taken->ends |= at == source.n_own;
    }
    return (!taken->templates || take_template(f, source_dir, v, e)) &&
           (!taken->ends || take_ends(f, source_dir, v, &source, e));
}
