// Every op x shape (x dtype, x gradient dtype): one table for correctness, gradients, determinism and speed.
#pragma once
#include "cases_block.h"
#include "cases_head.h"
#include "cases_loop.h"
#include "cases_lora.h"
#include "cases_memory.h"

typedef struct {
    const CaseOp *op;
    CaseShape s;
    bool bench; // a shape of the 0.5B model, for speed; the others are for correctness
    bool large; // for the speed of a GPU alone
} CaseRow;

// Sequences: empty ones, one token, around a chunk of 64 keys and around two.
static const int len_edge[] = {65, 0, 1, 64, 0, 63, -1}; // 193
static const int len_short[] = {3, 1, 5, -1};            // 9
static const int len_long[] = {130, 7, -1};              // 137
static const int len_one[] = {1, -1};
static const int len_pair[] = {1, 1, -1};
static const int len_alone[] = {1100, -1}; // several blocks of decode share it
static const int len_many[] = {1, 2, 0, 3, 1, 2, 0, 3, 1, 2, 0, 3, 1, 2, 0, 3, 1, 2, 0, 3, 1,
                               2, 0, 3, 1, 2, 0, 3, 1, 2, 0, 3, 1, 2, 0, 3, 1, 2, 0, 3, -1}; // 60
static const int len_empty[] = {0, 0, -1};                                                   // 0
static const int len_train[] = {400, 310, 250, 390, 400, 280, 330, 360, -1};
static const int len_decode[] = {400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400,
                                 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, 400, -1};

#define FOUR(...) __VA_ARGS__, __VA_ARGS__, __VA_ARGS__, __VA_ARGS__
static const int len_packed[] = {FOUR(FOUR(512, 512)), -1};             // 32
static const int len_decode_many[] = {FOUR(FOUR(FOUR(FOUR(400)))), -1}; // 256

// A prompt and what goes on from it, where opt is given: 1 and 2 from 0, 5 and 6 from 4; seams around a chunk.
static const int len_groups[] = {70, 61, 1, 5, 64, 90, 66, -1};               // 357
static const int len_group_short[] = {3, 9, 0, 2, 1, 4, 2, -1};               // 21
static const int len_group_train[] = {150, 200, 180, 150, 150, 170, 190, -1}; // 1190

#define ROW(op, ...)   {&op_##op, {__VA_ARGS__}, false, false},
#define SPEED(op, ...) {&op_##op, {__VA_ARGS__}, true, false},
#define LARGE(op, ...) {&op_##op, {__VA_ARGS__}, true, true},

