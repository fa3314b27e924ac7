// The numbers of metrics.jsonl in columns. See curves.h.
//
// Whenever the cells exceed their limit, every other row is dropped and from then on half as many lines are read. So
// rows stay evenly spaced whatever the length of the log, and no line is read twice.
#include "curves.h"
#include "json.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

Curves curves_new(int cells) { return (Curves){.cells = cells, .stride = 1}; }

void curves_free(Curves *c) {
    for (int k = 0; k < c->n_columns; k++) {
        free(c->column[k].name);
        free(c->column[k].value);
    }
    free(c->column);
    str_free(&c->last);
    *c = (Curves){0};
}

// Finds the column `name`, or makes it; NULL where no more fit. A log's lines have their numbers in the same order, so
// the search begins behind the column that was found last (*hint).
static Column *column_of(Curves *c, const char *name, int *hint) {
    for (int i = 0; i < c->n_columns; i++) {
        int k = (*hint + i) % c->n_columns;
        if (strcmp(c->column[k].name, name)) continue;
        *hint = k + 1;
        return &c->column[k];
    }
    if (c->n_columns == MAX_COLUMNS) return NULL;
    c->column = xrealloc(c->column, (size_t)(c->n_columns + 1) * sizeof *c->column);
    Column *new = &c->column[c->n_columns++];
    *new = (Column){xstrdup(name), xmalloc((size_t)c->cap * sizeof(double))};
    for (int r = 0; r < c->cap; r++) new->value[r] = NAN;
    return new;
}

static void row_add(Curves *c, const char *line, size_t n) {
    json_t *object = json_parse(line, n, "", NULL), *value;
    if (!json_is_object(object)) {
        c->torn++;
        json_decref(object);
        return;
    }
    if (c->rows == c->cap) {
        c->cap = c->cap ? 2 * c->cap : 64;
        for (int k = 0; k < c->n_columns; k++) {
            double *v = c->column[k].value = xrealloc(c->column[k].value, (size_t)c->cap * sizeof *v);
            for (int r = c->rows; r < c->cap; r++) v[r] = NAN;
        }
    }
    int hint = 0;
    const char *name;
    json_object_foreach(object, name, value) {
        if (!json_is_number(value)) continue;
        Column *column = column_of(c, name, &hint);
        if (column) column->value[c->rows] = json_number_value(value);
        else c->unnamed++;
    }
    c->rows++;
    json_decref(object);
}

static void thin(Curves *c) {
    int left = (c->rows + 1) / 2;
    for (int k = 0; k < c->n_columns; k++) {
        double *v = c->column[k].value;
        for (int r = 0; r < left; r++) v[r] = v[2 * r];
        for (int r = left; r < c->rows; r++) v[r] = NAN;
    }
    c->rows = left;
    c->stride *= 2;
}

void curves_show(Curves *c) {
    if (c->shown || !c->last.n) return;
    c->torn_before = c->torn, c->unnamed_before = c->unnamed;
    int rows = c->rows;
    row_add(c, c->last.s, c->last.n);
    c->shown = c->rows > rows;
}

static void hide(Curves *c) {
    if (!c->shown) return;
    c->rows--;
    for (int k = 0; k < c->n_columns; k++) c->column[k].value[c->rows] = NAN;
    c->torn = c->torn_before, c->unnamed = c->unnamed_before;
    c->shown = false;
}

void curves_add(Curves *c, const char *line, size_t n) {
    hide(c);
    bool wanted = c->seen++ % c->stride == 0;
    str_clear(&c->last);
    if (!wanted) return str_add(&c->last, line, n);
    row_add(c, line, n);
    while (c->rows > 2 && c->rows * c->n_columns > c->cells) thin(c);
}

static void add_number(Str *s, double x) {
    char text[40];
    if (!isfinite(x)) return str_puts(s, "null");
    snprintf(text, sizeof text, "%.9g", x); // as the log has f32; the rest needs all digits
    if (strtod(text, NULL) != x) snprintf(text, sizeof text, "%.17g", x);
    str_puts(s, text);
}

void curves_json(Curves *c, Str *out) {
    curves_show(c);
    str_printf(out, "{\"seen\": %lld, \"stride\": %lld, \"torn\": %lld, \"unnamed\": %lld, \"columns\": {",
               (long long)c->seen, (long long)c->stride, (long long)c->torn, (long long)c->unnamed);
    for (int k = 0; k < c->n_columns; k++) {
        if (k) str_puts(out, ",");
        str_puts(out, "\n");
        str_json(out, c->column[k].name, strlen(c->column[k].name));
        str_puts(out, ": [");
        for (int r = 0; r < c->rows; r++) {
            if (r) str_puts(out, ",");
            add_number(out, c->column[k].value[r]);
        }
        str_puts(out, "]");
    }
    str_puts(out, "}}");
}
