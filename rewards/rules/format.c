// Rewards for the form of a completion: Open R1's format, tag_count and reasoning_steps, TRL's think_format. Their
// regular expressions are written as scanners, which give the same verdict on every input in linear time.
// <think> and </think> stand for the markers of the run.
#include "rules.h"

// Whether a regex's $ matches here under MULTILINE.
static bool line_ends(Text t, size_t at) { return at == t.n || t.s[at] == '\n'; }

// Whether there is a `close` at or after `at` with the end of a line behind it.
static bool closes(Text t, size_t at, Text close) {
    for (; (at = text_find(t, at, close)) != TEXT_NONE; at++)
        if (line_ends(t, at + close.n)) return true;
    return false;
}

// Whether ^<think>\n.*?\n</think>\n<answer>\n.*?\n</answer>$ matches, with DOTALL and MULTILINE. Only the first place
// where the middle fits needs to be tried: it leaves the most text behind it.
static bool matches_new(const ThinkMarkers *m, Text t) {
    char room[2][THINK_ROOM];
    Text open = think_beside("", m->open, "\n", room[0]),
         middle = think_beside("\n", m->close, "\n<answer>\n", room[1]);
    if (!text_at(t, 0, open)) return false;
    size_t at = text_find(t, open.n, middle);
    return at != TEXT_NONE && closes(t, at + middle.n, text_of("\n</answer>"));
}

// Whether ^<think>.*?</think>\s*<answer>.*?</answer>$ matches, with the same flags.
static bool matches_old(const ThinkMarkers *m, Text t) {
    Text open = text_of(m->open), close = text_of(m->close), answer = text_of("<answer>");
    if (!text_at(t, 0, open)) return false;
    for (size_t at = open.n; (at = text_find(t, at, close)) != TEXT_NONE; at++) {
        size_t body = text_skip_space(t, at + close.n);
        if (text_at(t, body, answer)) return closes(t, body + answer.n, text_of("</answer>"));
    }
    return false;
}

static double format(const Reward *r, const Sample *s) {
    Text t = sample_text(s);
    if (reward_chose(r, "form", "summary")) return think_is_whole(&r->think, t);
    return reward_chose(r, "form", "new") ? matches_new(&r->think, t) : matches_old(&r->think, t);
}

static double tag_count(const Reward *r, const Sample *s) {
    char room[2][THINK_ROOM];
    const Text tags[] = {think_beside("", r->think.open, "\n", room[0]),
                         think_beside("\n", r->think.close, "\n", room[1]), text_of("\n<answer>\n"),
                         text_of("\n</answer>")};
    double score = 0;
    for (int i = 0; i < 4; i++)
        if (text_count(sample_text(s), tags[i], NULL) == 1) score += 0.25;
    return score;
}

// The byte after a run of \d that begins at `at`.
static size_t skip_decimals(Text t, size_t at) {
    for (uint32_t c; at < t.n;) {
        size_t n = text_char(t, at, &c);
        if (!text_is_decimal(c)) break;
        at += n;
    }
    return at;
}

// The length of a mark of a step at `at`, or 0: Step \d+: | ^\d+\. | \n- | \n\* | First, | Second, | Next, | Finally,
static size_t step_sign(Text t, size_t at) {
    static const char *const words[] = {"\n-", "\n*", "First,", "Second,", "Next,", "Finally,"};
    Text step = text_of("Step ");
    size_t digits = text_at(t, at, step) ? at + step.n : at, end = digits;
    if (digits > at || at == 0) end = skip_decimals(t, digits);
    if (end > digits && end < t.n && t.s[end] == (digits > at ? ':' : '.')) return end + 1 - at;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (text_at(t, at, text_of(words[i]))) return strlen(words[i]);
    return 0;
}

static double reasoning_steps(const Reward *r, const Sample *s) {
    Text t = sample_text(s);
    int steps = 0;
    for (size_t at = 0, n; at < t.n && steps < 3; at += n ? n : 1) steps += (n = step_sign(t, at)) > 0;
    return steps / 3.0;
}

// 1 where ^<think>(?!.*<think>)(.*?)</think>.*$ matches, with DOTALL.
static double think_format(const Reward *r, const Sample *s) {
    Text t = sample_text(s), open = text_of(r->think.open), close = text_of(r->think.close);
    if (!text_at(t, 0, open)) return 0;
    Text rest = text_from(t, open.n);
    return text_count(rest, open, NULL) == (size_t)text_equal(open, close) && text_find(rest, 0, close) != TEXT_NONE;
}

// 1 where ^<think>\n.*?\n</think>\n<answer>\n.*?```python.*?```.*?\n</answer>$ matches, with DOTALL and MULTILINE.
static double code_format(const Reward *r, const Sample *s) {
    char room[2][THINK_ROOM];
    Text t = sample_text(s), open = think_beside("", r->think.open, "\n", room[0]),
         middle = think_beside("\n", r->think.close, "\n<answer>\n", room[1]);
    if (!text_at(t, 0, open)) return 0;
    size_t at = text_find(t, open.n, middle), end;
    if (at == TEXT_NONE) return 0;
    char fence[REWARD_MAX_TEXT + 3] = "```";
    const char *language = reward_text(r, "language");
    memcpy(fence + 3, language, strlen(language) + 1);
    size_t block = text_find(t, at + middle.n, text_of(fence));
    if (block == TEXT_NONE || (end = text_find(t, block + strlen(fence), text_of("```"))) == TEXT_NONE) return 0;
    return closes(t, end + 3, text_of("\n</answer>"));
}

REWARD_EACH(reward_code_format, code_format)
REWARD_EACH(reward_format, format)
REWARD_EACH(reward_tag_count, tag_count)
REWARD_EACH(reward_reasoning_steps, reasoning_steps)
REWARD_EACH(reward_think_format, think_format)
