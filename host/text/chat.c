// Rendering conversations as the text that a model was trained on. Qwen2.5's form follows the Jinja template that its
// models come with, tools included; R1-Zero's is the plain dialogue of DeepSeek-R1-Zero in our words. Qwen3's is in
// chat_qwen3.c, Llama's in chat_llama.c.
#include "chat_parts.h"
#include "json.h"
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

const char chat_system_prompt[] =
    "First reason about the question inside <think> </think>, then give the final answer alone inside "
    "<answer> </answer>. Write it like this:\n<think>\nyour reasoning\n</think>\n<answer>\nthe answer\n</answer>\n";

// ---- messages ------------------------------------------------------------------------------------------------------

bool chat_role_is(const json_t *message, const char *role) {
    const char *s = json_string_value(json_object_get(message, "role"));
    return s && !strcmp(s, role);
}

static void add_string(Str *out, const json_t *s) { str_add(out, json_string_value(s), json_string_length(s)); }
void chat_add_content(Str *out, const json_t *message) { add_string(out, json_object_get(message, "content")); }

const json_t *chat_tool_calls(const json_t *message) {
    const json_t *calls = json_object_get(message, "tool_calls");
    return chat_role_is(message, "assistant") && json_array_size(calls) ? calls : NULL;
}

const json_t *chat_tool_function(const json_t *call) {
    const json_t *function = json_object_get(call, "function");
    return function ? function : call;
}

static bool check_message(const json_t *message, size_t i, Error *e) {
    const json_t *role = json_object_get(message, "role"), *content = json_object_get(message, "content"), *call;
    const json_t *calls = json_object_get(message, "tool_calls");
    size_t k;
    if (!json_text(role))
        return error_set(e, EXIT_INPUT, "messages[%zu]: no string \"role\"; a message is {\"role\", \"content\"}", i);
    if (calls && !json_is_array(calls) && !json_is_null(calls))
        return error_set(e, EXIT_INPUT, "messages[%zu]: \"tool_calls\" is not a list", i);
    if (!json_is_written_string(content) && !(chat_tool_calls(message) && (!content || json_is_null(content))))
        return error_set(e, EXIT_INPUT, "messages[%zu]: no string \"content\"", i);
    json_array_foreach(chat_tool_calls(message), k, call) {
        const json_t *function = chat_tool_function(call);
        if (!json_is_written_string(json_object_get(function, "name")) || !json_object_get(function, "arguments"))
            return error_set(e, EXIT_INPUT, "messages[%zu].tool_calls[%zu]: needs a string \"name\" and \"arguments\"",
                             i, k);
    }
    return true;
}

static bool check_tools(const json_t *tools, Error *e) {
    size_t i;
    json_t *tool;
    if (!tools || json_is_null(tools)) return true;
    if (!json_is_array(tools)) return error_set(e, EXIT_INPUT, "\"tools\" is not a list");
    json_array_foreach(tools, i, tool) {
        if (!json_is_object(tool))
            return error_set(e, EXIT_INPUT, "tools[%zu] is not an object, as in {\"type\": \"function\", ...}", i);
    }
    return true;
}

bool chat_without_tools(const ChatTemplate *t, const json_t *messages, const json_t *tools, Error *e) {
    size_t i;
    json_t *m;
    if (json_array_size(tools)) return error_set(e, EXIT_INPUT, "the template %s has no place for tools", t->name);
    json_array_foreach(messages, i, m) if (chat_tool_calls(m)) return error_set(
        e, EXIT_INPUT, "messages[%zu]: the template %s has no place for tool calls", i, t->name);
    return true;
}

bool chat_unknown_role(const json_t *message, size_t i, const char *template, const char *roles, Error *e) {
    Str shown = {0};
    const char *role = json_string_value(json_object_get(message, "role"));
    str_visible(&shown, role, strnlen(role, 40));
    error_set(e, EXIT_INPUT, "messages[%zu]: the template %s has no place for the role \"%s\" here; it knows %s", i,
              template, shown.s, roles);
    str_free(&shown);
    return false;
}

void chat_spans_add(ChatSpans *spans, size_t begin, size_t end) {
    if (!spans) return;
    if (spans->n == spans->cap)
        spans->item = xrealloc(spans->item, (spans->cap = spans->cap * 2 + 4) * sizeof *spans->item);
    spans->item[spans->n++] = (ChatSpan){begin, end};
}

// ---- Qwen2.5 -------------------------------------------------------------------------------------------------------

const char qwen_tools_head[] = "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
                               "You are provided with function signatures within <tools></tools> XML tags:\n<tools>";
const char qwen_tools_tail[] =
    "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
    "<tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": "
    "<args-json-object>}\n</tool_call>";

void qwen_tools(Str *out, const json_t *tools) {
    size_t i;
    json_t *tool;
    str_puts(out, qwen_tools_head);
    json_array_foreach(tools, i, tool) {
        str_puts(out, "\n");
        json_write(out, tool, JSON_PYTHON);
    }
    str_puts(out, qwen_tools_tail);
}

static void qwen_tool_calls(Str *out, const json_t *message, const json_t *calls) {
    size_t i;
    json_t *call;
    if (json_string_length(json_object_get(message, "content"))) {
        str_puts(out, "\n");
        chat_add_content(out, message);
    }
    json_array_foreach(calls, i, call) {
        const json_t *function = chat_tool_function(call);
        str_puts(out, "\n<tool_call>\n{\"name\": \"");
        add_string(out, json_object_get(function, "name"));
        str_puts(out, "\", \"arguments\": ");
        json_write(out, json_object_get(function, "arguments"), JSON_PYTHON);
        str_puts(out, "}\n</tool_call>");
    }
}

