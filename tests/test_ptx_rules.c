// The rules that hardware does not check and the machine of tests/ptx does, one by one: small kernels in PTX that keep
// a rule, and the same with one line changed so that they break it.
#include "ptx_run.h"
#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

typedef struct {
    const char *from, *to, *says;
} Break;
// The text as it is runs; with each change, in one of a few orders at least, the machine stops it and says so.
static void check_rules(const char *text, const char *arguments, const Break *breaks, size_t n) {
    char says[4096];
    for (int seed = 1; seed <= 6; seed++) {
        char *with = xasprintf("seed=%d %s", seed, arguments);
        if (ptx_run_text(text, with, says, sizeof says)) fail_msg("seed %d: %s", seed, says);
        free(with);
    }
    for (size_t b = 0; b < n; b++) {
        char *broken = ptx_replace(text, breaks[b].from, breaks[b].to, 1);
        bool told = false;
        for (int seed = 1; seed <= 6 && !told; seed++) {
            char *with = xasprintf("seed=%d limit=10000000 %s", seed, arguments);
            int code = ptx_run_text(broken, with, says, sizeof says);
            told = (code == 1 || code == 3) && strstr(says, breaks[b].says);
            free(with);
        }
        free(broken);
        if (!told)
            fail_msg("\"%s\" for \"%s\": not \"%s\" but: %s", breaks[b].to, breaks[b].from, breaks[b].says, says);
        printf("%-40.40s -> %s", breaks[b].from, strstr(says, "k, ") ? strstr(says, "k, ") + 3 : says);
    }
}
#define CHECK_RULES(text, arguments, ...)                                                                              \
    check_rules(text, arguments, (const Break[]){__VA_ARGS__}, sizeof((const Break[]){__VA_ARGS__}) / sizeof(Break))

// Two warps exchange words through shared memory; a table in constant memory; a buffer of 64 words.
static const char exchange[] = HEAD("sm_80") ".const .align 4 .b32 table[2] = {7, 9};\n"
                                             ".visible .entry k(.param .u64 p) .maxntid 64 {\n"
                                             ".reg .b32 %r<20>; .reg .b64 %rd<20>; .reg .pred %p<4>;\n"
                                             ".shared .align 16 .b8 room[272];\n"
                                             ".local .align 8 .b8 own[16];\n"
                                             "mov.u32 %r1, %tid.x;\n"
                                             "ld.param.u64 %rd1, [p];\n"
                                             "mov.u32 %r2, room;\n"
                                             "shl.b32 %r3, %r1, 2;\n"
                                             "add.u32 %r4, %r2, %r3;\n"
                                             "st.shared.u32 [%r4], %r1;\n"
                                             "bar.sync 0;\n"
                                             "xor.b32 %r5, %r3, 252;\n"
                                             "add.u32 %r6, %r2, %r5;\n"
                                             "ld.shared.u32 %r7, [%r6];\n"
                                             "mov.u64 %rd4, own;\n"
                                             "st.local.u32 [%rd4+4], %r7;\n"
                                             "ld.local.u32 %r8, [%rd4+4];\n"
                                             "ld.const.u32 %r9, [table+4];\n"
                                             "add.u32 %r8, %r8, %r9;\n"
                                             "shfl.sync.bfly.b32 %r10, %r8, 1, 31, -1;\n"
                                             "cvt.u64.u32 %rd2, %r3;\n"
                                             "add.u64 %rd3, %rd1, %rd2;\n"
                                             "st.global.u32 [%rd3], %r10;\n"
                                             "ret;\n}\n";

