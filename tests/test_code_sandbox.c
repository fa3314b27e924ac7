// What the sandbox of a code reward holds: files, network, processes, time, and verdicts that nobody can forge.
#include "clock.h"
#include "code_fixture.h"
#include "scratch.h"
#include "signals.h"
#include <arpa/inet.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>

// The probe prints "held" where it got nowhere.
static const char held[] = "{\"inputs\": [\"\"], \"outputs\": [\"held\"]}";

static void assert_held(const Reward *r, const char *code) {
    float score = run_python(r, code, held);
    if (score == 1) return;
    static const char any[] = "{\"inputs\": [\"\"], \"outputs\": [\"\"]}";
    fail_msg("this probe got out, or did not run (%g, %g):\n%s", (double)score, (double)run_python(r, code, any), code);
}

#define TRIED                                                                                                          \
    "def tried(f, *a):\n    try:\n        return f(*a)\n    except (OSError, MemoryError, RuntimeError): return "      \
    "None\n"                                                                                                           \
    "import os, sys, ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"

// However many test cases are left, and however long each may hang.
static void a_stop_ends_what_runs(void **state) {
    Reward r = need("a_stop_ends_what_runs", "code:timeout=60,total_timeout=600");
    pid_t run = fork();
    if (run == 0) {
        signals_install(false);
        if (!freopen("/dev/null", "w", stderr)) _exit(1);
        run_python(&r, "while True: pass", "{\"inputs\": [\"\", \"\", \"\"], \"outputs\": [\"1\", \"2\", \"3\"]}");
        _exit(0);
    }
    nanosleep(&(struct timespec){1, 0}, NULL);
    double start = clock_seconds();
    int status;
    kill(run, SIGTERM);
    assert_int_equal(waitpid(run, &status, 0), run);
    assert_int_equal(status, 0);
    assert_true(clock_seconds() - start < 5);
    reward_close(&r);
}

static void network_is_not_there(void **state) {
    Reward r = need("network_is_not_there", "code:timeout=20");
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof address;
    assert_int_equal(bind(listener, (struct sockaddr *)&address, n), 0);
    assert_int_equal(listen(listener, 1), 0);
    assert_int_equal(getsockname(listener, (struct sockaddr *)&address, &n), 0);
    char *code = xasprintf(TRIED "import socket\n"
                                 "def dial():\n    s = socket.socket(); s.connect(('127.0.0.1', %d)); return s\n"
                                 "def udp():\n    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); return "
                                 "s.sendto(b'x', ('8.8.8.8', 53))\n"
                                 "def unix():\n    s = socket.socket(socket.AF_UNIX); return s\n"
                                 "print('out' if tried(dial) or tried(udp) or tried(unix) else 'held')",
                           ntohs(address.sin_port));
    assert_held(&r, code);
    free(code);
    assert_held(&r, TRIED "print('held' if libc.socket(16, 3, 0) < 0 else 'out')"); // netlink
    close(listener);
    reward_close(&r);
}

