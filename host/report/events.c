// TensorBoard's event file. See events.h.
//
// A record is the length of its data (8 bytes, little-endian), the masked CRC32C of these 8 bytes, the data, and its
// masked CRC32C; the data is a protobuf message Event (tensorboard/compat/proto/event.proto). Protobuf is written by
// hand: a field is number << 3 | type, then a varint (type 0), 8 bytes (1), bytes behind their length (2), or 4 bytes
// (5).
#include "config_table.h"
#include "crc32c.h"
#include "events.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { RECORD_MOST = 64 << 20 };  // bytes; this program writes no longer one, so a longer one is damage
enum { PENDING_MOST = 16 << 20 }; // bytes that wait for room on a full disk

struct EventLog {
    char *path;
    int fd;
    off_t bytes;  // of whole records
    int64_t step; // of `values`
    int64_t last; // step of the last record that was there when the file was opened
    int of_last;  // records of that step
    Str values;   // of the event under way: Summary.value fields
    Str pending;  // records not written yet
    bool late;    // a note has said that they wait
};

// ---- protobuf -------------------------------------------------------------------------------------------------------

static void put_varint(Str *s, uint64_t v) {
    for (; v >= 128; v >>= 7) str_add(s, (char[]){(char)(v | 128)}, 1);
    str_add(s, (char[]){(char)v}, 1);
}
static void put_whole(Str *s, int field, uint64_t v) {
    put_varint(s, (uint64_t)field << 3);
    put_varint(s, v);
}
static void put_bytes(Str *s, int field, const char *bytes, size_t n) {
    put_varint(s, (uint64_t)field << 3 | 2);
    put_varint(s, n);
    str_add(s, bytes, n);
}
static void put_text(Str *s, int field, const char *text) { put_bytes(s, field, text, strlen(text)); }
// Appends the message `m` as a field, and empties m.
static void put_message(Str *s, int field, Str *m) {
    put_bytes(s, field, m->s ? m->s : "", m->n);
    str_free(m);
}
static void put_double(Str *s, int field,
                       double x) { // every supported machine is little-endian, as protobuf is
    put_varint(s, (uint64_t)field << 3 | 1);
    str_add(s, (const char *)&x, sizeof x);
}
static void put_float(Str *s, int field, float x) {
    put_varint(s, (uint64_t)field << 3 | 5);
    str_add(s, (const char *)&x, sizeof x);
}

// ---- records --------------------------------------------------------------------------------------------------------

static uint32_t masked(const void *data, size_t n) {
    uint32_t crc = crc32c(0, data, n);
    return (crc >> 15 | crc << 17) + 0xa282ead8u;
}

static void add_record(Str *s, const char *data, size_t n) {
    uint64_t length = n;
    uint32_t crc = masked(&length, sizeof length);
    str_add(s, (const char *)&length, sizeof length);
    str_add(s, (const char *)&crc, sizeof crc);
    str_add(s, data, n);
    crc = masked(data, n);
    str_add(s, (const char *)&crc, sizeof crc);
}

// Event {wall_time = 1, step = 2, file_version = 3 | summary = 5}
static void add_event(EventLog *l, int64_t step, int field, const char *bytes, size_t n) {
    Str event = {0};
    put_double(&event, 1, (double)time(NULL));
    if (step) put_whole(&event, 2, (uint64_t)step);
    put_bytes(&event, field, bytes, n);
    add_record(&l->pending, event.s, event.n);
    str_free(&event);
}

static void end_event(EventLog *l) {
    if (l->values.n) add_event(l, l->step, 5, l->values.s, l->values.n);
    str_clear(&l->values);
}

// Summary.Value {tag = 1, simple_value = 2, tensor = 8, metadata = 9}
static void add_value(EventLog *l, int64_t step, Str *value) {
    if (l->step != step) end_event(l);
    l->step = step;
    put_message(&l->values, 1, value);
}

void events_number(EventLog *l, int64_t step, const char *name, double number) {
    if (!l || !isfinite(number)) return;
    Str value = {0};
    char *tag = xasprintf("%s%s", strncmp(name, "eval/", 5) ? "train/" : "", name);
    put_text(&value, 1, tag);
    put_float(&value, 2, (float)number);
    add_value(l, step, &value);
    free(tag);
}

