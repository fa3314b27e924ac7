// The host's parts: tokenizer, chat, rollout, optimizer, metrics, commands; files.h has what is read and written.
#pragma once
#include "batch.h"
#include "comm.h"
#include "config.h"
#include "files.h"
#include "model.h"
#include "reward.h"
#include "str.h"
#include <jansson.h>
#include <signal.h>
#include <stdio.h>

// ---- tokenizer.c: HF tokenizer.json, byte-level BPE --------------------------------------------------------------
typedef struct Tokenizer Tokenizer;

// `path` is a model directory or a tokenizer.json. Safe to share between threads once loaded.
Tokenizer *tokenizer_load(const char *path, Error *e);
void tokenizer_free(Tokenizer *t);
int tokenizer_size(const Tokenizer *t);                      // highest id + 1
int32_t tokenizer_id(const Tokenizer *t, const char *token); // -1 where absent
const char *tokenizer_path(const Tokenizer *t);              // the tokenizer.json it came from
// Appends the ids of `text` (UTF-8; invalid bytes become U+FFFD). Added tokens in the text are matched first; where
// `special` is false those marked special are not, as with HF's split_special_tokens: so a user's text stays text.
void tokenizer_encode(const Tokenizer *t, const char *text, size_t n, bool special, Ids *out);
// Appends the text of `ids`; bytes that are no UTF-8 become U+FFFD. Ids outside the vocabulary add nothing.
// `skip_special`: special tokens add nothing.
void tokenizer_decode(const Tokenizer *t, const int32_t *ids, size_t n, bool skip_special, Str *out);
// Streaming: appends what is complete UTF-8 so far; bytes of an unfinished character wait in `pending`. Decoding a
// sequence piece by piece, then flushing, gives the text of decoding it whole.
typedef struct {
    char byte[4];
    int n;
} Utf8Pending;
void tokenizer_stream(const Tokenizer *t, int32_t id, bool skip_special, Utf8Pending *pending, Str *out);
void tokenizer_stream_flush(Utf8Pending *pending, Str *out);

// ---- chat.c: templates -------------------------------------------------------------------------------------------
// Renders `messages` (a JSON array of {role, content, ...}); `tools` may be NULL. The templates are qwen2.5 (Instruct),
// qwen2.5-base (its default system message) and r1-zero. Unknown template: an error with the names there are.
bool chat_render(const char *template_name, const json_t *messages, const json_t *tools, bool add_generation_prompt,
                 Str *out, Error *e);
// The prompt for one question: system message (NULL: the template's default), then the question, then the turn's start.
bool chat_prompt(const char *template_name, const char *system, const char *question, Str *out, Error *e);
// The name of the template that the tokenizer_config.json beside this tokenizer.json holds; NULL where it is none of ours.
const char *chat_template_of(const char *tokenizer_path);
extern const char chat_system_prompt[]; // the shipped one: think in <think>, answer in <answer>

// ---- metrics.c: metrics.jsonl and completions.jsonl in output_dir -------------------------------------------------
typedef struct Metrics Metrics;
typedef struct {
    int64_t step;
    const char *prompt, *completion, *answer;
    const char *const *reward_names; // [n_rewards]
    const float *score;              // [n_rewards]; NaN (abstains) becomes null
    int n_rewards;
    float reward, advantage;
} CompletionRecord;
// Opens both logs, each cut back to a checkpoint's length (0: a new run). NULL after filling *e.
Metrics *metrics_open(const char *output_dir, size_t metrics_bytes, size_t completions_bytes, Error *e);
void metrics_close(Metrics *m); // drops what was not committed
// A line of metrics.jsonl, name by name in the order it shall have. Numbers read back as the same f32; NaN, Inf: null.
void metrics_add(Metrics *m, const char *name, double value);
void metrics_add_int(Metrics *m, const char *name, int64_t value);
void metrics_completion(Metrics *m, const CompletionRecord *r); // a line of completions.jsonl
// Writes what was added since the last commit: whole lines, or nothing (EXIT_DISK).
bool metrics_commit(Metrics *m, Error *e);
// For a checkpoint: what was committed is on the disk, and how long the logs are now.
bool metrics_sync(Metrics *m, size_t *metrics_bytes, size_t *completions_bytes, Error *e);

