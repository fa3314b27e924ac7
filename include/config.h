// Config: every option of grpo, in one table. The YAML reader, key=value overrides, --help, `grpo config`, the
// reference page and the configuration saved with a run are all made from it.
//
//   BOOL(group, scope, name, default, help)             true | false
//   INT(group, scope, name, default, min, max, help)
//   REAL(group, scope, name, default, min, max, help)
//   TEXT(group, scope, name, default, help)             one string
//   LIST(group, scope, name, default, help)             strings: [a, b] in YAML, or a plain string split at commas
//   PICK(group, scope, name, default, "a|b|c", help)    an index into the choices, in their order
//   FILES(group, scope, name, help)                     a path, or a list of {file: PATH, weight: W, rewards: [...]}
//
// group: which commands read it, see CONFIG_GROUPS in host/config/config_table.h. scope: DRAWS, it changes what
// completions are drawn for questions or how they are scored, or may; SAME, it changes other numbers that a run
// computes, or may; FREE, it does not, and a resumed run may have another value; LOCAL, each rank may have its own too.
#pragma once
#include "adapter.h"
#include "cpu_isa.h"
#include "device.h"
#include "error.h"
#include "losses.h"
#include <stdint.h>

// clang-format off
#define CONFIG_OPTIONS(BOOL, INT, REAL, TEXT, LIST, PICK, FILES)                                                       \
    TEXT(model,     DRAWS, model, "", "HF model directory: config.json, *.safetensors, tokenizer.json")                \
    TEXT(model,     DRAWS, tokenizer, "", "directory or tokenizer.json to use instead of the model's own")             \
    PICK(model,     DRAWS, init, 0, "load|random", "weights from the model directory, or drawn at random from the seed") \
    PICK(model,     SAME,  load, 0, "strict|mmap", "strict reads and checks every tensor; mmap maps the file and is faster") \
    TEXT(model,     DRAWS, adapter, "", "directory of a LoRA adapter in PEFT's format (adapter_config.json, adapter_model.safetensors) that runs beside the model; training goes on with it, and what it was at the start is the reference") \
    PICK(model,     DRAWS, dtype, 1, "f32|bf16", "storage of weights and activations; arithmetic is f32")              \
    PICK(model,     SAME,  grad_dtype, 0, "f32|bf16", "storage of gradients")                                          \
    PICK(model,     SAME,  optim_dtype, 0, "f32|bf16|f32_split", "f32: master weights and moments in f32; f32_split: the same numbers, each master kept as its bf16 weight and what rounding took from it, in 2 bytes a parameter less; bf16: moments in bf16, no masters, stochastic rounding") \
    BOOL(model,     SAME,  recompute, true, "compute norm and SwiGLU outputs again in the backward pass instead of keeping them") \
    BOOL(model,     SAME,  gradient_checkpointing, false, "keep only the residual stream before each layer and compute the layer again in its backward pass: the same numbers in less memory, for about a third more time") \
    INT (lora,      SAME,  lora_r, 0, 0, 4096, "rank of the LoRA adapter that is trained while the model's weights stay, reward_model's with its score head; 0: all weights are trained") \
    REAL(lora,      SAME,  lora_alpha, 32, 1e-6, 1e6, "what the adapter adds is multiplied by lora_alpha / lora_r")    \
    BOOL(lora,      SAME,  use_rslora, false, "by lora_alpha / sqrt(lora_r) instead")                                  \
    PICK(lora,      SAME,  lora_init, 0, "kaiming_uniform|gaussian", "how a new adapter's A is drawn, as PEFT draws it by default (uniform in +- 1 / sqrt(columns)) or with init_lora_weights=\"gaussian\" (deviation 1 / lora_r); B is 0") \
    REAL(lora,      SAME,  lora_dropout, 0, 0, 1, "0 alone: with dropout a token's log-prob in training would not be the one it was sampled with") \
    LIST(lora,      SAME,  lora_target, "all-linear", "projections with an adapter: of " LORA_TARGET_NAMES "or all-linear, all of them") \
    PICK(device,    SAME,  device, 0, DEVICE_CHOICES, "where to compute; auto: a GPU where there is one for this build, else the CPU") \
    PICK(device,    DRAWS, matmul, 0, "own|cublas", "cublas measures what the own products' fixed sums cost on a GPU: sampled and trained log-probs then differ") \
    INT (device,    LOCAL, threads, 0, 0, 1024, "CPU threads; 0: all cores")                                           \
    PICK(device,    FREE,  cpu_isa, 0, CPU_ISA_CHOICES, "the CPU's instruction set; auto: the one GRPO_CPU_ISA names in the environment, else the fastest this CPU has") \
    INT (device,    DRAWS, seed, 42, 0, 9007199254740991, "every random choice of a run follows from it")              \
    INT (ranks,     SAME,  gpus, 1, 1, 65536, "GPUs that train together, a process each; with device=cpu so many processes divide the cores. torchrun, srun and mpirun set it") \
    INT (ranks,     FREE,  comm_timeout, 600, 1, 1000000, "seconds that ranks wait for one that gives no sign of life") \
    FILES(data,     DRAWS, train_file, "JSONL to train on; or several, of which questions come in the ratio of their weights: [{file: a.jsonl, weight: 3}, {file: b.jsonl, weight: 1, rewards: [...]}]; `rewards` there score that file's questions instead of the run's") \
    TEXT(data,      SAME,  eval_file, "", "JSONL to evaluate on")                                                      \
    TEXT(questions, DRAWS, question_field, "question", "field with the question")                                      \
    TEXT(questions, DRAWS, answer_field, "answer", "field with the answer; a number, or a list or an object in it (test cases), is taken as its JSON text") \
    TEXT(questions, DRAWS, answer_marker, "####", "gold is the text after the last one of these, stripped; empty: the whole answer") \
    PICK(data,      DRAWS, bad_lines, 0, "fail|skip", "a line that is not a JSON object with both fields, or that the run could not ask or learn, stops it at the start, or is counted and left out") \
    BOOL(data,      SAME,  shuffle, true, "visit questions in a random order, another one each epoch")                 \
    INT (prompt,    DRAWS, max_prompt_length, 256, 1, 1048576, "tokens of a prompt, at most; long_prompts says what becomes of a longer one, which `sample` refuses")                                   \
    PICK(questions, DRAWS, long_prompts, 0, "truncate_left|skip|fail", "a question whose prompt is longer than max_prompt_length keeps its last tokens, is left out, or stops the run at its start; evaluations leave none out (skip keeps the last tokens, too), select cuts none (truncate_left leaves it out, too)") \
    TEXT(chat,      DRAWS, chat_template, "auto", "qwen2.5 (Instruct), qwen2.5-base (its system message), qwen3, qwen3-nothink (answers begin behind an empty thought), llama3, llama3.1, r1-zero; auto: the one the model came with, qwen2.5 where it has none") \
    TEXT(system,    DRAWS, system_prompt, "", "system message; empty: the shipped one that asks for <think> and <answer>") \
    TEXT(system,    DRAWS, system_prompt_file, "", "file with the system message")                                     \
    LIST(system,    DRAWS, think_markers, "<think>,</think>", "what stands before the thoughts of an answer, and what stands behind them, before the summary: [A, B]; both may be the same. Rewards, select, judges and the shipped system message go by them") \
    TEXT(prompt,    DRAWS, few_shot_file, "", "JSONL with `prompt` and `completion`: examples that stand before each question as turns of the conversation; in raw prompts a line each, and an empty one after it") \
    INT (prompt,    DRAWS, few_shot, 0, 0, 1000, "use the first so many of them; 0: all")                              \
    BOOL(chat,      DRAWS, raw, false, "the question or prompt is used as it is, without system message and template, behind what the tokenizer puts before a text (Llama 3: <|begin_of_text|>), unless it begins so") \
    INT (sampling,  DRAWS, max_completion_length, 200, 1, 1048576, "tokens of a completion")                           \
    REAL(sampling,  DRAWS, temperature, 0.9, 0, 100, "logits are divided by it; 0: greedy")                            \
    INT (sampling,  DRAWS, top_k, 0, 0, 10000000, "keep the k most likely tokens; 0: all")                             \
    REAL(sampling,  DRAWS, top_p, 1, 0, 1, "keep the most likely tokens up to this mass; 1: all")                      \
    REAL(sampling,  DRAWS, min_p, 0, 0, 1, "drop tokens less likely than this share of the likeliest; 0: none")        \
    REAL(sampling,  DRAWS, repetition_penalty, 1, 0.01, 100, "divide (multiply) positive (negative) logits of tokens already seen; 1: off") \
    LIST(sampling,  DRAWS, stop, "", "strings that end a completion (left out of its text); a special token is one too") \
    BOOL(sampling,  DRAWS, include_stop, false, "the text of a completion keeps the stop string that ended it")        \
    INT (sampling,  SAME,  rollout_batch, 0, 0, 65536, "sequences decoded at a time; 0: chosen by the plan")           \
    INT (grpo,      SAME,  num_generations, 8, 1, 4096, "completions a question: the group")                           \
    INT (grpo,      SAME,  num_iterations, 1, 1, 1000, "optimizer passes over one generation")                         \
    INT (grpo,      SAME,  steps_per_generation, 0, 0, 4096, "micro-batches one generation feeds, a multiple of gradient_accumulation_steps; 0: the same") \
    PICK(grpo,      SAME,  loss_type, 0, LOSS_CHOICES, "how token losses are formed and added up: see the table of losses") \
    PICK(grpo,      SAME,  importance_sampling_level, 0, "token|sequence", "ratio of each token, or one of the sequence (GSPO)") \
    REAL(grpo,      SAME,  epsilon, 0.2, 0, 1, "lower clip: ratios below 1 - epsilon")                                 \
    REAL(grpo,      SAME,  epsilon_high, -1, -1, 100, "upper clip: ratios above 1 + epsilon_high; -1: epsilon. cispo: the largest ratio itself") \
    REAL(grpo,      SAME,  delta, -1, -1, 1000, "two-sided clipping: ratios above delta count as delta; -1: off")      \
    PICK(grpo,      SAME,  scale_rewards, 0, "group|batch|none", "advantages are divided by this standard deviation")  \
    PICK(grpo,      SAME,  multi_objective_aggregation, 0, "sum_then_normalize|normalize_then_sum", "normalize_then_sum: each reward in its group first (GDPO)") \
    REAL(grpo,      SAME,  beta, 0.04, 0, 100, "weight of the KL to the reference; 0: no reference is kept")           \
    BOOL(grpo,      SAME,  use_bias_correction_kl, false, "the KL is multiplied by the ratio, so that its gradient is the reverse KL's: TRL's default since 1.16, not there in the recipe's time") \
    PICK(grpo,      FREE,  reference_weights, 0, "auto|resident|reload", "reload: the reference lives in the gradients' memory and is read from the model's files again for each generation, the same numbers in a copy of the weights less; resident: it has memory of its own; auto: reload on the CPU, where the files are there and the reference stays as it is") \
    BOOL(grpo,      SAME,  sync_ref_model, false, "move the reference towards the policy now and then")                \
    REAL(grpo,      SAME,  ref_model_mixup_alpha, 0.6, 0, 1, "ref = alpha policy + (1 - alpha) ref")                   \
    INT (grpo,      SAME,  ref_model_sync_steps, 512, 1, 1000000000, "optimizer steps between two such moves")         \
    BOOL(grpo,      SAME,  mask_truncated_completions, false, "completions cut at max_completion_length do not count in the loss") \
    REAL(grpo,      SAME,  top_entropy_quantile, 1, 0, 1, "only this share of tokens, those of highest entropy, carries the policy loss") \
    REAL(grpo,      SAME,  entropy_coef, 0, -10, 10, "entropy bonus: - entropy_coef x mean entropy is added to the loss") \
    BOOL(grpo,      SAME,  use_adaptive_entropy, false, "entropy_coef is where the coefficient starts; each step moves it, up where entropy is at or below entropy_target, else down") \
    REAL(grpo,      SAME,  entropy_target, 0.2, 0, 100, "entropy of the tokens that carry the loss; the bonus is applied only after a step at or below it") \
    REAL(grpo,      SAME,  entropy_coef_delta, 0.005, 0, 10, "how far a step moves the coefficient")                   \
    REAL(grpo,      SAME,  entropy_coef_min, 0, -10, 10, "the least it is moved to")                                   \
    REAL(grpo,      SAME,  entropy_coef_max, 1, -10, 10, "the most it is moved to")                                    \
    REAL(grpo,      SAME,  off_policy_mask_threshold, -1, -1, 1000, "leave out sequences with negative advantage and mean(old - new log-prob) above it; -1: off") \
    REAL(grpo,      SAME,  sapo_temperature_pos, 1, 0.001, 1000, "tau of sapo where the advantage is positive")        \
    REAL(grpo,      SAME,  sapo_temperature_neg, 1.05, 0.001, 1000, "tau of sapo elsewhere")                           \
    REAL(grpo,      SAME,  vespo_k_pos, 2, 0, 1000, "k of vespo where the advantage is not negative: how fast weights fall below a ratio of 1") \
    REAL(grpo,      SAME,  vespo_lambda_pos, 3, 0, 1000, "lambda of vespo there: how fast they fall above it")         \
    REAL(grpo,      SAME,  vespo_k_neg, 3, 0, 1000, "k of vespo where the advantage is negative")                      \
    REAL(grpo,      SAME,  vespo_lambda_neg, 2, 0, 1000, "lambda of vespo there")                                      \
    INT (grpo,      SAME,  dynamic_sampling, 0, 0, 1000, "draw new questions for groups whose rewards are all equal, this many times at most; 0: off") \
    LIST(reward,    DRAWS, rewards, "correctness,int,strict_format,soft_format,xmlcount", "rewards, each NAME[:key=value,...]; in YAML also {name: NAME, key: value}") \
    INT (reward,    SAME,  reward_threads, 0, 0, 1024, "threads that score completions while others are sampled; 0: one a core, at most 16") \
    BOOL(grpo,      SAME,  shuffle_rewards, false, "control run: rewards are permuted among the completions of a batch") \
    INT (optim,     SAME,  per_device_train_batch_size, 8, 1, 65536, "sequences a micro-batch")                        \
    BOOL(optim,     SAME,  share_prompts, true, "training computes a prompt once a micro-batch, not once for each of its completions there: the same losses for less time and memory") \
    INT (optim,     SAME,  gradient_accumulation_steps, 4, 1, 65536, "micro-batches an optimizer step")                \
    REAL(optim,     SAME,  learning_rate, 5e-6, 0, 10, "peak learning rate")                                           \
    PICK(optim,     SAME,  lr_scheduler_type, 0, "cosine|linear|constant", "after the warm-up")                        \
    REAL(optim,     SAME,  warmup_ratio, 0, 0, 1, "share of all steps that warm up")                                   \
    INT (optim,     SAME,  warmup_steps, 0, 0, 1000000000, "warm-up steps; overrides warmup_ratio where > 0")          \
    REAL(optim,     SAME,  weight_decay, 0, 0, 10, "AdamW decay of matrices; biases and norms never decay")            \
    REAL(optim,     SAME,  adam_beta1, 0.9, 0, 0.999999, "AdamW beta1")                                                \
    REAL(optim,     SAME,  adam_beta2, 0.999, 0, 0.999999999, "AdamW beta2")                                           \
    REAL(optim,     SAME,  adam_epsilon, 1e-8, 0, 1, "AdamW epsilon")                                                  \
    REAL(optim,     SAME,  max_grad_norm, 1, 0, 1e9, "global L2 norm gradients are clipped to; 0: off")                \
    REAL(optim,     SAME,  num_train_epochs, 1, 0, 1e6, "passes over the training file")                               \
    INT (optim,     SAME,  max_steps, 0, 0, 1000000000, "optimizer steps; overrides num_train_epochs where > 0")       \
    INT (optim,     SAME,  max_bad_steps, 3, 1, 1000000, "stop after this many steps in a row were skipped for NaN or Inf") \
    TEXT(run,       FREE,  output_dir, "runs/out", "where checkpoints, metrics.jsonl and completions.jsonl go")        \
    INT (run,       FREE,  save_steps, 100, 0, 1000000000, "optimizer steps between checkpoints; 0: only at the end")  \
    INT (run,       FREE,  save_total_limit, 2, 1, 1000000, "checkpoints kept")                                        \
    PICK(run,       FREE,  resume, 0, "auto|never|must", "go on from the newest good checkpoint in output_dir if there is one; refuse if there is one; refuse if there is none") \
    INT (run,       FREE,  logging_steps, 1, 1, 1000000, "optimizer steps between lines of metrics.jsonl")             \
    TEXT(run,       FREE,  profile_steps, "", "FIRST:LAST, optimizer steps that a profiler records (nsys --capture-range=cudaProfilerApi); empty: none") \
    BOOL(run,       FREE,  log_completions, true, "write every completion with its rewards to completions.jsonl")      \
    BOOL(run,       FREE,  report, true, "rewrite report.html in output_dir while the run goes on, at most every ten seconds, and at its end") \
    LIST(run,       FREE,  report_to, "", "tensorboard: also write an event file into output_dir, with the names that Transformers gives; none, or empty: not") \
    TEXT(run,       FREE,  on_save, "", "shell command started after each checkpoint, with its path and the step as arguments; see host/README.md") \
    TEXT(run,       FREE,  on_eval, "", "train: shell command started after each evaluation on the way, with output_dir and the step") \
    TEXT(run,       FREE,  on_end, "", "shell command started at the end of a run, however it ends, with output_dir and the step") \
    INT (run,       FREE,  hook_timeout, 600, 1, 1000000000, "seconds such a command may take; then it is ended, with all that it started") \
    BOOL(run,       FREE,  log_tokens, false, "completions.jsonl has each completion's tokens too, with log-prob and entropy, for the report's shades") \
    PICK(run,       FREE,  progress, 0, "auto|live|plain|off", "auto: one live line on a terminal, plain lines elsewhere") \
    INT (held_out,  SAME,  eval_steps, 0, 0, 1000000000, "train, reward_model: optimizer steps between evaluations on eval_file; 0: never") \
    INT (held_out,  SAME,  eval_limit, 0, 0, 1000000000, "questions (reward_model: pairs) taken from eval_file; 0: all") \
    INT (eval,      SAME,  eval_samples, 1, 1, 4096, "completions a question: 1 is greedy at temperature 0; more give pass@k and maj@k at `temperature`") \
    TEXT(eval,      SAME,  eval_grader, "", "reward NAME[:key=value,...] whose score above 0.5 makes an answer right; empty: GSM8K's numbers, strict and lenient") \
    TEXT(eval,      SAME,  eval_output, "", "JSON file for the results; empty: standard output")                       \
    TEXT(examples,  SAME,  prompt_field, "prompt", "field with the prompt")                                            \
    TEXT(sft,       SAME,  completion_field, "completion", "field with the completion")                                \
    TEXT(sft,       SAME,  messages_field, "messages", "field with a list of {role, content}; used where the line has it") \
    INT (examples,  SAME,  max_length, 1024, 2, 1048576, "tokens of an example; sft cuts longer ones at the end, to reward_model they are bad lines") \
    BOOL(sft,       SAME,  packing, true, "fill micro-batches to max_length x per_device_train_batch_size tokens")     \
    TEXT(pairs,     SAME,  chosen_field, "chosen", "field with the text that was preferred")                           \
    TEXT(pairs,     SAME,  rejected_field, "rejected", "field with the other one")                                     \
    REAL(pairs,     SAME,  center_rewards_coefficient, 0, 0, 1000, "the mean of (chosen + rejected)^2 times this is added to the loss, so that scores stay near 0; 0.01 is usual") \
    INT (select,    DRAWS, select_samples, 8, 1, 4096, "completions drawn for a question")                             \
    INT (select,    SAME,  select_limit, 0, 0, 1000000000, "questions taken from train_file; 0: all")                  \
    TEXT(select,    SAME,  select_output, "", "directory for samples.jsonl (all that was drawn, with scores), kept.jsonl (what sft reads) and select.json (what was dropped, and why)") \
    LIST(select,    SAME,  select_rules, "", "what the scores of a kept completion must reach: NAME:min=X, NAME:max=X or both, of a reward in `rewards`, or of `reward`, their sum; in YAML also {name: NAME, min: X}") \
    BOOL(select,    SAME,  select_drop_code, false, "drop completions with a code block in their thoughts")            \
    INT (select,    SAME,  select_max_paragraph, 0, 0, 1000000000, "drop completions with a paragraph of more characters; 0: none") \
    INT (select,    SAME,  select_max_tokens, 0, 0, 1048576, "drop completions of more tokens; 0: none")               \
    BOOL(select,    SAME,  select_drop_easy, false, "drop questions all of whose completions pass select_rules")       \
    REAL(select,    SAME,  select_max_overlap, 1, 0, 1, "drop a completion that has more than this share of its runs of three words in common with one kept of the same question; 1: only the same text") \
    INT (select,    SAME,  select_per_question, 1, 0, 4096, "completions kept of a question; 0: all")                  \
    PICK(select,    SAME,  select_choose, 0, "shortest|highest|seed", "which of them: fewest tokens, highest reward, or by lot") \
    TEXT(merge,     SAME,  merge_output, "", "directory of the merged model: sums in f32, rounded once to dtype")      \
    TEXT(sample,    SAME,  prompt, "", "what to ask")                                                                  \
    TEXT(sample,    SAME,  prompt_file, "", "JSONL with `prompt`, or text with one prompt a line")
