// Chat templates: messages to text.
#pragma once
#include "error.h"
#include "str.h"
#include <jansson.h>

// Renders `messages` (a JSON array of {role, content, ...}); `tools` may be NULL. The templates are qwen2.5 (Instruct),
// qwen2.5-base (its default system message) and r1-zero. Unknown template: an error with the names there are.
bool chat_render(const char *template_name, const json_t *messages, const json_t *tools, bool add_generation_prompt,
                 Str *out, Error *e);
// The prompt for one question: system message (NULL: the template's default), then the question, then the turn's start.
bool chat_prompt(const char *template_name, const char *system, const char *question, Str *out, Error *e);
// The name of the template that the tokenizer_config.json beside this tokenizer.json holds; NULL where it is none of ours.
const char *chat_template_of(const char *tokenizer_path);
extern const char chat_system_prompt[]; // the shipped one: think in <think>, answer in <answer>
