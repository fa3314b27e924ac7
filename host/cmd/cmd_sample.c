// grpo sample: answers one prompt, a file of prompts, or a conversation on a terminal.
#include "chat.h"
#include "commands.h"
#include "file.h"
#include "json.h"
#include "jsonl.h"
#include "output.h"
#include "signals.h"
#include "train.h"
#include <stdlib.h>
#include <unistd.h>
#include <string.h>

// Prints text as it is sampled. On a terminal control bytes are shown escaped; elsewhere they are passed on.
static void print_text(void *arg, int i, const char *bytes, size_t n) {
    Str shown = {0};
    if (isatty(STDOUT_FILENO)) str_visible(&shown, bytes, n);
    else str_add(&shown, bytes, n);
    output_write(STDOUT_FILENO, shown.s, shown.n);
    str_free(&shown);
}

// Whether the prompt fits; one longer than max_prompt_length is an error: cutting it would answer another question.
static bool fits(const Engine *en, const Ids *ids, Error *e) {
    if (!ids->n) return error_set(e, EXIT_INPUT, "the prompt is empty");
    return (int64_t)ids->n <= en->cfg->max_prompt_length ||
           error_set(e, EXIT_INPUT, "the prompt has %zu tokens, max_prompt_length is %lld; raise it", ids->n,
                     (long long)en->cfg->max_prompt_length);
}

static bool answer(Engine *en, Batch *b, RolloutWatch watch, Error *e) {
    return rollout_run(&en->rollout, en->device, &en->policy, en->tokenizer, engine_stop_rule(en),
                       sample_params(en->cfg), b, watch, e) &&
           rollout_finite(b, e);
}

static bool sample_one(Engine *en, const Prompter *p, Error *e) {
    Batch b = batch_new(1, 1, (int)en->cfg->max_completion_length, 0);
    bool ok = prompter_ids(p, en->cfg->prompt, &b.prompt[0], e) && fits(en, &b.prompt[0], e) &&
              answer(en, &b, (RolloutWatch){.text = print_text}, e);
    batch_free(&b);
    return ok && (output_write(STDOUT_FILENO, "\n", 1) || output_flush(e));
}

// The prompt of one line: the `prompt` of a JSON object, or the line itself. Heap memory.
static char *line_prompt(const LineReader *r, const char *line, size_t n, const char *where, Error *e) {
    if (line[0] != '{') return file_plain(r->path, r->line, line, n, e) ? xstrndup(line, n) : NULL;
    json_t *j = json_parse(line, n, where, e);
    const char *text = j ? json_field_string(j, "prompt", where, e) : NULL;
    char *copy = text ? xstrdup(text) : NULL;
    json_decref(j);
    return copy;
}

static bool print_batch(const Batch *b, int n, char **prompts, Error *e) {
    Str out = {0};
    for (int i = 0; i < n; i++) {
        double logp = 0;
        for (int j = 0; j < b->len[i]; j++) logp += b->logp[(size_t)i * (size_t)b->max_completion + (size_t)j];
        str_puts(&out, "{\"prompt\": ");
        str_json(&out, prompts[i], strlen(prompts[i]));
        str_puts(&out, ", \"completion\": ");
        str_json(&out, b->text[i], strlen(b->text[i]));
        str_printf(&out, ", \"finish\": \"%s\", \"tokens\": %d, \"logp\": %.9g}\n", finish_name[b->finish[i]],
                   b->len[i], logp);
    }
    bool ok = output_write(STDOUT_FILENO, out.s, out.n) || output_flush(e);
    str_free(&out);
    return ok;
}

