// grpo watch: shows a run on a terminal until it ends.
#include "config.h"
#include "commands.h"
#include "nearest.h"
#include "output.h"
#include "runs.h"
#include "watch.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static const char usage[] = "usage: grpo watch DIR [once=true]\n"
                            "Shows the run whose output_dir is DIR: sparklines of its numbers, the best and the worst "
                            "completion of its last group.\n"
                            "On a terminal it follows the run until its last step (Ctrl-C ends it before); elsewhere, "
                            "and with once=true, it shows it once.\n"
                            "Of a pipeline's output_dir it shows the phase that began last, until Ctrl-C.\n";

static bool locale_is_utf8(void) {
    const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    for (int i = 0; i < 3; i++) {
        const char *value = getenv(names[i]);
        if (value && *value) return strcasestr(value, "utf-8") || strcasestr(value, "utf8");
    }
    return false;
}

// The terminal's size; 80 columns where it does not say.
static struct winsize screen_size(void) {
    struct winsize size = {0};
    bool known = ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 && size.ws_row > 1;
    return known ? size : (struct winsize){.ws_col = 81};
}

// Draws the view over the one before it, one column and one row short of the terminal's; without one, all lines of it.
static void draw(Watch *w, const struct winsize *screen) {
    Str view = {0}, out = {0};
    watch_view(w, screen ? screen->ws_col - 1 : 80, screen && screen->ws_row ? screen->ws_row - 1 : 0, locale_is_utf8(),
               &view);
    if (screen) str_puts(&out, "\033[H");
    for (const char *line = view.s, *end; *line; line = end + 1) {
        end = strchr(line, '\n');
        str_add(&out, line, (size_t)(end - line));
        str_puts(&out, screen ? "\033[K\n" : "\n");
    }
    if (screen) str_puts(&out, "\033[J");
    output_write(STDOUT_FILENO, out.s, out.n);
    str_free(&view), str_free(&out);
}

// Which run is the one to look at: one that goes on, else the one that began last.
static int latest(const Runs *runs) {
    for (int i = runs->n - 1; i >= 0; i--)
        if (run_goes_on(runs->dir[i])) return i;
    return runs->n - 1;
}

// Shows the run in w until its end, or until a later one begins below `dir`.
static bool follow(Watch *w, const char *dir, const char *run, bool on_screen, bool *later, Error *e) {
    struct winsize drawn = {0};
    bool changed, went_on = true, first = true, alone = !strcmp(dir, run);
    *later = false;
    while (watch_read(w, &changed, e)) {
        struct winsize now = screen_size();
        bool resized = now.ws_col != drawn.ws_col || now.ws_row != drawn.ws_row;
        bool goes_on = run_goes_on(run);
        changed |= goes_on != went_on;
        went_on = goes_on;
        if (changed || first || (on_screen && resized)) draw(w, on_screen ? &now : NULL);
        drawn = now;
        first = false;
        if (!on_screen || (alone && watch_finished(w))) return true;
        nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
        Runs runs;
        if (alone || goes_on || !runs_find(dir, &runs, e)) continue;
        *later = strcmp(run, runs.dir[latest(&runs)]) != 0;
        runs_free(&runs);
        if (*later) return true;
    }
    return false;
}

static bool show(const char *dir, bool on_screen, Error *e) {
    if (on_screen) output_write(STDOUT_FILENO, "\033[2J", 4);
    bool ok = true;
    for (bool later = true; later && ok;) {
        Runs runs;
        if (!runs_find(dir, &runs, e)) return false;
        const char *run = runs.dir[latest(&runs)];
        Watch *w = watch_open(run);
        ok = follow(w, dir, run, on_screen, &later, e);
        watch_close(w);
        runs_free(&runs);
    }
    return ok;
}

ExitCode command_watch(int argc, char **argv, Error *e) {
    const char *dir = NULL;
    bool ok = true, once = false, help = false;
    for (int i = 0; ok && i < argc; i++) {
        if (config_asks_help(argv[i])) help = true;
        else if (!strcmp(argv[i], "once=true") || !strcmp(argv[i], "once=false")) once = argv[i][5] == 't';
        else if (argv[i][0] == '-' || (strchr(argv[i], '=') && access(argv[i], F_OK))) // no directory either
            ok = no_such_option(argv[i], (const char *const[]){"once"}, 1, "watch", e);
        else if (dir) ok = error_set(e, EXIT_CONFIG, "watch takes one DIR, not also %.60s", argv[i]);
        else dir = argv[i];
    }
    if (help) fputs(usage, stdout);
    else if (ok && !dir) ok = error_set(e, EXIT_CONFIG, "watch needs the output_dir of a run; see grpo watch --help");
    else if (ok) ok = show(dir, !once && output_is_screen(STDOUT_FILENO), e);
    return ok ? EXIT_OK : e->code;
}
