// The device under test: the CPU, or the one GRPO_TEST_DEVICE names (cuda: a GPU, or its emulation in MODE=emu).
#pragma once
#include "config.h"
#include "error.h"
#include "host.h"
#include <stdlib.h>

static inline Device *test_device(int threads) {
    const char *name = getenv("GRPO_TEST_DEVICE");
    Error e = {0};
    Device *d = device_open(name && !strcmp(name, "cuda") ? DEVICE_CUDA : DEVICE_CPU, 0, threads, &e);
    if (!d) die("tests: %s", e.text);
    return d;
}
