// Checkpoints: saved whole or not at all, found only when every byte is what was written.
//
// Names in output_dir: step_N is a checkpoint; step_N.tmp is one being written; step_N.old is the one that a second
// save of the same step is replacing, good until the new one has its name; step_N.gone is being deleted.
#include "adapter_files.h"
#include "checkpoint.h"
#include "device.h"
#include "file.h"
#include "hf.h"
#include "json.h"
#include "manifest.h"
#include <dirent.h>
#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

// The numbers of a TrainState, with their names in state/train.json.
static const struct {
    const char *name;
    size_t offset;
    bool real; // a double, of any size; else a whole number from 0 upward
} train_fields[] = {
    {"step", offsetof(TrainState, step)},
    {"updates", offsetof(TrainState, updates)},
    {"part", offsetof(TrainState, fed)},
    {"next_key", offsetof(TrainState, next_key)},
    {"skipped", offsetof(TrainState, skipped)},
    {"seen_tokens", offsetof(TrainState, seen_tokens)},
    {"evaluated", offsetof(TrainState, evaluated)},
    {"entropy_coef", offsetof(TrainState, entropy_coef), true},
    {"last_entropy", offsetof(TrainState, last_entropy), true},
    {"metrics_lines", offsetof(TrainState, metrics_lines)},
    {"completions_lines", offsetof(TrainState, completions_lines)},
    {"batch_bytes", offsetof(TrainState, batch_bytes)},
};
enum { N_TRAIN_FIELDS = sizeof train_fields / sizeof *train_fields };
_Static_assert(sizeof(TrainState) == N_TRAIN_FIELDS * sizeof(int64_t) + sizeof(MixCursor) + 3 * sizeof(void *) + 32 +
                                         48 + 16 + 16 + 32 + 8,
               "a field is not saved");

// ---- names --------------------------------------------------------------------------------------------------------

typedef struct {
    int64_t step;
    char *path;
    const char *suffix; // into path: "", ".tmp", ".old" or ".gone"
} Entry;

static int newest_first(const void *a, const void *b) {
    const Entry *x = a, *y = b;
    if (x->step != y->step) return x->step < y->step ? 1 : -1;
    return strcmp(x->suffix, y->suffix); // "" before ".old"
}

char *checkpoint_path(const char *output_dir, int64_t step) {
    return xasprintf("%s/step_%lld", output_dir, (long long)step);
}

int64_t checkpoint_step(const char *name, const char **suffix) {
    if (strncmp(name, "step_", 5)) return -1;
    size_t digits = strspn(name + 5, "0123456789");
    if (!digits || digits > 18 || (name[5] == '0' && digits > 1)) return -1;
    *suffix = name + 5 + digits;
    return strtoll(name + 5, NULL, 10);
}

bool checkpoint_makes(const char *name) {
    const char *suffix;
    return checkpoint_step(name, &suffix) >= 0 &&
           (!*suffix || !strcmp(suffix, ".tmp") || !strcmp(suffix, ".old") || !strcmp(suffix, ".gone"));
}

static bool entry_parse(const char *output_dir, const char *name, Entry *out) {
    if (!checkpoint_makes(name)) return false;
    const char *suffix = "";
    int64_t step = checkpoint_step(name, &suffix);
    *out = (Entry){step, xasprintf("%s/%s", output_dir, name), NULL};
    out->suffix = out->path + strlen(out->path) - strlen(suffix);
    return true;
}

// Lists the entries of output_dir whose names have one of the forms above, newest first. A directory that does not
// exist gives an empty list.
static bool entries_list(const char *output_dir, Entry **entries, int *n, Error *e) {
    *entries = NULL;
    *n = 0;
    DIR *dir = opendir(output_dir);
    if (!dir && errno == ENOENT) return true;
    if (!dir) return error_set(e, EXIT_DISK, "%s: cannot list the directory: %s", output_dir, strerror(errno));
    for (struct dirent *d; (d = readdir(dir));) {
        Entry entry;
        if (!entry_parse(output_dir, d->d_name, &entry)) continue;
        *entries = xrealloc(*entries, (size_t)(*n + 1) * sizeof **entries);
        (*entries)[(*n)++] = entry;
    }
    closedir(dir);
    if (*n) qsort(*entries, (size_t)*n, sizeof **entries, newest_first);
    return true;
}

