// The monotonic clock.
#pragma once
#include <pthread.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
// Seconds since some moment in the past: for durations and time limits.
double clock_seconds(void);
// The same in whole milliseconds: what the deadlines of process.h are given in.
int64_t clock_ms(void);
// Makes a condition variable for clock_wait.
void clock_condition(pthread_cond_t *c);
// Waits until the condition is signalled, or for `ms` milliseconds. `lock` is held by the caller.
void clock_wait(pthread_cond_t *c, pthread_mutex_t *lock, int ms);
#ifdef __cplusplus
}
#endif
