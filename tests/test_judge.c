// A model as judge, against a small HTTP server in this program.
#include "json.h"
#include "random.h"
#include "scoring.h"
#include "scratch.h"
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/socket.h>
#include <time.h>

#ifndef GRPO_CURL
static void judge_is_left_out(void **state) { assert_cannot_open("judge", "built without libcurl"); }

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(judge_is_left_out)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else

// ---- the server -----------------------------------------------------------------------------------------------------

typedef struct {
    int listener, port;
    pthread_t thread;
    atomic_bool stop;
    atomic_int requests, under_way, most_under_way;
    char seen[65536]; // the last request, head and body
    pthread_mutex_t lock;
} Server;

typedef struct {
    Server *server;
    int fd;
} Call;

static void put(int fd, const char *text) { (void)!send(fd, text, strlen(text), MSG_NOSIGNAL); }

static void reply(int fd, const char *status, const char *words) {
    Str body = {0}, all = {0};
    str_puts(&body, "{\"choices\": [{\"index\": 0, \"message\": {\"role\": \"assistant\", \"content\": ");
    str_json(&body, words, strlen(words));
    str_puts(&body, "}}], \"seed\": 18446744073709551615, \"score\": -1e999}"); // numbers that Jansson refuses
    str_printf(&all,
               "HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s",
               status, body.n, body.s);
    put(fd, all.s);
    str_free(&body);
    str_free(&all);
}

static void reply_plain(int fd, const char *status, const char *body) {
    char *all =
        xasprintf("HTTP/1.1 %s\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n%s", status, strlen(body), body);
    put(fd, all);
    free(all);
}

static void pause_ms(int ms) { nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL); }

