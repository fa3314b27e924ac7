// What each command needs of an engine: see engine.h.
#include "engine.h"
#include "micro.h"
#include "reward_set.h"
#include <stdlib.h>

RunShape shape_for_rollout(const Config *c, int64_t sequences, int64_t prompts) {
    int slots = c->rollout_batch > 0 ? (int)c->rollout_batch : 64;
    if (slots > sequences) slots = (int)sequences;
    if (prompts > slots) prompts = slots; // more are never held at a time
    return (RunShape){.rollout =
                          rollout_shape(slots, (int)prompts, (int)c->max_prompt_length, (int)c->max_completion_length)};
}

// The most rows that a micro-batch of training has. Where a generation feeds one optimizer step, which prompts meet in
// a micro-batch is known; where it is shuffled for several, all of them may.
static int64_t most_rows(const Config *c, int generation, bool shuffled) {
    int size = (int)c->per_device_train_batch_size, n = generation / (int)c->gpus;
    int group = c->share_prompts ? (int)c->num_generations : 1, groups = generation / group; // of all ranks
    if (shuffled) return size * c->max_completion_length + (groups < size ? groups : size) * c->max_prompt_length;
    int64_t most = 0;
    int *seq = xcalloc((size_t)n, sizeof *seq); // a rank's range
    for (int first = 0; first < generation; first += n) {
        for (int i = 0; i < n; i++) seq[i] = first + i;
        for (int at = 0, count; at < n; at += count) {
            count = micro_take(seq + at, n - at, size, group);
            int prompts = seq[at + count - 1] / group - seq[at] / group + 1;
            int64_t rows = count * c->max_completion_length + prompts * c->max_prompt_length;
            if (rows > most) most = rows;
        }
    }
    free(seq);
    return most;
}

RunShape shape_for_train(const Config *c, const Rewards *rw) {
    int n = (int)config_generation_size(c), groups = n / (int)c->num_generations;
    int held = (groups + (int)c->gpus - 1) / (int)c->gpus; // groups that one rank answers, at most
    RunShape s = shape_for_rollout(c, held * c->num_generations, held);
    s.train = true;
    s.reference = c->beta != 0;
    s.train_seqs = (int)c->per_device_train_batch_size;
    s.train_tokens = most_rows(c, n, config_steps_per_generation(c) > c->gradient_accumulation_steps);
    s.score_rows = n;
    s.n_rewards = rw->n;
    s.rewards = rw;
    s.held = (int64_t)n * (c->max_completion_length > GM_COUNT ? c->max_completion_length : GM_COUNT);
    return s;
}

RunShape shape_for_sft(const Config *c) {
    int64_t tokens = c->per_device_train_batch_size * c->max_length;
    return (RunShape){.train = true,
                      .train_tokens = tokens,
                      .train_seqs =
                          (int)(c->per_device_train_batch_size * (c->packing ? c->gradient_accumulation_steps : 1)),
                      .held = 2 * c->gradient_accumulation_steps * tokens};
}

RunShape shape_for_pairs(const Config *c) {
    int64_t texts = 2 * c->per_device_train_batch_size;
    return (RunShape){
        .train = true, .score_head = true, .train_tokens = texts * c->max_length, .train_seqs = (int)texts};
}
