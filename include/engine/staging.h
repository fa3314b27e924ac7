// Between host memory and a device's: views for reading, and uploads.
#pragma once
#include "error.h"
#include "ops.h"

// Wherever files meet weights or optimizer state, those are memory of a Device, or of the host where it is NULL.
bool on_host(const Device *d); // the memory may be read and written as it is
// The bytes for reading: data itself on the host, else a copy in `room`.
const void *device_view(Device *d, const void *data, size_t bytes, void *room);
// Uploads, where the memory is not the host's: fill the room, send parts of it, turn to the other half, and so on.
typedef struct {
    Device *d;
    size_t bytes; // of a half
    char *half[2];
    Event *passed[2];
    int at;
    size_t used; // of this half, by staging_put
} Staging;
bool staging_open(Staging *s, Device *d, size_t bytes, Error *e);
char *staging_room(Staging *s); // waits until what was last sent from it has arrived
void staging_send(Staging *s, void *to, const void *from, size_t bytes);
void staging_turn(Staging *s);
// Copies bytes into the room and sends them from there: `from` is the caller's again at once. What was put since the last
// turn shares one half. Memory of the host is simply written.
void staging_put(Staging *s, void *to, const void *from, size_t bytes);
bool staging_close(Staging *s, Error *e); // waits; false after filling *e where a copy failed