// Answers a file of prompts: a chunk at a time, one JSON object a line out, in order.
static bool sample_file(Engine *en, const Prompter *p, const char *path, Error *e) {
    LineReader lines;
    if (!line_reader_open(&lines, path, e)) return false;
    enum { CHUNK = 256 };
    Batch b = batch_new(CHUNK, 1, (int)en->cfg->max_completion_length, 0);
    char *prompts[CHUNK];
    int64_t next_key = 0;
    bool ok = true, more = true;
    while (ok && more) {
        int n = 0;
        batch_clear(&b);
        while (ok && more && n < CHUNK) {
            char *line, where[4200];
            size_t length;
            int got = line_reader_next(&lines, &line, &length, e);
            if (got <= 0) {
                ok = got == 0;
                more = false;
                break;
            }
            snprintf(where, sizeof where, "%.4096s:%lld", lines.path, (long long)lines.line);
            prompts[n] = line_prompt(&lines, line, length, where, e);
            ok = prompts[n] && prompter_ids(p, prompts[n], &b.prompt[n], e) &&
                 (fits(en, &b.prompt[n], e) || error_prefix(e, "%s", where));
            b.key[n] = next_key++;
            if (prompts[n]) n++;
        }
        for (int i = n; i < CHUNK; i++) b.state[i] = SEQ_TRAINED; // nothing to decode here
        ok = ok && (!n || answer(en, &b, (RolloutWatch){0}, e));
        ok = ok && print_batch(&b, n, prompts, e);
        for (int i = 0; i < n; i++) free(prompts[i]);
    }
    batch_free(&b);
    line_reader_close(&lines);
    return ok;
}

static void say(json_t *messages, const char *role, const char *content) {
    json_t *m = json_object(); // strings unchecked: what a terminal sends need not be UTF-8
    json_object_set_new(m, "role", json_string(role));
    json_object_set_new_nocheck(m, "content", json_string_nocheck(content));
    json_array_append_new(messages, m);
}

static void start_over(json_t *messages, const Prompter *p) {
    json_array_clear(messages);
    if (p->system) say(messages, "system", p->system);
}

// Holds a conversation: all of it so far is the prompt of each turn.
static bool chat(Engine *en, const Prompter *p, Error *e) {
    const Config *c = en->cfg;
    if (c->raw) return error_set(e, EXIT_CONFIG, "raw is for single prompts; a conversation needs a chat template");
    json_t *messages = json_array();
    char *line = NULL;
    size_t cap = 0;
    bool ok = true;
    int64_t turn = 0;
    start_over(messages, p);
    printf("%s\nType a question. /reset starts over, /quit (or Ctrl-D) leaves.\n", en->device->about);
    for (;;) {
        printf("> ");
        fflush(stdout);
        if (!signals_wait(STDIN_FILENO)) ok = error_set(e, EXIT_STOPPED, "stopped by a signal");
        ssize_t n = ok ? getline(&line, &cap, stdin) : 0;
        if (!ok || n <= 0 || !strcmp(line, "/quit\n")) break;
        if (line[n - 1] == '\n') line[--n] = 0;
        if (!n) continue;
        if (!strcmp(line, "/reset")) {
            start_over(messages, p);
            continue;
        }
        Batch b = batch_new(1, 1, (int)c->max_completion_length, 0);
        Str text = {0};
        say(messages, "user", line);
        ok = chat_render(en->template, messages, NULL, true, &text, e);
        if (ok) tokenizer_encode(en->tokenizer, text.s, text.n, true, &b.prompt[0]);
        b.key[0] = turn++;
        if (ok && !fits(en, &b.prompt[0], e)) { // the turn is taken back, the conversation goes on
            print_text(NULL, 0, e->text, strlen(e->text));
            printf("; /reset starts over\n");
            *e = (Error){0};
            json_array_remove(messages, json_array_size(messages) - 1);
        } else {
            ok = ok && answer(en, &b, (RolloutWatch){.text = print_text}, e);
            if (ok) say(messages, "assistant", b.text[0]);
        }
        putchar('\n');
        str_free(&text);
        batch_free(&b);
        if (!ok) break;
    }
    free(line);
    json_decref(messages);
    return ok;
}

ExitCode command_sample(int argc, char **argv, Error *e) {
    Config c;
    if (!config_args(&c, "sample", argc, argv, e)) return e->code;
    signals_install(false);
    Engine en = {0};
    Prompter p = {0};
    const char *file = *c.prompt_file ? c.prompt_file : !*c.prompt && !isatty(STDIN_FILENO) ? "-" : NULL;
    int at_once = file ? 64 : 1;
    bool ok = engine_open(&en, &c, shape_for_rollout(&c, at_once, at_once), e) && engine_prompter(&en, &p, e);
    if (ok) ok = *c.prompt ? sample_one(&en, &p, e) : file ? sample_file(&en, &p, file, e) : chat(&en, &p, e);
    prompter_close(&p);
    engine_close(&en);
    config_free(&c);
    return ok ? EXIT_OK : e->code;
}
