// Of test_ptx.c: {kernel, from, to, nth (0: everywhere), what the machine says (NULL: the result is wrong, or it
// stops)}.
// clang-format off
#define POINTERS    "matmul_bf16_80"
#define HOPPER      "matmul_bf16_90"
#define DESCRIPTORS "descriptors_bf16_4_90"
// mma.sync, ldmatrix, cp.async
{POINTERS, "cp.async.wait_group \t2;", "", 0, "has not been waited for"},
{POINTERS, "cp.async.wait_group \t0;", "cp.async.wait_group 9;", 1, "has not been waited for"},
{POINTERS, "bar.sync \t0;", "", 4, NULL},
{POINTERS, "{ %r111, %r112, %r113, %r114 }, { %r115, %r116 }", "{ %r112, %r111, %r113, %r114 }, { %r115, %r116 }", 1, NULL},
{POINTERS, "{ %r115, %r116 }", "{ %r116, %r115 }", 1, NULL},
{POINTERS, "x4.trans.shared", "x4.shared", 0, NULL},
{POINTERS, "0x10, %r46;", "0x10;", 1, NULL},
{POINTERS, "ld.param.b32", "ld.param.b64", 1, "ld.param.b64"},
{"matmul_fp32_80", "{ %r168, %r169 }", "{ %r169, %r168 }", 1, NULL},
// warps and memory
{"softmax_bf16_80", ", 16, 31, -1;", ", 8, 31, -1;", 2, NULL},
{"softmax_bf16_80", ", 16, 31, -1;", ", 16, 31, 65535;", 1, "mask"},
{"softmax_bf16_80", "bar.sync \t0;", "", 1, "nobody has written"},
{"scan_bf16_80", "shfl.sync.up.b32", "shfl.sync.down.b32", 1, NULL},
{"layer_norm_bf16_80", "acq_rel.add.f32", "acq_rel.exch.b32", 1, NULL},
{"layer_norm_bf16_80", "ld.global.v2.b32", "ld.global.v4.b32", 1, "vector"},
{"attention_bf16_80", "max.f32", "min.f32", 1, NULL},
// wgmma
{HOPPER, "fence.proxy.async.shared::cta;", "", 0, "no proxy fence"},
{HOPPER, "wgmma.fence.sync.aligned;", "", 0, "wgmma.fence"},
{HOPPER, "wgmma.wait_group.sync.aligned 0;", "", 0, "has not been waited for"},
{HOPPER, "wgmma.wait_group.sync.aligned 1;", "wgmma.wait_group.sync.aligned 3;", 1, "overwritten"},
{HOPPER, "wgmma.commit_group.sync.aligned;", "", 0, "has not been waited for"},
{"attention_bf16_90", "wgmma.wait_group.sync.aligned 0;", "", 1, "has not been waited for"},
{DESCRIPTORS, "-9223371899415822336", "-4611685880988434432", 1, NULL}, // another swizzle
{DESCRIPTORS, "4611686293305294848", "4611686297600262144", 0, NULL},   // another stride
{DESCRIPTORS, "1, 1, 0, 1;", "1, 1, 0, 0;", 1, NULL},
{DESCRIPTORS, "1, 1, 0, 1;", "1, -1, 0, 1;", 2, NULL},
// mbarriers, bulk copies, tensor maps
{DESCRIPTORS, "xor.b32 \t%r105, %r105, %r50;", "", 1, "waited for twice"},
{DESCRIPTORS, "mbarrier.init.shared::cta.b64 [%r25], 1;", "mbarrier.init.shared::cta.b64 [%r25], 2;", 1, "deadlock"},
{DESCRIPTORS, "expect_tx.shared::cta.b64 _, [%r24], 8192;", "expect_tx.shared::cta.b64 _, [%r24], 8208;", 1, "deadlock"},
{DESCRIPTORS, "expect_tx.shared::cta.b64 _, [%r24], 8192;", "expect_tx.shared::cta.b64 _, [%r24], 4096;", 1, NULL},
{DESCRIPTORS, "@!complete bra.uni waitLoop;", "", 0, NULL},
{"descriptors_fp16_8_90", "@!complete bra.uni waitLoop;", "", 1, "has not been waited for"},
{DESCRIPTORS, "fence.proxy.async.shared::cta;", "", 1, "no proxy fence"},
{DESCRIPTORS, "fence.proxy.async.shared::cta;", "", 2, "no proxy fence"},
{DESCRIPTORS, "@%p2 fence.proxy.tensormap::generic.acquire.gpu [ %rd12 + 0 ], 0x80;", "", 1, "tensormap::generic.acquire"},
{DESCRIPTORS, "swizzle_mode.shared::cta.b1024.b32 [ %rd7 + 0 ], 0x2", "swizzle_mode.shared::cta.b1024.b32 [ %rd7 + 0 ], 0x3", 1, NULL},
{DESCRIPTORS, "{%r66, %r27}", "{%r27, %r66}", 1, NULL},
{DESCRIPTORS, "cp.async.bulk.wait_group \t0;", "", 1, "the block ends"},
{DESCRIPTORS, "mul.wide.s32 \t%rd9, %r17, 2;", "mul.wide.s32 %rd9, %r17, 4;", 1, NULL},
{DESCRIPTORS, "elemtype.shared::cta.b1024.b32 [ %rd7 + 0 ], 0xa", "elemtype.shared::cta.b1024.b32 [ %rd7 + 0 ], 0x7", 1, NULL},
