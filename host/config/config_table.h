// The option table as data; and what its reader, checker and printer share.
#pragma once
#include "config.h"
#include "str.h"
#include "yaml_reader.h"

typedef enum { KIND_BOOL, KIND_INT, KIND_REAL, KIND_TEXT, KIND_LIST, KIND_PICK, KIND_FILES } OptionKind;

// Who must agree on a value, the strictest first. DRAWS: also samples of `select` that are there and its options now;
// SAME: a run and the one it resumes, and its ranks; FREE: its ranks; LOCAL: nobody.
typedef enum { SCOPE_DRAWS, SCOPE_SAME, SCOPE_FREE, SCOPE_LOCAL } OptionScope;

typedef struct {
    const char *name, *help;
    int group; // GROUP_...
    OptionKind kind;
    OptionScope scope;
    size_t at;              // offset in Config
    double value, min, max; // default and range; of a PICK, the default's index
    const char *text;       // default of a TEXT or LIST; choices of a PICK
} Option;

#define OPTION_ONE(...) +1
enum {
    OPTION_COUNT = CONFIG_OPTIONS(OPTION_ONE, OPTION_ONE, OPTION_ONE, OPTION_ONE, OPTION_ONE, OPTION_ONE, OPTION_ONE)
};
#undef OPTION_ONE
extern const Option config_options[OPTION_COUNT];
// The place in config_options of the option name[0..n), or -1.
int option_index(const char *name, size_t n);
// That of an option which the program itself names; ends the program where there is none.
int option_known(const char *name);

// The commands that read options, as bits.
enum {
    FOR_TRAIN = 1,
    FOR_SFT = 2,
    FOR_REWARD_MODEL = 4,
    FOR_SAMPLE = 8,
    FOR_EVAL = 16,
    FOR_SELECT = 32,
    FOR_MERGE = 64,
    FOR_PLAN = 128,
    FOR_ALL = 255
};
typedef struct {
    const char *name;
    int bits;    // FOR_ALL: it reads what any command reads
    bool ranked; // it may run as several processes, its own or a launcher's (launch.h)
} Command;
extern const Command config_commands[];
extern const int config_command_count;
const Command *command_named(const char *name); // NULL where there is none, or name is NULL

// The groups of options, in the order in which help shows them: GROUP(name, title, the commands that read it).
// clang-format off
#define CONFIG_GROUPS(GROUP) \
    GROUP(model,     "Model", FOR_TRAIN | FOR_SFT | FOR_REWARD_MODEL | FOR_SAMPLE | FOR_EVAL | FOR_SELECT | FOR_MERGE | FOR_PLAN) \
    GROUP(lora,      "LoRA: training an adapter", FOR_TRAIN | FOR_SFT | FOR_REWARD_MODEL | FOR_PLAN) \
    GROUP(device,    "Device", FOR_TRAIN | FOR_SFT | FOR_REWARD_MODEL | FOR_SAMPLE | FOR_EVAL | FOR_SELECT | FOR_MERGE | FOR_PLAN) \
    GROUP(ranks,     "Several GPUs", FOR_TRAIN | FOR_SFT | FOR_REWARD_MODEL | FOR_EVAL | FOR_SELECT | FOR_PLAN) \
    GROUP(data,      "Data", FOR_TRAIN | FOR_SFT | FOR_REWARD_MODEL | FOR_EVAL | FOR_SELECT | FOR_PLAN) \
    GROUP(questions, "Questions and gold answers", FOR_TRAIN | FOR_EVAL | FOR_SELECT) \
    GROUP(chat,      "Chat template", FOR_TRAIN | FOR_SFT | FOR_REWARD_MODEL | FOR_SAMPLE | FOR_EVAL | FOR_SELECT) \
    GROUP(system,    "System message", FOR_TRAIN | FOR_SFT | FOR_SAMPLE | FOR_EVAL | FOR_SELECT) \
    GROUP(prompt,    "Prompt", FOR_TRAIN | FOR_SAMPLE | FOR_EVAL | FOR_SELECT | FOR_PLAN) \
    GROUP(sampling,  "Sampling", FOR_TRAIN | FOR_SAMPLE | FOR_EVAL | FOR_SELECT | FOR_PLAN) \
    GROUP(reward,    "Rewards", FOR_TRAIN | FOR_EVAL | FOR_SELECT | FOR_PLAN) \
    GROUP(grpo,      "GRPO", FOR_TRAIN | FOR_PLAN) \
    GROUP(optim,     "Optimizer", FOR_TRAIN | FOR_SFT | FOR_REWARD_MODEL | FOR_PLAN) \
    GROUP(run,       "The run", FOR_TRAIN | FOR_SFT | FOR_REWARD_MODEL) \
    GROUP(held_out,  "Held-out data", FOR_TRAIN | FOR_REWARD_MODEL | FOR_EVAL) \
    GROUP(eval,      "Evaluation", FOR_TRAIN | FOR_EVAL) \
    GROUP(examples,  "Examples", FOR_SFT | FOR_REWARD_MODEL) \
    GROUP(sft,       "Supervised fine-tuning", FOR_SFT) \
    GROUP(pairs,     "Reward models", FOR_REWARD_MODEL) \
    GROUP(select,    "Rejection sampling", FOR_SELECT) \
    GROUP(merge,     "Merging an adapter", FOR_MERGE) \
    GROUP(sample,    "Sample", FOR_SAMPLE)
