// Batch: the sequences of one generation, in columns. A sequence only moves forward through its states; each stage
// takes sequences in one state, fills its own columns and passes them on.
#pragma once
#include "str.h"
#include "tensor.h"

#define NO_FILE -1

typedef enum { SEQ_QUEUED, SEQ_DECODING, SEQ_DECODED, SEQ_SCORED, SEQ_TRAINED } SeqState;
typedef enum { FINISH_NONE, FINISH_EOS, FINISH_STOP, FINISH_LENGTH } Finish;
extern const char *const finish_name[]; // as users read them: "none", "eos", "stop", "length"

typedef struct {
    int prompts, group, n; // n = prompts * group; sequence i answers prompt i / group
    int max_completion;    // tokens
    int n_rewards;

    // prompt columns [prompts], filled by dataset + chat + tokenizer
    int64_t *row;    // line number in the data set, from 1
    int *file;       // which of the training files it is of; NO_FILE: another
    char **question; // as in the data set
    char **answer;   // gold: the text after the answer marker
    Ids *prompt;     // the rendered prompt's ids

    // sequence columns [n], filled by rollout
    SeqState *state;
    Finish *finish;
    int64_t *key; // random stream of the sequence, unique in a run
    int *len;     // completion tokens, EOS included
    int32_t *ids; // [n, max_completion]
    float *logp;  // [n, max_completion] as sampled
    // [n, max_completion] logsumexp and entropy of the distribution each token was drawn from, before filters. Training
    // uses them as long as the weights are those that sampled; later it stores its own entropies here where it needs
    // them before the loss.
    float *lse, *entropy;
    char **text; // completion, decoded, special tokens left out, cut before a stop string; NUL is U+FFFD

    // filled by rewards
    float *score;  // [n, n_rewards]; NaN abstains
    float *reward; // [n] weighted sum; NaN where all abstain

    // filled by training
    float *ref_logp;  // [n, max_completion], where a reference is used
    float *advantage; // [n]
    float *loss;      // [n] what the sequence adds to the loss
} Batch;

Batch batch_new(int prompts, int group, int max_completion, int n_rewards);
void batch_clear_prompt(Batch *b, int p); // one prompt and its completions
void batch_clear(Batch *b);               // frees texts, all states back to SEQ_QUEUED
void batch_free(Batch *b);
// Finds the first token (completion *i, place *j) whose sampled log-prob is not finite; false where all are finite.
bool batch_bad_logp(const Batch *b, int *i, int *j);
// Prompts [first, first + prompts) and their completions as a batch that shares this one's memory: not to be freed.
Batch batch_slice(const Batch *b, int first, int prompts);
// Appends to *out, as bytes, what rollout and rewards filled in for those prompts; batch_unpack_prompts reads it. So
// ranks exchange their completions.
void batch_pack_prompts(const Batch *b, int first, int prompts, Str *out);
bool batch_unpack_prompts(Batch *b, int first, int prompts, const char *bytes, size_t size);
// The columns that a resumed run needs, as bytes (heap); batch_unpack reads them, and is false for a batch of another
// shape.
char *batch_pack(const Batch *b, bool reference, size_t *bytes);
bool batch_unpack(Batch *b, bool reference, const char *bytes, size_t size);
