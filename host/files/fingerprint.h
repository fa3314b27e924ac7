// A fingerprint: whether a file, or a model directory, is still the one that something was made from.
#pragma once
#include "error.h"
#include <stdint.h>

// The CRC32C of a file, going on from *crc; of a directory, of the names and the contents of its .json and .safetensors
// files, in the order of the names. False after filling *e (EXIT_INPUT, EXIT_DISK).
bool fingerprint(uint32_t *crc, const char *path, Error *e);
