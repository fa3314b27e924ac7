// The keys of a config.json, read one after another with the first problem kept.
#pragma once
#include "error.h"
#include "json.h"
#include "model.h"

// The first problem stays in *e and makes ok false.
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

// NULL where absent or null.
const json_t *field(const Fields *f, const char *name);
// A whole number in [low, high]. `fallback` stands for an absent one; < 0: it must be there.
int int_field(Fields *f, const char *name, int64_t low, int64_t high, int fallback);
// Positive, also as f32.
double positive_field(Fields *f, const char *name, double fallback);
bool bool_field(Fields *f, const char *name, bool fallback);
// An object; absent, null or empty: NULL.
const json_t *object_field(Fields *f, const char *name);
// A field that, where present, must be this string.
void text_must_be(Fields *f, const char *name, const char *text, const char *why);
// A list that, where present, holds strings that are all `text`.
void list_must_be(Fields *f, const char *name, const char *text, const char *why);

// rope_parameters and what older files have in their place (hf_rope.c). n->max_positions and n->d must be known. Says in
// won[size] which key counted, where another one says something else.
void rope_fields(Fields *f, ModelDims *n, char *won, size_t size);
