// Rendering conversations for Llama 3: each message is a header, the content without white space at its ends, and an
// end of turn. Llama 3.1 always has a system message, with two dates before it; its tools are not supported.
#include "chat_parts.h"
#include "text.h"
#include <string.h>

static void turn(Str *out, const char *role, const char *before, const json_t *message, ChatSpans *said) {
    const json_t *content = json_object_get(message, "content");
    Text text = content ? text_strip((Text){json_string_value(content), json_string_length(content)}) : (Text){"", 0};
    str_printf(out, "<|start_header_id|>%s<|end_header_id|>\n\n%s", role, before);
    size_t begin = out->n;
    str_add(out, text.s, text.n);
    str_puts(out, "<|eot_id|>");
    if (!strcmp(role, "assistant")) chat_spans_add(said, begin, out->n);
}

bool llama_render(const ChatTemplate *t, const json_t *messages, const json_t *tools, bool add_generation_prompt,
                  ChatSpans *said, Str *out, Error *e) {
    static const char *const roles[] = {"system", "user", "assistant"};
    const json_t *first = json_array_get(messages, 0), *system = chat_role_is(first, "system") ? first : NULL;
    if (!chat_without_tools(t, messages, tools, e)) return false;
    str_puts(out, "<|begin_of_text|>");
    if (t->opening) turn(out, "system", t->opening, system, said);
    for (size_t i = t->opening && system ? 1 : 0; i < json_array_size(messages); i++) {
        const json_t *m = json_array_get(messages, i);
        int r = 0;
        while (r < 3 && !chat_role_is(m, roles[r])) r++;
        if (r == 3) return chat_unknown_role(m, i, t->name, "system, user and assistant", e);
        turn(out, roles[r], "", m, said);
    }
    if (add_generation_prompt) str_puts(out, "<|start_header_id|>assistant<|end_header_id|>\n\n");
    return true;
}