static void entries_free(Entry *entries, int n) {
    for (int i = 0; i < n; i++) free(entries[i].path);
    free(entries);
}

static bool is_suffix(const Entry *x, const char *suffix) { return !strcmp(x->suffix, suffix); }

// ---- saving -------------------------------------------------------------------------------------------------------

bool checkpoint_sweep(const char *output_dir, Error *e) {
    Entry *x;
    int n;
    if (!entries_list(output_dir, &x, &n, e)) return false;
    bool ok = true;
    for (int i = 0; ok && i < n; i++) {
        bool replaced = false; // by a step_N that has its name
        for (int k = i - 1; k >= 0 && x[k].step == x[i].step; k--) replaced |= is_suffix(&x[k], "");
        if (is_suffix(&x[i], ".old") && !replaced) {
            char *name = xstrndup(x[i].path, (size_t)(x[i].suffix - x[i].path));
            ok = disk_rename(x[i].path, name, e);
            free(name);
        } else if (!is_suffix(&x[i], "")) ok = disk_remove(x[i].path, e);
    }
    entries_free(x, n);
    return ok;
}

// Whether one of these directories is `path`, or lies in it.
static bool holds_any(const char *path, const char *const *dirs) {
    char *real = realpath(path, NULL);
    size_t n = real ? strlen(real) : 0;
    bool any = false;
    for (; real && dirs && *dirs; dirs++) {
        char *dir = realpath(*dirs, NULL);
        any |= dir && !strncmp(dir, real, n) && (!dir[n] || dir[n] == '/');
        free(dir);
    }
    free(real);
    return any;
}

// Removes the checkpoints up to `step` except the newest `keep`, and those that are spared. What lies between `last`
// (0: unknown) and `step` is damaged, or the run would have gone on from there: it must not take a good one's place.
// Each is renamed to .gone before it is deleted, so that a half-deleted one is never taken for a checkpoint. A failure
// costs disk space only: a note says so, the run goes on.
static void prune(const char *output_dir, int64_t last, int64_t step, int keep, const char *const *spared) {
    Entry *x;
    int n, passed = 0;
    Error e;
    if (!entries_list(output_dir, &x, &n, &e)) {
        note("%s", e.text);
        return;
    }
    for (int i = 0; i < n; i++) {
        bool damaged = last > 0 && x[i].step > last && x[i].step < step;
        if (!is_suffix(&x[i], "") || x[i].step > step || (!damaged && passed++ < keep)) continue;
        if (holds_any(x[i].path, spared)) continue;
        char *gone = xasprintf("%s.gone", x[i].path);
        if (!disk_rename(x[i].path, gone, &e) || !disk_remove(gone, &e)) note("%s", e.text);
        free(gone);
    }
    entries_free(x, n);
}

// The cursor of each training file, as JSON.
static json_t *cursor_json(const MixCursor *c) {
    json_t *all = json_array();
    for (int64_t f = 0; f < c->n; f++) {
        json_t *one = json_object();
        json_object_set_new(one, "epoch", json_integer(c->file[f].at.epoch));
        json_object_set_new(one, "index", json_integer(c->file[f].at.index));
        json_object_set_new(one, "drawn", json_integer(c->file[f].drawn));
        json_array_append_new(all, one);
    }
    return all;
}

static bool cursor_read(const json_t *all, MixCursor *c) {
    c->n = (int64_t)json_array_size(all);
    bool ok = c->n > 0 && c->n <= MAX_FILES;
    for (int64_t f = 0; ok && f < c->n; f++) {
        const json_t *one = json_array_get(all, (size_t)f);
        const struct {
            const char *name;
            int64_t *to;
        } number[] = {{"epoch", &c->file[f].at.epoch}, {"index", &c->file[f].at.index}, {"drawn", &c->file[f].drawn}};
        for (int i = 0; i < 3; i++) {
            const json_t *v = json_object_get(one, number[i].name);
            ok = ok && json_is_integer(v) && json_integer_value(v) >= 0;
            *number[i].to = json_integer_value(v);
        }
    }
    return ok;
}

