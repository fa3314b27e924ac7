// Rewards: functions that give a completion a number. Each has a line in the registry (rewards/registry.c).
#pragma once
#include "error.h"
#include "text.h"
#include "think.h"
#include <math.h>
#include <stdint.h>

// What a reward sees of one completion. Strings are UTF-8, NUL-terminated; lengths in bytes.
typedef struct {
    const char *prompt;     // the question; "" where unknown
    const char *completion; // decoded, special tokens left out
    size_t completion_len;
    const char *answer; // the gold answer
    const int32_t *ids; // completion tokens, EOS included; NULL where unknown
    int n_ids;
    int group; // completions with the same number answer the same prompt
} Sample;

#define REWARD_ABSTAINS NAN // the score of a reward that has nothing to say of a sample: it is left out of sums

// The kinds of a reward's parameters: a number, a whole number, one of several words, a text, or a text that is a URL
// and begins with http:// or https://. What is said of PARAM_TEXT below holds for URLs too.
typedef enum { PARAM_REAL, PARAM_WHOLE, PARAM_CHOICE, PARAM_TEXT, PARAM_URL } ParamKind;
static inline bool param_is_text(ParamKind kind) { return kind == PARAM_TEXT || kind == PARAM_URL; }
// A parameter of a reward, which the reward reads by its name.
typedef struct {
    const char *name;
    double value, min, max; // default and range; of PARAM_CHOICE, the default's place among the choices
    const char *help;
    ParamKind kind;
    const char *choices; // PARAM_CHOICE: "first|second|...", given by their names and passed as 0, 1, ...; PARAM_TEXT:
                         // the default
    bool how;            // it says how scores are asked for, and changes none that comes
} RewardParam;

#define REWARD_MAX_PARAMS 16
#define REWARD_MAX_TEXTS  5    // text parameters of one reward
#define REWARD_MAX_TEXT   1024 // bytes of each, NUL included
#define REWARD_MAX_NAME   40   // bytes of a name, NUL included

// What a reward reads of a sample besides the completion.
enum { REWARD_READS_ANSWER = 1, REWARD_READS_IDS = 2, REWARD_READS_GROUP = 4 };

// What can go wrong while a reward scores that is not the completion's fault. Each is counted for every sample it
// concerns; the score is then 0 for REWARD_REGEX_LIMIT and REWARD_ABSTAINS for the others.
typedef enum {
    REWARD_REGEX_LIMIT, // a pattern ran into its limits
    REWARD_TIMEOUT,     // a program or server gave no score in time
    REWARD_CRASH,       // it ended, or could not be started or reached
    REWARD_FLOOD,       // it wrote more than it may
    REWARD_BAD_REPLY,   // what it wrote is no score
    REWARD_BAD_GOLD,    // the answer field cannot be read
    REWARD_NO_SANDBOX,  // the sandbox did not start
    REWARD_TOO_LONG,    // the text has more tokens than the model is asked to read
    REWARD_FAULTS
} RewardFault;
extern const char *const reward_fault_name[REWARD_FAULTS];

// What kind of model on the engine's device gives a reward (reward_models.h): one that scores texts, or one that
// writes.
typedef enum { MODEL_NONE, MODEL_SCORES, MODEL_WRITES } RewardModelKind;

typedef struct RewardInfo RewardInfo;
typedef struct RewardState RewardState;

// A reward as a run selects it: which one, with which parameters and weight. A plain value: copies share the state.
typedef struct {
    const RewardInfo *info;
    char name[REWARD_MAX_NAME];                   // its name in metrics: the registry's, or as=NAME
    double param[REWARD_MAX_PARAMS];              // values of info->params; read by reward_number and reward_chose
    char text[REWARD_MAX_TEXTS][REWARD_MAX_TEXT]; // values of those that are texts, in their order; read by reward_text
    double weight;
    ThinkMarkers think; // of the run's completions: think_tags, unless who selects it says otherwise
    RewardState *state; // NULL until reward_open
} Reward;

// Scores `n` samples; groups are complete and their samples stand side by side. score[i] may be REWARD_ABSTAINS. The
// scores must depend on nothing else. Several threads may call it at once.
typedef void RewardFn(const Reward *r, const Sample *samples, int n, float *score);

