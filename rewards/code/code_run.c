// Runs a model's program against test cases. Every case is a process in its own sandbox, and the verdict is made here,
// outside: expected outputs and results never enter the sandbox. Test code has to run beside the program it tests; that
// it reached its end is proven by a nonce, which it reads from a pipe only then and prints.
#include "code.h"
#include "clock.h"
#include "process.h"
#include "signals.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#define DISK           (64 << 20)
#define OUTPUT         (1 << 20) // bytes of output allowed beyond twice what is expected
#define COMPILE_S      30
#define COMPILE_MEMORY ((int64_t)4 << 30)
#define BINARY         (32 << 20)
#define NONCE          32 // hexadecimal digits

// The Python harness: runs the program in a module of its own, then the test code in it, or calls its function. What
// the program prints goes nowhere; the result goes where standard output was, behind the nonce. sys.exit, os._exit or
// an exception leave no result. Whatever is needed after the program has run is imported before, because the program
// may change any module.
static const char harness[] = "import os, sys\n"
                              "def run(nonce):\n"
                              "    import json, types\n"
                              "    job = json.loads(sys.stdin.buffer.read())\n"
                              "    out, null = os.dup(1), os.open(os.devnull, os.O_RDWR)\n"
                              "    for fd in (0, 1, 2):\n"
                              "        os.dup2(null, fd)\n"
                              "    sys.stdin = open(os.devnull)\n"
                              "    sys.setrecursionlimit(10000)\n"
                              "    getattr(sys, 'set_int_max_str_digits', int)(0)\n"
                              "    sys.argv = ['program.py']\n"
                              "    module = types.ModuleType('program')\n"
                              "    sys.modules['program'] = module\n"
                              "    read, write, encode, leave = os.read, os.write, json.dumps, os._exit\n"
                              "    space, result, execute = module.__dict__, None, exec\n"
                              "    try:\n"
                              "        test = compile(job.pop('test', ''), 'test.py', 'exec')\n"
                              "        execute(compile(job['program'], 'program.py', 'exec'), space)\n"
                              "        if 'function' in job:\n"
                              "            owner = space.get(job['function'])\n"
                              "            if owner is None:\n"
                              "                owner = getattr(space['Solution'](), job['function'])\n"
                              "            result = owner(*job['arguments'])\n"
                              "        else:\n"
                              "            execute(test, space)\n"
                              "        line = encode(result).encode()\n"
                              "        write(out, read(nonce, 64) + line)\n"
                              "    except BaseException:\n"
                              "        leave(1)\n"
                              "    leave(0)\n"
                              "run(int(sys.argv[1]))\n";

// The harness of a C or C++ test that has its own main, which must return 0: the linker makes this run in its place and
// call it.
static const char wrapper[] = "#include <fcntl.h>\n#include <stdlib.h>\n#include <unistd.h>\n"
                              "int __real_main(int argc, char **argv);\n"
                              "int __wrap_main(int argc, char **argv) {\n"
                              "    char nonce[64];\n"
                              "    int waiting = argc == 2 ? atoi(argv[1]) : -1;\n"
                              "    int out = dup(1), null = open(\"/dev/null\", O_RDWR);\n"
                              "    if (waiting < 0 || out < 0 || null < 0) return 1;\n"
                              "    for (int fd = 0; fd < 3; fd++) dup2(null, fd);\n"
                              "    argv[1] = NULL;\n"
                              "    if (__real_main(1, argv) != 0) return 1;\n"
                              "    ssize_t n = read(waiting, nonce, sizeof nonce);\n"
                              "    return n > 0 && write(out, nonce, (size_t)n) == n ? 0 : 1;\n"
                              "}\n";
// Around the program: renames its main, in favour of the test's, and keeps it from switching off the test's assertions.
static const char native_head[] = "#define main program_main\n";
static const char native_test[] = "\n#undef main\n#undef NDEBUG\n#include <assert.h>\n";

// ---- finding what runs it -------------------------------------------------------------------------------------------

