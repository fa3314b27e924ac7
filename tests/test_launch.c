// Ranks that a launcher started (torchrun, Slurm, Open MPI) or that grpo forked itself, as whole processes; and the
// other commands on several ranks.
#include "config_table.h"
#include "file.h"
#include "launch.h"
#include "ranks_output.h"
#include <dirent.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>

// ---- launchers ------------------------------------------------------------------------------------------------------

static void set_all(const char *assignments) { // "A=1 B=2"
    char *all = xstrdup(assignments);
    for (char *word = strtok(all, " "); word; word = strtok(NULL, " ")) {
        *strchr(word, '=') = 0;
        setenv(word, word + strlen(word) + 1, 1);
    }
    free(all);
}

static void environments(void **state) {
    static const struct {
        const char *set, *by;
        int rank, world, local;
        const char *master;
    } good[] = {
        {"", NULL, 0, 1, 0, ""},
        {"MASTER_ADDR=somewhere MASTER_PORT=1", NULL, 0, 1, 0, ""},
        {"RANK=3 WORLD_SIZE=8 LOCAL_RANK=1 MASTER_ADDR=node7 MASTER_PORT=29500", "torchrun", 3, 8, 1, "node7"},
        {"RANK=0 WORLD_SIZE=1 LOCAL_RANK=0 MASTER_ADDR=x MASTER_PORT=2", "torchrun", 0, 1, 0, ""},
        {"SLURM_PROCID=2 SLURM_NTASKS=4 SLURM_LOCALID=2", "Slurm", 2, 4, 2, "127.0.0.1"},
        {"SLURM_PROCID=5 SLURM_NTASKS=8 SLURM_LOCALID=1 SLURM_JOB_ID=7 SLURM_STEP_ID=0 "
         "SLURM_STEP_NODELIST=gpu[03-04,7],cpu1 SLURM_STEP_NUM_NODES=2",
         "Slurm", 5, 8, 1, "gpu03"},
        {"SLURM_PROCID=1 SLURM_NTASKS=2 SLURM_LOCALID=0 SLURM_STEP_NODELIST=alpha,beta", "Slurm", 1, 2, 0, "alpha"},
        {"SLURM_PROCID=0 SLURM_NTASKS=8 SLURM_LOCALID=0 SLURM_JOB_ID=7", NULL, 0, 1, 0, ""}, // the batch script
        {"SLURM_NTASKS=8 SLURM_JOB_ID=7", NULL, 0, 1, 0, ""},                                // salloc's shell
        {"OMPI_COMM_WORLD_RANK=1 OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=1", "Open MPI", 1, 2, 1,
         "127.0.0.1"},
        // A shell inside an allocation, and a task of a step that is smaller than it.
        {"SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_STEP_NUM_TASKS=1 SLURM_LOCALID=0 SLURM_JOB_ID=7 SLURM_STEP_ID=4294967290",
         NULL, 0, 1, 0, ""},
        {"SLURM_PROCID=1 SLURM_NTASKS=4 SLURM_STEP_NUM_TASKS=2 SLURM_LOCALID=1 SLURM_JOB_ID=7 SLURM_STEP_ID=0", "Slurm",
         1, 2, 1, "127.0.0.1"},
        {"PMI_RANK=1 PMI_SIZE=3 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=3", "MPICH (or Intel MPI)", 1, 3, 1, "127.0.0.1"},
        {"PMI_RANK=1 PMI_SIZE=2", "MPICH (or Intel MPI)", 1, 2, 1, "127.0.0.1"},
        {"PMI_RANK=0 PMI_SIZE=1", NULL, 0, 1, 0, ""},
        {"PMI_RANK=5 PMI_SIZE=8 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=4 MASTER_ADDR=h", "MPICH (or Intel MPI)", 5, 8, 1,
         "h"},
        // mpirun in an allocation starts a daemon a node by srun, whose variables its ranks see; srun --mpi=pmi2.
        {"PMI_RANK=1 PMI_SIZE=4 MPI_LOCALRANKID=1 MPI_LOCALNRANKS=4 SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0 "
         "SLURM_STEP_ID=0 SLURM_JOB_ID=7",
         "MPICH (or Intel MPI)", 1, 4, 1, "127.0.0.1"},
        {"PMI_RANK=5 PMI_SIZE=8 SLURM_PROCID=5 SLURM_NTASKS=8 SLURM_LOCALID=1 SLURM_STEP_NODELIST=a,b", "Slurm", 5, 8,
         1, "a"},
        {"RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 MASTER_ADDR=a MASTER_PORT=9 SLURM_PROCID=0 SLURM_NTASKS=1 SLURM_LOCALID=0",
         "torchrun", 1, 2, 1, "a"},
    };
    static const struct {
        const char *set, *says[2];
    } bad[] = {
        {"RANK=1", {"RANK is set but WORLD_SIZE is not", "torchrun"}},
        {"RANK=1 WORLD_SIZE=2 LOCAL_RANK=1", {"MASTER_ADDR is not"}},
        {"RANK=1 WORLD_SIZE=2 LOCAL_RANK=1 MASTER_ADDR=a", {"MASTER_PORT is not"}},
        {"WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=9", {"WORLD_SIZE is set but RANK is not"}},
        {"RANK=0 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=9", {"LOCAL_RANK is not"}},
        {"RANK=2 WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=a MASTER_PORT=9", {"RANK is 2", "WORLD_SIZE is 2"}},
        {"RANK=1 WORLD_SIZE=4 LOCAL_RANK=2 MASTER_ADDR=a MASTER_PORT=9", {"LOCAL_RANK is 2", "RANK is 1"}},
        {"RANK=one WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=a MASTER_PORT=9", {"RANK is `one`"}},
        {"RANK=0 WORLD_SIZE=2 LOCAL_RANK=0 MASTER_ADDR=a MASTER_PORT=99999", {"MASTER_PORT"}},
        {"OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=2", {"OMPI_COMM_WORLD_LOCAL_RANK is not", "Open MPI"}},
        {"OMPI_COMM_WORLD_RANK=0 OMPI_COMM_WORLD_SIZE=4 OMPI_COMM_WORLD_LOCAL_RANK=0 OMPI_COMM_WORLD_LOCAL_SIZE=2",
         {"MASTER_ADDR", "-x"}},
        {"SLURM_PROCID=0 SLURM_LOCALID=0", {"SLURM_NTASKS is not"}},
        {"PMI_RANK=0", {"PMI_SIZE is not", "MPICH"}},
        {"PMI_RANK=0 PMI_SIZE=8 MPI_LOCALRANKID=0 MPI_LOCALNRANKS=4", {"several hosts", "-genv MASTER_ADDR"}},
    };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        Launch l;
        Error e = {0};
        clear_launchers();
        set_all(good[i].set);
        if (!launch_read(&l, &e)) fail_msg("%s: %s", good[i].set, e.text);
        if (l.rank != good[i].rank || l.world != good[i].world || l.local != good[i].local ||
            strcmp(l.master, good[i].master) || strcmp(l.by ? l.by : "", good[i].by ? good[i].by : ""))
            fail_msg("%s: rank %d of %d, %d on its host, by %s at %s", good[i].set, l.rank, l.world, l.local, l.by,
                     l.master);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        Launch l;
        Error e = {0};
        clear_launchers();
        set_all(bad[i].set);
        if (launch_read(&l, &e)) fail_msg("%s: taken", bad[i].set);
        assert_int_equal(e.code, EXIT_CONFIG);
        for (int k = 0; k < 2 && bad[i].says[k]; k++)
            if (!strstr(e.text, bad[i].says[k])) fail_msg("%s: %s", bad[i].set, e.text);
    }
    clear_launchers();
}

