// The benchmark (bench/README.md). Every figure is printed beside the machine's limit, which the same run's probe
// measured, and beside a peer's figure where one is installed.
#include "bench_model.h"
#include "clock.h"
#include "config.h"
#include "device.h"
#include "program.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void finish(const Bench *b) {
    b->device->sync(b->device);
    if (b->device->error[0]) die("bench: %s", b->device->error);
}

// Calls `calls` times; seconds of one.
static double clocked(const Bench *b, void (*fn)(void *arg, int i), void *arg, int first, int calls) {
    double start = clock_seconds();
    for (int i = 0; i < calls; i++) fn(arg, first + i);
    finish(b);
    return (clock_seconds() - start) / calls;
}

double bench_time(const Bench *b, void (*fn)(void *arg, int i), void *arg) {
    enum { MOST = 200 };
    double t[MOST], all = 0;
    int n = 0;
    if (b->iterations) return clocked(b, fn, arg, 0, b->iterations);
    clocked(b, fn, arg, 0, 1);
    while (n < MOST && (n < 5 || all < 0.4) && (n == 0 || all < 5)) {
        t[n] = clocked(b, fn, arg, n + 1, 1);
        all += t[n++];
    }
    qsort(t, (size_t)n, sizeof *t, ascending);
    return t[n / 2];
}

void bench_time_both(const Bench *b, void (*fn)(void *arg, int i), void *const arg[2], double seconds[2]) {
    enum { MOST = 200 };
    double t[2][MOST], all = 0;
    int n = 0;
    if (!b->iterations) clocked(b, fn, arg[1], 0, 1);
    for (; n < MOST && (b->iterations ? n < b->iterations : (n < 5 || all < 0.8) && (n == 0 || all < 10)); n++)
        for (int k = 0; k < 2; k++) all += t[k][n] = clocked(b, fn, arg[k], n + 1, 1);
    for (int k = 0; k < 2; k++) {
        qsort(t[k], (size_t)n, sizeof **t, ascending);
        seconds[k] = t[k][n / 2];
    }
}

typedef struct {
    Device *device;
    Graph *graph;
} Recorded;
static void run_recorded(void *arg, int i) {
    Recorded *r = arg;
    r->device->graph_run(r->device, r->graph);
}

double bench_time_ops(const Bench *b, void (*fn)(void *arg, int i), void *arg) {
    Device *d = b->device;
    if (!b->gpu || b->iterations) return bench_time(b, fn, arg);
    clocked(b, fn, arg, 0, 1);
    // Enough calls that launching the graph and waiting for it, some ten microseconds, do not count.
    double once = clocked(b, fn, arg, 0, 16);
    int calls = once > 1e-3 ? 4 : once > 1e-4 ? 32 : 256;
    d->graph_begin(d);
    for (int i = 0; i < calls; i++) fn(arg, i);
    Recorded r = {d, d->graph_end(d)};
    finish(b);
    double seconds = bench_time(b, run_recorded, &r) / calls;
    d->graph_free(d, r.graph);
    return seconds;
}

// Resets the peak of the process's memory (VmHWM) to what it holds now: that is what writing 5 to clear_refs does.
void peak_memory_reset(void) {
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (!f) return;
    fputs("5", f);
    fclose(f);
}

double peak_memory(void) {
    FILE *f = fopen("/proc/self/status", "r");
    char line[256];
    long kib = 0;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %ld", &kib) == 1) break;
    if (f) fclose(f);
    return (double)kib / (1 << 20);
}

// ---- peers -----------------------------------------------------------------------------------------------------------
typedef struct {
    char name[64];
    double value;
} PeerValue;
static PeerValue *peers;
static int n_peers;

double peer_value(const char *name) {
    for (int i = n_peers - 1; i >= 0; i--)
        if (!strcmp(peers[i].name, name)) return peers[i].value;
    return NAN;
}