// Finds the first of the names under /usr, the only part of this machine that the sandbox has.
static bool find_program(const char *const *names, char *path, size_t n) {
    static const char *const dirs[] = {"/usr/bin", "/usr/local/bin"};
    for (; *names; names++)
        for (int d = 0; d < 2; d++) {
            char *file = xasprintf("%s/%s", dirs[d], *names), *real = realpath(file, NULL);
            bool found = real && strncmp(real, "/usr/", 5) == 0 && access(real, X_OK) == 0;
            if (found) snprintf(path, n, "%s", real);
            free(file);
            free(real);
            if (found) return true;
        }
    return false;
}

bool code_runner_open(CodeRunner *r, Error *e) {
    static const char *const python[] = {"python3", NULL}, *const c[] = {"gcc", "cc", "clang", NULL};
    static const char *const cpp[] = {"g++", "c++", "clang++", NULL};
    static const struct {
        const char *name, *package, *program, *output;
    } languages[] = {{"python3", "python3", "print(6 * 7)\n", "42"},
                     {"C compiler", "gcc", "#include <stdio.h>\nint main(void) { return puts(\"42\") < 0; }\n", "42"},
                     {"C++ compiler", "g++", "#include <iostream>\nint main() { std::cout << 42; }\n", "42"}};
    bool found = r->language == LANGUAGE_PYTHON ? find_program(python, r->python, sizeof r->python)
                 : r->language == LANGUAGE_C    ? find_program(c, r->c, sizeof r->c)
                                                : find_program(cpp, r->cpp, sizeof r->cpp);
    if (!sandbox_check(e)) return false;
    const char *name = languages[r->language].name;
    if (!found)
        return error_set(e, EXIT_CONFIG, "no %s under /usr, where the sandbox looks for it: apt-get install %s", name,
                         languages[r->language].package);
    CodeRunner patient = *r;
    patient.timeout = patient.total = 60;
    CodeCase hello = {CASE_OUTPUT, .input = (char *)"", .output = (char *)languages[r->language].output};
    CodeTask task = {.item = &hello, .n = 1};
    return code_run(&patient, text_of(languages[r->language].program), &task, true) == 1 ||
           error_set(e, EXIT_CONFIG, "the %s does not run in the sandbox within %lld MiB", name,
                     (long long)(r->memory >> 20));
}

// ---- verdicts -------------------------------------------------------------------------------------------------------

static bool next_line(Text *rest, Text *line) {
    if (!rest->s) return false;
    const char *newline = rest->n ? memchr(rest->s, '\n', rest->n) : NULL;
    *line = text_strip(newline ? text_slice(*rest, 0, (size_t)(newline - rest->s)) : *rest);
    *rest = newline ? text_from(*rest, (size_t)(newline - rest->s) + 1) : (Text){0};
    return true;
}

// Whether both have the same lines, but for white space around each.
static bool same_lines(Text got, Text want) {
    got = text_strip(got);
    want = text_strip(want);
    for (Text a, b;;) {
        bool more = next_line(&got, &a);
        if (more != next_line(&want, &b)) return false;
        if (!more || !text_equal(a, b)) return !more;
    }
}

// ---- running --------------------------------------------------------------------------------------------------------

// A program as it is run for every case.
typedef struct {
    const CodeRunner *runner;
    Str source; // of the program
    Str binary; // C and C++: compiled, for cases of the kind CASE_OUTPUT
} Program;

static SandboxJob job_for(const CodeRunner *r, double seconds) {
    return (SandboxJob){.keep = -1, .seconds = seconds, .memory = r->memory, .disk = DISK, .output = OUTPUT};
}

// Compiles `source` into *binary, with the wrapper where `wrapped`; false where the sandbox did not start. A source
// that does not compile gives an empty binary.
static bool compile(const CodeRunner *r, const Str *source, bool wrapped, double seconds, Str *binary) {
    bool cpp = r->language == LANGUAGE_CPP;
    const SandboxFile file[] = {{.path = "/box/program", .bytes = source->s, .n = source->n},
                                {.path = "/box/wrapper.c", .bytes = wrapper, .n = strlen(wrapper)}};
    static const char script[] = "PATH=/usr/bin:/bin\nexport PATH\ncompiler=$1 language=$2 standard=$3\nshift 3\n"
                                 "\"$compiler\" -O1 -w -x \"$language\" \"$standard\" /box/program \"$@\" -x none "
                                 "-o /tmp/program -lm && cat /tmp/program";
    SandboxJob job = job_for(r, seconds < COMPILE_S ? seconds : COMPILE_S);
    const char *argv[] = {"/bin/sh",
                          "-c",
                          script,
                          "sh",
                          cpp ? r->cpp : r->c,
                          cpp ? "c++" : "c",
                          cpp ? "-std=gnu++17" : "-std=gnu17",
                          NULL,
                          NULL,
                          NULL,
                          NULL,
                          NULL,
                          NULL};
    const char *const more[] = {"-x", "c", "/box/wrapper.c", "-Wl,--wrap=main"};
    if (wrapped) memcpy(argv + 7, more, sizeof more);
    job.argv = argv;
    job.file = file;
    job.n_files = 2;
    job.processes = true;
    job.memory = COMPILE_MEMORY;
    job.output = BINARY;
    int status;
    SandboxEnd end = sandbox_run(&job, binary, &status);
    if (end != SANDBOX_EXITED || status != 0) str_clear(binary);
    return end != SANDBOX_FAILED;
}

