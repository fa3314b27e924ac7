// What a user of the machine of tests/ptx may get wrong: command lines, launches, arguments, files; each ends in one
// line that names the file, and the line of it that is meant.
#include "ptx_run.h"
#include <sys/resource.h>
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

// One address; at most 64 threads.
static const char plain[] = HEAD("sm_80") "\n.visible .entry k(.param .u64 p) .maxntid 64 {\n"
                                          ".reg .b32 %r<4>; .reg .b64 %rd<4>;\n"
                                          "mov.u32 %r1, %tid.x;\nld.param.u64 %rd1, [p];\n"
                                          "mul.wide.u32 %rd2, %r1, 4;\nadd.u64 %rd3, %rd1, %rd2;\n"
                                          "st.global.u32 [%rd3], %r1;\nret;\n}\n";

static void launches_and_arguments(void **state) {
    static const struct {
        const char *arguments;
        int code;
        const char *says;
    } cases[] = {
        {"rule.ptx nobody grid=1 block=64 shared=0 buf:256", 3,
         "rule.ptx:14: the end, and there is no kernel nobody; there are: k (line 5)"},
        {"none.ptx k grid=1 block=64 shared=0 buf:256", 3, "cannot be opened"},
        {". k grid=1 block=64 shared=0 buf:256", 3, "cannot be read"},
        {"rule.ptx k grid=1 block=64 shared=0 in:/", 2, "/: is no file"},
        {"rule.ptx k grid=1 block=64 shared=0", 2, "rule.ptx:5: kernel k: it has 1 parameters, 0 arguments"},
        {"rule.ptx k grid=1 block=64 shared=0 buf:256 i32:1", 2, "1 parameters, 2 arguments"},
        {"rule.ptx k grid=1 block=64 shared=0 i32:1", 2, "4 bytes, where the parameter p has 8"},
        {"rule.ptx k grid=1 block=64 shared=0 in:nothing", 2, "nothing: cannot be opened"},
        {"rule.ptx k grid=1 block=64 shared=0 bof:3", 2, "bof:3"},
        {"rule.ptx k grid=1 block=64 shared=0 buf:x", 2, "no whole number"},
        {"rule.ptx k grid=1 block=64 shared=0 buf:-1", 2, "no whole number"},
        {"rule.ptx k grid=1 block=64 shared=0 u64:99999999999999999999", 2, "no whole number"},
        {"rule.ptx k grid=1 block=64 shared=0 i32:5000000000", 2, "more than 32 bits"},
        {"rule.ptx k grid=1 block=64 shared=0 units=odd buf:256", 2, "units=odd"},
        {"rule.ptx k grid=1 block=64 shared=0 colour=3 buf:256", 2, "colour=3"},
        {"rule.ptx k grid=1 block=64 shared=0 threads=0 buf:256", 2, "rule.ptx:5: kernel k: threads=0: 1 is the least"},
        {"rule.ptx k grid=1 block=64 shared=0 threads=65 buf:256", 2, "threads=65: 64 is the most"},
        {"rule.ptx k grid=1 block=64 shared=0 cluster=0 buf:256", 2, "rule.ptx:5: kernel k: cluster=0"},
        {"rule.ptx k grid=1 block=64 shared=0 regs=0 buf:256", 2, "rule.ptx:5: kernel k: regs=0: 1 is the least"},
        {"rule.ptx k grid=1 block=64 shared=0 regs=256 buf:256", 2, "regs=256: 255 is the most"},
        {"rule.ptx k grid=1 block=64 shared=0 limit=0 buf:256", 2, "limit=0: 1 is the least"},
        {"rule.ptx k grid=1 block=64 shared=0 early=2 buf:256", 2, "early=2: 1 is the most"},
        {"rule.ptx k block=64 shared=0 buf:256", 2, "rule.ptx:5: kernel k: grid=X,Y,Z is missing"},
        {"rule.ptx k grid=1 shared=0 buf:256", 2, "rule.ptx:5: kernel k: block=X,Y,Z is missing"},
        {"rule.ptx k grid=1 block=64 shared=0 out:256:", 2, "\"out:256:\" names no file: out:BYTES:FILE"},
        {"rule.ptx k grid=1 block=64 shared=0 out:256", 2, "\"out:256\" names no file: out:BYTES:FILE"},
        {"rule.ptx", 2, "ptx: a KERNEL of that file is missing: ptx FILE.ptx KERNEL grid=X,Y,Z"},
        {"rule.ptx k grid=0 block=64 shared=0 buf:256", 2,
         "rule.ptx:5: kernel k: grid=0: none of its numbers may be 0"},
        {"rule.ptx k grid=1 block=64 shared=0 f64:1", 2, "no integer, where the parameter p is .u64"},
        {"rule.ptx k grid=1 block=96 shared=0 buf:256", 1,
         "rule.ptx:5: kernel k, its launch: 96 threads, where .maxntid is 64"},
        {"rule.ptx k grid=1,70000 block=64 shared=0 buf:256", 1, "65535"},
        {"rule.ptx k grid=1 block=1,1,65 shared=0 buf:256", 1, "1024 are the most"},
        {"rule.ptx k grid=1 block=64 shared=300000 buf:256", 1, "shared memory"},
        {"rule.ptx k grid=1 block=64 shared=0 buf:255", 1, "buffer of 255 bytes"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char says[8192], *line;
        put_text(at("rule.ptx"), plain);
        line = xasprintf("%s/%s", scratch, cases[i].arguments);
        int code = ptx_run(line, says, sizeof says);
        free(line);
        if (code != cases[i].code || !strstr(says, cases[i].says))
            fail_msg("%s: %d, %s", cases[i].arguments, code, says);
        assert_true(strchr(says, '\n') && !strchr(says, '\n')[1]);
    }
}

#define ENTRY(target, text) HEAD(target) ".visible .entry k() {\n" text "\nret;\n}\n"
// What a file may say that is no kernel, or more of one than there is room for: exit code 3, or 1 where only the launch
// shows it.
static void files_that_are_none(void **state) {
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "rule.ptx:1: the end of the file, where .version should be"},
        {HEAD("sm_80"), "rule.ptx:4: the end, and there is no kernel k; there are: none"},
        {"\177ELF\2\1\1", "rule.ptx:1: a character that PTX does not know (0x7f)"},
        {"Dear reader,\n", "rule.ptx:1: Dear, where .version should be"},
        {".version 9.9\n", "rule.ptx:1: PTX 9.9 is newer than 9.4"},
        {".version 8.0\n/* no end", "rule.ptx:2: a comment that does not end"},
        {".target sm_80\n.version 8.0\n", "rule.ptx:1: .target, where .version should be"},
        {".version 8.0\n.version 8.0\n", "rule.ptx:2: .version is there twice"},
        {".version 8.0\n.global .b32 x;\n", "rule.ptx:2: .global, where .target should be"},
        {".version 8.0\n.visible .entry k() {\nret;\n}\n.target sm_80\n",
         "rule.ptx:2: .visible, where .target should be"},
        {".version 8.0\n.target sm_99\n", "rule.ptx:2: the target sm_99 is not known"},
        {".version 8.0\n.target sm_100a\n", "rule.ptx:2: the target sm_100a is not known"},
        {".version 8.0\n.target debug;", "rule.ptx:2: \";\", where a target should be"},
        {".version 7.0\n.target sm_90a\n", "rule.ptx:2: sm_90a is not known to PTX 7; 8 is the first"},
        {ENTRY("sm_80", "wgmma.fence.sync.aligned;"),
         "rule.ptx:5: wgmma.fence.sync.aligned needs .target sm_90a; the file's is sm_80"},
        {ENTRY("sm_90", "wgmma.fence.sync.aligned;"),
         "rule.ptx:5: wgmma.fence.sync.aligned needs .target sm_90a; the file's is sm_90"},
        {ENTRY("sm_80", "fence.proxy.async;"), "rule.ptx:5: fence.proxy.async needs .target sm_90"},
        {ENTRY("sm_75", "cp.async.wait_all;"), "rule.ptx:5: cp.async.wait_all needs .target sm_80"},
        {ENTRY("sm_80", "ret; }\n.visible .entry k() {"), "rule.ptx:6: k is there twice"},
        {ENTRY("sm_80", ".reg .b32 %r<4>;\n.reg .b64 %r3;"), "rule.ptx:6: %r3 is there twice"},
        {ENTRY("sm_80", ".shared .b8 x[4];\n.local .b8 x[4];"), "rule.ptx:6: x is there twice"},
        {ENTRY("sm_80", "L:\nL:"), "the label L is there twice"},
        {HEAD("sm_80") ".visible .entry k(.param .u32 a,\n.param .u32 a) {\nret;\n}\n", "rule.ptx:5: a is there twice"},
        {HEAD("sm_80") ".global .b32 x[4] = {{{{{{{{{{{{{{{{{{1", "rule.ptx:4: x: values within values"},
        {HEAD("sm_80") ".global .b32 x[4] = {1, 2, 3, 4, 5};", "more values than it has room for"},
        {HEAD("sm_80") ".global .b128 x = 1;", "values of 16 bytes"},
        {HEAD("sm_80") ".global .b8 x[3000000000];", "x is too large"},
        {ENTRY("sm_80", ".reg .b32 %r<2000000>;"), "rule.ptx:5: more than 262144 registers"},
        {HEAD("sm_80") ".visible .entry k() {\n.reg .b32 %r<9>;\nadd.u32 %r1, %r2", "rule.ptx:6: the end of the file"},
        {ENTRY("sm_80", "mov.b1024 _, 5;"), "rule.ptx:5: mov.b1024 is not an instruction"},
        {ENTRY("sm_80", ".local .b8 x[524288];\nst.local.u32 [x], 1;"),
         "rule.ptx:4: kernel k, its launch: a block of 1024 MB"},
        {ENTRY("sm_80", ".reg .b32 %r<8000>;\nL: bra L;"), "rule.ptx:6: kernel k, block (0,0,0), warp "},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char says[8192];
        int code = ptx_run_text(cases[i].text, "grid=1 block=1024 shared=0 limit=10000000", says, sizeof says);
        if ((code != 1 && code != 3) || !strstr(says, cases[i].says) || strchr(says, '\n')[1])
            fail_msg("%s: %d, %s", cases[i].text, code, says);
    }
}

