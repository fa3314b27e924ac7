// Printing the option table: the effective configuration as YAML, --help, and the reference page.
#include "config_table.h"
#include "trl.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

// ---- values ------------------------------------------------------------------------------------------------------

// Writes the shortest decimal that reads back as x: 5e-6, 0.04, 10, 1e9.
static void put_real(Str *s, double x) {
    char text[40];
    int least = fabs(x) >= 1 && fabs(x) < 1e6 ? 6 : 1; // enough digits for C not to write 10 as 1e+01
    for (int digits = least; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x) break;
    }
    char *e = strchr(text, 'e');
    if (!e) return str_puts(s, text);
    str_add(s, text, (size_t)(e - text)); // C writes 5e-06, 1e+09
    str_printf(s, "e%d", atoi(e + 1));
}

static bool is_plain(const char *text) {
    static const char first[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/_.";
    static const char rest[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ/_.-0123456789";
    static const char *const words[] = {"null", "true", "false", "yes", "no", "on", "off", "y", "n"};
    if (!*text || !strchr(first, *text) || text[strspn(text, rest)]) return false;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcasecmp(text, words[i])) return false;
    return true;
}

// Writes a string so that every YAML reader reads the same string.
static void put_visible_text(Str *s, const char *text) {
    if (is_plain(text)) return str_puts(s, text);
    str_puts(s, "\"");
    const utf8proc_uint8_t *p = (const utf8proc_uint8_t *)text;
    utf8proc_int32_t c;
    for (utf8proc_ssize_t n; *p; p += n) {
        n = utf8proc_iterate(p, -1, &c);
        bool hidden =
            c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x2028 || c == 0x2029 || c == 0xfeff || (c & 0xfffe) == 0xfffe;
        if (n < 1) die("an option holds invalid UTF-8"); // config_read refuses it
        if (c == '"' || c == '\\') str_printf(s, "\\%c", c);
        else if (c == '\n') str_puts(s, "\\n");
        else if (c == '\t') str_puts(s, "\\t");
        else if (hidden) str_printf(s, c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x", (unsigned)c);
        else str_add(s, (const char *)p, (size_t)n);
    }
    str_puts(s, "\"");
}

// Writes a string without the passwords of URLs: what is printed and saved is shown to others.
static void put_text(Str *s, const char *text) {
    char *shown = xstrdup(text);
    str_hide_users(shown);
    put_visible_text(s, shown);
    free(shown);
}

static void put_list(Str *s, const TextList *list) {
    str_puts(s, "[");
    for (int i = 0; i < list->n; i++) {
        str_puts(s, i ? ", " : "");
        put_text(s, list->item[i]);
    }
    str_puts(s, "]");
}

// One path where that says it all.
static void put_files(Str *s, const FileList *list) {
    const DataFile *f = list->item;
    if (!list->n || (list->n == 1 && f->weight == 1 && !f->rewards.n)) return put_text(s, list->n ? f->path : "");
    for (int i = 0; i < list->n; i++) {
        str_puts(s, i ? ", {file: " : "[{file: ");
        put_text(s, f[i].path);
        str_puts(s, ", weight: ");
        put_real(s, f[i].weight);
        if (f[i].rewards.n) str_puts(s, ", rewards: "), put_list(s, &f[i].rewards);
        str_puts(s, "}");
    }
    str_puts(s, "]");
}

void config_put_value(Str *s, const Config *c, const Option *o) {
    const void *at = option_at(c, o);
    int n;
    switch (o->kind) {
    case KIND_BOOL: str_puts(s, *(const bool *)at ? "true" : "false"); break;
    case KIND_INT: str_printf(s, "%lld", (long long)*(const int64_t *)at); break;
    case KIND_REAL: put_real(s, *(const double *)at); break;
    case KIND_TEXT: put_text(s, *(char *const *)at); break;
    case KIND_PICK: {
        const char *choice = option_choice(o, *(const int *)at, &n);
        str_add(s, choice, (size_t)n);
        break;
    }
    case KIND_LIST: put_list(s, at); break;
    case KIND_FILES: put_files(s, at);
    }
}

char *config_yaml(const Config *c) {
    Str s = {0};
    for (int i = 0; i < OPTION_COUNT; i++) {
        const Option *o = &config_options[i];
        str_printf(&s, "%s: ", o->name);
        config_put_value(&s, c, o);
        str_puts(&s, "\n");
    }
    return s.s;
}

// ---- help --------------------------------------------------------------------------------------------------------

static void put_range(Str *s, const Option *o) {
    static const char *const kinds[] = {"true or false", "whole number", "number",       "text",
                                        "list",          "one of",       "file or files"};
    if (o->kind == KIND_PICK) str_printf(s, "%s", o->text);
    else str_puts(s, kinds[o->kind]);
    if (o->kind == KIND_INT) str_printf(s, ", %.0f to %.0f", o->min, o->max);
    if (o->kind != KIND_REAL) return;
    str_puts(s, ", ");
    put_real(s, o->min);
    str_puts(s, " to ");
    put_real(s, o->max);
}

// Writes the words of `text` at column `indent`, at most 100 columns wide; its first line continues the current one.
static void put_wrapped(Str *s, const char *text, int indent) {
    int column = indent;
    for (const char *p = text; *p; p += strspn(p, " ")) {
        int n = (int)strcspn(p, " ");
        if (column > indent && column + 1 + n > 100) {
            str_printf(s, "\n%*s", indent, "");
            column = indent;
        } else if (column > indent) str_puts(s, " "), column++;
        str_add(s, p, (size_t)n);
        column += n;
        p += n;
    }
    str_puts(s, "\n");
}

static void put_help(Str *s, const Config *defaults, const Option *o) {
    Str line = {0};
    str_printf(&line, "%s (", o->help);
    put_range(&line, o);
    str_puts(&line, "; default ");
    config_put_value(&line, defaults, o);
    str_puts(&line, ")");
    str_printf(s, "  %-28s ", o->name);
    put_wrapped(s, line.s, 31);
    str_free(&line);
}

static char *command_help(const Command *command, const Config *defaults) {
    Str s = {0};
    for (int g = 0; g < GROUP_COUNT; g++) {
        if (!command_reads(command, g)) continue;
        str_printf(&s, "%s%s\n", s.n ? "\n" : "", config_groups[g].title);
        for (int i = 0; i < OPTION_COUNT; i++)
            if (config_options[i].group == g) put_help(&s, defaults, &config_options[i]);
    }
    return s.s;
}

// ---- the reference page ------------------------------------------------------------------------------------------

// clang-format off
static const char page_head[] =
    "# Options\n"
    "\n"
    "This page is printed by `grpo config --reference` from the option table in `include/config.h`.\n"
    "\n"
    "A run is described by defaults, then a YAML file, then `key=value` arguments, each overriding what came before:\n"
    "\n"
    "    grpo train configs/qwen2.5-0.5b-gsm8k.yaml model=models/my-qwen max_steps=100\n"
    "\n"
    "`grpo config CONFIG.yaml key=value ...` prints the configuration that results, `grpo doctor` checks its files.\n"
    "All mistakes are reported at once, each with its line. Paths are relative to the directory the command is started\n"
    "in, not to the YAML file.\n"
    "\n"
    "The file is one YAML document of `option: value` lines: at most 1 MiB, no anchors, aliases or tags, no option\n"
    "twice.\n"
    "\n"
    "- true or false: these two words, nothing else.\n"
    "- whole number: decimal digits, no point, exponent or leading zero. number: `0.04`, `5e-6`.\n"
    "- text: plain or quoted; `null`, `~` and nothing at all are the empty text. As an argument, `key=value` is taken as\n"
    "  it stands, `:` and `#` included; one pair of quotes around the whole value is read as YAML quotes.\n"
    "- list: a YAML list, `[a, b]`. A plain string is split at its commas, except before `key=value`:\n"
    "  `rewards=cosine:max_len=800,clamp=yes,format` has two entries. A quoted string is one entry: `stop='\"a, b\"'`.\n"
    "- An entry of `rewards` may be a map: `{name: cosine, weight: 2, max_len: 800}` is `cosine:weight=2,max_len=800`.\n"
    "  `weight` and `as` are keys of every reward: `as: NAME` is what the metrics call it, so that one can be listed twice.\n"
    "  A comma within a value is written as it is in a map, and `\\,` in text: `rewards=regex:pattern=a\\,b,format`.\n"
    "- file or files: one path, or a list of paths and maps: `[{file: a.jsonl, weight: 3}, {file: b, rewards: [...]}]`.\n"
    "  A file's `weight` is its share beside the others' (1 where it is left out; 0: none of it); `rewards` are its own.\n"
    "- A value left empty or null is refused, except for text and files: leave the line out for the default.\n";
// clang-format on

static void put_cell(Str *s, const char *text) {
    for (; *text; text++) {
        if (strchr("|<*", *text)) str_puts(s, "\\");
        str_add(s, text, 1);
    }
}

static void losses_table(Str *s) {
#define SUM_HELP(NAME, help) help,
    static const char *const sums[] = {LOSS_SUMS(SUM_HELP)};
    static const char *const clips[] = {"outside 1 - epsilon .. 1 + epsilon_high; above delta", "above epsilon_high",
                                        "nothing"};
    static const char *const levels[] = {"tokens", "sequences", "either"};
    static const struct {
        const char *name, *help;
        LossType type;
    } rows[] = {
#define LOSS_ROW(NAME, name, sum, clip, level, help) {#name, help, LOSS_##NAME},
        LOSSES(LOSS_ROW)};
    str_puts(
        s,
        "\n## Losses\n\n`w` is the ratio of a token (or sequence) to when it was sampled, `A` the advantage, `l` the "
        "log-prob.\n\n| loss_type | a token's loss | added up | clipped | ratios |\n|---|---|---|---|---|\n");
    for (int i = 0; i < LOSS_COUNT; i++) {
        LossKind kind = loss_kind(rows[i].type);
        str_printf(s, "| `%s` | %s | %s | %s | %s |\n", rows[i].name, rows[i].help, sums[kind.sum], clips[kind.clip],
                   levels[kind.level]);
    }
}

// Writes which options of a group change nothing that a run computes.
static void put_harmless(Str *s, int group) {
    const char *before = ". Free to change in a resumed run: ";
    for (int i = 0; i < OPTION_COUNT; i++) {
        const Option *o = &config_options[i];
        if (o->group != group || o->scope < SCOPE_FREE) continue;
        str_printf(s, "%s`%s`", before, o->name);
        before = ", ";
    }
    str_puts(s, ".");
}

static char *reference_page(const Config *defaults) {
    Str s = {0};
    str_puts(&s, page_head);
    for (int g = 0; g < GROUP_COUNT; g++) {
        str_printf(&s, "\n## %s\n\nRead by", config_groups[g].title);
        const char *separator = " ";
        for (int k = 0; k < config_command_count; k++) {
            const Command *command = &config_commands[k];
            if (command->bits == FOR_ALL || !command_reads(command, g)) continue;
            str_printf(&s, "%s`%s`", separator, command->name);
            separator = ", ";
        }
        put_harmless(&s, g);
        str_puts(&s, "\n\n| option | value | default | meaning |\n|---|---|---|---|\n");
        for (int i = 0; i < OPTION_COUNT; i++) {
            const Option *o = &config_options[i];
            if (o->group != g) continue;
            Str range = {0};
            put_range(&range, o);
            str_printf(&s, "| `%s` | ", o->name);
            put_cell(&s, range.s);
            str_puts(&s, " | `");
            config_put_value(&s, defaults, o);
            str_puts(&s, "` | ");
            put_cell(&s, o->help);
            str_puts(&s, " |\n");
            str_free(&range);
        }
    }
    losses_table(&s);
    trl_table(&s);
    return s.s;
}

bool config_asks_help(const char *arg) { return !strcmp(arg, "--help") || !strcmp(arg, "-h"); }

char *config_help(const char *command) {
    Config defaults;
    config_defaults(&defaults);
    char *text = NULL;
    if (!command) text = reference_page(&defaults);
    const Command *known = command_named(command);
    if (known) text = command_help(known, &defaults);
    config_free(&defaults);
    return text ? text : xstrdup("");
}
