// The chat templates by name: which one a model directory comes with, and each in Jinja, as a checkpoint has it for
// other programs.
#include "chat_parts.h"
#include "crc32c.h"
#include "file.h"
#include "json.h"
#include "nearest.h"
#include "text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const char r1_zero_opening[] =
    "A conversation between User and Assistant. The User asks a question and the Assistant solves it. The Assistant "
    "first reasons inside <think> </think>, then gives the final answer alone inside <answer> </answer>:\n"
    "<think>\nthe reasoning\n</think>\n<answer>\nthe answer\n</answer>";

// qwen_render in Jinja.
static const char qwen_jinja[] =
    "{{- '<|im_start|>system\\n' }}\n"
    "{{- messages[0].content if messages[0].role == 'system' else '%OPENING%' }}\n"
    "{%- if tools %}\n"
    "    {{- '\\n\\n%TOOLS_HEAD%' }}\n"
    "    {%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}\n"
    "    {{- '%TOOLS_TAIL%' }}\n"
    "{%- endif %}\n"
    "{{- '<|im_end|>\\n' }}\n"
    "{%- for message in messages %}\n"
    "    {%- if message.role == 'tool' %}\n"
    "        {%- if loop.first or loop.previtem.role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}\n"
    "        {{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' }}\n"
    "        {%- if loop.last or loop.nextitem.role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}\n"
    "    {%- elif message.role in ['user', 'assistant'] or (message.role == 'system' and not loop.first) %}\n"
    "        {%- set calls = (message.tool_calls or []) if message.role == 'assistant' else [] %}\n"
    "        {{- '<|im_start|>' + message.role }}\n"
    "        {%- if message.content or not calls %}{{- '\\n' + message.content }}{%- endif %}\n"
    "        {%- for call in calls %}\n"
    "            {%- set function = call.function if call.function else call %}\n"
    "            {{- '\\n<tool_call>\\n{\"name\": \"' + function.name + '\", \"arguments\": ' }}\n"
    "            {{- function.arguments | tojson }}{{- '}\\n</tool_call>' }}\n"
    "        {%- endfor %}\n"
    "        {{- '<|im_end|>\\n' }}\n"
    "    {%- elif message.role != 'system' %}\n"
    "        {{- raise_exception('no place for the role ' + message.role) }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}\n";

// qwen3_render in Jinja; its opening is the text where an answer begins.
static const char qwen3_jinja[] =
    "{%- set last = namespace(question=messages|length - 1, found=false) %}\n"
    "{%- for message in messages|reverse %}\n"
    "    {%- set answered = message.content and message.content.startswith('<tool_response>') and "
    "message.content.endswith('</tool_response>') %}\n"
    "    {%- if message.role == 'user' and not answered and not last.found %}\n"
    "        {%- set last.found = true %}{%- set last.question = messages|length - loop.index %}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- set system = messages[0].content if messages[0].role == 'system' else none %}\n"
    "{%- if tools or system is not none %}\n"
    "    {{- '<|im_start|>system\\n' + (system or '') }}\n"
    "    {%- if tools %}\n"
    "        {{- '' if system is none else '\\n\\n' }}{{- '%TOOLS_HEAD%' }}\n"
    "        {%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}\n"
    "        {{- '%TOOLS_TAIL%' }}\n"
    "    {%- endif %}\n"
    "    {{- '<|im_end|>\\n' }}\n"
    "{%- endif %}\n"
    "{%- for message in messages %}\n"
    "    {%- set content = message.content or '' %}\n"
    "    {%- if message.role == 'tool' %}\n"
    "        {%- if loop.first or loop.previtem.role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}\n"
    "        {{- '\\n<tool_response>\\n' + content + '\\n</tool_response>' }}\n"
    "        {%- if loop.last or loop.nextitem.role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}\n"
    "    {%- elif message.role == 'assistant' %}\n"
    "        {%- set thought = '' %}\n"
    "        {%- if message.reasoning_content is string %}\n"
    "            {%- set thought = message.reasoning_content %}\n"
    "        {%- elif '</think>' in content %}\n"
    "            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}\n"
    "            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}\n"
    "        {%- endif %}\n"
    "        {{- '<|im_start|>assistant\\n' }}\n"
    "        {%- if loop.index0 > last.question and (loop.last or thought) %}\n"
    "            {{- '<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}\n"
    "        {%- else %}{{- content }}\n"
    "        {%- endif %}\n"
    "        {%- for call in message.tool_calls or [] %}\n"
    "            {%- set function = call.function if call.function else call %}\n"
    "            {{- '' if loop.first and not content else '\\n' }}\n"
    "            {{- '<tool_call>\\n{\"name\": \"' + function.name + '\", \"arguments\": ' }}\n"
    "            {{- function.arguments if function.arguments is string else function.arguments | tojson }}\n"
    "            {{- '}\\n</tool_call>' }}\n"
    "        {%- endfor %}\n"
    "        {{- '<|im_end|>\\n' }}\n"
    "    {%- elif message.role == 'user' or (message.role == 'system' and not loop.first) %}\n"
    "        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>\\n' }}\n"
    "    {%- elif message.role != 'system' %}\n"
    "        {{- raise_exception('no place for the role ' + message.role) }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n%OPENING%' }}{%- endif %}\n";

