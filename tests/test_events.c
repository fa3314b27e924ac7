// TensorBoard's event file, read back by a reader of its own: framing, checksums, tags and values; no step twice after
// a resumption; a damaged end is cut off. `test_events DIR` writes such a file for tensorboard's own reader instead.
#include "crc32c.h"
#include "live.h"
#include "metrics.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <math.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/wait.h>
#include <cmocka.h>
#include "scratch.h"

// ---- a reader: field by field, from the format's description --------------------------------------------------------

typedef struct {
    const unsigned char *at, *end;
} Bytes;

static uint64_t varint(Bytes *b) {
    uint64_t v = 0;
    for (int shift = 0;; shift += 7) {
        assert_true(b->at < b->end && shift < 64);
        v |= (uint64_t)(*b->at & 127) << shift;
        if (!(*b->at++ & 128)) return v;
    }
}

// The next field: its number, and its bytes (a varint's value in *whole). False at the end.
static bool field_next(Bytes *b, int *number, Bytes *value, uint64_t *whole) {
    if (b->at == b->end) return false;
    uint64_t key = varint(b), n = 0;
    *number = (int)(key >> 3);
    switch (key & 7) {
    case 0: *whole = varint(b); break;
    case 1: n = 8; break;
    case 2: n = varint(b); break;
    case 5: n = 4; break;
    default: fail_msg("wire type %d", (int)(key & 7));
    }
    assert_true(n <= (uint64_t)(b->end - b->at));
    *value = (Bytes){b->at, b->at + n};
    b->at += n;
    return true;
}

// Field `wanted` of a message, the k-th of that number; empty where it is absent.
static Bytes field_of(Bytes b, int wanted, int k) {
    int number;
    Bytes value;
    uint64_t whole;
    while (field_next(&b, &number, &value, &whole))
        if (number == wanted && k-- == 0) return value;
    return (Bytes){NULL, NULL};
}
static bool says(Bytes b, const char *text) {
    return (size_t)(b.end - b.at) == strlen(text) && !memcmp(b.at, text, strlen(text));
}

static uint32_t masked(const void *data, size_t n) {
    uint32_t crc = crc32c_portable(0, data, n);
    return ((crc >> 15) | (crc << 17)) + 0xa282ead8;
}

typedef struct {
    int64_t step;
    char tag[96];
    double number; // NaN: none
    char text[256];
} Value;
typedef struct {
    int n, events;
    Value value[4096];
} Values;

static void values_of_event(Bytes event, Values *v) {
    int number;
    Bytes field;
    uint64_t whole;
    int64_t step = 0;
    for (Bytes b = event; field_next(&b, &number, &field, &whole);)
        if (number == 2) step = (int64_t)whole;
    Bytes summary = field_of(event, 5, 0);
    for (int k = 0;; k++) {
        Bytes value = field_of(summary, 1, k), tag = field_of(value, 1, 0), simple = field_of(value, 2, 0);
        if (!value.at) break;
        Value *out = &v->value[v->n++];
        *out = (Value){.step = step, .number = NAN};
        snprintf(out->tag, sizeof out->tag, "%.*s", (int)(tag.end - tag.at), (const char *)tag.at);
        float x;
        if (simple.at) memcpy(&x, simple.at, 4), out->number = (double)x;
        Bytes string = field_of(field_of(value, 8, 0), 8, 0);
        if (!string.at) continue;
        snprintf(out->text, sizeof out->text, "%.*s", (int)(string.end - string.at), (const char *)string.at);
        assert_true(says(field_of(field_of(field_of(value, 9, 0), 1, 0), 1, 0), "text"));
    }
}

static Values *file_values(void) {
    static unsigned char bytes[1 << 20];
    static Values v;
    v.n = v.events = 0;
    FILE *f = fopen(at("events.out.tfevents.grpo"), "rb");
    assert_non_null(f);
    size_t n = fread(bytes, 1, sizeof bytes, f), done = 0;
    fclose(f);
    while (done < n) {
        uint64_t length;
        uint32_t crc;
        memcpy(&length, bytes + done, 8), memcpy(&crc, bytes + done + 8, 4);
        assert_int_equal(crc, masked(bytes + done, 8));
        assert_true(done + 16 + length <= n);
        memcpy(&crc, bytes + done + 12 + length, 4);
        assert_int_equal(crc, masked(bytes + done + 12, length));
        Bytes event = {bytes + done + 12, bytes + done + 12 + length};
        if (!v.events++) assert_true(says(field_of(event, 3, 0), "brain.Event:2"));
        values_of_event(event, &v);
        done += 16 + length;
    }
    return &v;
}

