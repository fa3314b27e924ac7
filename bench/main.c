// The benchmark: bench [--csv FILE] [--no-peers] [--op NAME] [PART...]. Every figure stands beside what the same run's
// probe says the machine can do, and beside a peer where one is installed.
#include "bench.h"
#include "str.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

double clock_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_time(void (*fn)(void *arg, int i), void *arg) {
    enum { MOST = 200 };
    double t[MOST], all = 0;
    int n = 0;
    fn(arg, 0);
    while (n < MOST && (n < 5 || all < 0.4) && (n == 0 || all < 5)) {
        double start = clock_seconds();
        fn(arg, n + 1);
        t[n] = clock_seconds() - start;
        all += t[n++];
    }
    qsort(t, (size_t)n, sizeof *t, ascending);
    return t[n / 2];
}

// The kernel keeps the mark (VmHWM); writing 5 to clear_refs lowers it to what is held now.
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
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *tab = strchr(line, '\t');
        if (!strncmp(line, "SKIP ", 5)) snprintf(reason, sizeof reason, "%s", line + 5);
        if (!tab || tab - line >= (ptrdiff_t)sizeof peers->name) continue;
        *tab = 0;
        peers = xrealloc(peers, (size_t)(n_peers + 1) * sizeof *peers);
        memcpy(peers[n_peers].name, line, (size_t)(tab - line) + 1);
        peers[n_peers++].value = strtod(tab + 1, NULL);
    }
    if (f) pclose(f);
    if (n_peers == before) printf("SKIP %s: %s\n", script, *reason ? reason : "no python3, or it failed");
    free(command);
}

// ---- the table -------------------------------------------------------------------------------------------------------
void bench_section(const char *title) {
    printf("\n%-46s %23s %9s %12s %7s\n", title, "", "of limit", "peer", "ratio");
    fflush(stdout);
}

bool bench_wants(const Bench *b, const char *name) { return !b->only || strstr(name, b->only); }

void bench_row(Bench *b, const char *name, double value, const char *unit, double limit, double must) {
    double peer = peer_value(name), share = limit > 0 ? value / limit : NAN;
    bool low = must > 0 && !(share >= must);
    printf("%-46s %12.*f %-10s", name, value < 10 ? 3 : value < 1000 ? 1 : 0, value, unit);
    if (isnan(share)) printf(" %9s", "");
    else printf(" %8.0f%%", 100 * share);
    if (!isnan(peer)) printf(" %12.*f %6.2fx", peer < 10 ? 3 : peer < 1000 ? 1 : 0, peer, value / peer);
    if (low) printf("  FAILED: below %.0f%%", 100 * must);
    putchar('\n');
    fflush(stdout);
    b->failed |= low;
    if (!b->csv) return;
    fprintf(b->csv, "%s,%.6g,%s,", name, value, unit);
    if (limit > 0) fprintf(b->csv, "%.6g", limit);
    fputc(',', b->csv);
    if (!isnan(peer)) fprintf(b->csv, "%.6g", peer);
    fputc('\n', b->csv);
}

static void print_probe(Bench *b, const Probe *p) {
    printf("probe: %d thread%s, best of several passes\n", p->threads, p->threads == 1 ? "" : "s");
    bench_row(b, "streaming read", p->read, "GB/s", 0, 0);
    bench_row(b, "f32 multiply-adds on registers", p->f32, "GFLOP/s", 0, 0);
#if defined(__AVX512BF16__)
    bench_row(b, "bf16 dot products on registers", p->bf16, "GFLOP/s", 0, 0);
#else
    printf("no bf16 dot product on this CPU: bf16 is held against f32's figure\n");
#endif
}

static const struct {
    const char *name;
    void (*run)(Bench *b);
    const char *help;
} parts[] = {
    {"products", bench_products, "matrix products of the 0.5B model"},
    {"ops", bench_ops, "every op of the case table"},
    {"train", bench_train, "prefill, training and AdamW, tiny and 0.5B"},
    {"rollout", bench_rollout, "decoding with sampling, tiny and 0.5B"},
    {"host", bench_host, "tokenizer, rewards, loading"},
};
enum { PARTS = sizeof parts / sizeof *parts };

static int usage(void) {
    fprintf(stderr, "usage: bench [--csv FILE] [--no-peers] [--op NAME] [PART...]\nparts (default: all):\n");
    for (int i = 0; i < PARTS; i++) fprintf(stderr, "  %-10s %s\n", parts[i].name, parts[i].help);
    return EXIT_CONFIG;
}

// Where and when these figures were taken.
static void print_origin(FILE *csv) {
    char commit[64] = "unknown", cpu[128] = "unknown", line[256], date[32];
    FILE *f = popen("git describe --always --dirty 2>/dev/null", "r");
    if (f && fgets(line, sizeof line, f)) snprintf(commit, sizeof commit, "%.*s", (int)strcspn(line, "\n"), line);
    if (f) pclose(f);
    f = fopen("/proc/cpuinfo", "r");
    while (f && fgets(line, sizeof line, f)) {
        char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) || !colon) continue;
        snprintf(cpu, sizeof cpu, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (f) fclose(f);
    time_t now = time(NULL);
    strftime(date, sizeof date, "%Y-%m-%d", gmtime(&now));
    printf("commit %s, %s, %s\n", commit, cpu, date);
    double load[1];
    if (getloadavg(load, 1) == 1 && load[0] > 0.5)
        printf("other programs are running (load %.1f): times come out too long\n", load[0]);
    if (csv) fprintf(csv, "# commit %s, %s, %s\nname,value,unit,limit,peer\n", commit, cpu, date);
}

int main(int argc, char **argv) {
    Bench b = {.peers = true};
    bool chosen[PARTS] = {0}, any = false;
    for (int i = 1; i < argc; i++) {
        int part = 0;
        if (!strcmp(argv[i], "--no-peers")) b.peers = false;
        else if (!strcmp(argv[i], "--op") && i + 1 < argc) b.only = argv[++i];
        else if (!strcmp(argv[i], "--csv") && i + 1 < argc) {
            b.csv = fopen(argv[++i], "w");
            if (!b.csv) {
                perror(argv[i]);
                return EXIT_DISK;
            }
        } else {
            while (part < PARTS && strcmp(argv[i], parts[part].name) != 0) part++;
            if (part == PARTS) return usage();
            chosen[part] = any = true;
        }
    }
    print_origin(b.csv);
    b.probe = probe_run();
    print_probe(&b, &b.probe);
    for (int i = 0; i < PARTS; i++)
        if (!any || chosen[i]) parts[i].run(&b);

    // A machine that became slower or faster meanwhile makes the shares wrong: say so.
    Probe again = probe_run();
    printf("\nthe probe at the end, in %% of the first: read %.0f, f32 %.0f, bf16 %.0f\n",
           100 * again.read / b.probe.read, 100 * again.f32 / b.probe.f32, 100 * again.bf16 / b.probe.bf16);
    if (b.csv) fclose(b.csv);
    free(peers);
    return b.failed;
}
