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

// Characters that got their category in Unicode 15 and 16, by it: PCRE2 before 10.43 and 10.45 does not know them. They
// were found by asking HF tokenizers 0.23 about every character. U+0295 is no Ll any more from Unicode 18 on.
#define NEW_LU "\\x{1c89}\\x{a7cb}\\x{a7cc}\\x{a7da}\\x{a7dc}\\x{10d50}-\\x{10d65}"
#define NEW_LL "\\x{295}\\x{1c8a}\\x{a7cd}\\x{a7db}\\x{10d70}-\\x{10d85}\\x{1df25}-\\x{1df2a}"
#define NEW_LM "\\x{10d4e}\\x{10d6f}\\x{16d40}-\\x{16d42}\\x{16d6b}\\x{16d6c}\\x{1e030}-\\x{1e06d}\\x{1e4eb}"
#define NEW_LO                                                                                                         \
    "\\x{105c0}-\\x{105f3}\\x{10d4a}-\\x{10d4d}\\x{10d4f}\\x{10ec2}-\\x{10ec4}"                                        \
    "\\x{1123f}\\x{11240}\\x{11380}-\\x{11389}\\x{1138b}\\x{1138e}\\x{11390}-\\x{113b5}\\x{113b7}\\x{113d1}"           \
    "\\x{113d3}\\x{11bc0}-\\x{11be0}\\x{11f02}\\x{11f04}-\\x{11f10}\\x{11f12}-\\x{11f33}\\x{1342f}"                    \
    "\\x{13441}-\\x{13446}\\x{13460}-\\x{143fa}\\x{16100}-\\x{1611d}\\x{16d43}-\\x{16d6a}\\x{18cff}\\x{1b132}"         \
    "\\x{1b155}\\x{1e4d0}-\\x{1e4ea}\\x{1e5d0}-\\x{1e5ed}\\x{1e5f0}\\x{2b739}\\x{2ebf0}-\\x{2ee5d}"                    \
    "\\x{31350}-\\x{323af}"
#define NEW_ND                                                                                                         \
    "\\x{10d40}-\\x{10d49}\\x{116d0}-\\x{116e3}\\x{11bf0}-\\x{11bf9}\\x{11f50}-\\x{11f59}"                             \
    "\\x{16130}-\\x{16139}\\x{16d70}-\\x{16d79}\\x{1ccf0}-\\x{1ccf9}\\x{1e4f0}-\\x{1e4f9}\\x{1e5f1}-\\x{1e5fa}"
#define NEW_NO "\\x{1d2c0}-\\x{1d2d3}"
#define NEW_MN                                                                                                         \
    "\\x{897}\\x{ece}\\x{10d69}-\\x{10d6d}\\x{10efc}-\\x{10eff}\\x{11241}\\x{113bb}-\\x{113c0}"                        \
    "\\x{113ce}\\x{113d0}\\x{113d2}\\x{113e1}\\x{113e2}\\x{11f00}\\x{11f01}\\x{11f36}-\\x{11f3a}\\x{11f40}"            \
    "\\x{11f42}\\x{11f5a}\\x{13440}\\x{13447}-\\x{13455}\\x{1611e}-\\x{16129}\\x{1612d}-\\x{1612f}\\x{1e08f}"          \
    "\\x{1e4ec}-\\x{1e4ef}\\x{1e5ee}\\x{1e5ef}"
#define NEW_MC                                                                                                         \
    "\\x{cf3}\\x{113b8}-\\x{113ba}\\x{113c2}\\x{113c5}\\x{113c7}-\\x{113ca}\\x{113cc}\\x{113cd}"                       \
    "\\x{113cf}\\x{1171e}\\x{11f03}\\x{11f34}\\x{11f35}\\x{11f3e}\\x{11f3f}\\x{11f41}\\x{1612a}-\\x{1612c}"
#define NEW_PD "\\x{10d6e}"
#define NEW_PO                                                                                                         \
    "\\x{1b4e}\\x{1b4f}\\x{1b7f}\\x{113d4}\\x{113d5}\\x{113d7}\\x{113d8}\\x{11b00}-\\x{11b09}"                         \
    "\\x{11be1}\\x{11f43}-\\x{11f4f}\\x{16d6d}-\\x{16d6f}\\x{1e5ff}"
