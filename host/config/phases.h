// A pipeline's file: phases, each a command with its options, which may use what earlier phases have made.
//
//     output_dir: runs/r1           # where each phase gets a directory (or file) of its name
//     define: {base: models/tiny}   # words for ${base}
//     dtype: bf16                   # an option here is the default of every phase
//     phases:
//       - {name: cold_start, command: sft, model: "${base}", train_file: cold.jsonl}
//       - {name: reasoning, command: train, model: "${cold_start}", train_file: gsm8k.jsonl}
#pragma once
#include "config.h"
#include "str.h"

// Stands in a text for a ${...} that means nothing, of which a problem tells.
#define NO_MEANING "${?}"

typedef enum { PHASE_SFT, PHASE_TRAIN, PHASE_SELECT, PHASE_REWARD_MODEL, PHASE_EVAL, PHASE_COMMANDS } PhaseCommand;
extern const char *const phase_command_name[PHASE_COMMANDS];

typedef struct {
    char *name;
    PhaseCommand command;
    int line;     // line of the file
    Config cfg;   // its configuration: defaults, its own options, and where it writes; ${...} replaced
    char *uses;   // [n] whether it uses what phase i makes
    char **place; // [OPTION_COUNT] where each option was set, "r1.yaml:12"
} Phase;
typedef struct {
    char *output_dir;
    Phase *phase; // [n]
    int n;
    Str problems; // what is wrong with the file, a line each
    int problem_count;
} Phases;
// The path of a product of phase p ("": what ${NAME} alone means). Heap memory; NULL where it makes no such thing.
typedef char *PhaseProduct(void *arg, const Phases *ps, int p, const char *product);
// Reads the file. An override "key=value" counts as if it were at the top of the file, "NAME.key=value" as if in that
// phase. The problems of all phases are in one error, each with its line. On failure *ps has the
// phases that could be read (their `place` is not NULL) beside others that could not, and its problems, to which a
// caller may add; phases_free must follow then too.
bool phases_read(Phases *ps, const char *path, char **overrides, int n, PhaseProduct *product, void *arg, Error *e);
void phases_free(Phases *ps);
int phase_index(const Phases *ps, const char *name); // or -1
// Whether an option of n letters says where a command writes, which the pipeline decides.
bool phase_writes(const char *option, size_t n);
const char *phase_place(const Phase *p, const char *option);
