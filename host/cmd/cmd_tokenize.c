// grpo tokenize: reads JSON lines with a text or messages, and writes for each one a line with its token ids.
#include "config.h"
#include "chat.h"
#include "commands.h"
#include "json.h"
#include "jsonl.h"
#include "output.h"
#include "tokenizer.h"
#include <stdlib.h>
#include <unistd.h>
#include <stdio.h>
#include <string.h>

static const char usage[] =
    "usage: grpo tokenize PATH [FILE] [chat_template=NAME] [special=true|false]\n"
    "PATH is a model directory or a tokenizer.json. FILE (or standard input) holds JSON lines with `text`, or with\n"
    "`messages` (a list of {role, content}) and optional `tools` and `add_generation_prompt` (default false).\n"
    "Each gives a line {\"ids\": [...]}, without what the tokenizer puts before a text (Llama 3: <|begin_of_text|>).\n"
    "  chat_template   what messages are rendered with; by default the one that PATH came with (chat_template.jinja,\n"
    "                  else tokenizer_config.json); qwen2.5 where it has none\n"
    "  special         false: special tokens written out in the text stay text (default true)\n";

typedef struct {
    const char *path, *file, *chat_template;
    bool special;
    const char *template; // chosen for the first line with messages
} Options;

static bool options_read(Options *o, int argc, char **argv, Error *e) {
    int places = 0;
    for (int i = 0; i < argc; i++) {
        char *value = strchr(argv[i], '=');
        if (!strncmp(argv[i], "chat_template=", 14)) o->chat_template = value + 1;
        else if (!strcmp(argv[i], "special=true") || !strcmp(argv[i], "special=false")) o->special = value[1] == 't';
        else if (!strncmp(argv[i], "special=", 8))
            return error_set(e, EXIT_CONFIG, "%.80s: expected special=true or special=false", argv[i]);
        else if (argv[i][0] == '-' && argv[i][1])
            return error_set(e, EXIT_CONFIG, "there is no option %.60s; see grpo tokenize --help", argv[i]);
        else if (places++ == 0) o->path = argv[i];
        else if (places == 2) o->file = argv[i];
        else return error_set(e, EXIT_CONFIG, "tokenize takes one PATH and one FILE, not also %.60s", argv[i]);
    }
    if (!places) return error_set(e, EXIT_CONFIG, "tokenize needs a model directory or a tokenizer.json; see --help");
    return true;
}

// Appends the text of one line to *out.
static bool line_text(const json_t *row, const Tokenizer *t, Options *o, Str *out, Error *e) {
    const json_t *text = json_object_get(row, "text"), *messages = json_object_get(row, "messages");
    const json_t *tools = json_object_get(row, "tools"), *generate = json_object_get(row, "add_generation_prompt");
    if (!json_is_object(row) || (!text && !messages))
        return error_set(e, EXIT_INPUT, "expected an object with \"text\" or \"messages\"");
    if (text && messages) return error_set(e, EXIT_INPUT, "both \"text\" and \"messages\"; leave one out");
    if (messages) {
        if (generate && !json_is_boolean(generate))
            return error_set(e, EXIT_INPUT, "\"add_generation_prompt\" is not true or false");
        if (!o->template && !chat_template_choose(o->chat_template, tokenizer_path(t), &o->template, e)) return false;
        return chat_render(o->template, messages, tools, json_is_true(generate), out, e);
    }
    if (!json_is_written_string(text)) return error_set(e, EXIT_INPUT, "\"text\" is not a string");
    str_add(out, json_string_value(text), json_string_length(text));
    return true;
}

static bool tokenize_lines(const Tokenizer *t, Options *o, LineReader *reader, Error *e) {
    Str text = {0}, line_out = {0};
    Ids ids = {0};
    char *line;
    size_t n;
    int got;
    while ((got = line_reader_next(reader, &line, &n, e)) > 0) {
        char where[4096 + 32];
        snprintf(where, sizeof where, "%s:%lld", reader->path, (long long)reader->line);
        json_t *row = json_parse(line, n, where, e);
        str_clear(&text), str_clear(&line_out), ids_clear(&ids);
        bool ok = row && (line_text(row, t, o, &text, e) || error_prefix(e, "%s", where));
        json_decref(row);
        if (!ok) {
            got = -1;
            break;
        }
        tokenizer_encode(t, text.s, text.n, o->special, &ids);
        str_puts(&line_out, "{\"ids\": [");
        for (size_t i = 0; i < ids.n; i++) str_printf(&line_out, i ? ", %d" : "%d", ids.id[i]);
        str_puts(&line_out, "]}\n");
        fwrite(line_out.s, 1, line_out.n, stdout);
        if (reader->fd == STDIN_FILENO) fflush(stdout); // a line in, a line out
    }
    str_free(&text), str_free(&line_out), ids_free(&ids);
    return got == 0;
}

ExitCode command_tokenize(int argc, char **argv, Error *e) {
    if (argc == 1 && config_asks_help(argv[0])) return fputs(usage, stdout), EXIT_OK;
    Options o = {.file = "-", .special = true, .chat_template = "auto"};
    if (!options_read(&o, argc, argv, e)) return e->code;
    Tokenizer *t = tokenizer_load(o.path, e);
    if (!t) return e->code;
    LineReader reader;
    // An unknown template name is an error before the first line; the model's own template is looked for only when a
    // line has messages.
    bool ok = !strcmp(o.chat_template, "auto") || chat_template_choose(o.chat_template, NULL, &o.template, e);
    ok = ok && line_reader_open_json(&reader, o.file, e);
    if (ok) {
        ok = tokenize_lines(t, &o, &reader, e);
        line_reader_close(&reader);
    }
    tokenizer_free(t);
    if (!ok) return e->code;
    return output_flush(e) ? EXIT_OK : e->code;
}
