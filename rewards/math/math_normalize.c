// Cleaning LaTeX before it is parsed, as latex2sympy2_extended does: in steps, each from one buffer into another, each
// linear in the text but for the short lists of words it knows.
#include "verify.h"
#include <ctype.h>

static bool is_word(char c) { return isalnum((unsigned char)c) || c == '_'; }

// ---- boxes ----------------------------------------------------------------------------------------------------------

size_t math_closing_brace(Text t, size_t open, size_t end) {
    int depth = 1;
    for (size_t i = open + 1; i < end; i++) {
        if (t.s[i] == '{') depth++;
        else if (t.s[i] == '}' && --depth == 0) return i;
    }
    return TEXT_NONE;
}

// A comma, a semicolon, or "and" or "or" as a word of its own.
static bool has_separator(Text t) {
    for (size_t i = 0; i < t.n; i++) {
        size_t end = t.s[i] == ',' || t.s[i] == ';' ? i : text_word_at(t, i, "and") ? i + 3 : i + 2;
        if (end == i) return true;
        if (end == i + 2 && !text_word_at(t, i, "or")) continue;
        if (!(i > 0 && is_word(t.s[i - 1])) && !is_word(text_byte(t, end))) return true;
    }
    return false;
}

// Whether a box belongs together with the one after it: it is close by, or they are separated by a comma, "and" or
// "or".
static bool boxes_belong(Text between, Text box, Text next) {
    size_t gap = text_length(between);
    return gap < 10 || (gap < 70 && !text_equal(box, next) && has_separator(between));
}

// The last `what` before byte `end`; *known remembers where the last search found it, so that no part is searched
// twice.
static size_t last_before(Text t, size_t end, const char *what, size_t *known) {
    if (*known != TEXT_NONE && *known + strlen(what) > end) *known = text_find_last((Text){t.s, end}, text_of(what));
    return *known;
}

// Writes the contents of \boxed{...} and \fbox{...}, found from the right, joined by commas; without boxes the whole
// text.
static void unbox(Text t, bool last_only, Str *out) {
    enum { MAX_BOXES = 256 };
    Text box[MAX_BOXES];
    int n = 0;
    size_t end = t.n, next_start = t.n, boxed = t.n, fbox = t.n;
    while (n < MAX_BOXES) {
        last_before(t, end, "\\boxed", &boxed);
        last_before(t, end, "\\fbox", &fbox);
        if (boxed == TEXT_NONE && fbox == TEXT_NONE) break;
        bool is_fbox = boxed == TEXT_NONE || (fbox != TEXT_NONE && fbox > boxed);
        size_t start = is_fbox ? fbox : boxed, open = text_skip_space((Text){t.s, end}, start + (is_fbox ? 5 : 6));
        if (open >= end) break;
        size_t close = t.s[open] == '{' ? math_closing_brace(t, open, end) : TEXT_NONE;
        if (close == TEXT_NONE) { // open to the end: only as the last box
            if (n == 0) box[n++] = text_from(t, open);
            break;
        }
        Text inner = text_strip(text_slice(t, open + 1, close));
        if (last_only && n > 0 && !boxes_belong(text_slice(t, close + 1, next_start), inner, box[n - 1])) break;
        if (n == 0 || !text_equal(box[n - 1], inner)) box[n++] = inner;
        end = next_start = start;
    }
    if (n == 0) str_add(out, t.s, t.n);
    for (int i = n - 1; i >= 0; i--) {
        str_add(out, box[i].s, box[i].n);
        if (i > 0) str_puts(out, ",");
    }
}

// ---- steps ----------------------------------------------------------------------------------------------------------

typedef struct {
    const char *from, *to;
} Replacement;

// Replaces words by the first entry of the list that fits.
static void replace_words(Text t, const Replacement *list, size_t n, Str *out) {
    for (size_t i = 0; i < t.n;) {
        size_t k = 0;
        while (k < n && !(list[k].from[0] == t.s[i] && text_word_at(t, i, list[k].from))) k++;
        if (k < n) str_puts(out, list[k].to);
        else str_add(out, t.s + i, 1);
        i += k < n ? strlen(list[k].from) : 1;
    }
}

