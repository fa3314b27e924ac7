// Finding the nearest name, for messages that ask "did you mean ...".
#pragma once
#include "error.h"
#include <stddef.h>

// The nearest of `n` names to `word` by edit distance, or NULL where none is near.
const char *nearest_name(const char *word, const char *const *names, int n);
// Fills *e (EXIT_CONFIG) for `arg`, NAME=VALUE or -NAME, which is none of `command`'s options names[n]. Returns false.
bool no_such_option(const char *arg, const char *const *names, int n, const char *command, Error *e);
