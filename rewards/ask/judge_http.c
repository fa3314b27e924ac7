// The child process of the reward `judge`, over libcurl. It is a process of its own so that the training process has no
// network, no certificates and no such large library in it. It asks several prompts of a batch at a time, and asks
// again where a failure may be temporary.
#include "json.h"
#include "judge.h"
#include "process.h"
#include "reward.h"
#include "str.h"
#include <math.h>

#define PAUSE_MS     500 // pause before the first repetition; doubled for each further one
#define PAUSE_MAX_MS 8000

static int pause_ms(int round) { return round > 4 ? PAUSE_MAX_MS : PAUSE_MS << round; }

double judge_patience(const JudgeServer *s, int n) {
    int turns = (n + s->parallel - 1) / s->parallel;
    double all = s->timeout * turns * (s->retries + 1) + 10;
    for (int i = 0; i < s->retries; i++) all += pause_ms(i) * 1e-3;
    return all;
}

char *judge_hello(const JudgeServer *s) {
    Str h = {0};
    str_puts(&h, "\"samples\": [], \"server\": {\"url\": ");
    str_json(&h, s->url, strlen(s->url));
    str_puts(&h, ", \"model\": ");
    str_json(&h, s->model, strlen(s->model));
    if (s->key) str_puts(&h, ", \"key\": "), str_json(&h, s->key, strlen(s->key));
    if (s->user) str_puts(&h, ", \"user\": "), str_json(&h, s->user, strlen(s->user));
    str_printf(&h,
               ", \"parallel\": %d, \"retries\": %d, \"max_tokens\": %d, \"temperature\": %.17g, \"seed\": %lld, "
               "\"timeout\": %.17g}",
               s->parallel, s->retries, s->max_tokens, s->temperature, (long long)s->seed, s->timeout);
    return h.s;
}

#ifndef GRPO_CURL
bool judge_is_built(Error *e) {
    return error_set(e, EXIT_CONFIG, "this program was built without libcurl: run tools/deps.sh judge, then make");
}
int judge_serve(int argc, char **argv) { return 1; }
#else
#include <curl/curl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define BODY_MAX (1 << 20) // bytes of a reply
#define SHOWN    200       // bytes of it that a message shows

bool judge_is_built(Error *e) { return true; }

typedef struct {
    char *request; // body
    Str body;      // of the reply so far
    char *text;    // the judge's answer; NULL until it has come
    RewardFault fault;
    Str cause; // why there is no answer
    bool done, flooded;
    CURL *curl; // while under way
    char curl_said[CURL_ERROR_SIZE];
} Question;

static size_t receive(char *bytes, size_t size, size_t count, void *arg) {
    Question *q = arg;
    size_t n = size * count;
    q->flooded = q->body.n + n > BODY_MAX;
    if (q->flooded) return 0;
    str_add(&q->body, bytes, n);
    return n;
}

static char *request_body(const JudgeServer *s, const char *prompt) {
    json_t *j = json_pack("{s:s, s:[{s:s, s:s}], s:f, s:i}", "model", s->model, "messages", "role", "user", "content",
                          prompt, "temperature", s->temperature, "max_tokens", s->max_tokens);
    if (s->temperature > 0) json_object_set_new(j, "seed", json_integer(s->seed));
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    json_decref(j);
    return text;
}

// The text of a chat completion; NULL where there is none.
static char *reply_text(const Str *body) {
    json_t *j = json_parse(body->s ? body->s : "", body->n, "reply", NULL);
    const json_t *choice = json_array_get(json_object_get(j, "choices"), 0);
    const json_t *content = json_object_get(json_object_get(choice, "message"), "content");
    char *text = json_text(content) ? xstrdup(json_text(content)) : NULL;
    json_decref(j);
    return text;
}

