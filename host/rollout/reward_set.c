// The rewards of a run: selecting and opening them, and work on whole batches of scores. Scoring itself is in
// reward_threads.c.
#include "adapter_files.h"
#include "fingerprint.h"
#include "judging.h"
#include "random.h"
#include "reward_set.h"
#include "rollout.h"
#include <sys/stat.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

_Static_assert(MAX_REWARDS <= 32, "a bit a reward");

// Reads one reward of the configuration, with the run's think markers.
static bool read_reward(const Config *c, const char *spec, Reward *r, Error *e) {
    return reward_parse(spec, r, e) && think_markers_read(&r->think, c->think_markers.item, c->think_markers.n, e);
}

// Adds the rewards of a list that are not selected yet; *of: a bit for each reward of the list.
static bool add_list(Rewards *rw, const Config *c, const TextList *list, uint32_t *of, Error *e) {
    *of = 0;
    for (int i = 0; i < list->n; i++) {
        Reward r;
        int k = 0;
        if (!read_reward(c, list->item[i], &r, e)) return error_prefix(e, "rewards");
        while (k < rw->n && strcmp(rw->reward[k].name, r.name)) k++; // of one name are the same: config_check
        if (k == MAX_REWARDS)
            return error_set(e, EXIT_CONFIG, "rewards: more are selected than can be, which is %d", MAX_REWARDS);
        if (k == rw->n) rw->reward[rw->n++] = r;
        *of |= 1u << k;
    }
    return true;
}

static bool add_grader(const Config *c, Rewards *out, Error *e) {
    if (!out->n) return error_set(e, EXIT_CONFIG, "rewards: none selected; see `grpo reward --list`");
    return !*c->eval_grader || read_reward(c, c->eval_grader, &out->grader, e) || error_prefix(e, "eval_grader");
}

bool rewards_select(const Config *c, Rewards *out, Error *e) {
    uint32_t all;
    *out = (Rewards){0};
    return add_list(out, c, &c->rewards, &all, e) && add_grader(c, out, e);
}

bool rewards_select_training(const Config *c, Rewards *out, Error *e) {
    uint32_t runs = 0, own;
    *out = (Rewards){0};
    if (config_reads_rewards(c) && !add_list(out, c, &c->rewards, &runs, e)) return false;
    out->silent_for_others = ~runs;
    for (int f = 0; f < c->train_file.n; f++) {
        const TextList *list = &c->train_file.item[f].rewards;
        if (list->n && !add_list(out, c, list, &own, e)) return false;
        out->silent_for_file[f] = list->n ? ~own : ~runs;
    }
    return add_grader(c, out, e);
}

bool rewards_score(const Rewards *rw, int file, int k) {
    return !((file == NO_FILE ? rw->silent_for_others : rw->silent_for_file[file]) >> k & 1);
}

bool reward_may_come(const Reward *r) {
    return r->info->fn && r->info->faults & (1u << REWARD_TIMEOUT | 1u << REWARD_CRASH | 1u << REWARD_FLOOD |
                                             1u << REWARD_BAD_REPLY | 1u << REWARD_NO_SANDBOX);
}

const char *reward_model_dir(const Reward *r) { return r->info->by_model ? reward_text(r, "model") : ""; }

const char *reward_template_file(const Reward *r) {
    return r->info->check == judging_check ? judging_template_file(r) : "";
}

const char *reward_program(const Reward *r) { return r->info->program ? reward_text(r, r->info->program) : ""; }

bool reward_program_sum(const Reward *r, uint32_t *crc, Error *e) {
    char *words = xstrdup(reward_program(r)), *save = NULL;
    bool ok = true;
    struct stat st;
    for (char *word = strtok_r(words, " ", &save); word && ok; word = strtok_r(NULL, " ", &save))
        if (!stat(word, &st) && S_ISREG(st.st_mode)) ok = fingerprint(crc, word, e);
    free(words);
    return ok;
}

// A model's directory; of an adapter, its own and that of the model it was trained beside.
static bool add_model(uint32_t *crc, const char *dir, Error *e) {
    char *beside = NULL;
    bool ok = !adapter_is(dir) || ((beside = adapter_model_dir(dir, e)) && fingerprint(crc, beside, e));
    free(beside);
    return ok && fingerprint(crc, dir, e);
}

bool rewards_files_sum(const Rewards *rw, char sum[16], Error *e) {
    uint32_t crc = 0;
    bool any = false;
    for (int k = 0; k < rw->n; k++) {
        const char *dir = reward_model_dir(&rw->reward[k]), *template = reward_template_file(&rw->reward[k]);
        if ((*dir && !add_model(&crc, dir, e)) || (*template && !fingerprint(&crc, template, e)) ||
            !reward_program_sum(&rw->reward[k], &crc, e))
            return false;
        any = any || *dir || *template || *reward_program(&rw->reward[k]);
    }
    *sum = 0;
    if (any) snprintf(sum, 16, "%08x", crc);
    return true;
}

bool rewards_open(Rewards *rw, Error *e) {
    for (int k = 0; k < rw->n; k++) {
        if (reward_open(&rw->reward[k], e)) continue;
        rewards_close(rw);
        return error_prefix(e, "rewards");
    }
    if (!rw->grader.info || reward_open(&rw->grader, e)) return true;
    rewards_close(rw);
    return error_prefix(e, "eval_grader");
}

bool rewards_go_on(const Rewards *rw, Error *e) {
    for (int k = 0; k < rw->n; k++)
        if (!reward_goes_on(&rw->reward[k], e)) return false;
    return !rw->grader.info || reward_goes_on(&rw->grader, e);
}

