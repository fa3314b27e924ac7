// Checkpoints: what is saved comes back, whatever happens in between.
#include "checkpoint.h"
#include "crc32c.h"
#include "faults.h"
#include "file.h"
#include "manifest.h"
#include "scratch.h"
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#ifdef _OPENMP
#include <omp.h>
#endif

static const ModelDims dims = {.V = 9,
                               .D = 4,
                               .F = 6,
                               .L = 1,
                               .H = 2,
                               .K = 1,
                               .d = 2,
                               .max_positions = 8,
                               .rms_eps = 1e-6f,
                               .rope_theta = 10000,
                               .tied = true};
static const char config_json[] =
    "{\"model_type\":\"qwen2\",\"vocab_size\":9,\"hidden_size\":4,\"intermediate_size\":6,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":2,\"num_key_value_heads\":1,\"tie_word_embeddings\":true,\"torch_dtype\":\"float32\"}";

// All that one checkpoint holds, made from its step.
typedef struct {
    TrainState s;
    Model m;
    char moment[2][300];
} World;

static World world_make(int step) {
    World w = {.m = model_make(dims, F32, (uint64_t)step)};
    w.s = (TrainState){step, step - 1, 2, {3, 1000000007ll * step}, 5, 6, 7ll << 40, 4, 0.1 * step, 1.0 / 3 - step, 8,
                       9,    NULL,     0};
    if (step % 2 == 0) {
        w.s.batch_bytes = 5;
        w.s.batch = xstrndup("batch", 5);
    }
    for (int i = 0; i < 300; i++) w.moment[0][i] = (char)(step * i), w.moment[1][i] = (char)(step + i);
    return w;
}
static void world_drop(World *w) {
    model_drop(&w->m);
    free(w->s.batch);
}
static void blobs_of(World *w, StateBlob *b) {
    b[0] = (StateBlob){"moment1.bin", w->moment[0], sizeof w->moment[0]};
    b[1] = (StateBlob){"moment2.bin", w->moment[1], sizeof w->moment[1]};
}
static void assert_same_world(const World *a, const World *b) {
    assert_same_weights(&a->m, &b->m);
    assert_memory_equal(a->moment, b->moment, sizeof a->moment);
    assert_memory_equal(&a->s, &b->s, offsetof(TrainState, batch));
    assert_int_equal(a->s.batch_bytes, b->s.batch_bytes);
    assert_int_equal(!a->s.batch, !b->s.batch);
    if (a->s.batch) assert_memory_equal(a->s.batch, b->s.batch, a->s.batch_bytes);
}

static bool save_step(const char *out, int step, int keep, Error *e) {
    World w = world_make(step);
    StateBlob b[2];
    blobs_of(&w, b);
    bool ok = checkpoint_save(out, &w.s, NULL, &w.m, at("source"), "seed: 42\n", b, 2, keep, e);
    world_drop(&w);
    return ok;
}

// The checkpoint found in `out` is that of `step`, bit for bit; 0: there is none.
static void assert_found(const char *out, int step) {
    int64_t found = 0;
    Error e = {.code = EXIT_NUMERIC};
    char *path = checkpoint_find(out, &found, &e);
    if (!path && (step || e.code)) fail_aloud("nothing found: %s", e.code ? e.text : "");
    if (!path) return;
    assert_int_equal(found, step);
    World want = world_make(step), got = world_make(step + 17);
    free(got.s.batch);
    StateBlob b[2];
    blobs_of(&got, b);
    if (!checkpoint_load(path, &got.s, NULL, &got.m, b, 2, &e)) fail_aloud("%s", e.text);
    assert_same_world(&want, &got);
    world_drop(&want);
    world_drop(&got);
    free(path);
}

// What is in directory `out` but checkpoints with their proper names.
static int leftovers(const char *out) {
    DIR *d = opendir(out);
    int n = 0;
    for (struct dirent *entry; (entry = readdir(d));)
        n += entry->d_name[0] != '.' && (strchr(entry->d_name, '.') || strncmp(entry->d_name, "step_", 5));
    closedir(d);
    return n;
}

