// grpo: one binary, a table of commands.
#include "config.h"
#include "commands.h"
#include "device.h"
#include "nearest.h"
#include "program.h"
#include "ranks.h"
#include "str.h"
#include "train_commands.h"
#include "version.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <stdio.h>

static const struct {
    const char *name;
    CommandRun *run;
    const char *usage, *summary;
} commands[] = {
    {"train", command_train, "CONFIG.yaml [key=value ...]",
     "GRPO: sample groups of answers, score them, update the model"},
    {"sft", command_sft, "CONFIG.yaml [key=value ...]", "supervised fine-tuning on prompt and completion"},
    {"reward_model", command_reward_model, "CONFIG.yaml [key=value ...]",
     "train a model that scores texts, on pairs of a chosen and a rejected one"},
    {"sample", command_sample, "[CONFIG.yaml] [key=value ...]",
     "answer a prompt, a file of prompts, or chat on a terminal"},
    {"eval", command_eval, "[CONFIG.yaml] [key=value ...]", "accuracy, pass@k and maj@k on a file of questions"},
    {"select", command_select, "CONFIG.yaml [key=value ...]",
     "rejection sampling: draw completions, keep what rules allow, as a file for sft"},
    {"run", command_run, "FILE.yaml [from=NAME | only=NAME] [key=value ...] [NAME.key=value ...]",
     "a pipeline: phases of sft, train, select, reward_model and eval, each from what earlier ones made"},
    {"merge", command_merge, "model=DIR adapter=DIR merge_output=DIR",
     "a model and its LoRA adapter as one plain model directory"},
    {"reward", command_reward, "NAME[:key=value,...]", "JSONL with completion and answer in, with reward out"},
    {"tokenize", command_tokenize, "PATH [FILE] [chat_template=NAME] [special=false]",
     "JSONL with text or messages in, with ids out"},
    {"watch", command_watch, "DIR [once=true]",
     "a run on a terminal: sparklines, best and worst completion, following"},
    {"report", command_report, "DIR... [output=FILE]", "one HTML page of curves and completions from the logs of runs"},
    {"plan", command_plan, "CONFIG.yaml [key=value ...]", "the memory a run would take, and what would help"},
    {"config", command_config, "[CONFIG.yaml] [key=value ...] | --reference | --from-trl FILE",
     "check a configuration and print all of it"},
    {"doctor", command_doctor, "[CONFIG.yaml] [key=value ...]", "check the machine and a configuration's files"},
};
#define COMMANDS ((int)(sizeof commands / sizeof *commands))

static ExitCode help(void) {
    printf("Usage: grpo COMMAND [CONFIG.yaml] [key=value ...]\n\n");
    for (int i = 0; i < COMMANDS; i++) printf("  %-12s %s\n", commands[i].name, commands[i].summary);
    printf("\n`grpo COMMAND --help` lists a command's options. `grpo config --reference` prints all of them.\n"
           "Exit codes: 0 ok, 2 configuration, 3 input, 4 disk, 5 memory, 6 numeric, 7 communication, 75 stopped after "
           "saving.\n");
    return EXIT_OK;
}

static ExitCode help_for(int i, const char *options) {
    printf("Usage: grpo %s %s\n%s.\n\nOptions, in the YAML file or as key=value. A list is [a, b] or a,b. Paths are "
           "relative to the\ncurrent directory. How values are written: grpo config --reference\n\n%s",
           commands[i].name, commands[i].usage, commands[i].summary, options);
    return EXIT_OK;
}

static ExitCode unknown(const char *word, Error *e) {
    const char *names[COMMANDS];
    for (int i = 0; i < COMMANDS; i++) names[i] = commands[i].name;
    const char *near = nearest_name(word, names, COMMANDS);
    error_set(e, EXIT_CONFIG, "there is no command `%.60s`%s%s%s", word,
              near ? "; did you mean `" : "; see grpo --help", near ? near : "", near ? "`?" : "");
    return EXIT_CONFIG;
}

static ExitCode run(int argc, char **argv, Error *e) {
    if (argc < 2) {
        help();
        return EXIT_CONFIG;
    }
    if (config_asks_help(argv[1]) || !strcmp(argv[1], "help")) return help();
    if (!strcmp(argv[1], "--version")) return printf("grpo %s\n", grpo_version) < 0 ? EXIT_DISK : EXIT_OK;
    for (int i = 0; i < COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name)) continue;
        char *options = config_help(commands[i].name); // empty: the command reads no options and helps itself
        bool help_wanted = false;
        for (int k = 2; k < argc; k++) help_wanted = help_wanted || config_asks_help(argv[k]);
        ExitCode code = help_wanted && *options ? help_for(i, options) : commands[i].run(argc - 2, argv + 2, e);
        free(options);
        return code;
    }
    return unknown(argv[1], e);
}

static bool ended; // by its own hand

// Nothing of this program calls exit(): a user's plugin does, or a library.
static void end_of_others(void) {
    if (ended) return;
    Error e;
    error_set(&e, EXIT_CONFIG, "a plugin or a library called exit(): nothing is saved; it must return instead");
    _exit(program_end("grpo", EXIT_CONFIG, &e));
}

int main(int argc, char **argv) {
    memory_ask_who_speaks(ranks_speak);
    atexit(end_of_others);
    Error e = {0};
    ExitCode code = program_begin(argv, &e) ? run(argc, argv, &e) : e.code;
    code = program_flush(code, &e);
    memory_name_limit(&e);
    ended = true;
    return !*e.text || ranks_speak(code, &e) ? program_end("grpo", code, &e) : (int)code;
}