// What the prompt says is what happens.
static void respond(Server *s, int fd, const char *request, int number) {
    if (strstr(request, "slow")) pause_ms(3000);
    if (strstr(request, "together")) pause_ms(300);
    if (strstr(request, "drop")) return;
    if (strstr(request, "garbage")) put(fd, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc");
    else if (strstr(request, "nothttp")) put(fd, "what?\n");
    else if (strstr(request, "nochoice")) put(fd, "HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n{\"choices\": []}");
    else if (strstr(request, "flood")) {
        put(fd, "HTTP/1.1 200 OK\r\n\r\n");
        char block[65536];
        memset(block, 'a', sizeof block);
        for (int i = 0; i < 100 && send(fd, block, sizeof block, MSG_NOSIGNAL) > 0; i++) {
        }
    } else if (strstr(request, "echo")) reply_plain(fd, "401 No", "wrong key key-123\nof \x1b user u:pass-12 !\n");
    else if (strstr(request, "unknown")) reply_plain(fd, "404 Not Found", "{}");
    else if (strstr(request, "nobody")) reply_plain(fd, "500 Oh", "");
    else if (strstr(request, "long")) {
        Str words = {0};
        while (words.n < 1001) str_puts(&words, "\xc3\xa9");
        reply_plain(fd, "400 Bad", words.s);
        str_free(&words);
    } else if (strstr(request, "latin")) reply_plain(fd, "400 Bad", "\xe9");
    else if (strstr(request, "forbidden")) reply(fd, "403 Forbidden", "Score: 9");
    else if (strstr(request, "flaky") && number % 3 != 0)
        reply(fd, number % 3 == 1 ? "503 Busy" : "429 Too Many", "Score: 9");
    else if (strstr(request, "wordless")) reply(fd, "200 OK", "I would rather not say.");
    else if (strstr(request, "negative")) reply(fd, "200 OK", "Score: -7");
    else if (strstr(request, "toohigh")) reply(fd, "200 OK", "Score: 11");
    else if (strstr(request, "hostile")) {
        Str words = {0};
        while (words.n < 60000) str_puts(&words, "score ");
        str_puts(&words, "?x");
        reply(fd, "200 OK", words.s);
        str_free(&words);
    } else if (strstr(request, "halves")) reply(fd, "200 OK", "First I thought Score: 2, but no.\nscore = 7.5");
    else if (strstr(request, "reply<")) { // what it asks for
        char words[256];
        const char *from = strstr(request, "reply<") + 6;
        snprintf(words, sizeof words, "%.*s", (int)strcspn(from, ">"), from);
        reply(fd, "200 OK", words);
    } else reply(fd, "200 OK", strstr(request, "good") ? "Fine.\nScore: 10" : "Score: 4");
}

static void *serve_call(void *arg) {
    Call call = *(Call *)arg;
    Server *s = call.server;
    free(arg);
    char request[65536] = "";
    size_t n = 0;
    for (ssize_t got; n + 1 < sizeof request && (got = recv(call.fd, request + n, sizeof request - n - 1, 0)) > 0;) {
        n += (size_t)got;
        request[n] = 0;
        const char *body = strstr(request, "\r\n\r\n"), *length = strcasestr(request, "content-length:");
        if (body && length && strlen(body + 4) >= (size_t)atoi(length + 15)) break;
    }
    int now = atomic_fetch_add(&s->under_way, 1) + 1, most = atomic_load(&s->most_under_way);
    while (now > most && !atomic_compare_exchange_weak(&s->most_under_way, &most, now)) {
    }
    pthread_mutex_lock(&s->lock);
    snprintf(s->seen, sizeof s->seen, "%s", request);
    int number = atomic_fetch_add(&s->requests, 1) + 1;
    pthread_mutex_unlock(&s->lock);
    respond(s, call.fd, request, number);
    atomic_fetch_sub(&s->under_way, 1);
    close(call.fd);
    return NULL;
}

static void *serve(void *arg) {
    Server *s = arg;
    while (!atomic_load(&s->stop)) {
        struct pollfd p = {s->listener, POLLIN, 0};
        if (poll(&p, 1, 50) <= 0) continue;
        Call *call = malloc(sizeof *call);
        *call = (Call){s, accept4(s->listener, NULL, NULL, SOCK_CLOEXEC)};
        pthread_t thread;
        if (call->fd < 0 || pthread_create(&thread, NULL, serve_call, call) != 0) abort();
        pthread_detach(thread);
    }
    return NULL;
}

static Server *server_start(void) {
    Server *s = calloc(1, sizeof *s);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof a;
    pthread_mutex_init(&s->lock, NULL);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&a, n), 0);
    assert_int_equal(listen(s->listener, 64), 0);
    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&a, &n), 0);
    s->port = ntohs(a.sin_port);
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
    return s;
}

// The last request, head and body; valid until the next call.
static const char *server_seen(Server *s) {
    static char seen[sizeof s->seen];
    pthread_mutex_lock(&s->lock);
    memcpy(seen, s->seen, sizeof seen);
    pthread_mutex_unlock(&s->lock);
    return seen;
}

static void server_stop(Server *s) {
    atomic_store(&s->stop, true);
    pthread_join(s->thread, NULL);
    for (int i = 0; i < 500 && atomic_load(&s->under_way); i++) pause_ms(10);
    pause_ms(50); // its last threads are about to end
    close(s->listener);
    free(s);
}

static Reward judge_of(const Server *s, const char *params) {
    char *spec = xasprintf("judge:url=http://127.0.0.1:%d/v1/,template={prompt}|{completion}%s", s->port, params);
    Reward r = reward_opened(spec);
    free(spec);
    return r;
}

// ---- tests ----------------------------------------------------------------------------------------------------------

