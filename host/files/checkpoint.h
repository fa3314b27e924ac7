// Checkpoints: what a run is, on the disk.
#pragma once
#include "comm.h"
#include "dataset.h"
#include "error.h"
#include "hf.h"
#include "model.h"
#include "ops.h"

// A checkpoint is output_dir/step_N/: model files at its top (loadable by transformers), and state/ beside them:
// optimizer state, cursor, config; manifest.json (sizes, CRC32C of every file) is written last.
typedef struct {
    int64_t step;    // optimizer steps done
    int64_t updates; // those of them that changed the weights (Adam counts these)
    int64_t fed;     // optimizer steps the current generation has fed; 0: the next step draws a new one
    Cursor cursor;
    int64_t next_key; // first unused sequence key
    int64_t skipped;  // steps skipped in a row for NaN or Inf
    int64_t seen_tokens;
    int64_t evaluated;   // the last step evaluated on eval_file
    double entropy_coef; // of the next step's bonus, where it adapts
    double last_entropy; // what it was adapted to; below 0: nothing yet
    // Lines of the logs at that step: resuming cuts them back. (Their bytes hang on how many digits a time has.)
    int64_t metrics_lines, completions_lines;
    char *batch; // opaque bytes of a half-used generation batch, or NULL
    size_t batch_bytes;
    const HfVoice *voice; // what the model files say of conversations; NULL: what the source's say
    const char *command;  // "train" or "sft": a checkpoint is only resumed by the command that saved it; NULL: any
    char numerics[32];    // Device.numerics of who saves, or saved, it
    char data[48];        // bytes and CRC32C of the training file
} TrainState;
typedef struct {
    const char *name; // file name in state/
    void *data;       // memory of the device
    size_t bytes;     // of the file
    // Where comm is not NULL, `data` is this rank's comm_slice of the file's items, and `item` the bytes of one: the file
    // is the same whatever the number of ranks.
    Comm *comm;
    size_t item;
} StateBlob;
// Saves output_dir/step_N whole or not at all: model files (what is no weight is copied from source_dir), `config_yaml`, the
// blobs, then the manifest. Removes all but the newest keep_last after it. Called by one rank alone; the others serve.
bool checkpoint_save(const char *output_dir, const TrainState *s, Device *d, const Model *m, const char *source_dir,
                     const char *config_yaml, const StateBlob *blobs, int n_blobs, int keep_last, Error *e);
// What the ranks other than the one in checkpoint_save do meanwhile: they hand it their slices.
bool checkpoint_serve(Device *d, const StateBlob *blobs, int n_blobs, Error *e);
// Clears away what an interrupted save or removal left; a checkpoint that lost its name between two renames gets it back.
bool checkpoint_sweep(const char *output_dir, Error *e);
// Holds the model files of a directory that is a checkpoint of ours against its manifest. *checked: it is one.
bool checkpoint_model_check(const char *dir, bool *checked, Error *e);
// The newest checkpoint that verifies, as a path (heap); *step its step. NULL: none (e->code EXIT_OK) or an error.
// Damaged ones are named in notes.
char *checkpoint_find(const char *output_dir, int64_t *step, Error *e);
// Fills *s, m's weights and the blobs from a checkpoint, each file checked against the manifest. False after filling *e.
bool checkpoint_load(const char *path, TrainState *s, Device *d, Model *m, const StateBlob *blobs, int n_blobs,
                     Error *e);