static void files_are_not_there(void **state) {
    Reward r = need("files_are_not_there", "code:timeout=20");
    put_text(at("secret"), "secret");
    assert_int_equal(chmod(at("secret"), 0644), 0);
    assert_int_equal(chmod(scratch, 0755), 0);
    char cwd[4096];
    assert_non_null(getcwd(cwd, sizeof cwd));
    char *code = xasprintf(TRIED "paths = ['%s', '%s', '/etc/passwd', '/etc/shadow', '/root', '/home', '/var', '/etc', "
                                 "'/proc/1/root/etc', '/proc/self/root/etc/passwd', '/sys', '/boot', '/run']\n"
                                 "seen = [p for p in paths if os.path.exists(p)]\n"
                                 "print(seen or 'held')",
                           at("secret"), cwd);
    assert_held(&r, code);
    free(code);
    assert_held(&r,
                TRIED "made = [p for p in ['/x', '/usr/x', '/usr/bin/x', '/dev/x', '/dev/shm/x', '/box/x', '/bin/x', "
                      "'/proc/x'] if tried(open, p, 'w')]\nprint(made or 'held')");
    assert_held(&r, TRIED "open('/tmp/grpo-probe', 'w').write('y')\nprint('held' if open('/tmp/grpo-probe').read() == "
                          "'y' else 'no /tmp')");
    assert_held(&r, TRIED "print('held' if not os.path.exists('/tmp/grpo-probe') else 'the last program was here')");
    assert_false(exists("/tmp/grpo-probe"));
    assert_held(&r,
                TRIED "open('/proc/self/oom_score_adj').read()\n"
                      "bad = [p for p in ['/proc/sysrq-trigger', '/proc/sys/kernel/hostname', '/dev/kmsg', '/dev/mem', "
                      "'/proc/kcore'] if tried(open, p, 'wb') or tried(open, p, 'rb')  and 'hostname' not in p]\n"
                      "print(bad or 'held')");
    reward_close(&r);
}

static void environment_and_descriptors_are_empty(void **state) {
    assert_int_equal(setenv("GRPO_CANARY", "canary-4711", 1), 0);
    int leak = open("/dev/zero", O_RDONLY); // without O_CLOEXEC
    Reward r = need("environment_and_descriptors_are_empty", "code:timeout=20");
    assert_held(&r, TRIED "import glob\n"
                          "found = b'canary-4711' in str(dict(os.environ)).encode()\n"
                          "for p in glob.glob('/proc/[0-9]*/environ') + glob.glob('/proc/[0-9]*/cmdline'):\n"
                          "    f = tried(open, p, 'rb')\n"
                          "    found = found or (f and b'canary' in tried(f.read))\n"
                          "print('out' if found else 'held')");
    assert_held(&r, TRIED "keep = [k for k in os.environ if k not in ('PWD', 'LC_CTYPE', 'SHLVL', '_', 'OLDPWD')]\n"
                          "print(keep or 'held')");
    assert_held(
        &r,
        TRIED "fds = os.listdir('/proc/self/fd')\nprint('held' if len(fds) <= 4 and max(map(int, fds)) <= 3 else fds)");
    assert_held(&r, TRIED
                "pids = [p for p in os.listdir('/proc') if p.isdigit()]\nprint('held' if len(pids) <= 3 else pids)");
    assert_held(&r, TRIED "import glob\n"
                          "maps = {open(p).read().split()[1] for p in glob.glob('/proc/[0-9]*/[ug]id_map')}\n"
                          "told = [open(p).read() for p in glob.glob('/proc/key*')]\n"
                          "print('held' if maps == {'65534'} and not any(told) else (maps, told))");
    assert_held(&r, TRIED
                "dev = set(os.listdir('/dev'))\n"
                "works = open('/dev/null', 'w').write('x') == 1 and len(open('/dev/urandom', 'rb').read(8)) == 8\n"
                "want = set('null zero full random urandom fd stdin stdout stderr'.split())\n"
                "print('held' if works and dev == want else dev)");
    close(leak);
    unsetenv("GRPO_CANARY");
    reward_close(&r);
}

