// From what a policy wrote, inside a template, to ids.
#pragma once
#include "text.h"
#include "tokenizer.h"

// Renders text around `said`, and appends its ids: the template's special tokens are tokens, those that `said` spells
// are text, so that nobody writes himself a turn in a judge's conversation. `render` adds the text with `said` in its
// place, NUL- terminated as it is; false after filling *e.
typedef bool RenderAround(const void *arg, Text said, Str *out, Error *e);
bool encode_around(const Tokenizer *t, RenderAround *render, const void *arg, Text said, Ids *out, Error *e);