void peer_run(const Bench *b, const char *script, const char *section) {
    if (!b->peers || b->only) return;
    const char *python = getenv("PYTHON");
    char *command = xasprintf("%s bench/peers/%s %s", python ? python : "python3", script, section);
    FILE *f = popen(command, "r");
    char line[256], reason[256] = "";
    int before = n_peers;
    bool noted = false;
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *tab = strchr(line, '\t');
        if (!strncmp(line, "SKIP ", 5)) snprintf(reason, sizeof reason, "%s", line + 5);
        if (!strncmp(line, "NOTE ", 5)) printf("%s\n", line + 5), noted = true;
        if (!tab || tab - line >= (ptrdiff_t)sizeof peers->name) continue;
        *tab = 0;
        peers = xrealloc(peers, (size_t)(n_peers + 1) * sizeof *peers);
        memcpy(peers[n_peers].name, line, (size_t)(tab - line) + 1);
        peers[n_peers++].value = strtod(tab + 1, NULL);
    }
    if (f) pclose(f);
    if (n_peers == before && !noted) printf("SKIP %s: %s\n", script, *reason ? reason : "no python3, or it failed");
    free(command);
}

// ---- the table -------------------------------------------------------------------------------------------------------
void bench_section(const Bench *b, const char *title) {
    if (b->floors) printf("%s\n", title);
    else printf("\n%-46s %23s %9s %12s %7s\n", title, "", "of limit", "peer", "ratio");
    fflush(stdout);
}

static int wanted; // rows so far
bool bench_wants(const Bench *b, const char *name) {
    bool wants = !b->only || strstr(name, b->only);
    wanted += wants;
    return wants;
}

// A field of a CSV file, quoted where it needs it.
static void put_field(FILE *f, const char *text) {
    bool quote = strpbrk(text, ",\"\n") != NULL;
    if (quote) fputc('"', f);
    for (; *text; text++) {
        if (*text == '"') fputc('"', f);
        fputc(*text, f);
    }
    if (quote) fputc('"', f);
}

static void put_csv(const Bench *b, const char *name, double value, const char *unit, double limit, double share,
                    double peer) {
    const double figure[] = {limit > 0 ? limit : NAN, 100 * share, peer};
    put_field(b->csv, name);
    fprintf(b->csv, ",%.6g,%s", value, unit);
    for (int i = 0; i < 3; i++) {
        fputc(',', b->csv);
        if (!isnan(figure[i])) fprintf(b->csv, i == 1 ? "%.1f" : "%.6g", figure[i]);
    }
    for (int i = 0; i < 4; i++) {
        fputc(',', b->csv);
        put_field(b->csv, b->origin[i]);
    }
    fprintf(b->csv, ",%s\n", b->date);
    fflush(b->csv);
}

static void put_row(Bench *b, const char *name, double value, const char *unit, double limit, double share,
                    double better, double must) {
    double peer = peer_value(name);
    bool low = must > 0 && !(share >= must);
    if (b->iterations) {
        printf("%-46s ran, not measured\n", name);
        return;
    }
    printf("%-46s %12.*f %-10s", name, value < 10 ? 3 : value < 1000 ? 1 : 0, value, unit);
    if (isnan(share)) printf(" %9s", "");
    else printf(" %8.0f%%", 100 * share);
    double predicted = b->gpu ? predicted_share(name) : NAN;
    if (!isnan(predicted)) printf(" (%.0f%% expected)", 100 * predicted);
    if (!isnan(peer))
        printf(" %12.*f %6.2fx", peer < 10 ? 3 : peer < 1000 ? 1 : 0, peer, better > 0 ? value / peer : peer / value);
    if (low) printf("  FAILED: below %.0f%%", 100 * must);
    putchar('\n');
    fflush(stdout);
    b->failed |= low;
    if (b->csv) put_csv(b, name, value, unit, limit, share, peer);
}

void bench_row(Bench *b, const char *name, double value, const char *unit, double limit, double must) {
    put_row(b, name, value, unit, limit, limit > 0 ? value / limit : NAN, 1, must);
}
void bench_row_time(Bench *b, const char *name, double value, const char *unit, double limit) {
    put_row(b, name, value, unit, limit, limit > 0 ? limit / value : NAN, -1, 0);
}