static void a_rank_knows_its_gpu(void **state) {
    static const struct {
        const char *by, *seen;
        int gpu; // of local rank 3
    } cases[] = {
        {"Slurm", NULL, 3},     {"Slurm", "", 3},     {"Slurm", "0,1,2,3", 3}, {"Slurm", "0", 0}, {"Slurm", "7", 0},
        {"Slurm", "GPU-5f", 0}, {"Open MPI", "2", 0}, {"torchrun", "0", 3},    {NULL, "0", 3},
    };
    char *before = getenv("CUDA_VISIBLE_DEVICES") ? xstrdup(getenv("CUDA_VISIBLE_DEVICES")) : NULL;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (cases[i].seen) setenv("CUDA_VISIBLE_DEVICES", cases[i].seen, 1);
        else unsetenv("CUDA_VISIBLE_DEVICES");
        assert_int_equal(launch_gpu(&(Launch){.by = cases[i].by, .rank = 3, .world = 4, .local = 3}), cases[i].gpu);
    }
    if (before) setenv("CUDA_VISIBLE_DEVICES", before, 1);
    else unsetenv("CUDA_VISIBLE_DEVICES");
    free(before);
}

// Commands that run as several processes believe a launcher, the others do not look for one: seen by whether a number
// of GPUs that is not the launcher's is a mistake.
static void commands_that_have_ranks_ask_the_launcher(void **state) {
    static const char *const ranked[] = {"train", "sft", "reward_model", "eval", "select"};
    setenv("RANK", "0", 1), setenv("WORLD_SIZE", "2", 1), setenv("LOCAL_RANK", "0", 1);
    setenv("MASTER_ADDR", "localhost", 1), setenv("MASTER_PORT", "29400", 1),
        setenv("TORCHELASTIC_USE_AGENT_STORE", "True", 1);
    size_t found = 0;
    for (int i = 0; i < config_command_count; i++) {
        const char *name = config_commands[i].name;
        char *args[] = {"gpus=3", "no_such_option=1"}; // so that there is an error in any case
        Config c;
        Error e = {0};
        assert_false(config_args(&c, name, 2, args, &e));
        bool asked = strstr(e.text, "torchrun started 2 ranks") != NULL, wanted = false;
        for (size_t k = 0; k < sizeof ranked / sizeof *ranked; k++) wanted = wanted || !strcmp(ranked[k], name);
        if (asked != wanted) fail_msg("%s: %s", name, e.text);
        found += wanted;
    }
    assert_int_equal(found, sizeof ranked / sizeof *ranked);
    clear_launchers();
}

