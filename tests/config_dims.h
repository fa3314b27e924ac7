// The dims that a config.json describes, read by the engine's own reader.
#pragma once
#include "hf.h"
#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline ModelDims config_dims(const json_t *config) {
    char dir[] = "/tmp/grpo-model-XXXXXX", path[64];
    HfConfig c;
    Error e = {0};
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/config.json", dir);
    assert_int_equal(json_dump_file(config, path, 0), 0);
    if (!hf_config_read(dir, &c, &e)) fail_msg("%s", e.text);
    unlink(path), rmdir(dir);
    return c.dims;
}
