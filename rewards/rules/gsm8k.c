// The rewards gsm8k_strict and gsm8k_flexible, verl's graders: the number after "#### ", or the last number of all.
#include "rules.h"

// The last 300 characters: verl looks no further back.
static Text tail_of(Text t) {
    enum { TAIL = 300 };
    size_t length = t.n <= TAIL ? 0 : text_length(t), at = 0;
    for (uint32_t c; length > TAIL; length--) at += text_char(t, at, &c);
    return text_from(t, at);
}

// Matches -?[0-9.,]+ at `at`: the byte after it, or `at` where it does not match.
static size_t number_end(Text t, size_t at) {
    size_t digits = at + (at < t.n && t.s[at] == '-'), end = digits;
    while (end < t.n && strchr("0123456789.,", t.s[end]) && t.s[end]) end++;
    return end > digits ? end : at;
}

// Whether `number` (without its commas where `strip`) equals gold without commas.
static bool equals_gold(Text number, bool strip, Text gold) {
    size_t i = 0, k = 0;
    for (;;) {
        while (strip && i < number.n && number.s[i] == ',') i++;
        while (k < gold.n && gold.s[k] == ',') k++;
        if (i == number.n || k == gold.n) return i == number.n && k == gold.n;
        if (number.s[i++] != gold.s[k++]) return false;
    }
}

static double gsm8k_strict(const Reward *r, const Sample *s) {
    Text t = tail_of(sample_text(s)), mark = text_of("#### "), number = {0};
    for (size_t at = 0; (at = text_find(t, at, mark)) != TEXT_NONE; at++) {
        size_t start = at + mark.n, end = number_end(t, start);
        if (end > start) number = text_slice(t, start, end);
    }
    return number.n > 0 && equals_gold(number, true, text_of(s->answer));
}

// Compares gold with the last number that is not a lone point; where there are only lone points, with the first.
static double gsm8k_flexible(const Reward *r, const Sample *s) {
    Text t = tail_of(sample_text(s)), number = {0};
    for (size_t at = 0, end; at < t.n; at = (end > at) ? end : at + 1) {
        end = number_end(t, at);
        if (end > at && (number.n == 0 || end - at > 1 || t.s[at] != '.')) number = text_slice(t, at, end);
    }
    return number.n > 0 && equals_gold(number, false, text_of(s->answer));
}

REWARD_EACH(reward_gsm8k_strict, gsm8k_strict)
REWARD_EACH(reward_gsm8k_flexible, gsm8k_flexible)
