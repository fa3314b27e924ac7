// manifest.json: lists the files of a checkpoint with their checksums, and tells whether they are all still intact.
#include "crc32c.h"
#include "file.h"
#include "json.h"
#include "manifest.h"
#include "staging.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <stdio.h>
#include <string.h>

static const char format_name[] = "grpo checkpoint";
static const size_t manifest_limit = (size_t)64 << 20; // bytes; an entry of 10 takes for each 16 MiB

static char *render(const json_t *manifest) { return json_dumps(manifest, JSON_INDENT(1)); }

// Computes the manifest's own checksum: that of its text without the entry that holds it.
static void sum_of(const json_t *manifest, char hex[9]) {
    char *text = render(manifest);
    snprintf(hex, 9, "%08x", crc32c(0, text, strlen(text)));
    free(text);
}

bool manifest_write(OutDir *d, int64_t step, Error *e) {
    json_t *files = json_object();
    for (int i = 0; i < d->n_files; i++) {
        const OutFile *f = &d->file[i];
        json_t *sums = json_array();
        for (uint64_t at = 0; at < f->bytes; at += DISK_BLOCK) {
            char hex[9];
            snprintf(hex, sizeof hex, "%08x", f->crc[at / DISK_BLOCK]);
            json_array_append_new(sums, json_string(hex));
        }
        json_object_set_new(files, f->name, json_pack("{s:I,s:o}", "bytes", (json_int_t)f->bytes, "crc32c", sums));
    }
    json_t *j = json_pack("{s:s,s:I,s:I,s:o}", "format", format_name, "step", (json_int_t)step, "block",
                          (json_int_t)DISK_BLOCK, "files", files);
    char own[9];
    sum_of(j, own);
    json_object_set_new(j, "crc32c", json_string(own));
    char *text = render(j);
    bool ok = outdir_put(d, "manifest.json", text, strlen(text), e);
    free(text);
    json_decref(j);
    return ok;
}

static bool well_formed(const json_t *j) {
    const json_t *format = json_object_get(j, "format"), *step = json_object_get(j, "step");
    json_t *files = json_object_get(j, "files"), *entry;
    if (!json_text(format) || strcmp(json_text(format), format_name) || !json_is_integer(step) ||
        json_integer_value(step) < 0 || json_integer_value(json_object_get(j, "block")) != (json_int_t)DISK_BLOCK ||
        !json_is_object(files) || !json_text(json_object_get(j, "crc32c")))
        return false;
    const char *name;
    json_object_foreach(files, name, entry) {
        const json_t *bytes = json_object_get(entry, "bytes"), *sums = json_object_get(entry, "crc32c"), *sum;
        if (!json_is_integer(bytes) || json_integer_value(bytes) < 0 || !json_is_array(sums)) return false;
        if (json_array_size(sums) != ((size_t)json_integer_value(bytes) + DISK_BLOCK - 1) / DISK_BLOCK) return false;
        size_t i;
        json_array_foreach(sums, i, sum) {
            if (!json_is_string(sum) || strlen(json_string_value(sum)) != 8 ||
                strspn(json_string_value(sum), "0123456789abcdef") != 8)
                return false;
        }
    }
    return true;
}

json_t *manifest_read(const char *dir, Error *e) {
    char *path = xasprintf("%s/manifest.json", dir);
    size_t n;
    char *text = file_read(path, manifest_limit, &n, e), *again = NULL;
    json_t *j = text ? json_parse_unique(text, n, path, e) : NULL;
    if (j) {
        again = well_formed(j) ? render(j) : NULL;
        char saved[9] = "", own[9];
        snprintf(saved, sizeof saved, "%s", again ? json_string_value(json_object_get(j, "crc32c")) : "");
        json_object_del(j, "crc32c");
        sum_of(j, own);
        if (again && strlen(again) == n && !memcmp(text, again, n) && strcmp(saved, own)) {
            error_set(e, EXIT_INPUT, "%s: damaged: its text has the checksum %s, not the %s that it names", path, own,
                      saved);
            json_decref(j);
            j = NULL;
        } else if (!again || strlen(again) != n || memcmp(text, again, n)) {
            size_t at = 0;
            while (again && at < n && text[at] == again[at]) at++;
            error_set(e, EXIT_INPUT, "%s: damaged at byte %zu: not what was written", path, at);
            json_decref(j);
            j = NULL;
        }
    }
    free(again);
    free(text);
    free(path);
    return j;
}

