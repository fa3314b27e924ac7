// Saving a run and going on from where it was: what train, sft and reward_model share.
#include "crc32c.h"
#include "file.h"
#include "fingerprint.h"
#include "notes.h"
#include "ranks.h"
#include "record.h"
#include "reward_models.h"
#include "reward_set.h"
#include "run_state.h"
#include "whole.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// Lists the optimizer's state as files of a checkpoint, and the reference where it moves; their number.
static int state_blobs(const Learner *l, StateBlob *blob) {
    int n = 0;
    size_t items = (size_t)model_trained(&l->engine.policy).slab.dim[0];
    const struct {
        const char *name;
        Tensor t;
        Comm *comm;
    } all[] = {{"master.bin", l->master, l->engine.comm},
               {"moment1.bin", l->moment1, l->engine.comm},
               {"moment2.bin", l->moment2, l->engine.comm},
               {"reference.bin", l->engine.cfg->sync_ref_model ? l->reference.slab : NONE, NULL}};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        size_t item = dtype_size(all[i].t.dtype);
        if (present(all[i].t)) blob[n++] = (StateBlob){all[i].name, all[i].t.data, items * item, all[i].comm, item};
    }
    return n;
}

// Takes what checkpoints get of the model's directory, as it is at the start of the run.
static bool take_files(const Learner *l, TrainState *s, Error *e) {
    const Engine *en = &l->engine;
    HfVoice voice = {en->cfg->raw ? NULL : en->template, en->hf.eos, en->hf.n_eos};
    if (!s->files && !en->policy.adapter) s->files = hf_files_read(en->cfg->model, &voice, &en->policy, e);
    return s->files || en->policy.adapter;
}

bool run_save(const Learner *l, TrainState *s, Metrics *m, Hooks *h, Error *e) {
    const Config *c = l->engine.cfg;
    snprintf(s->numerics, sizeof s->numerics, "%s", l->engine.device->numerics);
    if (m && !metrics_sync(m, &s->metrics_lines, &s->completions_lines, e)) return false;
    StateBlob blob[4];
    int n = state_blobs(l, blob);
    ranks_phase("save", s->step);
    if (comm_rank(l->engine.comm)) return checkpoint_serve(l->engine.device, blob, n, e);
    char *yaml = config_yaml(c);
    const char *const read[] = {c->model, c->adapter, c->tokenizer, NULL}; // at the next start, too
    bool ok = take_files(l, s, e) && checkpoint_save(c->output_dir, s, l->engine.device, &l->engine.policy, c->model,
                                                     yaml, blob, n, (int)c->save_total_limit, read, e);
    free(yaml);
    if (ok) s->kept = s->step;
    char *path = checkpoint_path(c->output_dir, s->step);
    if (ok && h) hooks_start(h, HOOK_SAVE, &(HookCall){path, s->step, metrics_last(m), metrics_last_eval(m), 0});
    free(path);
    return ok;
}

bool run_saves_first(const Engine *en, const Error *e) {
    return comm_world(en->comm) < 2 && (e->code == EXIT_INPUT || e->code == EXIT_DISK);
}

void run_say_saved(const TrainState *state, const char *output_dir, bool saved, const Error *why, Error *e) {
    if (!saved) {
        note("what was learned since the last checkpoint is lost: %s", why->text);
        return;
    }
    const Error was = *e;
    error_set(e, was.code, "%.1600s; step %lld is saved in %.256s: once this is mended, the same command goes on",
              was.text, (long long)state->step, output_dir);
}

static bool add_sum(const char *path, uint32_t *crc, size_t *bytes, Error *e) {
    int fd = file_open(path, e);
    if (fd < 0) return false;
    char *block = xmalloc(DISK_BLOCK);
    ssize_t n;
    while ((n = read(fd, block, DISK_BLOCK)) > 0 || (n < 0 && errno == EINTR))
        if (n > 0) *crc = crc32c(*crc, block, (size_t)n), *bytes += (size_t)n;
    free(block);
    close(fd);
    return n == 0 || error_set(e, EXIT_DISK, "%s: cannot be read: %s", path, strerror(errno));
}