static bool train_state_write(OutDir *d, const TrainState *s, DType dtype, Error *e) {
    json_t *j = json_object();
    for (int i = 0; i < N_TRAIN_FIELDS; i++) {
        int64_t value;
        double real;
        memcpy(&value, (const char *)s + train_fields[i].offset, sizeof value);
        memcpy(&real, &value, sizeof real);
        json_object_set_new(j, train_fields[i].name, train_fields[i].real ? json_real(real) : json_integer(value));
    }
    json_object_set_new(j, "files", cursor_json(&s->cursor));
    json_object_set_new(j, "dtype", json_string(dtype_name(dtype)));
    json_object_set_new(j, "numerics", json_string(s->numerics));
    json_object_set_new(j, "data", json_string(s->data));
    if (*s->prompts) json_object_set_new(j, "prompts", json_string(s->prompts));
    if (*s->judges) json_object_set_new(j, "judges", json_string(s->judges));
    if (*s->start) json_object_set_new(j, "start", json_string(s->start));
    json_object_set_new(j, "command", s->command ? json_string(s->command) : json_null());
    char *text = json_dumps(j, JSON_INDENT(1));
    bool ok = outdir_put(d, "state/train.json", text, strlen(text), e);
    free(text);
    json_decref(j);
    return ok && (!s->batch || outdir_put(d, "state/batch", s->batch, s->batch_bytes, e));
}

// Where the slice of rank `rank` begins and ends in a blob's file, in bytes.
static void blob_slice(const StateBlob *b, int rank, uint64_t *first, uint64_t *end) {
    int64_t from, count;
    comm_slice((int64_t)(b->bytes / b->item), rank, comm_world(b->comm), &from, &count);
    *first = (uint64_t)from * b->item;
    *end = *first + (uint64_t)count * b->item;
}

// Assembles a blob that the ranks hold in slices, a block at a time: every rank puts its own bytes into the block, and
// comm_exchange gives each rank those of the others. Rank 0 writes it to `out`, which is NULL on the other ranks.
static bool blob_gather(OutDir *out, Device *d, const StateBlob *b, Error *e) {
    int world = comm_world(b->comm), rank = comm_rank(b->comm);
    uint64_t *end = xcalloc((size_t)world, sizeof *end), first, stop;
    char *block = xmalloc(DISK_BLOCK);
    bool ok = true;
    for (uint64_t at = 0; ok && at < b->bytes; at += DISK_BLOCK) {
        uint64_t n = b->bytes - at < DISK_BLOCK ? b->bytes - at : DISK_BLOCK;
        for (int r = 0; r < world; r++) {
            blob_slice(b, r, &first, &stop);
            end[r] = stop < at ? 0 : stop - at < n ? stop - at : n;
        }
        blob_slice(b, rank, &first, &stop);
        uint64_t from = rank ? end[rank - 1] : 0;
        if (end[rank] > from) d->copy(d, block + from, (char *)b->data + (at + from - first), end[rank] - from);
        ok = device_ok(d, e) && comm_exchange(b->comm, "checkpoint", block, end, e) &&
             (!out || outdir_write(out, block, n, e));
    }
    free(block);
    free(end);
    return ok;
}

bool checkpoint_serve(Device *d, const StateBlob *blobs, int n_blobs, Error *e) {
    bool ok = true;
    for (int i = 0; ok && i < n_blobs; i++) ok = !blobs[i].comm || blob_gather(NULL, d, &blobs[i], e);
    return ok;
}

static bool state_write(OutDir *out, const TrainState *s, Device *d, DType dtype, const char *config_yaml,
                        const StateBlob *blobs, int n_blobs, Error *e) {
    bool ok = train_state_write(out, s, dtype, e) &&
              outdir_put(out, "state/config.yaml", config_yaml, strlen(config_yaml), e);
    for (int i = 0; ok && i < n_blobs; i++) {
        char *name = xasprintf("state/%s", blobs[i].name);
        ok = outdir_open(out, name, e) &&
             (blobs[i].comm ? blob_gather(out, d, &blobs[i], e)
                            : outdir_write_device(out, d, blobs[i].data, blobs[i].bytes, e)) &&
             outdir_close(out, e);
        free(name);
    }
    return ok;
}