// ---- progress.c: what a person watching sees ---------------------------------------------------------------------
typedef struct Progress Progress;
typedef struct {
    double reward, accuracy /* 0..1 */, kl, length /* tokens */, loss, tokens_per_second; // NaN: not shown
} ProgressStep;
// `mode` is PROGRESS_*. Live: one line, redrawn in place to the terminal's width. Plain: a line a step.
// `step` steps of total_steps were done before (a resumed run).
Progress *progress_open(FILE *out, int mode, int64_t step, int64_t total_steps);
void progress_close(Progress *p); // ends the live line

// ---- profile.c: what a profiler sees ---------------------------------------------------------------------------------
typedef struct {
    Device *device;
    const char *phase;   // whose range is open, or NULL
    int64_t first, last; // steps to record; 0: none
    bool recording;
} Profile;
// "3:5" or "4": the steps, counted from 1; "": 0 and 0. False where the text is neither.
bool profile_range(const char *text, int64_t *first, int64_t *last);
Profile profile_open(Device *d, const Config *c, Progress *p); // says what will be recorded
void profile_phase(Profile *p, const char *phase);             // the range of the last phase ends, this one begins
void profile_step(Profile *p, int64_t step);                   // before each step: the recording begins or ends
void profile_close(Profile *p);
// Now in phase `name` (kept as a pointer), `done` of `total` (0: unknown). As often as you like: the clock of the
// phase starts at its first call, the line is redrawn a few times a second.
void progress_phase(Progress *p, const char *name, int64_t done, int64_t total);
// Ends the step (number `step` of total_steps is done): shows it with its phases' seconds and the time to go.
void progress_step(Progress *p, int64_t step, const ProgressStep *s);
// A line that stays: "saved runs/out/step_100". Control bytes are shown, not sent.
void progress_say(Progress *p, const char *fmt, ...) PRINTF_LIKE(2, 3);

// ---- signals.c ---------------------------------------------------------------------------------------------------
// SIGTERM, SIGINT, SIGUSR1: the first is acknowledged on stderr at once and asks to stop, a second one quits there
// and then with 128 + its number. SIGPIPE is ignored: a log reader that went away does not end a run.
void signals_install(bool saves); // `saves`: a stopped command saves first, and the acknowledgement says so
void signals_end_reads(void);     // from here on a signal ends a read that waits for a person or a pipe, as EINTR
int stop_requested(void);         // the signal that asked to stop, or 0
// A signal that one of several ranks gets stops all: `flag` is shared by them. on_look (may be NULL) is called at every
// stop_requested. NULL, NULL: one rank again.
void signals_share(int *flag, void (*on_look)(void));

