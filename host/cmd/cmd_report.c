// grpo report: makes an HTML page from the logs of runs.
#include "config.h"
#include "commands.h"
#include "nearest.h"
#include "report.h"
#include "runs.h"
#include "str.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

static const char usage[] =
    "usage: grpo report DIR... [output=FILE]\n"
    "Writes one self-contained HTML page from the logs in each DIR, the output_dir of a run, also of one that goes on "
    "or\n"
    "was killed, or of a pipeline, whose phases are runs. Several runs share the plots.\n"
    "  output   the page (default DIR/report.html; needed with several DIR); FILE.svg: a picture of the main\n"
    "           curves instead\n";

static bool report_make(const Runs *runs, const char *const *dirs, int n_dirs, const char *path, Error *e) {
    Report *r = report_open((const char *const *)runs->dir, runs->n);
    for (int i = 0; i < n_dirs; i++) report_pipeline(r, dirs[i]);
    size_t n = strlen(path);
    bool svg = n > 4 && !strcasecmp(path + n - 4, ".svg");
    bool ok = report_read(r, e) && (svg ? report_picture(r, path, e) : report_write(r, path, false, e));
    if (ok) printf("%s\n", path);
    report_note_damage(r);
    report_close(r);
    return ok;
}

// Adds the runs of `dir` to *all.
static bool add_runs(Runs *all, const char *dir, Error *e) {
    Runs more;
    if (!runs_find(dir, &more, e)) return false;
    bool ok = true;
    for (int i = 0; i < more.n && ok; i++) {
        struct stat new, old;
        for (int k = 0; k < all->n && ok; k++)
            if (!stat(more.dir[i], &new) && !stat(all->dir[k], &old) &&
                new.st_dev == old.st_dev &&new.st_ino == old.st_ino)
                ok = error_set(e, EXIT_CONFIG, "%s is named twice", more.dir[i]);
        all->dir = xrealloc(all->dir, (size_t)(all->n + 1) * sizeof *all->dir);
        all->dir[all->n++] = xstrdup(more.dir[i]);
    }
    runs_free(&more);
    return ok;
}

ExitCode command_report(int argc, char **argv, Error *e) {
    static const char *const options[] = {"output"};
    const char *output = NULL, **dirs = xcalloc((size_t)argc + 1, sizeof *dirs);
    int n = 0;
    bool ok = true, help = false;
    for (int i = 0; ok && i < argc; i++) {
        if (config_asks_help(argv[i])) help = true;
        else if (!strncmp(argv[i], "output=", 7)) {
            if (output) ok = error_set(e, EXIT_CONFIG, "output= is given twice; a page has one place");
            output = argv[i] + 7;
        } else if (argv[i][0] == '-' || (strchr(argv[i], '=') && access(argv[i], F_OK))) // no directory either
            ok = no_such_option(argv[i], options, 1, "report", e);
        else dirs[n++] = argv[i];
    }
    Runs runs = {0};
    if (help) fputs(usage, stdout);
    else if (ok && !n) ok = error_set(e, EXIT_CONFIG, "report needs the output_dir of a run; see grpo report --help");
    else if (ok && output && !*output) ok = error_set(e, EXIT_CONFIG, "output= is empty; name a file");
    else if (ok && n > 1 && !output)
        ok = error_set(e, EXIT_CONFIG, "several runs need output=FILE; see grpo report --help");
    else if (ok) {
        char *path = output ? xstrdup(output) : xasprintf("%s/report.html", dirs[0]);
        for (int i = 0; i < n && ok; i++) ok = add_runs(&runs, dirs[i], e);
        ok = ok && report_make(&runs, dirs, n, path, e);
        free(path);
    }
    runs_free(&runs);
    free(dirs);
    return ok ? EXIT_OK : e->code;
}
