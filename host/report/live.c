// report.html while a run goes on. See live.h.
//
// The run's own process reads on in its logs where it stopped the last time, and keeps a sample of bounded size in
// memory: so a page takes milliseconds, however long the run is.
#include "clock.h"
#include "live.h"
#include "report.h"
#include <stdlib.h>

enum { LIVE_SECONDS = 10, LIVE_SHARE = 100 }; // between pages: at least 10 s, and 100 times what the last page took

struct LiveReport {
    Report *report;
    char *path;
    double next; // clock reading from which on a page is due
    bool lost;   // a note has said that the page cannot be written
};

LiveReport *live_open(const char *output_dir, Metrics *m, bool wanted) {
    if (!m || !wanted) return NULL;
    LiveReport *l = xcalloc(1, sizeof *l);
    int metrics, completions;
    metrics_files(m, &metrics, &completions);
    l->report = report_open_live(output_dir, metrics, completions);
    l->path = xasprintf("%s/report.html", output_dir);
    return l;
}

static void live_write(LiveReport *l, bool live) {
    Error e = {0};
    double start = clock_seconds();
    bool ok = report_read(l->report, &e) && report_write(l->report, l->path, live, &e);
    if (!ok && !l->lost) note("%s%s", e.text, live ? "; the run goes on" : "");
    l->lost = !ok;
    double end = clock_seconds(), wait = LIVE_SHARE * (end - start);
    l->next = end + (wait > LIVE_SECONDS ? wait : LIVE_SECONDS);
}

void live_step(LiveReport *l) {
    if (l && clock_seconds() >= l->next) live_write(l, true);
}

void live_close(LiveReport *l) {
    if (!l) return;
    live_write(l, false);
    report_close(l->report);
    free(l->path);
    free(l);
}
