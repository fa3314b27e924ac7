// Finding where a text states its answer: LaTeX in $...$, $$...$$, \(...\), \[...\], \boxed{...}, behind "answer" or
// alone. The places and their order are Math-Verify's; its regular expressions are written here as scanners that take
// time linear in the text, but for windows of at most 100 characters behind each "answer".
#include "math_scan.h"
#include <stdlib.h>

static bool is_space_at(Text t, size_t at) { return at < t.n && text_skip_space(t, at) > at; }
static bool escaped(Text t, size_t i) { return i > 0 && t.s[i - 1] == '\\'; }

// ---- one environment ------------------------------------------------------------------------------------------------

// The first `what` at or after `from`. The searches of one slot only go forward, so the last result is used until it is
// passed.
static size_t next_of(Scan *s, int slot, const char *what, size_t from) {
    size_t *known = &s->next[slot];
    if (!s->searched[slot] || (*known != TEXT_NONE && *known < from) || from < s->searched_from[slot]) {
        *known = text_find(s->text, from, text_of(what));
        s->searched_from[slot] = from;
        s->searched[slot] = true;
    }
    return *known;
}

// Whether [from, to) holds a \boxed{...} that is not empty.
static bool holds_box(Scan *s, size_t from, size_t to) {
    size_t box = next_of(s, NEXT_BOX, "\\boxed{", from);
    return box != TEXT_NONE && box + 8 < to && memchr(s->text.s + box + 8, '}', to - box - 8);
}

static bool environment(Scan *s, size_t from, size_t to, size_t end, bool boxed, Piece *piece, size_t *after) {
    if (to <= from || (boxed && !holds_box(s, from, to))) return false;
    piece->latex = text_slice(s->text, from, to);
    *after = end;
    return true;
}

static bool display_dollar(Scan *s, size_t at, bool boxed, Piece *piece, size_t *after) {
    Text t = s->text;
    if (!text_word_at(t, at, "$$") || escaped(t, at)) return false;
    size_t close = text_find(t, at + 3, text_of("$$"));
    return close != TEXT_NONE && !escaped(t, close) && t.s[at + 2] != '$' &&
           environment(s, at + 2, close, close + 2, boxed, piece, after);
}

// \[...\] or \(...\), the second within a line.
static bool bracketed(Scan *s, size_t at, bool boxed, bool line, Piece *piece, size_t *after) {
    Text t = s->text;
    if (!text_at(t, at, text_of(line ? "\\(" : "\\[")) || escaped(t, at)) return false;
    size_t close = next_of(s, line ? NEXT_PAREN : NEXT_BRACKET, line ? "\\)" : "\\]", at + 2);
    if (close == TEXT_NONE || escaped(t, close)) return false;
    if (line && next_of(s, NEXT_LINE, "\n", at + 2) < close) return false;
    return environment(s, at + 2, close, close + 2, boxed, piece, after);
}

static bool inline_dollar(Scan *s, size_t at, bool boxed, Piece *piece, size_t *after) {
    Text t = s->text;
    if (text_byte(t, at) != '$' || escaped(t, at) || (at > 0 && is_ascii_digit(t.s[at - 1]))) return false;
    size_t close = at + 1;
    while (close < t.n && t.s[close] != '\n' && (t.s[close] != '$' || escaped(t, close))) close++;
    if (close == t.n || t.s[close] == '\n') return false;
    return environment(s, at + 1, close, close + 1, boxed, piece, after);
}

// Brackets within a line, with white space around them.
static bool spaced_brackets(Scan *s, size_t at, bool boxed, Piece *piece, size_t *after) {
    Text t = s->text;
    uint32_t c;
    if (at >= t.n) return false;
    size_t open = at + text_char(t, at, &c);
    if (!text_is_space(c) || text_byte(t, open) != '[') return false;
    size_t close = open + 1;
    while (close < t.n && !strchr("[]\n", t.s[close])) close++;
    if (text_byte(t, close) != ']' || !is_space_at(t, close + 1)) return false;
    size_t end = close + 1 + text_char(t, close + 1, &c);
    return environment(s, open + 1, close, end, boxed, piece, after);
}

