// The command `run`: the phases of a file one after the other, each a process of its own that runs its command.
//
// Killed anywhere, the same command finds the finished phases in their record (pipeline_record.c), and the one that was
// running goes on as its command does.
#include "train_commands.h"
#include "checkpoint.h"
#include "clock.h"
#include "eval.h"
#include "file.h"
#include "json.h"
#include "nearest.h"
#include "outdir.h"
#include "pipeline.h"
#include "run_state.h"
#include "select.h"
#include "signals.h"
#include "whole.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
// ---- making phases again --------------------------------------------------------------------------------------------

// The command that phase k ran as, or else will: whose files are in its directory.
static PhaseCommand ran_as(const Pipeline *l, int k) {
    const Phase *p = &l->phases.phase[k];
    const char *name = json_string_value(json_object_get(json_object_get(l->made, p->name), "command"));
    for (int c = 0; name && c < PHASE_COMMANDS; c++)
        if (!strcmp(name, phase_command_name[c])) return (PhaseCommand)c;
    return p->command;
}

// Whether a name in a phase's directory is that of something its command makes. All else there is the user's.
static bool command_makes(PhaseCommand command, const char *name) {
    if (command == PHASE_EVAL) return false; // its file is beside
    return command == PHASE_SELECT ? select_makes(name) : checkpoint_makes(name) || run_makes(name);
}

// Removes a file, of a link what it leads to: so what is made again goes there, too.
static bool remove_file(const char *path, Error *e) {
    if (whole_is_fixed(path)) return true; // a pipe, say: nothing is kept in it
    char *place = whole_place(path);
    bool ok = disk_remove(place, e);
    free(place);
    return ok;
}

// Removes what a command made in a directory, and the directory where nothing else is in it and it is no link.
static bool clear_directory(const char *path, PhaseCommand command, Error *e) {
    DIR *dir = opendir(path);
    if (!dir)
        return errno == ENOENT || errno == ENOTDIR ||
               error_set(e, EXIT_DISK, "%s: cannot list the directory: %s", path, strerror(errno));
    bool ok = true;
    for (struct dirent *entry; ok && (entry = readdir(dir));) {
        if (!command_makes(command, entry->d_name)) continue;
        char *made = xasprintf("%s/%s", path, entry->d_name);
        ok = checkpoint_makes(entry->d_name) ? disk_remove(made, e) : remove_file(made, e);
        free(made);
    }
    closedir(dir);
    rmdir(path); // fails where something is left, which is as it should be
    return ok;
}

// Removes what forgotten phases made, and then their entries in pipeline.json: also those that an earlier run was
// killed over.
static bool remove_forgotten(Pipeline *l, Error *e) {
    for (int k = 0; k < l->phases.n; k++) {
        const Phase *p = &l->phases.phase[k];
        if (!json_is_true(json_object_get(json_object_get(l->made, p->name), "forgotten"))) continue;
        char *yaml = pipeline_path(l, "%s.yaml", p->name), *json = pipeline_path(l, "%s.json", p->name);
        bool ok = clear_directory(p->cfg.output_dir, ran_as(l, k), e) && disk_remove(yaml, e);
        Error other; // not a result: it stays
        if (ok && ran_as(l, k) == PHASE_EVAL && eval_replaces(json, &other)) ok = remove_file(json, e);
        free(yaml), free(json);
        json_object_del(l->made, p->name);
        if (!ok || !made_write(l, e)) return false;
    }
    return true;
}

// Whether what phase k will write over is its own. False after filling *e.
static bool others_stay(const Pipeline *l, int k, Error *e) {
    const Phase *p = &l->phases.phase[k];
    const char *path = p->cfg.output_dir;
    struct stat st;
    if (p->command == PHASE_EVAL) return eval_replaces(p->cfg.eval_output, e) || error_prefix(e, "phase %s", p->name);
    if (lstat(path, &st)) return true;
    DIR *dir = opendir(path);
    if (!dir)
        return error_set(e, EXIT_DISK,
                         "%s: phase %s needs a directory there: %s; move away what is there, or give the "
                         "phase another name",
                         path, p->name, strerror(errno));
    bool ok = true;
    for (struct dirent *entry; ok && !json_object_get(l->made, p->name) && (entry = readdir(dir));)
        if (command_makes(p->command, entry->d_name))
            ok = error_set(e, EXIT_DISK,
                           "%s/%s: is there already, and by pipeline.json phase %s did not make it; move it away, or "
                           "give the phase another name",
                           path, entry->d_name, p->name);
    closedir(dir);
    return ok;
}

