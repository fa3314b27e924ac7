// The reward language_consistency: the share of a chain of thought's words that are in the target language, R1's reward
// against mixed languages (DeepSeek-AI 2025, "DeepSeek-R1", section 2.3.2). The paper says no more than that; here:
//
// What counts is the text between the first <think> and the last </think>, or the run's think_markers; a missing one
// means the text's start or end. Tags, code blocks, formulas ($..$, $$..$$, \(..\), \[..\]) and LaTeX commands belong
// to no language and are left out.
//
// Words are runs of letters of one script. Chinese and Japanese have no spaces: there two characters make a word, and
// an odd one at the end of a run one more. A single Latin, Cyrillic or Greek letter is a variable, not a word.
//
// Korean is Hangul. A run of Han characters is Japanese where its sentence has kana, else Chinese; short sentences of
// Han characters alone follow the text. Russian is Cyrillic, and Arabic is Arabic script, without letters that only
// other languages use. English, French, German and Spanish share a script: a function word (the, der, que) and a letter
// (ß, ñ, ç) tell a word's language, any other word is in that of most such words of its sentence, or, where there are
// none, of the text; the target wins ties.
//
// The score is words of the target language / words, from 0 to 1; 0 without words.
#include "language_words.h"
#include "regex.h"
#include "rules.h"
#include <stdlib.h>
#include <utf8proc.h>

// The languages, in the order of the parameter's choices; the first four share the Latin script.
enum { EN, FR, DE, ES, ZH, JA, KO, RU, AR, LANGUAGES };
#define LATIN_LANGUAGES 4
static const int by_choice[LANGUAGES] = {EN, ZH, JA, KO, RU, AR, FR, DE, ES};

// The kinds of token, in the order of the pattern's groups.
enum { CJK = 1, HANGUL, CYRILLIC, ARABIC, LATIN, OTHER, SENTENCE_END };
// [^\P{A}\P{L}] is a letter of script A: newer PCRE2 count some digits and punctuation to a script as well.
#define WORD_OF(script) "([^\\P{" script "}\\P{L}][\\p{" script "}\\p{M}]*+)"
static const char pattern[] =
    "((?:[^\\P{Han}\\P{L}]++|[^\\P{Hiragana}\\P{L}]++|[^\\P{Katakana}\\P{L}]++|\\x{30FC}++)++)|"
    "([^\\P{Hangul}\\P{L}]++)|" WORD_OF("Cyrillic") "|" WORD_OF("Arabic") "|" WORD_OF(
        "Latin") "|"
                 "(\\p{L}[\\p{L}\\p{M}]*+)|"
                 "([.!?;:\\n\\x{2026}\\x{3002}\\x{FF01}\\x{FF1F}\\x{FF1A}\\x{FF1B}\\x{61F}\\x{61B}]++)";

typedef struct {
    int kind, words;
    unsigned says; // Latin: 1 << language for each that the word itself speaks for; FOREIGN: for none of ours
    int han, kana; // CJK: characters
} Token;
#define FOREIGN 0x80000000u

typedef struct {
    Token *token;
    int n, cap;
} Tokens;

// Words that speak for a language, and kana, of a sentence or a text.
typedef struct {
    int says[LATIN_LANGUAGES], han, kana;
} Evidence;

void *open_language(const Reward *r, Error *e) { return regex_new(pattern, e); }
void close_language(void *data) { regex_free(data); }

// ---- what is read ---------------------------------------------------------------------------------------------------

// The signs around parts that are no language. A single dollar is money, unless the next one in its line closes a
// formula: then neither has white space on its inner side.
static const char *const formulas[][2] = {{"```", "```"}, {"$$", "$$"}, {"\\(", "\\)"}, {"\\[", "\\]"}};
#define FORMULAS ((int)(sizeof formulas / sizeof *formulas))

static size_t dollar_end(Text t, size_t at) {
    size_t end = at + 1;
    while (end < t.n && t.s[end] != '$' && t.s[end] != '\n') end++;
    if (text_byte(t, end) != '$' || end == at + 1) return at;
    return t.s[at + 1] == ' ' || t.s[end - 1] == ' ' ? at : end + 1;
}

// <think>, </answer> and the like.
static size_t tag_end(Text t, size_t at) {
    size_t end = at + 1 + (text_byte(t, at + 1) == '/'), name = end;
    while (end < t.n && ((t.s[end] | 32) >= 'a' && (t.s[end] | 32) <= 'z')) end++;
    return end > name && text_byte(t, end) == '>' ? end + 1 : at;
}

