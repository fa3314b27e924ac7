// The batch: sequences of one generation, in columns.
#include "batch.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

Batch batch_new(int prompts, int group, int max_completion, int n_rewards) {
    Batch b = {.prompts = prompts,
               .group = group,
               .n = prompts * group,
               .max_completion = max_completion,
               .n_rewards = n_rewards};
    size_t P = (size_t)prompts, n = (size_t)b.n, tokens = n * (size_t)max_completion;
    b.row = xcalloc(P, sizeof *b.row);
    b.question = xcalloc(P, sizeof *b.question);
    b.answer = xcalloc(P, sizeof *b.answer);
    b.prompt = xcalloc(P, sizeof *b.prompt);
    b.state = xcalloc(n, sizeof *b.state);
    b.finish = xcalloc(n, sizeof *b.finish);
    b.key = xcalloc(n, sizeof *b.key);
    b.len = xcalloc(n, sizeof *b.len);
    b.ids = xcalloc(tokens, sizeof *b.ids);
    b.logp = xcalloc(tokens, sizeof *b.logp);
    b.text = xcalloc(n, sizeof *b.text);
    b.score = xcalloc(n * (size_t)(n_rewards ? n_rewards : 1), sizeof *b.score);
    b.reward = xcalloc(n, sizeof *b.reward);
    b.ref_logp = xcalloc(tokens, sizeof *b.ref_logp);
    b.entropy = xcalloc(tokens, sizeof *b.entropy);
    b.advantage = xcalloc(n, sizeof *b.advantage);
    b.loss = xcalloc(n, sizeof *b.loss);
    return b;
}

// Frees the texts of prompt p and of its completions, and queues them again.
void batch_clear_prompt(Batch *b, int p) {
    free(b->question[p]);
    free(b->answer[p]);
    b->question[p] = b->answer[p] = NULL;
    ids_clear(&b->prompt[p]);
    for (int i = p * b->group; i < (p + 1) * b->group; i++) {
        free(b->text[i]);
        b->text[i] = NULL;
        b->state[i] = SEQ_QUEUED;
        b->finish[i] = FINISH_NONE;
        b->len[i] = 0;
    }
}

void batch_clear(Batch *b) {
    for (int p = 0; p < b->prompts; p++) batch_clear_prompt(b, p);
}

void batch_free(Batch *b) {
    batch_clear(b);
    for (int p = 0; p < b->prompts; p++) ids_free(&b->prompt[p]);
    void *columns[] = {b->row,    b->question, b->answer,  b->prompt,    b->state, b->finish,
                       b->key,    b->len,      b->ids,     b->logp,      b->text,  b->score,
                       b->reward, b->ref_logp, b->entropy, b->advantage, b->loss};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) free(columns[i]);
    *b = (Batch){0};
}
