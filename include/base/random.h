// Random numbers of the host: each is a function of where it is used, never of what was drawn before.
#pragma once
#include <stdint.h>

#define RANDOM_STEP 0x9e3779b97f4a7c15u // odd, 2^64 over the golden ratio: what splitmix64 adds from number to number

// Mixes the bits of x: a bijection of 64-bit words in which every output bit depends on every input bit, the finaliser
// of splitmix64 (Steele, Lea and Flood 2014).
uint64_t random_mix(uint64_t x);
// Number i of stream `stream` under `seed`.
uint64_t random_bits(uint64_t seed, uint64_t stream, uint64_t i);