// ---- launch.c, rendezvous.c, ranks.c: several ranks ------------------------------------------------------------------
// A process is one rank. They come from a launcher (torchrun, Slurm, Open MPI), found in the environment, or gpus=N forks
// N of them on this host. Rank 0 alone prints, logs and writes checkpoints.
#define LAUNCH_PORTS 8 // rank 0 listens on the first free one of as many
typedef struct {
    const char *by;         // "torchrun", "Open MPI", "Slurm"; NULL: no launcher
    int rank, world, local; // local: number on its host
    char master[256];       // rank 0's host and first port
    int port;
    uint64_t job; // tells this job from others
} Launch;
// EXIT_CONFIG: variables that are half set or contradict each other.
bool launch_read(Launch *l, Error *e);
// The number of its GPU among those the process sees: its number on the host; 0 where CUDA_VISIBLE_DEVICES leaves it one
// alone, as Slurm does with --gpus-per-task (but not torchrun: its ranks share what they see).
int launch_gpu(const Launch *l);
// Makes this process a rank of c->gpus: at once where a launcher started it, else by forking. False in the process that
// forked, after the ranks have ended, with their exit code in *code and the first failure in *e; and false after a failure.
// Before it no OpenMP thread and no GPU may have been used.
bool ranks_start(const Config *c, ExitCode *code, Error *e);
int ranks_rank(void); // this process's rank; 0 where there is one
int ranks_gpu(void);  // launch_gpu of this process
int ranks_here(void); // ranks on this host, as far as is known before they meet: the cores are divided by it
// Opens the communicator between the ranks, and compares their configurations: rank-independent options, version, the
// files' sizes. *out stays NULL for one rank. EXIT_CONFIG names ranks and options that differ.
bool ranks_join(const Config *c, Device *d, const char *model_facts, Comm **out, Error *e);
const char *ranks_about(const Config *c);          // "4 ranks, each " or ""
void ranks_phase(const char *phase, int64_t step); // for the errors of those who wait for this rank
void ranks_alive(void); // a sign of life in work that takes minutes and never looks at stop_requested
// What main asks before it prints the error a command ended with: of several ranks the first to fail speaks for all.
bool ranks_speak(ExitCode code, Error *e);
extern const char grpo_version[];

// ---- rollout.c: batched sampling with a KV cache ------------------------------------------------------------------
// Slots decode side by side and are refilled as sequences end; a group's prompt is prefilled once and its keys and
// values are shared by the group's completions. Cache rows: [prompt_slots x max_prompt], then [slots x max_completion].
typedef struct {
    int slots;          // sequences decoding at a time
    int prompt_slots;   // prompts whose keys and values are held at a time
    int max_prompt;     // tokens
    int max_completion; // tokens
    int prefill_tokens; // packed tokens of one prefill, >= max_prompt
} RolloutShape;
typedef struct RolloutQueue RolloutQueue;
typedef struct {
    RolloutShape shape;
    KvCache cache;
    Activations prefill, decode;
    Tensor ids, pos, kv_row, seq; // [prefill_tokens] x 3, [prompt_slots+1] I32: prompts
    Tensor prompt_hidden, hidden; // [prompt_slots,D], [slots,D] what a first token is drawn from
    Tensor from;                  // [slots] I32 prompt slots of new sequences
    SampleOut drawn;              // [slots] what a step drew
    DecodeRows rows;              // B = slots
    RolloutQueue *queue;          // host memory, events and graphs, kept from one rollout to the next
} Rollout;
// What ends a completion.
typedef struct {
    const int32_t *eos;
    int n_eos;
    TextList stop;
} StopRule;
RolloutShape rollout_shape(int slots, int prompts, int max_prompt, int max_completion);
Rollout rollout_carve(Arena *a, ModelDims dims, DType dtype, RolloutShape shape);
void rollout_free(Rollout *r);
Tensor rollout_ring(Arena *a, int slots); // rollout_queue.c: DecodeRows.drawn
// Decodes every queued sequence of the batch: fills len, ids, logp, lse, entropy, finish, text; tells `watch` as text comes
// and sequences end. False, sequences left unfinished, after filling *e: a stop was requested (EXIT_STOPPED), or the device
// failed. A sequence's tokens depend on (weights, prompt, params, its key) alone.
typedef struct {
    void (*text)(void *arg, int i, const char *bytes,
                 size_t n);         // new text of sequence i that no stop string can take back
    void (*done)(void *arg, int i); // sequence i has ended
    void *arg;
} RolloutWatch; // members may be NULL
bool rollout_run(Rollout *r, Device *d, const Model *m, const Tokenizer *t, StopRule rule, SampleParams params,
                 Batch *b, RolloutWatch watch, Error *e);
// What a rollout drew is worth nothing where a log-prob is not finite: EXIT_NUMERIC, for commands that show or grade it.
bool rollout_finite(const Batch *b, Error *e);

