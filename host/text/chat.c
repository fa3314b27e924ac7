// Chat templates: a conversation as the text a model was trained on. Qwen2.5's follows the Jinja template in the
// models' tokenizer_config.json, tools included; R1-Zero's is the plain dialogue of DeepSeek-R1-Zero in our words.
#include "chat.h"
#include "json.h"
#include "nearest.h"
#include "tokenizer.h"
#include <stdlib.h>
#include <stdio.h>
#include <string.h>

const char chat_system_prompt[] =
    "First reason about the question inside <think> </think>, then give the final answer alone inside "
    "<answer> </answer>. Write it like this:\n<think>\nyour reasoning\n</think>\n<answer>\nthe answer\n</answer>\n";

static const char r1_zero_opening[] =
    "A conversation between User and Assistant. The User asks a question and the Assistant solves it. The Assistant "
    "first reasons inside <think> </think>, then gives the final answer alone inside <answer> </answer>:\n"
    "<think>\nthe reasoning\n</think>\n<answer>\nthe answer\n</answer>";

// ---- JSON as Python's json.dumps(ensure_ascii=False) writes it, which is what the models saw -------------------------

static void dump_string(Str *out, const char *s, size_t n) {
    static const char plain[] = "\"\\\n\r\t\b\f", letter[] = "\"\\nrtbf";
    str_puts(out, "\"");
    for (size_t i = 0; i < n; i++) {
        const char *found = s[i] ? strchr(plain, s[i]) : NULL;
        if (found) str_printf(out, "\\%c", letter[found - plain]);
        else if ((unsigned char)s[i] < 0x20) str_printf(out, "\\u%04x", (unsigned char)s[i]);
        else str_add(out, s + i, 1);
    }
    str_puts(out, "\"");
}