static void shorten(Text t, Str *out) {
    static const Replacement list[] = {
        {"\\mathrm{T}", "T"},
        {"\\mathrm{d}", "d"},
        {"{\\rm d}", "d"},
        {"\\left[\\begin{matrix}", "\\begin{bmatrix}"},
        {"\\end{matrix}\\right]", "\\end{bmatrix}"},
    };
    replace_words(t, list, sizeof list / sizeof *list, out);
}

// \left( is (, \right\} is \}.
static void drop_sizes(Text t, Str *out) {
    static const char *const left[] = {"\\{",      "{",        "\\|",        "|",         "[",       "(",
                                       "\\lgroup", "\\lbrace", "\\lbrack",   "\\vert",    "\\lvert", "\\lceil",
                                       "\\lfloor", "\\langle", "\\llcorner", "\\ulcorner"};
    static const char *const right[] = {"\\}",      "}",        "\\|",        "|",         "]",       ")",
                                        "\\rbrack", "\\rgroup", "\\rbrace",   "\\vert",    "\\rvert", "\\rceil",
                                        "\\rfloor", "\\rangle", "\\lrcorner", "\\urcorner"};
    for (size_t i = 0; i < t.n; i++) {
        if (t.s[i] != '\\') {
            str_add(out, t.s + i, 1);
            continue;
        }
        bool is_left = text_word_at(t, i, "\\left") || text_word_at(t, i, "\\mleft");
        bool is_right = text_word_at(t, i, "\\right") || text_word_at(t, i, "\\mright");
        size_t after = i + (is_left ? 5 : 6) + (text_byte(t, i + 1) == 'm'), k = 0;
        while ((is_left || is_right) && k < 16 && !text_word_at(t, after, is_left ? left[k] : right[k])) k++;
        if ((is_left || is_right) && k < 16) i = after - 1;
        else str_add(out, t.s + i, 1);
    }
}

static size_t skip_in(Text t, size_t i, const char *also) {
    while (i < t.n && (isalnum((unsigned char)t.s[i]) || strchr(also, t.s[i])) && t.s[i]) i++;
    return i;
}

// (n)_{k}, a number of permutations, is n! / (n - k)!.
static void expand_permutations(Text t, Str *out) {
    static const char signs[] = "+-*/\\ ";
    for (size_t i = 0; i < t.n; i++) {
        size_t n = i + 1, n_end = t.s[i] == '(' ? skip_in(t, n, signs) : n, k = n_end + 3, k_end = k;
        if (n_end > n && text_word_at(t, n_end, ")_{")) k_end = skip_in(t, k, signs);
        if (k_end == k || text_byte(t, k_end) != '}') {
            str_add(out, t.s + i, 1);
            continue;
        }
        int n_bytes = (int)(n_end - n), k_bytes = (int)(k_end - k);
        str_printf(out, "\\frac{(%.*s)!}{((%.*s)-(%.*s))!}", n_bytes, t.s + n, n_bytes, t.s + n, k_bytes, t.s + k);
        i = k_end;
    }
}

// The byte after `\text{ }` at i, white space allowed; i where it does not stand there.
static size_t empty_text(Text t, size_t i) {
    if (!text_word_at(t, i, "\\text")) return i;
    size_t open = text_skip_space(t, i + 5);
    if (text_byte(t, open) != '{') return i;
    size_t close = text_skip_space(t, open + 1);
    return text_byte(t, close) == '}' ? close + 1 : i;
}

