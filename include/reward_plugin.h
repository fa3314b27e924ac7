// A reward of your own as a shared object: grpo reward plugin:path=./mine.so FILE, or in YAML
// `rewards: [{name: plugin, path: ./mine.so, argument: "any text"}]`.
//
//     cc -shared -fPIC -I include -o mine.so mine.c
//
// The object defines `const RewardPlugin reward_plugin`. It runs inside the training process, in several threads at a
// time: a crash in it is a crash of the run. Where that matters, write a program instead (the reward `external`).
// This header stands alone.
#ifndef REWARD_PLUGIN_H
#define REWARD_PLUGIN_H
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define REWARD_PLUGIN_ABI 1 // changes with this header's structures

// One completion. Strings are UTF-8 and NUL-terminated; a completion may hold NUL, so its length stands beside it.
typedef struct {
    const char *prompt; // the question; "" where unknown
    const char *completion;
    size_t completion_bytes;
    const char *answer;   // gold
    const int32_t *ids;   // [n_ids] the completion's tokens; NULL where unknown
    int32_t n_ids, group; // completions with the same group answer the same prompt
} RewardPluginSample;

typedef struct {
    int abi; // REWARD_PLUGIN_ABI
    // Called once at the start with the reward's `argument`; may be NULL. What it returns is passed on. To refuse,
    // write a sentence into error[0 .. error_bytes - 1]; it must be NUL-terminated.
    void *(*open)(const char *argument, char *error, size_t error_bytes);
    // Writes score[0 .. n - 1]; NaN abstains, an infinite score counts as a failure. Called by several threads at once.
    void (*score)(void *opened, const RewardPluginSample *samples, int n, float *score);
    void (*close)(void *opened); // once at the end; may be NULL
} RewardPlugin;

extern const RewardPlugin reward_plugin;

#ifdef __cplusplus
}
#endif
#endif
