// Judging: from samples to prompts by a template, from replies to scores by a pattern. Equal prompts are asked once.
#include "judging.h"
#include "file.h"
#include "regex.h"
#include "samples.h"
#include "str.h"
#include <pthread.h>
#include <stdlib.h>

#define CACHE_BUCKETS 65536
#define CACHE_BYTES   (256 << 20) // of prompts; when they are more, the cache is cleared
#define TEMPLATE_MAX  (64 << 10)
#define MATCHES       1000 // in one reply

typedef struct Cached {
    struct Cached *next;
    uint64_t hash;
    float score;
    size_t n;
    char prompt[];
} Cached;

struct Judging {
    char *template;
    Regex *regex;
    pthread_mutex_t lock; // of all that follows
    Cached **bucket;      // [CACHE_BUCKETS]
    size_t cached_bytes;
    bool heard; // whether replies have come
};

// ---- the template ---------------------------------------------------------------------------------------------------

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
            return error_set(e, EXIT_CONFIG,
                             "`%.20s` at byte %zu is no field: known are {prompt}, {completion}, {summary} and "
                             "{answer}; a brace is written twice",
                             t.s + at, at);
    }
    return reads || error_set(e, EXIT_CONFIG, "neither {completion} nor {summary} is in it: there is nothing to judge");
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

const char *judging_template_file(const Reward *r) {
    const char *text = reward_text(r, "template");
    return *text == '@' ? text + 1 : reward_text(r, "template_file");
}

static bool template_is_given(const Reward *r) {
    for (int i = 0; i < r->info->n_params; i++)
        if (!strcmp(r->info->params[i].name, "template"))
            return strcmp(r->info->params[i].choices, reward_text(r, "template")) != 0;
    return false;
}

// The template: the text itself, or the content of the file that is named for it. Heap memory; NULL after filling *e.
static char *template_open(const Reward *r, Error *e) {
    const char *path = judging_template_file(r);
    size_t n = 0;
    Error why = {0};
    char *all = NULL;
    if (*reward_text(r, "template_file") && template_is_given(r)) {
        error_set(e, EXIT_CONFIG, "template and template_file are both set; leave one out");
        return NULL;
    }
    if (!*path) all = xstrdup(reward_text(r, "template"));
    else if (!(all = file_read_plain(path, TEMPLATE_MAX, &n, &why))) why.code = EXIT_CONFIG;
    if (why.code == EXIT_OK && !template_check(all, &why) && *path) error_prefix(&why, "%s", path);
    if (why.code == EXIT_OK) return all;
    error_set(e, why.code, "template: %s", why.text);
    free(all);
    return NULL;
}

// ---- the cache ------------------------------------------------------------------------------------------------------

static bool cache_find(Judging *j, Text prompt, float *score) {
    uint64_t hash = text_hash(prompt);
    pthread_mutex_lock(&j->lock);
    Cached *c = j->bucket[hash % CACHE_BUCKETS];
    while (c && !(c->hash == hash && text_equal((Text){c->prompt, c->n}, prompt))) c = c->next;
    if (c) *score = c->score;
    pthread_mutex_unlock(&j->lock);
    return c != NULL;
}

static void cache_clear(Judging *j) {
    for (int b = 0; b < CACHE_BUCKETS; b++)
        for (Cached *c = j->bucket[b], *next; c; c = next) {
            next = c->next;
            free(c);
        }
    memset(j->bucket, 0, CACHE_BUCKETS * sizeof *j->bucket);
    j->cached_bytes = 0;
}

static void cache_add(Judging *j, Text prompt, float score) {
    Cached *c = xmalloc(sizeof *c + prompt.n);
    *c = (Cached){.hash = text_hash(prompt), .score = score, .n = prompt.n};
    memcpy(c->prompt, prompt.s, prompt.n);
    pthread_mutex_lock(&j->lock);
    if (j->cached_bytes > CACHE_BYTES) cache_clear(j);
    Cached **bucket = &j->bucket[c->hash % CACHE_BUCKETS];
    c->next = *bucket;
    *bucket = c;
    j->cached_bytes += sizeof *c + c->n;
    pthread_mutex_unlock(&j->lock);
}

// ---- opening --------------------------------------------------------------------------------------------------------

Judging *judging_open(const Reward *r, Error *e) {
    Judging *j = xcalloc(1, sizeof *j);
    pthread_mutex_init(&j->lock, NULL);
    j->bucket = xcalloc(CACHE_BUCKETS, sizeof *j->bucket);
    const char *pattern = reward_text(r, "pattern");
    bool ok = reward_number(r, "min_score") < reward_number(r, "max_score") ||
              error_set(e, EXIT_CONFIG, "min_score must be below max_score");
    ok = ok && (j->template = template_open(r, e));
    if (ok && !(j->regex = regex_new(pattern, e))) ok = error_prefix(e, "pattern");
    if (ok && !regex_groups(j->regex))
        ok = error_set(e, EXIT_CONFIG, "pattern: `%s` has no (group) for the score", pattern);
    if (ok) return j;
    judging_close(j);
    return NULL;
}

void judging_close(Judging *j) {
    if (!j) return;
    cache_clear(j);
    pthread_mutex_destroy(&j->lock);
    regex_free(j->regex);
    free(j->bucket);
    free(j->template);
    free(j);
}