static const Value *find(const Values *v, int64_t step, const char *tag) {
    const Value *hit = NULL;
    for (int i = 0; i < v->n; i++) {
        if (v->value[i].step != step || strcmp(v->value[i].tag, tag)) continue;
        if (hit) fail_aloud("%s twice at step %lld", tag, (long long)step);
        hit = &v->value[i];
    }
    return hit;
}

// ---- a run ----------------------------------------------------------------------------------------------------------

static EventLog *opened_events; // of the run that was opened last

static Metrics *open_at(const char *dir, int64_t step) {
    Error e = {0};
    Config c;
    char *arg = xasprintf("output_dir=%s", dir);
    if (!config_read(&c, NULL, &arg, 1, &e)) fail_aloud("%s", e.text);
    Metrics *m = metrics_open(dir, step + step / 5, 4 * step, &e); // lines, as log_steps makes them
    EventLog *l = events_open(&c, step, &e);
    if (!m || !l) fail_aloud("%s", e.text);
    metrics_events(m, opened_events = l);
    config_free(&c);
    free(arg);
    return m;
}

static void log_steps(Metrics *m, int first, int last) {
    Error e = {0};
    const char *names[] = {"correctness"};
    float score = 1;
    for (int step = first; step <= last; step++) {
        metrics_add_int(m, "step", step);
        metrics_add(m, "reward", step / 8.);
        metrics_add(m, "rewards/correctness/mean", 0.5);
        metrics_add(m, "kl", NAN);
        metrics_add_int(m, "num_tokens", 1000 * step);
        for (int k = 0; k < 4; k++) {
            CompletionRecord r = {step, "1 + 1?", "<b>2</b>\n# two", "2", names, &score, 1, 1, 0, false};
            metrics_completion(m, &r);
        }
        assert_true(metrics_commit(m, &e));
        if (step % 5) continue;
        metrics_add_int(m, "step", step);
        metrics_add(m, "eval/accuracy", 0.25);
        assert_true(metrics_commit(m, &e));
    }
}

static void assert_steps(int last) {
    const Values *v = file_values();
    for (int step = 1; step <= last; step++) {
        assert_true(find(v, step, "train/reward")->number == step / 8.);
        assert_true(find(v, step, "train/rewards/correctness/mean")->number == 0.5);
        assert_true(find(v, step, "train/num_tokens")->number == 1000 * step);
        assert_null(find(v, step, "train/kl"));
        assert_true((find(v, step, "eval/accuracy") != NULL) == (step % 5 == 0));
        const Value *text = find(v, step, "train/completion 2");
        assert_true((text != NULL) == (step % 10 == 1));
        assert_null(find(v, step, "train/completion 3"));
        if (text)
            assert_string_equal(text->text, "reward 1, advantage 0\n\n    1 + 1?\n    \n    <b>2</b>\n    # two\n");
    }
    assert_null(find(v, last + 1, "train/reward"));
    assert_non_null(find(v, 0, "_hparams_/session_start_info"));
}

static void numbers_and_texts_read_back(void **state) {
    Metrics *m = open_at(scratch, 0);
    log_steps(m, 1, 25);
    metrics_close(m);
    assert_steps(25);
    m = open_at(scratch, 0); // a new run in its place
    log_steps(m, 1, 3);
    metrics_close(m);
    assert_steps(3);
}

static void a_resumed_run_has_no_step_twice(void **state) {
    Metrics *m = open_at(scratch, 0);
    log_steps(m, 1, 14);
    metrics_close(m);
    m = open_at(scratch, 10);
    log_steps(m, 11, 20);
    metrics_close(m);
    assert_steps(20);
}

