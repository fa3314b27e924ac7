// The tables of options, of their groups, and of the commands that read them.
#include "config_table.h"
#include <string.h>

#define ROW(g, s, n, k)         .group = #g, .scope = SCOPE_##s, .name = #n, .kind = k, .at = offsetof(Config, n)
#define ROW_BOOL(g, s, n, d, h) {ROW(g, s, n, KIND_BOOL), .value = d, .help = h},
#define ROW_INT(g, s, n, d, lo, hi, h)                                                                                 \
    {ROW(g, s, n, KIND_INT), .value = (double)(d), .min = (double)(lo), .max = (double)(hi), .help = h},
#define ROW_REAL(g, s, n, d, lo, hi, h) {ROW(g, s, n, KIND_REAL), .value = d, .min = lo, .max = hi, .help = h},
#define ROW_TEXT(g, s, n, d, h)         {ROW(g, s, n, KIND_TEXT), .text = d, .help = h},
#define ROW_LIST(g, s, n, d, h)         {ROW(g, s, n, KIND_LIST), .text = d, .help = h},
#define ROW_PICK(g, s, n, d, c, h)      {ROW(g, s, n, KIND_PICK), .value = d, .text = c, .help = h},
#define ROW_FILES(g, s, n, h)           {ROW(g, s, n, KIND_FILES), .text = "", .help = h},

const Option config_options[OPTION_COUNT] = {
    CONFIG_OPTIONS(ROW_BOOL, ROW_INT, ROW_REAL, ROW_TEXT, ROW_LIST, ROW_PICK, ROW_FILES)};

const OptionGroup config_groups[] = {
    {"model", "Model",
     FOR_TRAIN | FOR_SFT | FOR_REWARD_MODEL | FOR_SAMPLE | FOR_EVAL | FOR_SELECT | FOR_MERGE | FOR_PLAN},
    {"lora", "LoRA: training an adapter", FOR_TRAIN | FOR_SFT | FOR_REWARD_MODEL | FOR_PLAN},
    {"device", "Device",
     FOR_TRAIN | FOR_SFT | FOR_REWARD_MODEL | FOR_SAMPLE | FOR_EVAL | FOR_SELECT | FOR_MERGE | FOR_PLAN},
    {"ranks", "Several GPUs", FOR_TRAIN | FOR_SFT | FOR_REWARD_MODEL | FOR_EVAL | FOR_SELECT | FOR_PLAN},
    {"data", "Data", FOR_TRAIN | FOR_SFT | FOR_REWARD_MODEL | FOR_EVAL | FOR_SELECT | FOR_PLAN},
    {"questions", "Questions and gold answers", FOR_TRAIN | FOR_EVAL | FOR_SELECT},
    {"chat", "Chat template", FOR_TRAIN | FOR_SFT | FOR_REWARD_MODEL | FOR_SAMPLE | FOR_EVAL | FOR_SELECT},
    {"system", "System message", FOR_TRAIN | FOR_SFT | FOR_SAMPLE | FOR_EVAL | FOR_SELECT},
    {"prompt", "Prompt", FOR_TRAIN | FOR_SAMPLE | FOR_EVAL | FOR_SELECT | FOR_PLAN},
    {"sampling", "Sampling", FOR_TRAIN | FOR_SAMPLE | FOR_EVAL | FOR_SELECT | FOR_PLAN},
    {"reward", "Rewards", FOR_TRAIN | FOR_EVAL | FOR_SELECT | FOR_PLAN},
    {"grpo", "GRPO", FOR_TRAIN | FOR_PLAN},
    {"optim", "Optimizer", FOR_TRAIN | FOR_SFT | FOR_REWARD_MODEL | FOR_PLAN},
    {"run", "The run", FOR_TRAIN | FOR_SFT | FOR_REWARD_MODEL},
    {"held_out", "Held-out data", FOR_TRAIN | FOR_REWARD_MODEL | FOR_EVAL},
    {"eval", "Evaluation", FOR_TRAIN | FOR_EVAL},
    {"examples", "Examples", FOR_SFT | FOR_REWARD_MODEL},
    {"sft", "Supervised fine-tuning", FOR_SFT},
    {"pairs", "Reward models", FOR_REWARD_MODEL},
    {"select", "Rejection sampling", FOR_SELECT},
    {"merge", "Merging an adapter", FOR_MERGE},
    {"sample", "Sample", FOR_SAMPLE},
};
const int config_group_count = sizeof config_groups / sizeof *config_groups;

const Command config_commands[] = {
    {"train", FOR_TRAIN, true}, {"sft", FOR_SFT, true},   {"reward_model", FOR_REWARD_MODEL, true},
    {"sample", FOR_SAMPLE},     {"eval", FOR_EVAL, true}, {"select", FOR_SELECT, true},
    {"merge", FOR_MERGE},       {"plan", FOR_PLAN},       {"config", FOR_ALL},
    {"doctor", FOR_ALL},
};
const int config_command_count = sizeof config_commands / sizeof *config_commands;

const Command *command_named(const char *name) {
    for (int i = 0; name && i < config_command_count; i++)
        if (!strcmp(config_commands[i].name, name)) return &config_commands[i];
    return NULL;
}

bool command_reads(const Command *command, const char *group) {
    for (int i = 0; i < config_group_count; i++)
        if (!strcmp(config_groups[i].name, group)) return config_groups[i].read_by & command->bits;
    return false;
}

int option_index(const char *name, size_t n) {
    for (int i = 0; i < OPTION_COUNT; i++)
        if (strlen(config_options[i].name) == n && !memcmp(config_options[i].name, name, n)) return i;
    return -1;
}

int option_known(const char *name) {
    int i = option_index(name, strlen(name));
    if (i < 0) die("config: no option %s", name);
    return i;
}

bool config_may_change(const char *name, size_t n) {
    int i = option_index(name, n);
    return i >= 0 && config_options[i].scope >= SCOPE_FREE;
}

bool config_is_local(const char *name, size_t n) {
    int i = option_index(name, n);
    return i >= 0 && config_options[i].scope == SCOPE_LOCAL;
}

bool config_reads(const char *command, const char *name, size_t n) {
    int i = option_index(name, n);
    return i >= 0 && command_reads(command_named(command), config_options[i].group);
}
