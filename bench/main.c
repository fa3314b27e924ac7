// The benchmark (bench/README.md). Every figure is printed beside the machine's limit, which the same run's probe
// measured, and beside a peer's figure where one is installed.
#include "bench_model.h"
#include "config.h"
#include "device.h"
#include "program.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

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
    {"select", bench_select, "rejection sampling and scoring by a reward model, beside what they are made of"},
    {"step", bench_step, "whole GRPO steps: the recipe's (GPU), short ones beside TRL (CPU)"},
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
    if (!b.iterations) bench_print_probe(&b, &b.probe);
    for (int i = 0; i < measured; i++) parts[chosen[i]].run(&b);
    if (b.only && !bench_wanted_any()) {
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
    peers_free();
    return program_end("bench", program_flush(b.failed ? EXIT_NUMERIC : EXIT_OK, &e), &e);
}
