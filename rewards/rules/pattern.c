// The reward `regex`: a user's own pattern, matched under limits.
#include "regex.h"
#include "rules.h"

// The choices of the parameter `want`, in their order.
enum { WANT_FOUND, WANT_WHOLE, WANT_GOLD };

void *open_regex(const Reward *r, Error *e) {
    const char *text = reward_text(r, "pattern");
    if (!*text) {
        error_set(e, EXIT_CONFIG, "needs a pattern: regex:pattern=...");
        return NULL;
    }
    return regex_new(text, e);
}

void close_regex(void *data) { regex_free(data); }

// Whether a match is what `want` asks for.
static bool accepts(int want, const Regex *regex, const Text *group, Text t, const char *gold) {
    if (want == WANT_WHOLE) return group[0].n == t.n;
    if (want == WANT_GOLD) return text_equal(text_strip(group[regex_groups(regex) > 0]), text_strip(text_of(gold)));
    return true;
}

void reward_regex(const Reward *r, const Sample *samples, int n, float *score) {
    const Regex *regex = reward_data(r);
    RegexRun *run = regex_run_new(regex);
    int want = (int)reward_number(r, "want");
    for (int i = 0; i < n; i++) {
        Str mended = {0};
        Text group[REGEX_MAX_GROUPS + 1], t = regex_text(sample_text(&samples[i]), &mended);
        RegexResult found = regex_match(run, t, 0, group);
        if (found == REGEX_LIMIT) reward_fault(r, REWARD_REGEX_LIMIT, 1);
        score[i] = found == REGEX_FOUND && accepts(want, regex, group, t, samples[i].answer);
        str_free(&mended);
    }
    regex_run_free(run);
}
