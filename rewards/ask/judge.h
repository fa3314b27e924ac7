// The child process of the reward `judge`, which asks an OpenAI-compatible server.
#pragma once
#include "error.h"
#include <stdint.h>

typedef struct {
    const char *url; // up to and without /chat/completions
    const char *model;
    const char *key;  // for the header Authorization: Bearer; NULL: none
    const char *user; // "user:password"; NULL: what the URL has
    int parallel;     // requests under way at a time
    int retries;      // repetitions after a failure that may be temporary
    int max_tokens;
    double temperature;
    int64_t seed;   // of the replies, where the temperature is not 0
    double timeout; // seconds of a request
} JudgeServer;

// The longest time that n prompts may take, in seconds.
double judge_patience(const JudgeServer *s, int n);
// Whether this build can ask a server; if not, *e says what to do.
bool judge_is_built(Error *e);
// The main function of the child: reads requests {"id", "samples": ["prompt", ..]} from standard input until its end,
// and answers each with {"id", "replies": ["text" or null, ..], "faults": ["timeout" and the like, or null, ..],
// "causes": ["HTTP status 403 ..", or null, ..]}. The first request also has the "server", because its key must not
// appear in a list of processes.
#define JUDGE_NAME "grpo-judge"
int judge_serve(int argc, char **argv);
// The first request without its id; the caller frees it.
char *judge_hello(const JudgeServer *s);
