// The YAML reader: the public test suite, what is refused and on which line, and how long the worst texts take.
#include "config.h"
#include "data.h"
#include "file.h"
#include "str.h"
#include "yaml_reader.h"
#include <dirent.h>
#include <string.h>
#include <time.h>

// Reads all of the text. The events become lines as the suite writes them; the last node is returned.
static YamlNode read_all(const char *text, size_t n, Str *events, char *message, size_t cap) {
    // A copy without a byte to spare, so that AddressSanitizer sees a reader that goes too far.
    char *copy = malloc(n ? n : 1);
    memcpy(copy, text, n);
    YamlReader *y = yaml_open(copy, n);
    bool map[YAML_MAX_DEPTH + 1] = {0};
    YamlNode node;
    while ((node = yaml_next(y)).kind != YAML_DONE && node.kind != YAML_BAD) {
        assert_true(node.depth >= 0 && node.depth <= YAML_MAX_DEPTH);
        assert_true(node.line >= 1);
        if (node.kind == YAML_LIST) str_puts(events, "+SEQ\n");
        if (node.kind == YAML_MAP) str_puts(events, "+MAP\n");
        if (node.kind == YAML_END) str_puts(events, map[node.depth] ? "-MAP\n" : "-SEQ\n");
        map[node.depth] = node.kind == YAML_MAP || (node.kind == YAML_END && map[node.depth]);
        if (node.kind != YAML_SCALAR) continue;
        assert_int_equal(node.text[node.n], 0);
        str_puts(events, node.plain ? "=VAL :" : "=VAL \"");
        for (size_t i = 0; i < node.n; i++) {
            static const char raw[] = "\n\t\r\b\\", letter[] = "ntrb\\";
            const char *special = node.text[i] ? strchr(raw, node.text[i]) : NULL;
            if (special) str_printf(events, "\\%c", letter[special - raw]);
            else str_add(events, node.text + i, 1);
        }
        str_puts(events, "\n");
    }
    snprintf(message, cap, "%s", node.kind == YAML_BAD ? node.text : "");
    yaml_close(y);
    free(copy);
    return node;
}

static void assert_bad(const char *text, size_t n, int line, const char *why) {
    Str events = {0};
    char message[256];
    YamlNode node = read_all(text, n, &events, message, sizeof message);
    if (node.kind != YAML_BAD || !strstr(message, why) || node.line != line)
        fail_msg("%.40s: line %d: '%s', not line %d: '%s'", text, node.line, message, line, why);
    str_free(&events);
}
#define BAD(text, line, why) assert_bad(text, sizeof(text) - 1, line, why)

static void assert_events(const char *text, size_t n, const char *expected) {
    Str events = {0};
    char message[256];
    YamlNode node = read_all(text, n, &events, message, sizeof message);
    assert_string_equal(message, "");
    assert_int_equal(node.kind, YAML_DONE);
    assert_string_equal(events.s ? events.s : "", expected);
    str_free(&events);
}
#define GOOD(text, events) assert_events(text, sizeof(text) - 1, events)

static void events_of_small_texts(void **state) {
    GOOD("", "");
    GOOD("# nothing\n", "");
    GOOD("a: 1\nb: [x, \"y\\n\"]\n", "+MAP\n=VAL :a\n=VAL :1\n=VAL :b\n+SEQ\n=VAL :x\n=VAL \"y\\n\n-SEQ\n-MAP\n");
    GOOD("\ufeffa: 1\r\nb: 2\r\n", "+MAP\n=VAL :a\n=VAL :1\n=VAL :b\n=VAL :2\n-MAP\n");
    GOOD("---\n{a: }\n...\n", "+MAP\n=VAL :a\n=VAL :\n-MAP\n");
    GOOD("a: [\n  x, # comment\n  y\n]\n", "+MAP\n=VAL :a\n+SEQ\n=VAL :x\n=VAL :y\n-SEQ\n-MAP\n");
    GOOD("a: x#y\nb: |\n  #1\n\n  z # z\n", "+MAP\n=VAL :a\n=VAL :x#y\n=VAL :b\n=VAL \"#1\\n\\nz # z\\n\n-MAP\n");
    GOOD("\xe6\x97\xa5: \"\xe6\x9c\xac\" # \xe8\xaa\x9e\nb: '#'\n",
         "+MAP\n=VAL :\xe6\x97\xa5\n=VAL \"\xe6\x9c\xac\n=VAL :b\n=VAL \"#\n-MAP\n");
}