// ---- device.c ------------------------------------------------------------------------------------------------------
// `choice` is DEVICE_*. auto takes GPU `ordinal` where one answers, else the CPU, whose `about` then says so; cuda takes
// the GPU or fails. NULL after filling *e.
Device *device_open(int choice, int ordinal, int threads, Error *e);
// For the start of main. OpenMP's waiting threads spin for milliseconds by default: beside other work a small model then
// runs several times slower. Not to spin at all costs a wake-up a parallel region, a quarter of the speed of decoding one
// sequence. Some microseconds do; but the runtime reads its settings before main, so the program starts itself once more.
// What the user has set stays.
void device_limit_spinning(char **argv);
// Whether d is the CPU because auto found no GPU for a build that could use one.
bool device_fell_back(int choice, const Device *d);
void device_close(Device *d);              // NULL is fine
bool device_ok(const Device *d, Error *e); // false after putting the device's first failure into *e

// ---- run.c: what a command has open, and the memory it took -------------------------------------------------------
// What a command needs; it decides the memory plan.
typedef struct {
    bool train;           // gradients, optimizer state, activations kept for a backward pass
    bool reference;       // a second copy of the weights, frozen
    int64_t train_tokens; // packed tokens of one micro-batch
    int train_seqs;       // sequences of one micro-batch
    int score_rows;       // sequences of one generation batch (rewards given to grpo_loss)
    int n_rewards;
    int64_t kept;         // numbers that stay on the device until the end of a step, or of a pass over a generation
    RolloutShape rollout; // slots 0: none
} RunShape;

#define PLAN_ROWS 16
typedef struct {
    struct {
        const char *what;
        size_t bytes;
    } row[PLAN_ROWS];
    int n;
    size_t params, work; // bytes of the two slabs; rollout and training take turns in `work`
} Plan;

// One micro-batch on the device: packed tokens, and the N positions whose next token is scored.
typedef struct {
    Activations acts;
    Tensor ids, pos, seq;                       // [T] [T] [B+1] I32
    Tensor rows, target;                        // [N] I32: hidden row, token to predict
    Tensor logp, lse, entropy, dlogp, dentropy; // [N] F32
    Tensor old_logp, ref_logp;                  // [N] F32
    Tensor offsets, index, mask;                // [B+1] I32, [B] I32, [B] U8
    Tensor rewards, weights;                    // [S,n_rewards], [n_rewards] F32
    Tensor advantage;                           // [B] F32
    Tensor kept;                                // [RunShape.kept] F32: what micro-batches leave for the host
} TrainWork;

typedef struct {
    const Config *cfg;
    Device *device;
    HfConfig hf;
    Tokenizer *tokenizer;
    RunShape shape;
    Plan plan;
    void *params_base, *work_base;
    Model policy, grad, reference;
    Comm *comm;    // NULL: one rank
    int64_t first; // the element of the slab that this rank's slice of the optimizer's state begins at
    Tensor master, moment1, moment2; // [slice of the slab]; master only where weights are bf16 and state f32
    Tensor norms;                    // [1 + n_params] I64 (f64 bits): see optim.c
    Rollout rollout;
    TrainWork work;
    Staging feed; // a micro-batch's inputs on their way
} Run;

// Reads config.json and the tokenizer, plans and takes the memory, loads (or draws) the weights.
// run_describe stops before memory is taken: enough for `plan`.
bool run_describe(Run *r, const Config *c, RunShape shape, Error *e);
bool run_open(Run *r, const Config *c, RunShape shape, Error *e);
void run_close(Run *r);
// The plan as a table, held against the memory of r->device (this machine's, where none is open), with what would help
// where it does not fit. Heap memory.
char *plan_table(const Run *r);
// The shapes `train` and `eval`, `sample` need.
RunShape shape_for_train(const Config *c, int n_rewards);
RunShape shape_for_rollout(const Config *c, int64_t sequences, int64_t prompts);
RunShape shape_for_sft(const Config *c);
StopRule run_stop_rule(const Run *r);

