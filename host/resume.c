// Saving a run and going on from where it was: what train and sft share.
#include "host.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>

// Optimizer state of the run, as checkpoint files; the reference only where it moves.
static int state_blobs(const Run *r, StateBlob *blob) {
    int n = 0;
    const struct {
        const char *name;
        Tensor t;
    } all[] = {{"master.bin", r->master},
               {"moment1.bin", r->moment1},
               {"moment2.bin", r->moment2},
               {"reference.bin", r->cfg->sync_ref_model ? r->reference.slab : NONE}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (present(all[i].t)) blob[n++] = (StateBlob){all[i].name, all[i].t.data, tensor_bytes(all[i].t)};
    return n;
}

bool run_save(const Run *r, TrainState *at, Metrics *m, Error *e) {
    const Config *c = r->cfg;
    if (m && !metrics_sync(m, &at->metrics_bytes, &at->completions_bytes, e)) return false;
    StateBlob blob[4];
    int n = state_blobs(r, blob);
    char *yaml = config_yaml(c);
    bool ok = checkpoint_save(c->output_dir, at, &r->policy, c->model, yaml, blob, n, (int)c->save_total_limit, e);
    free(yaml);
    return ok;
}

bool directory_make(const char *path, Error *e) {
    char *part = xstrdup(path);
    bool ok = true;
    for (char *p = part + 1; ok; p++) {
        char c = *p;
        if (c != '/' && c) continue;
        *p = 0;
        ok = !mkdir(part, 0777) || errno == EEXIST;
        *p = c;
        if (!c) break;
    }
    if (!ok)
        error_set(e, EXIT_DISK, "output_dir: cannot make %s: %s; choose a directory you can write to", path,
                  strerror(errno));
    free(part);
    return ok;
}

// Loads the newest good checkpoint where the `resume` rule allows one.
static bool load_newest(Run *r, TrainState *at, Progress *p, Error *e) {
    const Config *c = r->cfg;
    int64_t step;
    e->code = EXIT_OK;
    char *path = checkpoint_find(c->output_dir, &step, e);
    if (!path && e->code != EXIT_OK) return false;
    if (!path)
        return c->resume != RESUME_MUST ||
               error_set(e, EXIT_INPUT, "resume=must, but there is no checkpoint in %s", c->output_dir);
    StateBlob blob[4];
    int n = state_blobs(r, blob);
    bool ok = c->resume != RESUME_NEVER
                  ? checkpoint_load(path, at, &r->policy, blob, n, e)
                  : error_set(e, EXIT_CONFIG,
                              "%s is there and resume=never; choose another output_dir, or set resume=auto", path);
    if (ok) progress_say(p, "resumed from %s", path);
    free(path);
    return ok;
}

Metrics *run_resume(Run *r, TrainState *at, Progress *p, Error *e) {
    if (!directory_make(r->cfg->output_dir, e) || !load_newest(r, at, p, e)) return NULL;
    return metrics_open(r->cfg->output_dir, at->metrics_bytes, at->completions_bytes, e);
}
