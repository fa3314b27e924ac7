// Checks for contradictions between options: each is reported where the later of the two was set.
#include "reward.h"
#include "chat.h"
#include "config_table.h"
#include "adapter.h"
#include "grpo.h"
#include "nearest.h"
#include <string.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define problem problem_of

// Checks that hold for every command.
static void check_any(Reading *r, const Config *c) {
    Str probe = {0};
    Error e = {0};
    if (strcmp(c->chat_template, "auto") && !chat_prompt(c->chat_template, NULL, NULL, 0, "?", &probe, &e))
        problem(r, "chat_template", NULL, "%s", e.text);
    str_free(&probe);
    if (*c->system_prompt && *c->system_prompt_file)
        problem(r, "system_prompt", "system_prompt_file",
                "system_prompt and system_prompt_file are both set; keep one of them");
    ThinkMarkers think;
    if (!think_markers_read(&think, c->think_markers.item, c->think_markers.n, &e))
        problem(r, "think_markers", NULL, "%s", e.text);
    if (c->few_shot && !*c->few_shot_file)
        problem(r, "few_shot", NULL, "few_shot is %lld but few_shot_file is not set", (long long)c->few_shot);
    if (*c->prompt && *c->prompt_file)
        problem(r, "prompt", "prompt_file", "prompt and prompt_file are both set; keep one of them");
    const struct {
        const char *name, *without;
        double value;
    } unset[] = {{"epsilon_high", "the same as epsilon", c->epsilon_high},
                 {"delta", "none", c->delta},
                 {"off_policy_mask_threshold", "none", c->off_policy_mask_threshold}};
    for (size_t i = 0; i < sizeof unset / sizeof *unset; i++)
        if (unset[i].value < 0 && unset[i].value != -1)
            problem(r, unset[i].name, NULL, "%s is %g; write -1 for %s, or a number from 0 upward", unset[i].name,
                    unset[i].value, unset[i].without);
    if (c->matmul == MATMUL_CUBLAS && c->device == DEVICE_CPU)
        problem(r, "matmul", "device", "matmul=cublas has no meaning with device=cpu; leave one of them out");
    if (c->optim_dtype == DTYPE_F32_SPLIT && c->dtype == DTYPE_F32)
        problem(r, "optim_dtype", "dtype",
                "optim_dtype=f32_split splits the masters of bf16 weights, and dtype=f32 has none; write "
                "optim_dtype=f32");
    for (int i = 0; i < c->report_to.n; i++)
        if (strcmp(c->report_to.item[i], "tensorboard") && strcmp(c->report_to.item[i], "none"))
            problem(r, "report_to", NULL,
                    "report_to: there is no `%.60s`; tensorboard is there, and report.html is written anyway (report)",
                    c->report_to.item[i]);
    int64_t first, last;
    if (!config_step_range(c->profile_steps, &first, &last))
        problem(r, "profile_steps", NULL,
                "profile_steps is %.60s; write the first and the last step to record, counted from 1, as 3:5",
                c->profile_steps);
    if (c->max_steps && c->warmup_steps > c->max_steps)
        problem(r, "warmup_steps", "max_steps",
                "warmup_steps (%lld) is more than max_steps (%lld): the run would end before its peak learning rate",
                (long long)c->warmup_steps, (long long)c->max_steps);
}

// Checks the names of projections; of a wrong one the nearest is named.
static void check_targets(Reading *r, const Config *c) {
    if (!c->lora_target.n) problem(r, "lora_target", NULL, "lora_target is empty; write all-linear, or projections");
    for (int i = 0; i < c->lora_target.n; i++) {
        const char *names[N_TARGETS + 1] = {"all-linear"}, *name = c->lora_target.item[i];
        bool known = !strcmp(name, names[0]);
        if (known && c->lora_target.n > 1)
            problem(r, "lora_target", NULL,
                    "lora_target: all-linear is every projection; write it alone, or leave it out");
        for (int t = 0; t < N_TARGETS; t++) names[t + 1] = lora_target_names[t];
        for (int t = 0; t < N_TARGETS; t++) known |= !strcmp(name, lora_target_names[t]);
        const char *near = known ? NULL : nearest_name(name, names, N_TARGETS + 1);
        if (!known)
            problem(r, "lora_target", NULL, "lora_target: %.60s matches no projection%s%s%s", name,
                    near ? "; did you mean `" : "; there are " LORA_TARGET_NAMES "and all-linear for all of them",
                    near ? near : "", near ? "`?" : "");
    }
}