// SummaryMetadata {plugin_data = 1 {plugin_name = 1, content = 2}}
static void put_plugin(Str *value, const char *name, Str *content) {
    Str plugin = {0}, metadata = {0};
    put_text(&plugin, 1, name);
    if (content) put_message(&plugin, 2, content);
    put_message(&metadata, 1, &plugin);
    put_message(value, 9, &metadata);
}

void events_text(EventLog *l, int64_t step, const char *tag, const char *text) {
    if (!l) return;
    enum { DT_STRING = 7 };
    Str value = {0}, tensor = {0}, shape = {0}, dim = {0};
    put_whole(&dim, 1, 1); // TensorProto {dtype = 1, tensor_shape = 2 {dim = 2 {size = 1}}, string_val = 8}
    put_message(&shape, 2, &dim);
    put_whole(&tensor, 1, DT_STRING);
    put_message(&tensor, 2, &shape);
    put_text(&tensor, 8, text);
    put_text(&value, 1, tag);
    put_message(&value, 8, &tensor);
    put_plugin(&value, "text", NULL);
    add_value(l, step, &value);
}

// HParamsPluginData {session_start_info = 3 {hparams = 1: map of string to Value, start_time_secs = 5}}; a map's entry
// is {key = 1, value = 2}; Value is {number_value = 2, string_value = 3, bool_value = 4}.
static void add_options(EventLog *l, const Config *c) {
    Str info = {0}, data = {0}, value = {0};
    for (int i = 0; i < OPTION_COUNT; i++) {
        const Option *o = &config_options[i];
        Str entry = {0}, option = {0}, text = {0};
        const void *at = option_at(c, o);
        if (o->kind == KIND_BOOL) put_whole(&option, 4, *(const bool *)at);
        else if (o->kind == KIND_INT) put_double(&option, 2, (double)*(const int64_t *)at);
        else if (o->kind == KIND_REAL) put_double(&option, 2, *(const double *)at);
        else {
            config_put_value(&text, c, o);
            put_text(&option, 3, text.s);
        }
        put_text(&entry, 1, o->name);
        put_message(&entry, 2, &option);
        put_message(&info, 1, &entry);
        str_free(&text);
    }
    put_double(&info, 5, (double)time(NULL));
    put_message(&data, 3, &info);
    put_text(&value, 1, "_hparams_/session_start_info");
    put_plugin(&value, "hparams", &data);
    add_value(l, 0, &value);
    end_event(l);
}

// ---- the file -------------------------------------------------------------------------------------------------------

// Reads Event.step from the record data[n]; -1 where it cannot be parsed.
static int64_t step_of(const unsigned char *data, size_t n) {
    int64_t step = 0;
    for (size_t at = 0; at < n;) {
        uint64_t v[2] = {0};
        int parts = data[at] % 8 == 1 || data[at] % 8 == 5 ? 1 : 2; // the key, and a varint where one follows
        for (int k = 0; k < parts; k++)
            for (int shift = 0;; shift += 7, at++) {
                if (at == n || shift > 63) return -1;
                v[k] |= (uint64_t)(data[at] & 127) << shift;
                if (data[at] < 128) {
                    at++;
                    break;
                }
            }
        size_t left = n - at, skip = v[0] % 8 == 1 ? 8 : v[0] % 8 == 5 ? 4 : v[0] % 8 == 2 ? v[1] : 0;
        if (skip > left) return -1;
        if (v[0] == (2 << 3)) step = (int64_t)v[1];
        at += skip;
    }
    return step;
}

// Measures the records up to `step`: they end before the first one of a later step, or that is damaged or cut off.
static void measure(EventLog *l, int64_t step) {
    unsigned char *data = NULL;
    for (;;) {
        struct {
            uint64_t length;
            uint32_t crc;
        } head = {0};
        uint32_t crc;
        if (pread(l->fd, &head, 12, l->bytes) != 12 || head.crc != masked(&head.length, 8) || head.length > RECORD_MOST)
            break;
        data = xrealloc(data, head.length + 4);
        if (pread(l->fd, data, head.length + 4, l->bytes + 12) != (ssize_t)head.length + 4) break;
        memcpy(&crc, data + head.length, 4);
        int64_t at = crc == masked(data, head.length) ? step_of(data, head.length) : -1;
        if (at < 0 || at > step) break;
        l->of_last = at == l->last ? l->of_last + 1 : 1;
        l->last = at;
        l->bytes += 12 + (off_t)head.length + 4;
    }
    free(data);
}