// ---- prompt.c: from a question to prompt ids ------------------------------------------------------------------------
typedef struct {
    const Run *run;
    char *system; // system message, or NULL for the template's own
} Prompter;
typedef enum { PROMPT_KEPT, PROMPT_SKIPPED, PROMPT_FAILED } PromptFate;
bool prompter_open(Prompter *p, const Run *r, Error *e);
void prompter_close(Prompter *p);
// The rendered prompt's ids, whatever their number.
bool prompter_ids(const Prompter *p, const char *question, Ids *out, Error *e);
// Applies max_prompt_length by the long_prompts rule.
PromptFate prompter_limit(const Prompter *p, Ids *ids, int64_t line, Error *e);
// Fills prompt p of the batch from the data set's next usable row.
bool prompter_next(const Prompter *pr, Dataset *data, Batch *b, int p, Error *e);
// Moves a row's question and gold into prompt p of the batch.
void prompter_take(Batch *b, int p, Row *row);

// ---- score.c: rewards over a batch -----------------------------------------------------------------------------------
#define MAX_REWARDS 32
typedef struct {
    Reward reward[MAX_REWARDS];
    Reward grader; // judges answers in evaluations, where eval_grader names one; else info is NULL
    int n;
} Rewards;
bool rewards_select(const Config *c, Rewards *out, Error *e);
// Starts what the selected rewards need (programs, a sandbox), before the first score; an error then, not in step 900.
bool rewards_open(Rewards *rw, Error *e);
// Notes on standard error what went wrong while they scored, where anything did.
void rewards_note(const Rewards *rw);
void rewards_close(Rewards *rw); // of rewards selected and not yet opened: nothing
// Whether the grader finds each completion of a decoded batch right: score above 0.5. right: [b->n].
void rewards_grade(const Rewards *rw, const Batch *b, bool *right);
// The control experiment: permutes scores among the batch's completions.
void rewards_shuffle(Batch *b, uint64_t seed, uint64_t stream);
uint64_t host_random(uint64_t seed, uint64_t stream, uint64_t i);

// ---- scorer.c: completions scored while others still decode --------------------------------------------------------------
// Threads that score; one thread tells them what to. A scorer of a completion is a plain call of RewardFn on one of them.
typedef struct Scorer Scorer;
// `threads` 0: as many as there are cores, at most 16. A thread whose scorer hangs gets a stand-in. NULL after filling *e.
Scorer *scorer_open(const Rewards *rewards, int threads, Error *e);
void scorer_close(Scorer *s); // waits for scorers that are at work; NULL is fine
// From here to scorer_end completions of this batch are scored, and its columns of questions and texts stay as they are.
void scorer_begin(Scorer *s, const Batch *b);
void scorer_add(Scorer *s, int i); // sequence i is decoded; returns at once
// Waits for the scores of what was added, and sums them up: score, reward, state. Where they are not `wanted`, or a stop
// is requested, it waits for scorers at work only; false then.
bool scorer_end(Scorer *s, bool wanted);

// ---- micro.c: packed sequences through the model -----------------------------------------------------------------------
// Sequences back to back on the host, before they go to the device.
typedef struct {
    int64_t max_tokens, max_sequences, T, B, N;
    int32_t *ids, *pos;     // [T]
    int32_t *rows, *target; // [N]
    int32_t *seq, *offsets; // [B+1]: where sequences begin among the tokens, among the scored positions
} Packing;
Packing packing_new(int64_t tokens, int64_t sequences);
void packing_free(Packing *p);
void packing_clear(Packing *p);
// Adds a sequence of n ids; tokens from position first_target on are scored (where `wanted` is given, only those it
// marks). False, nothing added, where it does not fit.
bool packing_add(Packing *p, const int32_t *ids, int64_t n, int64_t first_target, const uint8_t *wanted);
// The packed micro-batch on its way to the device; the result's tensors have its live sizes. What else this micro-batch
// needs follows by micro_upload. Neither waits for the device, but where it is two micro-batches behind.
TrainWork micro_pack(Run *r, const Packing *p);
void micro_upload(Run *r, Tensor to, const void *from);
// Keeps x[n] F32 from element `at` of work.kept on; and all that was kept before `end`, once the device is done.
void micro_keep(Run *r, int64_t at, Tensor x);
void micro_kept(Run *r, int64_t end, float *to);
// Hidden states of the packed tokens under m, w->acts.out: what micro_backward needs beside lse and entropy.
void micro_hidden(const Run *r, const Model *m, TrainWork *w);
// The same, then logp, lse and entropy of the scored positions.
void micro_forward(const Run *r, const Model *m, TrainWork *w, float temperature);
// Adds the gradients of w->dlogp (and w->dentropy) to r->grad.
void micro_backward(Run *r, TrainWork *w, float temperature, bool with_entropy);

