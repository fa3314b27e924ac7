// The batch (batch.h): making, clearing and freeing it, and turning it into bytes and back.
#include "batch.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const finish_name[] = {"none", "eos", "stop", "length"};

Batch batch_new(int prompts, int group, int max_completion, int n_rewards) {
    Batch b = {.prompts = prompts,
               .group = group,
               .n = prompts * group,
               .max_completion = max_completion,
               .n_rewards = n_rewards};
    size_t P = (size_t)prompts, n = (size_t)b.n, tokens = n * (size_t)max_completion;
    b.row = xcalloc(P, sizeof *b.row);
    b.file = xcalloc(P, sizeof *b.file);
    b.question = xcalloc(P, sizeof *b.question);
    b.answer = xcalloc(P, sizeof *b.answer);
    b.prompt = xcalloc(P, sizeof *b.prompt);
    b.state = xcalloc(n, sizeof *b.state);
    b.finish = xcalloc(n, sizeof *b.finish);
    b.key = xcalloc(n, sizeof *b.key);
    b.len = xcalloc(n, sizeof *b.len);
    b.ids = xcalloc(tokens, sizeof *b.ids);
    b.logp = xcalloc(tokens, sizeof *b.logp);
    b.lse = xcalloc(tokens, sizeof *b.lse);
    b.entropy = xcalloc(tokens, sizeof *b.entropy);
    b.text = xcalloc(n, sizeof *b.text);
    b.score = xcalloc(n * (size_t)(n_rewards ? n_rewards : 1), sizeof *b.score);
    b.reward = xcalloc(n, sizeof *b.reward);
    b.ref_logp = xcalloc(tokens, sizeof *b.ref_logp);
    b.advantage = xcalloc(n, sizeof *b.advantage);
    b.loss = xcalloc(n, sizeof *b.loss);
    return b;
}

// Frees the texts of prompt p and of its completions, and queues them again.
void batch_clear_prompt(Batch *b, int p) {
    free(b->question[p]);
    free(b->answer[p]);
    b->question[p] = b->answer[p] = NULL;
    ids_clear(&b->prompt[p]);
    for (int i = p * b->group; i < (p + 1) * b->group; i++) {
        free(b->text[i]);
        b->text[i] = NULL;
        b->state[i] = SEQ_QUEUED;
        b->finish[i] = FINISH_NONE;
        b->len[i] = 0;
    }
}

void batch_clear(Batch *b) {
    for (int p = 0; p < b->prompts; p++) batch_clear_prompt(b, p);
}

void batch_free(Batch *b) {
    batch_clear(b);
    for (int p = 0; p < b->prompts; p++) ids_free(&b->prompt[p]);
    void *columns[] = {b->row,    b->file,     b->question, b->answer,    b->prompt, b->state, b->finish,
                       b->key,    b->len,      b->ids,      b->logp,      b->lse,    b->text,  b->score,
                       b->reward, b->ref_logp, b->entropy,  b->advantage, b->loss};
    for (size_t i = 0; i < sizeof columns / sizeof *columns; i++) free(columns[i]);
    *b = (Batch){0};
}

// Appends n bytes. What batches are packed into, for checkpoints and for other ranks, is columns one after the other,
// little-endian.
static void pack_bytes(Str *s, const void *p, size_t n) { str_add(s, p, n); }

static void pack_text(Str *s, const char *text) {
    uint64_t n = text ? strlen(text) : 0;
    pack_bytes(s, &n, sizeof n);
    if (n) pack_bytes(s, text, n);
}

bool batch_bad_logp(const Batch *b, int *i, int *j) {
    for (*i = 0; *i < b->n; ++*i)
        for (*j = 0; *j < b->len[*i]; ++*j)
            if (!isfinite(b->logp[(size_t)*i * (size_t)b->max_completion + (size_t)*j])) return true;
    return false;
}

