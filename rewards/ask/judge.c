// The reward `judge`: asks a language model for its opinion, over HTTP. The prompt is made from a template; the score
// is what a pattern finds in the reply. Equal prompts are asked once.
#include "judge.h"
#include "file.h"
#include "regex.h"
#include "ask.h"
#include "worker.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define CACHE_BUCKETS 65536
#define CACHE_BYTES   (256 << 20) // of prompts; when they are more, the cache is cleared
#define TEMPLATE_MAX  (64 << 10)
#define BATCH         64
#define MATCHES       1000 // in one reply

typedef struct Cached {
    struct Cached *next;
    uint64_t hash;
    float score;
    size_t n;
    char prompt[];
} Cached;

typedef struct {
    char *url, *model, *template, *key, *user;
    char *shown, *hello; // the URL without user and password; the first request
    Regex *regex;
    JudgeServer server;
    WorkerPool *pool;
    pthread_mutex_t lock; // of the cache
    Cached **bucket;      // [CACHE_BUCKETS]
    size_t cached_bytes;
} Judge;

// ---- the template ----------------------------------------------------------------------------------------------------

typedef enum { FIELD_PROMPT, FIELD_COMPLETION, FIELD_SUMMARY, FIELD_ANSWER, FIELDS } Field;
static const char *const field_name[FIELDS] = {"{prompt}", "{completion}", "{summary}", "{answer}"};

// The field whose name is at byte `at` of the template, or -1.
static int field_at(Text t, size_t at) {
    for (int f = 0; f < FIELDS; f++)
        if (text_word_at(t, at, field_name[f])) return f;
    return -1;
}

static bool is_double(Text t, size_t at) { return text_word_at(t, at, "{{") || text_word_at(t, at, "}}"); }

static bool template_check(const char *template, Error *e) {
    Text t = text_of(template);
    bool reads = false;
    for (size_t at = 0; at < t.n; at++) {
        int f = field_at(t, at);
        if (f >= 0) {
            reads = reads || f == FIELD_COMPLETION || f == FIELD_SUMMARY;
            at += strlen(field_name[f]) - 1;
        } else if (is_double(t, at)) at++;
        else if (t.s[at] == '{' || t.s[at] == '}')
            return error_set(
                e, EXIT_CONFIG,
                "template: `%.20s` at byte %zu is no field: known are {prompt}, {completion}, {summary} and "
                "{answer}; a brace is written twice",
                t.s + at, at);
    }
    return reads || error_set(e, EXIT_CONFIG,
                              "template: neither {completion} nor {summary} is in it: there is nothing to judge");
}

static void template_fill(const char *template, const ThinkMarkers *think, const Sample *s, Str *out) {
    Text t = text_of(template), mine = sample_text(s);
    Text value[FIELDS] = {text_of(s->prompt), mine, summary_of(think, mine), text_of(s->answer)};
    for (size_t at = 0; at < t.n; at++) {
        int f = field_at(t, at);
        if (f < 0) {
            str_add(out, t.s + at, 1);
            at += is_double(t, at);
            continue;
        }
        for (size_t k = 0, n; k < value[f].n; k += n) { // a NUL would end the prompt
            n = strnlen(value[f].s + k, value[f].n - k);
            str_add(out, value[f].s + k, n);
            n += k + n < value[f].n;
        }
        at += strlen(field_name[f]) - 1;
    }
}

// Reads the template: the text itself, or the content of the file that is named behind @.
static char *template_read(const char *text, Error *e) {
    if (*text != '@') return xstrdup(text);
    size_t n;
    Error why;
    char *all = file_read_text(text + 1, TEMPLATE_MAX, &n, &why);
    if (all && !memchr(all, 0, n)) return all;
    error_set(e, EXIT_CONFIG, "template: %s", all ? "holds a NUL; it must be text" : why.text);
    free(all);
    return NULL;
}

// ---- the cache -------------------------------------------------------------------------------------------------------

static uint64_t hash_of(const char *s, size_t n) { // FNV-1a
    uint64_t h = 0xcbf29ce484222325u;
    for (size_t i = 0; i < n; i++) h = (h ^ (unsigned char)s[i]) * 0x100000001b3u;
    return h;
}

static bool cache_find(Judge *j, const Str *prompt, float *score) {
    uint64_t hash = hash_of(prompt->s, prompt->n);
    pthread_mutex_lock(&j->lock);
    Cached *c = j->bucket[hash % CACHE_BUCKETS];
    while (c && !(c->hash == hash && c->n == prompt->n && memcmp(c->prompt, prompt->s, c->n) == 0)) c = c->next;
    if (c) *score = c->score;
    pthread_mutex_unlock(&j->lock);
    return c != NULL;
}

