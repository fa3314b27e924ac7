// Rejection sampling: completions of a model, scored, and those kept that rules allow.
#pragma once
#include "config.h"
#include "dataset.h"
#include "line_log.h"
#include "reward_set.h"
#include <jansson.h>

// A completion as it was drawn and scored.
typedef struct {
    const char *text; // borrowed
    int tokens;
    bool truncated; // cut at max_completion_length
    float reward;   // the weighted sum; NaN: all abstained
    float score[MAX_REWARDS];
} Drawn;
// Why a completion is not kept; the first reason in this order counts. The score rules come between TRUNCATED and CODE.
typedef enum {
    DROP_NONE,
    DROP_TRUNCATED,
    DROP_SCORE,
    DROP_CODE,
    DROP_PARAGRAPH,
    DROP_TOKENS,
    DROP_EASY,
    DROP_DUPLICATE,
    DROP_OVERLAP,
    DROP_ENOUGH,
    DROP_REASONS
} Drop;
typedef struct {
    int64_t questions, long_prompts; // questions read; those left out since their prompt exceeds max_prompt_length
    int64_t completions, kept, questions_kept;
    int64_t always_right, never_right; // questions all (none) of whose completions pass the score rules
    int64_t dropped[DROP_REASONS];     // completions dropped for each reason
    int64_t by_rule[MAX_REWARDS];      // completions dropped for DROP_SCORE, by the first rule that they fail
    int64_t unruled[MAX_REWARDS];      // of them those without the score that the rule looks at
    int64_t unscored[MAX_REWARDS];     // completions that lack a score, by rewards
} SelectCount;

// ---- select_rules.c: which completions of a question are kept, by the options alone ---------------------------------
typedef struct SelectRules SelectRules;
// False after filling *e (EXIT_CONFIG). What is given must outlive the rules.
SelectRules *select_rules_open(const Config *c, const Rewards *rw, Error *e);
void select_rules_close(SelectRules *s);
// Decides on the n completions of the question of line `line`: fills drop[n] and adds to *count. Call it in the order
// of the files. A question that comes again is the same one: its answers that were kept count among those of
// select_per_question, and none is kept twice, or too much like one that was.
void select_question(SelectRules *s, int64_t line, const char *question, const Drawn *drawn, int n, Drop *drop,
                     SelectCount *count);
// Whether a completion ended by itself and its scores pass the rules on scores.
bool select_right(const SelectRules *s, const Drawn *d);
// The counts as one JSON object, and as a table for people.
void select_json(const SelectRules *s, const SelectCount *count, Str *out);
void select_table(const SelectRules *s, const SelectCount *count, Str *out);
// Which rule dropped how many, in one line.
void select_dropped(const SelectRules *s, const SelectCount *count, Str *out);
// Whether completions lack scores that the same command asks for again.
bool select_lacks(const SelectRules *s, const SelectCount *count);

// ---- select_file.c: samples.jsonl, from which kept.jsonl is made ----------------------------------------------------
// samples.jsonl: a line that says what it was drawn with, then a line for each completion, questions in the order of
// their file: so drawing goes on where it stopped, and other rules need no new samples.
bool select_makes(const char *name); // whether a file in select_output of that name is one that `select` makes
char *select_drawn_with(const Config *c, Error *e); // the first line, without newline. NULL after filling *e
// Finds how many lines of an earlier run are good (0: there is none), how many whole questions of `data` they cover,
// and how many completions of those lack a score that may come (reward_may_come). Refuses samples that were drawn with
// other options, model or questions (EXIT_CONFIG).
bool select_resume(const Config *c, const Rewards *rw, Dataset *data, const char *drawn_with, int64_t *lines,
                   int64_t *questions, int64_t *lacking, Error *e);
// Asks the rewards again for those scores, and puts a samples.jsonl with what they say in the place of the one that is
// there, which holds whole questions only and is not open. *came: how many completions lack none any more. Where a stop
// is requested, or a reward ends the run (false after filling *e), what came until then is written.
bool select_again(const Config *c, const Rewards *rw, int64_t *came, Error *e);
// Adds the lines of prompt p of a decoded and scored batch; a prompt without ids was too long to ask. file: where its
// question comes from, where there are several, else NULL.
void select_put(const Batch *b, int p, const Rewards *rw, const char *file, Str *out);
// Reads the first `questions` questions of samples.jsonl, writes kept.jsonl and select.json. `system`, the
// conversations' first message, may be NULL.
bool select_keep(const Config *c, const Rewards *rw, const char *system, SelectRules *s, int64_t questions,
                 SelectCount *count, Error *e);