// Cut at every byte of its end, and with every byte of it turned over: what is whole stays, and the numbers that are
// lost are made again.
static void a_damaged_end_is_mended(void **state) {
    Metrics *m = open_at(scratch, 0);
    log_steps(m, 1, 9);
    metrics_close(m);
    struct stat st;
    assert_int_equal(stat(at("events.out.tfevents.grpo"), &st), 0);
    size_t whole = (size_t)st.st_size;
    m = open_at(scratch, 9);
    log_steps(m, 10, 10);
    metrics_close(m);
    assert_int_equal(stat(at("events.out.tfevents.grpo"), &st), 0);
    size_t n = (size_t)st.st_size;
    char *bytes = xmalloc(n);
    FILE *f = fopen(at("events.out.tfevents.grpo"), "rb");
    assert_int_equal(fread(bytes, 1, n, f), n);
    fclose(f);
    for (size_t k = whole; k < n; k++) {
        for (int flip = 0; flip < 2; flip++) {
            bytes[k] ^= (char)(flip ? 0x55 : 0);
            put_bytes(at("events.out.tfevents.grpo"), bytes, flip ? n : k);
            bytes[k] ^= (char)(flip ? 0x55 : 0);
            m = open_at(scratch, 10);
            metrics_close(m);
            assert_steps(10);
        }
    }
    free(bytes);
    m = open_at(scratch, 9);
    log_steps(m, 10, 12);
    metrics_close(m);
    assert_steps(12);
}

// Steps before the checkpoint that the file lacks come back from metrics.jsonl, without their texts; each once.
static void lost_steps_are_made_again(void **state) {
    Metrics *m = open_at(scratch, 0);
    log_steps(m, 1, 15);
    metrics_close(m);
    size_t n;
    Error e = {0};
    char *bytes = file_read(at("events.out.tfevents.grpo"), 1 << 20, &n, &e);
    for (int cut = 0; cut < 8; cut++) { // the last: the file is gone
        if (cut < 7) put_bytes(at("events.out.tfevents.grpo"), bytes, n - n / 8 * (size_t)cut);
        else assert_int_equal(unlink(at("events.out.tfevents.grpo")), 0);
        m = open_at(scratch, 15);
        metrics_close(m);
        const Values *v = file_values();
        for (int step = 1; step <= 15; step++) {
            assert_true(find(v, step, "train/reward")->number == step / 8.);
            assert_true((find(v, step, "eval/accuracy") != NULL) == (step % 5 == 0));
        }
        assert_non_null(find(v, 0, "_hparams_/session_start_info"));
    }
    free(bytes);
}

static int said_report, said_events;
static void count_note(const char *text) {
    said_report += strstr(text, "report.html: writing failed: No space left") && strstr(text, "the run goes on");
    said_events += strstr(text, "tfevents.grpo: writing failed: No space left") && strstr(text, "the run goes on");
}

static bool write_to(const char *path, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int fd = open(path, O_WRONLY), n = fd < 0 ? -1 : vdprintf(fd, fmt, ap);
    va_end(ap);
    if (fd >= 0) close(fd);
    return n > 0;
}

// Writes to a file of the small file system as much as it takes.
static void fill_disk(const char *path) {
    int fd = open(path, O_WRONLY | O_CREAT, 0666);
    static char zeros[4096];
    while (write(fd, zeros, sizeof zeros) > 0)
        ;
    close(fd);
}

