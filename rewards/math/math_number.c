// Finding plain numbers and arithmetic in a text: 1,234.5, .5, 7 percent, $3, 1/2 + 3. The forms and their order are
// those of Math-Verify's regular expressions; and so is how far a match is shortened where something must, or must not,
// follow.
#include "math_scan.h"

bool accept_hope(Text t, size_t end) { return scan_hopes(t, end, &end); }

// False before an equals sign: what stands there is no answer.
bool accept_no_equals(Text t, size_t end) { return text_byte(t, text_skip_space(t, end)) != '='; }

static bool accepts(const Scan *s, size_t end) { return !s->accept || s->accept(s->text, end); }

// The start of the text, white space or an equals sign: the byte after it in *after.
static bool prefix_at(Text t, size_t at, size_t *after) {
    uint32_t c = 0;
    if (at >= t.n) return false;
    *after = at + text_char(t, at, &c);
    return text_is_space(c) || c == '=';
}

// The byte after "**" at `at`, or `at`.
static size_t skip_bold(Text t, size_t at) { return at + (text_word_at(t, at, "**") ? 2 : 0); }

// ---- arithmetic -----------------------------------------------------------------------------------------------------

// Bytes of a character of an expression: 0 for any other. *is_operator says whether it is one of + - * / ^ ( ) and
// signs.
static size_t expr_char(Text t, size_t at, bool *is_operator) {
    uint32_t c;
    *is_operator = false;
    if (at >= t.n) return 0;
    size_t n = text_char(t, at, &c);
    if (text_is_decimal(c) || c == '.' || text_is_space(c)) return n;
    *is_operator = c == 0xd7 || c == 0xf7 || (c < 0x80 && c && strchr("+-*/^()", (int)c));
    return *is_operator ? n : 0;
}

// What must follow an expression, perhaps bold: . , : ) $ white space, or the end. The byte after it in *after.
static bool expr_suffix(Text t, size_t at, size_t *after) {
    uint32_t c;
    at = skip_bold(t, at);
    *after = at;
    if (at == t.n || (at + 1 == t.n && t.s[at] == '\n')) return true;
    *after = at + text_char(t, at, &c);
    return text_is_space(c) || (c < 0x80 && c && strchr(".,:)$", (int)c));
}

// -?\(?-?\d, then digits and operators with at least one operator that is not the last of them.
static bool expr_from(Scan *s, size_t at, Match *m) {
    enum { MAX_EXPR = 512 };
    Text t = s->text;
    size_t start = at, after;
    at += text_byte(t, at) == '-';
    at += text_byte(t, at) == '(';
    at += text_byte(t, at) == '-';
    if (!is_ascii_digit(text_byte(t, at))) return false;
    size_t end[MAX_EXPR]; // after each character
    bool enough[MAX_EXPR];
    bool seen = false, is_operator;
    int n = 0;
    for (size_t i = at + 1, bytes; n < MAX_EXPR && (bytes = expr_char(t, i, &is_operator)); i += bytes) {
        enough[n] = seen;
        seen |= is_operator;
        end[n++] = i + bytes;
    }
    while (n-- > 0) {
        if (!enough[n] || !expr_suffix(t, end[n], &after) || !accepts(s, after)) continue;
        *m = (Match){.kind = MATCH_EXPR, .start = start, .end = after, .expr = text_slice(t, start, end[n])};
        return true;
    }
    return false;
}

// ---- numbers --------------------------------------------------------------------------------------------------------

// The byte after white space and a word for percent, or `at`.
static size_t skip_percent(Text t, size_t at) {
    static const char *const words[] = {"%", "percent", "Percent", "pct", "Pct"};
    size_t word = text_skip_space(t, at);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (text_at(t, word, text_of(words[i]))) return word + strlen(words[i]);
    return at;
}

// A number that ends at `end`, with its percent sign if what follows then suits, else without.
static bool number_ends(Scan *s, Match *m, size_t end) {
    size_t percent = skip_percent(s->text, end);
    m->percent = percent > end && accepts(s, percent);
    m->end = m->percent ? percent : end;
    return m->percent || accepts(s, end);
}

// Tries to end the number after each digit of its last run of digits [from, to), the longest first.
static bool number_ends_within(Scan *s, Match *m, Text *part, size_t start, size_t from, size_t to) {
    enum { MAX_BACK = 64 }; // how far a number may be shortened for what must follow it
    for (size_t end = to; end > from && to - end < MAX_BACK; end--) {
        *part = text_slice(s->text, start, end);
        if (number_ends(s, m, end)) return true;
    }
    return false;
}

// -?[1-9]\d{0,2}([ ,]\d{3})+ and then perhaps .\d+
static bool grouped_number(Scan *s, size_t at, Match *m) {
    Text t = s->text;
    size_t first = at + (text_byte(t, at) == '-');
    if (!is_ascii_digit(text_byte(t, first)) || t.s[first] == '0') return false;
    for (size_t digits = 3; digits > 0; digits--) {
        if (text_skip_digits(t, first) < first + digits) continue;
        size_t groups = first + digits, end = groups;
        while ((text_byte(t, end) == ',' || text_byte(t, end) == ' ') && text_skip_digits(t, end + 1) >= end + 4)
            end += 4;
        for (; end > groups; end -= 4) {
            m->integer = text_slice(t, at, end);
            if (text_byte(t, end) == '.' &&
                number_ends_within(s, m, &m->decimal, end, end + 1, text_skip_digits(t, end + 1)))
                return true;
            m->decimal = (Text){0};
            if (number_ends(s, m, end)) return true;
        }
    }
    return false;
}