Batch batch_slice(const Batch *b, int first, int prompts) {
    Batch x = *b;
    int i = first * b->group;
    size_t token = (size_t)i * (size_t)b->max_completion;
    x.prompts = prompts;
    x.n = prompts * b->group;
    x.row += first, x.file += first, x.question += first, x.answer += first, x.prompt += first;
    x.state += i, x.finish += i, x.key += i, x.len += i, x.text += i;
    x.ids += token, x.logp += token, x.lse += token, x.entropy += token, x.ref_logp += token;
    x.score += i * b->n_rewards;
    x.reward += i, x.advantage += i, x.loss += i;
    return x;
}

void batch_pack_prompts(const Batch *b, int first, int prompts, Str *s) {
    Batch x = batch_slice(b, first, prompts);
    for (int i = 0; i < x.n; i++) {
        int32_t finish = x.finish[i];
        size_t token = (size_t)i * (size_t)x.max_completion;
        pack_bytes(s, &finish, sizeof finish);
        pack_bytes(s, &x.len[i], sizeof x.len[i]);
        pack_bytes(s, x.ids + token, (size_t)x.len[i] * sizeof *x.ids);
        pack_bytes(s, x.logp + token, (size_t)x.len[i] * sizeof *x.logp);
        pack_bytes(s, x.lse + token, (size_t)x.len[i] * sizeof *x.lse);
        pack_bytes(s, x.entropy + token, (size_t)x.len[i] * sizeof *x.entropy);
        pack_text(s, x.text[i]);
    }
    pack_bytes(s, x.score, (size_t)x.n * (size_t)x.n_rewards * sizeof *x.score);
    pack_bytes(s, x.reward, (size_t)x.n * sizeof *x.reward);
}

char *batch_pack(const Batch *b, bool reference, size_t *bytes) {
    Str s = {0};
    size_t P = (size_t)b->prompts, n = (size_t)b->n;
    int32_t head[5] = {b->prompts, b->group, b->max_completion, b->n_rewards, reference};
    pack_bytes(&s, head, sizeof head);
    pack_bytes(&s, b->row, P * sizeof *b->row);
    pack_bytes(&s, b->file, P * sizeof *b->file);
    for (size_t p = 0; p < P; p++) {
        uint64_t ids = b->prompt[p].n;
        pack_text(&s, b->question[p]);
        pack_text(&s, b->answer[p]);
        pack_bytes(&s, &ids, sizeof ids);
        pack_bytes(&s, b->prompt[p].id, ids * sizeof *b->prompt[p].id);
    }
    for (size_t i = 0; i < n; i++) {
        int32_t finish = b->finish[i];
        pack_bytes(&s, &finish, sizeof finish);
        pack_text(&s, b->text[i]);
    }
    pack_bytes(&s, b->key, n * sizeof *b->key);
    pack_bytes(&s, b->len, n * sizeof *b->len);
    for (size_t i = 0; i < n; i++) { // behind its length a row has what an earlier generation left there
        size_t at = i * (size_t)b->max_completion, len = (size_t)b->len[i];
        pack_bytes(&s, b->ids + at, len * sizeof *b->ids);
        pack_bytes(&s, b->logp + at, len * sizeof *b->logp);
        if (reference) pack_bytes(&s, b->ref_logp + at, len * sizeof *b->ref_logp);
    }
    pack_bytes(&s, b->score, n * (size_t)b->n_rewards * sizeof *b->score);
    pack_bytes(&s, b->reward, n * sizeof *b->reward);
    *bytes = s.n;
    return s.s;
}

typedef struct {
    const char *p;
    size_t left;
    bool ok;
} Reader;

static void unpack_bytes(Reader *r, void *out, size_t n) {
    r->ok = r->ok && n <= r->left;
    if (!r->ok) return;
    if (n) memcpy(out, r->p, n);
    r->p += n;
    r->left -= n;
}

