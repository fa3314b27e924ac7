// The rewards of the GSM8K recipe: five that are summed, and two that its documents add. The recipe's regular
// expressions are written here as scanners, which give the same verdict on every input in linear time.
// <think> and </think> stand for the markers of the run.
#include "rules.h"

// The text between the last <answer> and the first </answer> after it, stripped; the whole text where there are no
// tags.
static Text extract_answer(Text t) {
    Text open = text_of("<answer>");
    size_t at = text_find_last(t, open);
    if (at != TEXT_NONE) t = text_from(t, at + open.n);
    size_t end = text_find(t, 0, text_of("</answer>"));
    if (end != TEXT_NONE) t.n = end;
    return text_strip(t);
}

// The reward xmlcount: 0.125 for each of four tags that occurs once, less 0.001 for each character after the answer.
static double xmlcount(const Reward *r, const Sample *s) {
    Text t = sample_text(s);
    double score = 0;
    size_t end;
    char room[2][THINK_ROOM];
    if (text_count(t, think_beside("", r->think.open, "\n", room[0]), NULL) == 1) score += 0.125;
    if (text_count(t, think_beside("\n", r->think.close, "\n", room[1]), NULL) == 1) score += 0.125;
    if (text_count(t, text_of("\n<answer>\n"), NULL) == 1) {
        text_count(t, text_of("\n</answer>\n"), &end);
        score += 0.125 - 0.001 * (double)text_length(text_from(t, end));
    }
    if (text_count(t, text_of("\n</answer>"), &end) == 1)
        score += 0.125 - 0.001 * ((double)text_length(text_from(t, end)) - 1);
    return score;
}

// The end of the line that `at` is in.
static size_t line_end(Text t, size_t at) {
    const char *newline = memchr(t.s + at, '\n', t.n - at);
    return newline ? (size_t)(newline - t.s) : t.n;
}

// Whether the text begins with <think>.*?</think>\s*<answer>.*?</answer>, where a dot matches anything but a newline.
static bool matches_soft(const ThinkMarkers *m, Text t) {
    Text think = text_of(m->open), think_end = text_of(m->close);
    Text answer = text_of("<answer>"), answer_end = text_of("</answer>");
    if (!text_at(t, 0, think)) return false;
    Text first = {t.s, line_end(t, 0)};
    size_t last_end = text_find_last(first, answer_end); // decides for every <answer> in the first line
    for (size_t at = think.n; (at = text_find(first, at, think_end)) != TEXT_NONE; at++) {
        size_t body = text_skip_space(t, at + think_end.n);
        if (!text_at(t, body, answer)) continue;
        body += answer.n;
        // White space can lead out of the first line only from its last </think>, so this search runs once.
        if (body > first.n) return text_find((Text){t.s, line_end(t, body)}, body, answer_end) != TEXT_NONE;
        if (last_end != TEXT_NONE && last_end >= body) return true;
    }
    return false;
}

// Whether ^<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>\n$ matches, with each body one line; $ is also before a
// last newline.
static bool matches_strict(const ThinkMarkers *m, Text t) {
    char room[2][THINK_ROOM];
    Text open = think_beside("", m->open, "\n", room[0]),
         middle = think_beside("\n", m->close, "\n<answer>\n", room[1]), close = text_of("\n</answer>\n");
    if (!text_at(t, 0, open)) return false;
    size_t at = line_end(t, open.n);
    if (!text_at(t, at, middle)) return false;
    at = line_end(t, at + middle.n);
    if (!text_at(t, at, close)) return false;
    at += close.n;
    return at == t.n || (at + 1 == t.n && t.s[at] == '\n');
}

static double soft_format(const Reward *r, const Sample *s) {
    return matches_soft(&r->think, sample_text(s)) ? 0.5 : 0;
}
static double strict_format(const Reward *r, const Sample *s) {
    return matches_strict(&r->think, sample_text(s)) ? 0.5 : 0;
}

static double int_answer(const Reward *r, const Sample *s) {
    return text_all_digits(extract_answer(sample_text(s))) ? 0.5 : 0;
}

static double correctness(const Reward *r, const Sample *s) {
    return text_equal(extract_answer(sample_text(s)), text_of(s->answer)) ? 2 : 0;
}

static double completion_length(const Reward *r, const Sample *s) { return (double)text_length(sample_text(s)) / 100; }

REWARD_EACH(reward_xmlcount, xmlcount)
REWARD_EACH(reward_soft_format, soft_format)
REWARD_EACH(reward_strict_format, strict_format)
REWARD_EACH(reward_int, int_answer)
REWARD_EACH(reward_correctness, correctness)
REWARD_EACH(reward_completion_length, completion_length)
REWARD_EACH(reward_think_answer_format, soft_format)
