// Rewards: text in, a number out. One function a reward, one line in the registry (rewards/registry.c).
#pragma once
#include "error.h"
#include <math.h>
#include <stdint.h>

// What a reward sees of one completion. Strings are UTF-8, NUL-terminated; lengths in bytes.
typedef struct {
    const char *prompt;     // the question; "" where unknown
    const char *completion; // decoded, special tokens left out
    size_t completion_len;
    const char *answer; // gold
    const int32_t *ids; // completion tokens, EOS included; NULL where unknown
    int n_ids;
    int group; // completions with the same number answer the same prompt
} Sample;

#define REWARD_ABSTAINS NAN

// A parameter of a reward, in the order the function reads them: a number, a whole number, one of several words, or (at
// most one of a reward) a short text.
typedef enum { PARAM_REAL, PARAM_WHOLE, PARAM_CHOICE, PARAM_TEXT } ParamKind;
typedef struct {
    const char *name;
    double value, min, max; // default and range; of PARAM_CHOICE, the default's place among the choices
    const char *help;
    ParamKind kind;
    const char *choices; // PARAM_CHOICE: "first|second|...", given by their names and passed as 0, 1, ...; PARAM_TEXT:
                         // the default
} RewardParam;

#define REWARD_MAX_PARAMS 10
#define REWARD_MAX_TEXT   64 // bytes of a PARAM_TEXT, NUL included

// What a reward reads of a sample besides the completion.
enum { REWARD_READS_ANSWER = 1, REWARD_READS_IDS = 2, REWARD_READS_GROUP = 4 };
typedef struct RewardInfo RewardInfo;

// A reward as selected: which one, with which parameters and weight.
typedef struct {
    const RewardInfo *info;
    double param[REWARD_MAX_PARAMS];
    char text[REWARD_MAX_TEXT]; // of the PARAM_TEXT
    double weight;
} Reward;

// Scores `n` samples; groups are complete and their samples stand side by side. score[i] may be REWARD_ABSTAINS. Must not
// depend on anything else.
typedef void RewardFn(const Reward *r, const Sample *samples, int n, float *score);

struct RewardInfo {
    const char *name;
    const char *source; // whose definition this follows
    const char *help;   // one line: what it gives, its range
    RewardFn *fn;
    unsigned reads; // REWARD_READS_...
    RewardParam params[REWARD_MAX_PARAMS];
    int n_params;
};

extern const RewardInfo reward_registry[];
extern const int reward_count;

// Reads "NAME[:key=value,...]" (weight is a key of every reward). Unknown names and keys name the nearest one.
bool reward_parse(const char *spec, Reward *out, Error *e);
// A weighted sum over rewards; abstentions are left out; NaN where all abstain.
float reward_total(const Reward *r, int n_rewards, const float *score);
