// Where the test data lies: $GRPO_DATA, or ../shared/data beside the repository. It is no part of the repository, so a
// test that needs a file from it is skipped, aloud, where the file is absent.
#pragma once
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

// The path of data file `name` ("gsm8k/train.jsonl"), valid until the next call. Skips the test where it is absent.
static inline const char *data_path(const char *test, const char *name) {
    static char path[4096];
    const char *root = getenv("GRPO_DATA");
    snprintf(path, sizeof path, "%s/%s", root ? root : "../shared/data", name);
    if (access(path, R_OK) != 0) {
        printf("SKIP %s: %s absent\n", test, path);
        skip();
    }
    return path;
}
