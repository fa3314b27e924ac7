// notes.jsonl. See notes.h.
#include "json.h"
#include "notes.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { EARLY_MOST = 64 << 10, SHOWN_MOST = 32 << 10 }; // bytes kept before notes_open; bytes of a file that are shown

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // the threads that run rewards write notes, too
static bool keeps;
static int file = -1;
static Str early;

static void put(const char *bytes, size_t n) {
    ssize_t ignored = write(file, bytes, n); // one whole line; a note that cannot be written does not stop the run
    (void)ignored;
}

void notes_add(const char *text) {
    pthread_mutex_lock(&lock);
    if (keeps) {
        char now[40];
        time_t seconds = time(NULL);
        struct tm utc;
        Str line = {0};
        strftime(now, sizeof now, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&seconds, &utc));
        str_printf(&line, "{\"at\": \"%s\", \"text\": ", now);
        str_json(&line, text, strlen(text));
        str_puts(&line, "}\n");
        if (file >= 0) put(line.s, line.n);
        else if (early.n < EARLY_MOST) str_add(&early, line.s, line.n);
        str_free(&line);
    }
    pthread_mutex_unlock(&lock);
}

void notes_begin(void) {
    keeps = true;
    note_tell(notes_add);
}

void notes_open(const char *output_dir, bool anew) {
    char *path = xasprintf("%s/notes.jsonl", output_dir);
    pthread_mutex_lock(&lock);
    file = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK | (anew ? O_TRUNC : 0), 0666);
    if (file >= 0 && early.n) put(early.s, early.n);
    str_clear(&early);
    pthread_mutex_unlock(&lock);
    free(path);
}

void notes_close(void) {
    note_tell(NULL);
    pthread_mutex_lock(&lock);
    if (file >= 0) close(file);
    file = -1, keeps = false;
    str_free(&early);
    pthread_mutex_unlock(&lock);
}

void notes_json(const char *dir, Str *out) {
    char *path = xasprintf("%s/notes.jsonl", dir), *text = xmalloc(SHOWN_MOST + 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    ssize_t n = fd >= 0 && !fstat(fd, &st) && S_ISREG(st.st_mode)
                    ? pread(fd, text, SHOWN_MOST, st.st_size > SHOWN_MOST ? st.st_size - SHOWN_MOST : 0)
                    : 0;
    if (fd >= 0) close(fd);
    text[n > 0 ? n : 0] = 0;
    const char *line = n == SHOWN_MOST ? strchr(text, '\n') : text; // skip the first: it may be half a line
    if (line == NULL) line = "";
    bool first = true;
    str_puts(out, "[");
    for (const char *end; (end = strchr(line, '\n')); line = end + 1) {
        json_t *j = json_parse(line, (size_t)(end - line), "", NULL);
        if (json_is_string(json_object_get(j, "at")) && json_is_string(json_object_get(j, "text"))) {
            str_puts(out, first ? "\n" : ",\n");
            str_add(out, line, (size_t)(end - line));
            first = false;
        }
        json_decref(j);
    }
    str_puts(out, "]");
    free(text), free(path);
}