// Reads the numbers of state/train.json into *s. Returns the whole JSON object (freed by the caller), or NULL where
// something is missing.
static json_t *train_numbers_read(const char *file, TrainState *s, Error *e) {
    json_t *j = json_read(file, e);
    bool ok = j != NULL;
    for (int i = 0; ok && i < N_TRAIN_FIELDS; i++) {
        const json_t *v = json_object_get(j, train_fields[i].name);
        int64_t value = json_integer_value(v);
        double real = json_number_value(v);
        if (json_is_number(v) && train_fields[i].real) memcpy((char *)s + train_fields[i].offset, &real, sizeof real);
        else if (!json_is_integer(v) || value < 0)
            ok = error_set(e, EXIT_INPUT, "%s: \"%s\" is missing or not such a number; saved by another release?", file,
                           train_fields[i].name);
        else memcpy((char *)s + train_fields[i].offset, &value, sizeof value);
    }
    if (ok && !cursor_read(json_object_get(j, "files"), &s->cursor))
        ok = error_set(e, EXIT_INPUT, "%s: \"files\" is missing or no place in each; saved by another release?", file);
    if (ok && (!json_object_get(j, "command") || !json_object_get(j, "dtype")))
        ok = error_set(e, EXIT_INPUT, "%s: \"command\" or \"dtype\" is missing; saved by another release?", file);
    if (ok) return j;
    json_decref(j);
    return NULL;
}

// Whether state/batch has the size that state/train.json gives.
static bool batch_is_there(const char *path, const json_t *manifest, const TrainState *s, Error *e) {
    int64_t bytes = manifest_bytes(manifest, "state/batch");
    return (uint64_t)(bytes < 0 ? 0 : bytes) == s->batch_bytes ||
           error_set(e, EXIT_INPUT, "%s: state/batch and state/train.json are not of the same save", path);
}

// Whether the weight files are there and fit config.json; of an adapter, as far as can be said without its model.
static bool model_is_whole(const char *path, Error *e) {
    HfConfig config;
    AdapterSpec spec;
    if (adapter_is(path)) return adapter_describe(path, &spec, e);
    if (!hf_config_read(path, &config, e)) return false;
    Arena measure = arena_measure();
    Model m = model_carve(&measure, config.dims, F32);
    bool ok = hf_weights_check(path, &m, e);
    model_free(&m);
    return ok;
}

// Whether a checkpoint with this manifest can be used at all, by any run. Right checksums are not enough: what was
// written may itself be unusable.
static bool is_readable(const char *path, const json_t *manifest, int64_t step, Error *e) {
    if (manifest_step(manifest) != step)
        return error_set(e, EXIT_INPUT, "%s/manifest.json: is of step %lld; give the directory its name back", path,
                         (long long)manifest_step(manifest));
    TrainState s;
    char *file = xasprintf("%s/state/train.json", path);
    json_t *numbers = train_numbers_read(file, &s, e);
    bool ok = numbers && batch_is_there(path, manifest, &s, e) && model_is_whole(path, e);
    json_decref(numbers);
    free(file);
    return ok;
}

// is_readable of a checkpoint that is still step_N.tmp.
static bool readable_yet(const OutDir *out, int64_t step, Error *e) {
    json_t *manifest = manifest_read(out->tmp, e);
    bool ok = manifest && is_readable(out->tmp, manifest, step, e);
    json_decref(manifest);
    if (!ok && e) e->code = EXIT_DISK;
    return ok || error_prefix(e, "what was just saved cannot be read");
}