// A run of six steps on a disk that is full from the second to the fourth, but for the pages that the logs have begun.
// What it wrote is copied out to scratch. Returns an exit code: 0; 77 where a process may not mount a file system of
// its own.
static int run_on_full_disk(void) {
    char outside[sizeof scratch];
    int uid = (int)getuid(), gid = (int)getgid();
    bool own = !unshare(CLONE_NEWUSER | CLONE_NEWNS) && write_to("/proc/self/setgroups", "deny") &&
               write_to("/proc/self/uid_map", "0 %d 1", uid) && write_to("/proc/self/gid_map", "0 %d 1", gid);
    strcpy(outside, scratch);
    strcat(scratch, "/disk");
    if (!own || mkdir(scratch, 0777) || mount("tmpfs", scratch, "tmpfs", 0, "size=512k")) return 77;
    note_tell(count_note);
    Metrics *m = open_at(scratch, 0);
    log_steps(m, 1, 1);
    fill_disk(at("filler"));
    LiveReport *l = live_open(scratch, m, true);
    live_step(l);
    for (int step = 2; step <= 4; step++) {
        for (int i = 0; i < 300; i++) {
            char name[16];
            snprintf(name, sizeof name, "pad%d", i);
            events_number(opened_events, step, name, i); // more than a page
        }
        log_steps(m, step, step);
    }
    live_close(l);
    if (said_report != 1 || said_events != 1 || exists(at("report.html"))) return 2;
    unlink(at("filler"));
    l = live_open(scratch, m, true);
    log_steps(m, 5, 6);
    live_close(l);
    metrics_close(m);
    if (said_report != 1 || said_events != 1) return 3;
    static const char *const names[] = {"metrics.jsonl", "events.out.tfevents.grpo", "report.html"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *to = xasprintf("%s/%s", outside, names[i]);
        file_copy_to(at("%s", names[i]), to);
        free(to);
    }
    return 0;
}

// The page and the event file wait for room, and have everything in the end; training does not notice.
static void a_full_disk_loses_nothing(void **state) {
    int status;
    pid_t run = fork();
    if (!run) _exit(run_on_full_disk());
    assert_int_equal(waitpid(run, &status, 0), run);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        printf("SKIP: no file system of its own for a process here (unshare, mount)\n");
        skip();
    }
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_steps(6);
    size_t n;
    Error e = {0};
    char *log = file_read(at("metrics.jsonl"), 1 << 20, &n, &e), *page = file_read(at("report.html"), 1 << 20, &n, &e);
    for (int step = 1; step <= 6; step++) {
        char line[32];
        snprintf(line, sizeof line, "{\"step\": %d, \"reward\"", step);
        assert_non_null(strstr(log, line));
    }
    assert_non_null(strstr(page, "\"seen\": 6"));
    free(log), free(page);
}

static void what_is_in_the_way_is_said(void **state) {
    Error e = {0};
    Config c;
    char *arg = xasprintf("output_dir=%s", scratch);
    assert_true(config_read(&c, NULL, &arg, 1, &e));
    assert_true(disk_mkdir(at("events.out.tfevents.grpo"), &e));
    assert_null(events_open(&c, 0, &e));
    assert_int_equal(e.code, EXIT_DISK);
    SAYS(&e, "events.out.tfevents.grpo", "directory");
    assert_int_equal(rmdir(at("events.out.tfevents.grpo")), 0);
    put_text(at("events.out.tfevents.grpo"), "my notes"); // as one names a file; nothing of it is lost
    for (int64_t step = 0; step < 20; step += 10) {
        assert_null(events_open(&c, step, &e));
        assert_int_equal(e.code, EXIT_DISK);
        SAYS(&e, "events.out.tfevents.grpo", "is no event file", "move it away");
    }
    size_t n;
    char *text = file_read(at("events.out.tfevents.grpo"), 100, &n, &e);
    assert_string_equal(text, "my notes");
    free(text);
    config_free(&c);
    free(arg);
    char *args[] = {"report_to=[tensorboard, wandb]"};
    assert_false(config_read(&c, NULL, args, 1, &e));
    assert_int_equal(e.code, EXIT_CONFIG);
    assert_non_null(strstr(e.text, "wandb"));
}

int main(int argc, char **argv) {
    if (argc == 2) {
        Metrics *m = open_at(argv[1], 0);
        log_steps(m, 1, 14);
        metrics_close(m);
        m = open_at(argv[1], 10);
        log_steps(m, 11, 20);
        metrics_close(m);
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(numbers_and_texts_read_back, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_resumed_run_has_no_step_twice, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_damaged_end_is_mended, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(lost_steps_are_made_again, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(a_full_disk_loses_nothing, scratch_setup, scratch_teardown),
        cmocka_unit_test_setup_teardown(what_is_in_the_way_is_said, scratch_setup, scratch_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
