// Odd places to start the program in: variables, limits, closed descriptors, full pipes, containers. An error or the
// right result, never a signal's death.
#include "file.h"
#include "machine.h"
#include "output.h"
#include "ranks_output.h"
#include "str.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

static char dir[] = "/tmp/grpo-environment-XXXXXX";

// Runs a line of shell in which $G is the program, $D the folder; its outputs in *out and *err. The exit code; below 0:
// a signal.
static int shell(const char *line, Str *out, Str *err) {
    setenv("G", program(), 1);
    setenv("D", dir, 1);
    char *whole = xasprintf("( %s ) >%s/out 2>%s/err", line, dir, dir);
    int status = system(whole);
    free(whole);
    Str *to[] = {out, err};
    for (int i = 0; i < 2; i++) {
        char *path = xasprintf("%s/%s", dir, i ? "err" : "out"), block[4096];
        FILE *f = fopen(path, "r");
        assert_non_null(f);
        str_clear(to[i]);
        str_puts(to[i], "");
        for (size_t n; (n = fread(block, 1, sizeof block, f)) > 0;) str_add(to[i], block, n);
        fclose(f);
        free(path);
    }
    int code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return code > 128 ? 128 - code : code;
}

#define SAMPLE                                                                                                         \
    "$G sample model=models/tiny init=random dtype=f32 chat_template=r1-zero prompt=hello max_completion_length=8 "    \
    "temperature=0"

// A sanitizer's own memory and threads do not fit into such limits either.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static const bool sanitized = true;
#else
static const bool sanitized = false;
#endif

// Whether there was too little memory for a build with CUDA itself or the libraries that it is linked with: no line of
// ours ran. The kernel ends a program that it cannot map by SIGSEGV, then also one that is only asked for its version.
static bool never_started(int code, const Str *err, const char *before) {
    if (code == 127 && err->s && strstr(err->s, "error while loading shared libraries")) return true;
    if (code != -SIGSEGV) return false;
    Str out = {0}, said = {0};
    char *line = xasprintf("%s $G --version", before);
    int version = shell(line, &out, &said);
    free(line), str_free(&out), str_free(&said);
    return version == -SIGSEGV;
}

static void variables_and_limits(void **state) {
    static const struct {
        const char *before; // of the command
        int code;
        const char *says; // on standard error
    } cases[] = {
        {"OMP_NUM_THREADS=100000", EXIT_CONFIG, "OMP_NUM_THREADS is 100000, but there"},
        {"OMP_NUM_THREADS=many", 0, "OMP_NUM_THREADS is `many`, which OpenMP's library refuses"},
        {"OMP_NUM_THREADS=1,2", 0, ""},
        {"OMP_THREAD_LIMIT=1", 0, ""},
        {"OMP_DYNAMIC=true", 0, ""},
        {"OMP_MAX_ACTIVE_LEVELS=0", 0, ""},
        {"OMP_SCHEDULE=whatever", 0, "OMP_SCHEDULE is `whatever`"},
        {"OMP_WAIT_POLICY=lazy", 0, "OMP_WAIT_POLICY is `lazy`"},
        {"OMP_STACKSIZE=2047k", EXIT_CONFIG, "OMP_STACKSIZE is `2047k`, but a thread needs"},
        {"OMP_STACKSIZE=2048k", 0, ""},
        {"OMP_STACKSIZE=16k", EXIT_CONFIG, "OMP_STACKSIZE is `16k`, but a thread needs"},
        {"OMP_NUM_THREADS=2 OMP_STACKSIZE=900000g", EXIT_MEMORY, "thread"},
        {"OMP_PROC_BIND=true", 0, ""},
        {"OMP_PLACES='{0}'", 0, ""},
        {"GOMP_CPU_AFFINITY=0", 0, ""},
        {"GOMP_CPU_AFFINITY=x", 0, "GOMP_CPU_AFFINITY is `x`"},
        {"LC_ALL=tr_TR.UTF-8 HOME= PATH= TMPDIR=/nowhere TERM= COLUMNS=x", 0, ""},
        {"ulimit -s 128;", EXIT_MEMORY, "a stack may grow to 128 KiB here"},
        {"ulimit -Ss 64;", 0, ""},
        {"ulimit -s unlimited;", 0, ""},
        {"ulimit -v 90000;", EXIT_MEMORY,
         "this process is limited to 87 MiB, whatever else is free: allow more (ulimit -v)"},
        {"ulimit -d 20000;", EXIT_MEMORY,
         "this process is limited to 19 MiB, whatever else is free: allow more (ulimit -d)"},
        {"ulimit -n 6;", 0, ""},
    };
    Str out = {0}, err = {0}, right = {0};
    assert_int_equal(shell(SAMPLE, &right, &err), 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *line = xasprintf("%s " SAMPLE, cases[i].before);
        bool tight = sanitized && cases[i].code == EXIT_MEMORY;
        int code = tight ? 0 : shell(line, &out, &err);
        if (tight || never_started(code, &err, cases[i].before)) {
            printf("SKIP %s too little for what this build is linked with\n", cases[i].before);
            free(line);
            continue;
        }
        if (code != cases[i].code || !strstr(err.s, cases[i].says)) fail_msg("%s: %d: %s", line, code, err.s);
        if (!code && strcmp(out.s, right.s)) fail_msg("%s: %s", line, out.s);
        free(line);
    }
    // The least stack, and a large environment in it: there is no more of it to grow than the program needs.
    if (!sanitized &&
        shell("ulimit -s 2048; ulimit -v 4000000; export A=$(printf %0100000d 1); export B=$A C=$A D=$A; " SAMPLE, &out,
              &err))
        fail_msg("%s", err.s);
    assert_int_equal(shell(SAMPLE " threads=1024", &out, &err), EXIT_CONFIG);
    assert_non_null(strstr(err.s, "threads is 1024, but there"));
    str_free(&out), str_free(&err), str_free(&right);
}