static bool number_from(Scan *s, size_t at, Match *m) {
    Text t = s->text;
    *m = (Match){.kind = MATCH_NUMBER, .start = at};
    if (grouped_number(s, at, m)) return true;
    *m = (Match){.kind = MATCH_NUMBER, .start = at};
    size_t digits = at + (text_byte(t, at) == '-'), end = text_skip_digits(t, digits);
    if (end > digits &&
        (text_byte(t, end) == '.' || text_byte(t, end) == ',')) { // digits with a point or a decimal comma
        m->integer = text_slice(t, at, end);
        if (number_ends_within(s, m, &m->decimal, end, end + 1, text_skip_digits(t, end + 1))) return true;
        m->decimal = (Text){0};
    }
    m->integer = (Text){0};
    if (text_byte(t, at) == '.') return number_ends_within(s, m, &m->decimal, at, at + 1, text_skip_digits(t, at + 1));
    return number_ends_within(s, m, &m->integer, at, digits, end);
}

static bool is_currency(uint32_t c) {
    return c == '$' || c == 0xa3 || c == 0xa5 || c == 0xe3f || (c >= 0x20a0 && c <= 0x20bf);
}

static bool number_after(Scan *s, size_t at, Match *m) {
    uint32_t c = 0;
    at = skip_bold(s->text, at);
    size_t n = at < s->text.n ? text_char(s->text, at, &c) : 0;
    return number_from(s, at + (is_currency(c) ? n : 0), m);
}

static bool expr_after(Scan *s, size_t at, Match *m) { return expr_from(s, skip_bold(s->text, at), m); }

// ---- places ---------------------------------------------------------------------------------------------------------

// Matches `what` at the start of the text, or behind the separator at `at`.
static bool anchored(Scan *s, size_t at, bool (*what)(Scan *, size_t, Match *), Match *m) {
    size_t after;
    bool found = (at == 0 && what(s, at, m)) || (prefix_at(s->text, at, &after) && what(s, after, m));
    if (found) m->start = at;
    return found;
}

bool number_or_expr_at(Scan *s, size_t at, Match *m) {
    return anchored(s, at, expr_after, m) || anchored(s, at, number_after, m);
}

bool number_or_expr_after_space(Scan *s, size_t at, Match *m) {
    size_t end = text_skip_space(s->text, at);
    return number_or_expr_at(s, end, m) || (end > at && number_or_expr_at(s, end - 1, m));
}

bool number_after_equals(Scan *s, size_t at, Match *m) {
    enum { WINDOW = 100 };
    size_t equals[WINDOW + 1];
    int n = 0;
    for (int k = 0; k <= WINDOW && at < s->text.n; k++) {
        uint32_t c;
        size_t bytes = text_char(s->text, at, &c);
        at += bytes;
        if (c == '=') equals[n++] = at;
        if (c == '\n') break;
    }
    while (n-- > 0)
        if (number_or_expr_after_space(s, equals[n], m)) return true;
    return false;
}

// All expressions, then all numbers, of a text: each kind from the left without overlap.
static void scan_all(Scan *s, bool (*what)(Scan *, size_t, Match *), void (*add)(Scan *, const Match *)) {
    for (size_t at = 0; at < s->text.n;) {
        Match m;
        if (anchored(s, at, what, &m)) {
            add(s, &m);
            at = m.end > at ? m.end : at + 1;
        } else at++;
    }
}

void scan_numbers(Scan *s, void (*add)(Scan *s, const Match *m)) {
    scan_all(s, expr_after, add);
    scan_all(s, number_after, add);
}

// ---- reading a place ------------------------------------------------------------------------------------------------

Answer math_read_number(Scan *s, const Match *m) {
    Str digits = {0};
    Text text = m->expr;
    Node *a;
    if (m->kind == MATCH_EXPR) a = math_parse_expr(s->pool, m->expr);
    else {
        bool minus = m->integer.n > 0 && m->integer.s[0] == '-', leading = !minus;
        for (size_t i = minus; i < m->integer.n; i++) {
            char c = m->integer.s[i];
            if (is_ascii_digit(c) && !(leading && c == '0')) str_add(&digits, &c, 1), leading = false;
        }
        if (digits.n == 0) str_puts(&digits, "0");
        if (m->decimal.n > 0) str_puts(&digits, "."), str_add(&digits, m->decimal.s + 1, m->decimal.n - 1);
        Str whole = {0};
        str_printf(&whole, "%s%s", minus ? "-" : "", digits.s);
        text = pool_text(s->pool, (Text){whole.s, whole.n});
        str_free(&whole);
        str_free(&digits);
        a = node_digits(s->pool, text_from(text, minus));
        if (minus) a = node_negate(s->pool, a);
        if (m->percent) a = node_percent(s->pool, a);
    }
    return (Answer){a, text};
}