// The end of a formula, code block, tag or LaTeX command that begins at `at`, or `at` where none does. never[k] is set
// once the text has no more closing sign of kind k, so that it is searched for only once.
static size_t skip_formula(const ThinkMarkers *m, Text t, size_t at, bool *never) {
    for (int k = 0; k < FORMULAS; k++) {
        Text open = text_of(formulas[k][0]), close = text_of(formulas[k][1]);
        if (never[k] || !text_at(t, at, open)) continue;
        size_t end = text_find(t, at + open.n, close);
        if (end != TEXT_NONE) return end + close.n;
        never[k] = true;
    }
    if (text_word_at(t, at, m->open)) return at + strlen(m->open);
    if (text_word_at(t, at, m->close)) return at + strlen(m->close);
    if (t.s[at] == '$') return dollar_end(t, at);
    if (t.s[at] == '<') return tag_end(t, at);
    size_t end = at;
    if (t.s[at] == '\\')
        for (end++; end < t.n && ((t.s[end] | 32) >= 'a' && (t.s[end] | 32) <= 'z');) end++;
    return end;
}

static void leave_out_formulas(const ThinkMarkers *m, Text t, Str *out) {
    bool never[FORMULAS] = {false};
    for (size_t at = 0; at < t.n;) {
        size_t end = skip_formula(m, t, at, never);
        str_add(out, end > at ? " " : t.s + at, 1);
        at = end > at ? end : at + 1;
    }
}

// ---- tokens ---------------------------------------------------------------------------------------------------------

static int word_compare(const void *key, const void *row) { return strcmp(key, ((const LanguageWord *)row)->word); }

// The languages that a letter outside a to z speaks for, a bit each.
static unsigned letter_says(uint32_t c) {
    switch (c) {
    case 0xe4:
    case 0xf6:
    case 0xdf: return 1u << DE;
    case 0xfc: return 1u << DE | 1u << ES | 1u << FR;
    case 0xf1:
    case 0xe1:
    case 0xed:
    case 0xf3:
    case 0xfa: return 1u << ES;
    case 0xe9: return 1u << FR | 1u << ES;
    case 0xe0:
    case 0xe2:
    case 0xe7:
    case 0xe8:
    case 0xea:
    case 0xeb:
    case 0xee:
    case 0xef:
    case 0xf4:
    case 0xf9:
    case 0xfb:
    case 0x153:
    case 0xe6: return 1u << FR;
    default: return FOREIGN;
    }
}

static unsigned latin_says(Text t) {
    char lower[64];
    size_t n = 0;
    unsigned letters = 0;
    uint32_t c;
    for (size_t at = 0, bytes; at < t.n; at += bytes) {
        bytes = text_char(t, at, &c);
        c = (uint32_t)utf8proc_tolower((utf8proc_int32_t)c);
        if (c > 127) letters = letters ? letters & letter_says(c) : letter_says(c);
        if (c > 127 && !letters) letters = FOREIGN; // no language has both letters
        if (n + 5 < sizeof lower) n += (size_t)utf8proc_encode_char((utf8proc_int32_t)c, (utf8proc_uint8_t *)lower + n);
    }
    lower[n] = 0;
    const LanguageWord *known =
        bsearch(lower, language_words, (size_t)language_word_count, sizeof *language_words, word_compare);
    return known ? known->languages : letters;
}

// Whether a letter of the text is one of `letters`.
static bool has_letter(Text t, const char *letters) {
    Text list = text_of(letters);
    uint32_t c, other;
    for (size_t at = 0; at < t.n;) {
        at += text_char(t, at, &c);
        for (size_t k = 0; k < list.n;) {
            k += text_char(list, k, &other);
            if (c == other || (uint32_t)utf8proc_tolower((utf8proc_int32_t)c) == other) return true;
        }
    }
    return false;
}

static Token token_of(int kind, Text t) {
    Token token = {.kind = kind, .words = 1};
    size_t length = text_length(t);
    uint32_t c;
    for (size_t at = 0; kind == CJK && at < t.n;) {
        at += text_char(t, at, &c);
        bool kana = (c >= 0x3040 && c <= 0x30ff) || (c >= 0x31f0 && c <= 0x31ff) || (c >= 0xff66 && c <= 0xff9f);
        token.kana += kana;
        token.han += !kana;
    }
    if (kind == CJK) token.words = (int)(length + 1) / 2;
    else if (kind == LATIN) token.says = latin_says(t);
    else if (kind == CYRILLIC && has_letter(t, "іїєґўјљњћђџќѓѕ")) token.says = FOREIGN;
    else if (kind == ARABIC && has_letter(t, "پچژگکیےںٹڈڑہھۆێ")) token.says = FOREIGN;
    if (length == 1 && kind != CJK && kind != HANGUL && kind != ARABIC) token.words = 0;
    if (kind == SENTENCE_END) token.words = 0;
    return token;
}

