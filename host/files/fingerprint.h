// Fingerprints, which tell whether a file or a model directory is still the one that something was made from.
#pragma once
#include "error.h"
#include "ops.h"
#include <stdint.h>

// Continues *crc (CRC32C) over a file's bytes, or over the names and contents of a directory's .json, .jinja and
// .safetensors files in the order of their names. False after filling *e (EXIT_INPUT, EXIT_DISK).
bool fingerprint(uint32_t *crc, const char *path, Error *e);
// CRC32C of weights in the device's memory; of those in f32 also as it would be of the same ones rounded to bf16.
uint32_t weights_sum(Device *d, Tensor weights);
uint32_t weights_sum_bf16(Device *d, Tensor weights);
