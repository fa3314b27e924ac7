// safetensors files: the header, checked to the last byte. Reading values is in safetensors_copy.c.
#include "file.h"
#include "json.h"
#include "safetensors.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <stdio.h>

static const uint64_t header_limit = 100000000; // bytes; the format's own limit

// Bits of one element, by the format's names; 0 for a name it does not have.
static int dtype_bits(const char *name) {
    static const struct {
        const char *name;
        int bits;
    } types[] = {{"BOOL", 8},        {"U8", 8},      {"I8", 8},    {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E5M2FNUZ", 8},
                 {"F8_E4M3FNUZ", 8}, {"F8_E8M0", 8}, {"F4", 4},    {"F6_E2M3", 6}, {"F6_E3M2", 6}, {"I16", 16},
                 {"U16", 16},        {"F16", 16},    {"BF16", 16}, {"I32", 32},    {"U32", 32},    {"F32", 32},
                 {"I64", 64},        {"U64", 64},    {"F64", 64},  {"C64", 64}};
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (!strcmp(name, types[i].name)) return types[i].bits;
    return 0;
}

// Reads `length` bytes at `offset`; false where the file has fewer or reading fails.
static bool read_at(const SafeTensors *s, void *to, size_t length, uint64_t offset, Error *e) {
    for (size_t done = 0; done < length;) {
        ssize_t got = pread(s->fd, (char *)to + done, length - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0)
            return error_set(e, EXIT_DISK, "%s: cannot read at byte %llu: %s", s->path,
                             (unsigned long long)(offset + done), got ? strerror(errno) : "the file ends there");
        done += (size_t)got;
    }
    return true;
}

static bool tensor_error(const SafeTensors *s, const char *name, uint64_t at, const char *why, Error *e) {
    Str shown = {0}; // a name comes from the file and may hold anything
    str_json(&shown, name, strlen(name));
    error_set(e, EXIT_INPUT, "%s: tensor %.200s at byte %llu: %s; the file is damaged or not safetensors", s->path,
              shown.s, (unsigned long long)at, why);
    str_free(&shown);
    return false;
}

// Reads a count or an offset of the header, a JSON integer >= 0.
static bool count_of(const json_t *j, uint64_t *out) {
    if (!json_is_integer(j) || json_integer_value(j) < 0) return false;
    *out = (uint64_t)json_integer_value(j);
    return true;
}

// Reads one entry of the header. `data` is the byte where tensors begin.
static bool entry_read(const SafeTensors *s, FileTensor *t, const char *name, const json_t *entry, uint64_t data,
                       Error *e) {
    const json_t *dtype = json_object_get(entry, "dtype"), *shape = json_object_get(entry, "shape"),
                 *offsets = json_object_get(entry, "data_offsets");
    if (!json_is_object(entry)) return tensor_error(s, name, 8, "its entry is not a JSON object", e);
    if (!json_text(dtype)) return tensor_error(s, name, 8, "\"dtype\" is missing or not a string", e);
    if (!json_is_array(shape)) return tensor_error(s, name, 8, "\"shape\" is missing or not a list", e);
    if (!json_is_array(offsets) || json_array_size(offsets) != 2)
        return tensor_error(s, name, 8, "\"data_offsets\" is missing or not a list of two numbers", e);

    int bits = dtype_bits(json_text(dtype));
    if (!bits) return tensor_error(s, name, 8, "a dtype that the format does not have", e);
    *t = (FileTensor){.name = xstrdup(name), .ndim = (int)json_array_size(shape), .numel = 1};
    snprintf(t->dtype, sizeof t->dtype, "%s", json_text(dtype));
    t->dim = xcalloc((size_t)t->ndim, sizeof *t->dim);
    for (int i = 0; i < t->ndim; i++) {
        if (!count_of(json_array_get(shape, (size_t)i), &t->dim[i]))
            return tensor_error(s, name, 8, "a dimension is not a whole number >= 0", e);
        if (__builtin_mul_overflow(t->numel, t->dim[i], &t->numel))
            return tensor_error(s, name, 8, "its shape has more than 2^64 elements", e);
    }

    uint64_t begin, end, total;
    if (!count_of(json_array_get(offsets, 0), &begin) || !count_of(json_array_get(offsets, 1), &end))
        return tensor_error(s, name, 8, "an offset is not a whole number >= 0", e);
    if (end < begin) return tensor_error(s, name, 8, "it ends before it begins", e);
    if (__builtin_mul_overflow(t->numel, (uint64_t)bits, &total))
        return tensor_error(s, name, 8, "its shape has more than 2^64 bits", e);
    if (total % 8) return tensor_error(s, name, 8, "its elements do not fill whole bytes", e);
    if (__builtin_add_overflow(data, begin, &t->begin) || __builtin_add_overflow(data, end, &t->end))
        return tensor_error(s, name, 8, "its offsets are past 2^64", e);
    if (end - begin != total / 8)
        return tensor_error(s, name, t->begin, "its bytes are more or fewer than its shape and dtype need", e);
    return true;
}

static int by_bytes(const void *a, const void *b) {
    const FileTensor *x = a, *y = b;
    if (x->begin != y->begin) return x->begin < y->begin ? -1 : 1;
    return x->end < y->end ? -1 : x->end > y->end;
}

static bool metadata_check(const SafeTensors *s, json_t *metadata, Error *e) {
    if (!metadata || json_is_null(metadata)) return true;
    if (!json_is_object(metadata)) return tensor_error(s, "__metadata__", 8, "not a JSON object", e);
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value) if (!json_is_written_string(value)) return tensor_error(
        s, "__metadata__", 8, "a value is not a string", e);
    return true;
}