static void the_kernel_is_out_of_reach(void **state) {
    Reward r = need("the_kernel_is_out_of_reach", "code:timeout=20");
    static const char *const calls[] = {
        "libc.ptrace(16, 1, 0, 0)",                                                                // attach to pid 1
        "libc.ptrace(0, 0, 0, 0)",                                                                 // be traced
        "libc.mount(b'none', b'/tmp', b'tmpfs', 0, None)",                                         //
        "libc.umount2(b'/proc', 2)",                                                               //
        "libc.unshare(0x10000000)",                                                                // user namespace
        "libc.unshare(0x20000)",                                                                   // mount namespace
        "libc.syscall(56, 0x10000000 | 17, 0, 0, 0, 0) if os.uname().machine == 'x86_64' else -1", // clone: new user
        "libc.syscall(435, 0, 88)",                                                                // clone3
        "libc.setns(0, 0)",                                                                        //
        "libc.chroot(b'/tmp')",                                                                    //
        "libc.setuid(0)",                                                                          //
        "libc.sethostname(b'x', 1)",                                                               //
        "libc.syscall(321, 0, 0, 0) if os.uname().machine == 'x86_64' else -1",                    // bpf
        "libc.syscall(425, 1, 0)",                                                                 // io_uring_setup
        "libc.memfd_create(b'x', 0)",                                                              //
        "libc.shmget(0, 4096, 0o600)",                                                             //
        "libc.kill(-1, 0) if len([p for p in os.listdir('/proc') if p.isdigit()]) > 3 else -1",
        "libc.prlimit(0, 9, (ctypes.c_ulong * 2)(2**40, 2**40), None)", // raise RLIMIT_AS
    };
    for (size_t i = 0; i < sizeof calls / sizeof *calls; i++) {
        char *code = xasprintf(TRIED "print('held' if (%s) < 0 else 'out')", calls[i]);
        assert_held(&r, code);
        free(code);
    }
    assert_held(&r, TRIED
                "s = dict(l.split(':', 1) for l in open('/proc/self/status').read().splitlines())\n"
                "caps = [s[k].strip().strip('0') for k in ('CapEff', 'CapPrm', 'CapInh', 'CapAmb', 'CapBnd')]\n"
                "print('held' if not any(caps) and s['NoNewPrivs'].strip() == '1' and s['Seccomp'].strip() == '2' "
                "and os.getuid() not in (0,) else s)");
    reward_close(&r);
}

static void bombs_go_off_inside(void **state) {
    Reward r = need("bombs_go_off_inside", "code:timeout=20,memory=256");
    assert_held(&r, TRIED "print('out' if tried(os.fork) is not None else 'held')");
    assert_held(&r, TRIED "print('held' if libc.vfork() < 0 else 'out')");
    assert_held(&r, TRIED "import subprocess\nprint('out' if tried(subprocess.run, ['/bin/true']) else 'held')");
    assert_held(&r, TRIED "import threading\nthreading.stack_size(65536)\ngate = threading.Event()\nn = 0\n"
                          "def start():\n    threading.Thread(target=gate.wait, daemon=True).start(); return True\n"
                          "while n < 1000 and tried(start): n += 1\n"
                          "gate.set()\nprint('held' if n < 100 else n)");
    assert_held(&r, TRIED "x = []\ndef grow():\n    while len(x) < 100: x.append(bytearray(10 << 20))\n"
                          "tried(grow)\nn = len(x); x = None\nprint('held' if n < 26 else n)");
    assert_held(&r,
                TRIED "def grow():\n    n = 0\n    for i in range(100):\n        with open('/tmp/%d' % i, 'wb') as f:\n"
                      "            for k in range(8):\n                try: n += f.write(bytes(1 << 20)); f.flush()\n"
                      "                except OSError: return n\n    return n\n"
                      "n = grow()\nprint('held' if n <= 65 << 20 else n)");
    assert_held(&r, TRIED "def big():\n    f = open('/tmp/big', 'wb'); f.truncate(1 << 40)\n    return True\n"
                          "print('out' if tried(big) else 'held')");
    assert_near(run_python(&r, "x = 'a' * (10 ** 12)\nprint('held')", held), 0, 0);
    assert_near(run_python(&r, "def f(): f()\nimport sys; sys.setrecursionlimit(10**9)\nf()\nprint('held')", held), 0,
                0);
    reward_close(&r);
    // The classic, in C: no process is left over, and the test goes on.
    r = need("bombs_go_off_inside", "code:language=c,timeout=2");
    assert_near(run_code(&r, "c", "#include <unistd.h>\nint main(void) { for (;;) fork(); }", held), 0, 0);
    assert_near(
        run_code(&r, "c",
                 "#include <unistd.h>\n#include <stdio.h>\nint main(void) { puts(fork() < 0 ? \"held\" : \"out\"); }",
                 held),
        1, 0);
    assert_near(run_code(&r, "c",
                         "#include <stdlib.h>\n#include <string.h>\nint main(void) { for (;;) { char *p = malloc(1 << "
                         "20); if (p) memset(p, 1, 1 << 20); } }",
                         held),
                0, 0);
    reward_close(&r);
}