static void begin(const JudgeServer *s, const char *url, struct curl_slist *headers, CURLM *multi, Question *q) {
    str_clear(&q->body);
    q->flooded = false;
    *q->curl_said = 0;
    q->curl = curl_easy_init();
    curl_easy_setopt(q->curl, CURLOPT_ERRORBUFFER, q->curl_said);
    curl_easy_setopt(q->curl, CURLOPT_URL, url);
    curl_easy_setopt(q->curl, CURLOPT_HTTPHEADER, headers);
    if (s->user) curl_easy_setopt(q->curl, CURLOPT_USERPWD, s->user);
    curl_easy_setopt(q->curl, CURLOPT_POSTFIELDS, q->request);
    curl_easy_setopt(q->curl, CURLOPT_WRITEFUNCTION, receive);
    curl_easy_setopt(q->curl, CURLOPT_WRITEDATA, q);
    curl_easy_setopt(q->curl, CURLOPT_PRIVATE, q);
    curl_easy_setopt(q->curl, CURLOPT_TIMEOUT_MS, (long)(s->timeout * 1000));
    curl_easy_setopt(q->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(q->curl, CURLOPT_USERAGENT, "grpo");
    curl_multi_add_handle(multi, q->curl);
}

// Writes stars over a secret that a server sent back.
static void hide(Str *text, const char *secret) {
    size_t n = secret ? strlen(secret) : 0;
    for (char *at = text->s; n && at && (at = strstr(at, secret)); at += n) memset(at, '*', n);
}

// Says why a request has no answer: what the server replied, or what kept it from that.
static void say_cause(const JudgeServer *s, Question *q, CURLcode result, long status) {
    str_clear(&q->cause);
    if (q->flooded) str_printf(&q->cause, "the reply has more than %d bytes", BODY_MAX);
    else if (result != CURLE_OK) {
        str_puts(&q->cause, *q->curl_said ? q->curl_said : curl_easy_strerror(result));
    } else {
        str_printf(&q->cause, "HTTP status %ld%s", status,
                   status == 200                    ? ", but no text at choices[0].message.content"
                   : status == 401 || status == 403 ? " (look at GRPO_JUDGE_KEY or GRPO_JUDGE_USER)"
                   : status == 404                  ? " (look at url, which goes up to /v1 or the like, and at model)"
                                                    : "");
        size_t cut = q->body.n < SHOWN ? q->body.n : SHOWN;
        while (cut && cut < q->body.n && (q->body.s[cut] & 0xc0) == 0x80) cut--;
        if (!cut) str_puts(&q->cause, "; the reply is empty");
        else str_printf(&q->cause, "; the reply %s: %.*s", cut < q->body.n ? "begins" : "is", (int)cut, q->body.s);
    }
    hide(&q->cause, s->key);
    const char *colon = s->user ? strchr(s->user, ':') : NULL;
    hide(&q->cause, colon ? colon + 1 : NULL);
}

// Judges one finished request. Where the failure may be temporary, the question is left undone.
static void end(const JudgeServer *s, CURLM *multi, Question *q, CURLcode result) {
    long status = 0;
    curl_easy_getinfo(q->curl, CURLINFO_RESPONSE_CODE, &status);
    curl_multi_remove_handle(multi, q->curl);
    curl_easy_cleanup(q->curl);
    q->curl = NULL;
    if (result == CURLE_OK && status == 200) {
        q->text = reply_text(&q->body);
        if (!q->text) say_cause(s, q, result, status);
        q->fault = REWARD_BAD_REPLY;
        q->done = true;
        return;
    }
    say_cause(s, q, result, status);
    q->fault = q->flooded                            ? REWARD_FLOOD
               : result == CURLE_OPERATION_TIMEDOUT  ? REWARD_TIMEOUT
               : result != CURLE_OK || status >= 500 ? REWARD_CRASH
               : status == 408 || status == 429      ? REWARD_TIMEOUT
                                                     : REWARD_BAD_REPLY;
    q->done = q->fault == REWARD_FLOOD || q->fault == REWARD_BAD_REPLY;
}

// Asks every undone question once, `parallel` at a time.
static void ask_all(const JudgeServer *s, const char *url, struct curl_slist *headers, Question *q, int n) {
    CURLM *multi = curl_multi_init();
    int next = 0, running = 0;
    for (;;) {
        for (; next < n && running < s->parallel; next++) {
            if (q[next].done) continue;
            begin(s, url, headers, multi, &q[next]);
            running++;
        }
        if (!running) break;
        int left, messages;
        curl_multi_perform(multi, &left);
        for (CURLMsg *m; (m = curl_multi_info_read(multi, &messages));) {
            Question *of = NULL;
            if (m->msg != CURLMSG_DONE) continue;
            curl_easy_getinfo(m->easy_handle, CURLINFO_PRIVATE, (char **)&of);
            end(s, multi, of, m->data.result);
            running--;
        }
        if (running) curl_multi_poll(multi, NULL, 0, 100, NULL);
    }
    curl_multi_cleanup(multi);
}

static bool all_done(const Question *q, int n) {
    for (int i = 0; i < n; i++)
        if (!q[i].done) return false;
    return true;
}

static void answer(const JudgeServer *s, const char *url, struct curl_slist *headers, const json_t *request,
                   FILE *out) {
    const json_t *prompts = json_object_get(request, "samples");
    int n = (int)json_array_size(prompts);
    Question *q = xcalloc((size_t)n, sizeof *q);
    for (int i = 0; i < n; i++) {
        q[i].request = request_body(s, json_string_value(json_array_get(prompts, (size_t)i)));
        q[i].fault = REWARD_BAD_REPLY;
        q[i].done = !q[i].request;
    }
    for (int round = 0; round <= s->retries && !all_done(q, n); round++) {
        if (round) usleep((unsigned)pause_ms(round - 1) * 1000);
        ask_all(s, url, headers, q, n);
    }
    json_t *replies = json_array(), *faults = json_array(), *causes = json_array();
    for (int i = 0; i < n; i++) {
        json_array_append_new(replies, q[i].text ? json_string(q[i].text) : json_null());
        json_array_append_new(faults, q[i].text ? json_null() : json_string(reward_fault_name[q[i].fault]));
        Str cause = {0}; // by way of str_json, which mends what is no UTF-8
        if (q[i].text || !q[i].cause.n) str_puts(&cause, "null");
        else str_json(&cause, q[i].cause.s, q[i].cause.n);
        json_array_append_new(causes, json_loadb(cause.s, cause.n, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL));
        str_free(&cause);
        free(q[i].request);
        free(q[i].text);
        str_free(&q[i].body);
        str_free(&q[i].cause);
    }
    json_t *reply = json_pack("{s:O, s:o, s:o, s:o}", "id", json_object_get(request, "id"), "replies", replies,
                              "faults", faults, "causes", causes);
    char *line = reply ? json_dumps(reply, JSON_COMPACT) : NULL;
    if (line) fprintf(out, "%s\n", line);
    fflush(out);
    free(line);
    json_decref(reply);
    free(q);
}

// The settings of the first request; false where it has none.
static bool read_server(const json_t *request, JudgeServer *s) {
    const json_t *j = json_object_get(request, "server");
    const char *key = json_string_value(json_object_get(j, "key"));
    const char *user = json_string_value(json_object_get(j, "user"));
    *s = (JudgeServer){.url = xstrdup(json_string_value(json_object_get(j, "url"))),
                       .model = xstrdup(json_string_value(json_object_get(j, "model"))),
                       .key = key ? xstrdup(key) : NULL,
                       .user = user ? xstrdup(user) : NULL,
                       .parallel = (int)json_integer_value(json_object_get(j, "parallel")),
                       .retries = (int)json_integer_value(json_object_get(j, "retries")),
                       .max_tokens = (int)json_integer_value(json_object_get(j, "max_tokens")),
                       .temperature = json_number_value(json_object_get(j, "temperature")),
                       .seed = json_integer_value(json_object_get(j, "seed")),
                       .timeout = json_number_value(json_object_get(j, "timeout"))};
    return json_is_object(j);
}

int judge_serve(int argc, char **argv) {
    JudgeServer s = {0};
    char *url = NULL, *line = NULL;
    curl_global_init(CURL_GLOBAL_DEFAULT);
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    size_t cap = 0;
    for (ssize_t n; (n = getline(&line, &cap, stdin)) > 0;) {
        json_t *request = json_loadb(line, (size_t)n, 0, NULL);
        if (!request) break;
        if (!url) {
            if (!read_server(request, &s)) return 1;
            url = xasprintf("%s/chat/completions", s.url);
            char *authorization = s.key ? xasprintf("Authorization: Bearer %s", s.key) : NULL;
            if (authorization) headers = curl_slist_append(headers, authorization);
            free(authorization);
        }
        answer(&s, url, headers, request, stdout);
        json_decref(request);
    }
    return 0;
}
#endif
PROCESS_HELPER(JUDGE_NAME, judge_serve)