static void check_lora(Reading *r, const Config *c) {
    if (c->lora_dropout != 0)
        problem(
            r, "lora_dropout", NULL,
            "lora_dropout is %g; only 0 is there: with dropout a token's log-prob in training would not be the one it "
            "was sampled with",
            c->lora_dropout);
    check_targets(r, c);
    if (*c->adapter && c->lora_r)
        problem(
            r, "lora_r", "adapter",
            "adapter and lora_r are both set: training goes on with that adapter, whose rank is its own; keep one of "
            "them");
    for (int i = 0; i < OPTION_COUNT && !c->lora_r; i++) {
        const Option *o = &config_options[i];
        if (o->group == GROUP_lora && strcmp(o->name, "lora_dropout") && !option_is_default(c, o))
            problem(r, o->name, *c->adapter ? "adapter" : NULL,
                    *c->adapter ? "%s is set, and adapter names one that has its own: leave it out"
                                : "%s is set, but lora_r is 0, so that no adapter is made; set lora_r",
                    o->name);
    }
    if (!*c->adapter && !c->lora_r) return;
    if (c->sync_ref_model)
        problem(
            r, "sync_ref_model", c->lora_r ? "lora_r" : "adapter",
            "sync_ref_model moves the reference's weights towards the policy's, and those of a model with an adapter "
            "do not move; leave it out");
    if (c->reference_weights == REFERENCE_RELOAD)
        problem(r, "reference_weights", c->lora_r ? "lora_r" : "adapter",
                "reference_weights=reload reads the reference's weights again, and beside an adapter they are the "
                "policy's own; leave it out");
    if (c->optim_dtype == DTYPE_F32_SPLIT)
        problem(r, "optim_dtype", NULL, "optim_dtype=f32_split splits masters, and an adapter is f32 and has none");
    if (c->grad_dtype == DTYPE_BF16)
        problem(r, "grad_dtype", NULL,
                "grad_dtype=bf16 has no meaning for an adapter, whose gradients are f32; leave it out");
}

// The lists of rewards that count: the run's, unless every file has its own, and then the files'.
typedef struct {
    const TextList *list[MAX_FILES + 1];
    char *place[MAX_FILES + 1]; // heap
    int n;
} RewardLists;

static void lists_add(RewardLists *to, const TextList *list, char *place) {
    to->list[to->n] = list;
    to->place[to->n++] = place;
}

// Checks reward i of list k beside those before it.
static void check_reward(Reading *r, const RewardLists *all, int k, int i) {
    Reward reward, other;
    Error e = {0}, said = {0};
    if (!reward_parse(all->list[k]->item[i], &reward, &e)) return problem_at_place(r, all->place[k], "%s", e.text);
    if (reward.info->check && !reward.info->check(&reward, &e))
        problem_at_place(r, all->place[k], "rewards: %s: %s", reward.name, e.text);
    for (int j = 0; j <= k; j++)
        for (int m = 0; m < (j < k ? all->list[j]->n : i); m++) {
            if (!reward_parse(all->list[j]->item[m], &other, &said) || strcmp(other.name, reward.name)) continue;
            if (j == k)
                problem_at_place(r, all->place[k],
                                 "rewards: %s is listed twice; give it a weight instead, or one of them another name "
                                 "(%s:as=NAME)",
                                 reward.name, reward.info->name);
            else if (!reward_same(&reward, &other))
                problem_at_place(r, all->place[k],
                                 "rewards: %s has other parameters or another weight than at %s; make them the same, "
                                 "or give one of them another name (%s:as=NAME)",
                                 reward.name, all->place[j], reward.info->name);
            else continue;
            return;
        }
}

