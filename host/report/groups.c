// The groups of completions.jsonl. See groups.h.
//
// As in curves.c: when there is too much, every other group is dropped and half as many are kept from then on. Only the
// lines of groups that are kept are parsed.
#include "groups.h"
#include "json.h"
#include <stdlib.h>
#include <string.h>

enum {
    RAW_MOST = 32 << 20,    // bytes of one group's lines
    GROUP_MOST = 256 << 10, // bytes of one group's JSON
    TEXT_MOST = 16 << 10,   // bytes of a text; a longer one keeps 3/4 from its start, 1/4 from its end
};

Groups groups_new(size_t budget) { return (Groups){.budget = budget, .stride = 1}; }

void groups_free(Groups *g) {
    for (int i = 0; i < g->n; i++) free(g->group[i]);
    free(g->group);
    str_free(&g->raw);
    *g = (Groups){0};
}

// The length of what comes before "completion" in a line (step and prompt), which the lines of one group have in
// common. Quotes inside JSON strings are escaped, so the search cannot find the key's name inside a prompt.
static size_t key_of(const char *line) {
    const char *end = strstr(line, ", \"completion\": ");
    return end ? (size_t)(end - line) : 0;
}

// ---- one group's JSON -----------------------------------------------------------------------------------------------

static size_t character_start(const char *s, size_t at) {
    while (at > 0 && ((unsigned char)s[at] & 0xc0) == 0x80) at--;
    return at;
}

static void add_text(Str *s, const json_t *text, size_t most) {
    const char *t = json_is_string(text) ? json_string_value(text) : "";
    size_t n = json_is_string(text) ? json_string_length(text) : 0;
    if (n <= most) return str_json(s, t, n);
    size_t head = character_start(t, most / 4 * 3), tail = character_start(t, n - most / 4);
    str_puts(s, "{\"head\": ");
    str_json(s, t, head);
    str_printf(s, ", \"cut\": %zu, \"tail\": ", tail - head);
    str_json(s, t + tail, n - tail);
    str_puts(s, "}");
}

static void add_value(Str *s, const char *name, const json_t *value) {
    char *text = value ? json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(9)) : NULL;
    str_printf(s, ", \"%s\": %s", name, text ? text : "null");
    free(text);
}

static void add_item(Str *s, const json_t *row, size_t most) {
    str_puts(s, "{\"completion\": ");
    add_text(s, json_object_get(row, "completion"), most);
    add_value(s, "reward", json_object_get(row, "reward"));
    add_value(s, "advantage", json_object_get(row, "advantage"));
    const json_t *rewards = json_object_get(row, "rewards");
    if (json_object_size(rewards) <= 64) add_value(s, "rewards", rewards);
    const json_t *tokens = json_object_get(row, "tokens");
    char *shades = tokens ? json_dumps(tokens, JSON_COMPACT | JSON_REAL_PRECISION(4)) : NULL;
    if (shades && strlen(shades) <= 2 * most) str_printf(s, ", \"tokens\": %s", shades);
    free(shades);
    if (json_is_true(json_object_get(row, "truncated"))) str_puts(s, ", \"truncated\": true");
    str_puts(s, "}");
}

// Appends the JSON of the group whose lines are in g->raw, and adds its torn lines to *torn.
static void group_json(const Groups *g, Str *out, int64_t *torn) {
    size_t most = g->budget / 2 < GROUP_MOST ? g->budget / 2 : GROUP_MOST;
    size_t text = most / 4 < TEXT_MOST ? most / 4 : TEXT_MOST, begin = out->n;
    int64_t left = g->dropped;
    bool first = true;
    for (const char *line = g->raw.s, *end; line && line < g->raw.s + g->raw.n; line = end + 1) {
        end = memchr(line, '\n', (size_t)(g->raw.s + g->raw.n - line));
        if (out->n - begin + 64 > most) { // nothing more will fit
            left++;
            continue;
        }
        json_t *row = json_parse(line, (size_t)(end - line), "", NULL);
        if (!json_is_object(row)) {
            json_decref(row);
            ++*torn;
            continue;
        }
        if (first) {
            const json_t *step = json_object_get(row, "step");
            str_printf(out, "{\"step\": %lld, \"prompt\": ", (long long)json_integer_value(step));
            add_text(out, json_object_get(row, "prompt"), text);
            str_puts(out, ", \"answer\": ");
            add_text(out, json_object_get(row, "answer"), text);
            str_puts(out, ", \"items\": [");
        }
        Str item = {0};
        add_item(&item, row, text);
        if (first || out->n - begin + item.n <= most) {
            str_puts(out, first ? "\n" : ",\n");
            str_add(out, item.s, item.n);
        } else left++;
        first = false;
        str_free(&item);
        json_decref(row);
    }
    if (!first) str_printf(out, "], \"left\": %lld}", (long long)left);
}

// ---- which are kept -------------------------------------------------------------------------------------------------

static void thin(Groups *g) {
    for (int i = 0; i < g->n; i++) {
        if (i % 2 == 0) {
            g->group[i / 2] = g->group[i];
            continue;
        }
        g->bytes -= strlen(g->group[i]);
        free(g->group[i]);
    }
    g->n = (g->n + 1) / 2;
    g->stride *= 2;
}

static bool last_is_wanted(const Groups *g) { return g->seen && (g->seen - 1) % g->stride == 0; }

// Called when the last group is complete: keeps or drops it.
static void group_end(Groups *g) {
    if (!last_is_wanted(g)) return;
    Str json = {0};
    group_json(g, &json, &g->torn);
    if (!json.n) return;
    if (g->n == g->cap) g->group = xrealloc(g->group, (size_t)(g->cap = g->cap ? 2 * g->cap : 64) * sizeof *g->group);
    g->bytes += json.n;
    g->group[g->n++] = json.s;
    while (g->n > 1 && (g->n > MAX_GROUPS || g->bytes > g->budget)) thin(g);
}

void groups_add(Groups *g, const char *line, size_t n) {
    size_t key = key_of(line);
    g->lines++;
    if (!key || key != g->key || g->raw.n < key || memcmp(g->raw.s, line, key)) {
        group_end(g);
        g->seen++;
        g->key = key, g->dropped = 0;
        str_clear(&g->raw);
    }
    if (g->raw.n && g->raw.n + n > RAW_MOST) {
        g->dropped++;
        return;
    }
    str_add(&g->raw, line, n);
    str_puts(&g->raw, "\n");
}

void groups_json(Groups *g, Str *out) {
    int64_t torn = g->torn; // a copy: the last group's torn lines are counted for good when it is complete
    Str last = {0};
    group_json(g, &last, &torn);
    str_printf(out, "{\"seen\": %lld, \"stride\": %lld, \"lines\": %lld, \"torn\": %lld, \"groups\": [",
               (long long)g->seen, (long long)g->stride, (long long)g->lines, (long long)torn);
    for (int i = 0; i < g->n; i++) str_printf(out, "%s\n%s", i ? "," : "", g->group[i]);
    if (last.n) str_printf(out, "%s\n%s", g->n ? "," : "", last.s);
    str_puts(out, "]}");
    str_free(&last);
}
