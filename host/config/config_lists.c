// Reading the options that are lists: of texts and maps, and of files.
#include "config_table.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ENTRY_KEYS 16
// An entry {name: NAME, key: value, ...} of a list, which becomes "NAME:key=value,...".
typedef struct {
    Str name, params;
    TextList keys;
    bool good;
} Entry;

static void entry_pair(Reading *r, const Option *o, Entry *entry, const char *key, const YamlNode *v) {
    bool is_name = !strcmp(key, "name"), good = false, twice = false;
    for (int i = 0; i < entry->keys.n; i++) twice = twice || !strcmp(entry->keys.item[i], key);
    if (twice) problem_at_line(r, v->line, "%s: `%.60s` is given twice in one entry", o->name, key);
    else if (!*key || key[strcspn(key, ",:= \t\n")]) problem_at_line(r, v->line, "%s: `%.60s` is no key", o->name, key);
    else if (v->kind != YAML_SCALAR)
        problem_at_line(r, v->line, "%s: `%.60s` wants one value, not a list or map", o->name, key);
    else if (!*v->text || strlen(v->text) != v->n || (is_name && v->text[strcspn(v->text, ",:=")]) ||
             v->text[v->n - 1] == '\\') // it would take the comma after it for its own
        problem_at_line(r, v->line, "%s: %.60s cannot be `%.60s`", o->name, key, v->text);
    else good = true;
    if (good && is_name) str_puts(&entry->name, v->text);
    else if (good) {
        str_printf(&entry->params, "%c%s=", entry->params.n ? ',' : ':', key);
        for (const char *p = v->text; *p; p++) str_printf(&entry->params, *p == ',' ? "\\%c" : "%c", *p);
    }
    list_add(&entry->keys, key, strlen(key));
    entry->good = entry->good && good;
}

// Reads an entry behind its opening and adds it to the list, as text. False where reading must stop.
static bool read_entry(Reading *r, const Option *o, TextList *list, YamlReader *y, YamlNode open) {
    Entry entry = {.good = true};
    YamlNode node;
    while ((node = yaml_next(y)).kind == YAML_SCALAR) {
        char *key = xstrdup(node.text); // the next call takes the text back
        node = yaml_next(y);
        if (entry.keys.n < MAX_ENTRY_KEYS && node.kind != YAML_BAD) entry_pair(r, o, &entry, key, &node);
        else if (node.kind != YAML_BAD) entry.good = false;
        free(key);
        if (node.kind == YAML_LIST || node.kind == YAML_MAP) node = yaml_skip(y, node);
        if (node.kind == YAML_BAD) break;
    }
    if (node.kind == YAML_BAD) read_bad(r, &node);
    else if (entry.keys.n == MAX_ENTRY_KEYS) problem_at_line(r, open.line, "%s: an entry has too many keys", o->name);
    else if (entry.good && !entry.name.n) problem_at_line(r, open.line, "%s: an entry {...} wants a `name`", o->name);
    else if (entry.good) {
        if (entry.params.n) str_add(&entry.name, entry.params.s, entry.params.n);
        list_add(list, entry.name.s, entry.name.n);
    }
    str_free(&entry.name);
    str_free(&entry.params);
    list_clear(&entry.keys);
    return node.kind != YAML_BAD;
}

// Adds to *list the items of a list, or one map as a list of one. False where reading must stop.
static bool read_items(Reading *r, const Option *o, TextList *list, YamlReader *y, YamlNode open) {
    if (open.kind == YAML_MAP) return read_entry(r, o, list, y, open);
    for (YamlNode item; (item = yaml_next(y)).kind != YAML_END;) {
        if (item.kind == YAML_MAP) {
            if (!read_entry(r, o, list, y, item)) return false;
        } else if (item.kind == YAML_LIST) {
            problem_at_line(r, item.line, "%s: a list within a list", o->name);
            item = yaml_skip(y, item);
        } else if (item.kind == YAML_SCALAR && (!*item.text || node_is_null(&item) || strlen(item.text) != item.n))
            problem_at_line(r, item.line, "%s: an empty entry", o->name);
        else if (item.kind == YAML_SCALAR) list_add(list, item.text, item.n);
        if (item.kind == YAML_BAD) return read_bad(r, &item), false;
    }
    return true;
}

bool config_read_list(Reading *r, const Option *o, YamlReader *y, YamlNode open) {
    TextList list = {0};
    bool go_on = read_items(r, o, &list, y, open);
    TextList *member = option_at(r->c, o);
    list_clear(member);
    *member = list;
    return go_on;
}

// ---- files -------------------------------------------------------------------------------------------------------

void files_clear(FileList *list) {
    for (int i = 0; i < list->n; i++) {
        free(list->item[i].path);
        free(list->item[i].place);
        list_clear(&list->item[i].rewards);
    }
    free(list->item);
    *list = (FileList){0};
}

