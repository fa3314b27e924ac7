// A configuration file in a directory of its own: what is in it is accepted, or refused at a place.
#pragma once
#include "config.h"
#include "data.h"
#include <dirent.h>
#include <math.h>
#include <string.h>

static char folder[] = "/tmp/grpo-config-XXXXXX";
static char path[64]; // of the one file there

static inline int make_folder(void **state) {
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/run.yaml", folder);
    return 0;
}

static inline int remove_folder(void **state) {
    unlink(path);
    return rmdir(folder);
}

static inline void write_file(const char *text, size_t n) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

// Arguments for config_read and config_args: a counted, NULL-free array.
#define ARGS(...) (char *[]){__VA_ARGS__}, (int)(sizeof((char *[]){__VA_ARGS__}) / sizeof(char *))
#define ARGV(...)                                                                                                      \
    (int)(sizeof((char *[]){__VA_ARGS__}) / sizeof(char *)), (char *[]) { __VA_ARGS__ }

static inline Config read_good(const char *text, char **args, int n) {
    Config c;
    Error e = {0};
    write_file(text, strlen(text));
    if (!config_read(&c, path, args, n, &e)) fail_msg("%s: %s", text, e.text);
    return c;
}

// The text is refused, and the one line of the error that begins with `place` holds `why`. In `place`, "run.yaml"
// stands for the whole path.
static inline void assert_bad(const char *text, size_t size, char **args, int n, const char *place, const char *why) {
    Config c;
    Error e = {0};
    char start[128];
    write_file(text, size);
    if (config_read(&c, path, args, n, &e)) fail_msg("accepted: %s", text);
    assert_int_equal(e.code, EXIT_CONFIG);
    snprintf(start, sizeof start, "%s%s%s: ", *place == 'r' ? folder : "", *place == 'r' ? "/" : "", place);
    for (const char *line = e.text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        size_t length = strcspn(line, "\n");
        if (!strncmp(line, start, strlen(start)) && memmem(line, length, why, strlen(why))) return;
    }
    fail_msg("'%s' is not at %s in: %s", why, start, e.text);
}
#define BAD(text, place, why) assert_bad(text, sizeof(text) - 1, NULL, 0, place, why)
#define BAD_ARG(arg, why)     assert_bad("", 0, ARGS(arg), "argument '" arg "'", why)

static inline void assert_list(const TextList *list, int n, char **items) {
    assert_int_equal(list->n, n);
    for (int i = 0; i < n; i++) assert_string_equal(list->item[i], items[i]);
}
