// From a question to prompt ids: system message, chat template, tokenizer, and the rule for prompts that are too long.
#include "prompt.h"
#include "file.h"
#include "json.h"
#include "jsonl.h"
#include "think.h"
#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

// The system message where none is set: the shipped one; or the template's own words, where they speak of <think> and
// the run has other markers; else NULL, and the template's own words stand.
static bool default_message(const Config *c, const char *template, char **message, Error *e) {
    ThinkMarkers think;
    if (!think_markers_read(&think, c->think_markers.item, c->think_markers.n, e)) return false;
    const char *own = chat_opening(template);
    bool chosen = !strcmp(c->chat_template, template);
    if (!chat_keeps_opening(template, chosen)) *message = think_replace(&think, chat_system_prompt);
    else if (own) {
        *message = think_replace(&think, own);
        if (!strcmp(*message, own)) free(*message), *message = NULL;
    }
    return true;
}

// Adds the example on one line of few_shot_file.
static bool add_example(Prompter *p, const char *text, size_t n, const char *where, Error *e) {
    json_t *j = json_parse(text, n, where, e);
    const char *question = j ? json_field_string(j, "prompt", where, e) : NULL;
    const char *answer = question ? json_field_string(j, "completion", where, e) : NULL;
    if (answer) {
        p->shown = xrealloc(p->shown, (size_t)(p->n_shown + 1) * sizeof *p->shown);
        p->shown[p->n_shown++] = (ChatExample){xstrdup(question), xstrdup(answer)};
    }
    json_decref(j);
    return answer != NULL;
}

static bool read_examples(Prompter *p, Error *e) {
    const Config *c = p->cfg;
    const int most = c->few_shot ? (int)c->few_shot : INT_MAX;
    LineReader r;
    if (!line_reader_open_json(&r, c->few_shot_file, e)) return false;
    char *text;
    size_t n;
    int found = 1;
    bool ok = true;
    while (ok && p->n_shown < most && (found = line_reader_next(&r, &text, &n, e)) > 0) {
        char *where = xasprintf("%s:%lld", c->few_shot_file, (long long)r.line);
        ok = add_example(p, text, n, where, e);
        free(where);
    }
    line_reader_close(&r);
    if (!ok || found < 0) return false;
    if (c->few_shot > p->n_shown)
        return error_set(e, EXIT_INPUT, "%s has %d example%s, few_shot is %lld", c->few_shot_file, p->n_shown,
                         p->n_shown == 1 ? "" : "s", (long long)c->few_shot);
    return p->n_shown || error_set(e, EXIT_INPUT, "%s: no example in it", c->few_shot_file);
}

// Checks that the examples leave room for questions: a prompt that is too long is cut on the left, so that examples
// which fill it would be cut from every one.
static bool check_examples(const Prompter *p, Error *e) {
    Ids ids = {0};
    bool ok = prompter_ids(p, "", &ids, e);
    if (ok && (int64_t)ids.n >= p->cfg->max_prompt_length)
        ok = error_set(e, EXIT_CONFIG,
                       "the %d example%s of %s take %zu tokens with the conversation around them, max_prompt_length is "
                       "%lld; raise it, or set few_shot lower",
                       p->n_shown, p->n_shown == 1 ? "" : "s", p->cfg->few_shot_file, ids.n,
                       (long long)p->cfg->max_prompt_length);
    ids_free(&ids);
    return ok;
}

bool prompter_open(Prompter *p, const Config *c, const HfConfig *hf, const Tokenizer *t, const char *template,
                   Error *e) {
    *p = (Prompter){.cfg = c, .hf = hf, .tokenizer = t, .template = template, .seen = xcalloc(2, sizeof *p->seen)};
    if (*c->system_prompt_file) {
        size_t n;
        p->system = file_read_plain(c->system_prompt_file, 1 << 20, &n, e);
        if (!p->system) return error_prefix(e, "system_prompt_file");
    } else if (*c->system_prompt) p->system = xstrdup(c->system_prompt);
    else if (!c->raw && !default_message(c, template, &p->system, e)) return false;
    return true;
}

bool prompter_show(Prompter *p, Error *e) {
    if (!*p->cfg->few_shot_file) return true;
    if (!read_examples(p, e)) return error_prefix(e, "few_shot_file");
    return check_examples(p, e);
}

void prompter_close(Prompter *p) {
    for (int i = 0; i < p->n_shown; i++) free(p->shown[i].question), free(p->shown[i].answer);
    free(p->shown);
    free(p->system);
    free(p->seen);
    *p = (Prompter){0};
}

bool prompter_ids(const Prompter *p, const char *question, Ids *out, Error *e) {
    const Config *c = p->cfg;
    Str text = {0};
    if (c->raw) {
        for (int i = 0; i < p->n_shown; i++) str_printf(&text, "%s\n%s\n\n", p->shown[i].question, p->shown[i].answer);
        str_puts(&text, question);
    } else if (!chat_prompt(p->template, p->system, p->shown, p->n_shown, question, &text, e)) return false;
    ids_clear(out);
    if (c->raw) tokenizer_encode_raw(p->tokenizer, text.s ? text.s : "", text.n, out);
    else tokenizer_encode(p->tokenizer, text.s ? text.s : "", text.n, true, out);
    str_free(&text);
    return true;
}

static const char empty_prompt[] = "the prompt is empty; give the question a text, or leave out raw=true";

static void too_long(size_t n, size_t max, bool eval, Error *e) {
    error_set(e, EXIT_INPUT,
              "the prompt has %zu tokens, max_prompt_length is %zu; raise it, or set long_prompts=truncate_left%s", n,
              max, eval ? "" : " or skip");
}