static char *unpack_text(Reader *r) {
    uint64_t n = 0;
    unpack_bytes(r, &n, sizeof n);
    if (!r->ok || n > r->left) {
        r->ok = false;
        return xstrdup("");
    }
    char *text = xstrndup(r->p, n);
    r->p += n;
    r->left -= n;
    return text;
}

bool batch_unpack(Batch *b, bool reference, const char *bytes, size_t size) {
    Reader r = {bytes, size, bytes != NULL};
    size_t P = (size_t)b->prompts, n = (size_t)b->n;
    int32_t head[5] = {0}, want[5] = {b->prompts, b->group, b->max_completion, b->n_rewards, reference};
    unpack_bytes(&r, head, sizeof head);
    if (!r.ok || memcmp(head, want, sizeof head)) return false;
    batch_clear(b);
    unpack_bytes(&r, b->row, P * sizeof *b->row);
    unpack_bytes(&r, b->file, P * sizeof *b->file);
    for (size_t p = 0; p < P && r.ok; p++) {
        uint64_t ids = 0;
        b->question[p] = unpack_text(&r);
        b->answer[p] = unpack_text(&r);
        unpack_bytes(&r, &ids, sizeof ids);
        for (uint64_t j = 0; j < ids && r.ok; j++) {
            int32_t id = 0;
            unpack_bytes(&r, &id, sizeof id);
            ids_add(&b->prompt[p], id);
        }
    }
    for (size_t i = 0; i < n && r.ok; i++) {
        int32_t finish = 0;
        unpack_bytes(&r, &finish, sizeof finish);
        b->finish[i] = (Finish)finish;
        b->text[i] = unpack_text(&r);
        b->state[i] = SEQ_SCORED;
    }
    unpack_bytes(&r, b->key, n * sizeof *b->key);
    unpack_bytes(&r, b->len, n * sizeof *b->len);
    for (size_t i = 0; i < n && r.ok; i++) {
        size_t at = i * (size_t)b->max_completion, len = (size_t)b->len[i];
        r.ok = b->len[i] >= 0 && b->len[i] <= b->max_completion;
        unpack_bytes(&r, b->ids + at, len * sizeof *b->ids);
        unpack_bytes(&r, b->logp + at, len * sizeof *b->logp);
        if (reference) unpack_bytes(&r, b->ref_logp + at, len * sizeof *b->ref_logp);
    }
    unpack_bytes(&r, b->score, n * (size_t)b->n_rewards * sizeof *b->score);
    unpack_bytes(&r, b->reward, n * sizeof *b->reward);
    return r.ok && !r.left;
}

bool batch_unpack_prompts(Batch *b, int first, int prompts, const char *bytes, size_t size) {
    Reader r = {bytes, size, true};
    Batch x = batch_slice(b, first, prompts);
    for (int i = 0; i < x.n && r.ok; i++) {
        int32_t finish = 0;
        size_t token = (size_t)i * (size_t)x.max_completion;
        unpack_bytes(&r, &finish, sizeof finish);
        unpack_bytes(&r, &x.len[i], sizeof x.len[i]);
        r.ok = r.ok && x.len[i] >= 0 && x.len[i] <= x.max_completion;
        unpack_bytes(&r, x.ids + token, (size_t)x.len[i] * sizeof *x.ids);
        unpack_bytes(&r, x.logp + token, (size_t)x.len[i] * sizeof *x.logp);
        unpack_bytes(&r, x.lse + token, (size_t)x.len[i] * sizeof *x.lse);
        unpack_bytes(&r, x.entropy + token, (size_t)x.len[i] * sizeof *x.entropy);
        free(x.text[i]);
        x.text[i] = unpack_text(&r);
        x.finish[i] = (Finish)finish;
        x.state[i] = SEQ_SCORED;
    }
    unpack_bytes(&r, x.score, (size_t)x.n * (size_t)x.n_rewards * sizeof *x.score);
    unpack_bytes(&r, x.reward, (size_t)x.n * sizeof *x.reward);
    return r.ok && !r.left;
}