// Notes go to a file while a test damages things on purpose.
static int real_stderr = -1;
static void quiet(void) {
    fflush(stderr);
    real_stderr = dup(2);
    int fd = open(at("notes"), O_RDWR | O_CREAT | O_TRUNC | O_APPEND, 0600);
    dup2(fd, 2);
    close(fd);
}
static void loud(void) {
    fflush(stderr);
    dup2(real_stderr, 2);
    close(real_stderr);
}
static char *notes_take(void) {
    size_t n;
    fflush(stderr);
    char *text = file_read(at("notes"), 1 << 20, &n, NULL);
    if (truncate(at("notes"), 0)) fail();
    return text;
}

static int setup(void **state) {
    memset(&disk, 0, sizeof disk);
    if (scratch_setup(state)) return -1;
    mkdir(at("source"), 0777);
    put_text(at("source/config.json"), config_json);
    put_text(at("source/tokenizer.json"), "{}");
    quiet();
    return 0;
}
static int teardown(void **state) {
    memset(&disk, 0, sizeof disk);
    loud();
    return scratch_teardown(state);
}

// ---- the plain case --------------------------------------------------------------------------------------------------

static void saved_state_comes_back(void **state) {
    assert_found(at("out"), 0); // no directory at all
    for (int step = 8; step <= 11; step++) {
        Error e = {0};
        if (!save_step(at("out"), step, 2, &e)) fail_aloud("%s", e.text);
        assert_found(at("out"), step); // 10 is newer than 9
    }
    assert_false(exists(at("out/step_9")));
    assert_true(exists(at("out/step_10")) && exists(at("out/step_11")));
    assert_int_equal(leftovers(at("out")), 0);
    const char *const files[] = {"config.json", "model.safetensors", "tokenizer.json", "manifest.json",
                                 "state/config.yaml"};
    for (int i = 0; i < 5; i++) assert_true(exists(at("out/step_11/%s", files[i])));

    assert_true(save_step(at("out"), 11, 2, NULL)); // over itself
    assert_found(at("out"), 11);
    assert_true(save_step(at("out"), 5, 1, NULL)); // after going back: what is newer is not removed
    assert_true(exists(at("out/step_5")) && exists(at("out/step_11")));
    mkdir(at("out/step_99"), 0777); // not a checkpoint
    mkdir(at("out/step_12x"), 0777);
    mkdir(at("out/step_012"), 0777);
    assert_found(at("out"), 11);
    char *notes = notes_take();
    assert_non_null(strstr(notes, "out/step_99/manifest.json"));
    free(notes);
}

static void other_runs_are_refused(void **state) {
    assert_true(save_step(at("out"), 2, 1, NULL));
    World w = world_make(3);
    StateBlob b[3];
    blobs_of(&w, b);
    Error e = {0};
    b[1].bytes--;
    assert_false(checkpoint_load(at("out/step_2"), &w.s, NULL, &w.m, b, 2, &e));
    SAYS(&e, "state/moment2.bin has 300 bytes, this run needs 299");
    assert_int_equal(e.code, EXIT_CONFIG);
    b[1].bytes++;
    assert_false(checkpoint_load(at("out/step_2"), &w.s, NULL, &w.m, b, 1, &e));
    SAYS(&e, "has state/moment2.bin, which this run does not");
    b[2] = (StateBlob){"master.bin", w.moment, 1};
    assert_false(checkpoint_load(at("out/step_2"), &w.s, NULL, &w.m, b, 3, &e));
    SAYS(&e, "state/master.bin has 0 bytes");
    Model other = model_make(dims, BF16, 1);
    assert_false(checkpoint_load(at("out/step_2"), &w.s, NULL, &other, b, 2, &e));
    SAYS(&e, "dtype=f32", "dtype=bf16");
    model_drop(&other);
    assert_false(checkpoint_load(at("nowhere"), &w.s, NULL, &w.m, b, 2, &e));
    SAYS(&e, "nowhere/manifest.json");
    world_drop(&w);
}

