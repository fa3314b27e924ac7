// Finding added tokens in a text: a trie of all of them, searched at every byte that one can begin with.
#include "tokenizer_parts.h"
#include <stdlib.h>

static int trie_node(Trie *t, unsigned char byte) {
    if (t->n == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 64;
        t->node = xrealloc(t->node, (size_t)t->cap * sizeof *t->node);
    }
    t->node[t->n] = (TrieNode){0, 0, -1, byte};
    return t->n++;
}

static int trie_child(const Trie *t, int node, unsigned char byte) {
    int child = t->node[node].child;
    while (child && t->node[child].byte != byte) child = t->node[child].sibling;
    return child;
}

void trie_add(Trie *t, const char *s, size_t n, int token) {
    if (!t->n) trie_node(t, 0);
    t->starts[(unsigned char)s[0]] = true;
    int node = 0;
    for (size_t i = 0; i < n; i++) {
        unsigned char byte = (unsigned char)s[i];
        int child = trie_child(t, node, byte);
        if (!child) {
            child = trie_node(t, byte);
            t->node[child].sibling = t->node[node].child;
            t->node[node].child = child;
        }
        node = child;
    }
    t->node[node].token = token;
}

int trie_next(const Trie *t, const char *s, size_t n, size_t *at, size_t *from, size_t *to) {
    if (!t->n) return -1;
    for (size_t i = *at; i < n; i++) {
        if (!t->starts[(unsigned char)s[i]]) continue;
        int found = -1, node = 0;
        for (size_t k = i; k < n && (node = trie_child(t, node, (unsigned char)s[k])); k++)
            if (t->node[node].token >= 0) {
                found = t->node[node].token;
                *to = k + 1;
            }
        if (found < 0) continue;
        *from = i, *at = *to;
        return found;
    }
    return -1;
}

void trie_free(Trie *t) { free(t->node); }
