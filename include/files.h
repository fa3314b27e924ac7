// What is read from files and written to them: JSON, data sets, model directories, checkpoints.
#pragma once
#include "comm.h"
#include "config.h"
#include "file.h"
#include "model.h"
#include "str.h"
#include <jansson.h>
#include <stdio.h>

// ---- staging.c: between host memory and a device's -----------------------------------------------------------------
// Wherever files meet weights or optimizer state, those are memory of a Device, or of the host where it is NULL.
bool on_host(const Device *d); // the memory may be read and written as it is
// The bytes for reading: data itself on the host, else a copy in `room`.
const void *device_view(Device *d, const void *data, size_t bytes, void *room);
// Uploads, where the memory is not the host's: fill the room, send parts of it, turn to the other half, and so on.
typedef struct {
    Device *d;
    size_t bytes; // of a half
    char *half[2];
    Event *passed[2];
    int at;
    size_t used; // of this half, by staging_put
} Staging;
bool staging_open(Staging *s, Device *d, size_t bytes, Error *e);
char *staging_room(Staging *s); // waits until what was last sent from it has arrived
void staging_send(Staging *s, void *to, const void *from, size_t bytes);
void staging_turn(Staging *s);
// Copies bytes into the room and sends them from there: `from` is the caller's again at once. What was put since the last
// turn shares one half. Memory of the host is simply written.
void staging_put(Staging *s, void *to, const void *from, size_t bytes);
bool staging_close(Staging *s, Error *e); // waits; false after filling *e where a copy failed

// ---- json.c: strict JSON through Jansson ------------------------------------------------------------------------
// RFC 8259: refuses bad UTF-8, depth > 64, trailing text, numbers that do not fit. `where` names the place in errors
// ("file:line"; the column is added). Of keys that repeat the last one counts, as in Python. NULL after filling *e.
json_t *json_parse(const char *text, size_t n, const char *where, Error *e);
// The same for a text of many lines ("file"; line and column are added) whose keys must not repeat.
json_t *json_parse_unique(const char *text, size_t n, const char *where, Error *e);
// A whole file through json_parse_unique, at most 256 MiB.
json_t *json_read(const char *path, Error *e);

// ---- jsonl.c: JSON lines, one at a time --------------------------------------------------------------------------
#define JSONL_MAX_LINE ((size_t)16 << 20) // bytes; a longer line is refused, in bounded memory

// Reads a file or a pipe line by line. A byte-order mark at its start, CRLF and a missing last newline are understood;
// blank lines are passed over.
typedef struct {
    int fd;
    const char *path; // for errors
    int64_t line;     // number of the current line, from 1
    int64_t offset;   // byte of the file where it begins
    int64_t next;     // and where the next one does
    char *buffer;     // [begin, end) is read but not yet given out
    size_t begin, end, cap;
    bool last; // the file has no more bytes than the buffer
} LineReader;
bool line_reader_open(LineReader *r, const char *path, Error *e); // "-": standard input
void line_reader_close(LineReader *r);
// 1: a line in *text (valid until the next call, NUL-terminated, no newline), *n its bytes; 0: the end; -1: an error,
// with file:line. After EXIT_INPUT (a line that is too long) the next call goes on with the line that follows.
// EXIT_STOPPED: a signal asked to stop while it waited (see signals_end_reads).
int line_reader_next(LineReader *r, char **text, size_t *n, Error *e);
// The next line given will be the one that begins at `offset`, numbered `line`. Files only.
void line_reader_seek(LineReader *r, int64_t offset, int64_t line);
// A string field of a JSON object, or NULL after filling *e: absent, not a string, or with a NUL character in it.
const char *json_field_string(const json_t *object, const char *field, const char *where, Error *e);
// A list or object in the field becomes its text: test cases stand in answer fields as either.
void json_field_to_text(json_t *object, const char *field);