DataFile *files_add(FileList *list, const char *path, char *place) {
    list->item = xrealloc(list->item, (size_t)(list->n + 1) * sizeof *list->item);
    list->item[list->n] = (DataFile){.path = xstrdup(path), .weight = 1, .place = place};
    return &list->item[list->n++];
}

static void read_path(Reading *r, const Option *o, DataFile *file, const YamlNode *v) {
    bool good = v->kind == YAML_SCALAR && !node_is_null(v) && *v->text && strlen(v->text) == v->n;
    if (!good) return problem_at_line(r, v->line, "%s: `file` wants a path", o->name);
    free(file->path);
    file->path = xstrdup(v->text);
}

static void read_weight(Reading *r, const Option *o, DataFile *file, const YamlNode *v) {
    double x = v->kind == YAML_SCALAR && v->plain && text_is_number(v->text, true) ? strtod(v->text, NULL) : -1;
    if (x >= 0 && x <= 1e9) file->weight = x + 0.0; // -0 becomes 0
    else problem_at_line(r, v->line, "%s: `weight` wants a number from 0 to 1e9, not `%.60s`", o->name, v->text);
}

// The rewards of a file's own. False where reading must stop.
static bool read_own_rewards(Reading *r, DataFile *file, YamlReader *y, const YamlNode *v) {
    const Option *o = &config_options[option_known("rewards")];
    if (v->kind != YAML_SCALAR) {
        bool go_on = read_items(r, o, &file->rewards, y, *v);
        if (go_on && !file->rewards.n)
            problem_at_line(r, v->line, "rewards: an empty list; leave it out for the run's own");
        return go_on;
    }
    if (node_is_null(v) || strlen(v->text) != v->n)
        problem_at_line(r, v->line, "rewards has no value; leave it out for the run's own");
    else if (v->plain) list_split(&file->rewards, v->text);
    else list_add(&file->rewards, v->text, v->n);
    return true;
}

// Reads one {file: PATH, weight: W, rewards: [...]}. False where reading must stop.
static bool read_file(Reading *r, const Option *o, FileList *list, YamlReader *y, YamlNode open) {
    static const char *const keys[] = {"file", "weight", "rewards"};
    enum { FILE_KEY, WEIGHT_KEY, REWARDS_KEY, KEYS };
    DataFile *file = files_add(list, "", place_text(r, open.line));
    bool seen[KEYS] = {false};
    YamlNode v;
    while ((v = yaml_next(y)).kind == YAML_SCALAR) {
        int key = 0, line = v.line;
        while (key < KEYS && strcmp(v.text, keys[key])) key++;
        if (key == KEYS)
            problem_at_line(r, line, "%s: an entry has `file`, `weight` and `rewards`, not `%.60s`", o->name, v.text);
        else if (seen[key]) problem_at_line(r, line, "%s: `%s` is given twice in one entry", o->name, keys[key]);
        bool fresh = key < KEYS && !seen[key], nested;
        if (key < KEYS) seen[key] = true;
        v = yaml_next(y);
        if (v.kind == YAML_BAD) break;
        nested = v.kind != YAML_SCALAR;
        if (fresh && key == REWARDS_KEY) {
            if (!read_own_rewards(r, file, y, &v)) return false;
            continue;
        }
        if (fresh && key == FILE_KEY) read_path(r, o, file, &v);
        if (fresh && key == WEIGHT_KEY) read_weight(r, o, file, &v);
        if (nested) v = yaml_skip(y, v);
        if (v.kind == YAML_BAD) break;
    }
    if (v.kind == YAML_BAD) return read_bad(r, &v), false;
    if (!seen[FILE_KEY]) problem_at_line(r, open.line, "%s: an entry {...} wants a `file`", o->name);
    return true;
}

bool config_read_files(Reading *r, const Option *o, YamlReader *y, YamlNode open) {
    FileList *list = option_at(r->c, o);
    files_clear(list);
    if (open.kind == YAML_MAP) return read_file(r, o, list, y, open);
    for (YamlNode item; (item = yaml_next(y)).kind != YAML_END;) {
        if (item.kind == YAML_BAD) return read_bad(r, &item), false;
        if (item.kind == YAML_MAP) {
            if (!read_file(r, o, list, y, item)) return false;
        } else if (item.kind == YAML_LIST) {
            problem_at_line(r, item.line, "%s: a list within a list", o->name);
            item = yaml_skip(y, item);
            if (item.kind == YAML_BAD) return read_bad(r, &item), false;
        } else if (!*item.text || node_is_null(&item) || strlen(item.text) != item.n)
            problem_at_line(r, item.line, "%s: an empty entry", o->name);
        else files_add(list, item.text, place_text(r, item.line));
    }
    if (list->n > MAX_FILES)
        problem_at_line(r, open.line, "%s: %d files, %d at most can be", o->name, list->n, MAX_FILES);
    if (!list->n) problem_at_line(r, open.line, "%s: an empty list", o->name);
    return true;
}
