// Byte-level BPE (Sennrich et al. 2016; GPT-2's alphabet for bytes): a word starts as its bytes, and the pair of lowest
// rank, leftmost first, is merged until no pair can be.
#include "random.h"
#include "text.h"
#include "tokenizer_parts.h"
#include <stdlib.h>

// Words up to this length are merged by looking at every pair, which is faster for them; longer ones by a heap.
enum { SHORT_WORD = 48 };
// Longer words are cut here, so that positions fit 32 bits.
static const size_t longest_word = (size_t)1 << 30;

// ---- the table of tokens --------------------------------------------------------------------------------------------

// The key of a string in the table: up to 8 bytes are their own key (beside the length), so that most words are found
// without reading the string itself.
static inline uint64_t token_key(const char *s, size_t n) {
    uint32_t first, last;
    uint64_t h = n, eight;
    if (n > 8) {
        for (size_t i = 0; i + 8 < n; i += 8) {
            memcpy(&eight, s + i, 8);
            h = (h ^ eight) * RANDOM_STEP;
            h ^= h >> 32;
        }
        memcpy(&eight, s + n - 8, 8);
        h = (h ^ eight) * RANDOM_STEP;
        return h ^ h >> 32;
    }
    if (n >= 4) {
        memcpy(&first, s, 4);
        memcpy(&last, s + n - 4, 4);
        return (uint64_t)last << 32 | first;
    }
    const unsigned char *p = (const unsigned char *)s;
    return (uint64_t)p[n - 1] << 16 | (uint64_t)p[n / 2] << 8 | p[0];
}

static inline TokenSlot *token_slot(const TokenTable *t, const char *s, size_t n) {
    uint64_t key = token_key(s, n), mask = ((uint64_t)1 << t->bits) - 1;
    for (uint64_t i = (key ^ n) * RANDOM_STEP >> (64 - t->bits);; i = (i + 1) & mask) {
        TokenSlot *slot = &t->slot[i];
        if (!slot->n || (slot->n == n && slot->key == key && (n <= 8 || !memcmp(t->pool.s + t->at[slot->id], s, n))))
            return slot;
    }
}

static int bits_for(size_t entries) { // a table at most two thirds full
    int bits = 4;
    while (((size_t)1 << bits) * 2 < entries * 3) bits++;
    return bits;
}

void token_table_init(TokenTable *t, int size) {
    *t = (TokenTable){.size = size, .bits = bits_for((size_t)size)};
    t->at = xcalloc((size_t)size, sizeof *t->at);
    t->n = xcalloc((size_t)size, sizeof *t->n);
    t->slot = xcalloc((size_t)1 << t->bits, sizeof *t->slot);
}

void token_table_store(TokenTable *t, int32_t id, const char *s, size_t n) {
    t->at[id] = (uint32_t)t->pool.n, t->n[id] = (uint32_t)n;
    str_add(&t->pool, s, n);
}

void token_table_index(TokenTable *t, int32_t id) {
    if (!t->n[id]) return;
    const char *s = t->pool.s + t->at[id];
    *token_slot(t, s, t->n[id]) = (TokenSlot){token_key(s, t->n[id]), id, t->n[id]};
}

int32_t token_table_find(const TokenTable *t, const char *s, size_t n) {
    if (!n) return -1;
    const TokenSlot *slot = token_slot(t, s, n);
    return slot->n ? slot->id : -1;
}

static void token_table_free(TokenTable *t) {
    str_free(&t->pool);
    free(t->at), free(t->n), free(t->slot);
}

// The byte that a letter of GPT-2's alphabet stands for, or -1: the printable Latin-1 character of that number where
// there is one; the other 68 bytes, in order, are U+0100, U+0101 ...
static int byte_of_letter(uint32_t c) {
    if ((c >= '!' && c <= '~') || (c >= 0xa1 && c <= 0xac) || (c >= 0xae && c <= 0xff)) return (int)c;
    if (c < 0x100 || c > 0x143) return -1;
    int k = (int)c - 0x100; // 33 bytes up to the space, then 0x7f..0xa0, then 0xad
    return k <= 32 ? k : k <= 66 ? 0x7f + k - 33 : 0xad;
}