static void memory_and_barriers(void **state) {
    char *arguments = xasprintf("grid=2 block=64 shared=0 out:256:%s/o", scratch);
    CHECK_RULES(
        exchange, arguments, {"bar.sync 0;", "", "nobody has written"},
        {"shl.b32", "setp.lt.u32 %p1, %r1, 32; @%p1 bar.sync 1; shl.b32",
         "; warps 0 wait at barrier 1 (line 12; 32 threads"},
        {"bar.sync 0;", "setp.lt.u32 %p1, %r1, 8; @%p1 bar.sync 0;", "for lanes 0xffffff00"},
        {"bar.sync 0;", "bar.sync 0, 48;", "no multiple of 32"},
        {"bar.sync 0;", "bar.sync 0, 96;", "64 threads are there of 96"},
        {"bar.sync 0;", "mov.u32 %r11, 17; bar.sync %r11;", "barrier 17"},
        {"xor.b32 %r5, %r3, 252;", "add.u32 %r5, %r3, 16;", "nobody has written"},
        {"xor.b32 %r5, %r3, 252;", "add.u32 %r5, %r3, 32;", "the block has 272 bytes"},
        {"ld.shared.u32 %r7, [%r6];", "ld.shared.u32 %r7, [%r6+2];", "no multiple"},
        {"ld.shared.u32 %r7, [%r6];", "ld.shared.v2.u32 {%r7,%r11}, [%r6];", "no multiple"},
        {"[%rd4+4], %r7", "[%rd4+16], %r7", "local memory at 16, of 16"},
        {"%r8, [%rd4+4]", "%r8, [%rd4+8]", "nobody has written"}, {"[table+4]", "[table+8]", "buffer"},
        {"ld.const.u32 %r9, [table+4];", "mov.u64 %rd5, table; st.global.u32 [%rd5], %r1;", "constant memory"},
        {"st.global.u32 [%rd3], %r10;", "st.global.u32 [%rd3+4], %r10;", "of global memory"},
        {"st.global.u32 [%rd3], %r10;", "st.global.u32 [%rd2], %r10;", "no buffer"},
        {"st.global.u32 [%rd3], %r10;", "ld.global.u32 %r11, [%rd3]; add.u32 %r12, %r11, 1;", "nobody has written"},
        {"1, 31, -1;", "1, 31, 0x55555555;", "not in the mask"},
        {"shfl.sync", "setp.eq.u32 %p2, %r1, 3; @%p2 ret; shfl.sync", "have ended"}, {"ret;", "L: bra L;", "limit="},
        {"ret;", "trap;", "trap"},
        {"add.u32 %r8, %r8, %r9;", "frob.u32 %r8, %r8, %r9;", "frob.u32 is not an instruction"},
        {"add.u32 %r8, %r8, %r9;", "add.wild.u32 %r8, %r8, %r9;", "add.wild.u32 is not an instruction"},
        {"add.u32 %r8, %r8, %r9;", "add.u32 %r8, %r8, %rd1;", "bits"},
        {"add.u32 %r8, %r8, %r9;", "add.u32 %r8, %r99, %r9;", "%r99"},
        {"add.u32 %r8, %r8, %r9;", "bra nowhere;", "nowhere"}, {"%tid.x;", "%tid.w;", "%tid.w"});
    free(arguments);
}

// cp.async: 64 threads copy 4 bytes each.
static const char copies[] = HEAD("sm_80") ".visible .entry k(.param .u64 p, .param .u64 q) {\n"
                                           ".reg .b32 %r<20>; .reg .b64 %rd<20>;\n"
                                           ".shared .align 16 .b8 room[256];\n"
                                           "mov.u32 %r1, %tid.x;\n"
                                           "ld.param.u64 %rd1, [p];\nld.param.u64 %rd2, [q];\n"
                                           "mul.wide.u32 %rd3, %r1, 4;\n"
                                           "add.u64 %rd4, %rd1, %rd3;\nadd.u64 %rd5, %rd2, %rd3;\n"
                                           "mov.u32 %r2, room;\nmad.lo.u32 %r3, %r1, 4, %r2;\n"
                                           "cp.async.ca.shared.global [%r3], [%rd4], 4;\n"
                                           "cp.async.commit_group;\n"
                                           "cp.async.wait_group 0;\n"
                                           "bar.sync 0;\n"
                                           "xor.b32 %r4, %r1, 63;\nmad.lo.u32 %r5, %r4, 4, %r2;\n"
                                           "ld.shared.u32 %r6, [%r5];\n"
                                           "st.global.u32 [%rd5], %r6;\nret;\n}\n";
