// The groups of completions.jsonl, evenly thinned to what a page can hold.
#pragma once
#include "str.h"
#include <stdint.h>

typedef struct {
    int64_t seen, stride, lines; // groups begun; every stride-th of them, from the first on, is kept; lines in all
    int64_t torn;                // kept lines that are not JSON objects
    size_t bytes, budget;        // size of the kept groups' JSON, and its limit
    int n, cap;
    char **group;    // [n] JSON
    Str raw;         // the lines of the last group, a newline behind each
    size_t key;      // bytes (step and prompt) that the last group's lines share; 0: it has only one line
    int64_t dropped; // lines of the last group that `raw` had no room for
} Groups;
enum { MAX_GROUPS = 512 };
Groups groups_new(size_t budget);
void groups_free(Groups *g);
void groups_add(Groups *g, const char *line, size_t n);
// Appends {"seen", "stride", "lines", "torn", "groups": [...]}. Each group is {"step", "prompt", "answer", "left"
// (number of completions that had no room), "items": [{"completion", "reward", "advantage", "rewards": {name: score},
// "truncated", "tokens": [[text, log-prob, entropy]]}]}. The last group is always there. A long text is {"head", "cut"
// (bytes), "tail"}.
void groups_json(Groups *g, Str *out);