// Tells training files from others, by the bytes and the CRC32C of each, one behind the other: which rows come next
// hangs on them.
static bool data_sum(const FileList *files, char sum[sizeof((TrainState *)0)->data], Error *e) {
    uint32_t crc = 0;
    size_t bytes = 0;
    for (int i = 0; i < files->n; i++)
        if (!add_sum(files->item[i].path, &crc, &bytes, e)) return false;
    snprintf(sum, sizeof((TrainState *)0)->data, "%zu bytes, crc32c %08x", bytes, crc);
    return true;
}

// Tells the files that stand before each question from others.
static bool prompts_sum(const Config *c, const char *command, char sum[sizeof((TrainState *)0)->prompts], Error *e) {
    const struct {
        const char *option, *path;
    } file[] = {{"few_shot_file", c->few_shot_file}, {"system_prompt_file", c->system_prompt_file}};
    uint32_t crc = 0;
    size_t bytes = 0;
    *sum = 0;
    for (size_t i = 0; i < sizeof file / sizeof *file; i++) {
        if (!*file[i].path || !config_reads(command, file[i].option, strlen(file[i].option))) continue;
        if (!add_sum(file[i].path, &crc, &bytes, e)) return error_prefix(e, "%s", file[i].option);
        snprintf(sum, sizeof((TrainState *)0)->prompts, "%08x", crc);
    }
    return true;
}

// Sums up what scores by models and templates on this machine: in `train` alone, nothing else scores while it trains.
// Rank 0 alone reads them, as it alone saves and tells.
static bool judges_sum(const Learner *l, const TrainState *s, char sum[sizeof s->judges], Error *e) {
    const Config *c = l->engine.cfg;
    Rewards rw;
    *sum = 0;
    return comm_rank(l->engine.comm) || strcmp(s->command, "train") ||
           (rewards_select_training(c, &rw, e) && rewards_files_sum(&rw, sum, e));
}

// Tells the weights that the run began with from others, where more than the policy is made of them: the reference, and
// judges that take them. Read before a checkpoint's replace them. The base beside an adapter is told by the adapter.
static void start_sum(const Learner *l, char sum[sizeof((TrainState *)0)->start]) {
    const Engine *en = &l->engine;
    const size_t size = sizeof((TrainState *)0)->start;
    *sum = 0;
    bool kept = en->cfg->sync_ref_model; // reference.bin has it
    if (!(en->shape.reference && !kept) && !(en->shape.train && reward_models_ask_start(en->models))) return;
    if (en->lora.rank && !*en->cfg->adapter) snprintf(sum, size, "no adapter");
    else
        snprintf(sum, size, "%scrc32c %08x", en->lora.rank ? "adapter " : "",
                 weights_sum(en->device, model_trained(&en->policy).slab));
}

// The next "name: value" of a YAML text that config_yaml wrote; a value may go on in indented lines. False at the end.
static bool next_option(const char **text, const char **name, size_t *name_n, size_t *all) {
    if (!**text) return false;
    const char *begin = *text, *end = begin;
    do {
        end += strcspn(end, "\n");
        if (*end) end++;
    } while (*end == ' ' || *end == '-');
    *name = begin;
    *name_n = strcspn(begin, ":");
    *all = (size_t)(end - begin);
    *text = end;
    return true;
}

// Names, in a note, the options that differ from those the checkpoint was saved with. That is allowed, but the result
// is no longer what one command reproduces.
static void say_changes(const Learner *l, const char *path, Progress *p) {
    char *file = xasprintf("%s/state/config.yaml", path), *now = config_yaml(l->engine.cfg);
    size_t n, name_n, all, old_name_n, old_all;
    char *saved = file_read(file, (size_t)1 << 20, &n, NULL);
    Str changed = {0};
    const char *text = now, *name, *old_name;
    while (saved && next_option(&text, &name, &name_n, &all)) {
        bool same = config_may_change(name, name_n);
        const char *old = saved;
        while (!same && next_option(&old, &old_name, &old_name_n, &old_all))
            same = old_all == all && !memcmp(old_name, name, all);
        if (!same) str_printf(&changed, "%s%.*s", changed.n ? ", " : "", (int)name_n, name);
    }
    if (changed.n) progress_warn(p, "other options than the checkpoint's (%s): %s", file, changed.s);
    str_free(&changed);
    free(saved);
    free(now);
    free(file);
}

