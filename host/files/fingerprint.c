// Fingerprints of files and model directories.
#include "fingerprint.h"
#include "crc32c.h"
#include "file.h"
#include "outdir.h"
#include "staging.h"
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static bool add_file(uint32_t *crc, const char *path, Error *e) {
    int fd = file_open(path, e);
    if (fd < 0) return false;
    char *block = xmalloc(DISK_BLOCK);
    ssize_t n;
    while ((n = read(fd, block, DISK_BLOCK)) != 0 && (n > 0 || errno == EINTR))
        if (n > 0) *crc = crc32c(*crc, block, (size_t)n);
    bool ok = n == 0 || error_set(e, EXIT_DISK, "%s: reading failed: %s", path, strerror(errno));
    free(block);
    close(fd);
    return ok;
}

static int is_model_file(const struct dirent *d) {
    const char *dot = strrchr(d->d_name, '.');
    return dot && d->d_name[0] != '.' &&
           (!strcmp(dot, ".safetensors") || !strcmp(dot, ".json") || !strcmp(dot, ".jinja"));
}

static bool add_directory(uint32_t *crc, const char *dir, Error *e) {
    struct dirent **entry;
    int n = scandir(dir, &entry, is_model_file, alphasort);
    if (n < 0) return error_set(e, EXIT_INPUT, "%s: %s", dir, error_open(errno));
    bool ok = true;
    for (int i = 0; i < n; free(entry[i++])) {
        if (!ok) continue;
        char *path = xasprintf("%s/%s", dir, entry[i]->d_name);
        *crc = crc32c(*crc, entry[i]->d_name, strlen(entry[i]->d_name));
        ok = add_file(crc, path, e);
        free(path);
    }
    free(entry);
    return ok;
}

bool fingerprint(uint32_t *crc, const char *path, Error *e) {
    struct stat st;
    return !stat(path, &st) && S_ISDIR(st.st_mode) ? add_directory(crc, path, e) : add_file(crc, path, e);
}

static uint32_t sum_of(Device *d, Tensor weights, bool round) {
    enum { BLOCK = 16 << 20 };
    char *block = xmalloc(BLOCK);
    uint16_t *rounded = round ? xmalloc(BLOCK / 2) : NULL;
    uint32_t crc = 0;
    for (size_t at = 0, bytes = tensor_bytes(weights); at < bytes; at += BLOCK) {
        size_t n = bytes - at < BLOCK ? bytes - at : BLOCK;
        const void *part = device_view(d, (char *)weights.data + at, n, block);
        if (round) {
#pragma omp parallel for schedule(static)
            for (size_t i = 0; i < n / 4; i++) rounded[i] = f32_to_bf16(((const float *)part)[i]);
            part = rounded, n /= 2;
        }
        crc = crc32c(crc, part, n);
    }
    free(block), free(rounded);
    return crc;
}

uint32_t weights_sum(Device *d, Tensor weights) { return sum_of(d, weights, false); }
uint32_t weights_sum_bf16(Device *d, Tensor weights) { return sum_of(d, weights, weights.dtype == F32); }