static bool header_read(SafeTensors *s, json_t *header, uint64_t data, Error *e) {
    if (!json_is_object(header))
        return error_set(e, EXIT_INPUT, "%s: header at byte 8: not a JSON object; not a safetensors file", s->path);
    if (!metadata_check(s, json_object_get(header, "__metadata__"), e)) return false;
    s->metadata = json_incref(json_object_get(header, "__metadata__"));
    s->tensor = xcalloc(json_object_size(header), sizeof *s->tensor);
    const char *name;
    json_t *entry;
    json_object_foreach(header, name, entry) {
        if (!strcmp(name, "__metadata__")) continue;
        if (!entry_read(s, &s->tensor[s->n++], name, entry, data, e)) return false;
    }

    qsort(s->tensor, (size_t)s->n, sizeof *s->tensor, by_bytes);
    uint64_t at = data;
    s->index = json_object();
    for (int i = 0; i < s->n; i++) {
        const FileTensor *t = &s->tensor[i];
        if (t->begin < at) return tensor_error(s, t->name, t->begin, "it overlaps the tensor before it", e);
        if (t->begin > at) return tensor_error(s, t->name, at, "a hole lies before it", e);
        if (t->end > s->bytes) return tensor_error(s, t->name, s->bytes, "the file ends before the tensor does", e);
        at = t->end;
        json_object_set_new(s->index, t->name, json_integer(i));
    }
    if (at != s->bytes)
        return error_set(e, EXIT_INPUT,
                         "%s: byte %llu: the tensors end here but the file has %llu bytes; it is damaged", s->path,
                         (unsigned long long)at, (unsigned long long)s->bytes);
    return true;
}

// Fills *e with what the file is, if it is of another kind that is known; false if it is not.
static bool foreign(const SafeTensors *s, Error *e) {
    char head[FILE_HEAD];
    size_t n = s->bytes < sizeof head ? (size_t)s->bytes : sizeof head;
    return read_at(s, head, n, 0, NULL) && file_foreign(s->path, head, n, e);
}

static bool file_check(SafeTensors *s, Error *e) {
    struct stat st;
    if (fstat(s->fd, &st)) return error_set(e, EXIT_DISK, "%s: cannot read: %s", s->path, strerror(errno));
    s->bytes = (uint64_t)st.st_size;
    uint64_t length; // little-endian in the file, as on every machine this runs on
    if (s->bytes < 8)
        return error_set(e, EXIT_INPUT,
                         "%s: byte %llu: the file ends inside the 8 bytes of header length; it is damaged", s->path,
                         (unsigned long long)s->bytes);
    if (!read_at(s, &length, 8, 0, e)) return false;
    bool possible = length <= header_limit && length <= s->bytes - 8;
    if (!possible && foreign(s, e)) return false;
    if (!possible)
        return error_set(
            e, EXIT_INPUT,
            "%s: byte 0: a header of %llu bytes, but the file has %llu more and the format allows %llu; it is "
            "damaged or not a safetensors file",
            s->path, (unsigned long long)length, (unsigned long long)(s->bytes - 8), (unsigned long long)header_limit);

    char *text = xmalloc(length);
    char *where = xasprintf("%s: header at byte 8", s->path);
    json_t *header = read_at(s, text, length, 8, e) ? json_parse_unique(text, length, where, e) : NULL;
    bool ok = header && header_read(s, header, 8 + length, e);
    json_decref(header);
    free(where);
    free(text);
    return ok;
}

bool safetensors_open(SafeTensors *s, const char *path, Error *e) {
    *s = (SafeTensors){.path = xstrdup(path)};
    s->fd = file_open(path, e);
    bool ok = s->fd >= 0 && file_check(s, e);
    if (!ok) safetensors_close(s);
    return ok;
}

void safetensors_close(SafeTensors *s) {
    if (s->fd >= 0) close(s->fd);
    for (int i = 0; i < s->n; i++) {
        free(s->tensor[i].name);
        free(s->tensor[i].dim);
    }
    free(s->tensor);
    free(s->path);
    json_decref(s->index);
    json_decref(s->metadata);
    *s = (SafeTensors){.fd = -1};
}

const FileTensor *safetensors_find(const SafeTensors *s, const char *name) {
    const json_t *i = json_object_get(s->index, name);
    return i ? &s->tensor[json_integer_value(i)] : NULL;
}

void safetensors_header(Str *out, const Param *params, int n, const char *key, const char *value) {
    Str json = {0};
    str_puts(&json, "{\"__metadata__\":{\"format\":\"pt\"");
    if (key) str_printf(&json, ",\"%s\":\"%s\"", key, value);
    str_puts(&json, "}");
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        Tensor t = params[i].t;
        str_printf(&json, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", params[i].name, t.dtype == F32 ? "F32" : "BF16");
        for (int k = 0; k < t.ndim; k++) str_printf(&json, k ? ",%lld" : "%lld", (long long)t.dim[k]);
        str_printf(&json, "],\"data_offsets\":[%zu,%zu]}", at, at + tensor_bytes(t));
        at += tensor_bytes(t);
    }
    str_puts(&json, "}");
    while (json.n % 8) str_puts(&json, " "); // the data begin at a multiple of 8 bytes
    uint64_t length = json.n;
    str_add(out, (const char *)&length, 8);
    str_add(out, json.s, json.n);
    str_free(&json);
}
