// Users' own scorers: programs that answer, sleep, fork, crash, flood, ignore TERM; shared objects; the shipped
// examples.
#include "file.h"
#include "json.h"
#include "scoring.h"
#include "scratch.h"
#include "signals.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

// A scorer in sh: runs `body` for each request, with its $id and the $line.
static const char *scorer_of_batches(const char *name, const char *before, const char *body, int batch) {
    static char ring[4][256];
    static int next;
    char *text = xasprintf("#!/bin/sh\n%s\n"
                           "while IFS= read -r line; do\n"
                           "id=${line#*: }; id=${id%%%%,*}\n"
                           "[ \"$id\" = 0 ] && { echo '{\"id\": 0, \"scores\": []}'; continue; }\n"
                           "%s\ndone\n",
                           before, body);
    put_text(at("%s", name), text);
    free(text);
    assert_int_equal(chmod(at("%s", name), 0755), 0);
    char *spec = ring[next++ % 4];
    snprintf(spec, sizeof *ring, "external:command=%s,batch=%d", at("%s", name), batch);
    return spec;
}

static const char *scorer(const char *name, const char *before, const char *body) {
    return scorer_of_batches(name, before, body, 1);
}

// The completion is the score.
static const char answer[] =
    "text=${line#*\\\"completion\\\": \\\"}; text=${text%%\\\"*}; echo \"{\\\"id\\\": $id, \\\"scores\\\": [$text]}\"";

static char *with(const char *spec, const char *params) {
    static char text[512];
    snprintf(text, sizeof text, "%s%s", spec, params);
    return text;
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// Neither running nor hung: gone, or waiting for the system to collect it.
static bool is_gone(pid_t pid) {
    char path[64], line[512] = "";
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "r");
    if (!f) return true;
    bool read = fgets(line, sizeof line, f);
    fclose(f);
    const char *state = read ? strrchr(line, ')') : NULL;
    return state && state[2] == 'Z';
}

static pid_t pid_in(const char *name) {
    int pid = 0;
    FILE *f = fopen(at("%s", name), "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d", &pid), 1);
    fclose(f);
    return pid;
}

static void assert_gone(const char *name) {
    pid_t pid = pid_in(name);
    for (int i = 0; i < 200 && !is_gone(pid); i++) nanosleep(&(struct timespec){0, 10000000}, NULL);
    assert_true(is_gone(pid));
}

static void scores_come_back(void **state) {
    Reward r = reward_opened(scorer("good", "", answer));
    assert_near(score_by(&r, "0.25", ""), 0.25, 0);
    assert_near(score_by(&r, "-3e2", ""), -300, 0);
    assert_true(isnan(score_by(&r, "null", "")));
    Sample three[3];
    float score[3];
    static const char *const text[] = {"1", "2", "3"};
    for (int i = 0; i < 3; i++)
        three[i] = (Sample){.prompt = "", .completion = text[i], .completion_len = 1, .answer = ""};
    r.info->fn(&r, three, 3, score);
    for (int i = 0; i < 3; i++) assert_near(score[i], i + 1, 0);
    for (int f = 0; f < REWARD_FAULTS; f++) assert_int_equal(reward_faults(&r, f), 0);
    reward_close(&r);
}

// What the program is sent, to the byte.
static void requests_are_json(void **state) {
    char *body =
        xasprintf("printf '%%s\\n' \"$line\" >>%s; echo \"{\\\"id\\\": $id, \\\"scores\\\": [1, 1]}\"", at("seen"));
    Reward r = reward_opened(scorer_of_batches("see", "", body, 2));
    free(body);
    Sample s[2] = {
        {.prompt = "q\"1\"", .completion = "a\n\x01\\\xff", .completion_len = 5, .answer = "é", .group = 3},
        {.prompt = "", .completion = "x\0y", .completion_len = 3, .answer = "", .group = 3},
    };
    float score[2];
    r.info->fn(&r, s, 2, score);
    reward_close(&r);
    size_t n;
    Error e = {0};
    char *seen = file_read(at("seen"), 1 << 20, &n, &e);
    assert_non_null(seen);
    json_t *j = json_parse(seen, n, "seen", &e);
    if (!j) fail_msg("%s in %s", e.text, seen);
    const json_t *list = json_object_get(j, "samples"), *first = json_array_get(list, 0);
    assert_int_equal(json_array_size(list), 2);
    assert_string_equal(json_string_value(json_object_get(first, "prompt")), "q\"1\"");
    assert_string_equal(json_string_value(json_object_get(first, "completion")), "a\n\x01\\\ufffd");
    assert_string_equal(json_string_value(json_object_get(first, "answer")), "é");
    assert_int_equal(json_integer_value(json_object_get(first, "group")), 3);
    assert_int_equal(json_string_length(json_object_get(json_array_get(list, 1), "completion")), 3);
    json_decref(j);
    free(seen);
}

