// Draws the main numbers of runs as an SVG. See picture.h.
#include "picture.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 430, HEIGHT = 190, PLOTS = 4, LEFT = 48, RIGHT = 14, TOP = 30, BOTTOM = 24 };
#define SMOOTH 0.8 // of the moving average

static const struct {
    const char *name, *title;
} numbers[] = {{"reward", "reward"},
               {"lenient_accuracy", "accuracy, lenient"},
               {"completions/mean_length", "length, tokens"},
               {"entropy", "entropy"},
               {"kl", "KL"},
               {"loss", "loss"},
               {"grad_norm", "gradient norm"},
               {"learning_rate", "learning rate"}};
#define NUMBERS ((int)(sizeof numbers / sizeof *numbers))

typedef struct {
    double x0, x1, y0, y1; // steps and values at the plot's edges
    int left, top;         // of its box
} Frame;

static const double *column(const RunLogs *run, const char *name) {
    for (int k = 0; k < run->train.n_columns; k++)
        if (!strcmp(run->train.column[k].name, name)) return run->train.column[k].value;
    return NULL;
}

// Fits the frame's range to the values of a number in all runs; false where no run has any.
static bool frame_fit(Frame *f, const RunLogs *run, int n, const char *name) {
    f->x0 = f->y0 = INFINITY, f->x1 = f->y1 = -INFINITY;
    for (int i = 0; i < n; i++) {
        const double *x = column(&run[i], "step"), *y = column(&run[i], name);
        for (int r = 0; x && y && r < run[i].train.rows; r++) {
            if (!isfinite(x[r]) || !isfinite(y[r])) continue;
            f->x0 = fmin(f->x0, x[r]), f->x1 = fmax(f->x1, x[r]);
            f->y0 = fmin(f->y0, y[r]), f->y1 = fmax(f->y1, y[r]);
        }
    }
    if (!(f->x1 >= f->x0)) return false;
    if (f->x1 == f->x0) f->x1 += 1;
    double room = f->y1 > f->y0 ? 0.05 * (f->y1 - f->y0) : fabs(f->y0) / 10 + 1e-9;
    f->y0 -= room, f->y1 += room;
    return true;
}

static double across(const Frame *f, double x) {
    return f->left + LEFT + (x - f->x0) / (f->x1 - f->x0) * (WIDTH - LEFT - RIGHT);
}
static double up(const Frame *f, double y) {
    return f->top + HEIGHT - BOTTOM - (y - f->y0) / (f->y1 - f->y0) * (HEIGHT - TOP - BOTTOM);
}

// Draws one run's line, leaving out points nearer than half a pixel to the one before.
static void add_line(Str *out, const Frame *f, const RunLogs *run, const char *name, int colour, bool smooth) {
    const double *x = column(run, "step"), *y = column(run, name);
    double sum = 0, mass = 0, last = -1;
    if (!x || !y) return;
    str_printf(out, "<polyline class=\"c%d%s\" points=\"", colour % 4, smooth ? "" : " raw");
    for (int r = 0; r < run->train.rows; r++) {
        if (!isfinite(x[r]) || !isfinite(y[r])) continue;
        sum = SMOOTH * sum + (1 - SMOOTH) * y[r], mass = SMOOTH * mass + (1 - SMOOTH);
        double at = across(f, x[r]);
        if (at - last < 0.5) continue;
        str_printf(out, "%.1f,%.1f ", at, up(f, smooth ? sum / mass : y[r]));
        last = at;
    }
    str_puts(out, "\"/>\n");
}

// The gap between ticks: a round number near a quarter of the range.
static double tick_gap(double range) {
    double base = pow(10, floor(log10(range / 4)));
    return base * (range / 4 <= 1.5 * base ? 1 : range / 4 <= 3.5 * base ? 2 : range / 4 <= 7.5 * base ? 5 : 10);
}

static void add_axes(Str *out, const Frame *f, const char *title) {
    str_printf(out, "<text class=\"title\" x=\"%d\" y=\"%d\">%s</text>\n", f->left + LEFT, f->top + 18, title);
    double gap = tick_gap(f->y1 - f->y0);
    for (double k = ceil(f->y0 / gap); k * gap <= f->y1; k++) {
        double at = up(f, k * gap);
        str_printf(
            out, "<line x1=\"%d\" x2=\"%d\" y1=\"%.1f\" y2=\"%.1f\"/><text class=\"y\" x=\"%d\" y=\"%.1f\">%g</text>\n",
            f->left + LEFT, f->left + WIDTH - RIGHT, at, at, f->left + LEFT - 6, at + 4, k == 0 ? 0 : k * gap);
    }
    gap = fmax(1, tick_gap(f->x1 - f->x0));
    for (double k = ceil(f->x0 / gap); k * gap <= f->x1; k++)
        str_printf(out, "<text class=\"x\" x=\"%.1f\" y=\"%d\">%g</text>\n", across(f, k * gap), f->top + HEIGHT - 6,
                   k * gap);
}

static const char style[] = "<style>rect{fill:#fff}text{font:11px "
                            "system-ui,sans-serif;fill:#5b6470}.title{font-weight:600;font-size:13px;fill:#1b1f24}"
                            ".y{text-anchor:end}.x{text-anchor:middle}line{stroke:#d5dae0}polyline{fill:none;stroke-"
                            "width:1.8;stroke-linejoin:round}"
                            ".raw{stroke-width:1;opacity:.35}.c0{stroke:#0072b2}.c1{stroke:#d55e00;stroke-dasharray:7 "
                            "3}.c2{stroke:#009e73;stroke-dasharray:2 "
                            "3}.c3{stroke:#cc79a7;stroke-dasharray:9 3 2 3}"
                            "@media "
                            "(prefers-color-scheme:dark){rect{fill:#14171b}text{fill:#9aa4af}.title{fill:#e4e8ec}line{"
                            "stroke:#343b44}.c0{stroke:#56b4e9}}"
                            "</style>\n";

void picture_svg(const RunLogs *run, int n, Str *out) {
    Str plots = {0};
    int count = 0;
    for (int k = 0; k < NUMBERS && count < PLOTS; k++) {
        Frame f = {.left = count % 2 * WIDTH, .top = count / 2 * HEIGHT};
        if (!frame_fit(&f, run, n, numbers[k].name)) continue;
        count++;
        add_axes(&plots, &f, numbers[k].title);
        for (int i = 0; i < n; i++) add_line(&plots, &f, &run[i], numbers[k].name, i, false);
        for (int i = 0; i < n; i++) add_line(&plots, &f, &run[i], numbers[k].name, i, true);
    }
    int height = (count + 1) / 2 * HEIGHT;
    str_printf(out,
               "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\">\n%s<rect width=\"%d\" "
               "height=\"%d\"/>\n",
               2 * WIDTH, height, style, 2 * WIDTH, height);
    if (plots.n) str_add(out, plots.s, plots.n);
    str_puts(out, "</svg>\n");
    str_free(&plots);
}