static void check_rewards(Reading *r, const Config *c) {
    RewardLists all = {0};
    int n = 0;
    if (config_reads_rewards(c)) lists_add(&all, &c->rewards, option_place(r, "rewards"));
    for (int f = 0; f < c->train_file.n && f < MAX_FILES; f++)
        if (c->train_file.item[f].rewards.n)
            lists_add(&all, &c->train_file.item[f].rewards, xstrdup(c->train_file.item[f].place));
    for (int k = 0; k < all.n; k++) n += all.list[k]->n;
    if (n > MAX_REWARDS) problem(r, "rewards", NULL, "rewards: %d are listed, %d at most can be", n, MAX_REWARDS);
    for (int k = 0; k < all.n; k++)
        for (int i = 0; i < all.list[k]->n && n <= MAX_REWARDS; i++) check_reward(r, &all, k, i);
    for (int k = 0; k < all.n; k++) free(all.place[k]); // a later list's errors name an earlier one's
}

bool config_reads_rewards(const Config *c) {
    bool reads = !c->train_file.n || c->eval_steps > 0;
    for (int f = 0; f < c->train_file.n; f++) reads = reads || !c->train_file.item[f].rewards.n;
    return reads;
}

static void check_files(Reading *r, const Config *c) {
    const FileList *files = &c->train_file;
    double weights = 0;
    for (int i = 0; i < files->n; i++) {
        weights += files->item[i].weight;
        for (int k = 0; k < i; k++)
            if (!strcmp(files->item[k].path, files->item[i].path))
                problem_at_place(
                    r, files->item[i].place,
                    "train_file: %s is there twice; name it once (a weight says how often it is drawn from)",
                    files->item[i].path);
    }
    if (files->n && weights == 0)
        problem(r, "train_file", NULL, "train_file: every weight is 0: there is nothing to draw from");
}

// Checks the training files of a command that scores none of them by rewards of its own.
static void check_one_file(Reading *r, const Config *c, const char *command) {
    const FileList *files = &c->train_file;
    for (int i = 0; i < files->n; i++)
        if (files->item[i].rewards.n)
            problem_at_place(r, files->item[i].place, "train_file: %s reads no rewards of a file's own; leave them out",
                             command);
    for (int i = 0; i < files->n && command_named(command)->bits == FOR_SELECT; i++)
        if (files->item[i].weight != 1)
            problem_at_place(
                r, files->item[i].place,
                "train_file: select asks every question of every file, so a weight has no meaning; leave it "
                "out");
}

#define MOST_COMPLETIONS (1 << 20) // at most so many completions in one generation

static void check_grader(Reading *r, const Config *c) {
    Reward reward;
    Error e = {0};
    if (!*c->eval_grader) return;
    if (!reward_parse(c->eval_grader, &reward, &e)) problem(r, "eval_grader", NULL, "%s", e.text);
    else if (reward.info->check && !reward.info->check(&reward, &e))
        problem(r, "eval_grader", NULL, "eval_grader: %s: %s", reward.name, e.text);
    else if (reward.info->by_model == MODEL_SCORES)
        problem(
            r, "eval_grader", NULL,
            "eval_grader: %s gives scores of any size, and an answer is right above 0.5; list it in `rewards`: eval "
            "prints its mean",
            reward.info->name);
}

static void check_select(Reading *r, const Config *c) {
    for (int i = 0; i < c->select_rules.n; i++) {
        SelectRule rule;
        Error e = {0};
        if (!config_select_rule(c, i, &rule, &e)) problem(r, "select_rules", "rewards", "select_rules: %s", e.text);
    }
    if (c->select_samples > 1 && c->temperature == 0)
        problem(r, "select_samples", "temperature",
                "select_samples is %lld at temperature 0: all samples of a question would be the same",
                (long long)c->select_samples);
}

int64_t config_steps_per_generation(const Config *c) {
    return c->steps_per_generation ? c->steps_per_generation : c->gradient_accumulation_steps;
}

int64_t config_generation_size(const Config *c) {
    return c->per_device_train_batch_size * config_steps_per_generation(c) * c->gpus;
}

double config_epsilon_high(const Config *c) { return c->epsilon_high < 0 ? c->epsilon : c->epsilon_high; }

