// The pre-tokenizer: cuts text into words by the regex in the file, which PCRE2 runs.
//
// HF runs the pattern by Oniguruma with Unicode 16. Where the same characters mean something else to PCRE2, the pattern
// is rewritten before it is compiled, or refused.
#include "tokenizer_parts.h"
#include <stdlib.h>
#include <string.h>

// Qwen2's and Qwen3's pattern; Llama 3's is the same except for numbers, which are cut into words of up to three
// digits.
#define PATTERN(digits)                                                                                                \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" digits                                         \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
static const char qwen2_pattern[] = PATTERN(""), llama3_pattern[] = PATTERN("{1,3}");
const char gpt2_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

// Escapes, without their backslash, and what they are rewritten to, without the brackets of a class.
static const struct {
    const char *escape, *set;
} rewritten[] = {
    // PCRE2 counts U+180E as white space; Unicode has not since 6.3.
    {"s", "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"},
    // Letters and numbers of Unicode 15 and 16, which PCRE2 before 10.43 and 10.45 does not know.
    {"p{L}",
     "\\p{L}\\x{1c89}\\x{1c8a}\\x{a7cb}-\\x{a7cd}\\x{a7da}-\\x{a7dc}\\x{105c0}-\\x{105f3}\\x{10d4a}-\\x{10d65}"
     "\\x{10d6f}-\\x{10d85}\\x{10ec2}-\\x{10ec4}\\x{1123f}\\x{11240}\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}"
     "\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}\\x{113d3}\\x{11bc0}-\\x{11be0}\\x{11f02}\\x{11f04}-\\x{11f10}"
     "\\x{11f12}-\\x{11f33}\\x{1342f}\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}"
     "\\x{16d40}-\\x{16d6c}\\x{18cff}\\x{1b132}\\x{1b155}\\x{1df25}-\\x{1df2a}\\x{1e030}-\\x{1e06d}"
     "\\x{1e4d0}-\\x{1e4eb}\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}\\x{31350}-\\x{323af}"},
    {"p{N}", "\\p{N}\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{11f50}-\\x{11f59}"
             "\\x{16130}-\\x{16139}\\x{16d70}-\\x{16d79}\\x{1ccf0}-\\x{1ccf9}\\x{1d2c0}-\\x{1d2d3}\\x{1e4f0}-\\x{1e4f9}"
             "\\x{1e5f1}-\\x{1e5fa}"},
};

static bool refuse(const char *where, const char *what, int n, Error *e) {
    return error_set(e, EXIT_INPUT,
                     "%s: '%.*s' in the regex is not supported; use a tokenizer of the Qwen or GPT family", where, n,
                     what);
}

// Writes what the escape at p (behind its backslash) means to HF; returns how many characters it has, 0 after filling
// *e.
static size_t escape_rewrite(const char *p, bool in_class, const char *where, Str *out, Error *e) {
    for (size_t k = 0; k < sizeof rewritten / sizeof *rewritten; k++) {
        const char *name = rewritten[k].escape, *set = rewritten[k].set;
        size_t n = strlen(name);
        bool plain = !strncmp(p, name, n),
             negated = !plain && (p[0] ^ name[0]) == 0x20 && !strncmp(p + 1, name + 1, n - 1);
        if (!plain && (!negated || in_class)) continue; // a complement inside a class is refused below
        if (in_class) str_puts(out, set);
        else str_printf(out, "[%s%s]", negated ? "^" : "", set);
        return n;
    }
    bool property = (*p == 'p' || *p == 'P') && p[1] == '{' && strchr(p, '}');
    size_t n = property ? (size_t)(strchr(p, '}') - p) + 1 : 1;
    bool letter = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9');
    bool alike = property ? *p == 'p' || !in_class : !letter || strchr(in_class ? "rntf" : "rntfdD", *p);
    if (!*p || !alike) return refuse(where, p - 1, (int)n + 1, e), 0;
    str_puts(out, "\\");
    str_add(out, p, n);
    return n;
}

static bool pattern_rewrite(const char *pattern, const char *where, Str *out, Error *e) {
    const char *class = NULL; // where the open class began
    for (const char *p = pattern; *p;) {
        if (*p == '\\') {
            size_t n = escape_rewrite(p + 1, class != NULL, where, out, e);
            if (!n) return false;
            p += 1 + n;
            continue;
        }
        // Sets of sets, line anchors and possessive intervals mean something else to Oniguruma than to PCRE2.
        if (class && (*p == '[' || !strncmp(p, "&&", 2))) return refuse(where, p, *p == '[' ? 1 : 2, e);
        if (!class && (*p == '^' || *p == '$')) return refuse(where, p, 1, e);
        if (!class && !strncmp(p, "}+", 2)) return refuse(where, p, 2, e);
        if (!class && *p == '[') class = p;
        else if (class && *p == ']' && p > class + 1 + (class[1] == '^')) class = NULL;
        str_add(out, p++, 1);
    }
    return true;
}

bool split_compile(Split *split, const char *pattern, const char *where, Error *e) {
    Str text = {0};
    if (!pattern_rewrite(pattern, where, &text, e)) {
        str_free(&text);
        return false;
    }
    int code;
    PCRE2_SIZE offset;
    split->digits = !strcmp(pattern, qwen2_pattern) ? 1 : !strcmp(pattern, llama3_pattern) ? 3 : 0;
    split->code = pcre2_compile((PCRE2_SPTR)(text.s ? text.s : ""), text.n,
                                PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &offset, NULL);
    str_free(&text);
    if (!split->code) {
        char why[256];
        pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
        return error_set(e, EXIT_INPUT, "%s: the regex does not compile: %s", where, why);
    }
    pcre2_jit_compile(split->code, PCRE2_JIT_COMPLETE); // without it matching is slower, and the same
    return true;
}