bool surface_bytes(const char *s, size_t n, Str *out) {
    Text t = {s, n};
    size_t before = out->n;
    for (size_t i = 0; i < n;) {
        uint32_t c;
        i += text_char(t, i, &c);
        int byte = byte_of_letter(c);
        if (byte < 0) { // undo: the surface is taken as it is
            out->n = before;
            str_add(out, s, n);
            return false;
        }
        str_add(out, &(char){(char)byte}, 1);
    }
    return true;
}

// ---- the table of merges --------------------------------------------------------------------------------------------

static inline uint64_t pair_of(int32_t left, int32_t right) { return (uint64_t)(uint32_t)left << 32 | (uint32_t)right; }

static inline MergeSlot *merge_slot(const Bpe *b, uint64_t pair) {
    uint64_t mask = ((uint64_t)1 << b->merge_bits) - 1;
    uint64_t i = ((pair ^ pair >> 32) * RANDOM_STEP) >> (64 - b->merge_bits);
    while (b->merge[i].rank >= 0 && b->merge[i].pair != pair) i = (i + 1) & mask;
    return &b->merge[i];
}

// The rank of a pair, INT32_MAX where it has none.
static inline int32_t merge_rank(const Bpe *b, int32_t left, int32_t right) {
    int32_t rank = merge_slot(b, pair_of(left, right))->rank;
    return rank < 0 ? INT32_MAX : rank;
}

void bpe_init(Bpe *b, int size, size_t n_merges) {
    token_table_init(&b->surface, size);
    token_table_init(&b->word, size);
    memset(b->byte, -1, sizeof b->byte);
    b->merge_bits = bits_for(n_merges);
    b->merge = xmalloc(((size_t)1 << b->merge_bits) * sizeof *b->merge);
    memset(b->merge, -1, ((size_t)1 << b->merge_bits) * sizeof *b->merge);
    b->merged = xmalloc(n_merges * sizeof *b->merged);
}

void bpe_add_token(Bpe *b, int32_t id, const char *surface, size_t n) {
    token_table_store(&b->surface, id, surface, n);
    token_table_index(&b->surface, id);
    Str bytes = {0};
    if (surface_bytes(surface, n, &bytes) && bytes.n == 1) b->byte[(unsigned char)bytes.s[0]] = id;
    token_table_store(&b->word, id, bytes.s, bytes.n);
    str_free(&bytes);
}

bool bpe_add_merge(Bpe *b, int32_t left, int32_t right, int32_t id) {
    uint64_t pair = pair_of(left, right);
    MergeSlot *slot = merge_slot(b, pair);
    if (slot->rank >= 0) return false;
    *slot = (MergeSlot){pair, b->n_merges, id};
    b->merged[b->n_merges++] = id;
    return true;
}

// ---- merging --------------------------------------------------------------------------------------------------------

// Turns bytes into ids. A byte that is no token is dropped, as HF does where there is no unknown token.
static size_t bytes_to_ids(const Bpe *b, const char *word, size_t n, int32_t *id) {
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        id[k] = b->byte[(unsigned char)word[i]];
        k += id[k] >= 0;
    }
    return k;
}

static size_t merge_short(const Bpe *b, int32_t *id, size_t n) {
    int32_t rank[SHORT_WORD]; // of the pair (i, i + 1)
    for (size_t i = 0; i + 1 < n; i++) rank[i] = merge_rank(b, id[i], id[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (rank[i] < rank[best]) best = i;
        if (rank[best] == INT32_MAX) break;
        id[best] = b->merged[rank[best]];
        n--;
        memmove(id + best + 1, id + best + 2, (n - best - 1) * sizeof *id);
        if (best + 1 < n) {
            memmove(rank + best + 1, rank + best + 2, (n - best - 2) * sizeof *rank);
            rank[best] = merge_rank(b, id[best], id[best + 1]);
        }
        if (best > 0) rank[best - 1] = merge_rank(b, id[best - 1], id[best]);
    }
    return n;
}

// A pair that could be merged; it may no longer exist when its turn comes.
typedef struct {
    uint64_t order; // rank << 32 | position: the lowest rank first, then the leftmost
    int32_t left, right;
} Candidate;

typedef struct {
    Candidate *item; // [n]: a binary heap, the smallest order first
    size_t n;
} Heap;

static void heap_push(Heap *h, Candidate c) {
    size_t i = h->n++;
    for (; i && h->item[(i - 1) / 2].order > c.order; i = (i - 1) / 2) h->item[i] = h->item[(i - 1) / 2];
    h->item[i] = c;
}

static Candidate heap_pop(Heap *h) {
    Candidate top = h->item[0], last = h->item[--h->n];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && h->item[child + 1].order < h->item[child].order) child++;
        if (h->item[child].order >= last.order) break;
        h->item[i] = h->item[child];
    }
    h->item[i] = last;
    return top;
}

