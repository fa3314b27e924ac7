// The tables of options, of their groups, and of the commands that read them.
#include "config_table.h"
#include <string.h>

#define ROW(g, s, n, k)         .group = GROUP_##g, .scope = SCOPE_##s, .name = #n, .kind = k, .at = offsetof(Config, n)
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

#define GROUP_ROW(name, title, read_by) {#name, title, read_by},
const OptionGroup config_groups[GROUP_COUNT] = {CONFIG_GROUPS(GROUP_ROW)};

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

bool command_reads(const Command *command, int group) { return config_groups[group].read_by & command->bits; }

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
