// The tiny tokenizer.json, edited and written to a directory of its own.
#pragma once
#include "data.h"
#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline json_t *tiny_file(void) {
    json_t *file = json_load_file("models/tiny/tokenizer.json", 0, NULL);
    assert_non_null(file);
    return file;
}

// A fresh path of a tokenizer.json; edited_remove removes the file and its directory, and frees the path.
static inline char *edited_path(void) {
    char dir[] = "/tmp/grpo-tokenizer-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char *path = malloc(sizeof dir + 32);
    snprintf(path, sizeof dir + 32, "%s/tokenizer.json", dir);
    return path;
}

static inline char *edited_write(const json_t *file) {
    char *path = edited_path();
    assert_int_equal(json_dump_file(file, path, 0), 0);
    return path;
}

static inline void edited_remove(char *path) {
    unlink(path);
    *strrchr(path, '/') = 0;
    rmdir(path);
    free(path);
}