// Checks the sizes of batches for GRPO training.
static void check_batch(Reading *r, const Config *c) {
    int64_t per_generation = config_steps_per_generation(c), batch = config_generation_size(c);
    const char *factor = c->steps_per_generation ? "steps_per_generation" : "gradient_accumulation_steps";
    char ranks[40] = "";
    if (c->gpus > 1) snprintf(ranks, sizeof ranks, " x gpus (%lld)", (long long)c->gpus);
    if (c->num_generations == 1)
        problem(r, "num_generations", NULL,
                "num_generations is 1: an advantage is a reward minus its group's mean, 0 in a group of one; use 2 or "
                "more");
    else if (batch % c->num_generations)
        problem(r, "num_generations", "per_device_train_batch_size",
                "per_device_train_batch_size (%lld) x %s (%lld)%s = %lld completions is not a multiple of "
                "num_generations (%lld): a group would be cut",
                (long long)c->per_device_train_batch_size, factor, (long long)per_generation, ranks, (long long)batch,
                (long long)c->num_generations);
    if (batch > MOST_COMPLETIONS)
        problem(r, "per_device_train_batch_size", factor, "a generation would be %lld completions; %d are the most",
                (long long)batch, MOST_COMPLETIONS);
    if (per_generation % c->gradient_accumulation_steps)
        problem(
            r, "steps_per_generation", "gradient_accumulation_steps",
            "steps_per_generation (%lld) is not a multiple of gradient_accumulation_steps (%lld): an optimizer step "
            "would need a part of a generation",
            (long long)per_generation, (long long)c->gradient_accumulation_steps);
}

#define LOSS_NAME(NAME, name, sum, clip, level, help) #name,
static const char *const loss_names[] = {LOSSES(LOSS_NAME)};

static void check_entropy(Reading *r, const Config *c) {
    if (c->use_adaptive_entropy && c->entropy_coef_min > c->entropy_coef_max)
        problem(r, "entropy_coef_min", "entropy_coef_max", "entropy_coef_min (%g) is above entropy_coef_max (%g)",
                c->entropy_coef_min, c->entropy_coef_max);
}

static void check_loss(Reading *r, const Config *c) {
    LossType loss = (LossType)c->loss_type;
    LossKind kind = loss_kind(loss);
    if (kind.clip == CLIP_CAP && c->epsilon_high < 0)
        problem(r, "epsilon_high", "loss_type",
                "loss_type %s takes epsilon_high as the largest ratio itself; set it to 1 or more, for example 5",
                loss_names[loss]);
    check_entropy(r, c);
    if (c->multi_objective_aggregation == NORMALIZE_THEN_SUM && c->scale_rewards != SCALE_GROUP)
        problem(r, "scale_rewards", "multi_objective_aggregation",
                "scale_rewards has no meaning with normalize_then_sum, which divides by the group's and then by the "
                "batch's deviation; leave it out");
    if (c->top_entropy_quantile == 0)
        problem(r, "top_entropy_quantile", NULL,
                "top_entropy_quantile is 0: no token would be trained on; 1 takes all");
    if (c->sync_ref_model && c->reference_weights == REFERENCE_RELOAD)
        problem(r, "reference_weights", "sync_ref_model",
                "reference_weights=reload reads the reference from the model's files, and sync_ref_model=true moves it "
                "away from them; leave one of them out");
    if (c->sync_ref_model && c->beta == 0)
        problem(r, "sync_ref_model", "beta",
                "sync_ref_model is true but beta is 0, so that there is no reference model; set beta or leave it out");
}

// Why an option has no effect in this configuration, or NULL where it has.
static const char *without_effect(const Config *c, const char *option) {
    static const char *const adaptive = " entropy_target entropy_coef_delta entropy_coef_min entropy_coef_max ";
    static char why[64];
    LossClip clip = loss_kind((LossType)c->loss_type).clip;
    bool ranged = !strcmp(option, "epsilon") || !strcmp(option, "delta");
    bool unclipped = (clip != CLIP_RANGE && ranged) || (clip == CLIP_NONE && !strcmp(option, "epsilon_high"));
    for (int k = 0; k < LOSS_COUNT; k++) { // vespo_k_pos is vespo's
        size_t n = strlen(loss_names[k]);
        unclipped = unclipped || (k != c->loss_type && !strncmp(option, loss_names[k], n) && option[n] == '_');
    }
    if (!unclipped) {
        snprintf(why, sizeof why, " %s ", option);
        return !c->use_adaptive_entropy && strstr(adaptive, why) ? "without use_adaptive_entropy" : NULL;
    }
    snprintf(why, sizeof why, "with loss_type %s", loss_names[c->loss_type]);
    return why;
}