// llama_render in Jinja.
static const char llama_jinja[] =
    "{{- '<|begin_of_text|>' }}\n"
    "{%- set opening = '%OPENING%' %}\n"
    "{%- set system = messages[0].content | trim if messages[0].role == 'system' else '' %}\n"
    "{%- if opening %}{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' + opening + system + '<|eot_id|>' }}"
    "{%- endif %}\n"
    "{%- for message in messages %}\n"
    "    {%- if message.role not in ['system', 'user', 'assistant'] or message.tool_calls %}\n"
    "        {{- raise_exception('no place for tools or the role ' + message.role) }}\n"
    "    {%- elif not (opening and loop.first and message.role == 'system') %}\n"
    "        {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' }}\n"
    "        {{- message.content | trim + '<|eot_id|>' }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}\n";

// r1_zero_render in Jinja.
static const char r1_zero_jinja[] =
    "{{- messages[0].content if messages[0].role == 'system' else '%OPENING%' }}\n"
    "{{- '\\n\\n' }}\n"
    "{%- for message in messages %}\n"
    "    {%- if message.role == 'user' %}{{- 'User: ' + message.content + '\\n' }}\n"
    "    {%- elif message.role == 'assistant' %}{{- 'Assistant:\\n' + message.content + '\\n\\n' }}\n"
    "    {%- elif message.role != 'system' or not loop.first %}\n"
    "        {{- raise_exception('no place for the role ' + message.role) }}\n"
    "    {%- endif %}\n"
    "{%- endfor %}\n"
    "{%- if add_generation_prompt %}{{- 'Assistant:\\n' }}{%- endif %}\n";

const ChatTemplate chat_templates[] = {
    {"qwen2.5",
     qwen_render,
     KEEPS_NEVER,
     "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.",
     "<|im_end|>",
     qwen_jinja,
     {2506, 0xc10d9fd8}},
    {"qwen2.5-base",
     qwen_render,
     KEEPS_CHOSEN,
     "You are a helpful assistant.",
     "<|im_end|>",
     qwen_jinja,
     {2426, 0x1b833deb}},
    {"qwen3", qwen3_render, KEEPS_NEVER, NULL, "<|im_end|>", qwen3_jinja, {4168, 0x974171a5}},
    {"qwen3-nothink", qwen3_render, KEEPS_NEVER, "<think>\n\n</think>\n\n", "<|im_end|>", qwen3_jinja, {0, 0}},
    {"llama3", llama_render, KEEPS_NEVER, NULL, "<|eot_id|>", llama_jinja, {389, 0xa6ebd3a2}},
    {"llama3.1",
     llama_render,
     KEEPS_NEVER,
     "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n",
     "<|eot_id|>",
     llama_jinja,
     {4613, 0x75d84296}},
    {"r1-zero", r1_zero_render, KEEPS_ALWAYS, r1_zero_opening, NULL, r1_zero_jinja, {0, 0}},
};
const int chat_template_count = sizeof chat_templates / sizeof *chat_templates;

const ChatTemplate *chat_template_named(const char *name, Error *e) {
    const char *names[sizeof chat_templates / sizeof *chat_templates];
    for (int i = 0; i < chat_template_count; i++) {
        names[i] = chat_templates[i].name;
        if (!strcmp(name, names[i])) return &chat_templates[i];
    }
    const char *near = nearest_name(name, names, chat_template_count);
    error_set(e, EXIT_CONFIG, "there is no chat template \"%.60s\"%s%s%s; the templates are", name,
              near ? " (did you mean " : "", near ? near : "", near ? "?)" : "");
    for (int i = 0; e && i < chat_template_count; i++) {
        size_t n = strlen(e->text);
        snprintf(e->text + n, sizeof e->text - n, "%s %s", i ? "," : "", names[i]);
    }
    return NULL;
}

const char *chat_end_of_turn(const char *template_name) {
    return chat_template_named(template_name, NULL)->end_of_turn;
}

bool chat_keeps_opening(const char *template_name, bool chosen) {
    ChatKeeps keeps = chat_template_named(template_name, NULL)->keeps;
    return keeps == KEEPS_ALWAYS || (keeps == KEEPS_CHOSEN && chosen);
}

