// Rows of prompt, chosen and rejected to the ids of two texts, as TRL's RewardTrainer prepares them: conversations
// through the chat template, raw texts one after the other with the token that ends a text.
#include "pairs.h"
#include "json.h"
#include <math.h>
#include <string.h>

// What a field holds as messages of a conversation: its list, or its text as one message of `role`.
static bool add_messages(json_t *all, const json_t *field, const char *role, const char *name, Error *e) {
    if (json_is_array(field)) return json_array_extend(all, (json_t *)(uintptr_t)field), true;
    if (!json_is_written_string(field))
        return error_set(e, EXIT_INPUT, "\"%s\" is neither a text nor a list of messages", name);
    json_t *message = json_object();
    json_object_set_new(message, "role", json_string(role));
    json_object_set(message, "content", (json_t *)(uintptr_t)field);
    json_array_append_new(all, message);
    return true;
}

static bool read_conversation(const PairReader *r, const json_t *row, const char *name, Ids *out, Error *e) {
    const json_t *prompt = json_object_get(row, r->cfg->prompt_field);
    json_t *all = json_array();
    bool ok = (!prompt || add_messages(all, prompt, "user", r->cfg->prompt_field, e)) &&
              add_messages(all, json_object_get(row, name), "assistant", name, e) &&
              scored_messages_ids(&r->text, all, json_object_get(row, "tools"), out, e);
    json_decref(all);
    return ok;
}

static bool read_text(const PairReader *r, const json_t *row, const char *name, Ids *out, Error *e) {
    const json_t *prompt = json_object_get(row, r->cfg->prompt_field), *text = json_object_get(row, name);
    if (r->text.template) return read_conversation(r, row, name, out, e);
    if (!json_is_written_string(text) || (prompt && !json_is_written_string(prompt)))
        return error_set(e, EXIT_INPUT, "\"%s\" is no text; with raw=true all are",
                         json_is_written_string(text) ? r->cfg->prompt_field : name);
    if (prompt && !json_text(prompt))
        return error_set(e, EXIT_INPUT, "\"%s\" holds a NUL character", r->cfg->prompt_field);
    Text t = {json_string_value(text), json_string_length(text)};
    return scored_text_ids(&r->text, prompt ? json_text(prompt) : "", t, out, e);
}

static bool short_enough(const PairReader *r, const char *name, const Ids *ids, Error *e) {
    return (int64_t)ids->n <= r->max ||
           error_set(e, EXIT_INPUT, "\"%s\" has %zu tokens with its prompt, max_length is %lld", name, ids->n,
                     (long long)r->max);
}

bool pair_read(const PairReader *r, const json_t *row, Pair *p, Error *e) {
    const Config *c = r->cfg;
    const json_t *margin = json_object_get(row, "margin");
    if (margin && !json_is_null(margin) && !json_is_number(margin))
        return error_set(e, EXIT_INPUT, "\"margin\" is no number");
    p->margin = json_number_value(margin);
    if (!isfinite((float)p->margin))
        return error_set(e, EXIT_INPUT, "\"margin\" is %g, more than a difference of scores can be", p->margin);
    return read_text(r, row, c->chosen_field, &p->chosen, e) && read_text(r, row, c->rejected_field, &p->rejected, e) &&
           short_enough(r, c->chosen_field, &p->chosen, e) && short_enough(r, c->rejected_field, &p->rejected, e);
}

RowFate pair_check(const void *reader, const Row *row, Error *e) {
    Pair p = {0};
    bool ok = pair_read(reader, row->example, &p, e);
    pair_free(&p);
    return ok ? ROW_GOOD : ROW_BAD;
}

void pair_free(Pair *p) {
    ids_free(&p->chosen);
    ids_free(&p->rejected);
    *p = (Pair){0};
}