static void add_version(EventLog *l) {
    static const char version[] = "brain.Event:2";
    add_event(l, 0, 3, version, strlen(version));
}

// Whether a file of n bytes begins as every event file does: with the length of the record that names the version, and
// the checksum of that length. Half of it may be there.
static bool is_event_file(EventLog *l, off_t n) {
    char start[12];
    size_t most = n < 12 ? (size_t)n : 12;
    add_version(l);
    bool is = pread(l->fd, start, most, 0) == (ssize_t)most && !memcmp(start, l->pending.s, most);
    str_clear(&l->pending);
    return is;
}

EventLog *events_open(const Config *c, int64_t step, Error *e) {
    EventLog *l = xcalloc(1, sizeof *l);
    l->path = xasprintf("%s/events.out.tfevents.grpo", c->output_dir);
    l->fd = open(l->path, O_RDWR | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666); // a pipe is not waited for
    struct stat st = {0};
    const char *wrong = l->fd < 0 || fstat(l->fd, &st) ? error_write(errno)
                        : S_ISREG(st.st_mode)          ? NULL
                                                       : "it is no regular file";
    if (!wrong && !is_event_file(l, st.st_size)) {
        error_set(
            e, EXIT_DISK,
            "%s: is there and is no event file, or its first bytes are damaged; move it away (numbers of a resumed "
            "run are then written again from metrics.jsonl)",
            l->path);
        events_close(l);
        return NULL;
    }
    if (!wrong && step) measure(l, step);
    if (!l->last) l->bytes = 0; // of no step: the options may be lost, too
    if (!wrong && (ftruncate(l->fd, l->bytes) || lseek(l->fd, l->bytes, SEEK_SET) < 0)) wrong = error_write(errno);
    if (wrong) {
        error_set(e, EXIT_DISK, "%s: cannot be opened for writing: %s; move away what is there", l->path, wrong);
        events_close(l);
        return NULL;
    }
    if (!l->bytes) {
        add_version(l);
        add_options(l, c);
        events_commit(l);
    }
    return l;
}

int64_t events_last(const EventLog *l, int *records) {
    *records = l->of_last;
    return l->last;
}

// Writes what is pending, or takes back what a failure has left of it. Returns 0 or errno's number.
static int write_pending(EventLog *l) {
    for (size_t done = 0; done < l->pending.n;) {
        ssize_t n = write(l->fd, l->pending.s + done, l->pending.n - done);
        if (n > 0) done += (size_t)n;
        if (n > 0 || (n < 0 && errno == EINTR)) continue;
        int why = n ? errno : ENOSPC;
        int cut = ftruncate(l->fd, l->bytes); // half a record that stays is written over, or cut off by resuming
        (void)cut;
        lseek(l->fd, l->bytes, SEEK_SET);
        return why;
    }
    l->bytes += (off_t)l->pending.n;
    return 0;
}

void events_commit(EventLog *l) {
    if (!l) return;
    end_event(l);
    int why = l->fd < 0 ? 0 : write_pending(l);
    if (why && !l->late)
        note("%s: writing failed: %s; the run goes on, and what is missing there is written when it can be", l->path,
             error_write(why));
    l->late = why != 0;
    if (why && l->pending.n <= PENDING_MOST) return;
    if (why) {
        note("%s: writing still fails: %s; the run goes on without it", l->path, error_write(why));
        close(l->fd);
        l->fd = -1;
    }
    str_clear(&l->pending);
}

void events_close(EventLog *l) {
    if (!l) return;
    if (l->late) events_commit(l);
    if (l->late) note("%s: its last steps are missing: there was no room for them", l->path);
    if (l->fd >= 0) close(l->fd);
    str_free(&l->values), str_free(&l->pending);
    free(l->path);
    free(l);
}
