// Reads the keys of a config.json one after another and keeps the first problem.
#pragma once
#include "error.h"
#include "json.h"
#include "model.h"

// A JSON object that is being read. The first problem fills *e and sets ok to false; later ones are ignored.
typedef struct {
    const json_t *j;
    const char *path;
    Error *e;
    bool ok;
} Fields;

#define refuse(f, ...)                                                                                                 \
    do {                                                                                                               \
        if ((f)->ok) (f)->ok = error_set((f)->e, EXIT_INPUT, __VA_ARGS__);                                             \
    } while (0)

// The value of a key; NULL where it is absent or null.
const json_t *field(const Fields *f, const char *name);
// A whole number in [low, high]. `fallback` stands for an absent one; < 0: it must be there.
int int_field(Fields *f, const char *name, int64_t low, int64_t high, int fallback);
// A number that is positive, also after rounding to f32.
double positive_field(Fields *f, const char *name, double fallback);
bool bool_field(Fields *f, const char *name, bool fallback);
// An object; NULL where it is absent, null or empty.
const json_t *object_field(Fields *f, const char *name);
// The text under a key; NULL where there is none, or after refusing what is no text.
const char *text_field(Fields *f, const char *name);
// A field that, where present, must be this string.
void text_must_be(Fields *f, const char *name, const char *text, const char *why);
// A list that, where present, holds strings that are all `text`.
void list_must_be(Fields *f, const char *name, const char *text, const char *why);

// Reads rope_parameters, or the keys that older files have instead, into n->rope (hf_rope.c); n->max_positions and n->d
// must be set. Where two keys contradict each other, won[size] gets a text that says which one was used.
void rope_fields(Fields *f, ModelDims *n, char *won, size_t size);
