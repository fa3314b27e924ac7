// The prompter: turns a question into prompt ids by the chat template and the options.
#pragma once
#include "batch.h"
#include "chat.h"
#include "dataset.h"
#include "hf.h"
#include "mix.h"
#include "tokenizer.h"

// What the checks below saw of prompts over max_prompt_length; several threads count at once.
typedef struct {
    _Atomic int64_t prompts, longest; // how many; tokens of the longest
} LongPrompts;
typedef struct {
    const Config *cfg;
    const HfConfig *hf; // for the ids that end a completion
    const Tokenizer *tokenizer;
    const char *template; // the chat template; NULL: questions are raw text
    char *system;         // system message, or NULL for the template's own
    ChatExample *shown;   // [n_shown] examples before each question
    int n_shown;
    LongPrompts *seen; // [2] owned: by prompter_check, by prompter_check_eval
} Prompter;
typedef enum { PROMPT_GOOD, PROMPT_SKIPPED, PROMPT_FAILED } PromptFate;
// Opens a prompter; its arguments must outlive it. False after filling *e.
bool prompter_open(Prompter *p, const Config *c, const HfConfig *hf, const Tokenizer *t, const char *template,
                   Error *e);
// Puts the examples of few_shot_file, where one is set, before each question. False after filling *e.
bool prompter_show(Prompter *p, Error *e);
void prompter_close(Prompter *p);
// The ids of a question's prompt, however many.
bool prompter_ids(const Prompter *p, const char *question, Ids *out, Error *e);
// Applies max_prompt_length by the long_prompts rule, to the prompt of a row.
PromptFate prompter_limit(const Prompter *p, Ids *ids, const Row *row, Error *e);
// Whether a row's question can be asked: a RowCheck, with the prompter as its argument. prompter_check_eval counts what
// is too long apart, for evaluations. Where long_prompts is fail, both refuse it.
RowFate prompter_check(const void *prompter, const Row *row, Error *e);
RowFate prompter_check_eval(const void *prompter, const Row *row, Error *e);
// Says in a note how many of the `rows` prompts checked so far were too long, if any, and what becomes of them: `eval`:
// of those of prompter_check_eval. `what`: the option that names their file.
void prompter_note_long(const Prompter *p, const char *what, int64_t rows, bool eval);
// Fills prompt p of the batch from the files' next usable row.
bool prompter_next(const Prompter *pr, Mix *data, Batch *b, int p, Error *e);
// Moves a row's question and gold into prompt p of the batch.
void prompter_take(Batch *b, int p, Row *row);
// Fills prompts [0, n) of the batch with rows [first, first + n) of the data set; the random streams
// of their completions depend on the row alone. The rest of the batch is not decoded. A prompt over max_prompt_length
// keeps its last tokens where `cut`; else it is not decoded either, and its ids are empty. False after filling *e.
bool prompter_rows(const Prompter *pr, Dataset *data, int64_t first, int n, bool cut, Batch *b, Error *e);
