// Reading tests in the forms that data sets have: Open R1's verification_info, APPS and TACO, HumanEval, MBPP,
// LeetCode.
#include "code.h"
#include <stdio.h>
#include <stdlib.h>

static CodeCase *add_case(CodeTask *t, CaseKind kind) {
    t->item = xrealloc(t->item, (size_t)(t->n + 1) * sizeof *t->item);
    t->item[t->n] = (CodeCase){.kind = kind};
    return &t->item[t->n++];
}

void code_task_free(CodeTask *t) {
    for (int i = 0; i < t->n; i++) {
        free(t->item[i].input);
        free(t->item[i].output);
        free(t->item[i].function);
        json_decref(t->item[i].arguments);
        json_decref(t->item[i].result);
    }
    free(t->item);
    free(t->prefix);
    free(t->entry);
    *t = (CodeTask){0};
}

// ---- Python source, read only as far as needed -------------------------------------------------------------------

static size_t identifier_end(Text t, size_t at) {
    while (at < t.n &&
           (t.s[at] == '_' || (t.s[at] >= '0' && t.s[at] <= '9') || ((t.s[at] | 32) >= 'a' && (t.s[at] | 32) <= 'z')))
        at++;
    return at;
}

// The name of the last function whose definition begins a line; s == NULL where there is none.
static Text last_function(Text t) {
    Text name = {0};
    for (size_t at = 0; at < t.n;) {
        size_t skip = text_word_at(t, at, "def ") ? 4 : text_word_at(t, at, "async def ") ? 10 : 0;
        size_t end = identifier_end(t, at + skip);
        if (skip && end > at + skip) name = text_slice(t, at + skip, end);
        const char *newline = memchr(t.s + at, '\n', t.n - at);
        at = newline ? (size_t)(newline - t.s) + 1 : t.n;
    }
    return name;
}

static bool defines(Text t, const char *function) {
    char *open = xasprintf("def %s(", function);
    bool found = text_find(t, 0, text_of(open)) != TEXT_NONE;
    free(open);
    return found;
}

static char *copy(const json_t *text) { return xstrndup(json_string_value(text), json_string_length(text)); }
static bool is_text(const json_t *j) {
    return json_is_string(j) && strlen(json_string_value(j)) == json_string_length(j);
}

// ---- the forms ------------------------------------------------------------------------------------------------------

// HumanEval: test code, which may define check(candidate).
static bool read_test(const char *code, const char *setup, CodeTask *t) {
    CodeCase *c = add_case(t, CASE_TEST);
    c->input = *setup ? xasprintf("%s\n%s", setup, code) : xstrdup(code);
    return true;
}

// MBPP: a list of assertions, each a case of its own.
static bool read_assertions(const json_t *list, const char *setup, CodeTask *t) {
    size_t i;
    const json_t *code;
    json_array_foreach(list, i, code) {
        if (!is_text(code) || !read_test(json_string_value(code), setup, t)) return false;
    }
    return t->n > 0;
}

// Reads the arguments of a call: a list of values, or a text with one JSON value on each line.
static json_t *read_values(const json_t *input) {
    if (json_is_array(input)) return json_incref((json_t *)input);
    if (!json_is_string(input)) return NULL;
    json_t *list = json_array();
    Text t = {json_string_value(input), json_string_length(input)};
    for (size_t at = 0, end; at < t.n; at = end + 1) {
        const char *newline = memchr(t.s + at, '\n', t.n - at);
        end = newline ? (size_t)(newline - t.s) : t.n;
        Text line = text_strip(text_slice(t, at, end));
        json_t *value = line.n ? code_value_read(line) : NULL;
        if (line.n && !value) {
            json_decref(list);
            return NULL;
        }
        if (value) json_array_append_new(list, value);
    }
    return list;
}

static bool read_pair(const json_t *input, const json_t *output, const json_t *function, CodeTask *t) {
    if (is_text(function)) {
        CodeCase *c = add_case(t, CASE_CALL);
        c->function = copy(function);
        c->arguments = read_values(input);
        // Where the arguments are a list, the result is a value too; where they are a text, it is a text of a value if
        // possible.
        Text text = {json_string_value(output), json_string_length(output)};
        c->result = json_is_string(input) && json_is_string(output) ? code_value_read(text) : NULL;
        if (!c->result) c->result = json_incref((json_t *)output);
        return c->arguments && c->result;
    }
    if (!json_is_string(input) || !is_text(output)) return false;
    CodeCase *c = add_case(t, CASE_OUTPUT);
    c->input = copy(input);
    c->output = copy(output);
    return true;
}

