// Rows of replies without a score: how long they are, over all ranks, and the end of a run by them.
#include "judging.h"
#include "state.h"
#include <string.h>

void reply_rows_join(ReplyRows *rows, ReplyRows behind) {
    int64_t middle = rows->last + behind.first;
    if (behind.longest > rows->longest) rows->longest = behind.longest;
    if (middle > rows->longest) rows->longest = middle;
    if (rows->first == rows->n) rows->first = middle;
    rows->last = behind.last == behind.n ? rows->last + behind.n : behind.last;
    rows->n += behind.n;
}

void reward_replied(const Reward *r, ReplyRows rows, const char *unread) {
    if (!r->state) return;
    pthread_mutex_lock(&r->state->lock);
    reply_rows_join(&r->state->rows, rows);
    if (unread) {
        size_t cut = strnlen(unread, REPLY_SHOWN - 1);
        while (cut && (unread[cut] & 0xc0) == 0x80) cut--;
        memcpy(r->state->unread, unread, cut);
        r->state->unread[cut] = 0;
    }
    pthread_mutex_unlock(&r->state->lock);
}

bool reward_goes_on(const Reward *r, Error *e) {
    if (!r->state || r->info->check != judging_check) return true;
    RewardState *s = r->state;
    double most = reward_number(r, "max_unmatched");
    pthread_mutex_lock(&s->lock);
    bool ok = most <= 0 || (double)s->rows.longest < most;
    if (!ok)
        error_set(e, EXIT_INPUT,
                  "reward %s: `%s` finds no score from %.10g to %.10g in the replies to %.0f completions in a row "
                  "(max_unmatched)%s%s",
                  r->name, reward_text(r, "pattern"), reward_number(r, "min_score"), reward_number(r, "max_score"),
                  most, *s->unread ? "; one " : "", s->unread);
    pthread_mutex_unlock(&s->lock);
    return ok;
}

RewardTally reward_tally(const Reward *r) {
    RewardTally t = {0};
    if (!r->state) return t;
    for (int f = 0; f < REWARD_FAULTS; f++) t.faults[f] = reward_faults(r, (RewardFault)f);
    pthread_mutex_lock(&r->state->lock);
    t.scored = r->state->scored;
    t.rows = r->state->rows;
    memcpy(t.unread, r->state->unread, sizeof t.unread);
    pthread_mutex_unlock(&r->state->lock);
    return t;
}

void reward_tally_join(RewardTally *t, const RewardTally *behind) {
    for (int f = 0; f < REWARD_FAULTS; f++) t->faults[f] += behind->faults[f];
    t->scored.asked += behind->scored.asked;
    t->scored.scored += behind->scored.scored;
    reply_rows_join(&t->rows, behind->rows);
    if (*behind->unread) memcpy(t->unread, behind->unread, sizeof t->unread);
}

bool reward_take_tally(const Reward *r, const RewardTally *all, bool first, Error *e) {
    RewardState *s = r->state;
    if (!s) return true;
    pthread_mutex_lock(&s->lock);
    for (int f = 0; f < REWARD_FAULTS; f++) s->others[f] = all->faults[f] - reward_faults(r, (RewardFault)f);
    s->others_scored.asked = all->scored.asked - s->scored.asked;
    s->others_scored.scored = all->scored.scored - s->scored.scored;
    s->rows = all->rows;
    memcpy(s->unread, all->unread, sizeof s->unread);
    pthread_mutex_unlock(&s->lock);
    if (!reward_goes_on(r, e)) return false;
    int64_t open = first ? all->rows.last : 0; // a row that may go on
    pthread_mutex_lock(&s->lock);
    s->rows = (ReplyRows){open, open, open, open};
    if (!open) *s->unread = 0;
    pthread_mutex_unlock(&s->lock);
    return true;
}

int64_t reward_faults_of_all(const Reward *r, RewardFault fault) {
    return r->state ? reward_faults(r, fault) + r->state->others[fault] : 0;
}

RewardScored reward_scored_of_all(const Reward *r) {
    if (!r->state) return (RewardScored){0, 0};
    pthread_mutex_lock(&r->state->lock);
    RewardScored all = {r->state->scored.asked + r->state->others_scored.asked,
                        r->state->scored.scored + r->state->others_scored.scored};
    pthread_mutex_unlock(&r->state->lock);
    return all;
}