bool checkpoint_save(const char *output_dir, const TrainState *s, Device *d, const Model *m, const char *source_dir,
                     const char *config_yaml, const StateBlob *blobs, int n_blobs, int keep_last,
                     const char *const *spared, Error *e) {
    if (!disk_mkdir(output_dir, e) || !checkpoint_sweep(output_dir, e)) return false;
    HfFiles *own = m->adapter || s->files ? NULL : hf_files_read(source_dir, NULL, m, e);
    const HfFiles *files = own ? own : s->files;
    if (!m->adapter && !files) return false;
    uint64_t bytes =
        (m->adapter ? adapter_bytes(m->adapter) : hf_bytes(files, m)) + s->batch_bytes + strlen(config_yaml);
    for (int i = 0; i < n_blobs; i++) bytes += blobs[i].bytes;
    char *path = checkpoint_path(output_dir, s->step);
    OutDir out;
    bool ok = outdir_begin(&out, path, bytes, e) &&
              (m->adapter ? adapter_write(&out, source_dir, d, m->adapter, e)
                          : hf_write(&out, files, d, m, HF_SHARD_BYTES, e)) &&
              state_write(&out, s, d, m->dtype, config_yaml, blobs, n_blobs, e) && manifest_write(&out, s->step, e) &&
              readable_yet(&out, s->step, e) && outdir_commit(&out, e);
    outdir_free(&out);
    hf_files_free(own);
    free(path);
    if (ok) prune(output_dir, s->kept, s->step, keep_last, spared);
    return ok;
}

// ---- finding and loading ------------------------------------------------------------------------------------------

static bool verify(const Entry *x, Error *e) {
    json_t *manifest = manifest_read(x->path, e);
    bool ok =
        manifest && manifest_check_all(manifest, x->path, NULL, 0, e) && is_readable(x->path, manifest, x->step, e);
    json_decref(manifest);
    return ok;
}

char *checkpoint_find(const char *output_dir, int64_t *step, Error *e) {
    if (e) e->code = EXIT_OK;
    Entry *x;
    int n, damaged = 0;
    if (!entries_list(output_dir, &x, &n, e)) return NULL;
    char *found = NULL;
    for (int i = 0; i < n && !found; i++) {
        if (!is_suffix(&x[i], "") && !is_suffix(&x[i], ".old")) continue;
        Error why;
        if (verify(&x[i], &why)) {
            found = xstrdup(x[i].path);
            *step = x[i].step;
        } else {
            damaged++;
            note("checkpoint %s cannot be used, looking for an older one: %s", x[i].path, why.text);
        }
    }
    if (!found && damaged)
        error_set(e, EXIT_INPUT,
                  "%s: none of its %d checkpoints is whole (see the notes above); move them away to start anew, or "
                  "restore one from a backup",
                  output_dir, damaged);
    entries_free(x, n);
    return found;
}

// Copies a text of the object into to[size], cut where it is longer; "" where there is none.
static void copy_text(const json_t *j, const char *name, char *to, size_t size) {
    const char *text = json_text(json_object_get(j, name));
    snprintf(to, size, "%s", text ? text : "");
}

// Reads state/train.json, whose checksum was verified before, into *s; refuses it unless it has this `step` and
// `dtype`.
static bool train_state_read(const char *path, TrainState *s, int64_t step, DType dtype, Error *e) {
    char *file = xasprintf("%s/state/train.json", path);
    json_t *j = train_numbers_read(file, s, e);
    bool ok = j != NULL;
    if (ok && s->step != step)
        ok = error_set(e, EXIT_INPUT, "%s: is of step %lld, the manifest of step %lld; one of them is damaged", file,
                       (long long)s->step, (long long)step);
    const char *command = json_text(json_object_get(j, "command"));
    if (ok && s->command && (!command || strcmp(command, s->command)))
        ok = error_set(e, EXIT_CONFIG, "%s is a checkpoint of `grpo %s`, not of `grpo %s`; choose another output_dir",
                       path, command ? command : "?", s->command);
    copy_text(j, "numerics", s->numerics, sizeof s->numerics);
    copy_text(j, "data", s->data, sizeof s->data);
    copy_text(j, "prompts", s->prompts, sizeof s->prompts);
    copy_text(j, "judges", s->judges, sizeof s->judges);
    copy_text(j, "start", s->start, sizeof s->start);
    const char *saved = json_text(json_object_get(j, "dtype"));
    if (ok && (!saved || strcmp(saved, dtype_name(dtype))))
        ok = error_set(e, EXIT_CONFIG,
                       "%s: saved with dtype=%s, this run has dtype=%s; resume with the one it was saved with", file,
                       saved ? saved : "?", dtype_name(dtype));
    json_decref(j);
    free(file);
    return ok;
}