struct RewardInfo {
    const char *name;
    const char *source; // whose definition this follows
    const char *help;   // one line: what it gives, its range
    RewardFn *fn;
    unsigned reads; // REWARD_READS_...
    bool batches;   // whether many samples at once are less work than one after another: it asks a program or a server
    RewardModelKind by_model; // not MODEL_NONE: the engine scores, a batch at a time; fn is NULL then
    const char *program;      // the text parameter that names a program or a library; NULL: it asks none
    RewardParam params[REWARD_MAX_PARAMS];
    int n_params;
    // For a reward that needs more than its parameters (a program, a library, patterns): `open` makes that, or returns
    // NULL after filling *e; `close` frees it. Both are NULL for other rewards.
    void *(*open)(const Reward *r, Error *e);
    void (*close)(void *data);
    // What `open` refuses of the parameters alone, for who reads a configuration; false after filling *e. NULL:
    // nothing.
    bool (*check)(const Reward *r, Error *e);
    unsigned faults; // 1 << RewardFault for each one that can happen
};

#define MAX_REWARDS 32 // rewards of one run
extern const RewardInfo reward_registry[];
extern const int reward_count;

// Reads "NAME[:key=value,...]" (weight and as are keys of every reward); a comma within a value is written `\,`.
// Unknown names and keys name the nearest one.
bool reward_parse(const char *spec, Reward *out, Error *e);
// Whether two, as parsed, give the same scores under the same name and weight.
bool reward_same(const Reward *a, const Reward *b);
// The same where scores come: how they are asked for (RewardParam.how) may differ.
bool reward_alike(const Reward *a, const Reward *b);
// Starts what the reward needs before it can score, and its fault counters. False after filling *e where that cannot
// work: a script that cannot be read, a missing sandbox, a bad pattern. reward_close ends it.
bool reward_open(Reward *r, Error *e);
void reward_close(Reward *r);
// The value of a parameter by its name: as a number (of PARAM_CHOICE, the place among the choices); whether a choice is
// `choice`; as a text, which lives as long as *r. All end the program where the reward has no such parameter or choice.
double reward_number(const Reward *r, const char *name);
bool reward_chose(const Reward *r, const char *name, const char *choice);
const char *reward_text(const Reward *r, const char *name);
// Gives a text parameter of a reward that is not opened another value, of less than REWARD_MAX_TEXT bytes.
void reward_set_text(Reward *r, const char *name, const char *text);
// What `open` returned. Ends the program where the reward was not opened.
void *reward_data(const Reward *r);
// Counts a fault for n samples; reward_faults reads the count. From any thread; does nothing where the reward was not
// opened.
void reward_fault(const Reward *r, RewardFault fault, int n);
int64_t reward_faults(const Reward *r, RewardFault fault);

// Completions that a run asked it about, and how many of them got a score.
typedef struct {
    int64_t asked, scored;
} RewardScored;
void reward_scored(const Reward *r, int64_t asked, int64_t scored); // adds to them; as reward_fault

// ---- replies of judges, and what ranks tell each other of a reward --------------------------------------------------

// Completions that a judge was asked about, in their order, and rows of them whose replies have no score, or did not
// come. What it could not be asked about (REWARD_TOO_LONG) is not among them.
typedef struct {
    int64_t n, first, last, longest; // completions; of them in the row at the beginning, at the end, in the longest row
} ReplyRows;
#define REPLY_SHOWN 640                                  // bytes that is said of one reply
void reply_rows_join(ReplyRows *rows, ReplyRows behind); // appends those that come behind
// Appends replies. unread: of one of them without a score, how it begins or why it did not come ("begins: ..", "did not
// come: .."); NULL: all have one. From any thread.
void reward_replied(const Reward *r, ReplyRows rows, const char *unread);
// Whether the run may go on: false after filling *e where a row is as long as max_unmatched.
bool reward_goes_on(const Reward *r, Error *e);
// A rank's faults so far, and its replies since the ranks last told each other; joined in rank order, those of all.
typedef struct {
    int64_t faults[REWARD_FAULTS];
    RewardScored scored;
    ReplyRows rows;
    char unread[REPLY_SHOWN]; // of the last reply without a score, as reward_replied's; "": there is none
} RewardTally;
RewardTally reward_tally(const Reward *r);
void reward_tally_join(RewardTally *t, const RewardTally *behind);
// Takes the joined tally of all ranks, this one among them; on the `first` rank the row at its end goes on. Not while
// the reward scores. Returns as reward_goes_on, the same on every rank.
bool reward_take_tally(const Reward *r, const RewardTally *all, bool first, Error *e);
int64_t reward_faults_of_all(const Reward *r, RewardFault fault); // the other ranks' as they last told them
RewardScored reward_scored_of_all(const Reward *r);               // so here

// The weighted sum of a completion's scores, score[n_rewards]; abstentions are left out; NaN where all abstain.
float reward_total(const Reward *r, int n_rewards, const float *score);
