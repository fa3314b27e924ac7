// Finding the nearest name, for messages that ask "did you mean ...".
#pragma once
#include <stddef.h>

// The nearest of `n` names to `word` by edit distance, or NULL where none is near.
const char *nearest_name(const char *word, const char *const *names, int n);