static void scores_are_read(void **state) {
    Server *s = server_start();
    Reward r = judge_of(s, "");
    assert_near(score_by(&r, "a good answer", ""), 1, 0);
    assert_near(score_by(&r, "an answer", ""), 0.4, 1e-6);
    assert_near(score_by(&r, "halves", ""), 0.75, 1e-6); // the last match
    static const struct {
        const char *reply;
        double score;
    } replies[] = {{"Score (0-10): 7", 0.7},     {"Score: 7", 0.7},
                   {"**Score (0-10):** 7", 0.7}, {"**Score** (1–10) = 7.5", 0.75},
                   {"Score [0 to 10] 7", 0.7},   {"Score (out of 10): 7", 0.7},
                   {"Score (/10): 7", 0.7},      {"Score (7)", 0.7},
                   {"Score: 7 out of 10", 0.7},  {"Score: 7/10", 0.7},
                   {"Score (7/10): good", 0.7},  {"Score: 7-8: good", 0.7}};
    for (size_t i = 0; i < sizeof replies / sizeof *replies; i++) {
        char text[128];
        snprintf(text, sizeof text, "reply<%s>", replies[i].reply);
        float score = score_by(&r, text, "");
        if (fabs((double)score - replies[i].score) > 1e-6) fail_msg("%s gives %g", replies[i].reply, (double)score);
    }
    reward_close(&r);
    r = judge_of(s, ",min_score=4,max_score=16,pattern=core: (\\d+)");
    assert_near(score_by(&r, "a good answer", ""), 0.5, 1e-6);
    assert_near(score_by(&r, "an answer", ""), 0, 0);
    reward_close(&r);
    server_stop(s);
}

static void requests_are_openai_s(void **state) {
    Server *s = server_start();
    setenv("GRPO_JUDGE_KEY", "key-123", 1);
    char *spec = xasprintf(
        "judge:url=http://127.0.0.1:%d/v1,model=m\"1,max_tokens=77,template=Q {prompt} A {summary} G {answer} "
        "{{x}} \\, {completion}",
        s->port);
    Reward r = reward_opened(spec);
    free(spec);
    Sample sample = {
        .prompt = "why?", .completion = "<think>a</think> so\n\"b\"\0c", .completion_len = 25, .answer = "g"};
    float score;
    r.info->fn(&r, &sample, 1, &score);
    unsetenv("GRPO_JUDGE_KEY");
    reward_close(&r);
    assert_near(score, 0.4, 1e-6);
    assert_memory_equal(server_seen(s), "POST /v1/chat/completions HTTP/1.1\r\n", 36);
    assert_non_null(strstr(server_seen(s), "Authorization: Bearer key-123\r\n"));
    assert_non_null(strstr(server_seen(s), "Content-Type: application/json\r\n"));
    const char *body = strstr(server_seen(s), "\r\n\r\n");
    assert_non_null(body);
    Error e = {0};
    json_t *j = json_parse(body + 4, strlen(body + 4), "body", &e);
    assert_non_null(j);
    assert_string_equal(json_string_value(json_object_get(j, "model")), "m\"1");
    assert_int_equal(json_integer_value(json_object_get(j, "max_tokens")), 77);
    assert_near(json_number_value(json_object_get(j, "temperature")), 0, 0);
    assert_null(json_object_get(j, "seed")); // of no use
    const json_t *message = json_array_get(json_object_get(j, "messages"), 0);
    assert_string_equal(json_string_value(json_object_get(message, "role")), "user");
    assert_string_equal(json_string_value(json_object_get(message, "content")),
                        "Q why? A so\n\"b\"c G g {x} , <think>a</think> so\n\"b\"c");
    json_decref(j);
    server_stop(s);
}

static void replies_may_be_drawn(void **state) {
    Server *s = server_start();
    Reward r = judge_of(s, ",temperature=0.75,seed=9007199254740991");
    assert_near(score_by(&r, "good", ""), 1, 0);
    assert_non_null(strstr(server_seen(s), "\"temperature\":0.75"));
    assert_non_null(strstr(server_seen(s), "\"seed\":9007199254740991"));
    reward_close(&r);
    server_stop(s);
}