static const char options_of_all[] =
    "model=models/tiny init=random dtype=f32 chat_template=r1-zero max_prompt_length=96 max_completion_length=12 "
    "num_generations=4 per_device_train_batch_size=4 gradient_accumulation_steps=1 learning_rate=1e-3 beta=0.04 "
    "temperature=1 max_steps=2 save_steps=0 progress=off seed=7 rewards=completion_length,xmlcount threads=1";

// Starts `grpo train` as a launcher would; its output goes to DIR/rank_R.
static pid_t launch(const Fixture *f, const char *environment, int rank, const char *more) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid) return pid;
    clear_launchers();
    set_all(environment);
    char *log = xasprintf("%s/rank_%d", f->dir, rank);
    int fd = open(log, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    dup2(fd, STDOUT_FILENO);
    dup2(fd, STDERR_FILENO);
    char *command = xasprintf("exec %s train %s train_file=%s/train.jsonl output_dir=%s/out %s", program(),
                              options_of_all, f->dir, f->dir, more);
    execl("/bin/sh", "sh", "-c", command, NULL);
    _exit(127);
}

static int end_of(pid_t pid) {
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static char *said_by(const Fixture *f, int rank) {
    char *log = xasprintf("%s/rank_%d", f->dir, rank);
    size_t n;
    Error e = {0};
    char *text = file_read(log, 1 << 20, &n, &e);
    assert_non_null(text);
    free(log);
    return text;
}

// A port that is free now, and the next ones likely too.
static int some_port(void) {
    static int next;
    return 21000 + (getpid() * 37 + next++ * 16) % 8000;
}

static void torchrun_variables(char *out, size_t n, int rank, int world, int port) {
    snprintf(out, n, "RANK=%d WORLD_SIZE=%d LOCAL_RANK=%d MASTER_ADDR=127.0.0.1 MASTER_PORT=%d", rank, world, rank,
             port);
}

static void launched_ranks_are_forked_ranks(void **state) {
    Fixture forked, f;
    fixture_dir(&forked);
    assert_int_equal(end_of(launch(&forked, "X=1", 0, "gpus=2")), 0);
    static const char *const by[] = {
        "RANK=%d WORLD_SIZE=2 LOCAL_RANK=%d MASTER_ADDR=localhost MASTER_PORT=%d TORCHELASTIC_USE_AGENT_STORE=True",
        "SLURM_PROCID=%d SLURM_NTASKS=2 SLURM_LOCALID=%d SLURM_STEP_ID=0 SLURM_JOB_ID=%d",
        "OMPI_COMM_WORLD_RANK=%d OMPI_COMM_WORLD_SIZE=2 OMPI_COMM_WORLD_LOCAL_RANK=%d MASTER_PORT=%d",
        "PMI_RANK=%d PMI_SIZE=2 MPI_LOCALRANKID=%d MASTER_PORT=%d"};
    for (int k = 0; k < 4; k++) {
        fixture_dir(&f);
        int port = some_port();
        pid_t pid[2];
        for (int r = 1; r >= 0; r--) { // rank 1 comes first, and waits
            char environment[200];
            snprintf(environment, sizeof environment, by[k], r, r, port);
            pid[r] = launch(&f, environment, r, r ? "" : "gpus=2");
        }
        for (int r = 0; r < 2; r++)
            if (end_of(pid[r])) fail_msg("%s: rank %d: %s", by[k], r, said_by(&f, r));
        char *quiet = said_by(&f, 1);
        assert_string_equal(quiet, ""); // rank 0 alone speaks
        free(quiet);
        assert_same_checkpoint(&f, &forked, 2, false);
        assert_same_output(&f, &forked, "completions.jsonl");
        fixture_remove(&f);
    }
    fixture_remove(&forked);
}

static void run_pair(const char *more0, const char *more1, int world, int code[2], char *said[2]) {
    Fixture f;
    fixture_dir(&f);
    int port = some_port();
    pid_t pid[2];
    for (int r = 0; r < 2; r++) {
        char environment[200];
        torchrun_variables(environment, sizeof environment, r, world, port);
        pid[r] = launch(&f, environment, r, r ? more1 : more0);
    }
    for (int r = 0; r < 2; r++) {
        code[r] = end_of(pid[r]);
        said[r] = said_by(&f, r);
    }
    fixture_remove(&f);
}

static void ranks_must_be_given_the_same(void **state) {
    int code[2];
    char *said[2];
    run_pair("", "learning_rate=2e-3", 2, code, said);
    assert_int_equal(code[0], EXIT_CONFIG);
    assert_int_equal(code[1], EXIT_CONFIG);
    char *line = strstr(said[0], "on rank 1 learning_rate is 0.002, on rank 0 it is 0.001") ? said[0] : said[1];
    if (!strstr(line, "on rank 1 learning_rate is 0.002, on rank 0 it is 0.001") || (*said[0] && *said[1]))
        fail_msg("%s\n%s", said[0], said[1]);
    for (int r = 0; r < 2; r++) free(said[r]);
    run_pair("threads=1", "threads=2", 2, code, said); // may differ
    assert_int_equal(code[0] + code[1], 0);
    for (int r = 0; r < 2; r++) free(said[r]);
    run_pair("gpus=3", "comm_timeout=1", 2, code, said); // rank 0 gives up before they meet
    assert_int_equal(code[0], EXIT_CONFIG);
    assert_non_null(strstr(said[0], "gpus is 3, but torchrun started 2 ranks"));
    for (int r = 0; r < 2; r++) free(said[r]);
}

static void a_rank_that_does_not_come_is_named(void **state) {
    Fixture f;
    fixture_dir(&f);
    for (int r = 0; r < 2; r++) {
        char environment[200];
        torchrun_variables(environment, sizeof environment, r, 2, some_port());
        double start = clock_seconds();
        assert_int_equal(end_of(launch(&f, environment, r, "comm_timeout=1")), EXIT_COMM);
        assert_true(since(start) < 6);
        char *text = said_by(&f, r);
        if (!strstr(text, r ? "for rank 0 at 127.0.0.1" : "rank 1 did not come") ||
            !strstr(text, r ? "torchrun started it as one of 2 (RANK=1, WORLD_SIZE=2)"
                            : "torchrun started it as one of 2 (RANK=0, WORLD_SIZE=2)"))
            fail_msg("%s", text);
        free(text);
    }
    fixture_remove(&f);
}

static void a_wait_says_who_was_believed(void **state) {
    Fixture f;
    fixture_dir(&f);
    pid_t pid = launch(&f, "SLURM_PROCID=0 SLURM_NTASKS=4 SLURM_LOCALID=0 SLURM_STEP_ID=0 SLURM_JOB_ID=9", 0, "");
    double start = clock_seconds();
    char *text = NULL;
    do {
        free(text);
        nanosleep(&(struct timespec){0, 100000000}, NULL);
        text = said_by(&f, 0);
    } while (!strstr(text, "waits for the other ranks") && since(start) < 20);
    if (!strstr(text, "1 of 4 are here: Slurm started it as one of 4 (SLURM_PROCID=0, SLURM_NTASKS=4)"))
        fail_msg("%s", text);
    free(text);
    kill(pid, SIGTERM);
    assert_int_equal(end_of(pid), EXIT_STOPPED);
    fixture_remove(&f);
}

// Connects to a port of this host, as soon as somebody listens there, so many times, again every `pause` seconds, for
// ever; every second connection says something, and all stay open.
static pid_t strangers(int port, int many, double pause) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid) return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL); // where the test fails, nobody else ends it
    signal(SIGPIPE, SIG_IGN);
    struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    for (;;) {
        for (int i = 0; i < many; i++) {
            int fd = socket(AF_INET, SOCK_STREAM, 0);
            while (connect(fd, (struct sockaddr *)&at, sizeof at)) {
                close(fd);
                nanosleep(&(struct timespec){0, 1000000}, NULL);
                fd = socket(AF_INET, SOCK_STREAM, 0);
            }
            // Wrong from the first byte; a right beginning that never ends; nothing.
            static const char *const says[] = {"GET / HTTP/1.0\r\n\r\n", "grpo.c\n", ""};
            if (write(fd, says[i % 3], strlen(says[i % 3])) < 0) continue;
        }
        nanosleep(&(struct timespec){0, (long)(pause * 1e9)}, NULL);
    }
}