static void asynchronous_copies(void **state) {
    uint32_t numbers[64];
    for (uint32_t i = 0; i < 64; i++) numbers[i] = i * i;
    put_bytes(at("i"), numbers, sizeof numbers);
    char *arguments = xasprintf("grid=1 block=64 shared=0 in:%s/i out:256:%s/o", scratch, scratch);
    CHECK_RULES(copies, arguments, {"cp.async.wait_group 0;", "", "has not been waited for"},
                {"cp.async.wait_group 0;", "cp.async.wait_group 1;", "has not been waited for"},
                {"cp.async.commit_group;", "", "has not been waited for"}, {"bar.sync 0;", "", " memory "},
                {"[%rd4], 4;", "[%rd4+2], 4;", "multiples"}, {"[%rd4], 4;", "[%rd4], 16;", "multiples"},
                {"[%rd4], 4;", "[%rd4], 12;", "12 bytes at a time"},
                {"[%rd4], 4;", "[%rd4+4], 4;", "of global memory"});
    char *back = ptx_read(at("o"));
    free(back), free(arguments);
}

// A bulk copy in, twice through one mbarrier, and one out.
static const char bulk[] =
    HEAD("sm_90a") ".visible .entry k(.param .u64 p, .param .u64 q) {\n"
                   ".reg .b32 %r<20>; .reg .b64 %rd<20>; .reg .pred %p<4>;\n"
                   ".shared .align 128 .b8 room[256];\n.shared .align 8 .b64 bar;\n"
                   "mov.u32 %r1, %tid.x;\nmov.u32 %r2, room;\nmov.u32 %r3, bar;\n"
                   "ld.param.u64 %rd1, [p];\nld.param.u64 %rd2, [q];\n"
                   "setp.eq.u32 %p1, %r1, 0;\n"
                   "@%p1 mbarrier.init.shared::cta.b64 [%r3], 1;\n"
                   "bar.sync 0;\n"
                   "mov.u32 %r4, 0;\n"
                   "AGAIN:\n"
                   "@%p1 mbarrier.arrive.expect_tx.shared::cta.b64 _, [%r3], 256;\n"
                   "@%p1 cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%r2], [%rd1], 256, [%r3];\n"
                   "WAIT: mbarrier.try_wait.parity.shared::cta.b64 %p2, [%r3], %r4;\n"
                   "@!%p2 bra WAIT;\n"
                   "mad.lo.u32 %r5, %r1, 4, %r2;\n"
                   "ld.shared.u32 %r6, [%r5];\n"
                   "bar.sync 0;\n"
                   "xor.b32 %r4, %r4, 1;\n"
                   "setp.eq.u32 %p3, %r4, 1;\n"
                   "@%p3 bra AGAIN;\n"
                   "add.u32 %r6, %r6, 1;\n"
                   "st.shared.u32 [%r5], %r6;\n"
                   "fence.proxy.async.shared::cta;\n"
                   "bar.sync 0;\n"
                   "@%p1 cp.async.bulk.global.shared::cta.bulk_group [%rd2], [%r2], 256;\n"
                   "@%p1 cp.async.bulk.commit_group;\n"
                   "@%p1 cp.async.bulk.wait_group.read 0;\n"
                   "bar.sync 0;\n"
                   "st.shared.u32 [%r5], %r1;\n"
                   "ret;\n}\n";
