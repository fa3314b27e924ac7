// Copies the values of safetensors files into memory: read or mapped, converted, checked, on all cores.
#include "config.h"
#include "safetensors.h"
#include "staging.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 1 << 20 }; // elements one thread reads at a time

typedef struct {
    const TensorCopy *copy;
    const char *mapped;    // where copy->file is mapped; NULL where it is read
    char *to;              // host memory that takes the converted elements
    int64_t first, length; // elements
} Piece;

static bool file_dtype(const FileTensor *t, DType *out) {
    static const char *const names[] = {[F32] = "F32", [BF16] = "BF16", [F16] = "F16"};
    for (int i = F32; i <= F16; i++)
        if (!strcmp(t->dtype, names[i])) {
            *out = (DType)i;
            return true;
        }
    return false;
}

// Converts an f16 to f32. The biases of their exponents differ by 112; multiplying by 2^112 also makes subnormals
// right.
static float f16_to_f32(uint16_t h) {
    uint32_t u = (uint32_t)(h & 0x7fff) << 13;
    float f, two_to_112 = 0x1p112f;
    memcpy(&f, &u, 4);
    f *= two_to_112;
    memcpy(&u, &f, 4);
    if ((h & 0x7c00) == 0x7c00) u = 0x7f800000u | (uint32_t)(h & 0x3ff) << 13;
    u |= (uint32_t)(h & 0x8000) << 16;
    memcpy(&f, &u, 4);
    return f;
}

// to[n] = from[n]. Bytes of a file need not be aligned, so elements are taken out with memcpy.
static void convert(char *to, DType to_type, const char *from, DType from_type, int64_t n) {
    size_t wide = dtype_size(from_type);
    if (to_type == from_type) {
        memcpy(to, from, (size_t)n * wide);
        return;
    }
#define EACH(type, expression)                                                                                         \
    for (int64_t i = 0; i < n; i++) {                                                                                  \
        type x;                                                                                                        \
        memcpy(&x, from + (size_t)i * sizeof x, sizeof x);                                                             \
        expression;                                                                                                    \
    }
    float *single = (float *)to;
    uint16_t *half = (uint16_t *)to;
    if (to_type == F32 && from_type == BF16) EACH(uint16_t, single[i] = bf16_to_f32(x))
    else if (to_type == F32) EACH(uint16_t, single[i] = f16_to_f32(x))
    else if (from_type == F32) EACH(float, half[i] = f32_to_bf16(x))
    else EACH(uint16_t, half[i] = f32_to_bf16(f16_to_f32(x)))
#undef EACH
}

// The index of the first element that is NaN or infinite, or -1.
static int64_t not_finite(const char *data, DType type, int64_t n) {
    Tensor x = tensor1((void *)data, type, n);
    int bad = 0;
    if (type == F32) {
        const uint32_t *bits = x.data;
        for (int64_t i = 0; i < n; i++) bad |= (bits[i] & 0x7f800000u) == 0x7f800000u;
    } else {
        for (int64_t i = 0; i < n; i++) bad |= (bf16(x)[i] & 0x7f80) == 0x7f80;
    }
    if (!bad) return -1;
    for (int64_t i = 0;; i++) {
        float value = tensor_get(x, i);
        if (value - value != 0) return i;
    }
}

static bool piece_read(const Piece *p, char *buffer, Error *e) {
    const TensorCopy *c = p->copy;
    DType type = F32;
    file_dtype(c->from, &type);
    uint64_t at = c->from->begin + (uint64_t)p->first * dtype_size(type);
    char *to = p->to;
    size_t bytes = (size_t)p->length * dtype_size(type);
    if (p->mapped) {
        convert(to, c->to.dtype, p->mapped + at, type, p->length);
        return true;
    }
    char *into = type == c->to.dtype ? to : buffer;
    for (size_t done = 0; done < bytes;) {
        ssize_t got = pread(c->file->fd, into + done, bytes - done, (off_t)(at + done));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            return error_set(e, EXIT_DISK, "%s: tensor %s: cannot read at byte %llu: %s", c->file->path, c->from->name,
                             (unsigned long long)(at + done), got ? strerror(errno) : "the file has been cut short");
        done += (size_t)got;
    }
    if (into == buffer) convert(to, c->to.dtype, buffer, type, p->length);
    int64_t bad = not_finite(to, c->to.dtype, p->length);
    if (bad < 0) return true;
    return error_set(
        e, EXIT_INPUT,
        "%s: tensor %s: the element at byte %llu is not a finite number as %s; the file is damaged or from "
        "a run that diverged",
        c->file->path, c->from->name, (unsigned long long)(at + (uint64_t)bad * dtype_size(type)),
        dtype_name(c->to.dtype));
}

bool safetensors_equal(const TensorCopy *a, const TensorCopy *b, bool *equal, Error *e) {
    DType type;
    int64_t n = (int64_t)a->from->numel;
    bool ok = true, same = file_dtype(a->from, &type) && file_dtype(b->from, &type);
    TensorCopy wide[2] = {*a, *b};
    wide[0].to = wide[1].to = tensor1(NULL, F32, n);
    float *x = xmalloc((size_t)PIECE * 4), *y = xmalloc((size_t)PIECE * 4);
    char *buffer = xmalloc((size_t)PIECE * 4);
    for (int64_t first = 0; ok && same && first < n; first += PIECE) {
        int64_t length = n - first < PIECE ? n - first : PIECE;
        Piece p = {&wide[0], NULL, (char *)x, first, length}, q = {&wide[1], NULL, (char *)y, first, length};
        ok = piece_read(&p, buffer, e) && piece_read(&q, buffer, e);
        same = ok && !memcmp(x, y, (size_t)length * 4);
    }
    free(x), free(y), free(buffer);
    *equal = same;
    return ok;
}

