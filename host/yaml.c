// The YAML reader: libyaml's events, with everything a configuration does not need refused.
#include "yaml_reader.h"
#include "error.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

typedef enum { START, INSIDE, AFTER, OVER } Stage; // before, in and after the one document; nothing more to read

struct YamlReader {
    yaml_parser_t parser;
    yaml_event_t event; // its text is lent to the last Node
    bool has_event;
    Stage stage;
    int depth;
    bool is_map[YAML_MAX_DEPTH];
    bool key_next[YAML_MAX_DEPTH]; // in a map: a key comes next, not a value
    const char *refusal;           // why the text is not read at all
    int refusal_line;
    char message[256];
};

// libyaml would say "control characters are not allowed"; a NUL most often means that the file is not text at all.
static int line_of(const char *text, const char *at) {
    int line = 1;
    for (const char *p = text; p < at; p++) line += *p == '\n';
    return line;
}

YamlReader *yaml_open(const char *text, size_t n) {
    YamlReader *r = xcalloc(1, sizeof *r);
    r->refusal_line = 1;
    const char *nul = memchr(text, 0, n);
    if (n > YAML_MAX_BYTES) r->refusal = "is larger than 1 MiB: this is not a configuration";
    else if (n >= 2 && (!memcmp(text, "\xff\xfe", 2) || !memcmp(text, "\xfe\xff", 2)))
        r->refusal = "UTF-16 text; save the file as UTF-8";
    else if (nul) {
        r->refusal = "a NUL byte: this is not a text file";
        r->refusal_line = line_of(text, nul);
    } else {
        if (!yaml_parser_initialize(&r->parser)) die("yaml_parser_initialize failed");
        yaml_parser_set_encoding(&r->parser, YAML_UTF8_ENCODING);
        yaml_parser_set_input_string(&r->parser, (const unsigned char *)text, n);
    }
    return r;
}

void yaml_close(YamlReader *r) {
    if (!r) return;
    if (r->has_event) yaml_event_delete(&r->event);
    if (!r->refusal) yaml_parser_delete(&r->parser);
    free(r);
}

static Node bad(YamlReader *r, int line, const char *message) {
    r->stage = OVER;
    return (Node){.kind = NODE_BAD, .text = message, .n = strlen(message), .line = line, .depth = r->depth};
}

// libyaml's own words, with the line where it stopped.
static Node syntax_error(YamlReader *r) {
    const yaml_parser_t *p = &r->parser;
    size_t line = p->problem_mark.line;
    if (p->error == YAML_READER_ERROR) line = p->mark.line; // the reader knows offsets only: near enough
    snprintf(r->message, sizeof r->message, "not valid YAML: %s%s%s", p->context ? p->context : "",
             p->context ? ": " : "", p->problem ? p->problem : "unknown problem");
    return bad(r, (int)line + 1, r->message);
}

// Keeps count of whose turn it is in the innermost map. False where a list or map stands in a key's place.
static bool take_turn(YamlReader *r, bool scalar) {
    if (r->depth == 0 || !r->is_map[r->depth - 1]) return true;
    bool *key_next = &r->key_next[r->depth - 1];
    if (*key_next && !scalar) return false;
    *key_next = !*key_next;
    return true;
}

static Node open_node(YamlReader *r, bool map, int line, const yaml_char_t *anchor, const yaml_char_t *tag) {
    if (anchor) return bad(r, line, "anchors (&) are not read here; write the value out");
    if (tag) return bad(r, line, "tags (!) are not read here; leave the tag out");
    if (!take_turn(r, false)) return bad(r, line, "a list or map cannot be a key");
    if (r->depth == YAML_MAX_DEPTH) return bad(r, line, "lists and maps are nested more than 32 deep");
    r->is_map[r->depth] = r->key_next[r->depth] = map;
    return (Node){.kind = map ? NODE_MAP : NODE_LIST, .line = line, .depth = r->depth++};
}

static Node scalar_node(YamlReader *r, int line) {
    if (r->event.data.scalar.anchor) return bad(r, line, "anchors (&) are not read here; write the value out");
    if (r->event.data.scalar.tag) return bad(r, line, "tags (!) are not read here; leave the tag out");
    take_turn(r, true);
    return (Node){.kind = NODE_SCALAR,
                  .text = (const char *)r->event.data.scalar.value,
                  .n = r->event.data.scalar.length,
                  .plain = r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE,
                  .line = line,
                  .depth = r->depth};
}

Node yaml_next(YamlReader *r) {
    if (r->refusal) return bad(r, r->refusal_line, r->refusal);
    while (r->stage != OVER) {
        if (r->has_event) yaml_event_delete(&r->event);
        r->has_event = yaml_parser_parse(&r->parser, &r->event);
        if (!r->has_event) return syntax_error(r);
        const yaml_event_t *ev = &r->event;
        int line = (int)ev->start_mark.line + 1;
        switch (ev->type) {
        case YAML_DOCUMENT_START_EVENT:
            if (r->stage == AFTER) return bad(r, line, "a second document (---); a configuration is one document");
            r->stage = INSIDE;
            break;
        case YAML_DOCUMENT_END_EVENT: r->stage = AFTER; break;
        case YAML_STREAM_END_EVENT: r->stage = OVER; break;
        case YAML_ALIAS_EVENT: return bad(r, line, "aliases (*) are not read here; write the value out");
        case YAML_SCALAR_EVENT: return scalar_node(r, line);
        case YAML_SEQUENCE_START_EVENT:
            return open_node(r, false, line, ev->data.sequence_start.anchor, ev->data.sequence_start.tag);
        case YAML_MAPPING_START_EVENT:
            return open_node(r, true, line, ev->data.mapping_start.anchor, ev->data.mapping_start.tag);
        case YAML_SEQUENCE_END_EVENT:
        case YAML_MAPPING_END_EVENT: return (Node){.kind = NODE_END, .line = line, .depth = --r->depth};
        case YAML_STREAM_START_EVENT:
        case YAML_NO_EVENT: break;
        }
    }
    return (Node){.kind = NODE_DONE};
}

Node yaml_skip(YamlReader *r, Node open) {
    Node node = open;
    do node = yaml_next(r);
    while (node.kind != NODE_BAD && node.kind != NODE_DONE && !(node.kind == NODE_END && node.depth == open.depth));
    return node;
}