static void bulk_copies(void **state) {
    uint32_t numbers[64];
    for (uint32_t i = 0; i < 64; i++) numbers[i] = i * i;
    put_bytes(at("i"), numbers, sizeof numbers);
    char *arguments = xasprintf("grid=1 block=64 shared=0 in:%s/i out:256:%s/o", scratch, scratch);
    CHECK_RULES(bulk, arguments,
                {"xor.b32 %r4, %r4, 1;\nsetp.eq.u32 %p3, %r4, 1;", "add.u32 %r7, %r6, 0; setp.lt.u32 %p3, %r1, 64;",
                 "waited for twice"},
                {"@!%p2 bra WAIT;", "", "has not been waited for"},
                {"fence.proxy.async.shared::cta;", "", "no proxy fence"},
                {"b64 _, [%r3], 256;", "b64 _, [%r3], 272;", "lacks 0 arrivals and 16 bytes"},
                {"mbarrier.init.shared::cta.b64 [%r3], 1;", "mbarrier.init.shared::cta.b64 [%r3], 2;",
                 "deadlock: warps 0 1 wait for phase 0"},
                {"@%p1 mbarrier.init.shared::cta.b64 [%r3], 1;", "", "no mbarrier has been made"},
                {"@%p1 mbarrier.init", "mbarrier.init", "already"},
                {"@%p1 mbarrier.arrive.expect_tx", "mbarrier.arrive.expect_tx", "mbarrier"},
                {"@%p1 cp.async.bulk.wait_group.read 0;", "", "cop"},
                {"wait_group.read 0;\nbar.sync 0;\nst.shared.u32 [%r5], %r1;", "wait_group.read 1;", "the block ends"},
                {"[%rd1], 256,", "[%rd1+16], 256,", "of global memory"},
                {"[%r2], [%rd1], 256,", "[%r2+8], [%rd1], 256,", "multiples of 16"},
                {"ld.shared.u32 %r6, [%r5];", "ld.shared.u32 %r6, [%r3];", "mbarrier is"},
                {"st.shared.u32 [%r5], %r6;", "st.shared.u32 [%r3], %r6;", "mbarrier is"});
    // Once more as it is: the numbers plus 1.
    char says[4096];
    assert_int_equal(ptx_run_text(bulk, arguments, says, sizeof says), 0);
    uint32_t *out = (uint32_t *)ptx_read(at("o"));
    for (uint32_t i = 0; i < 64; i++) assert_int_equal(out[i], i * i + 1);
    free(out), free(arguments);
}

// One warpgroup gives registers back, the other takes them: 128 threads each, 160 a thread at the start.
static const char registers[] = HEAD("sm_90a") ".visible .entry k(.param .u64 p) .maxntid 256 .maxnreg 160 {\n"
                                               ".reg .b32 %r<8>; .reg .pred %p<2>;\n"
                                               "mov.u32 %r1, %tid.x;\n"
                                               "setp.lt.u32 %p1, %r1, 128;\n"
                                               "@%p1 bra FIRST;\n"
                                               "setmaxnreg.inc.sync.aligned.u32 232;\n"
                                               "bra.uni DONE;\n"
                                               "FIRST: setmaxnreg.dec.sync.aligned.u32 40;\n"
                                               "DONE: ret;\n}\n";
static void registers_change_hands(void **state) {
    CHECK_RULES(registers, "grid=1 block=256 shared=0 u64:0",
                {"setmaxnreg.dec.sync.aligned.u32 40;", "bar.sync 1;", "registers, of which 0 are free"},
                {"aligned.u32 232", "aligned.u32 304", "24 to 256"},
                {"aligned.u32 232", "aligned.u32 152", "setmaxnreg.inc to 152"});
}

