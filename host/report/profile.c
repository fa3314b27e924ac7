// Marks a run for a profiler (Nsight): a range for each phase of a step, and recording on for the steps of
// profile_steps.
#include "profile.h"
#include <stdlib.h>
#include <string.h>

Profile profile_open(Device *d, const Config *c, Progress *p) {
    Profile profile = {.device = d};
    if (!config_step_range(c->profile_steps, &profile.first, &profile.last)) die("profile_steps went unchecked");
    if (!profile.first) return profile;
    progress_say(p,
                 d->record ? "profile_steps=%s: these steps are what a profiler records that waits for them"
                           : "profile_steps=%s records nothing: the CPU device has no profiler to tell",
                 c->profile_steps);
    return profile;
}

static void record(Profile *p, bool on) {
    if (p->recording == on) return;
    p->recording = on;
    if (p->device->record) p->device->record(p->device, on);
}

void profile_phase(Profile *p, const char *phase) {
    if (!p->device || p->phase == phase || (p->phase && phase && !strcmp(p->phase, phase))) return;
    if (p->phase) device_range(p->device, NULL);
    if (phase) device_range(p->device, phase);
    p->phase = phase;
}

void profile_step(Profile *p, int64_t step) {
    profile_phase(p, NULL);
    record(p, p->first && p->first <= step && step <= p->last);
}

void profile_close(Profile *p) {
    if (!p->device) return;
    profile_phase(p, NULL);
    record(p, false);
    *p = (Profile){0};
}
