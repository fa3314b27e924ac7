// Reads the JSON lines of a data file for a test.
#pragma once
#include "data.h"
#include "json.h"
#include "jsonl.h"

// Calls use(line, its number from 1) for each JSON line of a data file; returns how many there were.
static inline int each_line(const char *test, const char *name, void (*use)(const json_t *line, int64_t number)) {
    LineReader reader;
    Error e = {0};
    char *text;
    size_t n;
    int got, lines = 0;
    assert_true(line_reader_open(&reader, data_path(test, name), &e));
    for (; (got = line_reader_next(&reader, &text, &n, &e)) > 0; lines++) {
        json_t *j = json_parse(text, n, reader.path, &e);
        assert_non_null(j);
        use(j, reader.line);
        json_decref(j);
    }
    assert_int_equal(got, 0);
    line_reader_close(&reader);
    return lines;
}