// wgmma: A and B of ones, without a swizzle; C[64, 8].
static const char wgmma[] =
    HEAD("sm_90a") ".visible .entry k(.param .u64 p) .maxntid 128 {\n"
                   ".reg .b32 %r<20>; .reg .b64 %rd<20>; .reg .f32 %f<8>; .reg .b16 %h<2>;\n"
                   ".shared .align 1024 .b8 room[4096];\n"
                   "mov.u32 %r1, %tid.x;\nmov.u32 %r2, room;\n"
                   "shl.b32 %r3, %r1, 5;\nadd.u32 %r4, %r2, %r3;\n"
                   "mov.u32 %r5, 0x3f803f80;\n"
                   "st.shared.v4.u32 [%r4], {%r5,%r5,%r5,%r5};\n"
                   "st.shared.v4.u32 [%r4+16], {%r5,%r5,%r5,%r5};\n"
                   "fence.proxy.async.shared::cta;\n"
                   "bar.sync 0;\n"
                   "shr.u32 %r6, %r2, 4;\ncvt.u64.u32 %rd1, %r6;\n"
                   "or.b64 %rd2, %rd1, 0x0000001000080000;\n" // 128 bytes apart in k, 256 in rows
                   "mov.f32 %f1, 0f40000000;\nmov.f32 %f2, %f1;\nmov.f32 %f3, %f1;\nmov.f32 %f4, %f1;\n"
                   "wgmma.fence.sync.aligned;\n"
                   "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 {%f1,%f2,%f3,%f4}, %rd2, %rd2, 1, 1, 1, 0, 0;\n"
                   "wgmma.commit_group.sync.aligned;\n"
                   "wgmma.wait_group.sync.aligned 0;\n"
                   "add.f32 %f5, %f1, %f4;\n"
                   "ld.param.u64 %rd3, [p];\nmul.wide.u32 %rd4, %r1, 4;\nadd.u64 %rd5, %rd3, %rd4;\n"
                   "st.global.f32 [%rd5], %f5;\nret;\n}\n";
static void tensor_cores(void **state) {
    char *arguments = xasprintf("grid=1 block=128 shared=0 out:512:%s/o", scratch);
    CHECK_RULES(
        wgmma, arguments, {"wgmma.wait_group.sync.aligned 0;", "", "%f1 belongs to a wgmma"},
        {"wgmma.wait_group.sync.aligned 0;", "wgmma.wait_group.sync.aligned 1;", "%f1 belongs to a wgmma"},
        {"wgmma.commit_group.sync.aligned;", "mov.f32 %f2, 0f00000000;", "%f2 belongs to a wgmma"},
        {"wgmma.wait_group.sync.aligned 0;",
         "mov.f32 %f6, %f1; wgmma.wait_group.sync.aligned 1; add.f32 %f7, %f6, %f6;", "%f6 belongs to a wgmma"},
        {"wgmma.wait_group.sync.aligned 0;",
         "mov.b32 {%h0, %h1}, %f1; wgmma.wait_group.sync.aligned 1; mov.b32 %f1, {%h0, %h1};",
         "%f1 belongs to a wgmma"},
        {"wgmma.fence.sync.aligned;", "", "no wgmma.fence"},
        {"wgmma.fence.sync.aligned;", "wgmma.fence.sync.aligned; mov.f32 %f1, %f2;", "%f1 was written after"},
        {"fence.proxy.async.shared::cta;", "", "no proxy fence"},
        {"wgmma.wait_group", "st.shared.u32 [%r4], %r1; wgmma.wait_group", "overwritten before it was waited for"},
        {"0x0000001000080000", "0x0000010000080000", "leads to shared memory"},
        {"m64n8k16", "m64n12k16", "is not an instruction"});
    char says[4096];
    assert_int_equal(ptx_run_text(wgmma, arguments, says, sizeof says), 0);
    float *out = (float *)ptx_read(at("o"));
    for (int i = 0; i < 128; i++) assert_true(out[i] == 2 * (16 + 2));
    free(out);
    // Halves are another name, too: so Triton passes sums in f16 on.
    char *halves = ptx_replace(
        wgmma, "wgmma.wait_group.sync.aligned 0;",
        "mov.b32 {%h0, %h1}, %f1; wgmma.wait_group.sync.aligned 0; mov.b32 %f6, {%h0, %h1}; mov.b32 %f1, %f6;", 1);
    if (ptx_run_text(halves, arguments, says, sizeof says)) fail_msg("%s", says);
    free(halves), free(arguments);
}