// Whether NAME.yaml is phase k's to write. Of a phase that has not begun it is the user's, and may be the very file of
// the phases. False after filling *e.
static bool yaml_is_own(const Pipeline *l, int k, Error *e) {
    const char *name = l->phases.phase[k].name;
    char *yaml = pipeline_path(l, "%s.yaml", name);
    bool own = json_object_get(l->made, name) || access(yaml, F_OK) ||
               error_set(e, EXIT_DISK,
                         "%s: is there already, and phase %s writes its configuration there; move it away, or give the "
                         "phase another name",
                         yaml, name);
    free(yaml);
    return own;
}

// Forgets phases [first, end), and removes what they made. It is written down before: a run that goes on from half of
// what a phase made would not end as this one.
static bool forget(Pipeline *l, int first, int end, Error *e) {
    for (int k = first; k < end; k++)
        if (!others_stay(l, k, e)) return false;
    for (int k = first; k < end; k++) {
        json_t *record = json_pack("{s:b, s:s}", "forgotten", 1, "command", phase_command_name[ran_as(l, k)]);
        json_object_set_new(l->made, l->phases.phase[k].name, record);
    }
    return (first >= end || made_write(l, e)) && remove_forgotten(l, e);
}

// ---- running --------------------------------------------------------------------------------------------------------

// Runs one command as a process, in a group of its own: a key that stops the pipeline reaches it once, through here. It
// does not outlive this process. Its exit code, or 128 + the signal that ended it; below 0 after filling *e.
static int run_command(const char *command, const char *yaml, Error *e) {
    fflush(stdout);
    pid_t parent = getpid(), pid = fork();
    if (pid < 0) return error_set(e, EXIT_MEMORY, "a phase cannot be started: %s", strerror(errno)), -1;
    if (!pid) {
        setpgid(0, 0);
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent) _exit(EXIT_STOPPED);
        execl("/proc/self/exe", "grpo", command, yaml, (char *)NULL);
        _exit(127);
    }
    int status, told = 0;
    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (stop_requested() && !told) kill(pid, SIGTERM), told = 1;
        struct timespec nap = {0, 20000000};
        nanosleep(&nap, NULL);
    }
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// What goes on where this run ends: from= and only= would begin anew.
static const char *again(const Pipeline *l) {
    return l->from ? "the same command without from=" : l->only ? "the same command without only=" : "the same command";
}

static bool run_phase(Pipeline *l, int k, Error *e) {
    const Phase *p = &l->phases.phase[k];
    if (!phase_begin(l, k, e)) return false;
    char *yaml = pipeline_path(l, "%s.yaml", p->name), *text = config_yaml(&p->cfg);
    bool ok = whole_write(yaml, text, strlen(text), true, e);
    free(text);
    printf("== phase %d of %d: %s (%s)\n", k + 1, l->phases.n, p->name, phase_command_name[p->command]);
    double start = clock_seconds();
    int code = ok ? run_command(phase_command_name[p->command], yaml, e) : -1;
    if (code == EXIT_STOPPED || (code > 0 && stop_requested()))
        error_set(e, EXIT_STOPPED, "stopped in phase %s; %s goes on from there", p->name, again(l));
    else if (code > 0)
        error_set(e, code > 128 ? EXIT_COMM : (ExitCode)code,
                  "phase %d of %d, %s, ended with %s %d (its own words are above; its configuration is %s); %s goes on "
                  "from there",
                  k + 1, l->phases.n, p->name, code > 128 ? "signal" : "exit code", code > 128 ? code - 128 : code,
                  yaml, again(l));
    free(yaml);
    return code == 0 && phase_record(l, k, clock_seconds() - start, e);
}

static bool read_phases(Pipeline *l, Error *e) {
    phases_free(&l->phases);
    if (phases_read(&l->phases, l->path, l->overrides, l->n_overrides, phase_product, l, e)) return true;
    pipeline_check_files(l, e);
    return false;
}

// The place of the phase that from= or only= names; -1 after filling *e.
static int named_phase(const Pipeline *l, const char *option, const char *name, Error *e) {
    int k = phase_index(&l->phases, name);
    if (k >= 0) return k;
    const char *names[64];
    int n = 0;
    for (; n < l->phases.n && n < 64; n++) names[n] = l->phases.phase[n].name;
    const char *near = nearest_name(name, names, n);
    error_set(e, EXIT_CONFIG, "%s=%.60s: there is no such phase in %s%s%s%s", option, name, l->path,
              near ? "; did you mean `" : "", near ? near : "", near ? "`?" : "");
    return -1;
}

