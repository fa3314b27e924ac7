// Ranks as processes: forking them, watching them, joining them, and which one reports a failure.
#include "machine.h"
#include "clock.h"
#include "ops.h"
#include "ranks.h"
#include "rendezvous.h"
#include "signals.h"
#include "str.h"
#include "version.h"
#include <errno.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

// This process's own place among the ranks. A global, because a process is one rank for its whole life.
static struct {
    Launch launch;
    bool forked;
    Board *host, *board; // the first handle of the board; this rank's
} self;

int ranks_rank(void) { return self.launch.rank; }
int ranks_gpu(void) { return launch_gpu(&self.launch); }

int ranks_here(void) {
    if (self.forked || self.launch.world <= 1) return self.launch.world > 1 ? self.launch.world : 1;
    if (self.launch.locals > 0 && self.launch.locals <= self.launch.world) return self.launch.locals;
    return self.launch.world < COMM_RANKS ? self.launch.world : COMM_RANKS;
}

const char *ranks_about(const Config *c) {
    static char text[40];
    *text = 0;
    if (c->gpus > 1) snprintf(text, sizeof text, "%lld ranks, each ", (long long)c->gpus);
    return text;
}

void ranks_alive(void) {
    if (self.board) board_beat(self.board);
}

void ranks_phase(const char *phase, int64_t step) {
    if (self.board) board_phase(self.board, phase, step);
}

static void take_place(Board *host, int local) {
    self.host = host;
    self.board = board_join(host, local, self.launch.rank);
    signals_share(board_stop(host), ranks_alive);
}

// ---- the process that forks -----------------------------------------------------------------------------------------

// The exit code of all ranks together: that of the first failure, else that of rank 0.
static ExitCode verdict(const Board *b, const int *code, Error *e) {
    return board_failed(b, e) ? e->code : (ExitCode)code[0];
}

static void note_end(Board *b, int r, pid_t pid, int status, int *code) {
    char where[80], text[320];
    board_where(b, r, where, sizeof where);
    if (WIFEXITED(status)) {
        *code = WEXITSTATUS(status);
        if (*code == EXIT_OK || *code == EXIT_STOPPED) return;
        snprintf(text, sizeof text, "rank %d (process %d) ended with exit code %d in %s", r, (int)pid, *code, where);
    } else {
        int sig = WTERMSIG(status);
        *code = EXIT_COMM;
        snprintf(text, sizeof text, "rank %d (process %d) was ended by signal %d (%s) in %s%s", r, (int)pid, sig,
                 strsignal(sig), where,
                 sig == SIGKILL ? "; where nobody sent it, the system was out of memory: see dmesg" : "");
    }
    board_fail(b, (ExitCode)*code, text);
}

// Waits for the ranks, passes a request to stop on to them, and after a failure kills those that do not end.
static ExitCode watch_over(Board *b, pid_t *pid, int n, Error *e) {
    int code[COMM_RANKS] = {0};
    double end_by = 0; // when the ranks that are left will be killed; 0: no failure yet
    for (int left = n; left;) {
        for (int r = 0; r < n; r++) {
            int status;
            if (pid[r] <= 0 || waitpid(pid[r], &status, WNOHANG) != pid[r]) continue;
            note_end(b, r, pid[r], status, &code[r]);
            pid[r] = 0;
            left--;
        }
        stop_requested();
        if (!end_by && board_failed(b, NULL)) end_by = clock_seconds() + 2;
        for (int r = 0; r < n && end_by && clock_seconds() > end_by; r++)
            if (pid[r] > 0) kill(pid[r], SIGKILL);
        if (left) nanosleep(&(struct timespec){0, 20000000}, NULL);
    }
    return verdict(b, code, e);
}

// Makes this new process a rank. It will end with the process that forked it, whatever ends that one.
static bool be_rank(Board *host, int r, pid_t parent) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(EXIT_COMM);
    self.host = host; // failures from here on, running out of memory too, are reported on it
    machine_unbind();
    self.launch.rank = self.launch.local = r;
    take_place(host, r);
    note_quiet(r != 0);
    return true;
}