// Notes a clip that takes effect even where the policy is the one that sampled, so that all ratios are 1.
static void note_clip(const Config *c, LossClip clip) {
    double high = config_epsilon_high(c);
    if (clip == CLIP_CAP && c->epsilon_high < 1)
        note(
            "epsilon_high is %g: loss_type %s takes it as the largest ratio itself, so that every ratio of 1 counts as "
            "%g; 5 is usual",
            c->epsilon_high, loss_names[c->loss_type], c->epsilon_high);
    if (clip == CLIP_RANGE && c->delta >= 0 && c->delta <= 1 + high)
        note("delta is %g, not above the upper clip (1 + %g): ratios count as %g at most, and none is clipped above",
             c->delta, high, c->delta);
}

// Notes what can run but is probably not meant. TRL 1.16 warns of the levels too.
static void note_loss(const Config *c) {
    LossKind kind = loss_kind((LossType)c->loss_type);
    const char *loss = loss_names[c->loss_type];
    for (int i = 0; i < OPTION_COUNT; i++) {
        const Option *o = &config_options[i];
        const char *why = option_is_default(c, o) ? NULL : without_effect(c, o->name);
        if (why) note("%s has no effect %s", o->name, why);
    }
    note_clip(c, kind.clip);
    if (c->use_adaptive_entropy && (c->entropy_coef < c->entropy_coef_min || c->entropy_coef > c->entropy_coef_max))
        note("entropy_coef (%g) starts outside entropy_coef_min to entropy_coef_max (%g to %g): a step that moves it "
             "towards them brings it in at once or by entropy_coef_delta",
             c->entropy_coef, c->entropy_coef_min, c->entropy_coef_max);
    if (c->importance_sampling_level == LEVEL_SEQUENCE && kind.level == MADE_FOR_TOKENS)
        note("importance_sampling_level is sequence, but loss_type %s was made for the ratios of tokens; GSPO is "
             "loss_type grpo",
             loss);
    if (c->importance_sampling_level == LEVEL_TOKEN && kind.level == MADE_FOR_SEQUENCES)
        note("importance_sampling_level is token, but loss_type %s was made for the ratios of sequences", loss);
}

// Checks that there is a file for evaluations on the way.
static void check_eval_file(Reading *r, const Config *c) {
    if (c->eval_steps && !*c->eval_file)
        problem(r, "eval_steps", "eval_file", "eval_steps is %lld but eval_file is not set", (long long)c->eval_steps);
}

static void check_train(Reading *r, const Config *c) {
    check_batch(r, c);
    check_loss(r, c);
    if (c->temperature == 0)
        problem(r, "temperature", NULL,
                "temperature is 0: every completion of a group would be the same, and nothing learned");
    if (c->log_tokens && !c->log_completions)
        problem(r, "log_tokens", "log_completions",
                "log_tokens is true but log_completions is false: there is no line for the tokens to stand in");
    if (*c->on_eval && !c->eval_steps)
        problem(r, "on_eval", "eval_steps", "on_eval is set but eval_steps is 0: there is no evaluation to start it");
    check_eval_file(r, c);
}

static void check_length(Reading *r, const Config *c) {
    if (!c->max_steps && c->num_train_epochs == 0)
        problem(r, "max_steps", "num_train_epochs", "max_steps and num_train_epochs are both 0: nothing to train");
}

static void check_needed(Reading *r, const char *name, const char *value, const char *example) {
    if (!*value) problem_at_line(r, 0, "%s is not set; add %s=%s", name, name, example);
}

// Whether an option of the GRPO group is set: then the configuration is meant for training, whichever command reads it.
static bool sets_grpo(const Config *c) {
    for (int i = 0; i < OPTION_COUNT; i++)
        if (config_options[i].group == GROUP_grpo && !option_is_default(c, &config_options[i])) return true;
    return false;
}

// A shell expands ~ only where a word begins with it: not in model=~/m, nor in a file. Taken as it stands, a directory
// called ~ would be made here.
static void check_home(Reading *r, const char *option, const char *path) {
    const char *home = getenv("HOME");
    if (*path != '~' || (path[1] && path[1] != '/') || !access("~", F_OK)) return;
    problem(r, option, NULL, "%s: `%.200s`: ~ stands for your directory in a shell alone; write the path in full%s%s%s",
            option, path, home && *home == '/' ? ", " : "", home && *home == '/' ? home : "",
            home && *home == '/' ? path + 1 : "");
}