// Leaves a prompt its last `max` ids.
static void cut_left(Ids *ids, size_t max) {
    memmove(ids->id, ids->id + (ids->n - max), max * sizeof *ids->id);
    ids->n = max;
}

PromptFate prompter_limit(const Prompter *p, Ids *ids, const Row *row, Error *e) {
    const Config *c = p->cfg;
    size_t max = (size_t)c->max_prompt_length;
    bool failed = !ids->n || (ids->n > max && c->long_prompts == LONG_FAIL);
    if (failed) {
        if (ids->n) too_long(ids->n, max, false, e);
        else error_set(e, EXIT_INPUT, "%s", empty_prompt); // decoding needs at least one token
        error_prefix(e, "%s:%lld", row->path, (long long)row->line);
        return PROMPT_FAILED;
    }
    if (ids->n <= max) return PROMPT_GOOD;
    if (c->long_prompts == LONG_SKIP) return PROMPT_SKIPPED;
    cut_left(ids, max);
    return PROMPT_GOOD;
}

static RowFate check(const Prompter *p, const Row *row, bool eval, Error *e) {
    Ids ids = {0};
    size_t max = (size_t)p->cfg->max_prompt_length;
    RowFate fate = prompter_ids(p, row->question, &ids, e) ? ROW_GOOD : ROW_BAD;
    if (fate == ROW_GOOD && !ids.n) fate = ROW_BAD, error_set(e, EXIT_INPUT, "%s", empty_prompt);
    if (fate == ROW_GOOD && ids.n > max && p->cfg->long_prompts == LONG_FAIL) {
        fate = ROW_FATAL; // long_prompts decides this, not bad_lines
        too_long(ids.n, max, eval, e);
    }
    if (fate == ROW_GOOD && ids.n > max && p->seen) {
        LongPrompts *seen = &p->seen[eval];
        seen->prompts++;
        for (int64_t most = seen->longest;
             (int64_t)ids.n > most && !atomic_compare_exchange_weak(&seen->longest, &most, (int64_t)ids.n);) {
        }
    }
    ids_free(&ids);
    return fate;
}

void prompter_note_long(const Prompter *p, const char *what, int64_t rows, bool eval) {
    const Config *c = p->cfg;
    const LongPrompts *seen = &p->seen[eval];
    if (seen->prompts)
        note("%s: %lld of %lld prompts have more than max_prompt_length %lld tokens (the longest %lld): they %s; raise "
             "max_prompt_length to ask them whole",
             what, (long long)seen->prompts, (long long)rows, (long long)c->max_prompt_length, (long long)seen->longest,
             c->long_prompts != LONG_SKIP ? "keep their last tokens, without the beginning"
             : eval ? "keep their last tokens, without the beginning (long_prompts=skip leaves nothing out here)"
                    : "are left out (long_prompts=skip)");
}

RowFate prompter_check(const void *prompter, const Row *row, Error *e) { return check(prompter, row, false, e); }
RowFate prompter_check_eval(const void *prompter, const Row *row, Error *e) { return check(prompter, row, true, e); }

bool prompter_next(const Prompter *pr, Mix *data, Batch *b, int p, Error *e) {
    for (int64_t tried = 0; tried <= mix_rows(data); tried++) {
        Row row;
        if (!mix_next(data, &row, e)) return false;
        bool ok = prompter_ids(pr, row.question, &b->prompt[p], e);
        PromptFate fate = ok ? prompter_limit(pr, &b->prompt[p], &row, e) : PROMPT_FAILED;
        if (fate == PROMPT_GOOD) prompter_take(b, p, &row);
        row_free(&row);
        if (fate != PROMPT_SKIPPED) return fate == PROMPT_GOOD;
        mix_again(data);
    }
    return error_set(e, EXIT_INPUT,
                     "every prompt is longer than max_prompt_length %lld tokens; raise it, or set "
                     "long_prompts=truncate_left",
                     (long long)pr->cfg->max_prompt_length);
}

// The batch takes over the row's texts.
void prompter_take(Batch *b, int p, Row *row) {
    b->row[p] = row->line;
    b->file[p] = row->file;
    b->question[p] = row->question;
    b->answer[p] = row->gold;
    row->question = row->gold = NULL;
}

static void leave_out(Batch *b, int p) {
    for (int i = p * b->group; i < (p + 1) * b->group; i++) b->state[i] = SEQ_TRAINED;
}

bool prompter_rows(const Prompter *pr, Dataset *data, int64_t first, int n, bool cut, Batch *b, Error *e) {
    batch_clear(b);
    for (int p = n; p < b->prompts; p++) leave_out(b, p);
    for (int p = 0; p < n; p++) {
        Row row;
        Ids *ids = &b->prompt[p];
        if (!dataset_row(data, first + p, &row, e)) return false;
        bool ok = prompter_ids(pr, row.question, ids, e);
        if (ok && !ids->n) ok = error_set(e, EXIT_INPUT, "%s:%lld: %s", row.path, (long long)row.line, empty_prompt);
        size_t max = (size_t)pr->cfg->max_prompt_length;
        bool long_one = ok && ids->n > max;
        if (long_one && cut) cut_left(ids, max);
        else if (long_one) {
            ids_clear(ids);
            leave_out(b, p);
        }
        row.file = NO_FILE;
        if (ok) prompter_take(b, p, &row);
        row_free(&row);
        if (!ok) return false;
        for (int i = p * b->group; i < (p + 1) * b->group; i++)
            b->key[i] = (INT64_C(1) << 40) + (first + p) * b->group + i % b->group; // other keys than training's
    }
    return true;
}