// Drops "th", negative spaces, empty texts, dollar signs, quotes, \displaystyle.
static void drop_noise(Text t, Str *out) {
    for (size_t i = 0; i < t.n;) {
        size_t end = i;
        if (text_word_at(t, i, "\\mathrm{th}")) end = i + 11;
        else if (text_word_at(t, i, "\\!")) end = text_skip_space(t, i + 2);
        else if (text_word_at(t, i, "\\$")) end = i + 2;
        else if (t.s[i] == '$') end = i + 1;
        else if ((t.s[i] == '"' || t.s[i] == '\'') && (i == 0 || t.s[i - 1] != '\\')) end = i + 1;
        else if (text_word_at(t, i, "\\displaystyle")) end = i + 13;
        else end = empty_text(t, i);
        if (end == i) str_add(out, t.s + i, 1);
        i = end == i ? i + 1 : end;
    }
}

// "and" or "or" at i: the byte after it, else i.
static size_t and_or(Text t, size_t i) {
    return text_word_at(t, i, "and") ? i + 3 : text_word_at(t, i, "or") ? i + 2 : i;
}

static bool is_alpha(char c) { return isalpha((unsigned char)c); }

// ",? and" not inside of a word, or ",? \text{ and }": the byte after it, else i.
static size_t conjunction(Text t, size_t i) {
    if (i > 0 && is_alpha(t.s[i - 1]) && t.s[i] != '\\') {
        // The plain form must not follow a letter; the form with \text may, and so may its comma or space.
        size_t at = text_skip_space(t, i + (t.s[i] == ','));
        if (!text_word_at(t, at, "\\text{")) return i;
    }
    size_t at = text_skip_space(t, i + (t.s[i] == ',')), end = and_or(t, at);
    if (end > at) return is_alpha(text_byte(t, end)) ? i : end;
    if (!text_word_at(t, at, "\\text{")) return i;
    size_t word = text_skip_space(t, at + 6);
    end = and_or(t, word);
    size_t close = text_skip_space(t, end);
    return end > word && text_byte(t, close) == '}' ? close + 1 : i;
}

// White space, then a word for percent that is a word of its own: the byte after it, else i.
static size_t percent_word(Text t, size_t i) {
    static const char *const words[] = {"percentage", "percent", "pct"};
    size_t at = text_skip_space(t, i);
    for (size_t k = 0; k < 3; k++)
        if (text_word_at(t, at, words[k]) && !(at > 0 && is_word(t.s[at - 1])) &&
            !is_word(text_byte(t, at + strlen(words[k]))))
            return at + strlen(words[k]);
    return i;
}

// "{ , }" with the white space around: the byte after it, else i.
static size_t braced_comma(Text t, size_t i) {
    size_t open = text_skip_space(t, i);
    if (text_byte(t, open) != '{') return i;
    size_t comma = text_skip_space(t, open + 1), close = text_skip_space(t, comma + 1);
    return text_byte(t, comma) == ',' && text_byte(t, close) == '}' ? close + 1 : i;
}

// One replacement at byte i: what to write instead, and *end, the byte to go on with; NULL where there is none.
static const char *replacement(Text t, size_t i, size_t *end) {
    static const Replacement words[] = {
        {"\\mathrm", "\\text"},
        {"\\mathit", "\\text"},
        {"\\mathbf", "\\text"},
        {"\\textnormal", "\\text"},
        {"\\textbf", "\\text"},
        {"\\textit", "\\text"},
        {"\\textrm", "\\text"},
        {"\\dfrac", "\\frac"},
        {"\\tfrac", "\\frac"},
        {"\\cfrac", "\\frac"},
        {"{.", "{0."},
        {"~=", "\\approx"},
        {"infinity", "\\infty"},
        {"\\text{percentage}", "%"},
        {"\\text{percent}", "%"},
        {"\\text{pct}", "%"},
        {" sqrt", "\\sqrt"},
        {",\\ldots", " "},
        {"\\ldots", " "},
    };
    bool space = isspace((unsigned char)t.s[i]);
    for (size_t k = 0; k < sizeof words / sizeof *words; k++)
        if (words[k].from[0] == t.s[i] && text_word_at(t, i, words[k].from))
            return *end = i + strlen(words[k].from), words[k].to;
    if (space && text_byte(t, i + 1) == '.') return *end = i + 2, " 0.";
    if ((space || t.s[i] == '{') && (*end = braced_comma(t, i)) > i) return ",";
    if ((space || strchr(",ao\\", t.s[i])) && (*end = conjunction(t, i)) > i) return ",";
    if (t.s[i] == '\\' && (i == 0 || t.s[i - 1] != '\\') && isspace((unsigned char)text_byte(t, i + 1)))
        return *end = i + 2, " ";
    if ((space || t.s[i] == 'p') && (*end = percent_word(t, i)) > i) return "\\%";
    if (text_word_at(t, i, "inf") && !text_word_at(t, i, "infinity") && (i == 0 || t.s[i - 1] != '\\'))
        return *end = i + 3, "\\infty";
    return NULL;
}