// Python's repr of a float: the shortest digits that read back, with an exponent below 1e-4 and from 1e16 on.
static void dump_real(Str *out, double x) {
    char text[40], digits[24];
    int n = 0;
    for (int precision = 0; precision < 17; precision++) {
        snprintf(text, sizeof text, "%.*e", precision, x);
        if (strtod(text, NULL) == x) break;
    }
    const char *p = text;
    if (*p == '-') str_add(out, p++, 1);
    for (; *p != 'e'; p++)
        if (*p != '.') digits[n++] = *p;
    int exponent = atoi(p + 1);
    if (exponent < -4 || exponent >= 16) {
        str_add(out, digits, 1);
        if (n > 1) str_printf(out, ".%.*s", n - 1, digits + 1);
        str_printf(out, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
        return;
    }
    if (exponent < 0) str_puts(out, "0.");
    for (int i = exponent; i < -1; i++) str_puts(out, "0");
    for (int i = 0; i < n || i <= exponent; i++) {
        if (exponent >= 0 && i == exponent + 1) str_puts(out, ".");
        str_add(out, i < n ? &digits[i] : "0", 1);
    }
    if (exponent >= 0 && n <= exponent + 1) str_puts(out, ".0");
}

static void dump(Str *out, const json_t *j) {
    const char *key;
    json_t *value;
    size_t i;
    switch (json_typeof(j)) {
    case JSON_OBJECT:
        str_puts(out, "{");
        i = 0;
        json_object_foreach((json_t *)j, key, value) {
            if (i++) str_puts(out, ", ");
            dump_string(out, key, strlen(key));
            str_puts(out, ": ");
            dump(out, value);
        }
        str_puts(out, "}");
        break;
    case JSON_ARRAY:
        str_puts(out, "[");
        json_array_foreach(j, i, value) {
            if (i) str_puts(out, ", ");
            dump(out, value);
        }
        str_puts(out, "]");
        break;
    case JSON_STRING: dump_string(out, json_string_value(j), json_string_length(j)); break;
    case JSON_INTEGER: str_printf(out, "%lld", (long long)json_integer_value(j)); break;
    case JSON_REAL: dump_real(out, json_real_value(j)); break;
    case JSON_TRUE: str_puts(out, "true"); break;
    case JSON_FALSE: str_puts(out, "false"); break;
    case JSON_NULL: str_puts(out, "null"); break;
    }
}

// ---- messages ------------------------------------------------------------------------------------------------------

static bool role_is(const json_t *message, const char *role) {
    const char *s = json_string_value(json_object_get(message, "role"));
    return s && !strcmp(s, role);
}

static void add_string(Str *out, const json_t *s) { str_add(out, json_string_value(s), json_string_length(s)); }
static void add_content(Str *out, const json_t *message) { add_string(out, json_object_get(message, "content")); }

// The assistant's tool calls: a list with something in it, or NULL.
static const json_t *tool_calls(const json_t *message) {
    const json_t *calls = json_object_get(message, "tool_calls");
    return role_is(message, "assistant") && json_array_size(calls) ? calls : NULL;
}

// A call is {name, arguments}, or {type, function: {name, arguments}} as OpenAI writes it.
static const json_t *tool_function(const json_t *call) {
    const json_t *function = json_object_get(call, "function");
    return function ? function : call;
}

static bool check_message(const json_t *message, size_t i, Error *e) {
    const json_t *role = json_object_get(message, "role"), *content = json_object_get(message, "content"), *call;
    const json_t *calls = json_object_get(message, "tool_calls");
    size_t k;
    if (!json_is_string(role))
        return error_set(e, EXIT_INPUT, "messages[%zu]: no string \"role\"; a message is {\"role\", \"content\"}", i);
    if (calls && !json_is_array(calls) && !json_is_null(calls))
        return error_set(e, EXIT_INPUT, "messages[%zu]: \"tool_calls\" is not a list", i);
    if (!json_is_string(content) && !(tool_calls(message) && (!content || json_is_null(content))))
        return error_set(e, EXIT_INPUT, "messages[%zu]: no string \"content\"", i);
    json_array_foreach(tool_calls(message), k, call) {
        const json_t *function = tool_function(call);
        if (!json_is_string(json_object_get(function, "name")) || !json_object_get(function, "arguments"))
            return error_set(e, EXIT_INPUT, "messages[%zu].tool_calls[%zu]: needs a string \"name\" and \"arguments\"",
                             i, k);
    }
    return true;
}

static bool unknown_role(const json_t *message, size_t i, const char *template, const char *roles, Error *e) {
    Str shown = {0};
    const char *role = json_string_value(json_object_get(message, "role"));
    str_visible(&shown, role, strnlen(role, 40));
    error_set(e, EXIT_INPUT, "messages[%zu]: the template %s has no place for the role \"%s\" here; it knows %s", i,
              template, shown.s, roles);
    str_free(&shown);
    return false;
}

// ---- Qwen2.5 -------------------------------------------------------------------------------------------------------

static void qwen_tools(Str *out, const json_t *tools) {
    size_t i;
    json_t *tool;
    str_puts(out, "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
                  "You are provided with function signatures within <tools></tools> XML tags:\n<tools>");
    json_array_foreach(tools, i, tool) {
        str_puts(out, "\n");
        dump(out, tool);
    }
    str_puts(out, "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
                  "<tool_call></tool_call> XML tags:\n<tool_call>\n{\"name\": <function-name>, \"arguments\": "
                  "<args-json-object>}\n</tool_call>");
}

static void qwen_tool_calls(Str *out, const json_t *message, const json_t *calls) {
    size_t i;
    json_t *call;
    if (json_string_length(json_object_get(message, "content"))) {
        str_puts(out, "\n");
        add_content(out, message);
    }
    json_array_foreach(calls, i, call) {
        const json_t *function = tool_function(call);
        str_puts(out, "\n<tool_call>\n{\"name\": \"");
        add_string(out, json_object_get(function, "name"));
        str_puts(out, "\", \"arguments\": ");
        dump(out, json_object_get(function, "arguments"));
        str_puts(out, "}\n</tool_call>");
    }
}

static bool qwen_render(const char *name, const char *default_system, const json_t *messages, const json_t *tools,
                        bool add_generation_prompt, Str *out, Error *e) {
    size_t i;
    json_t *m;
    const json_t *first = json_array_get(messages, 0);
    str_puts(out, "<|im_start|>system\n");
    if (role_is(first, "system")) add_content(out, first);
    else str_puts(out, default_system);
    if (json_array_size(tools)) qwen_tools(out, tools);
    str_puts(out, "<|im_end|>\n");

    json_array_foreach(messages, i, m) {
        const json_t *calls = tool_calls(m);
        if (role_is(m, "system") && i == 0) continue; // stands above
        if (role_is(m, "tool")) {                     // answers that follow each other share one turn
            if (i == 0 || !role_is(json_array_get(messages, i - 1), "tool")) str_puts(out, "<|im_start|>user");
            str_puts(out, "\n<tool_response>\n");
            add_content(out, m);
            str_puts(out, "\n</tool_response>");
            if (!role_is(json_array_get(messages, i + 1), "tool")) str_puts(out, "<|im_end|>\n");
            continue;
        }
        if (!role_is(m, "system") && !role_is(m, "user") && !role_is(m, "assistant"))
            return unknown_role(m, i, name, "system, user, assistant and tool", e);
        str_puts(out, "<|im_start|>");
        add_string(out, json_object_get(m, "role"));
        if (calls) qwen_tool_calls(out, m, calls);
        else {
            str_puts(out, "\n");
            add_content(out, m);
        }
        str_puts(out, "<|im_end|>\n");
    }
    if (add_generation_prompt) str_puts(out, "<|im_start|>assistant\n");
    return true;
}

// ---- R1-Zero -------------------------------------------------------------------------------------------------------

// A system message takes the place of the opening. The generation prompt ends in a newline, so that a completion can
// begin with "<think>\n" as the format rewards want it.
static bool r1_zero_render(const char *name, const char *opening, const json_t *messages, const json_t *tools,
                           bool add_generation_prompt, Str *out, Error *e) {
    size_t i;
    json_t *m;
    const json_t *first = json_array_get(messages, 0);
    if (json_array_size(tools)) return error_set(e, EXIT_INPUT, "the template %s has no place for tools", name);
    if (role_is(first, "system")) add_content(out, first);
    else str_puts(out, opening);
    str_puts(out, "\n\n");
    json_array_foreach(messages, i, m) {
        if (role_is(m, "system") && i == 0) continue;
        if (tool_calls(m) || (!role_is(m, "user") && !role_is(m, "assistant")))
            return unknown_role(m, i, name, "user and assistant, and system at the start", e);
        str_puts(out, role_is(m, "user") ? "User: " : "Assistant:\n");
        add_content(out, m);
        str_puts(out, role_is(m, "user") ? "\n" : "\n\n");
    }
    if (add_generation_prompt) str_puts(out, "Assistant:\n");
    return true;
}

// ---- the templates there are ----------------------------------------------------------------------------------------

static const struct {
    const char *name;
    bool (*render)(const char *name, const char *opening, const json_t *messages, const json_t *tools,
                   bool add_generation_prompt, Str *out, Error *e);
    const char *opening; // stands where a system message would
} templates[] = {
    {"qwen2.5", qwen_render, "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."},
    {"qwen2.5-base", qwen_render, "You are a helpful assistant."},
    {"r1-zero", r1_zero_render, r1_zero_opening},
};
enum { TEMPLATES = sizeof templates / sizeof *templates };

bool chat_render(const char *template_name, const json_t *messages, const json_t *tools, bool add_generation_prompt,
                 Str *out, Error *e) {
    const char *names[TEMPLATES];
    int which = -1;
    for (int i = 0; i < TEMPLATES; i++) {
        names[i] = templates[i].name;
        if (!strcmp(template_name, names[i])) which = i;
    }
    if (which < 0) {
        const char *near = nearest_name(template_name, names, TEMPLATES);
        error_set(e, EXIT_CONFIG, "there is no chat template \"%.60s\"%s%s%s; the templates are", template_name,
                  near ? " (did you mean " : "", near ? near : "", near ? "?)" : "");
        for (int i = 0; e && i < TEMPLATES; i++) {
            size_t n = strlen(e->text);
            snprintf(e->text + n, sizeof e->text - n, "%s %s", i ? "," : "", names[i]);
        }
        return false;
    }
    if (!json_is_array(messages) || !json_array_size(messages))
        return error_set(e, EXIT_INPUT, "\"messages\" is not a list with at least one message");
    if (tools && !json_is_null(tools) && !json_is_array(tools))
        return error_set(e, EXIT_INPUT, "\"tools\" is not a list");
    for (size_t i = 0; i < json_array_size(messages); i++)
        if (!check_message(json_array_get(messages, i), i, e)) return false;
    return templates[which].render(template_name, templates[which].opening, messages, tools, add_generation_prompt, out,
                                   e);
}

bool chat_prompt(const char *template_name, const char *system, const char *question, Str *out, Error *e) {
    json_t *messages = json_array(), *message;
    const char *role[] = {"system", "user"}, *content[] = {system, question};
    for (int i = system ? 0 : 1; i < 2; i++) {
        message = json_object(); // unchecked: the texts may be any bytes
        json_object_set_new(message, "role", json_string(role[i]));
        json_object_set_new_nocheck(message, "content", json_string_nocheck(content[i]));
        json_array_append_new(messages, message);
    }
    bool ok = chat_render(template_name, messages, NULL, true, out, e);
    json_decref(messages);
    return ok;
}

const char *chat_template_of(const char *tokenizer_path) {
    const char *slash = strrchr(tokenizer_path, '/');
    char *path = xasprintf("%.*stokenizer_config.json", slash ? (int)(slash - tokenizer_path) + 1 : 0, tokenizer_path);
    const char *name = NULL;
    json_t *file = json_read(path, NULL);
    const char *jinja = json_string_value(json_object_get(file, "chat_template"));
    for (int i = 0; i < TEMPLATES && !name && jinja; i++) {
        char *quoted = xasprintf("'<|im_start|>system\\n%s<|im_end|>", templates[i].opening);
        if (strstr(jinja, quoted)) name = templates[i].name;
        free(quoted);
    }
    json_decref(file);
    free(path);
    return name;
}
