// The state of the emulated GPU, and what its calls do with it; of the runtime API's files alone.
#pragma once
#include "emu_internal.h"
#include <atomic>
#include <chrono>
#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

typedef std::function<bool()> Work; // false: not yet, ask again

struct EmuGraph {
    std::vector<Work> nodes;
};
struct EmuGraphExec {
    std::vector<Work> nodes;
};
struct EmuStream {
    std::recursive_mutex lock; // held while its work runs: work of a stream is in order
    std::deque<Work> work;
    EmuGraph *graph = nullptr;   // what it records into
    EmuStream *origin = nullptr; // the stream whose capture it takes part in
    bool invalidated = false;
    int device = 0;
};
struct EmuEvent {
    std::atomic<int64_t> asked{0}, done{0};
    EmuStream *stream = nullptr;
    EmuStream *captured = nullptr; // recorded into the capture of this stream
    std::chrono::steady_clock::time_point time;
};

namespace emu {

struct Range {
    size_t bytes;
    cudaMemoryType type;
    int device;
};

extern std::mutex state_lock; // guards what follows
extern std::map<uintptr_t, Range> ranges;
extern std::map<std::string, int64_t> counts;
extern std::map<const void *, int> shared_limit;
extern std::set<EmuStream *> streams;
extern size_t device_bytes;
extern int64_t total, replayed, fail_alloc;
extern thread_local bool replaying; // work of a graph is running
extern std::string fail_launch;
extern bool deferred, guarded;
extern int working;                   // threads that run a stream's work
extern std::atomic<int> sticky;       // a crash: every call gives it from then on
extern thread_local cudaError_t last; // what cudaGetLastError gives
extern thread_local int device_now;

int64_t from_env(const char *name, int64_t usual);
EmuStream *stream_of(cudaStream_t s);
// What a call gives back, remembered for cudaGetLastError; and that of a call after a crash.
cudaError_t result(cudaError_t e);
cudaError_t failed_already();

// The range that p lies in, or whose end it is.
const Range *find_range(const void *p, uintptr_t *start);
cudaMemoryType type_of(const void *p);
// Where memory is guarded, it is there while somebody works on it, and only then: `more` somebodies begin, or end.
void guard(int more);
size_t pages(size_t bytes);
void *take_pages(size_t bytes);

// Runs what can run now; finish waits for the rest.
void advance(EmuStream *s);
void finish(EmuStream *s);
void advance_all();
void finish_device();
// Whether a piece of work was done; false where there is none, or where it waits for somebody.
bool run_one(EmuStream *s);
bool idle(EmuStream *s);
void nap();
// Calls that a stream must not see while it records spoil the recording.
cudaError_t spoil(EmuStream *s);
EmuStream *recording();

// Whether there is such a device; and the most shared memory that one of its blocks can have.
cudaError_t check_device(int device);
int shared_most();

} // namespace emu