// ---- power cuts and failing disks ------------------------------------------------------------------------------------

// Saves `step` in a child whose disk is hit at call `at_call`. Returns its exit status: 0 saved, FAULT_EXIT cut off,
// else 1 + the error's code.
static int save_in_child(int step, int keep, int at_call, int error, bool full) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        disk.calls = 0;
        disk.at = at_call;
        disk.error = error;
        disk.full = full;
        Error e = {0};
        bool ok = save_step(at("out"), step, keep, &e);
        _exit(ok ? 0 : 1 + (int)e.code);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

// A directory with checkpoint `old` (0: none), then a save of `step` cut off at every call in turn. What is found
// afterwards is the old one or the new one, never less; and the next save finds a usable place.
static void cut_everywhere(int old, int step, int keep) {
    int calls = 0, was_new = 0, status = FAULT_EXIT;
    for (int k = 1; status == FAULT_EXIT; k++) {
        assert_true(disk_remove(at("out"), NULL));
        if (old) assert_true(save_step(at("out"), old, 2, NULL));
        status = save_in_child(step, keep, k, 0, false);
        int64_t found = 0;
        Error e;
        char *path = checkpoint_find(at("out"), &found, &e);
        if (old) assert_non_null(path);
        else if (!path) assert_int_equal(e.code, EXIT_OK);
        free(path);
        if (found != step) assert_int_equal(found, old);
        if (was_new) assert_int_equal(found, step); // once visible it stays
        was_new = found == step && old != step;
        assert_found(at("out"), (int)found);
        assert_true(save_step(at("out"), step, keep, NULL));
        assert_found(at("out"), step);
        assert_int_equal(leftovers(at("out")), 0);
        calls = k;
    }
    assert_int_equal(status, 0);
    assert_true(calls > 40); // the disk was really hit
}

static void cut_in_the_first_save(void **state) { cut_everywhere(0, 1, 2); }
static void cut_in_a_later_save(void **state) { cut_everywhere(1, 2, 2); }
static void cut_while_the_last_is_removed(void **state) { cut_everywhere(1, 2, 1); }
static void cut_while_a_step_is_replaced(void **state) { cut_everywhere(2, 2, 1); }

// Each call fails once with EIO, or the disk is full from it on: the error is EXIT_DISK, the old checkpoint is there,
// nothing is left over, and the next save works.
static void fail_everywhere(int old, int step, int error, bool full) {
    for (int k = 1;; k++) {
        assert_true(disk_remove(at("out"), NULL));
        if (old) assert_true(save_step(at("out"), old, 2, NULL));
        free(notes_take());
        int status = save_in_child(step, 1, k, error, full);
        char *notes = notes_take();
        bool noted = *notes;
        free(notes);
        assert_true(status == 0 || status == 1 + EXIT_DISK);
        int64_t found = 0;
        Error e;
        free(checkpoint_find(at("out"), &found, &e));
        if (status == 0) assert_int_equal(found, step);
        else assert_true(found == old || found == step);
        assert_found(at("out"), (int)found);
        // What cannot be removed is left over, and said; a sync of the directory that fails comes after the rename.
        if (status && found != step) assert_int_equal(leftovers(at("out")), 0);
        if (status == 0 && leftovers(at("out"))) assert_true(noted);
        assert_true(save_step(at("out"), step, 1, NULL));
        assert_found(at("out"), step);
        assert_int_equal(leftovers(at("out")), 0);
        if (status == 0 && !noted) break;
        assert_true(k < 1000);
    }
}
static void errors_in_a_later_save(void **state) { fail_everywhere(1, 2, EIO, false); }
static void errors_while_a_step_is_replaced(void **state) { fail_everywhere(2, 2, EIO, false); }
static void full_disk_at_every_call(void **state) { fail_everywhere(1, 2, ENOSPC, true); }

static void full_disk_is_named(void **state) {
    Error e = {0};
    disk.at = 12;
    disk.full = true;
    disk.error = ENOSPC;
    assert_false(save_step(at("out"), 1, 1, &e));
    SAYS(&e, "out/step_1.tmp", "No space left", "bytes are needed", "are free in");
    assert_int_equal(e.code, EXIT_DISK);
}

