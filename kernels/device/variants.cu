// Which of the kernels written for one card alone are used: each is checked when a device is opened.
#include "cuda.cuh"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool hopper_open(Device *d, int compute_capability) {
    typedef HopperState (*Check)(Device *);
#define CHECK(name, text) hopper_check_##name,
    static const Check check[] = {HOPPER_KERNELS(CHECK)};
    CudaDevice *own = (CudaDevice *)d->backend;
    const char *wish = getenv("GRPO_HOPPER");
    const bool here = compute_capability == 90, off = here && wish && !strcmp(wish, "off");
    // A check compares with what is portable.
    for (int i = 0; i < HOPPER_COUNT; i++) own->hopper[i] = off ? HOPPER_LEFT_OUT : HOPPER_OTHER_CARD;
    if (!here || off) return true;
    HopperState made[HOPPER_COUNT];
    int differ = 0;
    for (int i = 0; i < HOPPER_COUNT; i++) {
        made[i] = check[i](d);
        if (d->error[0]) {
            size_t n = strlen(d->error);
            snprintf(d->error + n, sizeof d->error - n,
                     "; GRPO_HOPPER=off in the environment leaves Hopper's own kernels out");
            return false;
        }
        differ += made[i] == HOPPER_DIFFERS;
    }
    memcpy(own->hopper, made, sizeof made);
    size_t at = strlen(d->about);
    if (differ)
        snprintf(d->about + at, sizeof d->about - at, "; %d of %d Hopper kernels not used: grpo doctor", differ,
                 HOPPER_COUNT);
    return true;
}

static const char *state_text(HopperState s) {
    switch (s) {
    case HOPPER_OTHER_CARD: return "not for this card";
    case HOPPER_USED: return "used";
    case HOPPER_NO_CODE: return "not used: this build has no code for the card; make CUDA_ARCH=native";
    case HOPPER_NO_ROOM: return "not used: the card has too little shared memory";
    case HOPPER_LEFT_OUT: return "not used: the environment has GRPO_HOPPER=off";
    case HOPPER_DIFFERS: return "not used: its results are not the portable kernel's here";
    }
    return "";
}

const char *cuda_variant(const Device *d, int i, char line[VARIANT_LINE]) {
#define TEXT(name, text) text,
    static const char *const name[] = {HOPPER_KERNELS(TEXT)};
    if (i < 0 || i >= HOPPER_COUNT) return NULL;
    snprintf(line, VARIANT_LINE, "%s by wgmma: %s", name[i], state_text(((CudaDevice *)d->backend)->hopper[i]));
    return line;
}
