// Chat templates: messages to text.
#pragma once
#include "error.h"
#include "str.h"
#include <jansson.h>

// Renders `messages` (a JSON array of {role, content, ...}); `tools` may be NULL. The templates are those of
// chat_template.c. Unknown template: an error with the names there are.
bool chat_render(const char *template_name, const json_t *messages, const json_t *tools, bool add_generation_prompt,
                 Str *out, Error *e);
// The same, and where in *out the assistant speaks: what supervised tuning learns, the end of the turn included.
typedef struct {
    size_t begin, end; // bytes
} ChatSpan;
typedef struct {
    ChatSpan *item; // [n] ascending; heap
    size_t n, cap;
} ChatSpans;
bool chat_render_said(const char *template_name, const json_t *messages, const json_t *tools,
                      bool add_generation_prompt, ChatSpans *said, Str *out, Error *e);
// The prompt for one question: system message (NULL: the template's default), examples as turns, the question, and the
// start of the turn that answers.
typedef struct {
    char *question, *answer;
} ChatExample;
bool chat_prompt(const char *template_name, const char *system, const ChatExample *shown, int n_shown,
                 const char *question, Str *out, Error *e);
// chat_template.c. The text of the token that ends an answer; NULL where the template has none.
const char *chat_end_of_turn(const char *template_name);
// The template in Jinja, for other programs. Heap memory.
char *chat_jinja(const char *template_name);
// What a model directory came with, by the tokenizer.json in it: chat_template.jinja where it is there, else
// tokenizer_config.json, as transformers looks for it. *name: a known template; *unknown: the file (heap) whose template is
// none of ours; both NULL: there is none. False after filling *e: a file cannot be read.
bool chat_template_of(const char *tokenizer_path, const char **name, char **unknown, Error *e);
// The template of a run: the one chosen by name, or with "auto" the model's own, and qwen2.5 where it came with none. An
// unknown one is an error that names the choices.
bool chat_template_choose(const char *chosen, const char *tokenizer_path, const char **name, Error *e);
extern const char chat_system_prompt[]; // the shipped one: think in <think>, answer in <answer>