int64_t manifest_step(const json_t *manifest) { return json_integer_value(json_object_get(manifest, "step")); }

static json_t *entry_of(const json_t *manifest, const char *name) {
    return json_object_get(json_object_get(manifest, "files"), name);
}

int64_t manifest_bytes(const json_t *manifest, const char *name) {
    const json_t *entry = entry_of(manifest, name);
    return entry ? json_integer_value(json_object_get(entry, "bytes")) : -1;
}

// The checksums of a file's entry as a heap array, and their number in *n.
static uint32_t *sums_of(const json_t *entry, int64_t *n) {
    const json_t *list = json_object_get(entry, "crc32c");
    *n = (int64_t)json_array_size(list);
    uint32_t *crc = xcalloc((size_t)*n, sizeof *crc);
    for (int64_t i = 0; i < *n; i++)
        crc[i] = (uint32_t)strtoul(json_string_value(json_array_get(list, (size_t)i)), NULL, 16);
    return crc;
}

// blocks_check into a device's memory: blocks are read while those before them are copied to the device.
static bool blocks_upload(int fd, const char *path, const uint32_t *crc, int64_t n, uint64_t bytes, Device *d,
                          char *into, Error *e) {
    enum { TURN = 4 };
    Staging s;
    if (!staging_open(&s, d, TURN * DISK_BLOCK, e)) return false;
    bool ok = true;
    for (int64_t first = 0; ok && first < n; first += TURN) {
        int64_t end = first + TURN < n ? first + TURN : n;
        uint64_t at = (uint64_t)first * DISK_BLOCK, stop = (uint64_t)end * DISK_BLOCK;
        char *room = staging_room(&s);
        ok = blocks_check(fd, path, crc, first, end, bytes, room, at, e);
        if (ok) staging_send(&s, into + at, room, (size_t)((stop < bytes ? stop : bytes) - at));
        staging_turn(&s);
    }
    return staging_close(&s, ok ? e : NULL) && ok;
}

bool manifest_check(const json_t *manifest, const char *dir, const char *name, Device *d, void *into, Error *e) {
    const json_t *entry = entry_of(manifest, name);
    if (!entry) return error_set(e, EXIT_INPUT, "%s/manifest.json: does not list %s", dir, name);
    uint64_t bytes = (uint64_t)json_integer_value(json_object_get(entry, "bytes"));
    char *path = xasprintf("%s/%s", dir, name);
    int fd = file_open(path, e);
    struct stat s;
    bool ok = fd >= 0 && (!fstat(fd, &s) || error_set(e, EXIT_DISK, "%s: cannot be read: %s", path, strerror(errno)));
    if (ok && (uint64_t)s.st_size != bytes)
        ok = error_set(e, EXIT_INPUT, "%s: %s at byte %llu: %llu bytes were written", path,
                       (uint64_t)s.st_size < bytes ? "ends" : "goes on",
                       (unsigned long long)((uint64_t)s.st_size < bytes ? (uint64_t)s.st_size : bytes),
                       (unsigned long long)bytes);
    else if (ok) {
        int64_t n;
        uint32_t *crc = sums_of(entry, &n);
        ok = into && !on_host(d) ? blocks_upload(fd, path, crc, n, bytes, d, into, e)
                                 : blocks_check(fd, path, crc, 0, n, bytes, into, 0, e);
        free(crc);
    }
    if (fd >= 0) close(fd);
    free(path);
    return ok;
}

bool manifest_check_all(const json_t *manifest, const char *dir, const char *const *skip, int n_skip, Error *e) {
    const char *name;
    json_t *entry;
    json_object_foreach(json_object_get(manifest, "files"), name, entry) {
        bool skipped = false;
        for (int i = 0; i < n_skip; i++) skipped |= !strcmp(name, skip[i]);
        if (!skipped && !manifest_check(manifest, dir, name, NULL, NULL, e)) return false;
    }
    return true;
}