// Reads the tokens of one piece of text; false where the pattern ran into its limits.
static bool piece_read(RegexRun *run, Text t, Tokens *out) {
    Text group[REGEX_MAX_GROUPS + 1];
    RegexResult found;
    size_t at = 0;
    while (at < t.n && (found = regex_match(run, t, at, group)) == REGEX_FOUND) {
        int kind = CJK;
        while (!group[kind].s) kind++;
        if (out->n == out->cap) {
            out->cap = out->cap ? 2 * out->cap : 256;
            out->token = xrealloc(out->token, (size_t)out->cap * sizeof *out->token);
        }
        out->token[out->n++] = token_of(kind, group[0]);
        at = (size_t)(group[0].s - t.s) + group[0].n;
    }
    return at >= t.n || found == REGEX_NONE;
}

// Reads the tokens of a text, in pieces as long as a pattern may read, which end between characters.
static bool tokens_read(RegexRun *run, Text t, Tokens *out) {
    for (size_t at = 0, end; at < t.n; at = end) {
        end = t.n - at > REGEX_MAX_TEXT ? at + REGEX_MAX_TEXT : t.n;
        while (end < t.n && (t.s[end] & 0xc0) == 0x80) end--;
        if (!piece_read(run, text_slice(t, at, end), out)) return false;
    }
    return true;
}

// ---- the count ------------------------------------------------------------------------------------------------------

static Evidence evidence_of(const Token *token, int n) {
    Evidence v = {0};
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < LATIN_LANGUAGES; k++) v.says[k] += token[i].words > 0 && (token[i].says >> k & 1);
        v.han += token[i].han;
        v.kana += token[i].kana;
    }
    return v;
}

static bool latin_is(const Token *token, int target, const Evidence *sentence, const Evidence *text) {
    if (token->says) return token->says >> target & 1;
    const Evidence *from[] = {sentence, text};
    for (int k = 0; k < 2; k++) {
        int best = 0;
        for (int l = 0; l < LATIN_LANGUAGES; l++) best = from[k]->says[l] > best ? from[k]->says[l] : best;
        if (best > 0) return from[k]->says[target] == best;
    }
    return true;
}

#define SHORT_SENTENCE 8 // Han characters: a heading
static bool is_japanese(const Token *token, const Evidence *sentence, const Evidence *text) {
    if (sentence->kana > 0) return true;
    return sentence->han <= SHORT_SENTENCE && text->kana * 10 >= text->han + text->kana;
}

static bool is_in(const Token *token, int target, const Evidence *sentence, const Evidence *text) {
    switch (token->kind) {
    case CJK: return target == (is_japanese(token, sentence, text) ? JA : ZH);
    case HANGUL: return target == KO;
    case CYRILLIC: return target == RU && token->says != FOREIGN;
    case ARABIC: return target == AR && token->says != FOREIGN;
    case LATIN: return target < LATIN_LANGUAGES && latin_is(token, target, sentence, text);
    default: return false;
    }
}

static double share_of(int target, const Tokens *t) {
    Evidence text = evidence_of(t->token, t->n);
    int64_t words = 0, hits = 0;
    for (int begin = 0, end; begin < t->n; begin = end + 1) {
        for (end = begin; end < t->n && t->token[end].kind != SENTENCE_END;) end++;
        Evidence sentence = evidence_of(t->token + begin, end - begin);
        for (int i = begin; i < end; i++) {
            words += t->token[i].words;
            if (t->token[i].words > 0 && is_in(&t->token[i], target, &sentence, &text)) hits += t->token[i].words;
        }
    }
    return words ? (double)hits / (double)words : 0;
}

void reward_language(const Reward *r, const Sample *samples, int n, float *score) {
    RegexRun *run = regex_run_new(reward_data(r));
    int target = by_choice[(int)reward_number(r, "language")];
    bool chain = reward_chose(r, "part", "think");
    for (int i = 0; i < n; i++) {
        Text t = sample_text(&samples[i]);
        Str plain = {0}, mended = {0};
        Tokens tokens = {0};
        leave_out_formulas(&r->think, chain ? thoughts_of(&r->think, t) : t, &plain);
        bool read = plain.n == 0 || tokens_read(run, regex_text((Text){plain.s, plain.n}, &mended), &tokens);
        if (!read) reward_fault(r, REWARD_REGEX_LIMIT, 1);
        score[i] = read ? (float)share_of(target, &tokens) : 0;
        free(tokens.token);
        str_free(&plain);
        str_free(&mended);
    }
    regex_run_free(run);
}
