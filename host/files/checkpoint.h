// Checkpoints: the state of a run, saved on the disk.
#pragma once
#include "comm.h"
#include "mix.h"
#include "error.h"
#include "hf.h"
#include "model.h"
#include "ops.h"

// A checkpoint is output_dir/step_N/: model files at its top (loadable by transformers; where the model has an adapter,
// that one's alone, loadable by PEFT), and state/ beside them: optimizer state, cursor, config; manifest.json (sizes,
// CRC32C of every file) is written last.
typedef struct {
    int64_t step;    // optimizer steps done
    int64_t updates; // those of them that changed the weights (Adam counts these)
    int64_t fed;     // optimizer steps the current generation has fed; 0: the next step draws a new one
    MixCursor cursor;
    int64_t next_key; // first unused sequence key
    int64_t skipped;  // steps skipped in a row for NaN or Inf
    int64_t seen_tokens;
    int64_t evaluated;   // the last step evaluated on eval_file
    double entropy_coef; // of the next step's bonus, where it adapts
    double last_entropy; // the entropy that entropy_coef was last adapted to; below 0: none yet
    // Lines of the logs at that step: resuming cuts the logs back to them. (Not bytes: two runs alike write their times
    // with different numbers of digits.)
    int64_t metrics_lines, completions_lines;
    char *batch; // opaque bytes of a half-used generation batch, or NULL
    size_t batch_bytes;
    HfFiles *files;      // what stands beside the weights of a whole model, owned; NULL: read from source_dir now
    const char *command; // "train", "sft" or "reward_model": it is only resumed by the command that saved it; NULL: any
    char numerics[32];   // Device.numerics of the device that saves, or saved, it
    char data[48];       // bytes and CRC32C of the training files
    char prompts[16];    // CRC32C of the files that stand before each question; "": none
    char judges[16];     // CRC32C of the models and templates behind rewards; "": none
    char start[32];      // CRC32C of the weights of the reference, where no file of the checkpoint has it; "": none
    int64_t kept;        // the step that this process resumed from or saved last, not in the file; 0: none
} TrainState;
typedef struct {
    const char *name; // file name in state/
    void *data;       // memory of the device
    size_t bytes;     // of the file
    // Where comm is not NULL, `data` is this rank's comm_slice of the file's items, and `item` the bytes of one: the
    // file is the same whatever the number of ranks.
    Comm *comm;
    size_t item;
} StateBlob;
// output_dir/step_N, heap memory.
char *checkpoint_path(const char *output_dir, int64_t step);
// The step whose checkpoint a name in output_dir begins with, or -1; *suffix is what follows, "" in a checkpoint's
// name.
int64_t checkpoint_step(const char *name, const char **suffix);
// Whether a name in output_dir is that of a checkpoint, or of what an interrupted save or removal leaves.
bool checkpoint_makes(const char *name);

// Saves output_dir/step_N whole or not at all: model files (all but the weights from s->files), `config_yaml`,
// the blobs, then the manifest; then removes all checkpoints but the newest keep_last and those that lie in `spared`
// (NULL-terminated), which the run reads from. Those between s->kept and this one, of which none could be resumed from,
// do not count among the newest and go first. Called by one rank while every other rank is in checkpoint_serve.
bool checkpoint_save(const char *output_dir, const TrainState *s, Device *d, const Model *m, const char *source_dir,
                     const char *config_yaml, const StateBlob *blobs, int n_blobs, int keep_last,
                     const char *const *spared, Error *e);
// Sends this rank's slices of the blobs to the rank in checkpoint_save; called by every other rank meanwhile.
bool checkpoint_serve(Device *d, const StateBlob *blobs, int n_blobs, Error *e);
// Clears away what an interrupted save or removal left; a checkpoint that lost its name between two renames gets it
// back.
bool checkpoint_sweep(const char *output_dir, Error *e);
// If `dir` is a checkpoint of this program (*checked says so), checks its model files against its manifest.
bool checkpoint_model_check(const char *dir, bool *checked, Error *e);
// The newest checkpoint that verifies, as a path (heap); *step its step. NULL: none (e->code EXIT_OK) or an error.
// Damaged ones are named in notes.
char *checkpoint_find(const char *output_dir, int64_t *step, Error *e);
// Fills *s, m's weights and the blobs from a checkpoint, each file checked against the manifest. False after filling
// *e.
bool checkpoint_load(const char *path, TrainState *s, Device *d, Model *m, const StateBlob *blobs, int n_blobs,
                     Error *e);