// clang-format on

typedef struct {
    char **item; // [n]
    int n;
} TextList;

// A file to train on, as the user listed it.
#define MAX_FILES 16 // of one run
typedef struct {
    char *path;
    double weight;    // its share of what is drawn, beside the others' weights; not below 0
    TextList rewards; // its own; none: the run's
    char *place;      // where it stands, "run.yaml:7"; no part of the value
} DataFile;
typedef struct {
    DataFile *item; // [n]
    int n;          // 0: no file
} FileList;

#define CONFIG_MEMBER_BOOL(g, s, name, d, h)         bool name;
#define CONFIG_MEMBER_INT(g, s, name, d, lo, hi, h)  int64_t name;
#define CONFIG_MEMBER_REAL(g, s, name, d, lo, hi, h) double name;
#define CONFIG_MEMBER_TEXT(g, s, name, d, h)         char *name;
#define CONFIG_MEMBER_LIST(g, s, name, d, h)         TextList name;
#define CONFIG_MEMBER_PICK(g, s, name, d, c, h)      int name;
#define CONFIG_MEMBER_FILES(g, s, name, h)           FileList name;

typedef struct Config {
    CONFIG_OPTIONS(CONFIG_MEMBER_BOOL, CONFIG_MEMBER_INT, CONFIG_MEMBER_REAL, CONFIG_MEMBER_TEXT, CONFIG_MEMBER_LIST,
                   CONFIG_MEMBER_PICK, CONFIG_MEMBER_FILES)
} Config;