static void a_bound_first_thread_binds_no_other(void **state) {
    if (machine_cores(1) < 2) {
        printf("SKIP a_bound_first_thread_binds_no_other: one core\n");
        skip();
    }
    static const char *const bind[] = {"GOMP_CPU_AFFINITY=0-1", "OMP_PROC_BIND=true",
                                       "GOMP_CPU_AFFINITY=0 OMP_PLACES=cores"};
    Str out = {0}, err = {0};
    for (int i = 0; i < 3; i++) {
        char *line = xasprintf("%s $G doctor", bind[i]), about[32];
        assert_int_equal(shell(line, &out, &err), 0);
        snprintf(about, sizeof about, "CPU, %d threads", machine_cores(1));
        if (!strstr(out.s, about)) fail_msg("%s: %s", bind[i], out.s);
        free(line);
    }
    str_free(&out), str_free(&err);
}

#define TRAIN                                                                                                          \
    "$G train model=models/tiny init=random dtype=f32 chat_template=r1-zero max_prompt_length=96 "                     \
    "max_completion_length=12 num_generations=4 per_device_train_batch_size=4 gradient_accumulation_steps=1 "          \
    "save_steps=2 progress=plain rewards=xmlcount threads=1 train_file=$D/train.jsonl output_dir=$D/run "

static int train_within(int kib, Str *out, Str *err) {
    char *line = xasprintf("rm -rf $D/run; ulimit -v %d; " TRAIN "reward_threads=4 max_steps=1", kib);
    int code = shell(line, out, err);
    free(line);
    return code;
}

// What runs within a limit runs within every larger one: nothing reserves a share of it for each thread.
static void more_address_space_is_never_too_little(void **state) {
    Str out = {0}, err = {0};
    int least = 0;
    for (int kib = 100000; kib <= (least ? least + 200000 : 2000000) && !sanitized; kib += 20000) {
        int code = train_within(kib, &out, &err);
        char *limit = xasprintf("ulimit -v %d;", kib);
        bool never = never_started(code, &err, limit);
        free(limit);
        if (never) continue;
        if (!code && !least) least = kib;
        if (code && least) fail_msg("enough: %d KiB; too little: %d KiB: %s", least, kib, err.s);
        if (code && (code != EXIT_MEMORY || !strstr(err.s, "ulimit -v") || strstr(err.s, "end them")))
            fail_msg("%d: %d: %s", kib, code, err.s);
    }
    assert_true(sanitized || least);
    // Close below the least, where the last thing to grow is a stack: out of memory is an error there too, no crash.
    int low = least - 20000;
    while (!sanitized && least - low > 100) {
        int middle = (low + least) / 2;
        *(train_within(middle, &out, &err) ? &low : &least) = middle;
    }
    for (int kib = low; !sanitized && kib > low - 2500; kib -= 100) {
        int code = train_within(kib, &out, &err);
        if (code && code != EXIT_MEMORY) fail_msg("%d KiB: %d: %s", kib, code, err.s);
    }
    str_free(&out), str_free(&err);
}

// With too few open files a reward's program is refused by that reason, however far its start has come.
static void few_descriptors_are_named(void **state) {
    Str out = {0}, err = {0};
    int refused = 0;
    for (int files = 12; files < 32; files++) {
        char *line = xasprintf("rm -rf $D/run; ulimit -n %d; " TRAIN "max_steps=1 rewards=external:command=cat", files);
        int code = shell(line, &out, &err);
        bool said = strstr(err.s, "Too many open files; allow more open files (ulimit -n)");
        if (strstr(err.s, "Bad file descriptor") || (strstr(err.s, "cannot be started") && !said))
            fail_msg("%s: %d: %s", line, code, err.s);
        refused += said;
        free(line);
    }
    assert_true(refused > 0);
    str_free(&out), str_free(&err);
}