// Matches -?[0-9]+([.,][0-9]+)? between braces: the byte after them, or `at` where there is none.
static size_t braced_number(Text t, size_t at) {
    size_t i = at + 1 + (text_byte(t, at + 1) == '-'), digits = i;
    if (text_byte(t, at) != '{') return at;
    while (is_ascii_digit(text_byte(t, i))) i++;
    if (i == digits) return at;
    if ((text_byte(t, i) == '.' || text_byte(t, i) == ',') && is_ascii_digit(text_byte(t, i + 1)))
        for (i++; is_ascii_digit(text_byte(t, i));) i++;
    return text_byte(t, i) == '}' ? i + 1 : at;
}

// A fraction of numbers, which needs no environment.
static bool bare_fraction(Scan *s, size_t at, Piece *piece, size_t *after) {
    Text t = s->text;
    size_t slash = at + (text_byte(t, at) == '-'), top = slash + 5;
    if (!text_word_at(t, slash, "\\frac")) return false;
    size_t bottom = braced_number(t, top), end = braced_number(t, bottom);
    if (bottom == top || end == bottom) return false;
    piece->latex = text_slice(t, at, end);
    *after = end;
    return true;
}

// Matches one environment at `at` and the white space and percent sign behind it; *after is the byte behind all that.
static bool piece_at(Scan *s, size_t at, bool boxed, Piece *piece, size_t *after) {
    static const char *const percent[] = {"\\%", "%", "percent", "Percent", "pct", "Pct"};
    *piece = (Piece){0};
    char c = text_byte(s->text, at);
    bool found =
        (c == '$' && (display_dollar(s, at, boxed, piece, after) || inline_dollar(s, at, boxed, piece, after))) ||
        (c == '\\' && (bracketed(s, at, boxed, false, piece, after) || bracketed(s, at, boxed, true, piece, after))) ||
        spaced_brackets(s, at, boxed, piece, after) || (!boxed && bare_fraction(s, at, piece, after));
    if (!found) return false;
    *after = text_skip_space(s->text, *after);
    for (size_t i = 0; i < sizeof percent / sizeof *percent && !piece->percent; i++)
        if (text_at(s->text, *after, text_of(percent[i]))) piece->percent = true, *after += strlen(percent[i]);
    return true;
}

// piece_at behind white space, which may belong to an environment in brackets.
static bool piece_after_space(Scan *s, size_t at, bool boxed, Piece *piece, size_t *after) {
    size_t start = text_skip_space(s->text, at);
    return piece_at(s, start, boxed, piece, after) ||
           (start > at && spaced_brackets(s, start - 1, boxed, piece, after));
}

// Matches up to six environments joined by "and", "or", ",".
static bool latex_at(Scan *s, size_t at, bool boxed, bool spaced, Match *m) {
    static const char *const joints[] = {",and", "and", ",or", "or", ","};
    *m = (Match){.kind = MATCH_LATEX, .start = at};
    if (!(spaced ? piece_after_space : piece_at)(s, at, boxed, &m->piece[0], &m->end)) return false;
    for (m->n = 1; m->n < MAX_PIECES; m->n++) {
        size_t joint = text_skip_space(s->text, m->end), end = 0;
        bool joined = false;
        for (size_t i = 0; i < sizeof joints / sizeof *joints && !joined; i++)
            joined = text_at(s->text, joint, text_of(joints[i])) &&
                     piece_after_space(s, joint + strlen(joints[i]), boxed, &m->piece[m->n], &end);
        if (!joined) break;
        m->end = end;
    }
    return true;
}

// ---- places ---------------------------------------------------------------------------------------------------------

static void scan_add(Scan *s, const Match *m) {
    if (s->n == s->cap) {
        s->cap = s->cap ? s->cap * 2 : 16;
        s->match = xrealloc(s->match, (size_t)s->cap * sizeof *s->match);
    }
    s->match[s->n++] = *m;
}

size_t scan_word(Text t, size_t from, const char *word) {
    size_t n = strlen(word);
    for (size_t i = from; i + n <= t.n; i++)
        if ((t.s[i] | 0x20) == word[0] && strncasecmp(t.s + i, word, n) == 0) return i;
    return TEXT_NONE;
}

