// Mending LaTeX that lacks braces: \frac12, \sqrt3, x^(2), sqrt(3), 1/2.
#include "verify.h"
#include <ctype.h>

// Writes `before{inner}` for what stands in parentheses behind one of the words.
static void brace_parentheses(Text t, const char *word, const char *before, Str *out) {
    for (size_t i = 0; i < t.n; i++) {
        size_t open = i + strlen(word);
        const char *close = NULL;
        if (text_word_at(t, i, word)) {
            if (isspace((unsigned char)text_byte(t, open))) open++;
            if (text_byte(t, open) == '(') close = memchr(t.s + open, ')', t.n - open);
        }
        if (!close) {
            str_add(out, t.s + i, 1);
            continue;
        }
        str_printf(out, "%s{%.*s}", before, (int)(close - t.s - (long)open - 1), t.s + open + 1);
        i = (size_t)(close - t.s);
    }
}

// \frac12 is \frac{1}{2}, \log_23 is \log_{2}{3}: one digit, then digits.
static void brace_digits(Text t, const char *word, Str *out) {
    for (size_t i = 0; i < t.n; i++) {
        size_t a = i + strlen(word), b;
        if (text_word_at(t, i, word)) {
            if (isspace((unsigned char)text_byte(t, a))) a++;
            b = a + 1 + (isspace((unsigned char)text_byte(t, a + 1)) != 0);
            size_t end = b;
            while (is_ascii_digit(text_byte(t, end))) end++;
            if (is_ascii_digit(text_byte(t, a)) && end > b) {
                str_printf(out, "%s{%c}{%.*s}", word, t.s[a], (int)(end - b), t.s + b);
                i = end - 1;
                continue;
            }
        }
        str_add(out, t.s + i, 1);
    }
}

// \frac{a}2 is \frac{a}{2}, \frac1{b} is \frac{1}{b}, \sqrt3 is \sqrt{3}.
static void brace_single_digits(Text t, Str *out) {
    for (size_t i = 0; i < t.n; i++) {
        bool frac = text_word_at(t, i, "\\frac"), root = text_word_at(t, i, "\\sqrt");
        size_t a = i + 5;
        if ((frac || root) && isspace((unsigned char)text_byte(t, a))) a++;
        if (root && is_ascii_digit(text_byte(t, a))) {
            str_printf(out, "\\sqrt{%c}", t.s[a]);
            i = a;
        } else if (frac && is_ascii_digit(text_byte(t, a))) {
            size_t b = a + 1 + (isspace((unsigned char)text_byte(t, a + 1)) != 0);
            if (text_byte(t, b) == '{') str_printf(out, "\\frac{%c}", t.s[a]), i = b - 1;
            else str_add(out, t.s + i, 1);
        } else if (frac && text_byte(t, a) == '{') {
            size_t close = math_closing_brace(t, a, t.n), b = close + 1;
            if (close == TEXT_NONE) {
                str_add(out, t.s + i, 1);
                continue;
            }
            if (isspace((unsigned char)text_byte(t, b)) && is_ascii_digit(text_byte(t, b + 1))) b++;
            Str inner = {0}; // the numerator may hold others
            brace_single_digits(text_slice(t, a, close + 1), &inner);
            str_printf(out, "\\frac%s", inner.s);
            str_free(&inner);
            if (is_ascii_digit(text_byte(t, b))) str_printf(out, "{%c}", t.s[b]), close = b;
            i = close;
        } else str_add(out, t.s + i, 1);
    }
}

// The single characters behind \frac and \sqrt that are no groups become groups.
static void brace_characters(Text t, const char *word, int arguments, const char *groups, Str *out) {
    for (size_t i = 0; i < t.n; i++) {
        str_add(out, t.s + i, 1);
        if (!text_word_at(t, i, word)) continue;
        str_puts(out, word + 1);
        i = text_skip_space(t, i + strlen(word)) - 1;
        for (int k = 0; k < arguments && i + 1 < t.n && !strchr(groups, t.s[i + 1]); k++) {
            uint32_t c;
            size_t n = text_char(t, i + 1, &c);
            str_printf(out, "{%.*s}", (int)n, t.s + i + 1);
            i += n;
        }
    }
}

// a/b of two integers and nothing else is a fraction.
static void slash_to_fraction(Text t, Str *out) {
    size_t slash = text_find(t, 0, text_of("/")), i = 0;
    for (; i < t.n; i++)
        if (!is_ascii_digit(t.s[i]) && i != slash && !(t.s[i] == '-' && (i == 0 || i == slash + 1))) break;
    bool plain =
        slash != TEXT_NONE && i == t.n && slash > 0 && is_ascii_digit(t.s[slash - 1]) && is_ascii_digit(t.s[t.n - 1]);
    if (plain) str_printf(out, "\\frac{%.*s}{%.*s}", (int)slash, t.s, (int)(t.n - slash - 1), t.s + slash + 1);
    else str_add(out, t.s, t.n);
}

static void brace_powers(Text t, Str *out) { brace_parentheses(t, "^", "^", out); }
static void brace_roots(Text t, Str *out) { brace_parentheses(t, "sqrt", "\\sqrt", out); }
static void brace_fraction_digits(Text t, Str *out) { brace_digits(t, "\\frac", out); }
static void brace_log_digits(Text t, Str *out) { brace_digits(t, "\\log_", out); }
static void brace_root_characters(Text t, Str *out) { brace_characters(t, "\\sqrt", 1, "{[", out); }
static void brace_fraction_characters(Text t, Str *out) { brace_characters(t, "\\frac", 2, "{", out); }

void math_fix_malformed(Str *text) {
    math_step(text, brace_powers);
    math_step(text, brace_roots);
    math_step(text, brace_fraction_digits);
    math_step(text, brace_log_digits);
    math_step(text, brace_single_digits);
    math_step(text, brace_root_characters);
    math_step(text, brace_fraction_characters);
    math_step(text, slash_to_fraction);
}
