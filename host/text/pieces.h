// The text of each token of a completion.
#pragma once
#include "tokenizer.h"

// The text of each of ids[n], with special tokens as they are written; joined they are what all ids decode to. A
// character that several tokens make up is in the text of the last of them. Each, and the list, is heap memory.
char **token_pieces(const Tokenizer *t, const int32_t *ids, int n);
