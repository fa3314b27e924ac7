// The judge's child process: asks an OpenAI-compatible server.
#pragma once
#include "error.h"

typedef struct {
    const char *url; // up to and without /chat/completions
    const char *model;
    const char *key;  // of the header Authorization: Bearer; NULL: none
    const char *user; // "user:password"; NULL: what the URL has
    int parallel;     // requests under way at a time
    int retries;      // after a failure that may pass
    int max_tokens;
    double timeout; // seconds of a request
} JudgeServer;

// The longest time n prompts may take, in seconds.
double judge_patience(const JudgeServer *s, int n);
// Whether this build can ask a server; else *e says what to do.
bool judge_is_built(Error *e);
// The child's whole life, as a program of its own: reads requests {"id", "samples": ["prompt", ..]} from standard input
// until its end, the first of them with the "server" too (it has the key, which is nobody's to see in a list of processes),
// and answers each with {"id", "replies": ["text" or null, ..], "faults": ["timeout" and the like, or null, ..]}.
#define JUDGE_NAME "reward-judge"
int judge_serve(int argc, char **argv);
// All of the first request but its id; the caller frees it.
char *judge_hello(const JudgeServer *s);
