// Marks for a profiler: the phases of a step as ranges, and which steps it records.
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
Profile profile_open(Device *d, const Config *c, Progress *p); // prints which steps will be recorded
void profile_phase(Profile *p, const char *phase);             // ends the range of the last phase and begins this one's
void profile_step(Profile *p, int64_t step);                   // called before each step: starts or stops recording
void profile_close(Profile *p);
