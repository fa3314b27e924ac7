// What chat.c, which renders conversations, and chat_template.c, which knows the templates by name, share.
#pragma once
#include "chat.h"
#include <stdint.h>

typedef struct ChatTemplate ChatTemplate;
struct ChatTemplate {
    const char *name;
    // Appends the conversation. `said` may be NULL.
    bool (*render)(const ChatTemplate *t, const json_t *messages, const json_t *tools, bool add_generation_prompt,
                   ChatSpans *said, Str *out, Error *e);
    const char *opening;     // stands where a system message would
    const char *end_of_turn; // the token after which an answer is over; NULL: the template writes none
    // The same template in Jinja, between its marks %OPENING%, %TOOLS% and %CALLS% for texts that stand here already.
    const char *jinja;
    struct {
        size_t bytes;
        uint32_t crc;
    } published; // CRC32C of the text that model directories have, stripped; bytes 0: there are none
};
extern const ChatTemplate chat_templates[];
extern const int chat_template_count;

bool qwen_render(const ChatTemplate *t, const json_t *messages, const json_t *tools, bool add_generation_prompt,
                 ChatSpans *said, Str *out, Error *e);
bool r1_zero_render(const ChatTemplate *t, const json_t *messages, const json_t *tools, bool add_generation_prompt,
                    ChatSpans *said, Str *out, Error *e);
// Around the signatures of tools in Qwen's system message.
extern const char qwen_tools_head[], qwen_tools_tail[];
// The template of this name, or NULL after filling *e.
const ChatTemplate *chat_template_named(const char *name, Error *e);
