// Damaged checkpoints: every byte that is not as it was saved is seen, and an older one is taken.
#include "checkpoint_case.h"
#include "crc32c.h"
#include "manifest.h"
#ifdef _OPENMP
#include <omp.h>
#endif

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
    assert_true(checkpoint_save(at("out"), &w.s, NULL, &w.m, at("source"), "", &blob, 1, 1, NULL, NULL));
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

int main(void) {
#ifdef _OPENMP
    omp_set_num_threads(1); // a forked child has none of its parent's threads, and would wait for them
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(crc32c_is_the_published_one),
        WITH_DISK(every_prefix_is_seen),
        WITH_DISK(every_flip_is_seen),
        WITH_DISK(what_was_saved_wrong_is_seen),
        WITH_DISK(loading_checks_too),
        WITH_DISK(nothing_whole_is_an_error),
        WITH_DISK(large_files_say_where),
    };
    return cmocka_run_group_tests_name("checkpoint_damage", tests, NULL, NULL);
}