bool judging_check(const Reward *r, Error *e) {
    Judging *j = judging_open(r, e);
    judging_close(j);
    return j != NULL;
}

// ---- scoring --------------------------------------------------------------------------------------------------------

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

// How a reply begins; heap memory.
static char *beginning(const char *text) {
    enum { SHOWN = 100 };
    Str shown = {0};
    str_puts(&shown, "begins: ");
    size_t cut = strlen(text) <= SHOWN ? strlen(text) : SHOWN;
    while (cut && (text[cut] & 0xc0) == 0x80) cut--;
    str_json(&shown, text, cut);
    return shown.s;
}

// Says so where none of the first replies has a score, unless that ends the run, which then says it.
static void note_silence(Judging *j, const Reward *r, const ReplyRows *rows, const char *unread) {
    pthread_mutex_lock(&j->lock);
    bool first = !j->heard;
    j->heard = true;
    pthread_mutex_unlock(&j->lock);
    if (!first || rows->first < rows->n || !reward_goes_on(r, NULL)) return;
    note("reward %s: `%s` finds no score from %.10g to %.10g in %s; %s %s", r->name, reward_text(r, "pattern"),
         reward_number(r, "min_score"), reward_number(r, "max_score"),
         rows->n == 1 ? "the first reply" : "any of the first replies", rows->n == 1 ? "it" : "one", unread);
}

// What is said of a reply that did not come; heap memory.
static char *absence(const JudgeReply *reply) {
    return xasprintf("did not come: %s", reply->cause ? reply->cause : reward_fault_name[reply->fault]);
}

// Reads the scores of the prompts that were asked; score[of[i]] is that of reply i, counts[of[i]] whether it is one in
// a row. Fills fault[of[i]] where there is no score. *heard: whether any reply came. Returns what is said of a reply
// without a score (heap), one that came where there is one; NULL where all have one.
static char *read_replies(Judging *j, const Reward *r, const Text *prompt, const JudgeReply *reply, const int *of,
                          int n, float *score, RewardFault *fault, bool *counts, bool *heard) {
    RegexRun *run = regex_run_new(j->regex);
    char *unread = NULL, *absent = NULL;
    for (int i = 0; i < n; i++) {
        float *mine = &score[of[i]];
        *mine = REWARD_ABSTAINS;
        fault[of[i]] = reply[i].fault;
        counts[of[i]] = reply[i].text || (reply[i].fault != REWARD_FAULTS && reply[i].fault != REWARD_TOO_LONG);
        if (!reply[i].text) {
            if (counts[of[i]] && !absent) absent = absence(&reply[i]);
            continue;
        }
        *heard = true;
        if (read_score(r, run, reply[i].text, mine, &fault[of[i]])) {
            fault[of[i]] = REWARD_FAULTS;
            cache_add(j, prompt[i], *mine);
        } else if (!unread) unread = beginning(reply[i].text);
    }
    regex_run_free(run);
    if (!unread) return absent;
    free(absent);
    return unread;
}

bool judging_score(Judging *j, const Reward *r, const Sample *samples, int n, JudgeAsk *ask, void *arg, float *score,
                   Error *e) {
    size_t room = (size_t)n + 1;
    Str *prompt = xcalloc(room, sizeof *prompt);
    Text *asked = xcalloc(room, sizeof *asked);
    JudgeReply *reply = xcalloc(room, sizeof *reply);
    RewardFault *fault = xcalloc(room, sizeof *fault);
    uint64_t *hash = xcalloc(room, sizeof *hash);
    bool *counts = xcalloc(room, sizeof *counts), heard = false; // asked, with or without a score, now or earlier
    char *unread = NULL;
    ReplyRows rows = {0};
    int *first = xcalloc(room, sizeof *first), *open = xcalloc(room, sizeof *open), n_open = 0;
    for (int i = 0; i < n; i++) { // first[i]: the first sample with the same prompt
        fault[i] = REWARD_FAULTS;
        str_puts(&prompt[i], "");
        template_fill(j->template, &r->think, &samples[i], &prompt[i]);
        Text mine = {prompt[i].s, prompt[i].n};
        hash[i] = text_hash(mine);
        while (hash[first[i]] != hash[i] || !text_equal((Text){prompt[first[i]].s, prompt[first[i]].n}, mine))
            first[i]++;
        if (first[i] < i || (counts[i] = cache_find(j, mine, &score[i]))) continue;
        asked[n_open] = mine, open[n_open++] = i;
    }
    bool ok = !n_open || ask(arg, asked, n_open, reply, e);
    if (ok && n_open) unread = read_replies(j, r, asked, reply, open, n_open, score, fault, counts, &heard);
    for (int i = 0; i < n && ok; i++) {
        score[i] = score[first[i]];
        reward_fault(r, fault[first[i]], 1);
        bool none = fault[first[i]] != REWARD_FAULTS;
        if (counts[first[i]]) reply_rows_join(&rows, (ReplyRows){1, none, none, none});
    }
    if (ok) {
        reward_replied(r, rows, unread);
        if (heard) note_silence(j, r, &rows, unread);
    }
    for (int i = 0; i < n; i++) str_free(&prompt[i]), free(reply[i].text), free(reply[i].cause);
    free(prompt), free(asked), free(reply), free(fault), free(hash), free(first), free(open);
    free(counts), free(unread);
    return ok;
}
