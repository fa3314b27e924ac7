// The language-model head, shared by the ops logprob and sample. It is streamed over the vocabulary in chunks of
// HEAD_CHUNK tokens counted from 0, HEAD_ROWS rows at a time; each row keeps one small summary a chunk, and the
// summaries are combined in ascending order. Because both ops run this code, a sampled token's log-prob and the
// trainer's are the same bits.
#pragma once
#include "dot.h"
#include "lse.h"

#define HEAD_CHUNK 1024 // tokens of the vocabulary
#define HEAD_ROWS  64   // rows of x in one task

// Logits of m rows over one chunk of n tokens, z[m, HEAD_CHUNK] = scale * x[m, D] w[n, D]^T, and each row's summary of
// them in summary[m], `stride` apart.
void head_chunk(float *z, Lse *summary, int64_t stride, Rows x, int64_t m, Rows w, int64_t n, int64_t D, float scale);
// The logsumexp of a row from its chunks' summaries; its entropy too, where `entropy` is not NULL.
float head_lse(const Lse *summary, int64_t chunks, float *entropy);

static inline int64_t head_chunks(int64_t V) { return (V + HEAD_CHUNK - 1) / HEAD_CHUNK; }