// The newest good checkpoint (heap), or NULL. Rank 0 looks for it and tells the other ranks.
static bool find_newest(Learner *l, char **path, Error *e) {
    int64_t step;
    uint64_t n = 0;
    *path = NULL;
    e->code = EXIT_OK;
    if (!comm_rank(l->engine.comm)) *path = checkpoint_find(l->engine.cfg->output_dir, &step, e);
    if (!*path && e->code != EXIT_OK) return false;
    if (*path) n = strlen(*path) + 1;
    if (!comm_broadcast(l->engine.comm, "newest checkpoint", &n, sizeof n, 0, e)) return false;
    if (n && !*path) *path = xmalloc(n);
    return comm_broadcast(l->engine.comm, "its name", *path, n, 0, e);
}

// Loads the newest good checkpoint where the `resume` rule allows one.
static bool load_newest(Learner *l, TrainState *s, Progress *p, Error *e) {
    const Config *c = l->engine.cfg;
    char *path, data[sizeof s->data], prompts[sizeof s->prompts], judges[sizeof s->judges], start[sizeof s->start];
    start_sum(l, start);
    if (!data_sum(&c->train_file, data, e) || !prompts_sum(c, s->command, prompts, e) || !judges_sum(l, s, judges, e) ||
        !find_newest(l, &path, e))
        return false;
    memcpy(s->data, data, sizeof data);
    memcpy(s->prompts, prompts, sizeof prompts);
    memcpy(s->judges, judges, sizeof judges);
    memcpy(s->start, start, sizeof start);
    if (!path)
        return c->resume != RESUME_MUST ||
               error_set(e, EXIT_INPUT, "resume=must, but there is no checkpoint in %s", c->output_dir);
    StateBlob blob[4];
    int n = state_blobs(l, blob);
    bool ok = c->resume != RESUME_NEVER
                  ? checkpoint_load(path, s, l->engine.device, &l->engine.policy, blob, n, e)
                  : error_set(e, EXIT_CONFIG,
                              "%s is there and resume=never; choose another output_dir, or set resume=auto", path);
    if (ok) {
        progress_say(p, "resumed from %s", path);
        if (*s->numerics && strcmp(s->numerics, l->engine.device->numerics))
            progress_warn(
                p,
                "saved by a run on %s, this one computes on %s: its last bits will differ from those of a run "
                "that was never stopped",
                s->numerics, l->engine.device->numerics);
        say_changes(l, path, p);
        if (*s->data && strcmp(s->data, data))
            progress_warn(p,
                          "%s%s that %s was trained on (%s; now %s): the order of questions and the place in it are "
                          "another run's; bring back what was there, or start anew in another output_dir",
                          c->train_file.item[0].path,
                          c->train_file.n > 1 ? " and the files beside it are not those" : " is not the file", path,
                          s->data, data);
        if (*s->prompts && *prompts && strcmp(s->prompts, prompts))
            progress_warn(p,
                          "what few_shot_file or system_prompt_file says is not what %s was trained with (crc32c %s; "
                          "now %s): prompts from here on are another run's; bring back what was there, or start anew "
                          "in another output_dir",
                          path, s->prompts, prompts);
        if (*s->judges && *judges && strcmp(s->judges, judges))
            progress_warn(
                p,
                "what a reward's model, template or program says is not what %s was trained with (crc32c %s; now "
                "%s): scores from here on are another judge's; bring back what was there, or start anew in "
                "another output_dir",
                path, s->judges, judges);
        if (*s->start && *start && strcmp(s->start, start))
            ok = error_set(e, EXIT_INPUT,
                           "%s belongs to a run that began with other weights (%s; now %s), of which its reference is "
                           "made: bring back the files of model%s, or start anew in another output_dir",
                           path, s->start, start, l->engine.lora.rank ? " and adapter" : "");
        else if (s->cursor.n != c->train_file.n)
            ok = error_set(e, EXIT_CONFIG,
                           "%s was trained on %lld files, train_file has %d: set it back, or start anew in another "
                           "output_dir",
                           path, (long long)s->cursor.n, c->train_file.n);
    }
    memcpy(s->data, data, sizeof data);
    memcpy(s->prompts, prompts, sizeof prompts);
    memcpy(s->judges, judges, sizeof judges);
    memcpy(s->start, start, sizeof start);
    free(path);
    return ok;
}