static void cache_clear(Judge *j) {
    for (int b = 0; b < CACHE_BUCKETS; b++)
        for (Cached *c = j->bucket[b], *next; c; c = next) {
            next = c->next;
            free(c);
        }
    memset(j->bucket, 0, CACHE_BUCKETS * sizeof *j->bucket);
    j->cached_bytes = 0;
}

static void cache_add(Judge *j, const Str *prompt, float score) {
    Cached *c = xmalloc(sizeof *c + prompt->n);
    *c = (Cached){.hash = hash_of(prompt->s, prompt->n), .score = score, .n = prompt->n};
    memcpy(c->prompt, prompt->s, prompt->n);
    pthread_mutex_lock(&j->lock);
    if (j->cached_bytes > CACHE_BYTES) cache_clear(j);
    Cached **bucket = &j->bucket[c->hash % CACHE_BUCKETS];
    c->next = *bucket;
    *bucket = c;
    j->cached_bytes += sizeof *c + c->n;
    pthread_mutex_unlock(&j->lock);
}

// ---- opening ---------------------------------------------------------------------------------------------------------

static bool check_url(const char *url, Error *e) {
    const char *user = strstr(url, "://") + 3, *end = user + strspn(user, "*");
    return end == user || *end != '@' ||
           error_set(e, EXIT_CONFIG,
                     "url: this configuration was printed without the user and the password of the URL; leave `%.*s` "
                     "out and set GRPO_JUDGE_USER=user:password, or write them again",
                     (int)(end + 1 - user), user);
}

static bool check_texts(const Reward *r, Judge *j, Error *e) {
    if (reward_number(r, "min_score") >= reward_number(r, "max_score"))
        return error_set(e, EXIT_CONFIG, "min_score must be below max_score");
    if (!(j->template = template_read(reward_text(r, "template"), e)) || !template_check(j->template, e)) return false;
    if (!(j->regex = regex_new(reward_text(r, "pattern"), e))) return error_prefix(e, "pattern");
    return regex_groups(j->regex) > 0 ||
           error_set(e, EXIT_CONFIG, "pattern: `%s` has no (group) for the score", reward_text(r, "pattern"));
}

static char *const helper[] = {(char *)JUDGE_NAME, NULL};

void *open_judge(const Reward *r, Error *e) {
    Judge *j = xcalloc(1, sizeof *j);
    pthread_mutex_init(&j->lock, NULL);
    j->bucket = xcalloc(CACHE_BUCKETS, sizeof *j->bucket);
    j->url = xstrdup(reward_text(r, "url"));
    for (size_t n = strlen(j->url); n && j->url[n - 1] == '/';) j->url[--n] = 0;
    if (check_url(j->url, e)) j->shown = xstrdup(j->url), str_hide_users(j->shown);
    j->model = xstrdup(reward_text(r, "model"));
    j->user = getenv("GRPO_JUDGE_USER") ? xstrdup(getenv("GRPO_JUDGE_USER")) : NULL;
    j->key = getenv("GRPO_JUDGE_KEY") ? xstrdup(getenv("GRPO_JUDGE_KEY")) : NULL;
    if (j->shown && judge_is_built(e) && check_texts(r, j, e)) {
        j->server = (JudgeServer){.url = j->url,
                                  .model = j->model,
                                  .key = j->key,
                                  .user = j->user,
                                  .parallel = (int)reward_number(r, "parallel"),
                                  .retries = (int)reward_number(r, "retries"),
                                  .max_tokens = (int)reward_number(r, "max_tokens"),
                                  .timeout = reward_number(r, "timeout")};
        j->hello = judge_hello(&j->server);
        WorkerOptions o = {.name = j->shown,
                           .command = {.argv = helper, .input = -1, .errors = true},
                           .hello = j->hello,
                           .workers = (int)reward_number(r, "workers"),
                           .start_timeout = 60,
                           .timeout = judge_patience(&j->server, BATCH)};
        j->pool = workers_open(&o, e);
    }
    if (j->pool) return j;
    close_judge(j);
    return NULL;
}

void close_judge(void *data) {
    Judge *j = data;
    if (j->pool) workers_close(j->pool);
    cache_clear(j);
    pthread_mutex_destroy(&j->lock);
    regex_free(j->regex);
    free(j->bucket);
    free(j->template);
    free(j->url);
    free(j->model);
    free(j->key);
    free(j->user);
    free(j->shown);
    free(j->hello);
    free(j);
}

// ---- scoring ---------------------------------------------------------------------------------------------------------