static bool fork_ranks(const Config *c, ExitCode *code, Error *e) {
    int n = (int)c->gpus;
    if (n > COMM_RANKS)
        return error_set(e, *code = EXIT_CONFIG,
                         "gpus is %d, but %d are the most on one host; start ranks on several hosts with torchrun, "
                         "srun or mpirun",
                         n, COMM_RANKS);
    Board *host = board_new(n, e);
    if (!host) {
        *code = e->code;
        return false;
    }
    self.launch.world = n;
    self.forked = true;
    signals_share(board_stop(host), NULL);
    const char *bind = getenv("GOMP_CPU_AFFINITY") ? "GOMP_CPU_AFFINITY"
                       : getenv("OMP_PROC_BIND")   ? "OMP_PROC_BIND"
                                                   : NULL;
    if (bind && c->threads != 1)
        note("%s binds the threads of all %d ranks to the same cores; unset it, or start the ranks with torchrun, srun "
             "or "
             "mpirun",
             bind, n);
    pid_t pid[COMM_RANKS], parent = getpid();
    fflush(NULL);
    for (int r = 0; r < n; r++) {
        pid[r] = fork();
        if (pid[r] == 0) return be_rank(host, r, parent);
        if (pid[r] > 0) continue;
        char text[120];
        snprintf(text, sizeof text, "cannot start rank %d: %s", r, strerror(errno));
        board_fail(host, EXIT_MEMORY, text);
    }
    *code = watch_over(host, pid, n, e);
    signals_share(NULL, NULL);
    board_close(host);
    return false;
}

bool ranks_start(const Config *c, ExitCode *code, Error *e) {
    if (!launch_read(&self.launch, e)) {
        *code = e->code;
        return false;
    }
    note_quiet(self.launch.rank != 0);
    if (self.launch.by || c->gpus <= 1) return true;
    return fork_ranks(c, code, e);
}

// ---- one rank -------------------------------------------------------------------------------------------------------

// Reports the first line "what: value" in which rank r differs from rank 0.
static bool report_difference(const char *ours, const char *theirs, int r, Error *e) {
    while (*ours && *theirs) {
        size_t a = strcspn(ours, "\n"), b = strcspn(theirs, "\n");
        if (a != b || memcmp(ours, theirs, a)) {
            int name = (int)strcspn(theirs, ":\n"), from = name + 2;
            return error_set(e, EXIT_CONFIG,
                             "the ranks were started differently: on rank %d %.*s is %.*s, on rank 0 it is %.*s; give "
                             "every rank the same file and options",
                             r, name, theirs, (int)b > from ? (int)b - from : 0, theirs + from,
                             (int)a > from ? (int)a - from : 0, ours + from);
        }
        ours += a + (ours[a] == '\n');
        theirs += b + (theirs[b] == '\n');
    }
    return error_set(e, EXIT_CONFIG, "rank %d has other options than rank 0; start every rank with the same build", r);
}

static void add_file(Str *s, const char *option, const char *path) {
    struct stat st;
    if (*path) str_printf(s, "%s (bytes): %lld\n", option, stat(path, &st) ? -1 : (long long)st.st_size);
}

// What must be the same for all ranks, a line each; the version first, because with another build all else may differ
// too.
static char *facts_of(const Config *c, const char *model_facts) {
    Str s = {0};
    str_printf(&s, "the version of grpo: %s\n", grpo_version);
    char *yaml = config_yaml(c);
    for (const char *line = yaml; *line;) {
        size_t n = strcspn(line, "\n") + 1;
        if (!config_is_local(line, strcspn(line, ":"))) str_add(&s, line, n);
        line += n;
    }
    free(yaml);
    str_printf(&s, "the model's config.json: %s\n", model_facts);
    for (int i = 0; i < c->train_file.n; i++) add_file(&s, "train_file", c->train_file.item[i].path);
    add_file(&s, "eval_file", c->eval_file);
    return s.s;
}