// Makes a pipe that holds a fresh nonce. Returns its read end; the nonce, in hexadecimal, in *nonce.
static int nonce_pipe(char *nonce) {
    unsigned char bytes[NONCE / 2];
    int end[2];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes) die("no random numbers");
    for (size_t i = 0; i < sizeof bytes; i++) snprintf(nonce + 2 * i, 3, "%02x", bytes[i]);
    if (pipe2(end, O_CLOEXEC)) return -1;
    int high = fcntl(end[0], F_DUPFD_CLOEXEC, 3);
    bool wrote = write(end[1], nonce, NONCE) == NONCE;
    close(end[0]);
    close(end[1]);
    if (!wrote && high >= 0) close(high);
    return wrote ? high : -1;
}

// Runs a job that must print the nonce; *out gets what it printed after it, and is empty where it did not.
static SandboxEnd run_with_nonce(SandboxJob *job, const char **number, Str *out) {
    char nonce[NONCE + 1], text[16];
    int status;
    job->keep = nonce_pipe(nonce);
    if (job->keep < 0) return SANDBOX_FAILED;
    snprintf(text, sizeof text, "%d", job->keep);
    *number = text;
    SandboxEnd end = sandbox_run(job, out, &status);
    close(job->keep);
    *number = NULL;
    bool answered = end == SANDBOX_EXITED && status == 0 && out->n >= NONCE && memcmp(out->s, nonce, NONCE) == 0;
    if (!answered) end = end == SANDBOX_EXITED ? SANDBOX_FLOOD : end;
    if (answered) {
        memmove(out->s, out->s + NONCE, out->n - NONCE + 1);
        out->n -= NONCE;
    }
    return end;
}

typedef enum { RUN_FAILED = -1, RUN_WRONG, RUN_PASSED } RunResult;

static RunResult run_output(const Program *p, const CodeCase *c, double seconds) {
    SandboxJob job = job_for(p->runner, seconds);
    bool python = p->runner->language == LANGUAGE_PYTHON;
    SandboxFile file = {.path = python ? "/box/program.py" : "/box/program",
                        .bytes = python ? p->source.s : p->binary.s,
                        .n = python ? p->source.n : p->binary.n,
                        .executable = !python};
    if (!file.n) return RUN_WRONG;
    job.argv = python ? (const char *const[]){p->runner->python, "-I", "-B", file.path, NULL}
                      : (const char *const[]){file.path, NULL};
    job.input = c->input;
    job.input_bytes = strlen(c->input);
    job.file = &file;
    job.n_files = 1;
    job.output += 2 * strlen(c->output);
    Str out = {0};
    int status;
    SandboxEnd end = sandbox_run(&job, &out, &status);
    bool passed = end == SANDBOX_EXITED && status == 0 && same_lines((Text){out.s, out.n}, text_of(c->output));
    str_free(&out);
    return end == SANDBOX_FAILED ? RUN_FAILED : passed;
}