// Indices of the choices above, in their order.
enum { INIT_LOAD, INIT_RANDOM };
enum { LORA_KAIMING_UNIFORM, LORA_GAUSSIAN };
enum { MATMUL_OWN, MATMUL_CUBLAS };
enum { LOAD_STRICT, LOAD_MMAP };
enum { DTYPE_F32, DTYPE_BF16, DTYPE_F32_SPLIT }; // the last of optim_dtype alone
enum { REFERENCE_AUTO, REFERENCE_RESIDENT, REFERENCE_RELOAD };
enum { BAD_LINES_FAIL, BAD_LINES_SKIP };
enum { LONG_TRUNCATE_LEFT, LONG_SKIP, LONG_FAIL };
enum { SCHEDULE_COSINE, SCHEDULE_LINEAR, SCHEDULE_CONSTANT };
enum { RESUME_AUTO, RESUME_NEVER, RESUME_MUST };
enum { CHOOSE_SHORTEST, CHOOSE_HIGHEST, CHOOSE_SEED };
enum { PROGRESS_AUTO, PROGRESS_LIVE, PROGRESS_PLAIN, PROGRESS_OFF };

// Fills *c with the defaults, then from the YAML file (path may be NULL), then from `n` overrides "key=value" in order.
// All problems are reported in one error, each on its own line with file:line (or the argument) and the nearest name.
// On failure *c holds nothing that needs freeing.
bool config_read(Config *c, const char *path, char **overrides, int n, Error *e);
// Reads the arguments of `grpo COMMAND [CONFIG.yaml] key=value ...`, after COMMAND: config_read, and also checks what
// `command` needs (a model, a training file ...) and what makes no sense for it. For every command but tokenize and
// reward this is the whole command line.
bool config_args(Config *c, const char *command, int argc, char **argv, Error *e);
// The defaults alone; *c is freed by config_free.
void config_defaults(Config *c);
void config_free(Config *c);

