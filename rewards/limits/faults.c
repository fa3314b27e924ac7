// What goes wrong while a reward scores: the counters, and the end of the run.
#include "state.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

const char *const reward_fault_name[REWARD_FAULTS] = {"regex_limit", "timeout",  "crash",      "flood",
                                                      "bad_reply",   "bad_gold", "no_sandbox", "too_long"};

void *reward_data(const Reward *r) {
    if (!r->state) die("reward %s was not opened", r->info->name);
    return r->state->data;
}

void reward_fault(const Reward *r, RewardFault fault, int n) {
    if (r->state && fault < REWARD_FAULTS) atomic_fetch_add(&r->state->faults[fault], n);
}

int64_t reward_faults(const Reward *r, RewardFault fault) {
    return r->state ? atomic_load(&r->state->faults[fault]) : 0;
}

void reward_end_run(const Reward *r, ExitCode code, const char *fmt, ...) {
    Error *why = xcalloc(1, sizeof *why), *none = NULL;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(why->text, sizeof why->text, fmt, ap);
    va_end(ap);
    why->code = code;
    if (!r->state || !atomic_compare_exchange_strong(&r->state->end, &none, why)) free(why);
}

bool reward_goes_on(const Reward *r, Error *e) {
    const Error *why = r->state ? atomic_load(&r->state->end) : NULL;
    return !why || error_set(e, why->code, "%s", why->text);
}
