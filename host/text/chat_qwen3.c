// Rendering conversations for Qwen3: Qwen2.5's turns without a system message of its own, and with the assistant's
// thoughts. These are left out of earlier answers, and written as a block in answers after the last question; for
// supervised fine-tuning every answer has the block, as in TRL's training template.
#include "chat_parts.h"
#include "json.h"
#include "text.h"
#include <string.h>

static Text string_of(const json_t *s) {
    return json_is_written_string(s) ? (Text){json_string_value(s), json_string_length(s)} : (Text){"", 0};
}

static Text without_newlines(Text x, bool left, bool right) {
    while (left && x.n && *x.s == '\n') x.s++, x.n--;
    while (right && x.n && x.s[x.n - 1] == '\n') x.n--;
    return x;
}

// The thoughts of a message: its reasoning_content, else the part of its content before </think>; *content becomes the
// rest.
static Text thought_of(const json_t *message, Text *content) {
    *content = string_of(json_object_get(message, "content"));
    const json_t *own = json_object_get(message, "reasoning_content");
    const Text opens = text_of("<think>"), closes = text_of("</think>");
    size_t end = text_find(*content, 0, closes);
    if (json_is_written_string(own)) return string_of(own);
    if (end == TEXT_NONE) return (Text){"", 0};
    Text thought = without_newlines((Text){content->s, end}, false, true);
    size_t begin = text_find_last(thought, opens);
    if (begin != TEXT_NONE) thought = text_from(thought, begin + opens.n);
    *content = without_newlines(text_from(*content, text_find_last(*content, closes) + closes.n), true, false);
    return without_newlines(thought, true, false);
}

// The index of the last question: a user's message that is not a tool's answer.
static size_t last_question(const json_t *messages) {
    static const char head[] = "<tool_response>", tail[] = "</tool_response>";
    for (size_t i = json_array_size(messages); i-- > 0;) {
        const json_t *m = json_array_get(messages, i);
        Text x = string_of(json_object_get(m, "content"));
        bool answer = x.n >= strlen(tail) && !memcmp(x.s, head, strlen(head)) &&
                      !memcmp(x.s + x.n - strlen(tail), tail, strlen(tail));
        if (chat_role_is(m, "user") && !answer) return i;
    }
    return json_array_size(messages) - 1;
}

static void tool_calls(Str *out, const json_t *calls, bool words_before) {
    size_t i;
    json_t *call;
    json_array_foreach(calls, i, call) {
        const json_t *function = chat_tool_function(call), *arguments = json_object_get(function, "arguments");
        if (i || words_before) str_puts(out, "\n");
        Text name = string_of(json_object_get(function, "name"));
        str_puts(out, "<tool_call>\n{\"name\": \"");
        str_add(out, name.s, name.n);
        str_puts(out, "\", \"arguments\": ");
        if (json_is_written_string(arguments))
            str_add(out, json_string_value(arguments), json_string_length(arguments));
        else json_write(out, arguments, JSON_PYTHON);
        str_puts(out, "}\n</tool_call>");
    }
}

static void answer(Str *out, const json_t *message, bool may_think, bool must_think, ChatSpans *said) {
    Text content, thought = thought_of(message, &content);
    bool block = must_think || (may_think && thought.n);
    str_puts(out, "<|im_start|>assistant\n");
    size_t begin = out->n;
    if (block) {
        thought = without_newlines(thought, true, true);
        str_puts(out, "<think>\n");
        str_add(out, thought.s, thought.n);
        str_puts(out, "\n</think>\n\n");
    }
    Text words = block ? without_newlines(content, true, false) : content;
    str_add(out, words.s, words.n);
    tool_calls(out, chat_tool_calls(message), content.n > 0);
    str_puts(out, "<|im_end|>\n");
    chat_spans_add(said, begin, out->n);
}

bool qwen3_render(const ChatTemplate *t, const json_t *messages, const json_t *tools, bool add_generation_prompt,
                  ChatSpans *said, Str *out, Error *e) {
    size_t i, question = last_question(messages), n = json_array_size(messages);
    json_t *m;
    const json_t *first = json_array_get(messages, 0);
    bool system = chat_role_is(first, "system"), tooled = json_array_size(tools) > 0;
    if (system || tooled) {
        str_puts(out, "<|im_start|>system\n");
        if (system) chat_add_content(out, first);
        if (system && tooled) str_puts(out, "\n\n");
        if (tooled) qwen_tools(out, tools);
        str_puts(out, "<|im_end|>\n");
    }
    json_array_foreach(messages, i, m) {
        if (i == 0 && system) continue;
        if (chat_role_is(m, "tool")) qwen_tool_answer(out, messages, i);
        else if (chat_role_is(m, "assistant")) answer(out, m, i > question, said || (i > question && i + 1 == n), said);
        else if (chat_role_is(m, "user") || chat_role_is(m, "system")) {
            str_printf(out, "<|im_start|>%s\n", json_string_value(json_object_get(m, "role")));
            chat_add_content(out, m);
            str_puts(out, "<|im_end|>\n");
        } else return chat_unknown_role(m, i, t->name, "system, user, assistant and tool", e);
    }
    if (add_generation_prompt) str_printf(out, "<|im_start|>assistant\n%s", t->opening ? t->opening : "");
    return true;
}