// What a run makes in its output_dir beside checkpoints, and how it begins. Without a beginning, who writes it looks
// himself what is there, or adds to it.
static const struct {
    const char *name, *head;
} files[] = {{"metrics.jsonl", "{\"step\": "},
             {"completions.jsonl", "{\"step\": "},
             {"notes.jsonl", "{\"at\": \""},
             {"run.json", "{\n \"command\": \""},
             {"report.html", NULL},
             {"events.out.tfevents.grpo", NULL},
             {"hooks.log", NULL},
             {"hooks.log.1", NULL}};
#define FILES (sizeof files / sizeof *files)

bool run_makes(const char *name) {
    size_t i = 0;
    while (i < FILES && !whole_is_of(name, files[i].name)) i++;
    return i < FILES;
}

// Whether a run that begins anew writes over nobody else's files in its output_dir.
static bool others_stay(const char *output_dir, Error *e) {
    for (size_t i = 0; i < FILES; i++) {
        if (!files[i].head) continue;
        char *path = xasprintf("%s/%s", output_dir, files[i].name);
        bool ok = whole_replaces(path, files[i].head, "a file of a run", e);
        free(path);
        if (!ok) return error_prefix(e, "output_dir");
    }
    return true;
}

bool run_resume(Learner *l, TrainState *s, Progress *p, Metrics **m, Error *e) {
    *m = NULL;
    ranks_phase("resume", 0);
    // No rank may write to output_dir before every rank has read what is there.
    if (!disk_mkdir(l->engine.cfg->output_dir, e) || !load_newest(l, s, p, e) ||
        !comm_barrier(l->engine.comm, "resumed", e))
        return false;
    if (comm_rank(l->engine.comm)) return true;
    const Config *c = l->engine.cfg;
    if (!s->step && !s->fed && !others_stay(c->output_dir, e)) return false;
    if (!take_files(l, s, e)) return false;
    *m = metrics_open(c->output_dir, s->metrics_lines, s->completions_lines, e);
    if (!*m) return false;
    for (int i = 0; i < c->report_to.n; i++) {
        if (strcmp(c->report_to.item[i], "tensorboard")) continue;
        EventLog *events = events_open(c, s->step, e);
        if (!events) return false;
        metrics_events(*m, events);
        break;
    }
    Error swept = {0}; // a failure only leaves files that take space
    if (!checkpoint_sweep(l->engine.cfg->output_dir, &swept)) note("%s", swept.text);
    return true;
}

void run_record(const Engine *en, const TrainState *s, int64_t rows, int64_t steps) {
    if (comm_rank(en->comm)) return;
    notes_open(en->cfg->output_dir, s->step == 0);
    char *plan = plan_table(en);
    RunRecord r = {en->cfg, s->command, en->device->about, s->data, plan, rows, s->step, steps};
    Error e = {0};
    if (!record_write(&r, &e)) note("%s", e.text);
    free(plan);
}

void run_say_skipped(const TrainState *s, const char *what, Progress *p) {
    progress_say(p, "step %lld skipped: %s is not finite; weights and optimizer are as before", (long long)s->step,
                 what);
}

void run_say_done(const TrainState *s, int64_t total_steps, Progress *p) {
    if (s->step >= total_steps)
        progress_say(p,
                     "nothing is left to do: step %lld of %lld is saved; raise max_steps or num_train_epochs, or "
                     "choose another output_dir for a new run",
                     (long long)s->step, (long long)total_steps);
}

void run_say_end(const RunReport *r, const Config *c, int64_t step, ExitCode code, const Error *e) {
    if (r->hooks)
        hooks_start(
            r->hooks, HOOK_END,
            &(HookCall){c->output_dir, step, metrics_last(r->metrics), metrics_last_eval(r->metrics), (int)code});
    if (*e->text) notes_add(e->text);
}

void run_report_close(RunReport *r) {
    profile_close(&r->profile);
    hooks_close(r->hooks);
    live_close(r->live);
    metrics_close(r->metrics);
    progress_close(r->progress);
    *r = (RunReport){0};
}
