// From a question and a text to the ids that a reward model reads: as a conversation of two turns through its own chat
// template, as TRL's RewardTrainer prepares its rows.
#include "scored_text.h"
#include "chat.h"
#include <string.h>

bool scored_text_open(ScoredText *t, const char *chosen, const char *dir, const HfConfig *hf, const Tokenizer *tok,
                      Error *e) {
    *t = (ScoredText){.tokenizer = tok, .pad = hf->dims.padded ? hf->dims.pad : -1};
    if (!hf_tokenizer_fits(hf, dir, tok, e)) return false;
    if (strcmp(chosen, "raw")) return chat_template_choose(chosen, tokenizer_path(tok), &t->template, e);
    t->end = hf->n_eos ? hf->eos[0] : -1;
    return hf->n_eos ||
           error_set(e, EXIT_INPUT,
                     "%s: no eos_token_id in generation_config.json or config.json; without it no text ends", dir);
}

// Leaves the ids up to the last that is not the padding; the first where all are.
static void cut(const ScoredText *t, Ids *ids) {
    while (ids->n > 1 && ids->id[ids->n - 1] == t->pad) ids->n--;
    if (ids->n && ids->id[ids->n - 1] == t->pad) ids->n = 1;
}

bool scored_messages_ids(const ScoredText *t, const json_t *messages, const json_t *tools, Ids *out, Error *e) {
    Str text = {0};
    ids_clear(out);
    bool ok = chat_render(t->template, messages, tools, false, &text, e);
    if (ok) tokenizer_encode(t->tokenizer, text.s ? text.s : "", text.n, true, out);
    str_free(&text);
    cut(t, out);
    return ok && (out->n || error_set(e, EXIT_INPUT, "the conversation is empty"));
}

bool scored_text_ids(const ScoredText *t, const char *question, Text text, Ids *out, Error *e) {
    if (t->template) {
        json_t *said = json_stringn_nocheck(text.s, text.n);
        json_t *messages = json_pack("[{s:s, s:o}, {s:s, s:o}]", "role", "user", "content",
                                     json_string_nocheck(question), "role", "assistant", "content", said);
        bool ok = scored_messages_ids(t, messages, NULL, out, e);
        json_decref(messages);
        return ok;
    }
    Str all = {0};
    str_puts(&all, question);
    str_add(&all, text.s, text.n);
    ids_clear(out);
    tokenizer_encode_raw(t->tokenizer, all.s, all.n, out);
    str_free(&all);
    if (!out->n || out->id[out->n - 1] != t->end) ids_add(out, t->end);
    cut(t, out);
    return true;
}