static void refusals_name_their_line(void **state) {
    BAD("a: 1\nb: &x 2\n", 2, "anchors");
    BAD("a: 1\nb: *x\n", 2, "aliases");
    BAD("a: 1\nb: !t 2\n", 2, "tags");
    BAD("a: 1\nb: !!int 2\n", 2, "tags");
    BAD("a: 1\nb: &x [2]\n", 2, "anchors");
    BAD("a: 1\n---\nb: 2\n", 2, "second document");
    BAD("%YAML 1.1\n---\na: 1\n", 1, "directives");
    BAD("a: 1\n? [b, c]\n: 2\n", 2, "cannot be a key");
    BAD("a: 1\nb: [1,\n2]\n", 3, "indent it more");
    BAD("a: 1\nb: [1, 2\n", 3, "from line 2 on");
    BAD("a: 1\n\tb: 2\n", 2, "not valid YAML");
    BAD("a: 1\nb: \"2\nc\"\n", 3, "indent it more");
    BAD("a: 1\nb: \"2\"# x\n", 2, "space before its #");
    BAD("a: 1\nb: >#x\n  y\n", 2, "space before its #");
    BAD("a: 1\nb: [-]\n", 2, "a lone -");
    BAD("a: 1\nb: \0\n", 2, "NUL byte");
    BAD("a: 1\nb: \x01\n", 2, "control characters");
    BAD("a: 1\nb: \xff\n", 2, "invalid");
    BAD("a: 1\nb: \xc0\xaf\n", 2, "invalid");
    BAD("a: 1\nb: \xed\xa0\x80\n", 2, "invalid");
    BAD("\xff\xfe"
        "a\0",
        1, "UTF-16");
    BAD("\x7f"
        "ELF\x02\x01\x01\0\0\0",
        1, "NUL byte");
}

// ---- bounded time and depth --------------------------------------------------------------------------------------

// Of this process: a busy machine does not count.
static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void depth_is_bounded(void **state) {
    char text[256];
    for (int depth = YAML_MAX_DEPTH; depth <= YAML_MAX_DEPTH + 1; depth++) {
        int n = 0;
        for (int i = 0; i < depth; i++) text[n++] = '[';
        for (int i = 0; i < depth; i++) text[n++] = ']';
        Str events = {0};
        char message[256];
        YamlNode node = read_all(text, (size_t)n, &events, message, sizeof message);
        assert_int_equal(node.kind, depth > YAML_MAX_DEPTH ? YAML_BAD : YAML_DONE);
        if (depth > YAML_MAX_DEPTH) assert_non_null(strstr(message, "nested more than 32"));
        str_free(&events);
    }
}

// 160 KB of openings: libyaml alone needs time quadratic in them.
static void bombs_end_early(void **state) {
    static const char *const piece[] = {
        "[", "{", "- ", "? ", "[{", "{a: ", "a: [", "[a, ", "- - [", "&a [", "!t [", "\"a\": {"};
    for (size_t k = 0; k < sizeof piece / sizeof *piece; k++) {
        Str text = {0}, events = {0};
        while (text.n < 160 * 1024) str_puts(&text, piece[k]);
        char message[256];
        double start = seconds();
        YamlNode node = read_all(text.s, text.n, &events, message, sizeof message);
        double took = seconds() - start;
        print_message("160 KB of '%s': %.3f ms: %s\n", piece[k], 1e3 * took, message);
        assert_int_equal(node.kind, YAML_BAD);
        assert_true(took < 0.010);
        str_free(&text);
        str_free(&events);
    }
}

