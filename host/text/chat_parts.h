// Chat templates inside: what chat.c and its neighbours, which render conversations, and chat_template.c, which knows
// the templates by name, share.
#pragma once
#include "chat.h"
#include <stdint.h>

// When a template's own opening stands where no system message is set, and not the shipped one.
typedef enum { KEEPS_NEVER, KEEPS_CHOSEN, KEEPS_ALWAYS } ChatKeeps; // CHOSEN: where the template was chosen by name
typedef struct ChatTemplate ChatTemplate;
struct ChatTemplate {
    const char *name;
    // Appends the conversation. `said` may be NULL.
    bool (*render)(const ChatTemplate *t, const json_t *messages, const json_t *tools, bool add_generation_prompt,
                   ChatSpans *said, Str *out, Error *e);
    ChatKeeps keeps;
    const char *opening;     // text in place of a missing system message, or (Llama) before it; NULL: none
    const char *end_of_turn; // the token that ends an answer; NULL: the template writes none
    // The same template in Jinja, with the marks %OPENING%, %TOOLS% and %CALLS% for texts that are in C already.
    const char *jinja;
    struct {
        size_t bytes;
        uint32_t crc;
    } published; // CRC32C and length of the text that model directories have, stripped; bytes 0: there are none
};
extern const ChatTemplate chat_templates[];
extern const int chat_template_count;

bool qwen_render(const ChatTemplate *t, const json_t *messages, const json_t *tools, bool add_generation_prompt,
                 ChatSpans *said, Str *out, Error *e);
bool r1_zero_render(const ChatTemplate *t, const json_t *messages, const json_t *tools, bool add_generation_prompt,
                    ChatSpans *said, Str *out, Error *e);
bool qwen3_render(const ChatTemplate *t, const json_t *messages, const json_t *tools, bool add_generation_prompt,
                  ChatSpans *said, Str *out, Error *e);
bool llama_render(const ChatTemplate *t, const json_t *messages, const json_t *tools, bool add_generation_prompt,
                  ChatSpans *said, Str *out, Error *e);
// The texts around the signatures of tools in Qwen's system message; qwen_tools writes all of it.
extern const char qwen_tools_head[], qwen_tools_tail[];
void qwen_tools(Str *out, const json_t *tools);
// Writes message i, a tool's answer: those that follow each other share one turn.
void qwen_tool_answer(Str *out, const json_t *messages, size_t i);

// Whether a message has this role.
bool chat_role_is(const json_t *message, const char *role);
// Adds a message's content to what is rendered.
void chat_add_content(Str *out, const json_t *message);
// The assistant's tool calls: a list that is not empty, or NULL.
const json_t *chat_tool_calls(const json_t *message);
// A call is {name, arguments}, or {type, function: {name, arguments}} as OpenAI writes it.
const json_t *chat_tool_function(const json_t *call);
// Refuses message i, whose role the template has no place for, and names the `roles` it has: false after filling *e.
bool chat_unknown_role(const json_t *message, size_t i, const char *template, const char *roles, Error *e);
// Refuses tools, and messages that call one, of a template that has no place for them. False after filling *e.
bool chat_without_tools(const ChatTemplate *t, const json_t *messages, const json_t *tools, Error *e);
void chat_spans_add(ChatSpans *spans, size_t begin, size_t end);
// The template of this name, or NULL after filling *e.
const ChatTemplate *chat_template_named(const char *name, Error *e);