static void check_homes(Reading *r, const Config *c) {
    const struct {
        const char *option, *path;
    } paths[] = {{"model", c->model},
                 {"adapter", c->adapter},
                 {"tokenizer", c->tokenizer},
                 {"eval_file", c->eval_file},
                 {"few_shot_file", c->few_shot_file},
                 {"system_prompt_file", c->system_prompt_file},
                 {"prompt_file", c->prompt_file},
                 {"output_dir", c->output_dir},
                 {"eval_output", c->eval_output},
                 {"select_output", c->select_output},
                 {"merge_output", c->merge_output}};
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) check_home(r, paths[i].option, paths[i].path);
    for (int i = 0; i < c->train_file.n; i++) check_home(r, "train_file", c->train_file.item[i].path);
}

void config_check(Reading *r, const char *command) {
    const Config *c = r->c;
    const Command *known = command_named(command);
    int who = known && known->bits != FOR_ALL ? known->bits : 0;
    if (!who) command = NULL; // a configuration of any command
    bool learns = !command || command_reads(known, GROUP_lora);
    bool train = command ? command_reads(known, GROUP_grpo) : sets_grpo(c);
    check_any(r, c);
    check_files(r, c);
    check_homes(r, c);
    if (learns) check_lora(r, c);
    check_rewards(r, c);
    check_grader(r, c);
    if (train) check_train(r, c);
    if (train && !r->problem_count) note_loss(c);
    bool select = who == FOR_SELECT;
    if (select || c->select_rules.n) check_select(r, c);
    if (!command) return;
    bool pairs = who == FOR_REWARD_MODEL, sft = who == FOR_SFT || pairs, eval = who == FOR_EVAL;
    check_needed(r, "model", c->model, "DIRECTORY");
    if (sft || select) check_one_file(r, c, command);
    if (((train && config_reads_rewards(c)) || eval || select) && !c->rewards.n)
        problem(r, "rewards", NULL, "rewards is empty; `grpo reward --list` names them");
    if (sft && c->log_tokens)
        problem(r, "log_tokens", NULL, "log_tokens is not for %s, which draws no tokens; leave it out", command);
    if (pairs) check_eval_file(r, c);
    if (pairs && *c->on_eval && !*c->eval_file)
        problem(r, "on_eval", "eval_file", "on_eval is set but eval_file is not: there is no evaluation to start it");
    if (sft && !pairs && *c->on_eval)
        problem(r, "on_eval", NULL, "on_eval is not for sft, which does not evaluate; leave it out");
    if (train || sft) check_length(r, c);
    if (who == FOR_TRAIN || sft || select)
        check_needed(r, "train_file", c->train_file.n ? c->train_file.item[0].path : "", "FILE.jsonl");
    bool merge = who == FOR_MERGE;
    if (merge) check_needed(r, "adapter", c->adapter, "DIRECTORY");
    if (merge) check_needed(r, "merge_output", c->merge_output, "DIRECTORY");
    if (select) check_needed(r, "select_output", c->select_output, "DIRECTORY");
    if (select && !c->select_rules.n)
        problem(r, "select_rules", NULL,
                "select_rules is empty: every completion would be kept, right or wrong; write, say, "
                "select_rules=accuracy:min=1");
    if (eval) check_needed(r, "eval_file", c->eval_file, "FILE.jsonl");
    if ((who == FOR_TRAIN || sft) && *c->tokenizer)
        problem(
            r, "tokenizer", NULL,
            "tokenizer is not for training: checkpoints carry the model directory's own tokenizer files; put this one "
            "there");
    if (who == FOR_TRAIN || sft) check_needed(r, "output_dir", c->output_dir, "DIRECTORY");
    if (eval && c->eval_samples > 1 && c->temperature == 0)
        problem(r, "eval_samples", "temperature",
                "eval_samples is %lld at temperature 0: all samples of a question would be the same",
                (long long)c->eval_samples);
}

bool config_step_range(const char *text, int64_t *first, int64_t *last) {
    char *end;
    *first = *last = 0;
    if (!*text) return true;
    *first = *last = strtoll(text, &end, 10);
    if (end == text) return false;
    if (*end == ':') {
        const char *second = end + 1;
        *last = strtoll(second, &end, 10);
        if (end == second) return false;
    }
    return !*end && *first >= 1 && *last >= *first;
}