void split_free(Split *split) { pcre2_code_free(split->code); }

// ---- Qwen2's and Llama 3's patterns over ASCII ----------------------------------------------------------------------

enum { LETTER = 1, DIGIT = 2, SPACE = 4, NEWLINE = 8, OTHER = 16, BEYOND = 32 };

#define S        (SPACE)
#define W        (SPACE | NEWLINE)
#define O        (OTHER)
#define D        (DIGIT)
#define L        (LETTER)
#define B        (BEYOND)
#define EIGHT(x) x, x, x, x, x, x, x, x
static const unsigned char class_of[256] = {
    O,        O,        O,        O,        O,        O,        O,        O,        O,        S,        W,
    S,        S,        W,        O,        O,        O,        O,        O,        O,        O,        O,
    O,        O,        O,        O,        O,        O,        O,        O,        O,        O, // controls
    S,        O,        O,        O,        O,        O,        O,        O,        O,        O,        O,
    O,        O,        O,        O,        O,        D,        D,        D,        D,        D,        D,
    D,        D,        D,        D,        O,        O,        O,        O,        O,        O, // to '?'
    O,        L,        L,        L,        L,        L,        L,        L,        L,        L,        L,
    L,        L,        L,        L,        L,        L,        L,        L,        L,        L,        L,
    L,        L,        L,        L,        L,        O,        O,        O,        O,        O, // to '_'
    O,        L,        L,        L,        L,        L,        L,        L,        L,        L,        L,
    L,        L,        L,        L,        L,        L,        L,        L,        L,        L,        L,
    L,        L,        L,        L,        L,        O,        O,        O,        O,        O, // to DEL
    EIGHT(B), EIGHT(B), EIGHT(B), EIGHT(B), EIGHT(B), EIGHT(B), EIGHT(B), EIGHT(B), EIGHT(B), EIGHT(B), EIGHT(B),
    EIGHT(B), EIGHT(B), EIGHT(B), EIGHT(B), EIGHT(B),
};
#undef S
#undef W
#undef O
#undef D
#undef L
#undef B
#undef EIGHT

static inline int class_at(const unsigned char *s, size_t n, size_t i) { return i < n ? class_of[s[i]] : 0; }

// The length of the contraction (?i:'s|'t|'re|'ve|'m|'ll|'d) that begins with the apostrophe at i, or 0.
static size_t contraction(const unsigned char *s, size_t n, size_t i) {
    int a = i + 1 < n ? s[i + 1] | 0x20 : 0, b = i + 2 < n ? s[i + 2] | 0x20 : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') return 2;
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l')) return 3;
    return 0;
}

// The end of the word at i < n, with at most `digits` digits in a number; 0 where a character beyond ASCII matters for
// it.
static size_t known_word(const unsigned char *s, size_t n, size_t i, int digits) {
    int first = class_of[s[i]], second = class_at(s, n, i + 1);
    if (first & BEYOND) return 0;
    if (s[i] == '\'') {
        if (second & BEYOND) return 0; // caseless: U+017F is an s
        size_t bytes = contraction(s, n, i);
        if (bytes) return i + bytes;
    }
    // [^\r\n\p{L}\p{N}]?\p{L}+
    if (first & LETTER || (second & LETTER && !(first & (DIGIT | NEWLINE)))) {
        size_t end = i + 1;
        while (class_at(s, n, end) & LETTER) end++;
        return class_at(s, n, end) & BEYOND ? 0 : end;
    }
    if (first & DIGIT) { // \p{N}{1,digits}
        size_t end = i + 1;
        while (end < i + (size_t)digits && class_at(s, n, end) & DIGIT) end++;
        return end < i + (size_t)digits && class_at(s, n, end) & BEYOND ? 0 : end;
    }
    // ' ?[^\s\p{L}\p{N}]+[\r\n]*'
    if (first & OTHER || (s[i] == ' ' && second & OTHER)) {
        size_t end = i + 1;
        while (class_at(s, n, end) & OTHER) end++;
        if (class_at(s, n, end) & BEYOND) return 0;
        while (class_at(s, n, end) & NEWLINE) end++;
        return end;
    }
    // \s*[\r\n]+ up to the last newline of the run; else \s+(?!\S), all but the last; else \s+
    size_t end = i, newline = 0;
    for (int c; (c = class_at(s, n, end)) & SPACE; end++)
        if (c & NEWLINE) newline = end + 1;
    if (class_at(s, n, end) & BEYOND) return 0;
    if (newline) return newline;
    return end == n || end == i + 1 ? end : end - 1;
}

bool split_next(const Split *split, pcre2_match_data **match, const char *s, size_t n, size_t at, size_t *from,
                size_t *to) {
    if (split->digits && at < n && (*to = known_word((const unsigned char *)s, n, at, split->digits))) {
        *from = at;
        return true;
    }
    if (!*match) *match = pcre2_match_data_create(1, NULL);
    if (!*match) xmalloc(SIZE_MAX); // reports that memory ran out, and exits
    // Only the whole match is wanted; a result of 0 means that there are groups too. An error is one of PCRE2's limits,
    // which no pattern of the known tokenizers reaches: then there is no match, and the rest is one word.
    int rc = pcre2_match(split->code, (PCRE2_SPTR)s, n, at, PCRE2_NO_UTF_CHECK, *match, NULL);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT)
        rc = pcre2_match(split->code, (PCRE2_SPTR)s, n, at, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, *match, NULL);
    if (rc < 0) return false;
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(*match);
    *from = range[0], *to = range[1];
    return true;
}