// Reads the score from a reply: the group of the last match as a number, scaled to 0..1; false where there is none in
// the range.
static bool read_score(const Reward *r, RegexRun *run, const char *reply, float *score, RewardFault *fault) {
    Str mended = {0};
    Text group[REGEX_MAX_GROUPS + 1], t = regex_text(text_of(reply), &mended), last = {0};
    RegexResult found = REGEX_FOUND;
    for (size_t at = 0, matches = 0; at <= t.n && found == REGEX_FOUND && matches < MATCHES; matches++) {
        found = regex_match(run, t, at, group);
        if (found != REGEX_FOUND) break;
        if (group[1].s) last = group[1];
        at = (size_t)(group[0].s - t.s) + group[0].n + (group[0].n == 0);
        while (at < t.n && (t.s[at] & 0xc0) == 0x80) at++;
    }
    char number[64], *end = number;
    double low = reward_number(r, "min_score"), high = reward_number(r, "max_score"), value = 0;
    if (last.s && last.n < sizeof number) {
        memcpy(number, last.s, last.n);
        number[last.n] = 0;
        value = strtod(number, &end);
    }
    bool good = found != REGEX_LIMIT && end > number && !*end && value >= low && value <= high;
    *fault = found == REGEX_LIMIT ? REWARD_REGEX_LIMIT : REWARD_BAD_REPLY;
    *score = good ? (float)((value - low) / (high - low)) : found == REGEX_LIMIT ? 0 : REWARD_ABSTAINS;
    str_free(&mended);
    return good;
}

static RewardFault fault_named(const json_t *name) {
    for (int f = 0; f < REWARD_FAULTS; f++)
        if (json_is_string(name) && !strcmp(json_string_value(name), reward_fault_name[f])) return (RewardFault)f;
    return REWARD_BAD_REPLY;
}

// Asks for the n prompts whose indices are in `open`, and fills their scores.
static void ask(const Reward *r, Judge *j, RegexRun *run, const Str *prompt, const int *open, int n, float *score) {
    Str request = {0};
    str_puts(&request, "\"samples\": [");
    for (int i = 0; i < n; i++) {
        if (i) str_puts(&request, ", ");
        str_json(&request, prompt[open[i]].s, prompt[open[i]].n);
    }
    str_puts(&request, "]");
    RewardFault why = REWARD_BAD_REPLY;
    json_t *answer = worker_ask(j->pool, request.s, (size_t)n * (7 << 20) + 65536, &why);
    const json_t *replies = json_object_get(answer, "replies"), *faults = json_object_get(answer, "faults");
    for (int i = 0; i < n; i++) {
        const char *text = json_string_value(json_array_get(replies, (size_t)i));
        RewardFault fault = answer ? fault_named(json_array_get(faults, (size_t)i)) : why;
        float *mine = &score[open[i]];
        *mine = REWARD_ABSTAINS;
        if (text && read_score(r, run, text, mine, &fault)) {
            cache_add(j, &prompt[open[i]], *mine);
            continue;
        }
        if (fault == REWARD_FAULTS) continue; // a stop is requested
        reward_fault(r, fault, 1);
        char complaint[64];
        snprintf(complaint, sizeof complaint, "no reply: %s", reward_fault_name[fault]);
        workers_blame(j->pool, text ? "the pattern finds no score in range in a reply" : complaint);
    }
    json_decref(answer);
    str_free(&request);
}

static void score_batch(const Reward *r, Judge *j, RegexRun *run, const Sample *samples, int n, float *score) {
    Str prompt[BATCH] = {{0}};
    int first[BATCH], open[BATCH], n_open = 0; // first: the first sample of the batch with the same prompt
    for (int i = 0; i < n; i++) {
        str_puts(&prompt[i], "");
        template_fill(j->template, &r->think, &samples[i], &prompt[i]);
        for (first[i] = 0;
             prompt[first[i]].n != prompt[i].n || memcmp(prompt[first[i]].s, prompt[i].s, prompt[i].n) != 0;)
            first[i]++;
        if (first[i] == i && !cache_find(j, &prompt[i], &score[i])) open[n_open++] = i;
    }
    if (n_open) ask(r, j, run, prompt, open, n_open, score);
    for (int i = 0; i < n; i++) {
        score[i] = score[first[i]];
        str_free(&prompt[i]);
    }
}

void reward_judge(const Reward *r, const Sample *samples, int n, float *score) {
    Judge *j = reward_data(r);
    RegexRun *run = regex_run_new(j->regex);
    for (int at = 0; at < n; at += BATCH)
        score_batch(r, j, run, samples + at, n - at < BATCH ? n - at : BATCH, score + at);
    regex_run_free(run);
}