// Each fault abstains, is counted once under its name, ends in time, and the next request is answered again.
static void faults_are_counted(void **state) {
    static const struct {
        const char *body;
        RewardFault fault;
    } cases[] = {
        {"sleep 100", REWARD_TIMEOUT},
        {"trap '' TERM INT HUP; while :; do sleep 100; done", REWARD_TIMEOUT},
        {"exec 1>&-; sleep 100", REWARD_CRASH},
        {"exit 3", REWARD_CRASH},
        {"kill -9 $$", REWARD_CRASH},
        {"kill -STOP $$", REWARD_TIMEOUT},
        {"head -c 3000000 /dev/zero | tr '\\0' a; sleep 100", REWARD_FLOOD},
        {"yes", REWARD_BAD_REPLY},
        {"head -c 30000000 /dev/zero | tr '\\0' a >&2; sleep 100", REWARD_TIMEOUT},
        {"echo nonsense", REWARD_BAD_REPLY},
        {"echo", REWARD_BAD_REPLY},
        {"echo '[1]'", REWARD_BAD_REPLY},
        {"echo '{\"id\": 999, \"scores\": [1]}'", REWARD_BAD_REPLY},
        {"echo '{\"id\": 0, \"scores\": [1]}'", REWARD_BAD_REPLY}, // of an earlier request
        {"echo '{\"scores\": [1]}'", REWARD_BAD_REPLY},
        {"echo \"{\\\"id\\\": $id, \\\"scores\\\": []}\"", REWARD_BAD_REPLY},
        {"echo \"{\\\"id\\\": $id, \\\"scores\\\": [1, 1]}\"", REWARD_BAD_REPLY},
        {"echo \"{\\\"id\\\": $id, \\\"scores\\\": [\\\"1\\\"]}\"", REWARD_BAD_REPLY},
        {"echo \"{\\\"id\\\": $id, \\\"scores\\\": [1e200]}\"", REWARD_BAD_REPLY},
        {"echo \"{\\\"id\\\": $id, \\\"scores\\\": [NaN]}\"", REWARD_BAD_REPLY},
        {"echo \"{\\\"id\\\": $id, \\\"id\\\": $id, \\\"scores\\\": [1]}\"", REWARD_BAD_REPLY},
        {"printf '{\"id\": %s, \"scores\": [1]}\\nmore\\n' $id; sleep 100", REWARD_BAD_REPLY},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *body = xasprintf("case $line in *'\"bad\"'*) %s; continue;; esac\n%s", cases[i].body, answer);
        Reward r = reward_opened(with(scorer("bad", "", body), ",timeout=2"));
        free(body);
        double from = seconds();
        float score = score_by(&r, "bad", "");
        if (!isnan(score)) fail_msg("%s: scored %g", cases[i].body, (double)score);
        if (seconds() - from > 30) fail_msg("%s: took %g s", cases[i].body, seconds() - from);
        for (RewardFault f = 0; f < REWARD_FAULTS; f++)
            if (reward_faults(&r, f) != (f == cases[i].fault))
                fail_msg("%s: %s is %lld", cases[i].body, reward_fault_name[f], (long long)reward_faults(&r, f));
        score = score_by(&r, "5", "");
        if (!(score == 5)) fail_msg("after %s: %g", cases[i].body, (double)score);
        reward_close(&r);
    }
}

