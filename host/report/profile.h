// Ranges for a profiler: the phases of a step, and which steps it records.
#pragma once
#include "config.h"
#include "ops.h"
#include "progress.h"

typedef struct {
    Device *device;
    const char *phase;   // whose range is open, or NULL
    int64_t first, last; // steps to record; 0: none
    bool recording;
} Profile;
Profile profile_open(Device *d, const Config *c, Progress *p); // says what will be recorded
void profile_phase(Profile *p, const char *phase);             // the range of the last phase ends, this one begins
void profile_step(Profile *p, int64_t step);                   // before each step: the recording begins or ends
void profile_close(Profile *p);