// Beside a kernel's own buffers the machine takes 256 MB at most, of the largest files and blocks too.
static void memory_is_bounded(void **state) {
    enum { BUFFER = 64 };
    char says[8192], *arguments = xasprintf("grid=40 block=1024 shared=100000 out:%d:/dev/null", BUFFER << 20);
    for (int n = 600; n <= 30000; n += 29400) {
        Str text = {0};
        str_printf(&text,
                   HEAD("sm_80") ".visible .entry k(.param .u64 p) {\n.reg .b32 %%r<%d>; .local .b8 x[512];\n"
                                 "st.local.u32 [x], 1;\nbar.sync 0;\n",
                   n);
        for (int i = 0; i < 120000; i++) str_printf(&text, "add.u32 %%r%d,%%r1,3;\n", i % 600);
        str_printf(&text, "ret;\n}\n");
        int code = ptx_run_text(text.s, arguments, says, sizeof says);
        if (code != (n > 600) || (code && !strstr(says, "MB are the most")))
            fail_msg("%d registers, 120,000 instructions: %s", n, says);
        str_free(&text);
    }
    free(arguments);
    struct rusage of;
    assert_int_equal(getrusage(RUSAGE_CHILDREN, &of), 0);
    printf("%ld MB at most, of which %d are a buffer\n", of.ru_maxrss >> 10, BUFFER);
#ifndef __SANITIZE_ADDRESS__ // takes several times as much for itself
    assert_true(of.ru_maxrss >> 10 < 256 + BUFFER);
#endif
}