// ---- dataset.c: streaming JSONL ----------------------------------------------------------------------------------
// A data set stays on the disk: memory holds the place of each row, 8 bytes. Every line is checked when it is opened,
// so that a bad one stops a run before it starts; bad_lines=skip leaves bad ones out and counts them.
typedef struct Dataset Dataset;
typedef struct {
    int64_t line;    // from 1
    char *question;  // heap; freed by the caller with row_free
    char *answer;    // the whole answer field
    char *gold;      // after the last marker, stripped as Python's str.strip
    json_t *example; // the whole object, in a data set opened for sft; then the three above are NULL
} Row;
// Position in a data set: all that a resumed run needs.
typedef struct {
    int64_t epoch, index;
} Cursor;
Dataset *dataset_open(const char *path, const Config *c, Error *e);
// Rows for sft: objects with messages_field (a list of {role, content}), or prompt_field and completion_field.
Dataset *dataset_open_sft(const char *path, const Config *c, Error *e);
void dataset_free(Dataset *d);
int64_t dataset_rows(const Dataset *d);
int64_t dataset_skipped(const Dataset *d); // bad lines left out
Cursor dataset_cursor(const Dataset *d);
void dataset_seek(Dataset *d, Cursor cursor);
// The next row; wraps into the next epoch with its own order, a function of (seed, epoch, rows) alone. False after
// filling *e.
bool dataset_next(Dataset *d, Row *row, Error *e);
// Row number i (0-based, file order).
bool dataset_row(Dataset *d, int64_t i, Row *row, Error *e);
void row_free(Row *row);
// Where position i of an epoch lies: a permutation of 0..n-1 that needs no memory.
int64_t shuffle_index(uint64_t seed, int64_t epoch, int64_t n, int64_t i);

// ---- outdir.c: directories that appear whole or not at all --------------------------------------------------------
// A directory is written as path.tmp, every file fsynced, read back, then renamed to path; what stood there before is
// path.old for the moment between two renames, then removed. A failed write removes path.tmp; its error names the bytes
// needed and the bytes free (EXIT_DISK).
#define DISK_BLOCK ((size_t)16 << 20) // bytes; checksums are kept for each block of a file
typedef struct {
    char *name;     // relative to the directory
    uint64_t bytes; // written so far
    uint32_t *crc;  // [ceil(bytes / DISK_BLOCK)] CRC32C of each block
} OutFile;
typedef struct {
    char *path, *tmp;
    uint64_t planned, written; // bytes
    OutFile *file;             // [n_files]; the last one is open where fd >= 0
    int n_files, fd;
} OutDir;
// Starts a directory that will take about `planned` bytes; refuses at once where they do not fit.
bool outdir_begin(OutDir *d, const char *path, uint64_t planned, Error *e);
// A new file; names may hold one directory ("state/m").
bool outdir_open(OutDir *d, const char *name, Error *e);
bool outdir_write(OutDir *d, const void *data, size_t bytes, Error *e);
bool outdir_write_device(OutDir *out, Device *d, const void *data, size_t bytes, Error *e); // d's memory; see staging.c
bool outdir_close(OutDir *d, Error *e);
bool outdir_put(OutDir *d, const char *name, const void *data, size_t bytes, Error *e); // the three above
bool outdir_commit(OutDir *d, Error *e); // after it, as after every failure, only outdir_free is left to call
void outdir_free(OutDir *d);             // without a commit: removes what was written
// mkdir -p, and the removal of a whole tree (an absent one is fine).
bool disk_mkdir(const char *path, Error *e);
bool disk_remove(const char *path, Error *e);
bool disk_rename(const char *from, const char *to, Error *e); // fsyncs the directory too

// ---- safetensors.c: one file of tensors ----------------------------------------------------------------------------
// The format as huggingface/safetensors describes it: 8 bytes of header length, a JSON header, then the tensors without
// holes or overlap. Everything about a file is checked when it is opened; errors name file, tensor and byte.
typedef struct {
    char *name;
    char dtype[12];      // as in the file: "F32", "BF16", "F8_E4M3" ...
    int ndim;            // any number; 0 is a scalar
    uint64_t *dim;       // [ndim]
    uint64_t numel;      // product of dim
    uint64_t begin, end; // bytes from the start of the file
} FileTensor;
typedef struct {
    char *path;
    int fd;
    uint64_t bytes;     // of the whole file
    FileTensor *tensor; // [n] in the order of their bytes
    int n;
    json_t *index; // name -> index into `tensor`
} SafeTensors;
bool safetensors_open(SafeTensors *s, const char *path, Error *e);
void safetensors_close(SafeTensors *s);
const FileTensor *safetensors_find(const SafeTensors *s, const char *name); // NULL: not there
// One tensor to copy: an F32, BF16 or F16 one of a file to an F32 or BF16 one in memory, of as many elements.
typedef struct {
    const SafeTensors *file;
    const FileTensor *from;
    Tensor to;
} TensorCopy;
// Copies and converts all into d's memory, on all cores. LOAD_STRICT reads the files and refuses values that are not finite (after
// conversion); LOAD_MMAP maps them, which needs files that nobody cuts short meanwhile, and checks no values.
bool safetensors_copy(Device *d, const TensorCopy *copies, int n, int load_mode, Error *e);
// Appends the 8 bytes of length and the header of a file that holds these parameters in their order.
void safetensors_header(Str *out, const Param *params, int n);