// A worker that died or went on talking between two requests is started again, and nothing is lost.
static void idle_workers_are_restarted(void **state) {
    char *body = xasprintf("%s; sleep 0.7; echo more; exit 1", answer), *before = xasprintf("echo $$ >%s", at("self"));
    Reward r = reward_opened(scorer("restless", before, body));
    free(body);
    free(before);
    for (int i = 0; i < 3; i++) {
        assert_near(score_by(&r, "4", ""), 4, 0);
        assert_gone("self");
    }
    for (int f = 0; f < REWARD_FAULTS; f++) assert_int_equal(reward_faults(&r, f), 0);
    reward_close(&r);
}

// What a scorer leaves behind is killed with it, whether it hangs, crashes or is closed.
static void groups_are_killed(void **state) {
    static const char *const end[] = {"wait", "exit 1", ""};
    for (int i = 0; i < 3; i++) {
        char *body = xasprintf("(trap '' TERM HUP; sleep 1000) & echo $! >%s; %s\n%s", at("child"), end[i], answer);
        char *before = xasprintf("echo $$ >%s", at("self"));
        Reward r = reward_opened(with(scorer("forks", before, body), ",timeout=0.5"));
        free(body);
        free(before);
        pid_t self = pid_in("self");
        float score = score_by(&r, "1", "");
        if (i < 2) assert_true(isnan(score));
        else assert_near(score, 1, 0);
        if (i < 2) assert_gone("child");
        reward_close(&r);
        assert_gone("child");
        assert_true(is_gone(self));
    }
}

static bool appears(const char *name) {
    struct stat info = {0};
    for (int i = 0; i < 500 && info.st_size == 0; i++) {
        nanosleep(&(struct timespec){0, 10000000}, NULL);
        if (stat(at("%s", name), &info)) info.st_size = 0;
    }
    return info.st_size > 0;
}

static void *open_in_thread(void *spec) { // which ends: nothing may depend on it
    static Reward r;
    r = reward_opened(spec);
    return &r;
}

static void nothing_outlives_the_run(void **state) {
    static const int end[][2] = {{SIGKILL, 0}, {SIGTERM, SIGTERM}, {SIGSEGV, 0}, {SIGTERM, SIGKILL}};
    for (size_t i = 0; i < sizeof end / sizeof *end; i++) {
        // Its own child, one in a session of its own, and one whose parent has ended.
        char *before = xasprintf("trap '' TERM INT HUP; cd %s; echo $$ >self; (echo $$ >/dev/null; exec sleep 1000) & "
                                 "echo $! >child; setsid sh -c 'echo $$ >session; exec sleep 1000' & "
                                 "(sh -c 'echo $$ >orphan; exec sleep 1000' &)",
                                 at("."));
        const char *spec = scorer("outlives", before, "echo >asked; sleep 1000");
        free(before);
        pid_t run = fork();
        if (run == 0) {
            signal(SIGSEGV, SIG_DFL); // cmocka has a handler
            signals_install(false);
            if (!freopen("/dev/null", "w", stderr)) _exit(1);
            pthread_t thread;
            void *r;
            pthread_create(&thread, NULL, open_in_thread, (void *)(uintptr_t)spec);
            pthread_join(thread, &r);
            for (;;) {
                float score = score_by(r, "1", "");
                if (!isnan(score)) _exit(1);
            }
        }
        assert_true(appears("asked") && appears("session") && appears("orphan"));
        for (int k = 0; k < 2 && end[i][k]; k++) {
            kill(run, end[i][k]);
            nanosleep(&(struct timespec){0, 200000000}, NULL);
        }
        assert_int_equal(waitpid(run, NULL, 0), run);
        const char *const names[] = {"self", "child", "session", "orphan"};
        for (size_t k = 0; k < 4; k++) assert_gone(names[k]);
        unlink(at("asked")), unlink(at("session")), unlink(at("orphan"));
    }
}

static void *ask_hanging(void *r) {
    float score = score_by(r, "1", "");
    assert_true(isnan(score));
    return NULL;
}

