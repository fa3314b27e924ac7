// Copies between host memory and a device's: views for reading, and uploads.
#pragma once
#include "error.h"
#include "ops.h"

// Whether memory of d may be read and written directly. Code that reads or writes files takes NULL for host memory.
bool on_host(const Device *d);
// The bytes of `data` for reading: data itself where on_host, else a copy in `room`.
const void *device_view(Device *d, const void *data, size_t bytes, void *room);
// An upload through two halves of pinned memory: fill staging_room, send parts of it, turn to the other half, and so
// on. Where the memory is the host's only staging_put may be used.
typedef struct {
    Device *d;
    size_t bytes; // size of a half
    char *half[2];
    Event *passed[2];
    int at;
    size_t used; // bytes of this half that staging_put has filled
} Staging;
bool staging_open(Staging *s, Device *d, size_t bytes, Error *e);
char *staging_room(Staging *s); // the half to fill, once what was last sent from it has arrived
void staging_send(Staging *s, void *to, const void *from, size_t bytes);
void staging_turn(Staging *s);
// Copies bytes into the room and sends them from there, so that the caller may change `from` at once. All puts since
// the last turn share one half. Host memory is simply written.
void staging_put(Staging *s, void *to, const void *from, size_t bytes);
bool staging_close(Staging *s, Error *e); // waits; false after filling *e where a copy failed