// Functions that each call the next one twice: one after the other with nothing in them, or with an instruction.
static void calls_are_bounded(void **state) {
    static const char *const bodies[] = {"", "mov.u32 %r, 1;"};
    for (size_t b = 0; b < 2; b++)
        for (int n = 8; n <= 80; n += 32) { // 256 calls, 2^40, and more than 64 within each other
            char says[8192];
            Str text = {0};
            str_printf(&text, HEAD("sm_80") ".func f%d() { .reg .b32 %%r; %s ret; }\n", n, bodies[b]);
            for (int i = n; i-- > 0;) str_printf(&text, ".func f%d() { call f%d; call f%d; }\n", i, i + 1, i + 1);
            str_printf(&text, ".visible .entry k() { call f0; ret; }\n");
            int code = ptx_run_text(text.s, "grid=1 block=32 shared=0", says, sizeof says);
            const char *wanted = n == 40 ? "k is too large with the functions it calls" : "calls within calls";
            if (n == 8 ? code != 0 : code != 3 || !strstr(says, wanted))
                fail_msg("%d functions: %d, %s", n, code, says);
            str_free(&text);
        }
}

// Every kind of parameter, and what may be given for it.
static const char kinds[] =
    HEAD("sm_80") ".visible .entry k(.param .u32 a, .param .s32 b, .param .f32 c, .param .b32 d,\n"
                  ".param .align 4 .b8 e[4], .param .u64 .ptr .global f, .param .f64 g) {\nret;\n}\n";
