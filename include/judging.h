// What judges have in common, however they are asked: the prompt that a template makes, the score in the reply, and the
// scores of earlier prompts.
#pragma once
#include "reward.h"

typedef struct Judging Judging;
// Whether the parameters template, template_file, pattern, min_score and max_score go together: a RewardInfo.check.
bool judging_check(const Reward *r, Error *e);
// Opens what they say. NULL after filling *e.
Judging *judging_open(const Reward *r, Error *e);
void judging_close(Judging *j); // NULL is fine
// The file that the template comes from; "": none.
const char *judging_template_file(const Reward *r);

// What came of one prompt.
typedef struct {
    char *text;        // heap; NULL: no reply
    RewardFault fault; // why there is none; REWARD_FAULTS: given up, since a stop is requested
    char *cause;       // heap, one line for people: what kept it from coming; NULL: nothing is known
} JudgeReply;
// Asks n prompts, which are NUL-terminated and differ, and fills reply[n]. False after filling *e: the replies are
// void.
typedef bool JudgeAsk(void *arg, const Text *prompt, int n, JudgeReply *reply, Error *e);
// Scores n samples: equal prompts are asked once, those that have a score already not at all. A sample without a score
// abstains and is counted. False after `ask` was.
bool judging_score(Judging *j, const Reward *r, const Sample *samples, int n, JudgeAsk *ask, void *arg, float *score,
                   Error *e);
