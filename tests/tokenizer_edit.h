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

// GPT-2's letter for an ASCII byte.
static inline void byte_letter(char c, char letter[3]) {
    int code = c > ' ' && c < 0x7f ? c : c == 0x7f ? 0x121 : 0x100 + c;
    if (code < 0x80) letter[0] = (char)code, letter[1] = 0;
    else letter[0] = (char)(0xc0 | code >> 6), letter[1] = (char)(0x80 | (code & 0x3f)), letter[2] = 0;
}

static inline void add_merge(json_t *vocab, json_t *merges, const char *left, const char *right) {
    char whole[64];
    snprintf(whole, sizeof whole, "%s%s", left, right);
    json_object_set_new(vocab, whole, json_integer((json_int_t)json_object_size(vocab)));
    json_array_append_new(merges, json_pack("[ss]", left, right));
}

// The tiny file with other merges, under which nearly every different cut into words gives other ids: every two of the
// bytes of `set` (pure ASCII) merge, and so do two such pairs of 'a' and 'q'.
static inline json_t *pairs_file(const char *set) {
    json_t *file = tiny_file(), *model = json_object_get(file, "model"), *vocab = json_object(), *merges = json_array();
    const char *token;
    json_t *id;
    json_object_foreach(json_object_get(model, "vocab"), token, id) {
        if (json_integer_value(id) < 256) json_object_set(vocab, token, id); // the bytes come first
    }
    for (const char *a = set; *a; a++)
        for (const char *b = set; *b; b++) {
            char left[3], right[3];
            byte_letter(*a, left), byte_letter(*b, right);
            add_merge(vocab, merges, left, right);
        }
    static const char *const pair[] = {"qa", "aa", "qq", "aq"};
    for (int i = 0; i < 16; i++) add_merge(vocab, merges, pair[i * 7 % 16 / 4], pair[i * 7 % 4]);
    json_object_set_new(model, "vocab", vocab);
    json_object_set_new(model, "merges", merges);
    json_object_set_new(file, "added_tokens", json_array());
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