// Whether any process has `mark` on its command line.
static bool is_running(const char *mark) {
    DIR *proc = opendir("/proc");
    bool found = false;
    for (struct dirent *d; (d = readdir(proc));) {
        char path[300], line[8192];
        snprintf(path, sizeof path, "/proc/%s/cmdline", d->d_name);
        int fd = atoi(d->d_name) > 0 && atoi(d->d_name) != getpid() ? open(path, O_RDONLY | O_CLOEXEC) : -1;
        ssize_t n = fd >= 0 ? read(fd, line, sizeof line) : 0;
        found = found || (n > 0 && memmem(line, (size_t)n, mark, strlen(mark)));
        if (fd >= 0) close(fd);
    }
    closedir(proc);
    return found;
}

static void nothing_is_left_running(void **state) {
    Reward r = need("nothing_is_left_running", "code:timeout=1");
    // It starts itself again with a mark on its command line.
    assert_near(run_python(&r,
                           "import os, sys\nif 'grpo-mark-1' not in sys.argv:\n"
                           "    os.execv(sys.executable, [sys.executable, __file__, 'grpo-mark-1'])\n"
                           "print('up', flush=True)\nwhile True: pass",
                           held),
                0, 0);
    bool running = true;
    for (int i = 0; i < 200 && running; i++) {
        running = is_running("grpo-mark-1");
        if (running) nanosleep(&(struct timespec){0, 10000000}, NULL);
    }
    assert_false(running);
    assert_near(
        run_python(&r, "import os\nfor p in (-1, 1):\n    try: os.kill(p, 9)\n    except OSError: pass\nprint('held')",
                   held),
        1, 0);
    // The first process inside ends with the sandbox, unless another one has rewritten its memory.
    assert_held(&r, TRIED "print('out' if tried(open, '/proc/1/mem', 'r+b', 0) else 'held')");
    assert_held(&r, TRIED "print(os.listdir('/proc/1') or 'held')");
    reward_close(&r);
}

