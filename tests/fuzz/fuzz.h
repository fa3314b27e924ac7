// What the fuzzing programs share. Each reads one input of libFuzzer's; tests/fuzz/corpus holds inputs to begin with.
#pragma once
#include "error.h"
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <stdint.h>
#include <stdio.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

// A file in memory with these bytes; its path, valid until fuzz_file_close.
typedef struct {
    int fd;
    char path[32];
} FuzzFile;
static inline FuzzFile fuzz_file(const uint8_t *data, size_t n) {
    FuzzFile f = {.fd = memfd_create("fuzz", MFD_CLOEXEC)};
    if (f.fd < 0 || write(f.fd, data, n) != (ssize_t)n) abort();
    snprintf(f.path, sizeof f.path, "/proc/self/fd/%d", f.fd);
    return f;
}
static inline void fuzz_file_close(FuzzFile *f) { close(f->fd); }

// A refusal is one line with an exit code.
static inline void fuzz_check_error(const Error *e) {
    if (e->code == EXIT_OK || !*e->text || strlen(e->text) >= sizeof e->text) abort();
}