void rewards_note(const Rewards *rw) {
    for (int k = 0; k <= rw->n; k++) {
        const Reward *r = k < rw->n ? &rw->reward[k] : &rw->grader;
        Str s = {0};
        RewardScored all = reward_scored_of_all(r);
        int64_t faults = 0;
        for (int f = 0; f < REWARD_FAULTS; f++) {
            int64_t n = reward_faults_of_all(r, f);
            faults += n;
            if (n) str_printf(&s, "%s%s %lld", s.n ? ", " : "", reward_fault_name[f], (long long)n);
        }
        if (s.n) note("reward %s: completions without a proper score: %s", r->name, s.s);
        if (all.asked > faults && !all.scored) // else all is said
            note("reward %s: none of the %lld completions of this run has a score: it abstained from each, and counts "
                 "for nothing",
                 r->name, (long long)all.asked);
        str_free(&s);
    }
}

// ---- rewards against stop strings -----------------------------------------------------------------------------------

static float score_text(const Reward *r, const char *text) {
    Sample s = {.prompt = "", .completion = text, .completion_len = strlen(text), .answer = "4"};
    float score = 0;
    r->info->fn(r, &s, 1, &score);
    return isnan(score) ? 0 : score;
}

// Scores an answer in four forms: whole; cut by the stop rule; with the cut part made unreadable, which tells a reward
// that misses it from one that only counts length; and cut but with the stop string kept. False where the rule leaves
// the answer whole.
static bool score_cut(const Reward *r, const char *text, StopRule rule, float score[4]) {
    size_t n = strlen(text);
    int64_t end = stop_end(&rule, text, n, n);
    rule.include_stop = true;
    int64_t whole = stop_end(&rule, text, n, n);
    if (end < 0 || end == (int64_t)n) return false;
    char *cut = xstrndup(text, (size_t)end), *unread = xstrdup(text), *with = xstrndup(text, (size_t)whole);
    memset(unread + end, 'x', n - (size_t)end);
    const char *const all[] = {text, cut, unread, with};
    for (int i = 0; i < 4; i++) score[i] = score_text(r, all[i]);
    free(cut), free(unread), free(with);
    return true;
}

void rewards_note_stops(const Rewards *rw, const Config *c) {
    static const char *const answers[] = {"<think>\n2+2\n</think>\n<answer>\n4\n</answer>\n", // the recipe's form
                                          "<think>\n2+2\n</think>\n<answer>\n4\n</answer>",   // Open R1's
                                          "<think>2+2</think><answer>4</answer>",             // on one line
                                          "<think>\n2+2\n</think>\n<answer>\n\\boxed{4}\n</answer>", // as mathematics
                                          "<think>\n2+2\n</think>\n<answer>\n```python\nprint(4)\n```\n</answer>"};
    const unsigned others = 1u << REWARD_TIMEOUT | 1u << REWARD_CRASH; // faults of rewards that ask others: not tried
    StopRule rule = {.stop = c->stop, .include_stop = c->include_stop};
    for (int k = 0; k < rw->n && c->stop.n; k++) {
        const Reward *r = &rw->reward[k];
        if (!r->info->fn || r->info->faults & others || r->info->reads & (REWARD_READS_IDS | REWARD_READS_GROUP))
            continue;
        for (size_t i = 0; i < sizeof answers / sizeof *answers; i++) {
            float score[4];
            char *answer = think_replace(&r->think, answers[i]);
            bool cut = score_cut(r, answer, rule, score);
            free(answer);
            if (!cut || score[1] >= score[0] || score[2] >= score[0]) continue;
            note("reward %s needs what `stop` cuts off: a well-formed answer has %.4g, cut there %.4g; %s", r->name,
                 (double)score[0], (double)score[1],
                 !c->include_stop && score[3] >= score[0] ? "set include_stop=true"
                                                          : "leave that string out of `stop`");
            break;
        }
    }
}

void rewards_close(Rewards *rw) {
    for (int k = 0; k < rw->n; k++) reward_close(&rw->reward[k]);
    reward_close(&rw->grader);
}

Sample batch_sample(const Batch *b, int i) {
    return (Sample){.prompt = b->question[i / b->group],
                    .completion = b->text[i],
                    .completion_len = strlen(b->text[i]),
                    .answer = b->answer[i / b->group],
                    .ids = b->ids + (size_t)i * (size_t)b->max_completion,
                    .n_ids = b->len[i],
                    .group = i / b->group};
}

bool rewards_right(float score) { return score > 0.5f; }

void rewards_grade(const Rewards *rw, const Batch *b, float *score) {
    for (int i = 0; i < b->n; i++) {
        const Sample s = batch_sample(b, i);
        rw->grader.info->fn(&rw->grader, &s, 1, &score[i]);
    }
}

// The control experiment: each completion keeps its text and gets the scores of another.
void rewards_shuffle(Batch *b, uint64_t seed, uint64_t stream) {
    float *row = xmalloc((size_t)b->n_rewards * sizeof *row);
    size_t bytes = (size_t)b->n_rewards * sizeof *row;
    for (int i = b->n - 1; i > 0; i--) {
        int j = (int)(random_bits(seed, stream, (uint64_t)i) % (uint64_t)(i + 1));
        memcpy(row, b->score + i * b->n_rewards, bytes);
        memcpy(b->score + i * b->n_rewards, b->score + j * b->n_rewards, bytes);
        memcpy(b->score + j * b->n_rewards, row, bytes);
        float r = b->reward[i];
        b->reward[i] = b->reward[j];
        b->reward[j] = r;
    }
    free(row);
}