// A program cannot talk its way to a verdict.
static void verdicts_cannot_be_forged(void **state) {
    Reward r = need("verdicts_cannot_be_forged", "code:timeout=10");
    static const char test[] = "def check(candidate):\n    assert candidate(1) == 2\ncheck(f)";
    assert_near(run_python(&r, "def f(x):\n    return 2", test), 1, 0);
    static const char *const forged[] = {
        "import sys\nsys.exit(0)",
        "import os\nos._exit(0)",
        "raise SystemExit",
        "import os\ndef f(x):\n    os._exit(0)",
        "def f(x):\n    raise SystemExit(0)",
        "import sys\ndef f(x):\n    sys.exit(0)",
        "quit()",
        "import atexit, os\natexit.register(os._exit, 0)\nraise KeyboardInterrupt",
        "print('null')\nprint('passed')\nprint('OK')\nimport os\nos._exit(0)",
        "import os\nfor fd in range(3, 64):\n    try: os.write(fd, b'null')\n    except OSError: pass\nos._exit(0)",
        "import os\nfor fd in range(0, 64):\n    try: os.write(fd, b'0' * 32 + b'null')\n    except OSError: "
        "pass\nos._exit(0)",
        "import os, glob\nx = b''\nfor p in glob.glob('/proc/[0-9]*/cmdline') + glob.glob('/proc/*/environ'):\n"
        "    try: x += open(p, 'rb').read()\n    except OSError: pass\n"
        "for fd in range(64):\n    try: os.write(fd, x + b'null')\n    except OSError: pass\nos._exit(0)",
        "import os, sys\nf = sys._getframe()\nout = ''\nwhile f: out += str(f.f_locals) + str(f.f_globals); f = "
        "f.f_back\n"
        "for fd in range(64):\n    try: os.write(fd, out.encode() + b'null')\n    except OSError: pass\nos._exit(0)",
        "import os, signal\ndef f(x):\n    os.kill(os.getpid(), signal.SIGTERM)",
        "import threading\ndef f(x):\n    raise BaseException",
        "check = print\ndef f(x):\n    return 3",
        "__builtins__['check'] = print\ndef f(x):\n    return 3",
        "import builtins\nbuiltins.exec = print\ndef f(x):\n    return 3",
        "import builtins\nbuiltins.compile = lambda *a: 'pass'\ndef f(x):\n    return 3",
        "import sys\nsys._getframe(1).f_locals['job']['test'] = 'pass'\ndef f(x):\n    return 3",
    };
    for (size_t i = 0; i < sizeof forged / sizeof *forged; i++) {
        float score = run_python(&r, forged[i], test);
        if (score != 0) fail_msg("%g for:\n%s", (double)score, forged[i]);
    }
    // Expected results are never inside.
    static const char call[] = "{\"fn_name\": \"f\", \"inputs\": [[1]], \"outputs\": [[\"needle-8812\"]]}";
    assert_near(run_python(&r, "class Any:\n    def __eq__(self, o): return True\ndef f(x):\n    return Any()", call),
                0, 0);
    assert_near(
        run_python(
            &r,
            "import gc, re, sys\ndef f(x):\n    everything = str(gc.get_objects()) + open('/proc/self/maps').read()\n"
            "    m = re.search('needle-[0-9]+', everything.replace('needle-[0-9]', ''))\n"
            "    return [m.group(0)] if m else None",
            call),
        0, 0);
    reward_close(&r);
}

static void no_sandbox_no_run(void **state) {
    Reward r = need("no_sandbox_no_run", "code");
    char *path = xstrdup(getenv("PATH"));
    setenv("PATH", at("empty"), 1);
    assert_cannot_open("code", "bubblewrap is not installed");
    assert_int_equal(mkdir(at("bin"), 0755), 0);
    assert_int_equal(chmod(scratch, 0755), 0);
    put_text(at("bin/bwrap"), "#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2\nexit 1\n");
    assert_int_equal(chmod(at("bin/bwrap"), 0755), 0);
    setenv("PATH", at("bin"), 1);
    assert_cannot_open("binary_code:language=c", "setting up uid map: Permission denied");
    assert_cannot_open("code", "user namespaces");
    // A sandbox that is gone in the middle of a run: nothing is run, and it is counted.
    float score = run_python(&r, "print('held')", held);
    setenv("PATH", path, 1);
    free(path);
    assert_true(isnan(score));
    assert_int_equal(reward_faults(&r, REWARD_NO_SANDBOX), 1);
    assert_near(run_python(&r, "print('held')", held), 1, 0);
    reward_close(&r);
}

#define IN_SCRATCH(f) cmocka_unit_test_setup_teardown(f, scratch_setup, scratch_teardown)
int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stop_ends_what_runs),
        cmocka_unit_test(network_is_not_there),
        IN_SCRATCH(files_are_not_there),
        cmocka_unit_test(environment_and_descriptors_are_empty),
        cmocka_unit_test(the_kernel_is_out_of_reach),
        cmocka_unit_test(bombs_go_off_inside),
        cmocka_unit_test(nothing_is_left_running),
        cmocka_unit_test(verdicts_cannot_be_forged),
        IN_SCRATCH(no_sandbox_no_run),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
