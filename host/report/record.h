// run.json in output_dir: the description of a run, written when it starts.
#pragma once
#include "config.h"
#include "str.h"

typedef struct {
    const Config *cfg;
    const char *command;       // "train", "sft"
    const char *device;        // description of the device it computes on
    const char *data;          // bytes and checksum of the training file
    const char *plan;          // the memory plan as printed
    int64_t rows, step, steps; // rows of the training file; steps done before (a resumed run); steps in all
} RunRecord;
// Writes run.json: every option (with its default where it differs), version, machine, data. Earlier starts of the same
// run stay listed.
bool record_write(const RunRecord *r, Error *e);
// Appends the contents of dir/run.json, or null where there is none that can be read.
void record_json(const char *dir, Str *out);