static void size_is_bounded(void **state) {
    Str text = {0}, events = {0};
    while (text.n < YAML_MAX_BYTES - 5) str_puts(&text, "# 34\n");
    char message[256];
    assert_int_equal(read_all(text.s, text.n, &events, message, sizeof message).kind, YAML_DONE);
    while (text.n <= YAML_MAX_BYTES) str_puts(&text, "# 34\n");
    assert_int_equal(read_all(text.s, text.n, &events, message, sizeof message).kind, YAML_BAD);
    assert_non_null(strstr(message, "larger than 1 MiB"));
    str_free(&text);
    str_free(&events);
}

// ---- the YAML test suite -----------------------------------------------------------------------------------------

// Valid by YAML 1.2, but not read by libyaml 0.2, which knows YAML 1.1. "ID/k": the k-th case of a file.
static const char libyaml_refuses[] =
    " 2JQS/0 4ABK/0 4MUZ/0 4MUZ/1 4MUZ/2 58MP/0 5MUD/0 5T43/0 6BCT/0 6CA3/0 7Z25/0 8XYN/0 96NN/0 96NN/1 9SA2/0 A2M4/0 "
    "CFD4/0 DBG4/0 DK3J/0 DK95/0 DK95/3 DK95/4 FP8R/0 FRK4/0 HM87/0 HWV9/0 K3WX/0 NHX8/0 NJ66/0 NKF9/0 Q5MG/0 QT73/0 "
    "R4YG/0 S3PD/0 SM9W/1 UKK6/0 VJP3/1 W5VH/0 Y79Y/1 Y79Y/10 ";
// Read otherwise than YAML 1.2 has it: no newline at the end of a block scalar, and `?x` in a flow list.
static const char libyaml_differs[] = " L24T/1 JEF9/2 652Z/0 HM87/1 ";
// Not valid, but read: an empty block scalar whose blank lines are indented more than the comment after it.
static const char accepted_though_bad[] = " S98Z/0 ";

// The suite shows what cannot be seen by other characters.
static void suite_text(Str *out, const char *s) {
    static const char *const shown[][2] = {{"\u2423", " "}, {"\u21b5", ""}, {"\u2190", "\r"}, {"\u21d4", "\ufeff"}};
    while (*s) {
        const char *p = s;
        while (!strncmp(p, "\u2014", 3)) p += 3;
        if (!strncmp(p, "\u00bb", 2)) { // dashes and an arrow head: a tab
            str_puts(out, "\t");
            s = p + 2;
            continue;
        }
        if (!strcmp(s, "\u220e\n")) return; // no newline at the end
        size_t k = 0;
        while (k < 4 && strncmp(s, shown[k][0], 3)) k++;
        if (k < 4) str_puts(out, shown[k][1]);
        else str_add(out, s, 1);
        s += k < 4 ? 3 : 1;
    }
}

// The expected events, in the form of read_all: indentation, the document's own lines and marks of style taken away.
static void suite_events(Str *out, const char *tree) {
    for (const char *line = tree; *line; line += strcspn(line, "\n"), line += *line == '\n') {
        line += strspn(line, " ");
        size_t n = strcspn(line, "\n");
        if (!strncmp(line + 1, "DOC", 3) || !strncmp(line + 1, "STR", 3)) continue;
        if (*line == '=') {
            str_puts(out, line[5] == ':' ? "=VAL :" : "=VAL \"");
            str_add(out, line + 6, n - 6);
        } else str_add(out, line, 4);
        str_puts(out, "\n");
    }
}

typedef struct {
    int cases, bad, read, refused, unread;
} Tally;