static void replace_synonyms(Text t, Str *out) {
    for (size_t i = 0, end; i < t.n;) {
        const char *instead = t.s[i] ? replacement(t, i, &end) : NULL;
        if (instead) str_puts(out, instead);
        else str_add(out, t.s + i, 1);
        i = instead ? end : i + 1;
    }
}

// Newlines and tabs are spaces. Outside of matrices, two backslashes before a letter are one.
static void fix_spaces_and_slashes(Text t, Str *out) {
    bool matrix = text_find(t, 0, text_of("matrix")) != TEXT_NONE;
    for (size_t i = 0; i < t.n; i++) {
        if (!matrix && text_word_at(t, i, "\\\\") && is_alpha(text_byte(t, i + 2))) i++;
        if (t.s[i] == '\n' || t.s[i] == '\t') str_puts(out, " ");
        else str_add(out, t.s + i, 1);
    }
}

Text math_last_equation(Text t) {
    size_t last = 0, n = 0;
    if (memchr(t.s, ',', t.n) || memchr(t.s, ';', t.n)) return t;
    for (size_t i = 0; i < t.n; i++)
        if (t.s[i] == '=' && !(i > 0 && strchr("\\<!>", t.s[i - 1]))) n++, last = i + 1;
    return n > 1 ? text_from(t, last) : t;
}

// ---- units ----------------------------------------------------------------------------------------------------------

// Words for units and the like that are dropped at the end of an answer, as Math-Verify does.
static const char *const units[] = {
    "integerpoint",
    "feet",
    "sue",
    "digit",
    "pound",
    "meal",
    "edge",
    "student",
    "children ticket",
    "multiple",
    "east",
    "degree",
    "mph",
    "kmph",
    "ft",
    "m square",
    " m east",
    "sq m",
    "deg",
    "mile",
    "q .",
    "monkey",
    "prime",
    "ratio",
    "profit of rs",
    "rd",
    "o",
    "gm",
    "p . m",
    "lb",
    "tile",
    "per",
    "dm",
    "lt",
    "gain",
    "ab",
    "way",
    "west",
    "a .",
    "b .",
    "c .",
    "d .",
    "e .",
    "f .",
    "g .",
    "h .",
    "t",
    "h",
    "no change",
    "men",
    "soldier",
    "pie",
    "bc",
    "excess",
    "st",
    "inches",
    "noon",
    "cent",
    "by",
    "gal",
    "kmh",
    "c",
    "acre",
    "rise",
    "a . m",
    "th",
    "π r 2",
    "sq",
    "mark",
    "l",
    "toy",
    "coin",
    "sq . m",
    "gallon",
    "° f",
    "profit",
    "minw",
    "yr",
    "women",
    "am",
    "pm",
    "hr",
    "cu cm",
    "square",
    "are",
    "rupee",
    "rounds",
    "cubic",
    "cc",
    "mtr",
    "s",
    "ohm",
    "number",
    "day",
    "hour",
    "minute",
    "min",
    "second",
    "man",
    "woman",
    "sec",
    "cube",
    "mt",
    "sq inch",
    "mp",
    "∏ cm ³",
    "hectare",
    "more",
    "unit",
    "cu . m",
    "cm 2",
    "rs .",
    "rs",
    "kg",
    "g",
    "month",
    "km",
    "m",
    "cm",
    "mm",
    "apple",
    "liter",
    "loss",
    "yard",
    "pure",
    "year",
    "increase",
    "decrease",
    "d",
    "less",
    "Surface",
    "litre",
    "pi sq m",
    "s .",
    "metre",
    "meter",
    "inch",
};