static void closed_descriptors_are_nobodys_file(void **state) {
    static const char *const closed[] = {">&-", ">&- 2>&-", "<&- >&- 2>&-"};
    Str out = {0}, err = {0};
    for (int i = 0; i < 3; i++) {
        char *line = xasprintf(
            "rm -rf $D/run; " TRAIN "max_steps=2 %s; c=$?; grep -vc '^{.*}$' $D/run/metrics.jsonl; exit $c", closed[i]);
        int code = shell(line, &out, &err);
        if (code || strcmp(out.s, "0\n")) fail_msg("%s: %d: %s%s", closed[i], code, out.s, err.s);
        free(line);
    }
    str_free(&out), str_free(&err);
}

// The least that program.c accepts is enough for forward and backward products, in either dtype.
static void the_least_stacks_train(void **state) {
    Str out = {0}, err = {0};
    for (int bf16 = 0; bf16 < 2; bf16++) {
        char *line = xasprintf("rm -rf $D/run; ulimit -s 2048; export OMP_STACKSIZE=2048k; " TRAIN
                               "max_steps=2 threads=2 max_completion_length=96 dtype=%s",
                               bf16 ? "bf16" : "f32");
        int code = shell(line, &out, &err);
        if (code) fail_msg("%s: %d: %s", line, code, err.s);
        free(line);
    }
    str_free(&out), str_free(&err);
}

static void a_file_at_its_limit_is_a_full_disk(void **state) {
    Str out = {0}, err = {0};
    int code = shell("rm -rf $D/run; " TRAIN "max_steps=2; ulimit -f 200; " TRAIN "max_steps=4", &out, &err);
    if (code != EXIT_DISK || !strstr(err.s, "(ulimit -f)")) fail_msg("%d: %s", code, err.s);
    code = shell(TRAIN "max_steps=4; ls -d $D/run/step_4", &out, &err); // nothing is lost: it goes on
    if (code) fail_msg("%d: %s%s", code, out.s, err.s);
    code = shell("ulimit -f 1; $G config --reference >$D/page", &out, &err); // longer than a stream's buffer
    if (code != EXIT_DISK || !strstr(err.s, "(ulimit -f)")) fail_msg("%d: %s", code, err.s);
    errno = EDQUOT;
    assert_non_null(strstr(error_write(errno), "quota"));
    str_free(&out), str_free(&err);
}

// Standard output is a pipe that nobody reads: the run waits, and a signal ends it all the same.
static void a_full_pipe_holds_up_no_stop(void **state) {
    for (int both = 0; both < 2; both++) {
        int fd[2];
        assert_int_equal(pipe(fd), 0);
        char *line =
            xasprintf("rm -rf %s/run; exec " TRAIN "max_steps=1000000 save_steps=0%s", dir, both ? " 2>&1" : "");
        char blank[4096];
        memset(blank, ' ', sizeof blank);
        fcntl(fd[1], F_SETFL, O_NONBLOCK);
        while (write(fd[1], blank, sizeof blank) > 0) continue;
        fcntl(fd[1], F_SETFL, 0);
        fflush(NULL);
        pid_t pid = fork();
        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            dup2(fd[1], STDOUT_FILENO);
            execl("/bin/sh", "sh", "-c", line, NULL);
            _exit(127);
        }
        free(line);
        nanosleep(&(struct timespec){2, 0}, NULL);
        double start = clock_seconds();
        kill(pid, SIGTERM);
        int status = 0, seen = 0;
        while (!(seen = waitpid(pid, &status, WNOHANG)) && since(start) < 8)
            nanosleep(&(struct timespec){0, 20000000}, NULL);
        if (!seen) kill(pid, SIGKILL), waitpid(pid, &status, 0);
        if (!WIFEXITED(status) || WEXITSTATUS(status) != EXIT_STOPPED) fail_msg("status %x", status);
        assert_true(since(start) < 4);
        close(fd[0]);
        close(fd[1]);
    }
}

static void put(const char *name, const char *text) {
    char *path = xasprintf("%s%s", dir, name);
    for (char *at = strchr(path + strlen(dir) + 1, '/'); at; at = strchr(at + 1, '/')) {
        *at = 0;
        mkdir(path, 0777);
        *at = '/';
    }
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    free(path);
}