static void strangers_cost_no_time(void **state) {
    static const int many[] = {1, 4, 100};
    for (int k = 0; k < 3; k++) {
        Fixture f;
        fixture_dir(&f);
        int port = some_port();
        pid_t pid[2], crowd = strangers(port, many[k], 0.2); // before, between and after the ranks
        double start = clock_seconds();
        for (int r = 0; r < 2; r++) {
            char environment[200];
            torchrun_variables(environment, sizeof environment, r, 2, port);
            pid[r] = launch(&f, environment, r, "comm_timeout=60");
            if (r == 0) nanosleep(&(struct timespec){1, 0}, NULL);
        }
        for (int r = 0; r < 2; r++)
            if (end_of(pid[r])) fail_msg("%d strangers: rank %d: %s", many[k], r, said_by(&f, r));
        if (since(start) > 15) fail_msg("%d strangers: %.1f s", many[k], since(start));
        kill(crowd, SIGKILL);
        end_of(crowd);
        fixture_remove(&f);
    }
}

static void nap(double seconds) {
    nanosleep(&(struct timespec){(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)}, NULL);
}

// Waits until the log of metrics has a line: training is under way.
static void wait_for_steps(const Fixture *f) {
    char *path = xasprintf("%s/out/metrics.jsonl", f->dir);
    struct stat st;
    for (int i = 0; i < 1000 && (stat(path, &st) || !st.st_size); i++) nap(0.02);
    free(path);
}