static void print_probe(Bench *b, const Probe *p) {
    if (b->gpu) {
        printf("probe: %s\n", b->device->about);
        bench_row(b, "device-to-device copy, read + written", p->read, "GB/s", 0, 0);
        bench_row(b, "f32 product, 4096 cubed", p->f32, "GFLOP/s", 0, 0);
        bench_row(b, "bf16 product, 8192 cubed", p->bf16, "GFLOP/s", 0, 0);
        return;
    }
    printf("probe: %d thread%s, best of several passes\n", p->threads, p->threads == 1 ? "" : "s");
    bench_row(b, "streaming read", p->read, "GB/s", 0, 0);
    bench_row(b, "f32 multiply-adds on registers", p->f32, "GFLOP/s", 0, 0);
    char name[64];
    snprintf(name, sizeof name, "bf16 %s on registers", p->bf16_unit ? p->bf16_unit : "");
    if (p->bf16_unit) bench_row(b, name, p->bf16, "GFLOP/s", 0, 0);
    else printf("this CPU multiplies no bf16: it is held against f32's figure\n");
}

static const struct {
    const char *name;
    void (*run)(Bench *b);
    const char *help;
} parts[] = {
    {"products", bench_products, "matrix products of the 0.5B model"},
    {"ops", bench_ops, "every op of the case table"},
    {"train", bench_train, "prefill, training and AdamW, tiny and 0.5B"},
    {"groups", bench_groups, "training with a group's prompt computed once, and without"},
    {"long", bench_long, "training on completions of 512 to 16,384 tokens"},
    {"rollout", bench_rollout, "decoding with sampling, tiny and 0.5B"},
    {"step", bench_step, "whole GRPO steps of the recipe (GPU)"},
    {"contract", bench_contract, "sampled against trained log-probs, bit by bit"},
    {"host", bench_host, "tokenizer, rewards, loading"},
    {"floor", bench_floor, "what each GPU kernel must take on an H100 and an H200, and is expected to; needs no GPU"},
};
enum { PARTS = sizeof parts / sizeof *parts };

static int usage(void) {
    fprintf(stderr, "usage: bench [OPTION...] [PART...]\n"
                    "  --device cpu|cuda|auto  what to measure (auto: a GPU where one answers)\n"
                    "  --csv FILE              the rows as CSV, with device, driver, toolkit, commit and date\n"
                    "  --op TEXT               only rows whose name has this\n"
                    "  --models LIST           of 0.5b,1.5b,7b (default 0.5b): shapes for train, rollout and step\n"
                    "  --iterations N          run everything N times and measure nothing: for a profiler\n"
                    "  --tokens N              of contract (default 2000; a million on a GPU)\n"
                    "  --no-peers              leave Python out\n"
                    "parts, in the order named (default: all but floor, as here):\n");
    for (int i = 0; i < PARTS; i++) fprintf(stderr, "  %-10s %s\n", parts[i].name, parts[i].help);
    return EXIT_CONFIG;
}

// The first line of a file or of a command's output that begins with `prefix`, without it; heap. NULL: none.
static char *line_of(FILE *f, const char *prefix, int (*close)(FILE *f)) {
    char line[512], *found = NULL;
    while (f && !found && fgets(line, sizeof line, f))
        if (!strncmp(line, prefix, strlen(prefix)))
            found = xstrndup(line + strlen(prefix), strcspn(line + strlen(prefix), "\n"));
    if (f) close(f);
    return found;
}
static const char *or_unknown(const char *text) { return text ? text : "unknown"; }

static char *found[3]; // what origin points to

// Prints where and when the figures were measured: device, driver, toolkit, commit.
static void find_origin(Bench *b) {
    char *commit =
        line_of(popen("git describe --always --dirty 2>/dev/null || echo \"$GRPO_COMMIT\"", "r"), "", pclose);
    char *cpu = line_of(fopen("/proc/cpuinfo", "r"), "model name", fclose);
    char *driver = line_of(
        popen("sed -n 's/.*  \\([0-9][0-9.]*\\)  .*/\\1/p' /proc/driver/nvidia/version 2>/dev/null", "r"), "", pclose);
    const char *toolkit = strstr(b->device->about, "CUDA ");
    b->origin[0] = b->gpu ? b->device->about : cpu ? cpu + strspn(cpu, "\t :") : "unknown";
    b->origin[1] = b->gpu ? or_unknown(driver) : b->device->numerics;
    b->origin[2] = b->gpu ? or_unknown(toolkit) : __VERSION__;
    b->origin[3] = or_unknown(commit);
    time_t now = time(NULL);
    strftime(b->date, sizeof b->date, "%Y-%m-%d", gmtime(&now));
    printf("commit %s, %s, %s\n", b->origin[3], b->origin[0], b->date);
    if (!b->gpu) printf("%s\n", b->device->about);
    double load[1];
    if (!b->gpu && getloadavg(load, 1) == 1 && load[0] > 0.5)
        printf("other programs are running (load %.1f): times come out too long\n", load[0]);
    if (b->csv) fprintf(b->csv, "name,value,unit,limit,percent,peer,device,driver,toolkit,commit,date\n");
    found[0] = commit, found[1] = cpu, found[2] = driver;
}