// The whole configuration as YAML, in table order: reading it back gives the same Config. Heap memory.
char *config_yaml(const Config *c);
// Whether the option name[0..n) may differ between a run and the one it resumes; and (config_is_local) between the
// ranks of a run.
bool config_may_change(const char *name, size_t n);
bool config_is_local(const char *name, size_t n);
// Whether two values of an option, as config_yaml writes them, make the same: also those that name rewards which are
// only asked in another way (RewardParam.how).
bool config_alike(const char *name, const char *a, const char *b);
// Whether a command ("train", ...) reads the option name[0..n).
bool config_reads(const char *command, const char *name, size_t n);
// Help for one command ("train", ...), or the whole reference page in Markdown where command is NULL. Heap memory.
char *config_help(const char *command);
bool config_asks_help(const char *arg); // --help or -h
// Whether training scores anything by `rewards`: not where every file has its own, and nothing is evaluated on the way.
bool config_reads_rewards(const Config *c);
// Micro-batches of one rank that a generation feeds: steps_per_generation, or where that is 0
// gradient_accumulation_steps.
int64_t config_steps_per_generation(const Config *c);
// The completions of a generation, of all ranks together.
int64_t config_generation_size(const Config *c);
// The upper clip: epsilon_high, or where that is -1 epsilon.
double config_epsilon_high(const Config *c);
// One rule of select_rules: the range in which a reward's score must be.
typedef struct {
    int reward;     // its place in `rewards`; -1: their weighted sum
    float min, max; // infinite where not given
} SelectRule;
// Reads rule number i. False after filling *e: no such reward (the nearest name is given), no number, or an empty
// range.
bool config_select_rule(const Config *c, int i, SelectRule *out, Error *e);
// Reads a range of steps as profile_steps has it, "3:5" or "4", counted from 1; "" gives 0 and 0. False where the text
// is neither.
bool config_step_range(const char *text, int64_t *first, int64_t *last);