// A file system of 3 MiB: a checkpoint that does not fit is refused before anything is written; where the system
// promised too much, while it is written. Runs in a child: it needs a mount of its own.
static void small_file_system(void) {
    if (unshare(CLONE_NEWNS | (geteuid() ? CLONE_NEWUSER : 0)) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
        mount("tmpfs", at("out"), "tmpfs", 0, "size=3m"))
        _exit(77);
    static char big[3 << 20];
    Error e = {0};
    World w = world_make(2);
    StateBlob blob = {"moment.bin", big, sizeof big};
    if (!save_step(at("out"), 1, 1, NULL)) _exit(1);
    for (int lie = 0; lie < 2; lie++) {
        disk.lie = lie;
        if (checkpoint_save(at("out"), &w.s, NULL, &w.m, at("source"), "", &blob, 1, 1, &e) || e.code != EXIT_DISK)
            _exit(2);
        if (!strstr(e.text, lie ? "No space left" : "not enough space") || !strstr(e.text, "bytes are needed"))
            _exit(3);
        if (exists(at("out/step_2.tmp")) || exists(at("out/step_2"))) _exit(4);
        int64_t found = 0;
        if (!checkpoint_find(at("out"), &found, &e) || found != 1) _exit(5);
    }
    _exit(0);
}

static void small_disk_keeps_the_old_checkpoint(void **state) {
    mkdir(at("out"), 0777);
    pid_t pid = fork();
    if (pid == 0) small_file_system();
    int status;
    waitpid(pid, &status, 0);
    if (WEXITSTATUS(status) == 77) {
        printf("SKIP small_disk_keeps_the_old_checkpoint: this system lets nobody mount a tmpfs\n");
        skip();
    }
    assert_int_equal(status, 0);
}

static void file_size_limit_is_an_error(void **state) {
    static char big[100000];
    pid_t pid = fork();
    if (pid == 0) {
        struct rlimit limit = {50000, 50000};
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &limit);
        Error e = {0};
        World w = world_make(2);
        StateBlob blob = {"moment.bin", big, sizeof big};
        bool ok = save_step(at("out"), 1, 1, NULL) &&
                  !checkpoint_save(at("out"), &w.s, NULL, &w.m, at("source"), "", &blob, 1, 1, &e) &&
                  e.code == EXIT_DISK && strstr(e.text, "state/moment.bin: cannot write at byte 50000") &&
                  !exists(at("out/step_2.tmp"));
        _exit(ok ? 0 : 1);
    }
    int status;
    waitpid(pid, &status, 0);
    assert_int_equal(status, 0);
    assert_found(at("out"), 1);
}

static void unwritable_places_are_named(void **state) {
    put_text(at("file"), "");
    Error e = {0};
    assert_false(save_step(at("file/out"), 1, 1, &e));
    SAYS(&e, at("file/out"), "Not a directory", "choose another place");
    assert_int_equal(e.code, EXIT_DISK);
    int64_t step;
    assert_null(checkpoint_find(at("file"), &step, &e));
    assert_int_equal(e.code, EXIT_DISK);
}

// A disk that writes other bytes than it was given, or none, at each write in turn, and says that all is well.
static void what_was_written_is_read_back(void **state) {
    for (int wrong = CHANGED; wrong <= LOST; wrong++) {
        int writes = 0;
        for (int status = 1 + EXIT_DISK; status; writes++) {
            assert_true(disk_remove(at("out"), NULL) && save_step(at("out"), 1, 2, NULL));
            disk.wrong = wrong;
            status = save_in_child(2, 2, writes + 1, 0, false);
            disk.wrong = RIGHT;
            assert_true(status == 0 || status == 1 + EXIT_DISK);
            assert_found(at("out"), status ? 1 : 2);
            assert_int_equal(leftovers(at("out")), 0);
        }
        assert_true(writes > 10);
    }
    Error e = {0};
    disk.wrong = CHANGED;
    disk.calls = 0;
    disk.at = 2;
    assert_false(save_step(at("out"), 3, 1, &e));
    SAYS(&e, "does not come back", "out/step_3.tmp/");
}