static void launched_ranks_notice_a_death(void **state) {
    Fixture f;
    fixture_dir(&f);
    int port = some_port();
    pid_t pid[2];
    for (int r = 0; r < 2; r++) {
        char environment[200];
        torchrun_variables(environment, sizeof environment, r, 2, port);
        pid[r] = launch(&f, environment, r, "max_steps=100000");
    }
    wait_for_steps(&f);
    double start = clock_seconds();
    kill(pid[1], SIGKILL); // nobody reaps it yet: a zombie is dead all the same
    assert_int_equal(end_of(pid[0]), EXIT_COMM);
    assert_true(since(start) < 5);
    char *text = said_by(&f, 0);
    if (!strstr(text, "rank 1 (process ") || !strstr(text, "has ended in phase")) fail_msg("%s", text);
    free(text);
    end_of(pid[1]);
    fixture_remove(&f);
}

// How many processes have `argument` among theirs; ended ones that nobody waited for have none.
static int processes_with(const char *argument) {
    DIR *all = opendir("/proc");
    assert_non_null(all);
    int n = 0;
    for (struct dirent *one; (one = readdir(all));) {
        char *path = xasprintf("/proc/%s/cmdline", one->d_name), text[8192];
        FILE *file = fopen(path, "r");
        free(path);
        if (!file) continue;
        size_t length = fread(text, 1, sizeof text - 1, file);
        fclose(file);
        text[length] = 0;
        for (size_t at = 0; at < length; at += strlen(text + at) + 1)
            if (!strcmp(text + at, argument)) {
                n++;
                break;
            }
    }
    closedir(all);
    return n;
}

