// Chat templates: turning messages into text.
#pragma once
#include "error.h"
#include "str.h"
#include <jansson.h>

// Renders `messages` (a JSON array of {role, content, ...}) by a template of chat_template.c; `tools` may be NULL. An
// unknown template is an error that lists the known ones.
bool chat_render(const char *template_name, const json_t *messages, const json_t *tools, bool add_generation_prompt,
                 Str *out, Error *e);
// A part of a rendered text in which the assistant speaks, the end of its turn included: what supervised fine-tuning
// learns. chat_render_said is chat_render and also fills these.
typedef struct {
    size_t begin, end; // bytes
} ChatSpan;
typedef struct {
    ChatSpan *item; // [n] ascending; heap
    size_t n, cap;
} ChatSpans;
bool chat_render_said(const char *template_name, const json_t *messages, const json_t *tools,
                      bool add_generation_prompt, ChatSpans *said, Str *out, Error *e);
// An example that stands before each question as turns of the conversation. chat_prompt renders the prompt for one
// question: the system message (NULL: the template's default), examples, the question, and the start of the turn that
// answers.
typedef struct {
    char *question, *answer;
} ChatExample;
bool chat_prompt(const char *template_name, const char *system, const ChatExample *shown, int n_shown,
                 const char *question, Str *out, Error *e);
// The text of the token that ends an answer; NULL where the template has none (chat_template.c).
const char *chat_end_of_turn(const char *template_name);
// The template in Jinja, for other programs. Heap memory.
char *chat_jinja(const char *template_name);
// Which template a model directory comes with. It is looked for beside its tokenizer.json, as transformers does: in
// chat_template.jinja, else in tokenizer_config.json. *name becomes a known template, or *unknown the file (heap) with
// a template that is none of ours; both stay NULL where there is none. False after filling *e: a file cannot be read.
bool chat_template_of(const char *tokenizer_path, const char **name, char **unknown, Error *e);
// The template of a run: the one chosen by name; with "auto" the model's own, or qwen2.5 where it has none. An unknown
// one is an error that names the choices.
bool chat_template_choose(const char *chosen, const char *tokenizer_path, const char **name, Error *e);
// What the template says where there is no system message; NULL: nothing.
const char *chat_opening(const char *template_name);
// Whether that stands where no system message is set, and not the shipped one: the template asks for thoughts and
// answer itself, or was `chosen` by name for its opening.
bool chat_keeps_opening(const char *template_name, bool chosen);
extern const char chat_system_prompt[]; // the shipped one: think in <think>, answer in <answer>
