// Copies between host memory and a device's: views for reading, and uploads in which the next part is prepared while
// the last one is still being copied.
#include "device.h"
#include "staging.h"
#include <stdlib.h>
#include <string.h>

bool on_host(const Device *d) { return !d || d->on_host; }

const void *device_view(Device *d, const void *data, size_t bytes, void *room) {
    if (on_host(d)) return data;
    d->copy(d, room, data, bytes);
    return room;
}

bool staging_open(Staging *s, Device *d, size_t bytes, Error *e) {
    *s = (Staging){.d = d, .bytes = bytes};
    bool ok = true;
    for (int i = 0; i < 2 && !on_host(d); i++) {
        s->half[i] = d->host_alloc(d, bytes);
        s->passed[i] = d->event_new(d);
        ok = ok && s->half[i] && s->passed[i];
    }
    if (ok) return true;
    staging_close(s, NULL);
    return device_ok(d, e) && error_set(e, EXIT_MEMORY,
                                        "cannot take %zu MiB of host memory for copies to the GPU; "
                                        "close other programs",
                                        2 * bytes >> 20);
}

char *staging_room(Staging *s) {
    s->d->event_wait(s->d, s->passed[s->at]);
    return s->half[s->at];
}

void staging_send(Staging *s, void *to, const void *from, size_t bytes) { s->d->copy_async(s->d, to, from, bytes); }

void staging_turn(Staging *s) {
    s->d->event_record(s->d, s->passed[s->at]);
    s->at = !s->at;
    s->used = 0;
}

void staging_put(Staging *s, void *to, const void *from, size_t bytes) {
    if (on_host(s->d)) {
        memcpy(to, from, bytes);
        return;
    }
    char *room = s->used ? s->half[s->at] : staging_room(s);
    if (s->used + bytes > s->bytes) die("staging: %zu bytes to send, %zu planned", s->used + bytes, s->bytes);
    memcpy(room + s->used, from, bytes);
    staging_send(s, to, room + s->used, bytes);
    s->used += bytes;
}

bool staging_close(Staging *s, Error *e) {
    Device *d = s->d;
    if (on_host(d)) return true;
    d->sync(d);
    for (int i = 0; i < 2; i++) {
        d->host_free(d, s->half[i], s->bytes);
        d->event_free(d, s->passed[i]);
    }
    return device_ok(d, e);
}
