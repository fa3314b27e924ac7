// grpo report: makes an HTML page from the logs of runs.
#include "commands.h"
#include "report.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char usage[] =
    "usage: grpo report DIR... [output=FILE]\n"
    "Writes one self-contained HTML page from the logs in each DIR, the output_dir of a run, "
    "also of one that goes on or\n"
    "was killed. Several runs share the plots.\n"
    "  output   the page (default DIR/report.html; needed with several DIR); FILE.svg: a picture of the main\n"
    "           curves instead\n";

static bool report_make(const char *const *dirs, int n, const char *output, Error *e) {
    char *path = output ? xstrdup(output) : xasprintf("%s/report.html", dirs[0]);
    Report *r = report_open(dirs, n);
    size_t n_path = strlen(path);
    bool svg = n_path > 4 && !strcmp(path + n_path - 4, ".svg");
    bool ok = report_read(r, e) && (svg ? report_picture(r, path, e) : report_write(r, path, false, e));
    if (ok) printf("%s\n", path);
    report_close(r);
    free(path);
    return ok;
}

ExitCode command_report(int argc, char **argv, Error *e) {
    const char *output = NULL, **dirs = xcalloc((size_t)argc + 1, sizeof *dirs);
    int n = 0;
    bool ok = true, help = false;
    for (int i = 0; ok && i < argc; i++) {
        if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) help = true;
        else if (!strncmp(argv[i], "output=", 7)) output = argv[i] + 7;
        else if (argv[i][0] == '-' || (strchr(argv[i], '=') && access(argv[i], F_OK))) // no directory either
            ok = error_set(e, EXIT_CONFIG, "there is no option %.60s; see grpo report --help", argv[i]);
        else dirs[n++] = argv[i];
    }
    if (help) fputs(usage, stdout);
    else if (ok && !n) ok = error_set(e, EXIT_CONFIG, "report needs the output_dir of a run; see grpo report --help");
    else if (ok && output && !*output) ok = error_set(e, EXIT_CONFIG, "output= is empty; name a file");
    else if (ok && n > 1 && !output)
        ok = error_set(e, EXIT_CONFIG, "several runs need output=FILE; see grpo report --help");
    else if (ok) ok = report_make(dirs, n, output, e);
    free(dirs);
    return ok ? EXIT_OK : e->code;
}
