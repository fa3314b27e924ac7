// Opens the device of a run: the GPU where one answers, else the CPU, unless the option device= says which.
#include "device.h"
#include "machine.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <string.h>

#ifdef GRPO_CUDA
static const bool compiled_in = true;
static Device *open_cuda(int ordinal, Error *e) { return cuda_open(ordinal, e); }
#else
static const bool compiled_in = false;
static Device *open_cuda(int ordinal, Error *e) {
    error_set(e, EXIT_CONFIG, "device=cuda: this build has no CUDA device; build where nvcc is, or use device=cpu");
    return NULL;
}
#endif

Device *device_open(int choice, int ordinal, int threads, int isa, Error *e) {
    Error why = {0};
    if (!machine_threads_allowed("threads", threads, e)) return NULL;
    if (choice != DEVICE_CPU) {
        Device *d = open_cuda(ordinal, &why);
        if (d) return d;
        if (choice == DEVICE_CUDA) {
            *e = why;
            return NULL;
        }
    }
    Device *d = cpu_open(machine_threads(threads, 1), isa, e);
    if (d && compiled_in && choice == DEVICE_AUTO) {
        snprintf(d->instead, sizeof d->instead, "%.383s", why.text);
        strncat(d->about, " (no GPU is used)", sizeof d->about - strlen(d->about) - 1);
    }
    return d;
}

void device_close(Device *d) {
    if (!d) return;
#ifdef GRPO_CUDA
    if (!strcmp(d->name, "cuda")) {
        cuda_close(d);
        return;
    }
#endif
    cpu_close(d);
}

bool device_ok(const Device *d, Error *e) {
    return !d->error[0] || error_set(e, d->error_code, "%s: %s", d->name, d->error);
}