const char *chat_opening(const char *template_name) { return chat_template_named(template_name, NULL)->opening; }

// ---- in Jinja ------------------------------------------------------------------------------------------------------

// Writes a text as the inside of a Jinja string.
static void jinja_string(Str *out, const char *text) {
    for (; *text; text++)
        if (*text == '\n') str_puts(out, "\\n");
        else str_printf(out, *text == '\'' || *text == '\\' ? "\\%c" : "%c", *text);
}

char *chat_jinja(const char *template_name) {
    const ChatTemplate *t = chat_template_named(template_name, NULL);
    const char *const marks[][2] = {{"%OPENING%", t->opening ? t->opening : ""},
                                    {"%TOOLS_HEAD%", qwen_tools_head},
                                    {"%TOOLS_TAIL%", qwen_tools_tail}};
    Str out = {0};
    for (const char *p = t->jinja; *p;) {
        size_t k = 0;
        while (k < 3 && strncmp(p, marks[k][0], strlen(marks[k][0]))) k++;
        if (k < 3) jinja_string(&out, marks[k][1]), p += strlen(marks[k][0]);
        else str_add(&out, p++, 1);
    }
    return out.s;
}

// ---- what a model directory came with ------------------------------------------------------------------------------

// The name of our template that this Jinja text is, or NULL.
static const char *known_jinja(const char *jinja, size_t n) {
    Text text = text_strip((Text){jinja, n});
    uint32_t crc = crc32c(0, text.s, text.n);
    for (int i = 0; i < chat_template_count; i++) {
        const ChatTemplate *t = &chat_templates[i];
        char *own = chat_jinja(t->name);
        bool same = (text.n && text.n == t->published.bytes && crc == t->published.crc) ||
                    text_equal(text, text_strip(text_of(own)));
        free(own);
        if (same) return t->name;
    }
    return NULL;
}

// The template in tokenizer_config.json: a text, or a list of named texts, of which `default` is for plain
// conversations.
static const json_t *config_jinja(const json_t *config) {
    const json_t *field = json_object_get(config, "chat_template"), *entry;
    size_t i;
    json_array_foreach(field, i, entry) {
        const char *name = json_string_value(json_object_get(entry, "name"));
        if (name && !strcmp(name, "default")) return json_object_get(entry, "template");
    }
    return json_is_array(field) || json_is_null(field) ? NULL : field;
}

bool chat_template_of(const char *tokenizer_path, const char **name, char **unknown, Error *e) {
    const char *slash = strrchr(tokenizer_path, '/');
    int dir = slash ? (int)(slash - tokenizer_path) + 1 : 0;
    char *file = xasprintf("%.*schat_template.jinja", dir, tokenizer_path), *text = NULL;
    struct stat info;
    size_t n;
    bool ok = true, found = stat(file, &info) == 0;
    *name = NULL, *unknown = NULL;
    if (found) {
        text = file_read(file, (size_t)1 << 20, &n, e);
        ok = text != NULL;
        if (ok) *name = known_jinja(text, n);
    } else {
        free(file);
        file = xasprintf("%.*stokenizer_config.json", dir, tokenizer_path);
        json_t *config = stat(file, &info) ? NULL : json_read(file, e);
        ok = config || stat(file, &info);
        const json_t *jinja = config_jinja(config);
        found = jinja != NULL;
        if (json_is_written_string(jinja)) *name = known_jinja(json_string_value(jinja), json_string_length(jinja));
        json_decref(config);
    }
    if (ok && found && !*name) *unknown = file, file = NULL;
    free(text);
    free(file);
    return ok;
}

bool chat_template_choose(const char *chosen, const char *tokenizer_path, const char **name, Error *e) {
    if (strcmp(chosen, "auto")) {
        const ChatTemplate *t = chat_template_named(chosen, e);
        *name = t ? t->name : NULL;
        return t != NULL;
    }
    char *unknown;
    if (!chat_template_of(tokenizer_path, name, &unknown, e)) return false;
    if (unknown) {
        error_set(e, EXIT_INPUT,
                  "%s: the chat template is none that is known here; choose what messages are rendered with: "
                  "chat_template=",
                  unknown);
        for (int i = 0; e && i < chat_template_count; i++) {
            size_t n = strlen(e->text);
            snprintf(e->text + n, sizeof e->text - n, "%s%s", i ? (i + 1 < chat_template_count ? ", " : " or ") : "",
                     chat_templates[i].name);
        }
        free(unknown);
        return false;
    }
    if (!*name) *name = chat_templates[0].name;
    return true;
}
