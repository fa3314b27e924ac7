// What each token of a text shows of it.
#pragma once
#include "tokenizer.h"

// The text of each of ids[n], special tokens as they are written: put together, what all decode to. A character of several tokens
// stands with the last of them. Heap memory: each, and the list.
char **token_pieces(const Tokenizer *t, const int32_t *ids, int n);