static void suite_case(const char *id, const char *yaml, const char *tree, bool fail, Tally *t) {
    Str text = {0}, got = {0}, expected = {0}, where = {0};
    char message[256];
    suite_text(&text, yaml);
    str_printf(&where, " %s ", id);
    if (!text.s) str_puts(&text, "");
    YamlNode node = read_all(text.s, text.n, &got, message, sizeof message);
    bool bad = node.kind == YAML_BAD, syntax = strstr(message, "not valid YAML");
    t->cases++;
    if (fail) {
        t->bad++;
        assert_int_equal(!bad, strstr(accepted_though_bad, where.s) != NULL);
    } else if (bad && syntax && !strchr(text.s, '%')) { // a line with % may be a directive, refused in either way
        t->unread++;
        if (!strstr(libyaml_refuses, where.s)) fail_msg("%s: %s\n%s", id, message, text.s);
    } else if (bad) {
        t->refused++;
        if (!syntax && !strstr(message, "not read here") && !strstr(message, "second document") &&
            !strstr(message, "cannot be a key"))
            fail_msg("%s: %s\n%s", id, message, text.s);
    } else {
        t->read++;
        Str shown = {0};
        suite_text(&shown, tree);
        suite_events(&expected, shown.s ? shown.s : "");
        bool same = !strcmp(got.s ? got.s : "", expected.s ? expected.s : "");
        if (same == (strstr(libyaml_differs, where.s) != NULL)) fail_msg("%s: got\n%s, not\n%s", id, got.s, expected.s);
        str_free(&shown);
    }
    // Read as a configuration, none of them is one, unless there is nothing in it.
    Config c;
    Error e;
    char path[] = "/tmp/grpo-yaml-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0 && write(fd, text.s, text.n) == (ssize_t)text.n && !close(fd));
    bool taken = config_read(&c, path, NULL, 0, &e);
    unlink(path);
    if (taken) config_free(&c);
    if (taken && (fail || got.n)) fail_msg("%s: taken for a configuration", id);
    str_free(&text);
    str_free(&got);
    str_free(&expected);
    str_free(&where);
}

// A file of the suite is a list of maps: cases with `yaml`, `tree` and perhaps `fail: true`.
static void suite_file(const char *path, const char *name, Tally *t) {
    size_t n;
    Error e;
    char *text = file_read(path, YAML_MAX_BYTES, &n, &e);
    assert_non_null(text);
    YamlReader *y = yaml_open(text, n);
    assert_int_equal(yaml_next(y).kind, YAML_LIST);
    char *tree = NULL;
    for (int k = 0; yaml_next(y).kind == YAML_MAP; k++) {
        char *yaml = NULL, id[32];
        bool fail = false;
        YamlNode key;
        while ((key = yaml_next(y)).kind == YAML_SCALAR) {
            char **keep = !strcmp(key.text, "yaml") ? &yaml : !strcmp(key.text, "tree") ? &tree : NULL;
            bool is_fail = !strcmp(key.text, "fail");
            YamlNode value = yaml_next(y);
            assert_int_equal(value.kind, YAML_SCALAR);
            if (keep) free(*keep), *keep = xstrdup(value.text);
            fail = fail || is_fail;
        }
        snprintf(id, sizeof id, "%.4s/%d", name, k);
        suite_case(id, yaml, tree ? tree : "", fail, t);
        free(yaml);
    }
    free(tree);
    yaml_close(y);
    free(text);
}

static void yaml_suite(void **state) {
    char folder[4096], path[8192];
    snprintf(folder, sizeof folder, "%s", data_path("yaml_suite", "formats/yaml-test-suite/src"));
    DIR *dir = opendir(folder);
    assert_non_null(dir);
    Tally t = {0};
    for (struct dirent *f; (f = readdir(dir));) {
        if (!strstr(f->d_name, ".yaml")) continue;
        snprintf(path, sizeof path, "%s/%s", folder, f->d_name);
        suite_file(path, f->d_name, &t);
    }
    closedir(dir);
    print_message("%d cases: %d must fail (one does only as a configuration); %d are read, event by event; %d use what "
                  "is refused; %d are YAML 1.2 "
                  "that libyaml does not know\n",
                  t.cases, t.bad, t.read, t.refused, t.unread);
    assert_int_equal(t.cases, 406);
    assert_int_equal(t.bad, 94);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_of_small_texts), cmocka_unit_test(refusals_name_their_line),
        cmocka_unit_test(depth_is_bounded),      cmocka_unit_test(bombs_end_early),
        cmocka_unit_test(size_is_bounded),       cmocka_unit_test(yaml_suite),
    };
    return cmocka_run_group_tests_name("yaml", tests, NULL, NULL);
}