// Written as it was meant, and yet nothing that a resume would read: it does not get its name.
static void what_cannot_be_read_is_not_saved(void **state) {
    assert_true(save_step(at("out"), 1, 2, NULL));
    World w = world_make(3);
    Error e = {0};
    w.s.part = -1;
    assert_false(checkpoint_save(at("out"), &w.s, NULL, &w.m, at("source"), "", NULL, 0, 2, &e));
    SAYS(&e, "what was just saved cannot be read", "state/train.json", "part");
    assert_int_equal(e.code, EXIT_DISK);
    world_drop(&w);
    assert_found(at("out"), 1);
    assert_int_equal(leftovers(at("out")), 0);
}

// ---- damage ----------------------------------------------------------------------------------------------------------

// Calls visit(path inside the checkpoint, its bytes) for every file of it.
static void each_file(const char *step_dir, const char *sub, void (*visit)(const char *name, char *bytes, size_t n)) {
    char *root = xstrdup(step_dir), *dir = xasprintf("%s/%s", root, sub);
    DIR *d = opendir(dir);
    for (struct dirent *entry; (entry = readdir(d));) {
        if (entry->d_name[0] == '.') continue;
        char *name = xasprintf("%s%s", sub, entry->d_name), *path = xasprintf("%s/%s", root, name);
        size_t n;
        char *bytes = file_read(path, 1 << 20, &n, NULL);
        if (bytes) {
            visit(name, bytes, n);
            put_bytes(path, bytes, n);
        } else {
            char *below = xasprintf("%s/", name);
            each_file(root, below, visit);
            free(below);
        }
        free(bytes);
        free(path);
        free(name);
    }
    closedir(d);
    free(dir);
    free(root);
}

static int damaged;

// step_2 is damaged: step_1 is found instead, and a note names the file.
static void assert_falls_back(const char *name) {
    int64_t found = 0;
    Error e;
    char *path = checkpoint_find(at("out"), &found, &e);
    assert_non_null(path);
    if (found != 1) fail_aloud("damage in %s was not seen", name);
    char *notes = notes_take(), *named = xasprintf("out/step_2/%s", name);
    if (!strstr(notes, named)) fail_aloud("%s is not named in: %s", named, notes);
    assert_non_null(strstr(notes, "looking for an older one"));
    free(named);
    free(notes);
    free(path);
    damaged++;
}

// Changes files in place: writing them anew would make the file system flush each of them.
static void cut_short(const char *name, char *bytes, size_t n) {
    char path[4096];
    snprintf(path, sizeof path, "%s", at("out/step_2/%s", name));
    FILE *f = fopen(path, "ab");
    fputc('\n', f);
    fclose(f);
    assert_falls_back(name);
    for (size_t k = n; k-- > 0;) {
        assert_int_equal(truncate(path, (off_t)k), 0);
        assert_falls_back(name);
    }
    unlink(path);
    assert_falls_back(name);
}

static void flip_bits(const char *name, char *bytes, size_t n) {
    bool manifest = !strcmp(name, "manifest.json"); // which knows its own checksum, so no other file is blamed
    int fd = open(at("out/step_2/%s", name), O_WRONLY);
    for (size_t bit = 0; bit < 8 * n; bit += manifest ? 1 : 7) {
        char flipped = (char)(bytes[bit / 8] ^ 1 << bit % 8);
        assert_int_equal(pwrite(fd, &flipped, 1, (off_t)(bit / 8)), 1);
        assert_falls_back(name);
        assert_int_equal(pwrite(fd, bytes + bit / 8, 1, (off_t)(bit / 8)), 1);
    }
    close(fd);
}

static void two_checkpoints(void) {
    damaged = 0;
    assert_true(save_step(at("out"), 1, 2, NULL) && save_step(at("out"), 2, 2, NULL));
    assert_found(at("out"), 2);
}