// ---- optim.c ---------------------------------------------------------------------------------------------------------
// Optimizer steps of a whole run, at least 1: max_steps, or num_train_epochs rounded up to whole steps as transformers does.
int64_t optim_total_steps(const Config *c, int64_t steps_per_epoch);
// Learning rate of optimizer step `step` (from 0) of `total`: transformers' schedules.
double optim_learning_rate(const Config *c, int64_t step, int64_t total);
// Adds up the ranks' gradients, each rank its slice of them, and gives their global L2 norm; where it is not finite, *bad
// names the first tensor at fault. False after filling *e.
bool optim_grad_norm(Run *r, double *norm, const char **bad, Error *e);
// One AdamW update, gradients clipped to max_grad_norm; `update` counts from 1. Each rank updates its slice of the
// weights, then gets the others'. False after filling *e.
bool optim_step(Run *r, double learning_rate, double grad_norm, int64_t update, Error *e);

// ---- resume.c: what train and sft share -----------------------------------------------------------------------------------
// Saves the consistent point `at` as output_dir/step_N, the logs on the disk first.
bool run_save(const Run *r, TrainState *at, Metrics *m, Error *e);
// Continues from the newest good checkpoint of output_dir by the `resume` rule (fills the run's weights and state and
// *at), and opens the logs at that point (rank 0; *m is NULL elsewhere). The number of ranks may be another one than
// the checkpoint's. False after filling *e.
bool run_resume(Run *r, TrainState *at, Progress *p, Metrics **m, Error *e);
// Says so where a resumed run has no step left to make.
void run_say_done(const TrainState *at, int64_t total_steps, Progress *p);
// mkdir -p; EXIT_DISK.
bool directory_make(const char *path, Error *e);