static bool compare(const Config *c, const char *model_facts, Comm *comm, Error *e) {
    char *mine = facts_of(c, model_facts), *all = NULL;
    uint64_t *end = xcalloc((size_t)comm->world, sizeof *end);
    bool ok = comm_collect(comm, "configuration", mine, strlen(mine) + 1, &all, end, e);
    for (int r = 1; ok && r < comm->world; r++)
        if (strcmp(all, all + end[r - 1])) ok = report_difference(all, all + end[r - 1], r, e);
    free(end);
    free(all);
    free(mine);
    return ok;
}

// Forked ranks agree on the device and on NCCL's id through the board.
static bool meet_forked(const Config *c, CommConfig *how, const char *device, Error *e) {
    struct {
        char device[16], id[COMM_ID_BYTES];
    } said = {0};
    snprintf(said.device, sizeof said.device, "%s", device);
    memcpy(said.id, how->id, sizeof said.id);
    Comm *host = cpu_comm_open(how, e);
    bool ok = host && comm_broadcast(host, "start", &said, sizeof said, 0, e);
    comm_close(host);
    memcpy(how->id, said.id, sizeof said.id);
    return ok && (!strcmp(device, said.device) ||
                  error_set(e, EXIT_CONFIG,
                            "rank %d computes on %s and rank 0 on %s; set gpus to the number of GPUs there are, or "
                            "device=cpu",
                            how->rank, device, said.device));
}

static bool meet_launched(CommConfig *how, const char *device, Error *e) {
    Meeting m = {0};
    memcpy(m.id, how->id, sizeof m.id);
    if (!rendezvous(&self.launch, device, how->timeout, &m, e)) return false;
    memcpy(how->id, m.id, sizeof m.id);
    Board *host = board_open(m.board, m.locals, e);
    if (!host) return false;
    take_place(host, m.local);
    how->board = self.board;
    bool ok = board_meet(self.board, "start", 0, how->timeout, e);
    board_unlink(m.board);
    return ok;
}

bool ranks_join(const Config *c, Device *d, const char *model_facts, Comm **out, Error *e) {
    *out = NULL;
    if (c->gpus <= 1) return true;
    if (self.launch.world != c->gpus) die("ranks: %lld wanted, %d started", (long long)c->gpus, self.launch.world);
    CommConfig how = {
        .rank = self.launch.rank, .world = self.launch.world, .board = self.board, .timeout = (double)c->comm_timeout};
    bool gpu = !d->on_host;
#ifdef GRPO_CUDA
    if (gpu && how.rank == 0 && !cuda_comm_id(how.id, e)) return false;
#endif
    if (!(self.forked ? meet_forked(c, &how, d->name, e) : meet_launched(&how, d->name, e))) return false;
#ifdef GRPO_CUDA
    *out = gpu ? cuda_comm_open(d, &how, e) : cpu_comm_open(&how, e);
#else
    *out = gpu ? NULL : cpu_comm_open(&how, e);
#endif
    return *out && compare(c, model_facts, *out, e);
}

// The rank may not have its own handle yet.
static Board *board_here(void) { return self.board ? self.board : self.host; }
static bool is_failure(ExitCode code) { return code != EXIT_OK && code != EXIT_STOPPED; }

void ranks_tell(ExitCode code, const Error *e) {
    if (board_here() && is_failure(code)) board_fail(board_here(), code, e->text);
}

bool ranks_speak(ExitCode code, Error *e) {
    if (!is_failure(code)) return self.launch.rank == 0;
    Board *b = board_here();
    if (!b) return true;
    ranks_tell(code, e);
    if (self.forked || !board_speak(b)) return false; // the process that forked reports it
    board_failed(b, e);
    return true;
}
