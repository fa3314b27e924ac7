// Random numbers of the host, by splitmix64.
#include "random.h"

uint64_t random_mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

uint64_t random_bits(uint64_t seed, uint64_t stream, uint64_t i) {
    return random_mix(random_mix(seed * RANDOM_STEP + stream * 0xd1b54a32d192ed03u + (i + 1) * RANDOM_STEP));
}