// ---- grpo.c, train.c: the GRPO step and the loop around it --------------------------------------------------------------
typedef enum { STEP_DONE, STEP_SKIPPED, STEP_STOPPED, STEP_FAILED } StepResult; // of several ranks the last counts
// What one step measured beside the batch's columns. Times in seconds.
typedef struct {
    double grad_norm, learning_rate;
    bool generated; // this step drew a new generation
    int first;      // index into Trainer.order of the first sequence it trained on
    double rollout_time, reward_time /* after the rollout */, reference_time, train_time, optimizer_time, step_time;
    char bad[160]; // STEP_SKIPPED: what was not finite
} StepStats;
typedef struct {
    const Config *cfg;
    Run run;
    Prompter prompter;
    Dataset *data;
    Rewards rewards;
    Scorer *scorer;
    int64_t faults[MAX_REWARDS][REWARD_FAULTS]; // of all ranks so far
    int64_t logged[MAX_REWARDS][REWARD_FAULTS]; // those of them that are in the log
    float weights[MAX_REWARDS];
    Batch batch;
    Packing packing;
    TrainState at;    // the last consistent point
    int64_t next_key; // first unused sequence key
    bool exact;       // the sampler's numbers are those of training, to the bit: so with our own products
    int64_t total_steps;
    int steps_per_pass;        // optimizer steps one pass over a generation feeds
    int *order;                // [batch.n] the order its sequences are trained in
    float (*metric)[GM_COUNT]; // [batch.n] grpo_loss's sums
    int32_t *joined;           // [max_prompt + max_completion] prompt and completion of one sequence
    float *scored;             // [RunShape.kept] staging of per-token columns
    int64_t steps_per_epoch;
    Metrics *metrics;
    Progress *progress;
    Profile profile;
    int decoded; // sequences of the current rollout that have ended
    StepStats stats;
} Trainer;
bool trainer_open(Trainer *t, const Config *c, Error *e);
void trainer_close(Trainer *t);
// Continues from the newest good checkpoint of output_dir by the `resume` rule, and opens the logs.
bool trainer_resume(Trainer *t, Error *e);
// Saves the last consistent point as output_dir/step_N.
bool trainer_save(Trainer *t, Error *e);
// One optimizer step; a new generation first where the last one is used up. STEP_SKIPPED: something was not finite
// (stats.bad), nothing changed but the counters. STEP_STOPPED: a signal; t->at is untouched. STEP_FAILED: *e.
StepResult grpo_step(Trainer *t, Error *e);
// The order a generation of n sequences is trained in: the batch's own, or a permutation.
void grpo_order(int *order, int n, bool shuffle, uint64_t seed, uint64_t stream);
bool group_is_flat(const Batch *b, int p);
// exchange.c: what the ranks of a step tell each other. Every rank has the whole batch; it samples, scores and trains a
// share of it, and gets the rest. One rank does nothing here.
typedef struct {
    int first, end;
} RankShare;
RankShare rank_share(const Comm *c, int n); // this rank's of n things: contiguous, as even as they can be
// The gravest of the ranks' results is that of all; what was not finite is the first rank's that says so. STEP_FAILED
// after filling *e.
StepResult ranks_agree(Trainer *t, StepResult mine, Error *e);
bool ranks_share_completions(Trainer *t, Error *e); // by prompts: rollout's and the rewards' columns
// By sequences seq[0..n): a per-token column; loss and sums of grpo_loss. False after filling *e.
bool ranks_share_tokens(Trainer *t, const char *name, float *column, const int *seq, int n, Error *e);
bool ranks_share_metrics(Trainer *t, const int *seq, int n, Error *e);
// Logs a step that counted (done or skipped).
bool train_log(Trainer *t, StepResult result, Error *e);
SampleParams sample_params(const Config *c);
double wall_seconds(void);

// ---- eval.c: GSM8K accuracy ------------------------------------------------------------------------------------------
// 1 where the last number of the text equals gold as a number, else 0: blind to the format.
int grade_lenient(const char *text, const char *gold);
// Strict: the answer between the tags (the whole text without them) equals gold as a string.
int grade_strict(const char *text, const char *gold);
#define PASS_POINTS 13 // k up to 4096
typedef struct {
    int64_t questions;
    int samples;                      // completions a question
    double strict, lenient;           // mean over completions
    double pass[PASS_POINTS];         // pass@1, 2, 4 ... up to samples, lenient, unbiased
    double majority;                  // share of questions whose most frequent answer is right (maj@samples)
    double reward, length, truncated; // means over completions
    double part[MAX_REWARDS];         // mean of each reward
} EvalResult;
// Evaluates rows [0, limit) (0: all) of the data set, `samples` completions each; one is greedy.
bool eval_run(Run *r, const Prompter *p, Dataset *data, const Rewards *rw, int64_t limit, int samples, EvalResult *out,
              Error *e);
// The result as one JSON object.
void eval_json(const EvalResult *res, const Rewards *rw, Str *out);

// ---- commands (main.c's table) -----------------------------------------------------------------------------------
// Each gets argc/argv after its own name and returns an exit code, having filled *e where it is not 0.
typedef ExitCode Command(int argc, char **argv, Error *e);
Command command_train, command_sft, command_sample, command_eval, command_tokenize, command_reward, command_plan,
    command_config, command_doctor;