void qwen_tool_answer(Str *out, const json_t *messages, size_t i) {
    if (i == 0 || !chat_role_is(json_array_get(messages, i - 1), "tool")) str_puts(out, "<|im_start|>user");
    str_puts(out, "\n<tool_response>\n");
    chat_add_content(out, json_array_get(messages, i));
    str_puts(out, "\n</tool_response>");
    if (!chat_role_is(json_array_get(messages, i + 1), "tool")) str_puts(out, "<|im_end|>\n");
}

// Renders a conversation for Qwen2.5. What the assistant says begins behind the word assistant and ends behind the
// newline after its end of turn, as in TRL's training template.
bool qwen_render(const ChatTemplate *t, const json_t *messages, const json_t *tools, bool add_generation_prompt,
                 ChatSpans *said, Str *out, Error *e) {
    size_t i;
    json_t *m;
    const json_t *first = json_array_get(messages, 0);
    str_puts(out, "<|im_start|>system\n");
    if (chat_role_is(first, "system")) chat_add_content(out, first);
    else str_puts(out, t->opening);
    if (json_array_size(tools)) str_puts(out, "\n\n"), qwen_tools(out, tools);
    str_puts(out, "<|im_end|>\n");

    json_array_foreach(messages, i, m) {
        const json_t *calls = chat_tool_calls(m);
        if (chat_role_is(m, "system") && i == 0) continue; // stands above
        if (chat_role_is(m, "tool")) {
            qwen_tool_answer(out, messages, i);
            continue;
        }
        if (!chat_role_is(m, "system") && !chat_role_is(m, "user") && !chat_role_is(m, "assistant"))
            return chat_unknown_role(m, i, t->name, "system, user, assistant and tool", e);
        str_puts(out, "<|im_start|>");
        add_string(out, json_object_get(m, "role"));
        size_t begin = out->n;
        if (calls) qwen_tool_calls(out, m, calls);
        else {
            str_puts(out, "\n");
            chat_add_content(out, m);
        }
        str_puts(out, "<|im_end|>\n");
        if (chat_role_is(m, "assistant")) chat_spans_add(said, begin, out->n);
    }
    if (add_generation_prompt) str_puts(out, "<|im_start|>assistant\n");
    return true;
}

// ---- R1-Zero -------------------------------------------------------------------------------------------------------

// Renders a conversation as R1-Zero's dialogue. A system message replaces the opening. The generation prompt ends in a
// newline, so that a completion can begin with "<think>\n", as the format rewards want. No token ends a turn.
bool r1_zero_render(const ChatTemplate *t, const json_t *messages, const json_t *tools, bool add_generation_prompt,
                    ChatSpans *said, Str *out, Error *e) {
    size_t i;
    json_t *m;
    const json_t *first = json_array_get(messages, 0);
    if (!chat_without_tools(t, messages, tools, e)) return false;
    if (chat_role_is(first, "system")) chat_add_content(out, first);
    else str_puts(out, t->opening);
    str_puts(out, "\n\n");
    json_array_foreach(messages, i, m) {
        if (chat_role_is(m, "system") && i == 0) continue;
        if (!chat_role_is(m, "user") && !chat_role_is(m, "assistant"))
            return chat_unknown_role(m, i, t->name, "user and assistant, and system at the start", e);
        str_puts(out, chat_role_is(m, "user") ? "User: " : "Assistant:\n");
        size_t begin = out->n;
        chat_add_content(out, m);
        if (chat_role_is(m, "assistant")) chat_spans_add(said, begin, out->n);
        str_puts(out, chat_role_is(m, "user") ? "\n" : "\n\n");
    }
    if (add_generation_prompt) str_puts(out, "Assistant:\n");
    return true;
}

// ---- any template ---------------------------------------------------------------------------------------------------

bool chat_render_said(const char *template_name, const json_t *messages, const json_t *tools,
                      bool add_generation_prompt, ChatSpans *said, Str *out, Error *e) {
    const ChatTemplate *t = chat_template_named(template_name, e);
    if (!t) return false;
    if (!json_is_array(messages) || !json_array_size(messages))
        return error_set(e, EXIT_INPUT, "\"messages\" is not a list with at least one message");
    json_t *parsed = NULL; // data sets keep tools as a text too
    if (json_is_written_string(tools)) {
        tools = parsed = json_parse(json_string_value(tools), json_string_length(tools), "\"tools\"", e);
        if (!parsed) return false;
    }
    bool ok = check_tools(tools, e);
    for (size_t i = 0; ok && i < json_array_size(messages); i++) ok = check_message(json_array_get(messages, i), i, e);
    ok = ok && t->render(t, messages, tools, add_generation_prompt, said, out, e);
    json_decref(parsed);
    return ok;
}

bool chat_render(const char *template_name, const json_t *messages, const json_t *tools, bool add_generation_prompt,
                 Str *out, Error *e) {
    return chat_render_said(template_name, messages, tools, add_generation_prompt, NULL, out, e);
}

static void add_message(json_t *messages, const char *role, const char *content) {
    json_t *message = json_object(); // unchecked: the texts may be any bytes
    json_object_set_new(message, "role", json_string(role));
    json_object_set_new_nocheck(message, "content", json_string_nocheck(content));
    json_array_append_new(messages, message);
}

bool chat_prompt(const char *template_name, const char *system, const ChatExample *shown, int n_shown,
                 const char *question, Str *out, Error *e) {
    json_t *messages = json_array();
    if (system) add_message(messages, "system", system);
    for (int i = 0; i < n_shown; i++) {
        add_message(messages, "user", shown[i].question);
        add_message(messages, "assistant", shown[i].answer);
    }
    add_message(messages, "user", question);
    bool ok = chat_render(template_name, messages, NULL, true, out, e);
    json_decref(messages);
    return ok;
}