bool scan_hopes(Text t, size_t at, size_t *end) {
    at += text_byte(t, at) == '.';
    Text hope = text_of("I hope");
    if (!text_at(t, at, hope) && is_space_at(t, at)) {
        uint32_t c;
        at += text_char(t, at, &c);
    }
    *end = at + hope.n;
    return text_at(t, at, hope);
}

// Finds the places "final answer is: ... I hope".
static void scan_hoped(Scan *s, Look look) {
    for (size_t at = 0; (at = scan_word(s->text, at, "final answer is")) != TEXT_NONE;) {
        size_t start = at, end;
        Match m;
        at += strlen("final answer is");
        size_t inner = at + (text_byte(s->text, at) == ':');
        if (look == LOOK_NUMBERS) s->accept = accept_hope;
        bool found =
            look == LOOK_LATEX ? latex_at(s, inner, false, true, &m) : number_or_expr_after_space(s, inner, &m);
        found = found && scan_hopes(s->text, m.end, &end);
        s->accept = NULL;
        if (!found) continue;
        m.start = start;
        m.end = at = end;
        scan_add(s, &m);
    }
}

// Finds the places "final answer ... is: ...", with up to 100 characters between.
static void scan_final(Scan *s, Look look) {
    enum { WINDOW = 100 };
    for (size_t at = 0; (at = scan_word(s->text, at, "final answer")) != TEXT_NONE;) {
        size_t start = at, i = at += strlen("final answer");
        for (int k = 0; k <= WINDOW && i < s->text.n; k++) {
            uint32_t c;
            size_t is = text_skip_space(s->text, i), inner = is + 2 + (text_byte(s->text, is + 2) == ':');
            Match m;
            if (is > i && text_word_at(s->text, is, "is") &&
                (look == LOOK_LATEX ? latex_at(s, inner, false, true, &m) : number_or_expr_at(s, inner, &m))) {
                m.start = start;
                at = m.end;
                scan_add(s, &m);
                break;
            }
            i += text_char(s->text, i, &c);
            if (look == LOOK_NUMBERS && c == '\n') break;
        }
    }
}

// Finds the places "answer: ..." or "answer ...", with up to 50 characters between.
static void scan_answer(Scan *s, Look look, bool colon) {
    enum { WINDOW = 50 };
    for (size_t at = 0; (at = scan_word(s->text, at, "answer")) != TEXT_NONE;) {
        size_t start = at, i = at += strlen("answer");
        Match m;
        if (colon && text_byte(s->text, i) != ':') continue;
        i += colon;
        bool found = look == LOOK_NUMBERS && number_after_equals(s, i, &m);
        for (int k = 0; k <= WINDOW && i < s->text.n && !found; k++) {
            uint32_t c;
            found = look == LOOK_LATEX ? latex_at(s, i, false, false, &m) : number_or_expr_at(s, i, &m);
            i += text_char(s->text, i, &c);
            if (look == LOOK_NUMBERS && c == '\n') break;
        }
        if (!found) continue;
        m.start = start;
        at = m.end;
        scan_add(s, &m);
    }
}

static void scan_latex(Scan *s, bool boxed) {
    for (size_t at = 0; at < s->text.n;) {
        Match m;
        char c = s->text.s[at];
        bool may = c == '$' || c == '\\' || c == '-' || text_byte(s->text, at + 1) == '[' || (unsigned char)c >= 0x80;
        if (may && latex_at(s, at, boxed, false, &m)) {
            scan_add(s, &m);
            at = m.end;
        } else at++;
    }
}

// Finds \boxed{...} without an environment. Where it ends is not known: all up to the last brace of the text is taken.
static void scan_boxed(Scan *s) {
    size_t start = text_find(s->text, 0, text_of("\\boxed{"));
    const char *last = start == TEXT_NONE ? NULL : memrchr(s->text.s, '}', s->text.n);
    if (!last || (size_t)(last - s->text.s) < start + 8) return;
    Match m = {.kind = MATCH_LATEX, .start = start, .end = (size_t)(last - s->text.s) + 1, .n = 1};
    m.piece[0] = (Piece){.latex = text_slice(s->text, m.start, m.end), .box = true};
    scan_add(s, &m);
}

