// Progress: one live line on a terminal, plain lines elsewhere.
//
// The cursor is never hidden and rests at the start of the live line: the terminal is in order however the program
// ends, and other output can come in between. The width is asked for at every drawing: no SIGWINCH handler is needed.
#include "clock.h"
#include "config.h"
#include "notes.h"
#include "output.h"
#include "progress.h"
#include "str.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>
#include <string.h>

#define MAX_PHASES     8
#define REDRAW_SECONDS 0.1

typedef struct {
    const char *name;
    double seconds;
} Timed;

typedef struct {
    Timed phase[MAX_PHASES]; // in the order they began
    int n;
} Times;

struct Progress {
    int out; // descriptor
    bool live, off;
    int64_t total, step, first;      // steps of the run; done; done before progress_open
    double opened, stepped, drawn;   // clock readings: the start, the end of the last step, the last drawing
    Times phases;                    // of the step under way
    const char *running;             // its phase now, or NULL
    double phase_began;              // clock reading
    int64_t phase_done, phase_total; // how far that phase is
    ProgressStep last;               // the last finished step
    Times last_phases;
};

Progress *progress_open(FILE *out, int mode, int64_t step, int64_t total_steps) {
    Progress *p = xcalloc(1, sizeof *p);
    fflush(out); // from here on lines go past the stream
    p->out = fileno(out);
    p->off = mode == PROGRESS_OFF;
    p->live = mode == PROGRESS_LIVE || (mode == PROGRESS_AUTO && output_is_screen(p->out));
    p->step = p->first = step;
    p->total = total_steps;
    p->opened = clock_seconds();
    return p;
}

// Columns a line may take: one less than the terminal has, since some terminals wrap when the last one is written.
static size_t columns(const Progress *p) {
    if (!p->live) return SIZE_MAX;
    struct winsize w;
    if (ioctl(p->out, TIOCGWINSZ, &w) == 0 && w.ws_col > 1) return (size_t)w.ws_col - 1;
    return 79;
}

// Appends two spaces and a part, or nothing if the line would exceed `limit`.
PRINTF_LIKE(3, 4) static void add_part(Str *s, size_t limit, const char *fmt, ...) {
    char part[64];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(part, sizeof part, fmt, ap);
    va_end(ap);
    size_t gap = s->n ? 2 : 0;
    if (s->n + gap + strlen(part) > limit) return;
    str_add(s, "  ", gap);
    str_puts(s, part);
}

static void add_duration(Str *s, size_t limit, const char *name, double seconds) {
    long long t = (long long)(seconds + 0.5);
    if (t < 60) add_part(s, limit, "%s %llds", name, t);
    else if (t < 3600) add_part(s, limit, "%s %lldm%02llds", name, t / 60, t % 60);
    else if (t < 86400) add_part(s, limit, "%s %lldh%02lldm", name, t / 3600, t / 60 % 60);
    else add_part(s, limit, "%s %lldd%02lldh", name, t / 86400, t / 3600 % 24);
}

// Writes the live line, most important parts first: on a narrow terminal the last ones are left out.
static void format_line(const Progress *p, Str *s) {
    size_t limit = columns(p);
    bool running = p->live && p->running;
    add_part(s, limit, "step %lld/%lld", (long long)(p->step + running), (long long)p->total);
    if (running && p->phase_total > 0)
        add_part(s, limit, "%s %d%%", p->running, (int)(100.0 * (double)p->phase_done / (double)p->phase_total));
    else if (running) add_part(s, limit, "%s", p->running);
    if (p->step == p->first) return;
    const ProgressStep *x = &p->last;
    if (!isnan(x->reward)) add_part(s, limit, "reward %.3f", x->reward);
    if (!isnan(x->accuracy)) add_part(s, limit, "accuracy %.1f%%", 100 * x->accuracy);
    if (p->step < p->total)
        add_duration(s, limit, "ETA",
                     (p->stepped - p->opened) / (double)(p->step - p->first) * (double)(p->total - p->step));
    if (!isnan(x->kl)) add_part(s, limit, "kl %.4f", x->kl);
    if (!isnan(x->loss)) add_part(s, limit, "loss %.4f", x->loss);
    if (!isnan(x->length)) add_part(s, limit, "length %.0f", x->length);
    if (!isnan(x->tokens_per_second)) add_part(s, limit, "%.0f tokens/s", x->tokens_per_second);
    for (int i = 0; i < p->last_phases.n; i++)
        add_part(s, limit, "%s %.1fs", p->last_phases.phase[i].name, p->last_phases.phase[i].seconds);
}

static void draw(Progress *p) {
    Str s = {0}, line = {0};
    format_line(p, &s);
    str_printf(&line, p->live ? "\r%s\033[K\r" : "%s\n", s.s ? s.s : "");
    output_write(p->out, line.s, line.n);
    str_free(&line);
    str_free(&s);
    p->drawn = clock_seconds();
}

static void phase_end(Progress *p) {
    if (!p->running) return;
    double seconds = clock_seconds() - p->phase_began;
    Times *all = &p->phases;
    int i = 0;
    while (i < all->n && strcmp(all->phase[i].name, p->running) != 0) i++;
    if (i == all->n && i < MAX_PHASES) all->phase[all->n++] = (Timed){p->running, 0};
    if (i < all->n) all->phase[i].seconds += seconds;
    p->running = NULL;
}

void progress_phase(Progress *p, const char *name, int64_t done, int64_t total) {
    if (!p) return;
    bool begins = !p->running || strcmp(p->running, name) != 0;
    if (begins) {
        phase_end(p);
        p->running = name;
        p->phase_began = clock_seconds();
    }
    p->phase_done = done;
    p->phase_total = total;
    if (p->live && !p->off && (begins || clock_seconds() - p->drawn >= REDRAW_SECONDS)) draw(p);
}

void progress_step(Progress *p, int64_t step, const ProgressStep *s) {
    if (!p) return;
    phase_end(p);
    p->step = step;
    p->stepped = clock_seconds();
    p->last = *s;
    p->last_phases = p->phases;
    p->phases.n = 0;
    if (!p->off) draw(p);
}

static void say(Progress *p, bool warns, const char *fmt, va_list ap) {
    if (!p) return;
    char text[1024];
    vsnprintf(text, sizeof text, fmt, ap);
    if (warns) note("%s", text);
    else notes_add(text);
    if (p->off) return;
    if (!warns) {
        Str s = {0};
        if (p->live) str_puts(&s, "\r\033[K");
        str_visible(&s, text, strlen(text));
        str_puts(&s, "\n");
        output_write(p->out, s.s, s.n);
        str_free(&s);
    }
    if (p->live) draw(p);
}

void progress_say(Progress *p, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    say(p, false, fmt, ap);
    va_end(ap);
}

void progress_warn(Progress *p, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    say(p, true, fmt, ap);
    va_end(ap);
}

void progress_close(Progress *p) {
    if (!p) return;
    p->running = NULL;
    if (p->live && !p->off && p->step > p->first) {
        draw(p);
        output_write(p->out, "\n", 1);
    }
    free(p);
}
