// plugin:path=contains_answer.so gives 1 where the completion contains gold, and abstains without gold; `argument` is
// what it gives instead of 1. Build: cc -shared -fPIC -I include -o contains_answer.so
// rewards/examples/contains_answer.c
#include "reward_plugin.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static void *start(const char *argument, char *error, size_t error_bytes) {
    float *value = malloc(sizeof *value);
    *value = *argument ? strtof(argument, NULL) : 1;
    if (*value != 0) return value;
    strncpy(error, "the argument must be a number other than 0", error_bytes);
    free(value);
    return NULL;
}

static void score(void *value, const RewardPluginSample *samples, int n, float *out) {
    for (int i = 0; i < n; i++)
        out[i] = !*samples[i].answer ? NAN : strstr(samples[i].completion, samples[i].answer) ? *(float *)value : 0;
}

const RewardPlugin reward_plugin = {REWARD_PLUGIN_ABI, start, score, free};