// Open R1: [{"type": "stdin_stdout" or "function_call", "input", "output", "fn_name"}].
static bool read_cases(const json_t *list, const json_t *function, CodeTask *t) {
    size_t i;
    const json_t *c;
    json_array_foreach(list, i, c) {
        const json_t *own = json_object_get(c, "fn_name");
        if (!read_pair(json_object_get(c, "input"), json_object_get(c, "output"), is_text(own) ? own : function, t))
            return false;
    }
    return t->n > 0;
}

// APPS, TACO: {"inputs": [..], "outputs": [..], "fn_name"}.
static bool read_columns(const json_t *inputs, const json_t *outputs, const json_t *function, CodeTask *t) {
    if (!json_is_array(outputs) || json_array_size(inputs) != json_array_size(outputs)) return false;
    for (size_t i = 0; i < json_array_size(inputs); i++)
        if (!read_pair(json_array_get(inputs, i), json_array_get(outputs, i), function, t)) return false;
    return t->n > 0;
}

// The lines of test_imports, then test_setup_code.
static char *read_setup(const json_t *j) {
    Str s = {0};
    size_t i;
    const json_t *line, *setup = json_object_get(j, "test_setup_code");
    str_puts(&s, "");
    json_array_foreach(json_object_get(j, "test_imports"), i, line) {
        if (is_text(line)) str_printf(&s, "%s\n", json_string_value(line));
    }
    if (is_text(setup)) str_puts(&s, json_string_value(setup));
    return s.s;
}

static bool read_object(const json_t *j, CodeTask *t) {
    const json_t *cases = json_object_get(j, "test_cases"), *inputs = json_object_get(j, "inputs");
    const json_t *list = json_object_get(j, "test_list"), *test = json_object_get(j, "test");
    const json_t *function = json_object_get(j, "fn_name"), *entry = json_object_get(j, "entry_point");
    const json_t *prompt = json_object_get(j, "prompt");
    if (is_text(entry)) t->entry = copy(entry);
    if (is_text(prompt)) t->prefix = copy(prompt);
    char *setup = read_setup(j);
    bool ok = false;
    if (json_is_array(cases)) ok = read_cases(cases, function, t);
    else if (json_is_array(inputs)) ok = read_columns(inputs, json_object_get(j, "outputs"), function, t);
    else if (json_is_array(list)) ok = read_assertions(list, setup, t);
    else if (is_text(test)) ok = read_test(json_string_value(test), setup, t);
    free(setup);
    return ok;
}

// Reads test code alone. Where it defines check, the function to check is the last one of the prompt, whose code comes
// first.
static bool read_code(const char *code, const char *prompt, CodeTask *t) {
    if (!text_strip(text_of(code)).n) return false;
    if (defines(text_of(code), "check")) {
        Text name = last_function(text_of(prompt));
        if (name.s) {
            t->entry = xstrndup(name.s, name.n);
            t->prefix = xstrdup(prompt);
        }
    }
    return read_test(code, "", t);
}

bool code_task_read(const char *answer, const char *prompt, CodeTask *out) {
    *out = (CodeTask){0};
    json_t *j = code_value_read(text_of(answer));
    bool ok = json_is_object(j) ? read_object(j, out)
              : json_is_array(j)
                  ? json_is_object(json_array_get(j, 0)) ? read_cases(j, NULL, out) : read_assertions(j, "", out)
                  : read_code(answer, prompt, out);
    json_decref(j);
    if (!ok) code_task_free(out);
    return ok;
}

// ---- the program ----------------------------------------------------------------------------------------------------

// Whether the fence at byte `at` opens a block of the language: its name fills the line; *inside is what follows.
static bool opens_block(Text t, size_t at, CodeLanguage language, size_t *inside) {
    static const char *const names[][4] = {{"python", "python3", "py", NULL}, {"c", NULL}, {"cpp", "c++", "cc", NULL}};
    size_t name = at + 3, end = name;
    while (end < t.n && t.s[end] != '\n' && t.s[end] != '`') end++;
    if (text_byte(t, end) != '\n') return false;
    *inside = end + 1;
    for (const char *const *n = names[language]; *n; n++)
        if (text_is(text_strip(text_slice(t, name, end)), *n)) return true;
    return false;
}

// A fence with the language's name opens a block even where a fence before it was never closed.
Text code_block(Text t, CodeLanguage language) {
    Text fence = text_of("```"), best = {0};
    size_t inside, next;
    for (size_t at = text_find(t, 0, fence); at != TEXT_NONE; at = next) {
        bool opens = opens_block(t, at, language, &inside);
        next = text_find(t, opens ? inside : at + fence.n, fence);
        if (!opens || next == TEXT_NONE) continue;
        size_t after;
        if (opens_block(t, next, language, &after)) continue; // was never closed
        best = text_slice(t, inside, next);
        next = text_find(t, next + fence.n, fence);
    }
    return best;
}