// A stop waits neither for the one that is asked nor for those that queue behind it; and it is no fault of the scorer.
static void a_stop_gives_up_what_hangs(void **state) {
    char *body = xasprintf("echo >%s; sleep 1000", at("asked"));
    const char *spec = with(scorer("hangs", "", body), ",timeout=60");
    free(body);
    pid_t run = fork();
    if (run == 0) {
        signals_install(false);
        if (!freopen("/dev/null", "w", stderr)) _exit(1);
        Reward r = reward_opened(spec);
        pthread_t thread[8];
        for (int i = 0; i < 8; i++) pthread_create(&thread[i], NULL, ask_hanging, &r);
        for (int i = 0; i < 8; i++) pthread_join(thread[i], NULL);
        int64_t faults = 0;
        for (int f = 0; f < REWARD_FAULTS; f++) faults += reward_faults(&r, (RewardFault)f);
        reward_close(&r);
        _exit(faults ? 3 : 0);
    }
    assert_true(appears("asked"));
    double start = seconds();
    int status;
    kill(run, SIGTERM);
    assert_int_equal(waitpid(run, &status, 0), run);
    assert_int_equal(status, 0);
    assert_true(seconds() - start < 5);
}

static void nothing_leaks_into_scorers(void **state) {
    int leak = open("/dev/null", O_RDONLY); // without O_CLOEXEC, as a careless library would
    sigset_t all, before;                   // a thread that scores has every signal blocked
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    char *body =
        xasprintf("ls /proc/self/fd >%s; grep SigBlk /proc/self/status >%s\n%s", at("fds"), at("mask"), answer);
    Reward r = reward_opened(scorer("fds", "", body));
    free(body);
    assert_near(score_by(&r, "1", ""), 1, 0);
    reward_close(&r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    size_t n;
    Error e = {0};
    char *mask = file_read(at("mask"), 4096, &n, &e);
    assert_non_null(mask);
    assert_string_equal(mask, "SigBlk:\t0000000000000000\n");
    free(mask);
    char *fds = file_read(at("fds"), 4096, &n, &e), *save = NULL;
    assert_non_null(fds);
    int count = 0;
    for (char *fd = strtok_r(fds, "\n", &save); fd; fd = strtok_r(NULL, "\n", &save)) count++;
    assert_true(count <= 4); // three, and the directory that ls reads
    free(fds);
    close(leak);
}

// A request larger than any pipe, to a scorer that writes before it reads on.
static void long_texts_pass(void **state) {
    Reward r = reward_opened(with(scorer("long", "",
                                         "text=$(printf %s \"$line\" | wc -c)\n"
                                         "echo \"{\\\"id\\\": $id, \\\"scores\\\": [$text]}\""),
                                  ",timeout=60"));
    Str s = {0};
    while (s.n < 1000000) str_puts(&s, "0123456789");
    assert_near(score_by(&r, s.s, ""), 1000000, 200);
    str_free(&s);
    reward_close(&r);
}

typedef struct {
    const Reward *r;
    int first;
    float score[20];
} Part;

static void *score_part(void *arg) {
    Part *p = arg;
    for (int i = 0; i < 20; i++) {
        char text[16];
        snprintf(text, sizeof text, "%d", p->first + i);
        p->score[i] = score_by(p->r, text, "");
    }
    return NULL;
}

static void threads_share_workers(void **state) {
    Reward r = reward_opened(with(scorer("shared", "", answer), ",workers=2"));
    Part part[4];
    pthread_t thread[4];
    for (int i = 0; i < 4; i++) {
        part[i] = (Part){.r = &r, .first = 100 * i};
        assert_int_equal(pthread_create(&thread[i], NULL, score_part, &part[i]), 0);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(thread[i], NULL);
        for (int k = 0; k < 20; k++) assert_near(part[i].score[k], 100 * i + k, 0);
    }
    reward_close(&r);
}

static void broken_scorers_are_refused_at_the_start(void **state) {
    char spec[512];
    assert_cannot_open("external", "needs a program");
    assert_cannot_open("external:command=/nonexistent/scorer", "no such program");
    assert_cannot_open("external:command=no-such-program-anywhere x", "no such program");
    put_text(at("plain"), "#!/bin/sh\n");
    snprintf(spec, sizeof spec, "external:command=%s", at("plain")); // not executable
    assert_cannot_open(spec, "Permission denied");
    snprintf(spec, sizeof spec, "external:command=sh %s", at("absent"));
    assert_cannot_open(spec, "absent"); // what sh said
    assert_cannot_open("external:command=false", "ended without an answer");
    assert_cannot_open("external:command=sleep 100,start_timeout=0.2", "in time");
    assert_cannot_open("external:command=cat /dev/zero", "too much");
    Reward r;
    Error e = {0};
    assert_false(reward_parse("external:comand=x", &r, &e));
    assert_non_null(strstr(e.text, "did you mean command?"));
}

static void example_script(void **state) {
    if (system("python3 -c '' >/dev/null 2>&1") != 0) {
        printf("SKIP example_script: no python3\n");
        skip();
    }
    Reward r = reward_opened("external:command=rewards/examples/contains_answer.py");
    assert_near(score_by(&r, "it is 42.", "42"), 1, 0);
    assert_near(score_by(&r, "it is 41.", "42"), 0, 0);
    assert_true(isnan(score_by(&r, "it is 41.", "")));
    reward_close(&r);
}

static void build_plugin(const char *source, const char *object) {
    char *command =
        xasprintf("cc -shared -fPIC -I include -Wall -Wextra -Werror -o %s %s 2>%s", object, source, at("cc.log"));
    int rc = system(command);
    free(command);
    if (rc != 0) fail_msg("%s does not compile", source);
}

static void example_plugin(void **state) {
    if (system("cc --version >/dev/null 2>&1") != 0) {
        printf("SKIP example_plugin: no C compiler named cc\n");
        skip();
    }
    char spec[512];
    build_plugin("rewards/examples/contains_answer.c", at("example.so"));
    snprintf(spec, sizeof spec, "plugin:path=%s,argument=2.5", at("example.so"));
    Reward r = reward_opened(spec);
    assert_near(score_by(&r, "it is 42.", "42"), 2.5, 0);
    assert_near(score_by(&r, "it is 41.", "42"), 0, 0);
    assert_true(isnan(score_by(&r, "it is 41.", "")));
    reward_close(&r);
    snprintf(spec, sizeof spec, "plugin:path=%s,argument=zero", at("example.so"));
    assert_cannot_open(spec, "refuses: the argument must be a number");

    put_text(at("old.c"), "#include \"reward_plugin.h\"\nconst RewardPlugin reward_plugin = {.abi = 99};\n");
    build_plugin(at("old.c"), at("old.so"));
    snprintf(spec, sizeof spec, "plugin:path=%s", at("old.so"));
    assert_cannot_open(spec, "interface 99");
    put_text(at("empty.c"), "int nothing;\n");
    build_plugin(at("empty.c"), at("empty.so"));
    snprintf(spec, sizeof spec, "plugin:path=%s", at("empty.so"));
    assert_cannot_open(spec, "defines no `reward_plugin`");
    put_text(at("inf.c"), "#include \"reward_plugin.h\"\n"
                          "static void f(void *o, const RewardPluginSample *s, int n, float *score) {\n"
                          "(void)o; (void)s; for (int i = 0; i < n; i++) score[i] = 1e38f * 10; }\n"
                          "const RewardPlugin reward_plugin = {.abi = REWARD_PLUGIN_ABI, .score = f};\n");
    build_plugin(at("inf.c"), at("inf.so"));
    snprintf(spec, sizeof spec, "plugin:path=%s", at("inf.so"));
    r = reward_opened(spec);
    assert_true(isnan(score_by(&r, "x", "x")));
    assert_int_equal(reward_faults(&r, REWARD_BAD_REPLY), 1);
    reward_close(&r);
}

// A library that was cut anywhere is refused, or loads where only what nothing reads is gone: no signal ends the run.
static void plugins_that_were_cut_short_are_refused(void **state) {
    if (system("command -v cc >/dev/null")) {
        printf("SKIP plugins_that_were_cut_short_are_refused: no C compiler named cc\n");
        return;
    }
    build_plugin("rewards/examples/contains_answer.c", at("whole.so"));
    size_t n, refused = 0;
    char *bytes = file_read(at("whole.so"), 1 << 24, &n, NULL), spec[256];
    assert_non_null(bytes);
    for (size_t cut = 0; cut <= n; cut += cut < 64 || cut + 61 > n ? 1 : 61) {
        snprintf(spec, sizeof spec, "plugin:path=%s,argument=2",
                 at("cut%zu.so", cut)); // dlopen knows files it has opened
        put_bytes(at("cut%zu.so", cut), bytes, cut);
        Reward r;
        Error e = {0};
        assert_true(reward_parse(spec, &r, &e));
        bool good = reward_open(&r, &e);
        if (good) reward_close(&r);
        else refused++;
        if (!good) assert_int_equal(e.code, EXIT_CONFIG);
        if (cut == n) assert_true(good);
        unlink(at("cut%zu.so", cut));
    }
    assert_true(refused > 64);
    snprintf(spec, sizeof spec, "plugin:path=%s", at("half.so"));
    put_bytes(at("half.so"), bytes, n / 2);
    assert_cannot_open(spec, "its headers promise more: it was cut short, or is still being written");
    free(bytes);
}

// Nothing is lost without a word.
static void a_plugin_that_exits_is_said(void **state) {
    if (system("command -v cc >/dev/null")) {
        printf("SKIP a_plugin_that_exits_is_said: no C compiler named cc\n");
        return;
    }
    put_text(at("exits.c"), "#include \"reward_plugin.h\"\n#include <stdlib.h>\n"
                            "static void score(void *v, const RewardPluginSample *s, int n, float *out) {"
                            " exit(v || s || n || out ? 0 : 1); }\n"
                            "const RewardPlugin reward_plugin = {REWARD_PLUGIN_ABI, 0, score, 0};\n");
    build_plugin(at("exits.c"), at("exits.so"));
    put_text(at("q.jsonl"), "{\"completion\": \"a\", \"answer\": \"b\"}\n");
    const char *program = getenv("GRPO") ? getenv("GRPO") : "build/grpo";
    char *line = xasprintf("%s reward plugin:path=%s %s >%s 2>&1", program, at("exits.so"), at("q.jsonl"), at("said"));
    int status = system(line);
    size_t n;
    char *said = file_read(at("said"), 1000, &n, NULL);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_CONFIG);
    assert_non_null(strstr(said, "grpo: error: a plugin or a library called exit(): nothing is saved"));
    free(said), free(line);
}