// Checks that the checkpoint's files of optimizer state are exactly those of this run, in name and size.
static bool blobs_match(const json_t *manifest, const char *path, const StateBlob *blobs, int n_blobs, Error *e) {
    for (int i = 0; i < n_blobs; i++) {
        char *name = xasprintf("state/%s", blobs[i].name);
        int64_t bytes = manifest_bytes(manifest, name);
        free(name);
        if (bytes >= 0 && (uint64_t)bytes == blobs[i].bytes) continue;
        return error_set(
            e, EXIT_CONFIG,
            "%s: state/%s has %lld bytes, this run needs %zu; resume with the dtype, optim_dtype and sync_ref_model in "
            "its state/config.yaml",
            path, blobs[i].name, (long long)(bytes < 0 ? 0 : bytes), blobs[i].bytes);
    }
    const char *name;
    json_t *entry;
    json_object_foreach(json_object_get(manifest, "files"), name, entry) {
        if (strncmp(name, "state/", 6)) continue;
        const char *file = name + 6;
        bool known = !strcmp(file, "train.json") || !strcmp(file, "config.yaml") || !strcmp(file, "batch");
        for (int i = 0; i < n_blobs; i++) known |= !strcmp(file, blobs[i].name);
        if (!known)
            return error_set(
                e, EXIT_CONFIG,
                "%s: has state/%s, which this run does not; resume with the options in its state/config.yaml", path,
                file);
    }
    return true;
}

// Reads this rank's slice of a state file whose checksums were checked before.
static bool slice_read(const char *path, Device *d, const StateBlob *b, Error *e) {
    uint64_t at, end;
    blob_slice(b, comm_rank(b->comm), &at, &end);
    char *file = xasprintf("%s/state/%s", path, b->name), *block = xmalloc(DISK_BLOCK), *to = b->data;
    int fd = file_open(file, e);
    bool ok = fd >= 0;
    while (ok && at < end) {
        size_t n = end - at < DISK_BLOCK ? (size_t)(end - at) : DISK_BLOCK;
        ssize_t got = pread(fd, block, n, (off_t)at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            ok = error_set(e, EXIT_DISK, "%s: cannot read at byte %llu: %s", file, (unsigned long long)at,
                           got ? strerror(errno) : "the file has been cut short");
        else d->copy(d, to, block, (size_t)got), to += got, at += (uint64_t)got;
    }
    if (fd >= 0) close(fd);
    free(block);
    free(file);
    return ok && device_ok(d, e);
}

// Fills the blobs' memory from the state files, checking each against the manifest as it is read.
static bool blobs_read(const json_t *manifest, const char *path, Device *d, const StateBlob *blobs, int n_blobs,
                       Error *e) {
    bool ok = true;
    for (int i = 0; ok && i < n_blobs; i++) {
        char *name = xasprintf("state/%s", blobs[i].name);
        ok = blobs[i].comm ? manifest_check(manifest, path, name, NULL, NULL, e) && slice_read(path, d, &blobs[i], e)
                           : manifest_check(manifest, path, name, d, blobs[i].data, e);
        free(name);
    }
    return ok;
}

static bool batch_read(const json_t *manifest, const char *path, TrainState *s, Error *e) {
    s->batch = NULL;
    int64_t bytes = manifest_bytes(manifest, "state/batch");
    if (!batch_is_there(path, manifest, s, e)) return false;
    if (bytes < 0) return true;
    s->batch = xmalloc((size_t)bytes);
    if (manifest_check(manifest, path, "state/batch", NULL, s->batch, e)) return true;
    free(s->batch);
    s->batch = NULL;
    return false;
}

// Checks that the checkpoint is of an adapter as this run's, as model_matches does.
static bool adapter_matches(const char *path, const Model *m, Error *e) {
    AdapterSpec saved;
    if (adapter_is(path) != (m->adapter != NULL))
        return error_set(
            e, EXIT_CONFIG,
            "%s is a checkpoint of %s, this run trains %s; choose another output_dir, or the lora_r that it "
            "was started with",
            path, m->adapter ? "a whole model" : "an adapter", m->adapter ? "an adapter" : "a whole model");
    return adapter_describe(path, &saved, e) &&
           (adapter_spec_equal(&saved, &m->adapter->spec) ||
            error_set(
                e, EXIT_CONFIG,
                "%s is a checkpoint of another adapter (rank %d, scale %g) than this run's (rank %d, scale %g), or on "
                "other projections, or with another head; choose another output_dir, or the lora_ options that it was "
                "started with",
                path, saved.rank, (double)adapter_scale(&saved), m->adapter->spec.rank,
                (double)adapter_scale(&m->adapter->spec)));
}

// Writes what a model has otherwise than another.
static void differences_put(Str *s, ModelDims n, ModelDims other) {
    const struct {
        const char *what;
        int n, other;
    } sizes[] = {{"vocabulary", n.V, other.V},    {"hidden size", n.D, other.D}, {"intermediate size", n.F, other.F},
                 {"layers", n.L, other.L},        {"heads", n.H, other.H},       {"key and value heads", n.K, other.K},
                 {"size of a head", n.d, other.d}};
    str_puts(s, n.family->model_type);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].n != sizes[i].other) str_printf(s, ", %s %d", sizes[i].what, sizes[i].n);
    if (n.scores != other.scores) str_puts(s, n.scores ? ", a reward model" : ", a language model");
    else if (n.tied != other.tied) str_puts(s, n.tied ? ", its head the embedding" : ", a head of its own");
}

