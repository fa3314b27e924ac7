// run.json in output_dir: what a run is, written when it starts.
#pragma once
#include "config.h"
#include "str.h"

typedef struct {
    const Config *cfg;
    const char *command;       // "train", "sft"
    const char *device;        // what it computes on, in words
    const char *data;          // bytes and checksum of the training file
    const char *plan;          // its memory, a table in words
    int64_t rows, step, steps; // of the training file; done before (a resumed run); to be done in all
} RunRecord;
// Writes it: every option with its default where it differs, version, machine, data. The starts of the same run before stay in it.
bool record_write(const RunRecord *r, Error *e);
// Appends dir/run.json, or null where there is none that can be read.
void record_json(const char *dir, Str *out);