#define NEW_SM "\\x{10d8e}\\x{10d8f}"
#define NEW_SO                                                                                                         \
    "\\x{2427}-\\x{2429}\\x{2ffc}-\\x{2fff}\\x{31e4}\\x{31e5}\\x{31ef}\\x{1cc00}-\\x{1ccef}"                           \
    "\\x{1cd00}-\\x{1ceb3}\\x{1f6dc}\\x{1f774}-\\x{1f776}\\x{1f77b}-\\x{1f77f}\\x{1f7d9}\\x{1f8b2}-\\x{1f8bb}"         \
    "\\x{1f8c0}\\x{1f8c1}\\x{1fa75}-\\x{1fa77}\\x{1fa87}-\\x{1fa89}\\x{1fa8f}\\x{1faad}-\\x{1faaf}"                    \
    "\\x{1fabb}-\\x{1fabf}\\x{1fac6}\\x{1face}\\x{1facf}\\x{1fada}-\\x{1fadc}\\x{1fadf}\\x{1fae8}\\x{1fae9}"           \
    "\\x{1faf7}\\x{1faf8}\\x{1fbcb}-\\x{1fbef}"

// Escapes, without their backslash, and what they are rewritten to, without the brackets of a class.
static const struct {
    const char *escape, *set;
} rewritten[] = {
    // PCRE2 counts U+180E as white space; Unicode has not since 6.3.
    {"s", "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"},
    {"d", "\\p{Nd}" NEW_ND},
    {"p{L}", "\\p{L}" NEW_LU NEW_LL NEW_LM NEW_LO},
    {"p{M}", "\\p{M}" NEW_MN NEW_MC},
    {"p{N}", "\\p{N}" NEW_ND NEW_NO},
    {"p{P}", "\\p{P}" NEW_PD NEW_PO},
    {"p{S}", "\\p{S}" NEW_SM NEW_SO},
    {"p{Lu}", "\\p{Lu}" NEW_LU},
    {"p{Ll}", "\\p{Ll}" NEW_LL},
    {"p{Lm}", "\\p{Lm}" NEW_LM},
    {"p{Lo}", "\\p{Lo}" NEW_LO},
    {"p{Mc}", "\\p{Mc}" NEW_MC},
    {"p{Nd}", "\\p{Nd}" NEW_ND},
    {"p{No}", "\\p{No}" NEW_NO},
    {"p{Pd}", "\\p{Pd}" NEW_PD},
    {"p{Po}", "\\p{Po}" NEW_PO},
    {"p{Sm}", "\\p{Sm}" NEW_SM},
    {"p{So}", "\\p{So}" NEW_SO},
    // The script, not PCRE2's script extensions, which take in the punctuation used with it.
    {"p{Han}", "\\x{2e80}-\\x{2e99}\\x{2e9b}-\\x{2ef3}\\x{2f00}-\\x{2fd5}\\x{3005}\\x{3007}\\x{3021}-\\x{3029}"
               "\\x{3038}-\\x{303b}\\x{3400}-\\x{4dbf}\\x{4e00}-\\x{9fff}\\x{f900}-\\x{fa6d}\\x{fa70}-\\x{fad9}"
               "\\x{16fe2}\\x{16fe3}\\x{16ff0}\\x{16ff1}\\x{20000}-\\x{2a6df}\\x{2a700}-\\x{2b739}"
               "\\x{2b740}-\\x{2b81d}\\x{2b820}-\\x{2cea1}\\x{2ceb0}-\\x{2ebe0}\\x{2ebf0}-\\x{2ee5d}"
               "\\x{2f800}-\\x{2fa1d}\\x{30000}-\\x{3134a}\\x{31350}-\\x{323af}"},
};

// Properties that are the same in Unicode 14 to 16. Any other is refused: U+1171E left Mn, the unassigned became fewer,
// and of scripts PCRE2 means the extensions.
static const char *const unchanged[] = {"p{Lt}", "p{Nl}", "p{Me}", "p{Z}",  "p{Zs}", "p{Zl}", "p{Zp}", "p{Pc}",
                                        "p{Ps}", "p{Pe}", "p{Pi}", "p{Pf}", "p{Sc}", "p{Sk}", "p{Cc}", "p{Co}"};

static bool is_unchanged(const char *property) {
    for (size_t i = 0; i < sizeof unchanged / sizeof *unchanged; i++)
        if (!strncmp(property + 1, unchanged[i] + 1, strlen(unchanged[i]) - 1)) return true;
    return false;
}

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
    bool alike = property ? is_unchanged(p) && (*p == 'p' || !in_class) : !letter || strchr("rntf", *p);
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