static void push_pair(const Bpe *b, Heap *h, const int32_t *id, uint32_t left, uint32_t right) {
    int32_t rank = merge_rank(b, id[left], id[right]);
    if (rank != INT32_MAX) heap_push(h, (Candidate){(uint64_t)rank << 32 | left, id[left], id[right]});
}

// Merges a long word in O(n log n): a linked list of ids over their first positions, and a heap. A position that has
// been merged away has id -1.
static size_t merge_long(const Bpe *b, BpeScratch *scratch, int32_t *id, uint32_t n) {
    uint32_t *next = (uint32_t *)((char *)scratch->memory + n * sizeof *id), *previous = next + n;
    // Each merge takes one candidate out and puts at most two in, and there are fewer than n merges: at most 2 n in
    // all.
    Heap heap = {(Candidate *)((char *)scratch->memory + ((3 * (size_t)n * sizeof *id + 15) & ~(size_t)15)), 0};
    for (uint32_t i = 0; i < n; i++) next[i] = i + 1, previous[i] = i - 1;
    for (uint32_t i = 0; i + 1 < n; i++) push_pair(b, &heap, id, i, i + 1);
    while (heap.n) {
        Candidate c = heap_pop(&heap);
        uint32_t at = (uint32_t)c.order, right = id[at] < 0 ? n : next[at];
        if (right >= n || id[at] != c.left || id[right] != c.right) continue;
        id[at] = b->merged[c.order >> 32];
        id[right] = -1;
        next[at] = next[right];
        if (next[at] < n) {
            previous[next[at]] = at;
            push_pair(b, &heap, id, at, next[at]);
        }
        if (at) push_pair(b, &heap, id, previous[at], at);
    }
    size_t k = 0;
    for (uint32_t i = 0; i < n; i = next[i]) id[k++] = id[i];
    return k;
}

static void *scratch_reserve(BpeScratch *scratch, size_t bytes) {
    if (scratch->bytes < bytes) {
        free(scratch->memory);
        scratch->memory = xmalloc(scratch->bytes = bytes + bytes / 2);
    }
    return scratch->memory;
}

void bpe_encode(const Bpe *b, BpeScratch *scratch, const char *word, size_t n, Ids *out) {
    for (; n > longest_word; word += longest_word, n -= longest_word) bpe_encode(b, scratch, word, longest_word, out);
    int32_t whole = token_table_find(&b->word, word, n);
    if (whole >= 0) {
        ids_add(out, whole);
        return;
    }
    int32_t few[SHORT_WORD], *id = few;
    size_t k;
    if (n <= SHORT_WORD) k = merge_short(b, id, bytes_to_ids(b, word, n, id));
    else {
        id = scratch_reserve(scratch, 16 + n * (3 * sizeof *id + 2 * sizeof(Candidate)));
        k = merge_long(b, scratch, id, (uint32_t)bytes_to_ids(b, word, n, id));
    }
    for (size_t i = 0; i < k; i++) ids_add(out, id[i]);
}

// Indexes the tokens that a word of just their bytes becomes. Not all do: the merges need not lead back to a token.
void bpe_finish(Bpe *b, bool ignore_merges) {
    BpeScratch scratch = {0};
    Ids ids = {0};
    Str bytes = {0};
    bool *readable = xcalloc((size_t)b->word.size, sizeof *readable);
    for (int32_t id = 0; id < b->word.size; id++) {
        if (!b->word.n[id]) continue;
        str_clear(&bytes), ids_clear(&ids);
        if (!surface_bytes(b->surface.pool.s + b->surface.at[id], b->surface.n[id], &bytes)) continue;
        if (!ignore_merges) bpe_encode(b, &scratch, bytes.s, bytes.n, &ids);
        readable[id] = ignore_merges || (ids.n == 1 && ids.id[0] == id);
    }
    for (int32_t id = 0; id < b->word.size; id++)
        if (readable[id]) token_table_index(&b->word, id);
    free(readable);
    free(scratch.memory);
    ids_free(&ids);
    str_free(&bytes);
}

void bpe_free(Bpe *b) {
    token_table_free(&b->surface);
    token_table_free(&b->word);
    free(b->merge);
    free(b->merged);
}