static void the_forking_process_stops_its_ranks(void **state) {
    Fixture f;
    fixture_dir(&f);
    pid_t pid = launch(&f, "X=1", 0, "gpus=2 max_steps=100000");
    wait_for_steps(&f);
    kill(pid, SIGTERM);
    assert_int_equal(end_of(pid), EXIT_STOPPED);
    char *text = said_by(&f, 0);
    assert_non_null(strstr(text, "saved in"));
    free(text);
    pid = launch(&f, "X=1", 0, "gpus=2 max_steps=100000");
    nap(0.5);
    char *argument = xasprintf("output_dir=%s/out", f.dir);
    assert_true(processes_with(argument) >= 2);
    free(argument);
    kill(pid, SIGKILL);
    assert_int_equal(end_of(pid), -SIGKILL);
    nap(0.3);
    char *name = xasprintf("output_dir=%s/out", f.dir);
    assert_int_equal(processes_with(name), 0);
    free(name);
    fixture_remove(&f);
}

// ---- the other commands ---------------------------------------------------------------------------------------------

static char *run(const Fixture *f, const char *fmt, const char *more) {
    char *args = xasprintf(fmt, f->dir, f->dir);
    char *command = xasprintf("%s %s %s 2>&1", program(), args, more);
    FILE *p = popen(command, "r");
    assert_non_null(p);
    Str out = {0};
    char block[4096];
    for (size_t n; (n = fread(block, 1, sizeof block, p)) > 0;) str_add(&out, block, n);
    int status = pclose(p);
    if (status) fail_msg("%s: %s", command, out.s);
    free(command);
    free(args);
    return out.s;
}

static void sft_eval_and_plan(void **state) {
    Fixture f[3];
    for (int k = 0; k < 3; k++) {
        fixture_dir(&f[k]);
        char more[200];
        snprintf(more, sizeof more, "gpus=%d gradient_accumulation_steps=%d", 1 << k, 4 >> k);
        free(run(&f[k],
                 "sft model=models/tiny init=random dtype=f32 chat_template=r1-zero train_file=%s/train.jsonl "
                 "prompt_field=question completion_field=answer output_dir=%s/out max_length=128 max_steps=2 "
                 "learning_rate=1e-3 per_device_train_batch_size=2 threads=1 progress=off max_grad_norm=0 save_steps=1",
                 more));
        if (k == 0) continue;
        json_t *a = metrics_line(&f[k], 1), *b = metrics_line(&f[0], 1);
        static const char *const names[] = {"loss", "grad_norm", "entropy", "num_tokens"};
        for (int i = 0; i < 4; i++)
            assert_close(names[i], "sft", json_number_value(json_object_get(a, names[i])),
                         json_number_value(json_object_get(b, names[i])));
        json_decref(a);
        json_decref(b);
        assert_true(distance(&f[k], &f[0], "step_1/state/moment1.bin") < 1e-6);
    }
    char *one = NULL;
    for (int k = 0; k < 3; k++) {
        char more[40];
        snprintf(more, sizeof more, "gpus=%d", k + 1);
        char *result =
            run(&f[0],
                "eval model=models/tiny init=random dtype=f32 chat_template=r1-zero eval_file=%s/train.jsonl "
                "rewards=completion_length,xmlcount eval_output= max_prompt_length=96 "
                "max_completion_length=12 eval_samples=2 temperature=1 eval_limit=7 threads=1 tokenizer=%.0s",
                more);
        if (!one) one = xstrdup(result);
        assert_string_equal(result, one);
        free(result);
    }
    free(one);
    char *plan1 = run(&f[0], "plan model=models/tiny %.0s%.0s", ""),
         *plan4 = run(&f[0], "plan model=models/tiny %.0s%.0s", "gpus=4");
    assert_non_null(strstr(plan4, "optimizer state (this rank's slice)"));
    assert_null(strstr(plan1, "slice"));
    free(plan1);
    free(plan4);
    for (int k = 0; k < 3; k++) fixture_remove(&f[k]);
}

int main(void) {
    clear_launchers();
    setenv("OMP_NUM_THREADS", "1", 1);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(environments),
        cmocka_unit_test(a_rank_knows_its_gpu),
        cmocka_unit_test(commands_that_have_ranks_ask_the_launcher),
        cmocka_unit_test(launched_ranks_are_forked_ranks),
        cmocka_unit_test(ranks_must_be_given_the_same),
        cmocka_unit_test(a_rank_that_does_not_come_is_named),
        cmocka_unit_test(a_wait_says_who_was_believed),
        cmocka_unit_test(strangers_cost_no_time),
        cmocka_unit_test(launched_ranks_notice_a_death),
        cmocka_unit_test(the_forking_process_stops_its_ranks),
        cmocka_unit_test(sft_eval_and_plan),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