static RunResult run_python(const Program *p, const CodeTask *task, const CodeCase *c, double seconds) {
    Str input = {0}, out = {0};
    str_puts(&input, "{\"program\": ");
    str_json(&input, p->source.s, p->source.n);
    if (c->kind == CASE_CALL) {
        char *arguments = code_value_text(c->arguments);
        str_puts(&input, ", \"function\": ");
        str_json(&input, c->function, strlen(c->function));
        str_printf(&input, ", \"arguments\": %s}", arguments);
        free(arguments);
    } else {
        char *code = task->entry ? xasprintf("%s\ncheck(%s)\n", c->input, task->entry) : xstrdup(c->input);
        str_puts(&input, ", \"test\": ");
        str_json(&input, code, strlen(code));
        str_puts(&input, "}");
        free(code);
    }
    const char *argv[] = {p->runner->python, "-I", "-B", "-c", harness, NULL, NULL};
    SandboxJob job = job_for(p->runner, seconds);
    job.argv = argv;
    job.input = input.s;
    job.input_bytes = input.n;
    SandboxEnd end = run_with_nonce(&job, &argv[5], &out);
    json_t *got = end == SANDBOX_EXITED ? code_value_read((Text){out.s, out.n}) : NULL;
    bool passed = got && (c->kind == CASE_CALL ? code_same_result(got, c->result) : json_is_null(got));
    json_decref(got);
    str_free(&input);
    str_free(&out);
    return end == SANDBOX_FAILED ? RUN_FAILED : passed;
}

static RunResult run_native(const Program *p, const CodeCase *c, double seconds) {
    Str source = {0}, binary = {0}, out = {0};
    str_puts(&source, native_head);
    str_add(&source, p->source.s, p->source.n);
    str_printf(&source, "%s%s\n", native_test, c->input);
    SandboxEnd end = compile(p->runner, &source, true, COMPILE_S, &binary) ? SANDBOX_EXITED : SANDBOX_FAILED;
    bool passed = false;
    if (binary.n) {
        SandboxFile file = {.path = "/box/program", .bytes = binary.s, .n = binary.n, .executable = true};
        const char *argv[] = {file.path, NULL, NULL};
        SandboxJob job = job_for(p->runner, seconds);
        job.argv = argv;
        job.file = &file;
        job.n_files = 1;
        end = run_with_nonce(&job, &argv[1], &out);
        passed = end == SANDBOX_EXITED && out.n == 0;
    }
    str_free(&source);
    str_free(&binary);
    str_free(&out);
    return end == SANDBOX_FAILED ? RUN_FAILED : passed;
}

static RunResult run_case(const Program *p, const CodeTask *task, const CodeCase *c, double seconds) {
    if (c->kind == CASE_OUTPUT) return run_output(p, c, seconds);
    if (p->runner->language == LANGUAGE_PYTHON) return run_python(p, task, c, seconds);
    return c->kind == CASE_TEST ? run_native(p, c, seconds) : RUN_WRONG; // C has no call by a name
}

// Whether the block is a whole program, rather than a continuation of the prefix.
static bool is_whole(const CodeTask *task, Text program) {
    if (!task->entry) return true;
    Text t = program;
    char *definition = xasprintf("%s(", task->entry); // in every language here, and a function's use comes after it
    size_t at = text_find(t, 0, text_of(definition));
    free(definition);
    bool begins = text_word_at(t, 0, " ") || text_word_at(t, 0, "\t");
    return (at != TEXT_NONE && !begins) || text_find(t, 0, text_of("class Solution")) != TEXT_NONE;
}

int code_run(const CodeRunner *r, Text program, const CodeTask *task, bool all) {
    Program p = {.runner = r};
    if (task->prefix) str_printf(&p.source, "%s%s", task->prefix, is_whole(task, program) ? "\n" : "");
    str_add(&p.source, program.s, program.n);
    int64_t begin = clock_ms();
    bool native = r->language != LANGUAGE_PYTHON && task->item[0].kind == CASE_OUTPUT;
    int passed = !native || compile(r, &p.source, false, r->total, &p.binary) ? 0 : -1;
    for (int i = 0; i < task->n && passed >= 0; i++) {
        double left = r->total - (double)(clock_ms() - begin) / 1000;
        if (left <= 0 || stop_asked()) break;
        RunResult result = run_case(&p, task, &task->item[i], left < r->timeout ? left : r->timeout);
        // With next to no time left not even a sandbox begins: the cases before took the time.
        bool cut = i > 0 && left < r->timeout;
        if (result == RUN_FAILED && !cut) passed = -1;
        else passed += result == RUN_PASSED;
        if (all && result != RUN_PASSED) break;
    }
    str_free(&p.source);
    str_free(&p.binary);
    return passed;
}