// clang-format off
static const CaseRow case_table[] = {
    ROW(fill, .T = 1) ROW(fill, .T = 15) ROW(fill, .T = 50000) SPEED(fill, .T = 1 << 24)
    ROW(cast, .T = 1) ROW(cast, .T = 17) ROW(cast, .T = 64) ROW(cast, .T = 50001) SPEED(cast, .T = 1 << 24)
    ROW(lerp, .T = 1) ROW(lerp, .T = 33) ROW(lerp, .T = 64) ROW(lerp, .T = 50003) SPEED(lerp, .T = 1 << 24)
    ROW(sumsq, .T = 1) ROW(sumsq, .T = 4097) ROW(sumsq, .T = 8191) ROW(sumsq, .T = 70000) SPEED(sumsq, .T = 1 << 24)
    ROW(adamw, .T = 1) ROW(adamw, .T = 37) ROW(adamw, .T = 64) ROW(adamw, .T = 50005) SPEED(adamw, .T = 1 << 24)
    ROW(adamw, .T = 37, .opt = true) ROW(adamw, .T = 50005, .opt = true) SPEED(adamw, .T = 1 << 24, .opt = true)

    ROW(embed, .T = 1, .D = 1, .V = 1) ROW(embed, .T = 70, .D = 65, .V = 9) ROW(embed, .T = 40, .D = 896, .V = 300)
    SPEED(embed, .T = 2720, .D = 896, .V = 151936)
    ROW(embed_bwd, .T = 1, .D = 1, .V = 1) ROW(embed_bwd, .T = 70, .D = 65, .V = 9) ROW(embed_bwd, .T = 40, .D = 896, .V = 300)
    ROW(embed_bwd, .T = 1100, .D = 9, .V = 3) ROW(embed_bwd, .T = 1500, .D = 40, .V = 3000)
    SPEED(embed_bwd, .T = 2720, .D = 896, .V = 151936)

    ROW(rmsnorm, .T = 1, .D = 1) ROW(rmsnorm, .T = 3, .D = 65, .opt = true) ROW(rmsnorm, .T = 40, .D = 896, .opt = true)
    ROW(rmsnorm, .T = 5, .D = 63) ROW(rmsnorm, .T = 9, .D = 1536) ROW(rmsnorm, .T = 0, .D = 64)
    ROW(rmsnorm, .T = 2, .D = 9001, .opt = true) ROW(rmsnorm, .T = 3, .D = 8704)
    ROW(rmsnorm, .T = 300, .D = 72, .opt = true) ROW(rmsnorm, .T = 5, .D = 1536, .opt = true) ROW(rmsnorm, .T = 200, .D = 1032) ROW(rmsnorm, .T = 4, .D = 2312, .opt = true)
    SPEED(rmsnorm, .T = 2720, .D = 896, .opt = true)
    ROW(rmsnorm_bwd, .T = 1, .D = 5) ROW(rmsnorm_bwd, .T = 3, .D = 65, .opt = true) ROW(rmsnorm_bwd, .T = 80, .D = 896, .opt = true)
    ROW(rmsnorm_bwd, .T = 300, .D = 63) ROW(rmsnorm_bwd, .T = 0, .D = 64)
    ROW(rmsnorm_bwd, .T = 11, .D = 5001, .opt = true) ROW(rmsnorm_bwd, .T = 9, .D = 4608) ROW(rmsnorm_bwd, .T = 3, .D = 17001, .opt = true)
    ROW(rmsnorm_bwd, .T = 2200, .D = 24, .opt = true) ROW(rmsnorm_bwd, .T = 21, .D = 1536) ROW(rmsnorm_bwd, .T = 19, .D = 2312, .opt = true)
    SPEED(rmsnorm_bwd, .T = 2720, .D = 896, .opt = true)

    ROW(matmul, .T = 1, .D = 1, .F = 1) ROW(matmul, .T = 7, .D = 65, .F = 19) ROW(matmul, .T = 66, .D = 128, .F = 100)
    ROW(matmul, .T = 2, .D = 4864, .F = 33) ROW(matmul, .T = 131, .D = 33, .F = 97) ROW(matmul, .T = 0, .D = 64, .F = 64)
    ROW(matmul, .T = 65, .D = 63, .F = 129) ROW(matmul, .T = 8, .D = 300, .F = 65) ROW(matmul, .T = 9, .D = 17, .F = 7)
    ROW(matmul, .T = 64, .D = 16, .F = 65) ROW(matmul, .T = 1, .D = 15, .F = 33) ROW(matmul, .T = 20, .D = 1032, .F = 24)
    ROW(matmul, .T = 130, .D = 64, .F = 312) ROW(matmul, .T = 260, .D = 1096, .F = 264) ROW(matmul, .T = 140, .D = 136, .F = 520)
    ROW(matmul, .T = 120, .D = 1096, .F = 184) ROW(matmul, .T = 100, .D = 2080, .F = 136)
    SPEED(matmul, .T = 2720, .D = 896, .F = 9728)
    ROW(matmul_swiglu, .T = 1, .D = 1, .F = 1) ROW(matmul_swiglu, .T = 7, .D = 65, .F = 19, .opt = true) ROW(matmul_swiglu, .T = 66, .D = 128, .F = 100, .opt = true)
    ROW(matmul_swiglu, .T = 2, .D = 4864, .F = 33) ROW(matmul_swiglu, .T = 0, .D = 64, .F = 64) ROW(matmul_swiglu, .T = 8, .D = 304, .F = 72)
    ROW(matmul_swiglu, .T = 130, .D = 64, .F = 312) ROW(matmul_swiglu, .T = 260, .D = 1096, .F = 264, .opt = true) ROW(matmul_swiglu, .T = 140, .D = 136, .F = 520, .opt = true)
    ROW(matmul_swiglu, .T = 120, .D = 1096, .F = 88) SPEED(matmul_swiglu, .T = 2720, .D = 896, .F = 4864)
    ROW(norm_matmul, .T = 1, .D = 1, .F = 1) ROW(norm_matmul, .T = 7, .D = 65, .F = 19, .opt = true) ROW(norm_matmul, .T = 0, .D = 64, .F = 64)
    ROW(norm_matmul, .T = 3, .D = 896, .F = 72, .opt = true) ROW(norm_matmul, .T = 16, .D = 896, .F = 100) ROW(norm_matmul, .T = 32, .D = 1032, .F = 40, .opt = true)
    ROW(norm_matmul, .T = 9, .D = 2296, .F = 24, .K = 1, .opt = true) ROW(norm_matmul, .T = 20, .D = 896, .F = 264, .K = 1) ROW(norm_matmul, .T = 40, .D = 64, .F = 72, .K = 1, .opt = true)
    ROW(norm_matmul, .T = 12, .D = 896, .F = 40, .K = 1) ROW(norm_matmul, .T = 30, .D = 896, .F = 40, .opt = true) ROW(norm_matmul, .T = 5, .D = 896, .F = 40, .K = 1)
    ROW(norm_matmul, .T = 70, .D = 896, .F = 40, .opt = true) ROW(norm_matmul, .T = 70, .D = 896, .F = 104, .opt = true)
    SPEED(norm_matmul, .T = 8, .D = 896, .F = 4864, .K = 1, .opt = true) SPEED(norm_matmul, .T = 8, .D = 896, .F = 1152, .opt = true)
    SPEED(norm_matmul, .T = 64, .D = 896, .F = 1152, .opt = true) SPEED(norm_matmul, .T = 256, .D = 896, .F = 1152, .opt = true)
    ROW(matmul_bwd, .T = 1, .D = 1, .F = 1) ROW(matmul_bwd, .T = 7, .D = 65, .F = 19) ROW(matmul_bwd, .T = 70, .D = 33, .F = 50)
    ROW(matmul_bwd, .T = 2, .D = 2100, .F = 5) ROW(matmul_bwd, .T = 0, .D = 64, .F = 64)
    ROW(matmul_bwd, .T = 9, .D = 17, .F = 63) ROW(matmul_bwd, .T = 65, .D = 15, .F = 7) ROW(matmul_bwd, .T = 64, .D = 64, .F = 72)
    ROW(matmul_bwd, .T = 531, .D = 130, .F = 100) ROW(matmul_bwd, .T = 5, .D = 20, .F = 1101)
    ROW(matmul_bwd, .T = 200, .D = 264, .F = 72) ROW(matmul_bwd, .T = 8, .D = 40, .F = 1096) ROW(matmul_bwd, .T = 24, .D = 300, .F = 700)
    SPEED(matmul_bwd, .T = 2720, .D = 896, .F = 9728)

    ROW(lora_down, .T = 1, .F = 1, .H = 1) ROW(lora_down, .T = 9, .F = 65, .H = 5, .opt = true) ROW(lora_down, .T = 70, .F = 33, .H = 16)
    ROW(lora_down, .T = 0, .F = 64, .H = 4) SPEED(lora_down, .T = 2720, .F = 896, .H = 16)
    ROW(lora_up, .T = 1, .F = 1, .H = 1) ROW(lora_up, .T = 9, .F = 65, .H = 5, .opt = true) ROW(lora_up, .T = 70, .F = 33, .H = 16, .K = 1)
    ROW(lora_up, .T = 19, .F = 140, .H = 3, .K = 1, .opt = true) ROW(lora_up, .T = 0, .F = 64, .H = 4) SPEED(lora_up, .T = 2720, .F = 9728, .H = 16)
    ROW(lora_grad, .T = 1, .F = 1, .H = 1) ROW(lora_grad, .T = 9, .F = 65, .H = 5, .opt = true) ROW(lora_grad, .T = 300, .F = 33, .H = 16)
    ROW(lora_grad, .T = 0, .F = 64, .H = 4) SPEED(lora_grad, .T = 2720, .F = 9728, .H = 16)

    ROW(qk_norm, .T = 1, .H = 1, .K = 1, .d = 2) ROW(qk_norm, .T = 9, .H = 7, .K = 1, .d = 64, .opt = true) ROW(qk_norm, .T = 70, .H = 3, .K = 1, .d = 16)
    ROW(qk_norm, .T = 30, .H = 6, .K = 2, .d = 18, .opt = true) ROW(qk_norm, .T = 20, .H = 12, .K = 2, .d = 128)
    ROW(qk_norm, .T = 5, .H = 2, .K = 1, .d = 256, .opt = true) SPEED(qk_norm, .T = 2720, .H = 16, .K = 8, .d = 128, .opt = true)
    ROW(qk_norm_bwd, .T = 1, .H = 1, .K = 1, .d = 2) ROW(qk_norm_bwd, .T = 80, .H = 7, .K = 1, .d = 64)
    ROW(qk_norm_bwd, .T = 30, .H = 6, .K = 2, .d = 18) ROW(qk_norm_bwd, .T = 5, .H = 2, .K = 1, .d = 256)
    SPEED(qk_norm_bwd, .T = 2720, .H = 16, .K = 8, .d = 128)

    ROW(rope, .T = 1, .H = 1, .K = 1, .d = 2) ROW(rope, .T = 9, .H = 7, .K = 1, .d = 64, .opt = true)
    ROW(rope, .T = 30, .H = 6, .K = 2, .d = 18, .opt = true) ROW(rope, .T = 20, .H = 12, .K = 2, .d = 128)
    ROW(rope, .T = 5, .H = 2, .K = 1, .d = 256, .opt = true) ROW(rope, .T = 70, .H = 3, .K = 1, .d = 16, .opt = true)
    ROW(rope, .T = 400, .H = 14, .K = 2, .d = 64, .opt = true) ROW(rope, .T = 9, .H = 28, .K = 4, .d = 128, .opt = true)
    SPEED(rope, .T = 2720, .H = 14, .K = 2, .d = 64, .opt = true)
    ROW(rope_bwd, .T = 1, .H = 1, .K = 1, .d = 2) ROW(rope_bwd, .T = 80, .H = 7, .K = 1, .d = 64, .opt = true)
    ROW(rope_bwd, .T = 30, .H = 6, .K = 2, .d = 18, .opt = true) ROW(rope_bwd, .T = 20, .H = 12, .K = 2, .d = 128)
    ROW(rope_bwd, .T = 50, .H = 14, .K = 2, .d = 64, .opt = true) ROW(rope_bwd, .T = 37, .H = 28, .K = 4, .d = 128, .opt = true)
    ROW(rope_bwd, .T = 5, .H = 2, .K = 1, .d = 256, .opt = true) SPEED(rope_bwd, .T = 2720, .H = 14, .K = 2, .d = 64, .opt = true)

    ROW(attention, .T = 0, .H = 2, .K = 1, .d = 16, .len = len_empty) ROW(attention, .T = 1, .H = 2, .K = 1, .d = 16, .len = len_one)
    ROW(attention, .T = 193, .H = 7, .K = 1, .d = 64, .len = len_edge)
    ROW(attention, .T = 193, .H = 12, .K = 2, .d = 128, .len = len_edge) ROW(attention, .T = 193, .H = 3, .K = 3, .d = 6, .len = len_edge)
    ROW(attention, .T = 137, .H = 4, .K = 2, .d = 18, .len = len_long) ROW(attention, .T = 9, .H = 18, .K = 1, .d = 256, .len = len_short)
    ROW(attention, .T = 64, .H = 2, .K = 1, .d = 8, .len = len_many)
    ROW(attention, .T = 360, .H = 7, .K = 1, .d = 64, .len = len_groups, .opt = true) ROW(attention, .T = 357, .H = 4, .K = 2, .d = 18, .len = len_groups, .opt = true)
    ROW(attention, .T = 21, .H = 6, .K = 1, .d = 128, .len = len_group_short, .opt = true) ROW(attention, .T = 21, .H = 18, .K = 1, .d = 256, .len = len_group_short, .opt = true)
    SPEED(attention, .T = 1190, .H = 14, .K = 2, .d = 64, .len = len_group_train, .opt = true)
    SPEED(attention, .T = 2720, .H = 14, .K = 2, .d = 64, .len = len_train)
    ROW(attention_bwd, .T = 0, .H = 2, .K = 1, .d = 16, .len = len_empty) ROW(attention_bwd, .T = 1, .H = 2, .K = 1, .d = 16, .len = len_one)
    ROW(attention_bwd, .T = 193, .H = 7, .K = 1, .d = 64, .len = len_edge)
    ROW(attention_bwd, .T = 193, .H = 6, .K = 1, .d = 128, .len = len_edge) ROW(attention_bwd, .T = 193, .H = 3, .K = 3, .d = 6, .len = len_edge)
    ROW(attention_bwd, .T = 137, .H = 4, .K = 2, .d = 18, .len = len_long) ROW(attention_bwd, .T = 9, .H = 18, .K = 1, .d = 256, .len = len_short)
    ROW(attention_bwd, .T = 64, .H = 2, .K = 1, .d = 8, .len = len_many)
    ROW(attention_bwd, .T = 360, .H = 7, .K = 1, .d = 64, .len = len_groups, .opt = true) ROW(attention_bwd, .T = 357, .H = 4, .K = 2, .d = 18, .len = len_groups, .opt = true)
    ROW(attention_bwd, .T = 21, .H = 6, .K = 1, .d = 128, .len = len_group_short, .opt = true) ROW(attention_bwd, .T = 21, .H = 18, .K = 1, .d = 256, .len = len_group_short, .opt = true)
    SPEED(attention_bwd, .T = 1190, .H = 14, .K = 2, .d = 64, .len = len_group_train, .opt = true)
    SPEED(attention_bwd, .T = 2720, .H = 14, .K = 2, .d = 64, .len = len_train)
    ROW(decode, .T = 6, .H = 7, .K = 1, .d = 64, .len = len_edge) ROW(decode, .T = 6, .H = 12, .K = 2, .d = 128, .len = len_edge)
    ROW(decode, .T = 2, .H = 4, .K = 2, .d = 18, .len = len_long) ROW(decode, .T = 3, .H = 18, .K = 1, .d = 256, .len = len_short)
    ROW(decode, .T = 1, .H = 3, .K = 1, .d = 32, .len = len_alone)
    ROW(decode, .T = 2, .H = 2, .K = 2, .d = 8, .len = len_empty) ROW(decode, .T = 40, .H = 2, .K = 1, .d = 8, .len = len_many)
    SPEED(decode, .T = 32, .H = 14, .K = 2, .d = 64, .len = len_decode)
    ROW(rope_decode, .T = 6, .H = 7, .K = 1, .d = 64, .len = len_edge, .opt = true) ROW(rope_decode, .T = 6, .H = 12, .K = 2, .d = 128, .len = len_edge, .opt = true)
    ROW(rope_decode, .T = 2, .H = 4, .K = 2, .d = 18, .len = len_long, .opt = true) ROW(rope_decode, .T = 3, .H = 18, .K = 1, .d = 256, .len = len_short, .opt = true)
    ROW(rope_decode, .T = 1, .H = 3, .K = 1, .d = 32, .len = len_alone, .opt = true) ROW(rope_decode, .T = 2, .H = 2, .K = 2, .d = 8, .len = len_empty)
    ROW(rope_decode, .T = 40, .H = 2, .K = 1, .d = 8, .len = len_many, .opt = true) SPEED(rope_decode, .T = 32, .H = 14, .K = 2, .d = 64, .len = len_decode, .opt = true)

    ROW(swiglu, .T = 1, .F = 1) ROW(swiglu, .T = 3, .F = 65) ROW(swiglu, .T = 20, .F = 1000) ROW(swiglu, .T = 70, .F = 24) ROW(swiglu, .T = 300, .F = 520) SPEED(swiglu, .T = 2720, .F = 4864)
    ROW(swiglu_bwd, .T = 1, .F = 1) ROW(swiglu_bwd, .T = 3, .F = 65) ROW(swiglu_bwd, .T = 20, .F = 1000) ROW(swiglu_bwd, .T = 70, .F = 24) ROW(swiglu_bwd, .T = 300, .F = 520) SPEED(swiglu_bwd, .T = 2720, .F = 4864)

    ROW(logprob, .T = 1, .D = 3, .V = 2) ROW(logprob, .T = 9, .D = 65, .V = 1100, .opt = true) ROW(logprob, .T = 140, .D = 16, .V = 1024)
    SPEED(logprob, .T = 2048, .D = 896, .V = 151936)
    ROW(logprob_bwd, .T = 1, .D = 3, .V = 2) ROW(logprob_bwd, .T = 9, .D = 17, .V = 1100, .opt = true) ROW(logprob_bwd, .T = 140, .D = 8, .V = 136)
    SPEED(logprob_bwd, .T = 2048, .D = 896, .V = 151936)
    ROW(sample, .T = 1, .D = 3, .V = 2) ROW(sample, .T = 2, .D = 64, .V = 128) ROW(sample, .T = 67, .D = 33, .V = 1100) ROW(sample, .T = 70, .D = 328, .V = 264) ROW(sample, .T = 9, .D = 65, .V = 1024, .opt = true)
    SPEED(sample, .T = 32, .D = 896, .V = 151936) SPEED(sample, .T = 32, .D = 896, .V = 151936, .opt = true)

    ROW(advance, .T = 1) ROW(advance, .T = 1, .F = 1) ROW(advance, .T = 37, .F = 37) ROW(advance, .T = 64, .F = 64) ROW(advance, .T = 37, .F = 20, .D = 9, .opt = true)
    ROW(advance, .T = 1100, .D = 5, .opt = true) ROW(advance, .T = 1100, .F = 1099, .D = 5, .opt = true)
    ROW(grpo_loss, .T = 2, .len = len_pair) ROW(grpo_loss, .T = 8) ROW(grpo_loss, .T = 9, .len = len_short) ROW(grpo_loss, .T = 9, .len = len_short, .opt = true)
    ROW(grpo_loss, .T = 137, .len = len_long, .opt = true) ROW(grpo_loss, .T = 2720, .len = len_train, .opt = true)
    SPEED(grpo_loss, .T = 8192, .opt = true)

    LARGE(fill, .T = 1 << 27) LARGE(cast, .T = 1 << 27) LARGE(lerp, .T = 1 << 27) LARGE(sumsq, .T = 1 << 27)
    LARGE(adamw, .T = 1 << 27) LARGE(adamw, .T = 1 << 27, .opt = true)
    LARGE(embed, .T = 32768, .D = 896, .V = 151936) LARGE(embed_bwd, .T = 32768, .D = 896, .V = 151936)
    LARGE(rmsnorm, .T = 32768, .D = 896, .opt = true) LARGE(rmsnorm, .T = 16384, .D = 3584, .opt = true)
    LARGE(rmsnorm_bwd, .T = 32768, .D = 896, .opt = true) LARGE(rmsnorm_bwd, .T = 16384, .D = 3584, .opt = true)
    LARGE(swiglu, .T = 32768, .F = 4864) LARGE(swiglu, .T = 8192, .F = 18944)
    LARGE(swiglu_bwd, .T = 32768, .F = 4864) LARGE(swiglu_bwd, .T = 8192, .F = 18944)
    LARGE(rope, .T = 32768, .H = 14, .K = 2, .d = 64, .opt = true) LARGE(rope_bwd, .T = 32768, .H = 14, .K = 2, .d = 64, .opt = true)
    LARGE(attention, .T = 16384, .H = 14, .K = 2, .d = 64, .len = len_packed) LARGE(attention, .T = 16384, .H = 28, .K = 4, .d = 128, .len = len_packed)
    LARGE(attention_bwd, .T = 16384, .H = 14, .K = 2, .d = 64, .len = len_packed) LARGE(attention_bwd, .T = 16384, .H = 28, .K = 4, .d = 128, .len = len_packed)
    LARGE(rope_decode, .T = 256, .H = 14, .K = 2, .d = 64, .len = len_decode_many, .opt = true)
    LARGE(rope_decode, .T = 256, .H = 16, .K = 8, .d = 128, .len = len_decode_many, .opt = true)
    LARGE(decode, .T = 256, .H = 14, .K = 2, .d = 64, .len = len_decode_many)
    LARGE(logprob, .T = 8192, .D = 896, .V = 151936) LARGE(logprob_bwd, .T = 8192, .D = 896, .V = 151936)
    LARGE(grpo_loss, .T = 1 << 20, .opt = true)
    LARGE(sample, .T = 256, .D = 896, .V = 151936) LARGE(sample, .T = 256, .D = 896, .V = 151936, .opt = true)
};
// clang-format on
enum { CASE_ROWS = sizeof case_table / sizeof *case_table };