static int device_choice(const char *name) {
    static const char *const names[] = {"auto", "cpu", "cuda"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, names[i])) return i; // DEVICE_AUTO, DEVICE_CPU, DEVICE_CUDA
    return -1;
}

static Probe probe(const Bench *b) { return b->gpu ? probe_device(b) : b->iterations ? (Probe){0} : probe_run(); }

int main(int argc, char **argv) {
    Error e = {0};
    if (!program_begin(argv, &e)) return program_end("bench", e.code, &e);
    Bench b = {.peers = true, .size = "0.5b"};
    int chosen[PARTS], n_chosen = 0;
    int device = DEVICE_AUTO;
    for (int i = 1; i < argc; i++) {
        int part = 0;
        bool more = i + 1 < argc;
        if (!strcmp(argv[i], "--no-peers")) b.peers = false;
        else if (!strcmp(argv[i], "--op") && more) b.only = argv[++i];
        else if (!strcmp(argv[i], "--models") && more && shapes_known(argv[i + 1])) b.size = argv[++i];
        else if (!strcmp(argv[i], "--iterations") && more && atoi(argv[i + 1]) > 0) b.iterations = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--tokens") && more && atoll(argv[i + 1]) > 0) b.tokens = atoll(argv[++i]);
        else if (!strcmp(argv[i], "--device") && more && device_choice(argv[i + 1]) >= 0)
            device = device_choice(argv[++i]);
        else if (!strcmp(argv[i], "--csv") && more) {
            b.csv = fopen(argv[++i], "w");
            if (!b.csv) {
                perror(argv[i]);
                return EXIT_DISK;
            }
        } else {
            while (part < PARTS && strcmp(argv[i], parts[part].name) != 0) part++;
            if (part == PARTS) return usage();
            int known = 0;
            while (known < n_chosen && chosen[known] != part) known++;
            if (known == n_chosen) chosen[n_chosen++] = part;
        }
    }
    enum { FLOOR = PARTS - 1 };
    int measured = 0; // floor first, as it needs no device; then there may be nothing left
    for (int i = 0; i < n_chosen; i++)
        if (chosen[i] == FLOOR) parts[FLOOR].run(&b);
        else chosen[measured++] = chosen[i];
    if (n_chosen && !measured) return program_end("bench", program_flush(EXIT_OK, &e), &e);
    for (; !n_chosen && measured < FLOOR; measured++) chosen[measured] = measured;
    b.device = device_open(device, 0, 0, CPU_ISA_AUTO, &e);
    if (!b.device) return program_end("bench", e.code, &e);
    b.gpu = !strcmp(b.device->name, "cuda");
    if (b.iterations) b.peers = false;
    find_origin(&b);
    b.probe = probe(&b);
    if (!b.iterations) print_probe(&b, &b.probe);
    for (int i = 0; i < measured; i++) parts[chosen[i]].run(&b);
    if (b.only && !wanted) {
        fprintf(stderr, "bench: error: no row of these parts has `%s` in its name\n", b.only);
        b.failed = true;
    }

    // If the machine became slower or faster meanwhile, the shares of the limit are wrong: say so.
    Probe again = probe(&b);
    if (!b.iterations)
        printf("\nthe probe at the end, in %% of the first: %s %.0f, f32 %.0f, bf16 %.0f\n", b.gpu ? "copy" : "read",
               100 * again.read / b.probe.read, 100 * again.f32 / b.probe.f32, 100 * again.bf16 / b.probe.bf16);
    if (b.csv) fclose(b.csv);
    device_close(b.device);
    for (int i = 0; i < 3; i++) free(found[i]);
    free(peers);
    return program_end("bench", program_flush(b.failed ? EXIT_NUMERIC : EXIT_OK, &e), &e);
}