static void passwords_reach_the_server_alone(void **state) {
    // Basic dTpwQHM= is u:p@s, Basic djpx is v:q
    static const char *const basic[] = {"Basic dTpwQHM=\r\n", "Basic djpx\r\n"};
    for (int i = 0; i < 2; i++) {
        Server *s = server_start();
        if (i) setenv("GRPO_JUDGE_USER", "v:q", 1);
        char *spec = xasprintf("judge:template={completion},url=http://%s127.0.0.1:%d", i ? "" : "u:p%40s@", s->port);
        Reward r = reward_opened(spec);
        free(spec);
        assert_near(score_by(&r, "good", ""), 1, 0);
        assert_non_null(strstr(server_seen(s), basic[i]));
        reward_close(&r);
        server_stop(s);
    }
    unsetenv("GRPO_JUDGE_USER");
    Reward r;
    Error e = {0};
    assert_false(reward_parse("judge:url=https://u:s\\,e@cret@host/v1,wieght=2", &r, &e));
    assert_non_null(strstr(e.text, "https://***@host/v1"));
    assert_null(strstr(e.text, "cret"));
    assert_cannot_open("judge:url=http://***@127.0.0.1:1/v1", "GRPO_JUDGE_USER");
    char plain[] = "see http://a/b@c, x://@y, ftp://u@h and mailto:a@b";
    str_hide_users(plain);
    assert_string_equal(plain, "see http://a/b@c, x://@y, ftp://*@h and mailto:a@b");
    char ports[] = "http://h:80/@cf http://[::1]:80/@cf http://h/@cf template=@f u:p@h host:/a@b";
    str_hide_users(ports);
    assert_string_equal(ports, "http://h:80/@cf http://[::1]:80/@cf http://h/@cf template=@f u:p@h host:/a@b");
    char bare[] = "'u:pass@h' judge:template=@f judge:url=u:p=q@h a@b, http://h:8/@x";
    str_hide_passwords(bare);
    assert_string_equal(bare, "'***@h' judge:template=@f judge:url=***@h a@b, http://h:8/@x");
}

static void equal_prompts_are_asked_once(void **state) {
    Server *s = server_start();
    Reward r = judge_of(s, "");
    Sample same[6];
    float score[6];
    for (int i = 0; i < 6; i++)
        same[i] = (Sample){
            .prompt = "q", .completion = i % 2 ? "good" : "bad", .completion_len = i % 2 ? 4 : 3, .answer = ""};
    r.info->fn(&r, same, 6, score);
    for (int i = 0; i < 6; i++) assert_near(score[i], i % 2 ? 1 : 0.4, 1e-6);
    assert_int_equal(atomic_load(&s->requests), 2);
    r.info->fn(&r, same, 6, score);
    for (int i = 0; i < 6; i++) assert_near(score[i], i % 2 ? 1 : 0.4, 1e-6);
    assert_int_equal(atomic_load(&s->requests), 2);
    same[0].prompt = "another";
    r.info->fn(&r, same, 6, score);
    assert_int_equal(atomic_load(&s->requests), 3);
    reward_close(&r);
    server_stop(s);
}

static void a_batch_is_asked_side_by_side(void **state) {
    Server *s = server_start();
    Reward r = judge_of(s, ",parallel=4");
    Sample many[70]; // more than a batch
    char text[70][32];
    float score[70];
    for (int i = 0; i < 70; i++) {
        snprintf(text[i], sizeof *text, "%s %d%s", i < 12 ? "together" : "", i, i % 3 ? "" : " good");
        many[i] = (Sample){.prompt = "", .completion = text[i], .completion_len = strlen(text[i]), .answer = ""};
    }
    r.info->fn(&r, many, 70, score);
    for (int i = 0; i < 70; i++) assert_near(score[i], i % 3 ? 0.4 : 1, 1e-6);
    assert_int_equal(atomic_load(&s->requests), 70);
    assert_true(atomic_load(&s->most_under_way) >= 2 && atomic_load(&s->most_under_way) <= 5);
    reward_close(&r);
    server_stop(s);
}

