// The groups of completions.jsonl, evenly thinned to what a page can hold.
#pragma once
#include "str.h"
#include <stdint.h>

typedef struct {
    int64_t seen, stride, lines; // groups begun; every stride-th of them, from the first on, is kept; lines in all
    int64_t torn;                // kept lines that are no JSON objects
    size_t bytes, budget;        // of the kept groups' JSON; the most there may be
    int n, cap;
    char **group;    // [n] JSON
    Str raw;         // the lines of the group that came last, a newline behind each
    size_t key;      // bytes its lines have in common: step and prompt; 0: it is of one line
    int64_t dropped; // its lines that raw has no room for
} Groups;
enum { MAX_GROUPS = 512 };
Groups groups_new(size_t budget);
void groups_free(Groups *g);
void groups_add(Groups *g, const char *line, size_t n);
// Appends {"seen", "stride", "lines", "torn", "groups": [...]}, each group {"step", "prompt", "answer", "left" (completions
// there was no room for), "items": [{"completion", "reward", "advantage", "rewards": {name: score}, "truncated", "tokens": [[text, log-prob,
// entropy]]}]}; the last group is there in
// any case. A long text is {"head", "cut" (bytes), "tail"}.
void groups_json(Groups *g, Str *out);