// Lanes below 8 write; all of them read, and choose.
static const char chosen[] = HEAD("sm_80") ".visible .entry k(.param .u64 p) {\n"
                                           ".reg .b32 %r<12>; .reg .b64 %rd<4>; .reg .pred %p<2>; .reg .b16 %h<2>;\n"
                                           ".shared .align 4 .b8 room[128];\n"
                                           "mov.u32 %r1, %tid.x;\nmov.u32 %r2, room;\nmad.lo.u32 %r3, %r1, 4, %r2;\n"
                                           "setp.lt.u32 %p1, %r1, 8;\n"
                                           "@%p1 st.shared.u32 [%r3], %r1;\n"
                                           "ld.shared.u32 %r4, [%r3];\n"
                                           "mov.b32 {%h0, %h1}, %r4;\nmov.b32 %r5, {%h0, %h1};\n"
                                           "selp.b32 %r6, %r5, 9, %p1;\n"
                                           "selp.b32 %r7, 9, %r5, !%p1;\n"
                                           "add.u32 %r8, %r6, %r7;\n"
                                           "ld.param.u64 %rd1, [p];\nmul.wide.u32 %rd2, %r1, 4;\n"
                                           "add.u64 %rd3, %rd1, %rd2;\nst.global.u32 [%rd3], %r8;\nret;\n}\n";
static void unwritten_values_are_not_chosen(void **state) {
    char says[4096], *arguments = xasprintf("grid=1 block=32 shared=0 out:128:%s/o", scratch);
    CHECK_RULES(chosen, arguments, {"%r5, 9, %p1;", "%r5, 9, !%p1;", "%r6 was read from memory"},
                {"9, %r5, !%p1;", "9, %r5, %p1;", "%r7 was read from memory"},
                {"selp.b32 %r6, %r5, 9, %p1;", "add.u32 %r6, %r5, 0;", "lanes 0xffffff00: add.u32: %r5 was read"});
    assert_int_equal(ptx_run_text(chosen, arguments, says, sizeof says), 0);
    uint32_t *out = (uint32_t *)ptx_read(at("o"));
    for (uint32_t i = 0; i < 32; i++) assert_int_equal(out[i], i < 8 ? 2 * i : 18);
    free(out), free(arguments);
}

// Functions that were not inlined: twice(x) ends early for 0, of both lanes that diverge; sum(x, y) calls it.
static const char functions[] =
    HEAD("sm_80") ".func (.param .b32 result) twice(.param .b32 x);\n"
                  ".func (.param .b32 result) sum(.param .b32 x, .param .align 4 .b8 y[8]) {\n"
                  ".reg .b32 %r<4>; .reg .pred %p<2>;\n"
                  "{ .param .b32 in; .param .b32 out;\nld.param.u32 %r1, [x];\nst.param.b32 [in], %r1;\n"
                  "call.uni (out), twice, (in);\nld.param.b32 %r2, [out]; }\n"
                  "ld.param.u32 %r3, [y+4];\nadd.u32 %r2, %r2, %r3;\nst.param.b32 [result], %r2;\nret;\n}\n"
                  ".func (.param .b32 result) twice(.param .b32 x) {\n"
                  ".reg .b32 %r<4>; .reg .pred %p<2>;\n"
                  "ld.param.u32 %r1, [x];\nst.param.b32 [result], %r1;\nsetp.eq.u32 %p1, %r1, 0;\n@%p1 ret;\n"
                  "shl.b32 %r1, %r1, 1;\nbra DONE;\ntrap;\nDONE: st.param.b32 [result], %r1;\nret;\n}\n"
                  ".extern .func outside();\n"
                  ".visible .entry k(.param .u64 p) {\n"
                  "{.reg.b32 %r<8>;.reg.b64 %rd<4>;.reg.pred %p<2>;\n"
                  ".param .b32 a; .param .align 4 .b8 b[8]; .param .b32 c;\n"
                  "mov.u32 %r1, %tid.x;\nand.b32 %r2, %r1, 3;\nsetp.gt.u32 %p1, %r1, 99;\n"
                  "st.param.b32 [a], %r2;\nst.param.b32 [b+4], 100;\nst.param.b32 [c], 0;\n"
                  "call (c), sum, (a, b);\nld.param.b32 %r3, [c];\n"
                  "st.param.b32 [a], %r1;\n@!%p1 call.uni (c), twice, (a);\n@%p1 call.uni outside, ();\n"
                  "ld.param.b32 %r4, [c];\nadd.u32 %r5, %r3, %r4;\n"
                  "ld.param.u64 %rd1, [p];\nmul.wide.u32 %rd2, %r1, 4;\nadd.u64 %rd3, %rd1, %rd2;\n"
                  "st.global.u32 [%rd3], %r5;\n}ret;\n}\n";
