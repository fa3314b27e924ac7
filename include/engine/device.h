// Opening a Device: the GPU where one answers, the CPU elsewhere.
#pragma once
#include "error.h"
#include "ops.h"

// `choice` is DEVICE_*. auto takes GPU `ordinal` where one answers, else the CPU, whose `about` then says so; cuda takes
// the GPU or fails. NULL after filling *e.
Device *device_open(int choice, int ordinal, int threads, Error *e);
// For the start of main. OpenMP's waiting threads spin for milliseconds by default: beside other work a small model then
// runs several times slower. Not to spin at all costs a wake-up a parallel region, a quarter of the speed of decoding one
// sequence. Some microseconds do; but the runtime reads its settings before main, so the program starts itself once more.
// What the user has set stays.
void device_limit_spinning(char **argv);
// Whether d is the CPU because auto found no GPU for a build that could use one.
bool device_fell_back(int choice, const Device *d);
void device_close(Device *d);              // NULL is fine
bool device_ok(const Device *d, Error *e); // false after putting the device's first failure into *e
