// Saving a run and going on from where it was: what train, sft and reward_model share.
#pragma once
#include "checkpoint.h"
#include "hooks.h"
#include "live.h"
#include "metrics.h"
#include "profile.h"
#include "progress.h"
#include "learner.h"

// Where a run that trains is told of: logs, terminal, report, hooks. Of these rank 0 alone has what is not NULL.
typedef struct {
    Metrics *metrics;
    Progress *progress;
    LiveReport *live;
    Hooks *hooks;
    Profile profile;
} RunReport;
// Tells of the end of a run with this exit code, where its steps had begun: starts the hook on_end, and keeps the text
// of *e among the notes.
void run_say_end(const RunReport *r, const Config *c, int64_t step, ExitCode code, const Error *e);
// Closes all of them; waits for hooks that run.
void run_report_close(RunReport *r);

// Syncs the logs, saves the state as output_dir/step_N, and starts the hook on_save.
bool run_save(const Learner *l, TrainState *state, Metrics *m, Hooks *h, Error *e);
// Whether a run that ends by this error may save what it has learned before: what it read was bad (a row that is gone,
// a reward that gives no score), which says nothing against its weights. Several ranks do not know that they all
// failed.
bool run_saves_first(const Engine *en, const Error *e);
// Adds to *e that the run was saved before its end; or, where that failed for the reason *why, says this in a note.
void run_say_saved(const TrainState *state, const char *output_dir, bool saved, const Error *why, Error *e);
// Continues from the newest good checkpoint of output_dir by the `resume` rule (fills the run's weights and state and
// *state), and opens the logs at that point (rank 0; *m is NULL elsewhere). The number of ranks may be another one than
// the checkpoint's. False after filling *e.
bool run_resume(Learner *l, TrainState *state, Progress *p, Metrics **m, Error *e);
// Whether a name in output_dir is that of a file, other than a checkpoint, that a run makes there.
bool run_makes(const char *name);
// Writes output_dir/run.json and opens notes.jsonl (rank 0): `rows` of the training file, `steps` of the run. A failure
// is only said in a note.
void run_record(const Engine *en, const TrainState *state, int64_t rows, int64_t steps);
// Says that a step is skipped, and what of it is not finite.
void run_say_skipped(const TrainState *state, const char *what, Progress *p);
// Prints a note if a resumed run has no step left to make.
void run_say_done(const TrainState *state, int64_t total_steps, Progress *p);
