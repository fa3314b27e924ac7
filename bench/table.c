// The benchmark's table: peers' figures, rows beside their limits, CSV.
#include "bench.h"
#include "error.h"
#include "str.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- peers ----------------------------------------------------------------------------------------------------------
typedef struct {
    char name[96];
    double value;
} PeerValue;
static PeerValue *peers;
static int n_peers;

void peers_free(void) { free(peers); }
static PeerValue *find_peer(const char *name) {
    for (int i = 0; i < n_peers; i++)
        if (!strcmp(peers[i].name, name)) return &peers[i];
    return NULL;
}
double peer_value(const char *name) {
    const PeerValue *p = find_peer(name);
    return p ? p->value : NAN;
}

// Of two peers' figures of one name, the larger counts. The name fits, with its end, in PeerValue.
static void add_peer(const char *name, double value) {
    PeerValue *p = find_peer(name);
    if (!p) {
        peers = xrealloc(peers, (size_t)(n_peers + 1) * sizeof *peers);
        p = &peers[n_peers++];
        *p = (PeerValue){.value = value};
        memcpy(p->name, name, strlen(name) + 1);
    } else if (value > p->value) p->value = value;
}

void peer_run(const Bench *b, const char *script, const char *section) {
    if (!b->peers || b->only) return;
    const char *python = getenv("PYTHON");
    char *command = xasprintf("%s bench/peers/%s %s", python ? python : "python3", script, section);
    FILE *f = popen(command, "r");
    char line[256], reason[256] = "";
    bool said = false;
    while (f && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *tab = strchr(line, '\t');
        if (!strncmp(line, "SKIP ", 5)) snprintf(reason, sizeof reason, "%s", line + 5);
        if (!strncmp(line, "NOTE ", 5)) printf("%s\n", line + 5), said = true;
        if (!tab || tab - line >= (ptrdiff_t)sizeof peers->name) continue;
        *tab = 0;
        add_peer(line, strtod(tab + 1, NULL));
        said = true;
    }
    if (f) pclose(f);
    if (!said) printf("SKIP %s: %s\n", script, *reason ? reason : "no python3, or it failed");
    free(command);
}

// ---- the table ------------------------------------------------------------------------------------------------------
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
bool bench_wanted_any(void) { return wanted > 0; }

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

void bench_print_probe(Bench *b, const Probe *p) {
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
    char name[96];
    snprintf(name, sizeof name, "bf16 %s on registers", p->bf16_unit ? p->bf16_unit : "");
    if (p->bf16_unit) bench_row(b, name, p->bf16, "GFLOP/s", 0, 0);
    else printf("this CPU has no faster unit for bf16: it is held against f32's figure\n");
}