static void every_prefix_is_seen(void **state) {
    two_checkpoints();
    each_file(at("out/step_2"), "", cut_short);
    assert_true(damaged > 2000);
    assert_found(at("out"), 2);
}

static void every_flip_is_seen(void **state) {
    two_checkpoints();
    each_file(at("out/step_2"), "", flip_bits);
    assert_true(damaged > 2000);
    assert_found(at("out"), 2);
}

// Puts other bytes into a file of step_2, and a manifest that fits them: as a save whose text was wrong from the start.
static char *forged;
static size_t forged_bytes;
static OutDir forgery;
static void forge_one(const char *name, char *bytes, size_t n) {
    bool other = !strcmp(name, forged);
    if (strcmp(name, "manifest.json") && (!other || forged_bytes != SIZE_MAX))
        assert_true(outdir_put(&forgery, name, bytes, other ? forged_bytes : n, NULL));
}
static void forge(char *name, size_t bytes) {
    assert_true(disk_remove(at("out/step_2"), NULL) && save_step(at("out"), 2, 2, NULL));
    forged = name;
    forged_bytes = bytes;
    assert_true(outdir_begin(&forgery, at("out/step_2"), 0, NULL));
    each_file(at("out/step_2"), "", forge_one);
    assert_true(manifest_write(&forgery, 2, NULL) && outdir_commit(&forgery, NULL));
    outdir_free(&forgery);
}

static void what_was_saved_wrong_is_seen(void **state) {
    two_checkpoints();
    free(notes_take());
    static char *const names[] = {"config.json", "model.safetensors", "state/train.json", "state/batch"};
    for (int i = 0; i < 4; i++) {
        struct stat st;
        assert_int_equal(stat(at("out/step_2/%s", names[i]), &st), 0);
        for (size_t n = (size_t)st.st_size; n-- > 0;) {
            forge(names[i], n);
            int64_t found = 0;
            Error e;
            char *path = checkpoint_find(at("out"), &found, &e), *notes = notes_take();
            if (found != 1) fail_aloud("%s with %zu bytes passes", names[i], n);
            assert_non_null(strstr(notes, "looking for an older one"));
            free(path);
            free(notes);
        }
        forge(names[i], SIZE_MAX); // left out
        assert_found(at("out"), 1);
        assert_true(disk_remove(at("out/step_2"), NULL) && save_step(at("out"), 2, 2, NULL));
    }
    assert_found(at("out"), 2);
}

// checkpoint_load itself checks what it reads, whoever named the path; and says where in the file.
static void load_and_flip(const char *name, char *bytes, size_t n) {
    bytes[n / 2] ^= 4;
    put_bytes(at("out/step_2/%s", name), bytes, n);
    bytes[n / 2] ^= 4;
    World w = world_make(3);
    free(w.s.batch);
    w.s.batch = NULL;
    StateBlob b[2];
    blobs_of(&w, b);
    Error e = {0};
    assert_false(checkpoint_load(at("out/step_2"), &w.s, NULL, &w.m, b, 2, &e));
    assert_int_equal(e.code, EXIT_INPUT);
    if (strcmp(name, "manifest.json")) SAYS(&e, name, "damaged somewhere in bytes 0..");
    world_drop(&w);
}

static void loading_checks_too(void **state) {
    two_checkpoints();
    each_file(at("out/step_2"), "", load_and_flip);
}

static void nothing_whole_is_an_error(void **state) {
    two_checkpoints();
    assert_int_equal(truncate(at("out/step_1/state/train.json"), 3), 0);
    assert_int_equal(truncate(at("out/step_2/state/train.json"), 3), 0);
    int64_t step;
    Error e;
    assert_null(checkpoint_find(at("out"), &step, &e));
    assert_int_equal(e.code, EXIT_INPUT);
    SAYS(&e, at("out"), "none of its 2 checkpoints");
}

