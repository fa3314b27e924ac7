// From a question and a text to the ids that a reward model reads.
#pragma once
#include "hf.h"
#include "text.h"
#include "tokenizer.h"
#include <jansson.h>

typedef struct {
    const Tokenizer *tokenizer;
    const char *template; // of the conversation; NULL: one text after the other, and the token that ends a text
    int32_t end;          // that token
    int32_t pad;          // the score is that of the last token that is not this one; < 0: of the last
} ScoredText;
// What reads texts as the directory says; `chosen` is a chat template's name, "auto" or "raw". False after filling *e.
bool scored_text_open(ScoredText *t, const char *chosen, const char *dir, const HfConfig *hf, const Tokenizer *tok,
                      Error *e);
// The ids up to the one whose score counts, as transformers 5.24 chooses it. False after filling *e: the template
// cannot say this.
bool scored_text_ids(const ScoredText *t, const char *question, Text text, Ids *out, Error *e);
// Renders a whole conversation into ids; `tools` may be NULL. For a template only.
bool scored_messages_ids(const ScoredText *t, const json_t *messages, const json_t *tools, Ids *out, Error *e);
