// YamlReader: a hardened pull reader over libyaml's events. No document tree is built, so memory is bounded by the text.
//
// What it reads is the part of YAML that a configuration needs: one document of scalars, lists and maps whose keys are
// scalars. Anchors, aliases, tags, several documents and nesting beyond YAML_MAX_DEPTH are refused when their event
// arrives, so a bomb costs no more than the text before it. Duplicate keys are the caller's to refuse: it knows names.
#pragma once
#include <stdbool.h>
#include <stddef.h>

#define YAML_MAX_BYTES ((size_t)1 << 20)
#define YAML_MAX_DEPTH 32

typedef enum {
    NODE_SCALAR,
    NODE_LIST, // a list opens; its items follow, then NODE_END
    NODE_MAP,  // a map opens; key, value, key, value ..., then NODE_END
    NODE_END,
    NODE_DONE, // the document is over
    NODE_BAD,  // `text` says what is wrong; nothing follows
} NodeKind;

typedef struct {
    NodeKind kind;
    const char *text; // scalar or message, NUL-terminated; valid until the next call
    size_t n;         // bytes of a scalar, which may contain NUL by an escape
    bool plain;       // an unquoted scalar
    int line;         // from 1
    int depth;        // lists and maps open around the node; for LIST and MAP without, for END without itself
} Node;

typedef struct YamlReader YamlReader;

// Reads text[n], which must outlive the reader. Problems of the text come as NODE_BAD from yaml_next.
YamlReader *yaml_open(const char *text, size_t n);
void yaml_close(YamlReader *r);
Node yaml_next(YamlReader *r);
// After a LIST or MAP: reads on to its END. Returns that END, or NODE_BAD.
Node yaml_skip(YamlReader *r, Node open);