static void failures_abstain(void **state) {
    static const struct {
        const char *text;
        RewardFault fault;
        int requests; // with two repetitions
        float score;
    } cases[] = {
        {"slow", REWARD_TIMEOUT, 3, NAN},       {"drop", REWARD_CRASH, 3, NAN},
        {"garbage", REWARD_BAD_REPLY, 1, NAN},  {"nochoice", REWARD_BAD_REPLY, 1, NAN},
        {"flood", REWARD_FLOOD, 1, NAN},        {"forbidden", REWARD_BAD_REPLY, 1, NAN},
        {"wordless", REWARD_BAD_REPLY, 1, NAN}, {"toohigh", REWARD_BAD_REPLY, 1, NAN},
        {"negative", REWARD_BAD_REPLY, 1, NAN}, {"flaky", REWARD_FAULTS, 3, 0.4f},
        {"nothttp", REWARD_CRASH, 3, NAN},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Server *s = server_start();
        Reward r = judge_of(s, ",retries=2,timeout=0.8");
        float score = score_by(&r, cases[i].text, "");
        bool right = isnan(cases[i].score) ? isnan(score) : fabsf(score - cases[i].score) < 1e-6f;
        if (!right) fail_msg("%s: scored %g", cases[i].text, (double)score);
        for (RewardFault f = 0; f < REWARD_FAULTS; f++)
            if (reward_faults(&r, f) != (f == cases[i].fault))
                fail_msg("%s: %s is %lld", cases[i].text, reward_fault_name[f], (long long)reward_faults(&r, f));
        if (atomic_load(&s->requests) != cases[i].requests)
            fail_msg("%s: %d requests", cases[i].text, atomic_load(&s->requests));
        assert_near(score_by(&r, "good", ""), 1, 0); // the judge lives on, and failures are not cached
        reward_close(&r);
        server_stop(s);
    }
}

static char noted[4096];
static void keep_note(const char *text) { snprintf(noted + strlen(noted), sizeof noted - strlen(noted), "%s\n", text); }

