// The engine: what every command that runs a model has open (device, policy, tokenizer, rollout, ranks), and the memory
// it took. A learner (learner.h) has one, and what training adds.
#pragma once
#include "comm.h"
#include "config.h"
#include "hf.h"
#include "machine.h"
#include "model.h"
#include "prompt.h"
#include "rollout.h"
#include "staging.h"
#include "tokenizer.h"

typedef struct Rewards Rewards;           // reward_set.h
typedef struct RewardModels RewardModels; // reward_models.h

// What a command needs; it decides the memory plan.
typedef struct {
    bool train;           // gradients, optimizer state, activations kept for a backward pass
    bool reference;       // a second copy of the weights, frozen
    bool score_head;      // the policy gives texts a score: `reward_model`
    int64_t train_tokens; // packed tokens of one micro-batch
    int train_seqs;       // sequences of one micro-batch
    int score_rows;       // sequences of one generation batch (rewards given to grpo_loss)
    int n_rewards;
    const Rewards *rewards; // whose models are beside the policy; NULL: none
    int64_t held;           // numbers that stay on the device until the end of a step, or of a pass over a generation
    RolloutShape rollout;   // slots 0: none
} RunShape;

#define PLAN_ROWS 16
typedef struct {
    struct {
        const char *what;
        size_t bytes;
    } row[PLAN_ROWS];
    int n;
    size_t params, work;        // bytes of the two slabs; rollout and training take turns in `work`
    size_t judges, classifiers; // what the models behind rewards need of `work`, in their turns
} Plan;

typedef struct {
    const Config *cfg;
    Device *device;
    HfConfig hf; // its eos[0] is the end that answers are taught: see engine_find_template
    Tokenizer *tokenizer;
    const char *template; // the chat template; NULL: the model is given raw texts only
    RunShape shape;
    Plan plan;
    AdapterSpec lora;              // of the adapter beside the policy; rank 0: none
    void *params_base, *work_base; // the two slabs
    Model policy;
    Rollout rollout;
    RewardModels *models; // NULL: none
    bool new_head;        // score.weight is not in the model's files: it is drawn
    Comm *comm;           // NULL: one rank
} Engine;

// Chooses the chat template, and moves the token that ends its turns to hf.eos[0]. A model whose template is unknown is
// an error unless prompts are raw texts.
bool engine_find_template(Engine *en, Error *e);
// Moves the token that ends the turns of a chat template to hf->eos[0]. False after filling *e: there is no room for
// it.
bool chat_end_leads(const char *template, const Tokenizer *t, HfConfig *hf, Error *e);
// Reads config.json, the tokenizer and the chat template: enough for a prompter. engine_open does it where it was not
// done.
bool engine_prepare(Engine *en, const Config *c, Error *e);
// Reads config.json, and plans the memory on that device (NULL: on the one that the configuration names) without taking
// it: enough for `plan`.
bool engine_describe(Engine *en, Device *d, const Config *c, RunShape shape, Error *e);
// Describes the engine, takes its memory, loads (or draws) the weights. For a shape that samples.
bool engine_open(Engine *en, const Config *c, RunShape shape, Error *e);
void engine_close(Engine *en);
// The plan as a table, compared with the memory of en->device (of this machine, where no device is open). Where it does
// not fit, the table names options that would help. Heap memory.
char *plan_table(const Engine *en);
// Whether the planned memory fits. *need: the bytes that all ranks which share one memory need together; *have: its
// size.
bool plan_fits(const Engine *en, size_t *need, MemoryLimit *have);
// What `train` needs; rw must outlive the engine.
RunShape shape_for_train(const Config *c, const Rewards *rw);
// What `reward_model` needs.
RunShape shape_for_pairs(const Config *c);
// What `sft` needs.
RunShape shape_for_sft(const Config *c);
// What commands that only sample need, for rollouts of so many sequences that answer so many prompts.
RunShape shape_for_rollout(const Config *c, int64_t sequences, int64_t prompts);
// The ids and strings that end a completion.
StopRule engine_stop_rule(const Engine *en);
// Fills in what the models behind the run's rewards say of the decoded sequences of a batch. False after filling *e.
bool engine_score(Engine *en, Batch *b, Error *e);
// Fills score[b->n]: what the run's grader gives each completion of a decoded batch; NaN: no verdict. False after
// filling *e.
bool engine_grade(Engine *en, const Rewards *rw, const Batch *b, float *score, Error *e);
// Opens a prompter of the engine's configuration, tokenizer and template; bare: without the examples of few_shot_file,
// which are for drawing, not for learning. False after filling *e.
bool engine_prompter(const Engine *en, Prompter *p, Error *e);
bool engine_prompter_bare(const Engine *en, Prompter *p, Error *e);
