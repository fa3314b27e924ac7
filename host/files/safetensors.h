// A safetensors file: its tensors by name, and their values.
#pragma once
#include "error.h"
#include "model.h"
#include "ops.h"
#include "str.h"
#include <jansson.h>

// The format as huggingface/safetensors describes it: 8 bytes of header length, a JSON header, then the tensors without
// holes or overlap. Everything about a file is checked when it is opened; errors name file, tensor and byte.
// The format has no checksum: a flipped bit in the values or in __metadata__ of a downloaded file is not noticed. A
// checkpoint's files have their checksums in manifest.json, and those are checked.
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
    json_t *index;    // name -> index into `tensor`
    json_t *metadata; // what __metadata__ says, of strings; NULL: nothing
} SafeTensors;
bool safetensors_open(SafeTensors *s, const char *path, Error *e);
void safetensors_close(SafeTensors *s);
const FileTensor *safetensors_find(const SafeTensors *s, const char *name); // NULL: not there
// One tensor to copy, from a file (F32, BF16 or F16) into memory (F32 or BF16), with the same number of elements.
typedef struct {
    const SafeTensors *file;
    const FileTensor *from;
    Tensor to;
} TensorCopy;
// Copies and converts all of copies[n] into d's memory, on all cores. LOAD_STRICT reads the files and refuses values
// that are not finite (after conversion). LOAD_MMAP maps them and checks no values; no other program may truncate them
// meanwhile.
bool safetensors_copy(Device *d, const TensorCopy *copies, int n, int load_mode, Error *e);
// Sets *equal to whether two tensors with the same number of elements have the same values; a tensor stored as a type
// that weights cannot have equals none. `to` is not used. False after filling *e.
bool safetensors_equal(const TensorCopy *a, const TensorCopy *b, bool *equal, Error *e);
// Appends the 8 bytes of length and the header of a file that holds these parameters in their order; where key is not
// NULL, its __metadata__ says key: value.
void safetensors_header(Str *out, const Param *params, int n, const char *key, const char *value);
