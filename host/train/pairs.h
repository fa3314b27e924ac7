// Pairs: what a reward model learns from a row of its file, an answer that was chosen and one that was rejected.
#pragma once
#include "scored_text.h"
#include "dataset.h"

typedef struct {
    Ids chosen, rejected; // up to the token whose score counts
    double margin;        // what the difference of the scores is to exceed; 0 where the row has none
} Pair;

// How rows become pairs.
typedef struct {
    const Config *cfg;
    ScoredText text;
    int64_t max; // tokens of either text
} PairReader;

// Reads a row with prompt_field (which may be missing), chosen_field and rejected_field, texts or lists of messages,
// and perhaps a number `margin`. False after filling *e.
bool pair_read(const PairReader *r, const json_t *row, Pair *p, Error *e);
// A RowCheck of such rows, with the reader as its argument; a text over the reader's limit makes a row bad.
RowFate pair_check(const void *reader, const Row *row, Error *e);
void pair_free(Pair *p);