// Checks that the checkpoint's model has the shape of this run's. Where it does not, the error blames the `model`
// option: no file is damaged.
static bool model_matches(const char *path, const Model *m, Error *e) {
    HfConfig saved;
    if (m->adapter || adapter_is(path)) return adapter_matches(path, m, e);
    if (!hf_config_read(path, &saved, e)) return false;
    ModelDims a = saved.dims, b = m->dims;
    if (model_dims_equal(a, b)) return true;
    Str was = {0}, is = {0};
    differences_put(&was, a, b), differences_put(&is, b, a);
    error_set(
        e, EXIT_CONFIG,
        "%s is a checkpoint of another model (%s) than this run's (%s); choose another output_dir, or the model it "
        "was started from",
        path, was.s, is.s);
    str_free(&was), str_free(&is);
    return false;
}

bool checkpoint_model_check(const char *dir, bool *checked, Error *e) {
    *checked = false;
    char *path = xasprintf("%s/manifest.json", dir);
    bool ours = access(path, F_OK) == 0;
    free(path);
    if (!ours) return true;
    json_t *manifest = manifest_read(dir, e);
    if (!manifest) return false;
    bool ok = true;
    const char *name;
    json_t *entry;
    json_object_foreach(json_object_get(manifest, "files"), name, entry) {
        if (ok && strncmp(name, "state/", 6)) ok = manifest_check(manifest, dir, name, NULL, NULL, e);
    }
    json_decref(manifest);
    *checked = ok;
    return ok;
}

bool checkpoint_load(const char *path, TrainState *s, Device *d, Model *m, const StateBlob *blobs, int n_blobs,
                     Error *e) {
    json_t *manifest = manifest_read(path, e);
    if (!manifest) return false;
    // The blobs are checked as they are read below: not twice.
    char **skip = xcalloc((size_t)n_blobs + 1, sizeof *skip);
    for (int i = 0; i < n_blobs; i++) skip[i] = xasprintf("state/%s", blobs[i].name);
    skip[n_blobs] = xstrdup("state/batch");
    bool ok = manifest_check_all(manifest, path, (const char *const *)skip, n_blobs + 1, e) &&
              model_matches(path, m, e) && train_state_read(path, s, manifest_step(manifest), m->dtype, e) &&
              blobs_match(manifest, path, blobs, n_blobs, e) && blobs_read(manifest, path, d, blobs, n_blobs, e) &&
              (m->adapter ? adapter_read(path, d, m->adapter, e) : hf_weights_read(path, d, m, LOAD_STRICT, e)) &&
              batch_read(manifest, path, s, e);
    s->kept = s->step;
    for (int i = 0; i <= n_blobs; i++) free(skip[i]);
    free(skip);
    json_decref(manifest);
    return ok;
}
