// Opening and closing a selected reward, and the weighted sum of scores.
#include "grpo_math.h"
#include "reward.h"
#include "state.h"
#include <stdlib.h>
#include <string.h>

bool reward_open(Reward *r, Error *e) {
    RewardState *state = xcalloc(1, sizeof *state);
    pthread_mutex_init(&state->lock, NULL);
    if (r->info->open && !(state->data = r->info->open(r, e))) {
        pthread_mutex_destroy(&state->lock);
        free(state);
        return error_prefix(e, "reward %s", r->info->name);
    }
    r->state = state;
    return true;
}

void reward_close(Reward *r) {
    if (!r->state) return;
    if (r->info->close) r->info->close(r->state->data);
    pthread_mutex_destroy(&r->state->lock);
    free(r->state);
    r->state = NULL;
}

bool reward_alike(const Reward *a, const Reward *b) {
    bool same = a->info == b->info && a->weight == b->weight && !strcmp(a->name, b->name) &&
                !strcmp(a->think.open, b->think.open) && !strcmp(a->think.close, b->think.close);
    for (int i = 0; same && i < a->info->n_params; i++) same = a->info->params[i].how || a->param[i] == b->param[i];
    for (int i = 0; i < REWARD_MAX_TEXTS; i++) same = same && !strcmp(a->text[i], b->text[i]);
    return same;
}

bool reward_same(const Reward *a, const Reward *b) {
    bool same = reward_alike(a, b);
    for (int i = 0; i < REWARD_MAX_PARAMS; i++) same = same && a->param[i] == b->param[i];
    return same;
}

float reward_total(const Reward *r, int n_rewards, const float *score) {
    float weight[MAX_REWARDS];
    for (int i = 0; i < n_rewards; i++) weight[i] = (float)r[i].weight; // as the loss has them
    return grpo_reward(score, weight, n_rewards);
}
