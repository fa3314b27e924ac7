// Opening a Device: the GPU where one answers, the CPU elsewhere.
#pragma once
#include "error.h"
#include "ops.h"

// `choice` is DEVICE_*. auto takes GPU `ordinal` where one answers, else the CPU, whose `about` then says so; cuda takes
// the GPU or fails. `isa`: CPU_ISA_*. NULL after filling *e.
Device *device_open(int choice, int ordinal, int threads, int isa, Error *e);
// Whether d is the CPU because auto found no GPU for a build that could use one.
bool device_fell_back(int choice, const Device *d);
void device_close(Device *d);              // NULL is fine
bool device_ok(const Device *d, Error *e); // false after putting the device's first failure into *e
