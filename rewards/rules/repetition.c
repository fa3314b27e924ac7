// The reward repetition_penalty: the share of n-grams that occurred before, times a penalty (Yeo et al. 2025,
// "Demystifying Long Chain-of-Thought Reasoning in LLMs", appendix C.2). Open R1 counts words, TRL token ids.
#include "random.h"
#include "rules.h"
#include <stdlib.h>
#include <utf8proc.h>

// The choices of the parameter `language`, in their order.
enum { UNIT_EN, UNIT_ZH, UNIT_IDS };

// Mixes x into the 64-bit hash h: words and n-grams are compared by such hashes.
static uint64_t mix(uint64_t h, uint64_t x) {
    h = (h ^ x) * RANDOM_STEP;
    return h ^ (h >> 32);
}

typedef struct {
    uint64_t *hash;
    size_t n, cap;
} Words;

static void words_add(Words *w, uint64_t hash) {
    if (w->n == w->cap) {
        w->cap = w->cap ? w->cap * 2 : 256;
        w->hash = xrealloc(w->hash, w->cap * sizeof *w->hash);
    }
    w->hash[w->n++] = hash;
}

static bool is_cased(uint32_t c) {
    utf8proc_int32_t x = (utf8proc_int32_t)c;
    return utf8proc_islower(x) || utf8proc_isupper(x) || utf8proc_category(x) == UTF8PROC_CATEGORY_LT;
}

// Whether a character does not count when case is looked at: marks, and points and apostrophes within words.
static bool is_case_ignorable(uint32_t c) {
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return k == UTF8PROC_CATEGORY_MN || k == UTF8PROC_CATEGORY_ME || k == UTF8PROC_CATEGORY_CF ||
           k == UTF8PROC_CATEGORY_LM || k == UTF8PROC_CATEGORY_SK || (c < 128 && c && strchr("'.:", (int)c)) ||
           c == 0xb7 || c == 0x2019;
}

static bool cased_follows(Text word, size_t at) {
    for (uint32_t c; at < word.n;) {
        at += text_char(word, at, &c);
        if (!is_case_ignorable(c)) return is_cased(c);
    }
    return false;
}

// The hash of str.lower() of a word. A capital sigma at the end of a word becomes another letter than one within it.
static uint64_t hash_lower(Text word) {
    enum { SIGMA = 0x3a3, FINAL_SIGMA = 0x3c2, I_WITH_DOT = 0x130, DOT_ABOVE = 0x307 };
    uint64_t hash = 1;
    bool cased = false; // what stands before
    for (size_t at = 0; at < word.n;) {
        uint32_t c;
        at += text_char(word, at, &c);
        bool final = c == SIGMA && cased && !cased_follows(word, at);
        hash = mix(hash, final ? FINAL_SIGMA : c == I_WITH_DOT ? 'i' : (uint64_t)utf8proc_tolower((utf8proc_int32_t)c));
        if (c == I_WITH_DOT) hash = mix(hash, DOT_ABOVE);
        if (!is_case_ignorable(c)) cased = is_cased(c);
    }
    return hash;
}

// str.lower().split()
static void split_english(Text t, Words *w) {
    for (size_t at = text_skip_space(t, 0), end; at < t.n; at = text_skip_space(t, end)) {
        end = at;
        for (uint32_t c; end < t.n;) {
            size_t n = text_char(t, end, &c);
            if (text_is_space(c)) break;
            end += n;
        }
        words_add(w, hash_lower(text_slice(t, at, end)));
    }
}

static bool is_han(uint32_t c) {
    return (c >= 0x3400 && c <= 0x9fff) || (c >= 0xf900 && c <= 0xfaff) || (c >= 0x20000 && c <= 0x3ffff);
}

// Whether a character of another script belongs to the word it is next to: a letter or a digit.
static bool is_letter(uint32_t c) {
    utf8proc_category_t k = utf8proc_category((utf8proc_int32_t)c);
    return !is_han(c) && k >= UTF8PROC_CATEGORY_LU && k <= UTF8PROC_CATEGORY_NO;
}

// Splits Chinese without a dictionary: Han characters two by two, since most words have two; a run of other letters and
// digits is one word, and so is each other sign. White space only separates.
static void split_chinese(Text t, Words *w) {
    uint32_t c;
    for (size_t at = text_skip_space(t, 0); at < t.n; at = text_skip_space(t, at)) {
        at += text_char(t, at, &c);
        uint64_t hash = mix(1, c);
        bool han = is_han(c), letter = is_letter(c);
        for (size_t n; (han || letter) && at < t.n; at += n) {
            n = text_char(t, at, &c);
            if (han ? !is_han(c) : !is_letter(c)) break;
            hash = mix(hash, c);
            if (han) letter = han = false; // the second character ends the word
        }
        words_add(w, hash);
    }
}

static int hash_compare(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

// Replaces the words by their n-grams, 1 <= n <= w->n, and returns how many different ones there are.
static size_t count_unique(Words *w, size_t n) {
    size_t total = w->n - n + 1, unique = 0;
    for (size_t i = 0; i < total; i++) {
        uint64_t hash = 1;
        for (size_t k = 0; k < n; k++) hash = mix(hash, w->hash[i + k]);
        w->hash[i] = hash; // the n-grams behind read only words from i + 1 on
    }
    qsort(w->hash, total, sizeof *w->hash, hash_compare);
    for (size_t i = 0; i < total; i++) unique += i == 0 || w->hash[i] != w->hash[i - 1];
    return unique;
}

static double repetition_penalty(const Reward *r, const Sample *s) {
    size_t n = (size_t)reward_number(r, "ngram_size");
    double max_penalty = reward_number(r, "max_penalty");
    int unit = (int)reward_number(r, "language");
    if (unit == UNIT_IDS && !s->ids) return REWARD_ABSTAINS;
    Words w = {0};
    if (unit == UNIT_EN) split_english(sample_text(s), &w);
    else if (unit == UNIT_ZH) split_chinese(sample_text(s), &w);
    else
        for (int i = 0; i < s->n_ids; i++) words_add(&w, (uint64_t)s->ids[i]);
    double score = 0;
    if (w.n >= n) {
        double total = (double)(w.n - n + 1);
        score = (1 - (double)count_unique(&w, n) / total) * max_penalty;
    }
    free(w.hash);
    return score;
}

REWARD_EACH(reward_repetition_penalty, repetition_penalty)
