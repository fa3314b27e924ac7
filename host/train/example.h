// Examples: what supervised tuning learns from a row of its file.
#pragma once
#include "prompt.h"

typedef struct {
    Ids ids;
    uint8_t *wanted; // [ids.n] whether the token is learned
    size_t cap;
    int file; // which of the training files it is of
} Example;
// The row's prompt and completion, or its messages with its `tools`. False after filling *e: they cannot be rendered.
bool example_read(const Prompter *p, const json_t *row, Example *x, Error *e);
// A RowCheck of such rows, with the prompter as its argument.
RowFate example_check(const void *prompter, const Row *row, Error *e);
// Cuts the example to its first `max` ids; false where none of them is learned.
bool example_cut(Example *x, int64_t max);
void example_free(Example *x);
