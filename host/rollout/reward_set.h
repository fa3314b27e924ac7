// The rewards of a run, and work on whole batches of scores.
#pragma once
#include "batch.h"
#include "config.h"
#include "reward.h"

typedef struct Rewards {
    Reward reward[MAX_REWARDS];
    Reward grader; // the reward that eval_grader names for evaluations; info is NULL where it names none
    int n;
    // Which of them do not score a question: of training file f, and any other (of an evaluation). Bit k: reward[k].
    uint32_t silent_for_file[MAX_FILES], silent_for_others;
    // Whose model is not made yet, so that the one it is made of stands for it in a plan. Bit k: reward[k]; bit n: the
    // grader.
    uint64_t unmade;
} Rewards;
bool rewards_select(const Config *c, Rewards *out, Error *e); // `rewards`, for every question
// For training: `rewards`, where any question is scored by them, and the files' own behind them, each once.
bool rewards_select_training(const Config *c, Rewards *out, Error *e);
// Whether a score that it lacks may come another time: it asks a program, a library, a server or a sandbox.
bool reward_may_come(const Reward *r);
// Whether reward k scores the questions of this file (Batch.file).
bool rewards_score(const Rewards *rw, int file, int k);
// The directory of the model on this machine that gives the reward; "": none does.
const char *reward_model_dir(const Reward *r);
// The file that it reads its template from; "": none.
const char *reward_template_file(const Reward *r);
// The program or the library that a reward asks, as it is given ("": none), and *crc (CRC32C) continued over the files
// that its words name. False after filling *e.
const char *reward_program(const Reward *r);
bool reward_program_sum(const Reward *r, uint32_t *crc, Error *e);
// The CRC32C, in hexadecimal, over all these of the rewards: tells whether scores from here on are those of before. "":
// they have none. False after filling *e.
bool rewards_files_sum(const Rewards *rw, char sum[16], Error *e);
// Starts what the selected rewards need (programs, a sandbox), so that an error comes now and not at the first score.
bool rewards_open(Rewards *rw, Error *e);
// Whether the run may go on, the grader included: reward_goes_on of each. Where there are ranks, by this one's replies.
bool rewards_go_on(const Rewards *rw, Error *e);
// Notes on standard error what went wrong while they scored, on all ranks as they last told each other, if anything
// did, and which of them gave no completion a score.
void rewards_note(const Rewards *rw);
// Notes which rewards need text that the option `stop` cuts off: such a reward would be 0 for ever, without a message.
void rewards_note_stops(const Rewards *rw, const Config *c);
void rewards_close(Rewards *rw); // does nothing to rewards that were selected and not opened
// What a reward sees of sequence i of a decoded batch.
Sample batch_sample(const Batch *b, int i);
// Whether a grader's score says that a completion is right: above 0.5.
bool rewards_right(float score);
// Fills score[b->n]: what the grader, no model on this machine, gives each completion of a decoded batch; NaN: no
// verdict.
void rewards_grade(const Rewards *rw, const Batch *b, float *score);
// The control experiment: permutes scores among the batch's completions.
void rewards_shuffle(Batch *b, uint64_t seed, uint64_t stream);