static void absent_plugins_are_refused(void **state) {
    assert_cannot_open("plugin", "needs a shared object");
    assert_cannot_open("plugin:path=/nonexistent/x.so", "cannot be opened");
    put_text(at("text.so"), "no object\n");
    char spec[512];
    assert_int_equal(mkfifo(at("pipe.so"), 0600), 0); // dlopen would wait for its writer
    snprintf(spec, sizeof spec, "plugin:path=%s", at("pipe.so"));
    assert_cannot_open(spec, "is a pipe");
    snprintf(spec, sizeof spec, "plugin:path=%s", at("text.so"));
    assert_cannot_open(spec, "cannot be loaded");
}

#define IN_SCRATCH(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        IN_SCRATCH(scores_come_back),
        IN_SCRATCH(requests_are_json),
        IN_SCRATCH(faults_are_counted),
        IN_SCRATCH(idle_workers_are_restarted),
        IN_SCRATCH(groups_are_killed),
        IN_SCRATCH(nothing_outlives_the_run),
        IN_SCRATCH(a_stop_gives_up_what_hangs),
        IN_SCRATCH(nothing_leaks_into_scorers),
        IN_SCRATCH(long_texts_pass),
        IN_SCRATCH(threads_share_workers),
        IN_SCRATCH(broken_scorers_are_refused_at_the_start),
        IN_SCRATCH(example_script),
        IN_SCRATCH(example_plugin),
        IN_SCRATCH(plugins_that_were_cut_short_are_refused),
        IN_SCRATCH(a_plugin_that_exits_is_said),
        IN_SCRATCH(absent_plugins_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