static bool is_unit(Text t) {
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        if (t.n == 0 || units[i][0] != t.s[0]) continue;
        Text unit = text_of(units[i]);
        if (t.n > unit.n + 2 || !text_at(t, 0, unit)) continue;
        Text rest = text_from(t, unit.n);
        if (rest.n == 0 || text_equal(rest, text_of("s")) || text_equal(rest, text_of("es"))) return true;
    }
    return false;
}

// The length of the text without a unit at its end, behind a digit, a brace or a space; t.n where there is none.
static size_t before_unit(Text t) {
    Text body = t;
    while (body.n > 0 && isspace((unsigned char)body.s[body.n - 1])) body.n--;
    for (size_t i = 0; i + 1 < body.n; i++) {
        if (!is_ascii_digit(t.s[i]) && t.s[i] != '}' && !isspace((unsigned char)t.s[i])) continue;
        size_t unit = text_skip_space(body, i + 1);
        if (is_unit(text_from(body, unit)) || (unit > i + 1 && is_unit(text_from(body, unit - 1)))) return i + 1;
    }
    return t.n;
}

// Whether what begins at `start` is the subscript of a number: its base in a word.
static bool is_base_at(Text t, size_t start) {
    size_t under = start - (start > 0 && t.s[start - 1] == '{');
    return under > 1 && t.s[under - 1] == '_' && is_ascii_digit(t.s[under - 2]);
}

// The byte where the first \text{...} or \mbox{...} begins, if the text ends with a brace, or one and ^2; else t.n.
static size_t before_unit_text(Text t) {
    size_t n = t.n;
    if (n >= 3 && is_ascii_digit(t.s[n - 1]) && t.s[n - 2] == '^') n -= 2;
    if (n == 0 || t.s[n - 1] != '}') return t.n;
    size_t text = text_find(t, 0, text_of("\\text{")), mbox = text_find(t, 0, text_of("\\mbox{"));
    size_t start = text < mbox ? text : mbox;
    return start < n && !is_base_at(t, start) ? start : t.n;
}

static void drop_units(Text t, Str *out) {
    Text kept = text_strip((Text){t.s, before_unit_text(t)});
    if (kept.n > 0) t = kept;
    for (int round = 0; round < 2; round++) t.n = before_unit(t);
    str_add(out, t.s, t.n);
}

// A leading point gets its zero; a lone 0.5 is the fraction.
static void fix_decimal(Text t, Str *out) {
    if (text_is(t, "0.5") || text_is(t, ".5")) {
        str_puts(out, "\\frac{1}{2}");
        return;
    }
    if (text_byte(t, 0) == '.') str_puts(out, "0");
    str_add(out, t.s, t.n);
}

// ---- all of it ------------------------------------------------------------------------------------------------------

void math_step(Str *text, void (*step)(Text t, Str *out)) {
    Str out = {0};
    step((Text){text->s ? text->s : "", text->n}, &out);
    str_free(text);
    *text = out;
}

void math_normalize(Text latex, Normalize how, Str *out) {
    Str text = {0};
    unbox(latex, how.last_box, &text);
    if (text.n > 2 * MATH_MAX_TEXT) { // no formula any more
        str_add(out, text.s, text.n);
        str_free(&text);
        return;
    }
    math_step(&text, shorten);
    math_step(&text, drop_sizes);
    math_step(&text, expand_permutations);
    math_step(&text, drop_noise);
    math_step(&text, replace_synonyms);
    math_step(&text, fix_spaces_and_slashes);
    math_step(&text, drop_units);
    if (how.nits) math_step(&text, fix_decimal);
    if (how.malformed) math_fix_malformed(&text);
    Text clean = text_strip((Text){text.s ? text.s : "", text.n});
    str_add(out, clean.s, clean.n);
    str_free(&text);
}