static void functions_are_called(void **state) {
    char says[4096], *arguments = xasprintf("grid=1 block=64 shared=0 out:256:%s/o", scratch);
    CHECK_RULES(functions, arguments, {"bra DONE;", "", "rule.ptx:25: kernel k, block (0,0,0), warp 0"},
                {"%r1, 99;", "%r1, 62;", "lanes 0x80000000: call of outside: the file does not hold that function"},
                {"ld.param.u32 %r1, [x];\nst.param.b32 [result]", "call twice, (); st.param.b32 [result]",
                 "call: twice calls itself"},
                {"sum, (a, b);", "sum, (a);", "call: 1 arguments, where the function has 2"},
                {"sum, (a, b);", "sum, (a, c);", "call: c has 4 bytes, where y has 8"},
                {"sum, (a, b);", "sum, (a, %r1);", "only variables of .param"},
                {"call (c), sum, (a, b);", "call (c), %r1, (a, b);", "call: only of a name"},
                {"st.param.b32 [b+4], 100;", "", "nobody has written"});
    assert_int_equal(ptx_run_text(functions, arguments, says, sizeof says), 0);
    uint32_t *out = (uint32_t *)ptx_read(at("o"));
    for (uint32_t i = 0; i < 64; i++) assert_int_equal(out[i], 2 * (i & 3) + 100 + 2 * i);
    free(out), free(arguments);
}

// Pairs of halves compared: 1 and 2 in f16 and bf16, and what set makes of them.
static const char pairs[] = HEAD("sm_90") ".visible .entry k(.param .u64 p) {\n"
                                          "{.reg.b32 %r<9>; .reg.b64 %rd<2>; .reg.b16 %h<3>;\n"
                                          "ld.param.u64 %rd1, [p];\n"
                                          "mov.b32 %r1, 0x40003c00;\nmov.b32 %r2, 0x3c003c00;\n"
                                          "set.eq.f16x2.f16x2 %r3, %r1, %r2;\n"
                                          "set.gt.u32.f16x2 %r4, %r1, %r2;\n"
                                          "mov.b32 %r5, 0x40003f80;\nmov.b32 %r6, 0x3f803f80;\n"
                                          "set.le.bf16x2.bf16x2 %r7, %r5, %r6;\n"
                                          "mov.b32 {%h0, %h1}, %r1;\nset.ne.f16.f16 %h2, %h0, %h1;\n"
                                          "mov.b32 %r8, {%h2, %h1};\n"
                                          "st.global.v4.u32 [%rd1], {%r3, %r4, %r7, %r8};\n}\nret;\n}\n";
