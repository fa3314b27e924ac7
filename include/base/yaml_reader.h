// YamlReader: reads YAML node by node over libyaml's events, safe for hostile text. No document tree is built, so
// memory is bounded by the text.
//
// It reads the part of YAML that a configuration needs: one document of scalars, lists and maps whose keys are scalars.
// Anchors, aliases, tags, several documents and nesting beyond YAML_MAX_DEPTH are refused as soon as they appear, so
// that no text can make it expand. It does not refuse duplicate keys: the caller does, which knows the names.
#pragma once
#include <stdbool.h>
#include <stddef.h>

#define YAML_MAX_BYTES ((size_t)1 << 20)
#define YAML_MAX_DEPTH 32

typedef enum {
    YAML_SCALAR,
    YAML_LIST, // a list opens; its items follow, then YAML_END
    YAML_MAP,  // a map opens; key, value, key, value ..., then YAML_END
    YAML_END,
    YAML_DONE, // the document is over
    YAML_BAD,  // `text` says what is wrong; nothing follows
} YamlKind;

typedef struct {
    YamlKind kind;
    const char *text; // scalar or message, NUL-terminated; valid until the next call
    size_t n;         // bytes of a scalar, which may contain NUL by an escape
    bool plain;       // whether a scalar is unquoted
    int line;         // from 1
    int depth;        // lists and maps open around the node, without the one that LIST, MAP or END is of
} YamlNode;

typedef struct YamlReader YamlReader;

// Opens a reader of text[n], which must outlive it. Problems of the text come as YAML_BAD from yaml_next.
YamlReader *yaml_open(const char *text, size_t n);
void yaml_close(YamlReader *r);
YamlNode yaml_next(YamlReader *r);
// Skips the rest of the list or map that `open` opened. Returns its END, or YAML_BAD.
YamlNode yaml_skip(YamlReader *r, YamlNode open);
