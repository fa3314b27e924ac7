// Which of the kernels written for one card alone are used: each is checked when a device is opened.
#include "cuda.cuh"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME(name, text) #name,
static const char *const names[] = {HOPPER_KERNELS(NAME)};

// Puts into left_out[] what GRPO_HOPPER leaves out: `off`, or `off:NAME,NAME`. False after filling d->error.
static bool left_out_by(const char *wish, bool *left_out, Device *d) {
    const bool off = wish && !strncmp(wish, "off", 3), some = off && wish[3] == ':';
    bool known = !wish || !*wish || some || (off && !wish[3]);
    for (int i = 0; i < HOPPER_COUNT; i++) left_out[i] = off && !some;
    for (const char *at = some ? wish + 4 : ""; known && *at;) {
        const size_t n = strcspn(at, ",");
        int i = 0;
        while (i < HOPPER_COUNT && (strlen(names[i]) != n || strncmp(names[i], at, n))) i++;
        if ((known = i < HOPPER_COUNT)) left_out[i] = true;
        at += n + (at[n] == ',');
    }
    if (known) return true;
    size_t n = (size_t)snprintf(d->error, sizeof d->error,
                                "GRPO_HOPPER=%.60s in the environment: choose off, or off: and some of", wish);
    for (int i = 0; i < HOPPER_COUNT && n < sizeof d->error; i++)
        n += (size_t)snprintf(d->error + n, sizeof d->error - n, "%s %s", i ? "," : "", names[i]);
    return false;
}

// A check has few tiles, so that on a whole card a block has one of them. With the grid for two multiprocessors it has
// several, as those of a large product have (but for attention_bwd, whose blocks are as many on any card).
#define MANY_SMS 8 // on a card of fewer the first check is like that already
static HopperState check_twice(Device *d, HopperState (*check)(Device *)) {
    CudaDevice *own = (CudaDevice *)d->backend;
    const int all = own->sm_count;
    HopperState made = check(d);
    if (made != HOPPER_USED || all <= MANY_SMS) return made;
    own->sm_count = 2;
    made = check(d);
    own->sm_count = all;
    return made;
}

bool hopper_open(Device *d, int compute_capability) {
#define CHECK(name, text) hopper_check_##name,
    static HopperState (*const check[])(Device *) = {HOPPER_KERNELS(CHECK)};
    CudaDevice *own = (CudaDevice *)d->backend;
    const bool here = compute_capability == 90;
    // A check compares with what is portable.
    for (int i = 0; i < HOPPER_COUNT; i++) own->hopper[i] = HOPPER_OTHER_CARD;
    if (!here) return true;
    bool left_out[HOPPER_COUNT];
    if (!left_out_by(getenv("GRPO_HOPPER"), left_out, d)) return false;
    HopperState made[HOPPER_COUNT];
    int missing = 0;
    for (int i = 0; i < HOPPER_COUNT; i++) {
        made[i] = left_out[i] ? HOPPER_LEFT_OUT : check_twice(d, check[i]);
        if (d->error[0]) {
            size_t n = strlen(d->error);
            n += (size_t)snprintf(d->error + n, sizeof d->error - n, "; to go on without: GRPO_HOPPER=off:");
            for (int k = 0; k < HOPPER_COUNT && n < sizeof d->error; k++)
                if (left_out[k] || k == i)
                    n += (size_t)snprintf(d->error + n, sizeof d->error - n, "%s%s", d->error[n - 1] == ':' ? "" : ",",
                                          names[k]);
            return false;
        }
        missing += made[i] != HOPPER_USED && made[i] != HOPPER_LEFT_OUT;
    }
    memcpy(own->hopper, made, sizeof made);
    size_t at = strlen(d->about);
    if (missing)
        snprintf(d->about + at, sizeof d->about - at, "; %d of %d Hopper kernels not used: grpo doctor", missing,
                 HOPPER_COUNT);
    return true;
}

static const char *state_text(HopperState s) {
    switch (s) {
    case HOPPER_OTHER_CARD: return "not for this card";
    case HOPPER_USED: return "used";
    case HOPPER_NO_CODE: return "not used: this build has no code for the card; make CUDA_ARCH=native";
    case HOPPER_NO_ROOM: return "not used: the card has too little shared memory";
    case HOPPER_LEFT_OUT: return "not used: GRPO_HOPPER in the environment leaves it out";
    case HOPPER_DIFFERS: return "not used: its results are not the portable kernel's here";
    }
    return "";
}

const char *cuda_variant(const Device *d, int i, char line[VARIANT_LINE]) {
#define TEXT(name, text) text,
    static const char *const text[] = {HOPPER_KERNELS(TEXT)};
    if (i < 0 || i >= HOPPER_COUNT) return NULL;
    snprintf(line, VARIANT_LINE, "%s by wgmma (%s): %s", text[i], names[i],
             state_text(((CudaDevice *)d->backend)->hopper[i]));
    return line;
}
