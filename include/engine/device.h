// Opening a Device: the GPU where one answers, the CPU elsewhere.
#pragma once
#include "error.h"
#include "ops.h"

// The choices of the option device=, in their order.
enum { DEVICE_AUTO, DEVICE_CPU, DEVICE_CUDA };
#define DEVICE_CHOICES "auto|cpu|cuda"

// Opens a device. choice: DEVICE_AUTO takes GPU `ordinal` where it answers, else the CPU, whose `instead` then says
// why; DEVICE_CUDA takes the GPU or fails; DEVICE_CPU the CPU. isa: CPU_ISA_*. NULL after filling *e.
Device *device_open(int choice, int ordinal, int threads, int isa, Error *e);
void device_close(Device *d);              // NULL is fine
bool device_ok(const Device *d, Error *e); // false after putting the device's first failure into *e