// clang-format on

#define GROUP_ENTRY(name, title, read_by) GROUP_##name,
enum { CONFIG_GROUPS(GROUP_ENTRY) GROUP_COUNT };
typedef struct {
    const char *name, *title;
    int read_by; // FOR_...
} OptionGroup;
extern const OptionGroup config_groups[GROUP_COUNT];
bool command_reads(const Command *command, int group); // GROUP_...

// Where an option was set, by the file or by an argument; both 0 where it has its default.
typedef struct {
    int line;        // of the file, from 1
    const char *arg; // the override
} Place;

// The state of reading a configuration: what it fills, where each option came from, and the problems so far.
typedef struct {
    Config *c;
    const char *path;   // of the file, or NULL
    const char *arg;    // the override being read; NULL in the file
    const char *whole;  // what stands for a place where an option was set nowhere; NULL: the file
    const char **names; // [OPTION_COUNT]
    Place *place;       // [OPTION_COUNT]
    Str problems;       // one a line
    int problem_count;
} Reading;

// Adds what the YAML reader said of a node that is none.
void read_bad(Reading *r, const YamlNode *v);
// Adds one problem at a line of the file (0: the file, or the command line, as a whole).
void problem_at_line(Reading *r, int line, const char *fmt, ...) PRINTF_LIKE(3, 4);
// Adds one problem where option `a` or `b` (may be NULL) was set, whichever was set last.
void problem_of(Reading *r, const char *a, const char *b, const char *fmt, ...) PRINTF_LIKE(4, 5);

// Adds one problem at a place as place_text has it.
void problem_at_place(Reading *r, const char *place, const char *fmt, ...) PRINTF_LIKE(3, 4);

// Puts all problems of a reading into one error, a line each. Returns false.
bool problems_report(const Reading *r, Error *e);

// Begins a reading: fills the names, and *r->c with defaults. *r->c and r->place must be zero.
void reading_defaults(Reading *r);
// Reads `key: value` pairs behind the opening of a map, to its end. A key that is no option is offered to `taker` (may
// be NULL), which reads its value where it takes it. False where reading must stop.
typedef enum { PAIR_LEFT, PAIR_TAKEN, PAIR_STOP } PairFate;
typedef PairFate PairTaker(void *arg, Reading *r, const YamlNode *key, YamlReader *y);
bool config_read_pairs(Reading *r, YamlReader *y, PairTaker *taker, void *arg);
void config_read_override(Reading *r, const char *arg); // "key=value"

// An option's value as text, and the line of the file that it comes from (0: none).
typedef struct {
    const char *name, *value;
    int line;
} Setting;
// Makes and checks a configuration from defaults and settings; problems are reported with `path` and the settings'
// lines.
bool config_of_settings(Config *c, const char *path, const Setting *set, int n, Error *e);

// Checks for contradictions between options, and for what `command` needs; NULL: only for what is wrong for every
// command.
void config_check(Reading *r, const char *command);

// The member of *c that belongs to a row of the table.
static inline void *option_at(const Config *c, const Option *o) { return (char *)(uintptr_t)c + o->at; }
// The k-th of the choices "a|b|c": pointer and length; NULL past the last.
const char *option_choice(const Option *o, int k, int *length);
// Writes the value of an option as YAML.
void config_put_value(Str *s, const Config *c, const Option *o);
bool option_is_default(const Config *c, const Option *o);
// Splits a plain string into list entries; see the reference page's text on lists.
void list_split(TextList *list, const char *text);
void list_add(TextList *list, const char *text, size_t n);
void list_clear(TextList *list);
void files_clear(FileList *list);
DataFile *files_add(FileList *list, const char *path, char *place); // takes over `place`; weight 1
bool node_is_null(const YamlNode *v);                               // nothing, ~ or null, unquoted
bool text_is_number(const char *s, bool real);                      // a whole one, or a real one
// Where a problem at `line` of what is read stands, as users see it: "run.yaml:7", "argument 'a=b'". Heap memory.
char *place_text(const Reading *r, int line);
char *option_place(const Reading *r, const char *name); // where the option was set
// Read the value of a LIST or FILES option behind its opening: a list, or one map as a list of one. False where reading
// must stop.
bool config_read_list(Reading *r, const Option *o, YamlReader *y, YamlNode open);
bool config_read_files(Reading *r, const Option *o, YamlReader *y, YamlNode open);