// More than one block of checksums, one of them damaged: the error says which.
static void large_files_say_where(void **state) {
    size_t n = 2 * DISK_BLOCK + 1000;
    char *big = xcalloc(n, 1);
    for (size_t i = 0; i < n; i += 4096) big[i] = (char)(i >> 12);
    World w = world_make(1);
    StateBlob blob = {"moment.bin", big, n};
    assert_true(checkpoint_save(at("out"), &w.s, NULL, &w.m, at("source"), "", &blob, 1, 1, NULL));
    char *back = xmalloc(n);
    blob.data = back;
    assert_true(checkpoint_load(at("out/step_1"), &w.s, NULL, &w.m, &blob, 1, NULL));
    assert_memory_equal(big, back, n);
    FILE *f = fopen(at("out/step_1/state/moment.bin"), "r+b");
    fseek(f, (long)DISK_BLOCK + 5, SEEK_SET);
    fputc(1, f);
    fclose(f);
    Error e = {0};
    assert_false(checkpoint_load(at("out/step_1"), &w.s, NULL, &w.m, &blob, 1, &e));
    SAYS(&e, "state/moment.bin", "bytes 16777216..33554431");
    free(big);
    free(back);
    world_drop(&w);
}

static void crc32c_is_the_published_one(void **state) {
    unsigned char b[32];
    memset(b, 0, 32);
    assert_int_equal(crc32c(0, b, 32), 0x8a9136aa); // RFC 3720, B.4
    memset(b, 255, 32);
    assert_int_equal(crc32c(0, b, 32), 0x62a8ab43);
    for (int i = 0; i < 32; i++) b[i] = (unsigned char)i;
    assert_int_equal(crc32c(0, b, 32), 0x46dd794e);
    for (int i = 0; i < 32; i++) b[i] = (unsigned char)(31 - i);
    assert_int_equal(crc32c(0, b, 32), 0x113fdb5c);
    assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283);
    assert_int_equal(crc32c(0, "", 0), 0);

    enum { N = 100000 };
    unsigned char *x = xmalloc(N);
    uint64_t r = 1;
    for (int i = 0; i < N; i++) x[i] = (unsigned char)((r = r * 6364136223846793005u + 1) >> 56);
    for (size_t n = 0; n < N; n += n < 70 ? 1 : 4093)
        for (size_t from = 0; from < 9 && from + n <= N; from++) {
            uint32_t whole = crc32c(0, x + from, n);
            assert_int_equal(whole, crc32c_portable(0, x + from, n));
            assert_int_equal(whole, crc32c(crc32c(0, x + from, n / 3), x + from + n / 3, n - n / 3));
        }
    free(x);
}

#define WITH_DISK(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void) {
#ifdef _OPENMP
    omp_set_num_threads(1); // a forked child has none of its parent's threads, and would wait for them
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc32c_is_the_published_one),
        WITH_DISK(saved_state_comes_back),
        WITH_DISK(other_runs_are_refused),
        WITH_DISK(cut_in_the_first_save),
        WITH_DISK(cut_in_a_later_save),
        WITH_DISK(cut_while_the_last_is_removed),
        WITH_DISK(cut_while_a_step_is_replaced),
        WITH_DISK(errors_in_a_later_save),
        WITH_DISK(errors_while_a_step_is_replaced),
        WITH_DISK(full_disk_at_every_call),
        WITH_DISK(full_disk_is_named),
        WITH_DISK(what_was_written_is_read_back),
        WITH_DISK(what_cannot_be_read_is_not_saved),
        WITH_DISK(small_disk_keeps_the_old_checkpoint),
        WITH_DISK(file_size_limit_is_an_error),
        WITH_DISK(unwritable_places_are_named),
        WITH_DISK(every_prefix_is_seen),
        WITH_DISK(every_flip_is_seen),
        WITH_DISK(what_was_saved_wrong_is_seen),
        WITH_DISK(loading_checks_too),
        WITH_DISK(nothing_whole_is_an_error),
        WITH_DISK(large_files_say_where),
    };
    return cmocka_run_group_tests_name("checkpoint", tests, NULL, NULL);
}
