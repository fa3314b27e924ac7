// The YAML reader: libyaml's events, refusing everything that a configuration does not need.
#include "error.h"
#include "yaml_reader.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

typedef enum { START, INSIDE, AFTER, OVER } Stage; // before, in and after the document; at the end

typedef struct {
    bool map, flow; // flow: written with brackets or braces
    bool key_next;  // in a map: a key comes next, not a value
    int column;     // of the innermost block collection, which continuation lines must exceed; -1: none
} Level;

struct YamlReader {
    const char *text;
    size_t n;
    const char *at;  // how far check_text has read
    size_t at_index; // the same in characters, as libyaml counts
    int at_line;     // from 1
    yaml_parser_t parser;
    yaml_event_t event; // the last YamlNode points to its text
    bool has_event;
    Stage stage;
    int depth;
    Level level[YAML_MAX_DEPTH];
    const char *refusal; // why the text is refused as a whole, or NULL
    int refusal_line;
    char message[256];
};

static int line_of(const char *text, const char *at) {
    int line = 1;
    for (const char *p = text; p < at; p++) line += *p == '\n';
    return line;
}

YamlReader *yaml_open(const char *text, size_t n) {
    YamlReader *r = xcalloc(1, sizeof *r);
    bool bom = n >= 3 && !memcmp(text, "\xef\xbb\xbf", 3); // libyaml would count it as a column
    text += bom ? 3 : 0;
    n -= bom ? 3 : 0;
    r->text = r->at = text;
    r->n = n;
    r->at_line = r->refusal_line = 1;
    const char *nul = memchr(text, 0, n);
    if (n > YAML_MAX_BYTES) r->refusal = "is larger than 1 MiB: this is not a configuration";
    else if (n >= 2 && (!memcmp(text, "\xff\xfe", 2) || !memcmp(text, "\xfe\xff", 2)))
        r->refusal = "UTF-16 text; save the file as UTF-8";
    else if (nul) {
        r->refusal = "a NUL byte: this is not a text file";
        r->refusal_line = line_of(text, nul);
    } else if (!yaml_parser_initialize(&r->parser)) r->refusal = "not enough memory to read it";
    else {
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

static YamlNode bad(YamlReader *r, int line, const char *message) {
    r->stage = OVER;
    return (YamlNode){.kind = YAML_BAD, .text = message, .n = strlen(message), .line = line, .depth = r->depth};
}

// A syntax error in libyaml's words, with the line where it stopped.
static YamlNode syntax_error(YamlReader *r) {
    const yaml_parser_t *p = &r->parser;
    int line = (int)p->problem_mark.line + 1;
    if (p->error == YAML_READER_ERROR && p->problem_offset <= r->n)
        line = line_of(r->text, r->text + p->problem_offset);
    const char *problem = p->problem ? p->problem : "not enough memory";
    if (p->context)
        snprintf(r->message, sizeof r->message, "not valid YAML: %s from line %zu on: %s", p->context,
                 p->context_mark.line + 1, problem);
    else snprintf(r->message, sizeof r->message, "not valid YAML: %s", problem);
    return bad(r, line, r->message);
}

// ---- what libyaml lets through -----------------------------------------------------------------------------------

// Checks the text up to character `index`, between two events (`gap`) or within one, for two mistakes that libyaml
// accepts: a comment without a space before it, and a continuation line at or left of `column`. Returns what is wrong,
// or NULL.
static const char *check_text(YamlReader *r, size_t index, bool gap, int column) {
    bool comment = false;
    const char *end = r->text + r->n;
    for (; r->at < end && r->at_index < index; r->at_index++) {
        char c = *r->at, before = r->at > r->text ? r->at[-1] : '\n';
        if (gap && c == '#' && !comment) {
            if (before != ' ' && before != '\t' && before != '\n' && before != '\r')
                return "a comment wants a space before its #";
            comment = true;
        }
        do r->at++;
        while (r->at < end && (*r->at & 0xc0) == 0x80); // the rest of a character's bytes
        if (c != '\n') continue;
        comment = false;
        r->at_line++;
        const char *p = r->at;
        while (p < end && *p == ' ') p++;
        ptrdiff_t indent = p - r->at;
        while (p < end && (*p == ' ' || *p == '\t')) p++;
        bool blank = p == end || *p == '\n' || *p == '\r' || (gap && strchr("#]}", *p));
        if (!blank && indent <= column) return "this line goes on from the one before; indent it more, with spaces";
    }
    return NULL;
}

// The indentation that lines in the innermost list or map must exceed; -1: none.
static int block_column(const YamlReader *r) { return r->depth ? r->level[r->depth - 1].column : -1; }

static const char *check_event(YamlReader *r) {
    const yaml_event_t *ev = &r->event;
    yaml_scalar_style_t style = ev->type == YAML_SCALAR_EVENT ? ev->data.scalar.style : YAML_ANY_SCALAR_STYLE;
    bool in_flow = r->depth && r->level[r->depth - 1].flow;
    const char *wrong = check_text(r, ev->start_mark.index, true, in_flow ? block_column(r) : -1);
    if (!wrong && style == YAML_PLAIN_SCALAR_STYLE && !strcmp((char *)ev->data.scalar.value, "-"))
        wrong = "a lone - is not a value; quote it";
    if (!wrong && (style == YAML_LITERAL_SCALAR_STYLE || style == YAML_FOLDED_SCALAR_STYLE)) {
        const char *p = r->at, *end = r->text + r->n;
        while (p < end && !strchr(" \t\r\n#", *p)) p++;
        if (p < end && *p == '#') wrong = "a comment wants a space before its #";
    }
    bool quoted = style == YAML_SINGLE_QUOTED_SCALAR_STYLE || style == YAML_DOUBLE_QUOTED_SCALAR_STYLE;
    return wrong ? wrong : check_text(r, ev->end_mark.index, false, quoted ? block_column(r) : -1);
}

// ---- nodes -------------------------------------------------------------------------------------------------------

// Alternates between keys and values in the innermost map. False where a list or map is in the place of a key.
static bool take_turn(YamlReader *r, bool scalar) {
    if (r->depth == 0 || !r->level[r->depth - 1].map) return true;
    bool *key_next = &r->level[r->depth - 1].key_next;
    if (*key_next && !scalar) return false;
    *key_next = !*key_next;
    return true;
}

static YamlNode open_node(YamlReader *r, bool map, bool flow, const yaml_char_t *anchor, const yaml_char_t *tag) {
    const yaml_mark_t start = r->event.start_mark;
    int line = (int)start.line + 1;
    if (anchor) return bad(r, line, "anchors (&) are not read here; write the value out");
    if (tag) return bad(r, line, "tags (!) are not read here; leave the tag out");
    if (!take_turn(r, false)) return bad(r, line, "a list or map cannot be a key");
    if (r->depth == YAML_MAX_DEPTH) return bad(r, line, "lists and maps are nested more than 32 deep");
    r->level[r->depth] = (Level){map, flow, map, flow ? block_column(r) : (int)start.column};
    return (YamlNode){.kind = map ? YAML_MAP : YAML_LIST, .line = line, .depth = r->depth++};
}

static YamlNode scalar_node(YamlReader *r) {
    int line = (int)r->event.start_mark.line + 1;
    if (r->event.data.scalar.anchor) return bad(r, line, "anchors (&) are not read here; write the value out");
    if (r->event.data.scalar.tag) return bad(r, line, "tags (!) are not read here; leave the tag out");
    take_turn(r, true);
    return (YamlNode){.kind = YAML_SCALAR,
                      .text = (const char *)r->event.data.scalar.value,
                      .n = r->event.data.scalar.length,
                      .plain = r->event.data.scalar.style == YAML_PLAIN_SCALAR_STYLE,
                      .line = line,
                      .depth = r->depth};
}

YamlNode yaml_next(YamlReader *r) {
    if (r->refusal) return bad(r, r->refusal_line, r->refusal);
    while (r->stage != OVER) {
        if (r->has_event) yaml_event_delete(&r->event);
        r->has_event = yaml_parser_parse(&r->parser, &r->event);
        if (!r->has_event) return syntax_error(r);
        const yaml_event_t *ev = &r->event;
        const char *wrong = check_event(r);
        if (wrong) return bad(r, r->at_line, wrong);
        int line = (int)ev->start_mark.line + 1;
        switch (ev->type) {
        case YAML_DOCUMENT_START_EVENT:
            if (r->stage == AFTER) return bad(r, line, "a second document (---); a configuration is one document");
            if (ev->data.document_start.version_directive || ev->data.document_start.tag_directives.start)
                return bad(r, line, "directives (%) are not read here; leave the line out");
            r->stage = INSIDE;
            break;
        case YAML_DOCUMENT_END_EVENT: r->stage = AFTER; break;
        case YAML_STREAM_END_EVENT: r->stage = OVER; break;
        case YAML_ALIAS_EVENT: return bad(r, line, "aliases (*) are not read here; write the value out");
        case YAML_SCALAR_EVENT: return scalar_node(r);
        case YAML_SEQUENCE_START_EVENT:
            return open_node(r, false, ev->data.sequence_start.style == YAML_FLOW_SEQUENCE_STYLE,
                             ev->data.sequence_start.anchor, ev->data.sequence_start.tag);
        case YAML_MAPPING_START_EVENT:
            return open_node(r, true, ev->data.mapping_start.style == YAML_FLOW_MAPPING_STYLE,
                             ev->data.mapping_start.anchor, ev->data.mapping_start.tag);
        case YAML_SEQUENCE_END_EVENT:
        case YAML_MAPPING_END_EVENT: return (YamlNode){.kind = YAML_END, .line = line, .depth = --r->depth};
        case YAML_STREAM_START_EVENT:
        case YAML_NO_EVENT: break;
        }
    }
    return (YamlNode){.kind = YAML_DONE};
}

YamlNode yaml_skip(YamlReader *r, YamlNode open) {
    YamlNode node = open;
    do node = yaml_next(r);
    while (node.kind != YAML_BAD && node.kind != YAML_DONE && !(node.kind == YAML_END && node.depth == open.depth));
    return node;
}