// ---- hf_read.c, hf_save.c: model directories ----------------------------------------------------------------------
// config.json -> dims; refuses what the engine does not compute (other model types, sliding window in use ...).
typedef struct {
    ModelDims dims;
    int32_t eos[8]; // generation_config.json's, else config.json's
    int n_eos;
    int32_t pad, bos; // -1 where absent
} HfConfig;
bool hf_config_read(const char *dir, HfConfig *out, Error *e);
// Fills m->slab (d's memory) from model.safetensors or its shards. Every parameter must be there, with its shape.
bool hf_weights_read(const char *dir, Device *d, Model *m, int load_mode, Error *e);
// The same without reading a value: files, names and shapes. m may be a measured model.
bool hf_weights_check(const char *dir, const Model *m, Error *e);
// Writes a directory that AutoModelForCausalLM.from_pretrained and vLLM load: config.json and the tokenizer files are
// copied from source_dir (dtype updated), the weights written as m->dtype, in shards of at most 5 GB. Takes the place
// of a model directory at `dir`; refuses to replace anything else.
bool hf_save(const char *dir, const char *source_dir, Device *d, const Model *m, Error *e);
// The same files into a directory being written; `shard_bytes` is the most one file of weights holds (one tensor at
// least). hf_bytes: about what they take.
#define HF_SHARD_BYTES ((size_t)5000000000)
bool hf_write(OutDir *out, const char *source_dir, Device *d, const Model *m, size_t shard_bytes, Error *e);
uint64_t hf_bytes(const char *source_dir, const Model *m);
// Draws the weights: N(0, init), norms 1, biases 0; element i of parameter p depends on (seed, p, i) alone.
void model_init_random(Device *d, Model *m, uint64_t seed);

// ---- checkpoint.c ------------------------------------------------------------------------------------------------
// A checkpoint is output_dir/step_N/: model files at its top (loadable by transformers), and state/ beside them:
// optimizer state, cursor, config; manifest.json (sizes, CRC32C of every file) is written last.
typedef struct {
    int64_t step;    // optimizer steps done
    int64_t updates; // those of them that changed the weights (Adam counts these)
    int64_t part;    // optimizer steps the current generation has fed; 0: the next step draws a new one
    Cursor cursor;
    int64_t next_key; // first unused sequence key
    int64_t skipped;  // steps skipped in a row for NaN or Inf
    int64_t seen_tokens;
    int64_t evaluated;                       // the last step evaluated on eval_file
    size_t metrics_bytes, completions_bytes; // lengths of the logs at that step: resuming cuts them back
    char *batch;                             // opaque bytes of a half-used generation batch, or NULL
    size_t batch_bytes;
    const char *command; // "train" or "sft": a checkpoint is only resumed by the command that saved it; NULL: any
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
bool checkpoint_save(const char *output_dir, const TrainState *s, Device *d, const Model *m, const char *source_dir,
                     const char *config_yaml, const StateBlob *blobs, int n_blobs, int keep_last, Error *e);
// What the ranks other than the one in checkpoint_save do meanwhile: they hand it their slices.
bool checkpoint_serve(Device *d, const StateBlob *blobs, int n_blobs, Error *e);
// The newest checkpoint that verifies, as a path (heap); *step its step. NULL: none (e->code EXIT_OK) or an error.
// Damaged ones are named in notes.
char *checkpoint_find(const char *output_dir, int64_t *step, Error *e);
bool checkpoint_load(const char *path, TrainState *s, Device *d, Model *m, const StateBlob *blobs, int n_blobs,
                     Error *e);

// ---- crc32c.c ----------------------------------------------------------------------------------------------------
// CRC32C (RFC 3720) of data, going on from `crc` (0 at the start).
uint32_t crc32c(uint32_t crc, const void *data, size_t n);
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t n); // the same without the CPU's instruction