static void arguments_of_each_kind(void **state) {
    static const struct {
        const char *given, *says; // says NULL: it runs
    } cases[] = {
        {"u32:1 i32:-1 f32:0.5 i32:1 i32:1 buf:8 f64:1", NULL},
        {"i32:-1 u32:1 f32:nan f32:0.5 f32:0.5 u64:0 f64:-inf", NULL},
        {"f32:1 i32:1 f32:1 i32:1 i32:1 buf:8 f64:1", "\"f32:1\" is no integer, where the parameter a is .u32"},
        {"i32:1 f32:1 f32:1 i32:1 i32:1 buf:8 f64:1", "\"f32:1\" is no integer, where the parameter b is .s32"},
        {"i32:1 i32:1 i32:1 i32:1 i32:1 buf:8 f64:1",
         "\"i32:1\" is an integer or an address, where the parameter c is .f32"},
        {"i32:1 i32:1 f32:1 u64:1 i32:1 buf:8 f64:1", "\"u64:1\" is 8 bytes, where the parameter d has 4"},
        {"i32:1 i32:1 f32:1 i32:1 u64:1 buf:8 f64:1", "\"u64:1\" is 8 bytes, where the parameter e has 4"},
        {"i32:1 i32:1 f32:1 i32:1 i32:1 f64:1 f64:1", "\"f64:1\" is no integer, where the parameter f is .u64"},
        {"i32:1 i32:1 f32:1 i32:1 i32:1 buf:8 buf:8",
         "\"buf:8\" is an integer or an address, where the parameter g is .f64"},
        {"i32:1 i32:1 f32:0.5x i32:1 i32:1 buf:8 f64:1", "\"f32:0.5x\" is no number"},
        {"i32:1 i32:1 f32:1e39 i32:1 i32:1 buf:8 f64:1", "\"f32:1e39\" is beyond f32"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char says[8192], *line = xasprintf("grid=1 block=32 shared=0 %s", cases[i].given);
        int code = ptx_run_text(kinds, line, says, sizeof says);
        free(line);
        if (cases[i].says ? code != 2 || !strstr(says, "rule.ptx:4: kernel k: ") || !strstr(says, cases[i].says)
                          : code != 0)
            fail_msg("%s: %d, %s", cases[i].given, code, says);
    }
}

// A thread's registers, as ptxas -v tells them: 65,536 are all a multiprocessor has, and warps get them eight a thread
// at a time.
static void registers_of_a_launch(void **state) {
    static const struct {
        int block, registers, code;
    } cases[] = {{1024, 64, 0}, {1024, 65, 1}, {384, 168, 0}, {384, 169, 1},
                 {256, 255, 0}, {257, 224, 0}, {257, 225, 1}};
    static const char nothing[] = HEAD("sm_90a") ".visible .entry k() {\nret;\n}\n";
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char says[8192], *line = xasprintf("grid=1 shared=0 block=%d regs=%d", cases[i].block, cases[i].registers);
        int code = ptx_run_text(nothing, line, says, sizeof says);
        if (code != cases[i].code || (code && !strstr(says, "rule.ptx:4: kernel k, its launch: ")))
            fail_msg("%s: %d, %s", line, code, says);
        free(line);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(launches_and_arguments), cmocka_unit_test(arguments_of_each_kind),
        cmocka_unit_test(registers_of_a_launch),  cmocka_unit_test(files_that_are_none),
        cmocka_unit_test(calls_are_bounded),      cmocka_unit_test(memory_is_bounded),
    };
    return cmocka_run_group_tests_name("ptx_input", tests, scratch_setup, scratch_teardown);
}