// What is said of the first failure names its cause: what the server replied, or what kept it from that.
static void failures_say_why(void **state) {
    static const struct {
        const char *text, *said[4];
    } cases[] = {
        {"forbidden",
         {"no reply (bad_reply): HTTP status 403 (look at GRPO_JUDGE_KEY or GRPO_JUDGE_USER); the reply is: ",
          "\"content\": \"Score: 9\""}},
        {"echo",
         {"no reply (bad_reply): HTTP status 401 ", "the reply is: wrong key ******* of \\x1b user u:******* !"}},
        {"unknown", {"HTTP status 404 (look at url, which goes up to /v1 or the like, and at model)"}},
        {"garbage", {"HTTP status 200, but no text at choices[0].message.content; the reply is: abc"}},
        {"nochoice", {"HTTP status 200, but no text at choices[0].message.content; the reply is: {\"choices\": []}"}},
        {"nobody", {"HTTP status 500; the reply is empty"}},
        {"long", {"HTTP status 400; the reply begins: \xc3\xa9\xc3\xa9"}},
        {"latin", {"HTTP status 400; the reply is: "}},
        {"slow", {"no reply (timeout): ", "timed out"}},
        {"drop", {"no reply (crash): ", "mpty reply from server"}},
        {"flood", {"no reply (flood): the reply has more than 1048576 bytes"}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Server *s = server_start();
        setenv("GRPO_JUDGE_KEY", "key-123", 1);
        setenv("GRPO_JUDGE_USER", "u:pass-12", 1);
        Reward r = judge_of(s, ",retries=0,timeout=0.8");
        noted[0] = 0;
        note_tell(keep_note);
        assert_true(isnan(score_by(&r, cases[i].text, "")));
        note_tell(NULL);
        for (int k = 0; k < 4 && cases[i].said[k]; k++)
            if (!strstr(noted, cases[i].said[k]))
                fail_msg("%s: no \"%s\" in %s", cases[i].text, cases[i].said[k], noted);
        assert_ptr_equal(strchr(noted, '\n'), noted + strlen(noted) - 1);
        assert_null(strstr(noted, "key-123"));
        assert_null(strstr(noted, "pass-12"));
        reward_close(&r);
        server_stop(s);
    }
    Reward r = reward_opened("judge:url=http://127.0.0.1:1/v1,template={completion},retries=0,timeout=5");
    noted[0] = 0;
    note_tell(keep_note);
    assert_true(isnan(score_by(&r, "x", "")));
    note_tell(NULL);
    if (!strstr(noted, "http://127.0.0.1:1/v1: no reply (crash): Failed to connect to 127.0.0.1"))
        fail_msg("%s", noted);
    reward_close(&r);
    unsetenv("GRPO_JUDGE_KEY");
    unsetenv("GRPO_JUDGE_USER");
}

// Keys that could not be sent, or not as they were meant, are refused, and not shown.
static void wrong_secrets_are_refused(void **state) {
    static const struct {
        const char *name, *value, *said; // NULL: it is taken
    } cases[] = {
        {"GRPO_JUDGE_KEY", "sesame\n", "GRPO_JUDGE_KEY: holds a line break at its end; set it without"},
        {"GRPO_JUDGE_KEY", "sesame\r\n", "GRPO_JUDGE_KEY: holds a line break at its end"},
        {"GRPO_JUDGE_KEY", "sesame\nX-Other: 1", "GRPO_JUDGE_KEY: holds a line break; set"},
        {"GRPO_JUDGE_KEY", "sesame\x01", "GRPO_JUDGE_KEY: holds a character at byte 6 that no header"},
        {"GRPO_JUDGE_KEY", "s\xc3\xa9same", "GRPO_JUDGE_KEY: holds a character at byte 1 that no header"},
        {"GRPO_JUDGE_KEY", "", NULL},
        {"GRPO_JUDGE_USER", "sesame", "GRPO_JUDGE_USER: has no colon; set it as user:password"},
        {"GRPO_JUDGE_USER", "u:sesame\n", "GRPO_JUDGE_USER: holds a line break at its end"},
        {"GRPO_JUDGE_USER", "u:", NULL},
        {"GRPO_JUDGE_USER", "", NULL},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Reward r;
        Error e = {0};
        setenv(cases[i].name, cases[i].value, 1);
        assert_true(reward_parse("judge", &r, &e));
        bool good = reward_open(&r, &e);
        unsetenv(cases[i].name);
        if (good) reward_close(&r);
        if (good != !cases[i].said) fail_msg("%s=%s: %s", cases[i].name, cases[i].value, good ? "taken" : e.text);
        if (good) continue;
        assert_int_equal(e.code, EXIT_CONFIG);
        if (!strstr(e.text, cases[i].said)) fail_msg("%s", e.text);
        assert_null(strstr(e.text, "sesame"));
        assert_null(strchr(e.text, '\n'));
    }
}

// A fault is counted for each completion with the prompt; a pattern that finds nothing is told of once, and ends the
// run.
static void judges_without_a_score_end_a_run(void **state) {
    Server *s = server_start();
    Reward r = judge_of(s, ",max_unmatched=6");
    Sample sample[5];
    float score[5];
    Error e = {0};
    for (int i = 0; i < 5; i++)
        sample[i] = (Sample){.prompt = i < 4 ? "q" : "p", .completion = "wordless", .completion_len = 8, .answer = ""};
    note_tell(keep_note);
    r.info->fn(&r, sample, 5, score);
    assert_int_equal(atomic_load(&s->requests), 2);
    assert_int_equal(reward_faults(&r, REWARD_BAD_REPLY), 5);
    assert_non_null(strstr(noted, "finds no score from 0 to 10 in any of the first replies"));
    assert_non_null(strstr(noted, "\"I would rather not say.\""));
    assert_true(reward_goes_on(&r, &e));
    noted[0] = 0;
    assert_true(isnan(score_by(&r, "wordless", "")));
    note_tell(NULL);
    assert_null(strstr(noted, "finds no score"));
    assert_false(reward_goes_on(&r, &e));
    assert_int_equal(e.code, EXIT_INPUT);
    assert_non_null(strstr(e.text, "in the replies to 6 completions in a row (max_unmatched)"));
    reward_close(&r);
    server_stop(s);
}

// Replies that do not come count as those without a score do, whatever kept them; one that has a score ends the row.
static void absent_replies_end_a_run(void **state) {
    static const char *const cases[][2] = {
        {"unknown", "HTTP status 404 (look at url"},
        {"garbage", "no text at choices[0].message.content"},
        {"nochoice", "no text at choices[0]"},
        {"nobody", "HTTP status 500; the reply is empty"},
        {"slow", "timed out"},
        {"drop", "mpty reply from server"},
        {"flood", "the reply has more than 1048576 by"},
        {"nothttp", "did not come: no reply (crash): "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Server *s = server_start();
        Reward r = judge_of(s, ",retries=0,timeout=0.8,max_unmatched=3");
        Error e = {0};
        for (int k = 0; k < 5; k++) { // without a score: 0 and 1, 3 and 4; then a third in a row
            char *text = k == 2 ? xstrdup("good") : xasprintf("%s %d", cases[i][0], k);
            assert_int_equal(isnan(score_by(&r, text, "")), k != 2);
            if (!reward_goes_on(&r, &e)) fail_msg("%s: ends after %d: %s", cases[i][0], k, e.text);
            free(text);
        }
        assert_true(isnan(score_by(&r, cases[i][0], "")));
        assert_false(reward_goes_on(&r, &e));
        assert_int_equal(e.code, EXIT_INPUT);
        if (!strstr(e.text, "in the replies to 3 completions in a row (max_unmatched); one did not come: no reply (") ||
            !strstr(e.text, cases[i][1]))
            fail_msg("%s: %s", cases[i][0], e.text);
        reward_close(&r);
        server_stop(s);
    }
}

// Rows of parts, joined, are those of the whole, wherever it is cut.
static void rows_join(void **state) {
    for (uint64_t seed = 1; seed <= 2000; seed++) {
        ReplyRows all = {0}, part = {0};
        int64_t n = (int64_t)(random_bits(seed, 0, 0) % 20), row = 0, longest = 0, first = -1;
        for (int64_t i = 0; i < n; i++) {
            bool none = random_bits(seed, 1, (uint64_t)i) % 3 != 0;
            row = none ? row + 1 : 0;
            longest = row > longest ? row : longest;
            if (!none && first < 0) first = i;
            reply_rows_join(&part, (ReplyRows){1, none, none, none});
            if (random_bits(seed, 2, (uint64_t)i) % 4) continue;
            reply_rows_join(&all, part);
            part = (ReplyRows){0};
        }
        reply_rows_join(&all, part);
        assert_int_equal(all.n, n);
        assert_int_equal(all.first, first < 0 ? n : first);
        assert_int_equal(all.last, row);
        assert_int_equal(all.longest, longest);
    }
}

static void hostile_replies_end(void **state) {
    Server *s = server_start();
    Reward r = judge_of(s, ",pattern=(score\\s*)+(x)");
    assert_near(score_by(&r, "hostile", ""), 0, 0);
    assert_int_equal(reward_faults(&r, REWARD_REGEX_LIMIT), 1);
    reward_close(&r);
    server_stop(s);
}

static void absent_servers_abstain(void **state) {
    Reward r = reward_opened("judge:url=http://127.0.0.1:1/v1,template={completion},retries=1,timeout=5");
    assert_true(isnan(score_by(&r, "x", "")));
    assert_int_equal(reward_faults(&r, REWARD_CRASH), 1);
    reward_close(&r);
}

static void bad_judges_are_refused(void **state) {
    Reward r;
    Error e;
    assert_false(reward_parse("judge:url=localhost:8000", &r, &e));
    assert_non_null(strstr(e.text, "http://"));
    static const struct {
        const char *url, *said; // NULL: it is taken
    } urls[] = {
        {"http://", "names no host"},
        {"http:///", "names no host"},
        {"https:////", "names no host"},
        {"http://:8000", "names no host"},
        {"http:///v1", "names no host"},
        {"http://user:word@", "names no host"},
        {"http://user:word@:80/v1", "names no host"},
        {"http://?v1", "names no host"},
        {"http://#v1", "names no host"},
        {"http://h:", "has no port from 1 to 65535"},
        {"http://h:/v1", "has no port from 1 to 65535"},
        {"http://h:0/v1", "has no port from 1 to 65535"},
        {"http://h:65536/v1", "has no port from 1 to 65535"},
        {"http://h:80x/v1", "has no port from 1 to 65535"},
        {"http://user:wo/rd@h/v1", "has no port from 1 to 65535"},
        {"http://[]:80", "has no IPv6 address"},
        {"http://[::1", "has no IPv6 address"},
        {"http://[::1]80", "has something other than a port"},
        {"http://[::1]:80/v1", NULL},
        {"http://[::1]", NULL},
        {"http://h", NULL},
        {"https://user:word@h:65535/v1?x=http://", NULL},
    };
    for (size_t i = 0; i < sizeof urls / sizeof *urls; i++) {
        char *spec = xasprintf("judge:url=%s", urls[i].url);
        bool good = reward_parse(spec, &r, &e);
        if (good != !urls[i].said) fail_msg("%s: %s", urls[i].url, good ? "taken" : e.text);
        if (!good && (e.code != EXIT_CONFIG || !strstr(e.text, urls[i].said))) fail_msg("%s", e.text);
        free(spec);
    }
    assert_cannot_open("judge:template=rate this", "nothing to judge");
    assert_cannot_open("judge:template={completion} {question}", "`{question}` at byte 13 is no field");
    assert_cannot_open("judge:template={completion} }", "at byte 13");
    assert_cannot_open("judge:template=@/nonexistent/template", "cannot be opened");
    assert_cannot_open("judge:pattern=Score", "no (group)");
    assert_cannot_open("judge:pattern=Score (", "pattern");
    assert_cannot_open("judge:min_score=5,max_score=5", "below");
}

static void templates_come_from_files(void **state) {
    put_text(at("template.txt"), "Judge, with commas, this:\n{completion}\n");
    Server *s = server_start();
    static const char *const ways[] = {"template=@", "template_file="};
    for (int i = 0; i < 2; i++) {
        char *spec = xasprintf("judge:url=http://127.0.0.1:%d,%s%s", s->port, ways[i], at("template.txt"));
        Reward r = reward_opened(spec);
        free(spec);
        assert_near(score_by(&r, "good", ""), 1, 0);
        assert_int_equal(atomic_load(&s->requests), i + 1);
        assert_non_null(strstr(server_seen(s), "Judge, with commas, this:\\ngood\\n"));
        reward_close(&r);
    }
    server_stop(s);
}

#define IN_SCRATCH(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
int main(void) {
    setenv("no_proxy", "127.0.0.1", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_read),
        cmocka_unit_test(requests_are_openai_s),
        cmocka_unit_test(replies_may_be_drawn),
        cmocka_unit_test(passwords_reach_the_server_alone),
        cmocka_unit_test(equal_prompts_are_asked_once),
        cmocka_unit_test(a_batch_is_asked_side_by_side),
        cmocka_unit_test(failures_abstain),
        cmocka_unit_test(judges_without_a_score_end_a_run),
        cmocka_unit_test(absent_replies_end_a_run),
        cmocka_unit_test(failures_say_why),
        cmocka_unit_test(wrong_secrets_are_refused),
        cmocka_unit_test(rows_join),
        cmocka_unit_test(hostile_replies_end),
        cmocka_unit_test(absent_servers_abstain),
        cmocka_unit_test(bad_judges_are_refused),
        IN_SCRATCH(templates_come_from_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#endif