// Orders matches: those that end last come first, of those the longest.
static int match_compare(const void *a, const void *b) {
    const Match *x = a, *y = b;
    if (x->end != y->end) return x->end > y->end ? -1 : 1;
    return x->start < y->start ? -1 : x->start > y->start;
}

static void scan_priority(Scan *s, int priority) {
    bool latex = s->how->latex, numbers = s->how->numbers;
    s->n = 0;
    for (int i = 0; i < NEXT_SLOTS; i++) s->searched[i] = false;
    for (Look look = LOOK_LATEX; look <= LOOK_NUMBERS; look++) {
        if (!(look == LOOK_LATEX ? latex : numbers)) continue;
        if (priority == 0) scan_hoped(s, look);
        if (priority == 50) scan_final(s, look);
        s->accept = look == LOOK_NUMBERS ? accept_no_equals : NULL;
        if (priority == 100) scan_answer(s, look, true);
        if (priority == 200) scan_answer(s, look, false);
        s->accept = NULL;
    }
    if (priority == 300 && s->how->unanchored && latex) scan_latex(s, false);
    if (priority == 300 && s->how->unanchored && numbers) scan_numbers(s, scan_add);
    if (priority == s->how->boxed_priority && latex) {
        scan_latex(s, true);
        scan_boxed(s);
    }
    if (s->n > 1) qsort(s->match, (size_t)s->n, sizeof *s->match, match_compare);
}

// ---- reading a place ------------------------------------------------------------------------------------------------

static Answer read_latex(Scan *s, const Match *m) {
    Node *node[MAX_PIECES];
    Text text[MAX_PIECES];
    bool all = true;
    for (int i = 0; i < m->n; i++) {
        Normalize how = s->how->normalize;
        how.last_box |= m->piece[i].box;
        Str clean = {0};
        math_normalize(m->piece[i].latex, how, &clean);
        text[i] = pool_text(s->pool, (Text){clean.s, clean.n});
        str_free(&clean);
        node[i] = math_parse_latex(s->pool, text[i]);
        if (node[i] && m->piece[i].percent) // of an equation, nothing
            node[i] = node_is_relation(node[i]) ? NULL : node_percent(s->pool, node[i]);
        all &= node[i] != NULL;
    }
    if (m->n == 1 || !all) return (Answer){node[0], text[0]};
    Str joined = {0};
    Node *set = node_new(s->pool, NODE_SET, 0, NULL);
    for (int i = 0; i < m->n; i++) {
        str_printf(&joined, "%s%.*s", i ? " and " : "", (int)text[i].n, text[i].s);
        Node *one[1] = {node[i]};
        bool is_set = node[i]->kind == NODE_SET;
        Node *items = node_new(s->pool, NODE_SET, is_set ? node[i]->n : 1, is_set ? node[i]->arg : one);
        set = node_flat(s->pool, NODE_SET, set, items);
    }
    Text kept = pool_text(s->pool, (Text){joined.s, joined.n});
    str_free(&joined);
    return (Answer){node_set(s->pool, NODE_SET, set->n, set->arg), kept};
}

Answer math_extract(Pool *p, Text text, const Extract *how) {
    static const int priorities[] = {0, 50, 100, 200, 300};
    enum { MAX_TRIES = 200 }; // of a text full of what cannot be read, only so much is tried
    Scan s = {.pool = p, .text = text, .how = how};
    Answer best = {.text = {"", 0}};
    bool done = false;
    int tries = 0;
    for (size_t i = 0; i < sizeof priorities / sizeof *priorities && !done; i++) {
        scan_priority(&s, priorities[i]);
        for (int k = 0; k < s.n && !done && tries < MAX_TRIES; k++, tries++) {
            Answer a = s.match[k].kind == MATCH_LATEX ? read_latex(&s, &s.match[k]) : math_read_number(&s, &s.match[k]);
            if (best.text.n == 0) best.text = a.text;
            best.node = a.node;
            done = a.node || how->first_match;
        }
    }
    free(s.match);
    return best;
}
