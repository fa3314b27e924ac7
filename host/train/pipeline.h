// A pipeline that runs: its phases, and what those that are finished have made. pipeline.c runs it, pipeline_check.c
// says before the first phase what is wrong with it, pipeline_record.c keeps the record of what was made from what.
#pragma once
#include "json.h"
#include "phases.h"
#include "reward_set.h"

typedef struct {
    const char *path; // of the file
    char **overrides; // without from= and only=
    int n_overrides;
    const char *from, *only; // NULL: not given
    int lock;                // open file descriptor of output_dir; -1: none
    Phases phases;
    // phase name -> {command, made, checksum, beside: {product: {path, checksum}}, from: {option: {path, checksum}}};
    // of one that has begun command and from alone; of one that is to be made again {forgotten: true, command}, until
    // what it made is removed
    json_t *made;
} Pipeline;

// What phase `name` has made; NULL: it is not finished.
const char *phase_made(const Pipeline *l, const char *name);
// The path of a product of phase k, as a PhaseProduct (phases.h).
char *phase_product(void *pipeline, const Phases *ps, int k, const char *product);
// The name of the i-th product of a phase, or NULL.
const char *phase_product_name(const Phase *p, int i);
// Whether a phase makes checkpoints; whether it scores completions.
bool phase_makes_model(const Phase *p);
bool phase_scores(const Phase *p);

// Something that a phase reads.
typedef struct {
    // The option's; of several training files "train_file[2]", of a reward "rewards.NAME" and "rewards.NAME.template".
    char name[80];
    const char *path, *place;
    bool directory;
    const Reward *reward; // that it is a model or a template of; NULL: of none
} Input;
enum { MAX_INPUTS = 6 + MAX_FILES + 2 * (MAX_REWARDS + 1) };
// Lists the inputs of a phase that are set; their number. rw: room for the rewards whose models are among them.
int phase_inputs(const Phase *p, Rewards *rw, Input all[MAX_INPUTS]);
// The phase before k, of those that k uses, that makes a path or what the path is in; NULL: none.
const Phase *phase_maker(const Pipeline *l, int k, const char *path);

// ---- the record: output_dir/pipeline.json and NAME.yaml ----

// The path of a file in output_dir; fmt: with one %s, for the name. Heap memory.
char *pipeline_path(const Pipeline *l, const char *fmt, const char *name);
// Reads pipeline.json into l->made, which is empty where there is none; writes it. False after filling *e.
bool made_read(Pipeline *l, Error *e);
bool made_write(const Pipeline *l, Error *e);
// Records what phase k is made from, before it starts. One that goes on must be what it began as, or its end would be
// made of one thing and its record say another. False after filling *e.
bool phase_begin(Pipeline *l, int k, Error *e);
// Records that phase k, which phase_begin recorded, is finished, and what it made.
bool phase_record(Pipeline *l, int k, double seconds, Error *e);
// Whether phase k is finished, and still is what it was: its command and options, what it was made from, what it made.
// *done is false where it has to run. False after filling *e.
bool phase_done(const Pipeline *l, int k, bool *done, Error *e);
// Whether phase k, where it is finished or would go on from a checkpoint, is what its record says: its command and
// options; with `files` also what a finished one was made from, but for what unfinished phases will make, and what it
// made. False after filling *e.
bool phase_as_recorded(const Pipeline *l, int k, bool files, Error *e);

// ---- before the first phase ----

// Checks everything that can be known before the first of phases [0, end) starts, and prints each phase's memory. False
// after filling *e with all problems.
bool pipeline_check(const Pipeline *l, int end, Error *e);
// Adds the inputs that are not there to the problems of *e, for a file whose options are wrong too.
void pipeline_check_files(const Pipeline *l, Error *e);
