// grpo watch: shows a run on a terminal until it ends.
#include "commands.h"
#include "output.h"
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
                            "and with once=true, it shows it once.\n";

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

static bool follow(Watch *w, bool on_screen, Error *e) {
    struct winsize drawn = {0};
    bool changed, first = true;
    while (watch_read(w, &changed, e)) {
        struct winsize now = screen_size();
        bool resized = now.ws_col != drawn.ws_col || now.ws_row != drawn.ws_row;
        if (changed || first || (on_screen && resized)) draw(w, on_screen ? &now : NULL);
        drawn = now;
        first = false;
        if (!on_screen || watch_finished(w)) return true;
        nanosleep(&(struct timespec){.tv_nsec = 500000000}, NULL);
    }
    return false;
}

ExitCode command_watch(int argc, char **argv, Error *e) {
    const char *dir = NULL;
    bool ok = true, once = false, help = false;
    for (int i = 0; ok && i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) help = true;
        else if (!strcmp(argv[i], "once=true") || !strcmp(argv[i], "once=false")) once = argv[i][5] == 't';
        else if (argv[i][0] == '-' || (strchr(argv[i], '=') && access(argv[i], F_OK))) // no directory either
            ok = error_set(e, EXIT_CONFIG, "there is no option %.60s; see grpo watch --help", argv[i]);
        else if (dir) ok = error_set(e, EXIT_CONFIG, "watch takes one DIR, not also %.60s", argv[i]);
        else dir = argv[i];
    }
    if (help) fputs(usage, stdout);
    else if (ok && !dir) ok = error_set(e, EXIT_CONFIG, "watch needs the output_dir of a run; see grpo watch --help");
    else if (ok) {
        bool screen = !once && output_is_screen(STDOUT_FILENO);
        Watch *w = watch_open(dir);
        if (screen) output_write(STDOUT_FILENO, "\033[2J", 4);
        ok = follow(w, screen, e);
        watch_close(w);
    }
    return ok ? EXIT_OK : e->code;
}
