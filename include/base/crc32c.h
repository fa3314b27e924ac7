// CRC32C: the checksum of checkpoints.
#pragma once
#include <stddef.h>
#include <stdint.h>

// CRC32C (RFC 3720) of data, going on from `crc` (0 at the start).
uint32_t crc32c(uint32_t crc, const void *data, size_t n);
uint32_t crc32c_portable(uint32_t crc, const void *data, size_t n); // the same without the CPU's instruction