static void containers_limit(void **state) {
    char *root = xasprintf("%s/v2", dir);
    size_t unused;
    put("/v2/proc/self/cgroup", "0::/a/b\n");
    put("/v2/proc/self/mountinfo", "31 23 0:28 / /cg rw - cgroup2 cgroup2 rw\n");
    put("/v2/cg/a/b/memory.max", "max\n");
    put("/v2/cg/a/memory.max", "419430400\n");
    put("/v2/cg/a/memory.current", "104857600\n");
    put("/v2/cg/a/memory.stat", "anon 1\ninactive_file 4857600\n");
    put("/v2/cg/a/cpu.max", "150000 100000\n");
    assert_int_equal(cgroup_memory(root, &unused), 419430400);
    assert_int_equal(unused, 319430400);
    assert_true(cgroup_cpus(root) == 1.5);
    free(root);
    // A container that sees its own cgroup as the root of the mount, and its path from outside.
    root = xasprintf("%s/v1", dir);
    put("/v1/proc/self/cgroup", "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n0::/\n");
    put("/v1/proc/self/mountinfo", "32 31 0:29 /docker/x /cg/memory rw - cgroup cgroup rw,memory\n"
                                   "33 31 0:30 /docker/x /cg/cpu rw - cgroup cgroup rw,cpu,cpuacct\n");
    put("/v1/cg/memory/memory.limit_in_bytes", "9223372036854771712\n");
    put("/v1/cg/cpu/cpu.cfs_quota_us", "-1\n");
    put("/v1/cg/cpu/cpu.cfs_period_us", "100000\n");
    assert_true(cgroup_memory(root, &unused) == SIZE_MAX && unused == SIZE_MAX);
    assert_true(cgroup_cpus(root) == 0);
    put("/v1/cg/memory/memory.limit_in_bytes", "1000000\n");
    put("/v1/cg/cpu/cpu.cfs_quota_us", "200000\n");
    assert_int_equal(cgroup_memory(root, &unused), 1000000);
    assert_true(cgroup_cpus(root) == 2);
    free(root);
    assert_true(cgroup_memory("/nowhere", &unused) == SIZE_MAX);
    // No more is free than the limits of this process leave.
    static const __rlimit_resource_t own[] = {RLIMIT_AS, RLIMIT_DATA};
    for (int i = 0; i < 2 && !sanitized; i++) { // a sanitizer itself wants more
        const struct rlimit limit = {(rlim_t)1 << 31, RLIM_INFINITY};
        pid_t child = fork();
        if (!child) _exit(setrlimit(own[i], &limit) || machine_memory_free() >= limit.rlim_cur);
        int status;
        assert_true(waitpid(child, &status, 0) == child && status == 0);
    }
    Str out = {0}, err = {0};
    int code = sanitized ? 127
                         : shell("ulimit -v 400000; $G plan model=models/tiny per_device_train_batch_size=256 "
                                 "max_prompt_length=200 max_completion_length=800",
                                 &out, &err);
    if (sanitized || never_started(code, &err, "ulimit -v 400000;"))
        printf("SKIP ulimit -v: too little for what this build is linked with\n");
    else if (code || !strstr(out.s, "this process under ulimit -v has") || !strstr(out.s, "short by"))
        fail_msg("%s", out.s);
    str_free(&out), str_free(&err);
}

static void controls_stay_text(void **state) {
    Str s = {0};
    str_json(&s,
             "a\xc2\x9b"
             "b\xc2\xa0\x9b\x1b",
             8);
    assert_string_equal(s.s, "\"a\\u009bb\xc2\xa0\\ufffd\\u001b\"");
    str_free(&s);
    static const char *const none[] = {"", "dumb"};
    for (int i = 0; i < 2; i++) {
        setenv("TERM", none[i], 1);
        assert_false(output_is_screen(STDERR_FILENO));
    }
    setenv("TERM", "xterm", 1);
}

static int make_folder(void **state) {
    if (!mkdtemp(dir)) return -1;
    Str rows = {0};
    for (int i = 0; i < 20; i++) str_printf(&rows, "{\"question\": \"%d+1?\", \"answer\": \"#### %d\"}\n", i, i + 1);
    put("/train.jsonl", rows.s);
    str_free(&rows);
    return 0;
}
static int remove_folder(void **state) { return nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS); }

int main(void) {
    clear_launchers();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(variables_and_limits),
        cmocka_unit_test(more_address_space_is_never_too_little),
        cmocka_unit_test(a_bound_first_thread_binds_no_other),
        cmocka_unit_test(few_descriptors_are_named),
        cmocka_unit_test(closed_descriptors_are_nobodys_file),
        cmocka_unit_test(the_least_stacks_train),
        cmocka_unit_test(a_file_at_its_limit_is_a_full_disk),
        cmocka_unit_test(a_full_pipe_holds_up_no_stop),
        cmocka_unit_test(containers_limit),
        cmocka_unit_test(controls_stay_text),
    };
    return cmocka_run_group_tests_name("environment", tests, make_folder, remove_folder);
}
