// Turns a row of a supervised file into token ids: a prompt and its completion, or a conversation with its tools.
#include "example.h"
#include "chat.h"
#include <stdlib.h>
#include <string.h>

// Marks the ids from `first` on as learned or not.
static void example_mark(Example *x, size_t first, bool wanted) {
    if (x->ids.n > x->cap) x->wanted = xrealloc(x->wanted, x->cap = x->ids.n * 2);
    memset(x->wanted + first, wanted, x->ids.n - first);
}

static void example_add(Example *x, const Tokenizer *t, const char *text, size_t n, bool special, bool wanted) {
    size_t first = x->ids.n;
    tokenizer_encode(t, text, n, special, &x->ids);
    example_mark(x, first, wanted);
}

// Adds a text of which the spans `said`, the assistant's words, are learned. Each span is tokenized by itself, since
// the model, too, will answer from a token boundary.
static void example_add_said(Example *x, const Tokenizer *t, const Str *text, const ChatSpans *said) {
    size_t at = 0;
    for (size_t k = 0; k < said->n; k++) {
        ChatSpan s = said->item[k];
        example_add(x, t, text->s + at, s.begin - at, true, false);
        example_add(x, t, text->s + s.begin, s.end - s.begin, true, true);
        at = s.end;
    }
}

static void example_end(Example *x, int32_t eos) {
    ids_add(&x->ids, eos);
    example_mark(x, x->ids.n - 1, true);
}

// The id that ends a completion. If its text already ends in one of the run's end tokens (perhaps with the newline that
// templates write after it), that is the one, and its text is cut off (*n); else it is the run's first end.
static int32_t completion_end(const Prompter *p, const char *completion, size_t *n) {
    int32_t end = p->hf->eos[0];
    size_t trimmed = *n;
    while (trimmed && completion[trimmed - 1] == '\n') trimmed--;
    for (int i = 0; i < p->hf->n_eos; i++) {
        Str text = {0};
        tokenizer_decode(p->tokenizer, &p->hf->eos[i], 1, false, &text);
        bool ends = text.n && text.n <= trimmed && !memcmp(completion + trimmed - text.n, text.s, text.n);
        if (ends) end = p->hf->eos[i], *n = trimmed - text.n;
        str_free(&text);
        if (ends) break;
    }
    return end;
}

// Adds the prompt through the chat template (or as it is), then the completion and the token that ends an answer. The
// two are tokenized separately, as they will be when the model answers.
static bool read_pair(const Prompter *p, const json_t *row, Example *x, Error *e) {
    const Config *c = p->cfg;
    const char *prompt = json_string_value(json_object_get(row, c->prompt_field));
    const char *completion = json_string_value(json_object_get(row, c->completion_field));
    size_t n = strlen(completion);
    if (!prompter_ids(p, prompt, &x->ids, e)) return false;
    example_mark(x, 0, false);
    int32_t end = completion_end(p, completion, &n);
    example_add(x, p->tokenizer, completion, n, false, true);
    example_end(x, end);
    return true;
}

// Adds a conversation, with the row's tools. Every turn of the assistant is learned, with the token that ends it; what
// follows the last of them is left out. Where the template ends turns without a token, the last answer is followed by
// the token that ends sampling, as a completion is.
static bool read_messages(const Prompter *p, const json_t *row, Example *x, Error *e) {
    const char *template = p->template;
    Str text = {0};
    ChatSpans said = {0};
    bool ok = template || chat_template_choose(p->cfg->chat_template, tokenizer_path(p->tokenizer), &template, e);
    const json_t *messages = json_object_get(row, p->cfg->messages_field);
    ok = ok && chat_render_said(template, messages, json_object_get(row, "tools"), false, &said, &text, e);
    if (ok && !strcmp(json_string_value(json_object_get(json_array_get(messages, 0), "role")), "assistant"))
        ok = error_set(e, EXIT_INPUT, "messages[0] is of the assistant: nothing comes before it to answer");
    if (ok && !said.n) ok = error_set(e, EXIT_INPUT, "no message of the assistant: there is nothing to learn");
    if (ok) {
        example_add_said(x, p->tokenizer, &text, &said);
        const char *end = chat_end_of_turn(template);
        if (!end || tokenizer_id(p->tokenizer, end) < 0) example_end(x, p->hf->eos[0]);
    }
    free(said.item);
    str_free(&text);
    return ok;
}

bool example_read(const Prompter *p, const json_t *row, Example *x, Error *e) {
    ids_clear(&x->ids);
    return json_object_get(row, p->cfg->messages_field) ? read_messages(p, row, x, e) : read_pair(p, row, x, e);
}

RowFate example_check(const void *prompter, const Row *row, Error *e) {
    Example x = {0};
    bool ok = example_read(prompter, row->example, &x, e);
    example_free(&x);
    return ok ? ROW_GOOD : ROW_BAD;
}

bool example_cut(Example *x, int64_t max) {
    if ((int64_t)x->ids.n > max) x->ids.n = (size_t)max;
    for (size_t j = 1; j < x->ids.n; j++)
        if (x->wanted[j]) return true;
    return false;
}

void example_free(Example *x) {
    ids_free(&x->ids);
    free(x->wanted);
    *x = (Example){0};
}