static void halves_are_compared(void **state) {
    static const uint32_t wanted[] = {0x00003c00, 0xffff0000, 0x00003f80, 0x40003c00};
    char says[4096], *arguments = xasprintf("grid=1 block=32 shared=0 out:16:%s/o", scratch);
    if (ptx_run_text(pairs, arguments, says, sizeof says)) fail_msg("%s", says);
    uint32_t *out = (uint32_t *)ptx_read(at("o"));
    for (int i = 0; i < 4; i++) assert_int_equal(out[i], wanted[i]);
    free(out), free(arguments);
}

// A launch that may come before the kernel before it has ended.
static const char early[] = HEAD("sm_90a") ".visible .entry k(.param .u64 p) {\n"
                                           ".reg .b32 %r<4>; .reg .b64 %rd<4>; .reg .pred %p<2>;\n"
                                           "mov.u32 %r1, %tid.x;\nld.param.u64 %rd1, [p];\n"
                                           "mul.wide.u32 %rd2, %r1, 4;\nadd.u64 %rd3, %rd1, %rd2;\n"
                                           "griddepcontrol.launch_dependents;\n"
                                           "griddepcontrol.wait;\n"
                                           "ld.global.u32 %r2, [%rd3];\nst.global.u32 [%rd3], %r2;\nret;\n}\n";
static void waits_for_earlier_kernels(void **state) {
    CHECK_RULES(
        early, "grid=2 block=64 shared=0 early=1 buf:256",
        {"griddepcontrol.wait;", "", "ld.global.u32: global memory before griddepcontrol.wait"},
        {"griddepcontrol.wait;", "st.global.u32 [%rd3], %r1; griddepcontrol.wait;", "st.global.u32: global memory"},
        {"griddepcontrol.wait;", "setp.lt.u32 %p1, %r1, 63; @%p1 griddepcontrol.wait;", "lanes 0x80000000"},
        {"launch_dependents", "launch", "is not an instruction"});
    char says[4096], *alone = ptx_replace(early, "griddepcontrol.wait;", "", 1);
    assert_int_equal(ptx_run_text(alone, "grid=2 block=64 shared=0 buf:256", says, sizeof says), 0);
    free(alone);
}

// As many blocks as an H100 has SMs, that wait for the last of them: a card runs them all at once.
static const char all_wait[] = HEAD("sm_90a") ".visible .entry k(.param .u64 p) {\n"
                                              ".reg .b32 %r<4>; .reg .b64 %rd<2>; .reg .pred %p<2>;\n"
                                              "ld.param.u64 %rd1, [p];\nmov.u32 %r1, %ctaid.x;\n"
                                              "setp.eq.u32 %p1, %r1, 131;\n@%p1 bra last;\n"
                                              "again:\nld.acquire.gpu.global.u32 %r2, [%rd1];\n"
                                              "setp.eq.u32 %p1, %r2, 0;\n@%p1 bra again;\nret;\n"
                                              "last:\nmov.u32 %r3, 1;\n"
                                              "st.release.gpu.global.u32 [%rd1], %r3;\nret;\n}\n";
static void blocks_wait_for_each_other(void **state) {
    for (int seed = 1; seed <= 3; seed++) {
        char says[4096], *launch = xasprintf("grid=132 block=32 shared=0 seed=%d limit=2000000000 buf:4", seed);
        int code = ptx_run_text(all_wait, launch, says, sizeof says);
        if (code) fail_msg("seed %d: %d, %s", seed, code, says);
        free(launch);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_and_barriers),
        cmocka_unit_test(asynchronous_copies),
        cmocka_unit_test(bulk_copies),
        cmocka_unit_test(registers_change_hands),
        cmocka_unit_test(tensor_cores),
        cmocka_unit_test(unwritten_values_are_not_chosen),
        cmocka_unit_test(functions_are_called),
        cmocka_unit_test(halves_are_compared),
        cmocka_unit_test(waits_for_earlier_kernels),
        cmocka_unit_test(blocks_wait_for_each_other),
    };
    return cmocka_run_group_tests_name("ptx_rules", tests, scratch_setup, scratch_teardown);
}