// Maps each file once; mapped[i] is where copies[i].file lies.
static bool map_files(const TensorCopy *copies, int n, char **mapped, Error *e) {
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < i && !mapped[i]; k++)
            if (copies[k].file == copies[i].file) mapped[i] = mapped[k];
        if (mapped[i]) continue;
        const SafeTensors *f = copies[i].file;
        struct stat st;
        if (fstat(f->fd, &st) || (uint64_t)st.st_size != f->bytes)
            return error_set(e, EXIT_DISK, "%s: cannot read up to byte %llu: the file has been cut short", f->path,
                             (unsigned long long)f->bytes);
        void *p = mmap(NULL, f->bytes, PROT_READ, MAP_SHARED, f->fd, 0);
        if (p == MAP_FAILED)
            return error_set(e, EXIT_DISK, "%s: cannot map: %s; load=strict reads it instead", f->path,
                             strerror(errno));
        mapped[i] = p;
    }
    return true;
}

static void unmap_files(const TensorCopy *copies, int n, char **mapped) {
    for (int i = 0; i < n; i++) {
        if (!mapped[i]) continue;
        munmap(mapped[i], copies[i].file->bytes);
        for (int k = n - 1; k >= i; k--)
            if (mapped[k] == mapped[i]) mapped[k] = NULL;
    }
}

// Reads all pieces in parallel. Of several errors the one of the first piece is reported, whichever thread met its own
// first.
static bool pieces_read(const Piece *pieces, int64_t n, Error *e) {
    int64_t failed = n;
#pragma omp parallel
    {
        char *buffer = xmalloc((size_t)PIECE * 4);
        Error mine;
#pragma omp for schedule(dynamic)
        for (int64_t i = 0; i < n; i++) {
            if (piece_read(&pieces[i], buffer, &mine)) continue;
#pragma omp critical(safetensors_error)
            if (i < failed) {
                failed = i;
                if (e) *e = mine;
            }
        }
        free(buffer);
    }
    return failed == n;
}

static char *piece_home(const Piece *p) {
    return (char *)p->copy->to.data + (size_t)p->first * dtype_size(p->copy->to.dtype);
}

// Reads all pieces into a device's memory: some are read while those before them are copied to the device.
static bool pieces_upload(Device *d, Piece *pieces, int64_t n, Error *e) {
    enum { TURN = 16 };
    size_t most = (size_t)PIECE * sizeof(float);
    Staging s;
    if (!staging_open(&s, d, TURN * most, e)) return false;
    bool ok = true;
    for (int64_t first = 0; ok && first < n; first += TURN) {
        int64_t count = n - first < TURN ? n - first : TURN;
        char *room = staging_room(&s);
        for (int64_t i = 0; i < count; i++) pieces[first + i].to = room + (size_t)i * most;
        ok = pieces_read(pieces + first, count, e);
        for (int64_t i = first; ok && i < first + count; i++)
            staging_send(&s, piece_home(&pieces[i]), pieces[i].to,
                         (size_t)pieces[i].length * dtype_size(pieces[i].copy->to.dtype));
        staging_turn(&s);
    }
    return staging_close(&s, ok ? e : NULL) && ok;
}

bool safetensors_copy(Device *d, const TensorCopy *copies, int n, int load_mode, Error *e) {
    int64_t n_pieces = 0;
    for (int i = 0; i < n; i++) {
        const FileTensor *from = copies[i].from;
        DType type;
        if (!file_dtype(from, &type))
            return error_set(
                e, EXIT_INPUT,
                "%s: tensor %s at byte %llu: dtype %s; weights must be F32, BF16 or F16: convert the model "
                "(quantised models are not supported)",
                copies[i].file->path, from->name, (unsigned long long)from->begin, from->dtype);
        if (from->numel != (uint64_t)tensor_numel(copies[i].to))
            die("tensor %s: %lld elements wanted of %llu", from->name, (long long)tensor_numel(copies[i].to),
                (unsigned long long)from->numel);
        n_pieces += (tensor_numel(copies[i].to) + PIECE - 1) / PIECE;
    }

    char **mapped = xcalloc((size_t)n, sizeof *mapped);
    Piece *pieces = xcalloc((size_t)n_pieces, sizeof *pieces), *p = pieces;
    bool ok = load_mode != LOAD_MMAP || map_files(copies, n, mapped, e);
    if (ok) {
        for (int i = 0; i < n; i++) {
            int64_t numel = tensor_numel(copies[i].to);
            for (int64_t first = 0; first < numel; first += PIECE)
                *p++ = (Piece){&copies[i], mapped[i], NULL, first, numel - first < PIECE ? numel - first : PIECE};
        }
        if (on_host(d)) {
            for (int64_t i = 0; i < n_pieces; i++) pieces[i].to = piece_home(&pieces[i]);
            ok = pieces_read(pieces, n_pieces, e);
        } else ok = pieces_upload(d, pieces, n_pieces, e);
    }
    unmap_files(copies, n, mapped);
    free(pieces);
    free(mapped);
    return ok;
}