// Decides which phases are to be there in the end, [0, *end), and of those which are made again, from *first on.
static bool choose(const Pipeline *l, int *first, int *end, Error *e) {
    *first = *end = l->phases.n;
    if (l->from && l->only) return error_set(e, EXIT_CONFIG, "from= and only= exclude each other; give one of them");
    if (!l->from && !l->only) return true;
    int k = named_phase(l, l->from ? "from" : "only", l->from ? l->from : l->only, e);
    if (k < 0) return false;
    for (int j = 0; j < k; j++)
        if (!phase_made(l, l->phases.phase[j].name))
            return error_set(e, EXIT_CONFIG, "phase %s is not finished; %s=%s needs those before it",
                             l->phases.phase[j].name, l->from ? "from" : "only", l->phases.phase[k].name);
    *first = k;
    if (l->only) *end = k + 1;
    return true;
}

// Locks output_dir until this process ends: of two runs into it, each would take away what the other reads. False
// after filling *e.
static bool lock_output(Pipeline *l, Error *e) {
    const char *dir = l->phases.output_dir;
    l->lock = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (l->lock < 0) return error_set(e, EXIT_DISK, "%s: cannot be opened: %s", dir, strerror(errno));
    if (!flock(l->lock, LOCK_EX | LOCK_NB) || errno != EWOULDBLOCK) return true; // or a file system without locks
    return error_set(e, EXIT_DISK, "%s: another `grpo run` is at work there; wait for it, or stop it", dir);
}

// Runs phase k, unless it is finished and as it was.
static bool pass_phase(Pipeline *l, int k, Error *e) {
    bool done;
    if (stop_requested()) return error_set(e, EXIT_STOPPED, "stopped before phase %s", l->phases.phase[k].name);
    if (!read_phases(l, e) || !phase_done(l, k, &done, e)) return false;
    if (!done) return run_phase(l, k, e);
    printf("== phase %d of %d: %s is finished: %s\n", k + 1, l->phases.n, l->phases.phase[k].name,
           phase_made(l, l->phases.phase[k].name));
    return true;
}

static bool run_all(Pipeline *l, Error *e) {
    int first, end;
    if (!read_phases(l, e) || !disk_mkdir(l->phases.output_dir, e) || !lock_output(l, e) || !made_read(l, e) ||
        !choose(l, &first, &end, e))
        return false;
    json_t *before = json_deep_copy(l->made);
    for (int j = first; j < end; j++) json_object_del(l->made, l->phases.phase[j].name);
    bool ok = read_phases(l, e); // now with what finished phases made
    ok = ok && pipeline_check(l, end, e);
    json_decref(l->made);
    l->made = before;
    for (int k = 0; ok && k < end; k++) ok = yaml_is_own(l, k, e);
    // Nothing was touched so far. What is to be made again goes now.
    ok = ok && forget(l, first, end, e);
    for (int k = 0; ok && k < end; k++) ok = pass_phase(l, k, e);
    if (ok)
        printf("== %s: all that was asked for is in %s; pipeline.json there says what was made from what\n", l->path,
               l->phases.output_dir);
    return ok;
}

static const char usage[] = "usage: grpo run FILE.yaml [from=NAME | only=NAME] [key=value ...] [NAME.key=value ...]\n"
                            "Runs the phases of FILE one after the other, each a command (sft, train, select, "
                            "reward_model, eval) that may use what\n"
                            "earlier ones made; configs/r1.yaml shows one. Stopped or killed, the same command goes on "
                            "where it was. from=NAME makes\n"
                            "NAME and what follows again, only=NAME that phase alone. key=value counts for every "
                            "phase, NAME.key=value for one;\n"
                            "a command's options: grpo COMMAND --help.\n";

ExitCode command_run(int argc, char **argv, Error *e) {
    for (int i = 0; i < argc; i++)
        if (config_asks_help(argv[i])) return fputs(usage, stdout), EXIT_OK;
    if (argc < 1 || strchr(argv[0], '=') || argv[0][0] == '-') {
        error_set(e, EXIT_CONFIG, "run wants a file of phases: %.*s; see grpo run --help",
                  (int)strcspn(usage + 7, "\n"), usage + 7);
        return EXIT_CONFIG;
    }
    signals_install(true);
    Pipeline l = {.path = argv[0], .lock = -1, .overrides = xcalloc((size_t)argc, sizeof *l.overrides)};
    for (int i = 1; i < argc; i++)
        if (!strncmp(argv[i], "from=", 5)) l.from = argv[i] + 5;
        else if (!strncmp(argv[i], "only=", 5)) l.only = argv[i] + 5;
        else l.overrides[l.n_overrides++] = argv[i];
    bool ok = run_all(&l, e);
    json_decref(l.made);
    if (l.lock >= 0) close(l.lock);
    phases_free(&l.phases);
    free(l.overrides);
    return ok ? EXIT_OK : e->code;
}
