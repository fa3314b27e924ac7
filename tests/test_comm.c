// Collectives of ranks: inputs whose exact sums and places are known, for 1 to 4 ranks, as processes and, on the CPU,
// as threads (so that the thread sanitizer sees them); and what happens where a rank dies, hangs or does something
// else. On GPUs (GRPO_TEST_DEVICE=cuda, see test_device) each rank needs one of its own.
#include "comm.h"
#include "on_device.h"
#include "random.h"
#include "several_gpus.h"
#include "staging.h"
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// cmocka wants these before it
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

// What a rank does; false after saying why. Ranks other than the test's own process cannot use cmocka.
typedef bool Part(Comm *c, void *arg);

#define CHECK(x)                                                                                                       \
    do {                                                                                                               \
        if (!(x)) return fprintf(stderr, "rank %d of %d: line %d: %s\n", c->rank, c->world, __LINE__, #x), false;      \
    } while (0)

typedef struct {
    Part *part;
    void *arg;
    Board *board;
    int rank, world;
    double timeout;
    bool good;
} Rank;

static __thread Device *device; // this rank's

// On GPUs the ranks tell each other NCCL's id through the board, and meet there until NCCL is open.
static Comm *open_comm(const CommConfig *on_host, Error *e) {
    Comm *host = cpu_comm_open(on_host, e);
    if (!test_on_cuda()) return host;
#ifdef GRPO_CUDA
    CommConfig how = *on_host;
    bool ok = (how.rank || cuda_comm_id(how.id, e)) && comm_broadcast(host, "id", how.id, sizeof how.id, 0, e);
    comm_close(host);
    return ok ? cuda_comm_open(device, &how, e) : NULL;
#else
    comm_close(host);
    return NULL;
#endif
}

static void *be_rank(void *p) {
    Rank *r = p;
    Error e = {0};
    Board *mine = board_join(r->board, r->rank, r->rank);
    device = test_device_of(r->rank, 1);
    Comm *c = open_comm(&(CommConfig){r->rank, r->world, mine, 60, ""}, &e);
    if (!c) fprintf(stderr, "%s\n", e.text);
    if (c) c->timeout = r->timeout;
    r->good = c && r->part(c, r->arg);
    comm_close(c);
    device_close(device);
    board_close(mine);
    return NULL;
}

// Runs `part` on every rank; the number of ranks that failed.
static int run(int world, bool threads, double timeout, Part *part, void *arg) {
    Error e = {0};
    NEEDS_GPUS(world);
    Board *board = board_new(world, &e);
    assert_non_null(board);
    Rank rank[4];
    pthread_t thread[4];
    pid_t pid[4];
    int bad = 0;
    for (int r = 0; r < world; r++) {
        rank[r] = (Rank){part, arg, board, r, world, timeout, false};
        if (threads) {
            pthread_create(&thread[r], NULL, be_rank, &rank[r]);
            continue;
        }
        fflush(NULL);
        pid[r] = fork();
        if (pid[r] == 0) {
            be_rank(&rank[r]);
            _exit(!rank[r].good);
        }
    }
    for (int r = world - 1; r >= 0; r--) { // rank 0 last: where it is stopped, the others have left by then
        int status = 0;
        if (threads) pthread_join(thread[r], NULL);
        else if (waitpid(pid[r], &status, WUNTRACED) == pid[r] && WIFSTOPPED(status)) {
            kill(pid[r], SIGKILL);
            waitpid(pid[r], &status, 0);
        }
        bad += threads ? !rank[r].good : status != 0;
    }
    board_close(board);
    return bad;
}

// ---- exact answers ------------------------------------------------------------------------------------------------

static const int64_t sizes[] = {0, 1, 63, 64, 65, 1000, 64 * 4 + 1, 65536 + 7, 3 * 65536 + 129, 400001};
enum { SIZES = sizeof sizes / sizeof *sizes };

// Adds up x[n] over ranks in parts of `part` elements (the last one shorter), from the last to the first, as gradients.
static bool add_up(Comm *c, Tensor x, int64_t part) {
    Error e = {0};
    for (int64_t end = tensor_numel(x); end > 0; end -= part) {
        int64_t first = end > part ? end - part : 0;
        CHECK(comm_reduce_part(c, "gradients", x, first, end - first, &e));
    }
    CHECK(comm_reduce_end(c, "gradients", x, &e));
    return true;
}

// Small whole numbers: every sum is exact, so every order of adding gives the same bits. Slices are multiples of 64:
// the numbers come again after 61, so that a slice in another's place shows.
static float value(int rank, int64_t i) { return (float)((i * 7 + rank * 31) % 61 - 20); }

static bool sums(Comm *c, void *arg) {
    for (int d = 0; d < 2; d++)
        for (int s = 0; s < SIZES; s++) {
            int64_t n = sizes[s], first, count;
            Tensor x = tensor1(xcalloc((size_t)n + 1, 4), d ? BF16 : F32, n);
            for (int64_t i = 0; i < n; i++) tensor_set(x, i, value(c->rank, i));
            Tensor there = to_device(device, x);
            CHECK(add_up(c, there, n));
            device_fetch(device, x.data, there);
            device_drop(device, there);
            comm_slice(n, c->rank, c->world, &first, &count);
            for (int64_t i = first; i < first + count; i++) {
                float want = 0;
                for (int r = 0; r < c->world; r++) want += value(r, i);
                CHECK(tensor_get(x, i) == want);
            }
            free(x.data);
        }
    return true;
}

static bool gathers(Comm *c, void *arg) {
    Error e = {0};
    for (int d = 0; d < 2; d++)
        for (int s = 0; s < SIZES; s++) {
            int64_t n = sizes[s], first, count, total = 0;
            Tensor x = tensor1(xcalloc((size_t)n + 1, 4), d ? BF16 : F32, n);
            comm_slice(n, c->rank, c->world, &first, &count);
            for (int64_t i = 0; i < n; i++) tensor_set(x, i, i >= first && i < first + count ? value(c->rank, i) : -1);
            Tensor there = to_device(device, x);
            CHECK(comm_all_gather(c, "parameters", there, &e));
            device_fetch(device, x.data, there);
            device_drop(device, there);
            for (int r = 0; r < c->world; r++) {
                comm_slice(n, r, c->world, &first, &count);
                CHECK(first == total && first % 64 == 0);
                total += count;
                for (int64_t i = first; i < first + count; i++) CHECK(tensor_get(x, i) == value(r, i));
            }
            CHECK(total == n);
            free(x.data);
        }
    return true;
}

// The sum is formed in rank order: 1 + 1e8 - 1e8 is 0 in f32, -1e8 + 1e8 + 1 would be 1.
static bool order(Comm *c, void *arg) {
    Error e = {0};
    const float each[4] = {1, 1e8f, -1e8f, 3};
    float want = 0, x[256];
    for (int r = 0; r < c->world; r++) want = r ? want + each[r] : each[0];
    for (int i = 0; i < 256; i++) x[i] = each[c->rank];
    Tensor there = to_device(device, tensor1(x, F32, 256));
    CHECK(add_up(c, there, 256));
    device_fetch(device, x, there);
    device_drop(device, there);
    int64_t first, count;
    comm_slice(256, c->rank, c->world, &first, &count);
    for (int64_t i = first; i < first + count; i++) CHECK(x[i] == want);
    double y[2] = {each[c->rank] * 1e9, 1}, sum = 0;
    for (int r = 0; r < c->world; r++) sum = r ? sum + each[r] * 1e9 : each[r] * 1e9;
    CHECK(comm_all_reduce(c, "norm", y, 2, &e));
    CHECK(y[0] == sum && y[1] == c->world);
    return true;
}

static bool bytes(Comm *c, void *arg) {
    Error e = {0};
    for (size_t n = 0; n < 900000; n = n * 3 + 1) {
        size_t mine = c->rank == 1 ? 0 : n + (size_t)c->rank;
        char *data = xmalloc(mine), *all;
        uint64_t end[COMM_RANKS];
        memset(data, 'a' + c->rank, mine);
        CHECK(comm_collect(c, "completions", data, mine, &all, end, &e));
        for (int r = 0; r < c->world; r++) {
            uint64_t begin = r ? end[r - 1] : 0;
            CHECK(end[r] - begin == (r == 1 ? 0 : n + (size_t)r));
            for (uint64_t i = begin; i < end[r]; i++) CHECK(all[i] == 'a' + r);
        }
        free(data);
        free(all);
    }
    for (int root = 0; root < c->world; root++) {
        int x = c->rank == root ? 41 + root : 0;
        CHECK(comm_broadcast(c, "path", &x, sizeof x, root, &e));
        CHECK(x == 41 + root);
        CHECK(comm_barrier(c, "barrier", &e));
    }
    return true;
}

// What is longer than a GPU's scratch takes at once goes in parts: here every rank of 3 has two.
static bool parts(Comm *c, void *arg) {
    Error e = {0};
    int64_t n = 3 * (int64_t)(DEVICE_SCRATCH / 4 / sizeof(float)) + 461, first, count;
    Tensor x = tensor1(xcalloc((size_t)n, sizeof(float)), F32, n);
    for (int64_t i = 0; i < n; i++) f32(x)[i] = value(c->rank, i);
    Tensor there = to_device(device, x);
    CHECK(add_up(c, there, n));
    device_fetch(device, x.data, there);
    device_drop(device, there);
    comm_slice(n, c->rank, c->world, &first, &count);
    for (int64_t i = first; i < first + count; i++) {
        float want = 0;
        for (int r = 0; r < c->world; r++) want += value(r, i);
        CHECK(f32(x)[i] == want);
    }
    size_t bytes = DEVICE_SCRATCH / 2 / (size_t)c->world + 1000;
    unsigned char *data = (unsigned char *)x.data;
    for (size_t i = 0; i < bytes; i++) data[i] = c->rank == 1 ? (unsigned char)(i % 251) : 0;
    CHECK(comm_broadcast(c, "checkpoint", data, bytes, 1, &e));
    for (size_t i = 0; i < bytes; i++) CHECK(data[i] == i % 251);
    free(x.data);
    return true;
}

// Numbers of all sizes, so that another order of adding shows.
static float draw(int rank, int64_t i) {
    uint64_t bits = random_mix((uint64_t)(i * 64 + rank));
    return ldexpf((float)(bits & 0xffffff) - 8e6f, (int)(bits >> 59) - 40);
}

// However x is cut into parts, a rank's slice has the sums in rank order, rounded once. Parts may be shorter than a
// rank's 64 elements, begin anywhere, and lie in one slice or in several.
static bool cuts(Comm *c, void *arg) {
    static const struct {
        int64_t n, part;
    } cut[] = {{1003, 37}, {6400, 640}, {50021, 4000}, {200003, 65536}, {200003, 100000}, {200003, 200003}};
    for (int k = 0; k < 2 * (int)(sizeof cut / sizeof *cut); k++) {
        int64_t n = cut[k / 2].n, first, count;
        Tensor x = tensor1(xcalloc((size_t)n, 4), k % 2 ? BF16 : F32, n);
        for (int64_t i = 0; i < n; i++) tensor_set(x, i, draw(c->rank, i));
        Tensor there = to_device(device, x);
        CHECK(add_up(c, there, cut[k / 2].part));
        Tensor got = to_host(device, there);
        device_drop(device, there);
        comm_slice(n, c->rank, c->world, &first, &count);
        for (int64_t i = first; i < first + count; i++) {
            float sum = 0;
            for (int r = 0; r < c->world; r++) {
                tensor_set(x, i, draw(r, i)); // rounded, as rank r has it
                sum = r ? sum + tensor_get(x, i) : tensor_get(x, i);
            }
            tensor_set(x, i, sum);
        }
        x = tensor_rows(x, first, count), got = tensor_rows(got, first, count);
        CHECK(!memcmp(got.data, x.data, tensor_bytes(x)));
        free(tensor_rows(got, -first, n).data);
        free(tensor_rows(x, -first, n).data);
    }
    return true;
}

// A part is what the device's work before the call leaves there, also where that has not run yet; and later work on
// the rest goes on beside it.
static bool parts_are_final(Comm *c, void *arg) {
    Error e = {0};
    const int64_t n = 3 * 65536;
    float *host = xcalloc((size_t)n, sizeof *host);
    Tensor x = to_device(device, tensor1(host, F32, n));
    for (int turn = 0; turn < 3; turn++) {
        device->fill(device, x, -1);
        for (int64_t end = n; end > 0; end -= 65536) {
            Tensor part = tensor_rows(x, end - 65536, 65536);
            device->fill(device, part, (float)(end / 65536 + c->rank + turn));
            CHECK(comm_reduce_part(c, "gradients", x, end - 65536, 65536, &e));
        }
        CHECK(comm_reduce_end(c, "gradients", x, &e));
        device_fetch(device, host, x);
        int64_t first, count;
        comm_slice(n, c->rank, c->world, &first, &count);
        for (int64_t i = first; i < first + count; i++) {
            float want = 0;
            for (int r = 0; r < c->world; r++) want += (float)(i / 65536 + 1 + r + turn);
            CHECK(host[i] == want);
        }
    }
    device_drop(device, x);
    free(host);
    return true;
}

// Nobody leaves a barrier before everybody has come.
static int inside[4];
static bool barrier(Comm *c, void *arg) {
    Error e = {0};
    for (int turn = 1; turn < 200; turn++) {
        __atomic_store_n(&inside[c->rank], turn, __ATOMIC_RELAXED);
        CHECK(comm_barrier(c, "barrier", &e));
        for (int r = 0; r < c->world; r++)
            CHECK(test_on_cuda() || __atomic_load_n(&inside[r], __ATOMIC_RELAXED) >= turn);
    }
    return true;
}

static void each_world(Part *part, bool threads_only) {
    if (test_on_cuda()) threads_only = false;
    for (int threads = threads_only; threads < (test_on_cuda() ? 1 : 2); threads++)
        for (int world = 1; world <= 4; world++) assert_int_equal(run(world, threads, 20, part, NULL), 0);
}
static void sums_are_exact(void **state) { each_world(sums, false); }
static void gathers_are_exact(void **state) { each_world(gathers, false); }
static void parts_have_the_bits_of_the_whole(void **state) { each_world(cuts, false); }
static void parts_are_added_when_final(void **state) { each_world(parts_are_final, false); }
static void sums_run_in_rank_order(void **state) { each_world(order, false); }
static void bytes_of_any_number(void **state) { each_world(bytes, false); }
static void long_ones_go_in_parts(void **state) { assert_int_equal(run(3, false, 300, parts, NULL), 0); }
static void barriers_hold(void **state) { each_world(barrier, true); }

static void one_rank_needs_no_comm(void **state) {
    Error e = {0};
    float x[3] = {1, 2, 3};
    double y = 4;
    assert_true(comm_all_gather(NULL, "x", tensor1(x, F32, 3), &e) && comm_reduce_part(NULL, "x", NONE, 0, 3, &e) &&
                comm_reduce_end(NULL, "x", NONE, &e) && comm_all_reduce(NULL, "x", &y, 1, &e) &&
                comm_barrier(NULL, "x", &e));
    assert_true(y == 4 && x[0] == 1 && comm_world(NULL) == 1 && comm_rank(NULL) == 0);
}

// ---- faults -------------------------------------------------------------------------------------------------------

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

// Everybody but `who` must find an error that says these words, no later than `within` seconds after all had begun: far
// less than where nobody noticed, and yet enough for a busy machine.
typedef struct {
    int who;
    enum { SKIPS, SIZES_DIFFER, FAILS, DIES, SLEEPS, STOPS } does;
    const char *words[3];
    double within;
} Fault;

static bool says(const Error *e, const Fault *f) {
    for (int i = 0; i < 3; i++)
        if (f->words[i] && !strstr(e->text, f->words[i])) {
            fprintf(stderr, "\"%s\" is not in: %s\n", f->words[i], e->text);
            return false;
        }
    return true;
}

static bool faulty(Comm *c, void *arg) {
    const Fault *f = arg;
    Error e = {0};
    double x = 1, patience = c->timeout;
    board_phase(c->board, "rollout", 3);
    c->timeout = 60;                     // ranks begin when the machine lets them
    if (!comm_barrier(c, "start", &e)) { // a rank slow to leave it may hear of the fault here already
        CHECK(c->rank != f->who && says(&e, f));
        return true;
    }
    c->timeout = patience;
    double started = seconds();
    if (c->rank == f->who) {
        switch (f->does) {
        case SKIPS: break;
        case SIZES_DIFFER: return !comm_all_reduce(c, "norm", (double[2]){1, 2}, 2, &e);
        case FAILS: CHECK(board_fail(c->board, EXIT_DISK, "the disk is full")); break;
        case DIES: kill(getpid(), SIGKILL); break;
        case STOPS: kill(getpid(), SIGSTOP); break;
        case SLEEPS: nanosleep(&(struct timespec){2, 0}, NULL); return !comm_all_reduce(c, "norm", &x, 1, &e);
        }
        if (f->does == FAILS) CHECK(board_failed(c->board, &e) && e.code == EXIT_DISK);
        if (f->does == FAILS) CHECK(!comm_all_reduce(c, "norm", &x, 1, &e));
    } else if (comm_all_reduce(c, "norm", &x, 1, &e)) CHECK(!"an error");
    if (f->does == SKIPS && c->rank == f->who) CHECK(!comm_barrier(c, "parameters", &e));
    CHECK(e.code == EXIT_COMM);
    CHECK(says(&e, f));
    CHECK(seconds() - started < f->within);
    CHECK(__atomic_load_n(board_stop(c->board), __ATOMIC_ACQUIRE));
    CHECK(!comm_barrier(c, "after", &e)); // it stays broken
    return true;
}

static void faults_are_named(const Fault *f, bool threads, double timeout, int bad) {
    if (test_on_cuda()) threads = false;
    for (int world = 2; world <= 4; world++) assert_int_equal(run(world, threads, timeout, faulty, (void *)f), bad);
}

static void a_skipped_collective_is_named(void **state) {
    const Fault f = {1, SKIPS, {"`norm`", "`parameters`", "rank 1"}, 10};
    faults_are_named(&f, true, 20, 0);
    faults_are_named(&f, false, 20, 0);
}
static void sizes_must_agree(void **state) {
    const Fault f = {1, SIZES_DIFFER, {"`norm` (", " bytes)", "rank 1"}, 10};
    faults_are_named(&f, true, 20, 0);
}
static void a_failure_ends_every_wait(void **state) {
    const Fault f = {0, FAILS, {"the disk is full"}, 10};
    faults_are_named(&f, true, 20, 0);
    faults_are_named(&f, false, 20, 0);
}
// What a rank finds after another has failed is only what followed from it.
static void the_first_failure_is_the_reason(void **state) {
    Error e = {0};
    Board *board = board_new(2, &e), *mine = board_join(board, 1, 1);
    assert_true(board_fail(board, EXIT_DISK, "the disk is full"));
    assert_false(board_report(mine, "rank 0 has ended", &e));
    assert_string_equal(e.text, "the disk is full");
    assert_int_equal(e.code, EXIT_COMM);
    board_close(mine);
    board_close(board);
    board = board_new(2, &e), mine = board_join(board, 1, 1);
    assert_false(board_report(mine, "rank 0 has ended", &e));
    assert_string_equal(e.text, "rank 0 has ended");
    assert_true(board_failed(board, &e));
    assert_string_equal(e.text, "rank 0 has ended");
    board_close(mine);
    board_close(board);
}
static void a_silent_rank_is_named(void **state) {
    const Fault f = {1, SLEEPS, {"rank 1", "phase `rollout` of step 3", "`norm`"}, 10};
    faults_are_named(&f, true, 1, 0);
}
static void a_stopped_rank_is_named(void **state) {
    const Fault f = {0, STOPS, {"rank 0", "phase `rollout` of step 3", "comm_timeout"}, 10};
    faults_are_named(&f, false, 1, 1);
}
static void a_dead_rank_is_noticed_at_once(void **state) {
    const Fault f = {1, DIES, {"rank 1", "has ended in phase `rollout` of step 3", "`norm`"}, 10};
    faults_are_named(&f, false, 60, 1);
}

int main(void) {
    setenv("EMU_DEVICES", "4", 0);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_rank_needs_no_comm),
        cmocka_unit_test(sums_are_exact),
        cmocka_unit_test(gathers_are_exact),
        cmocka_unit_test(sums_run_in_rank_order),
        cmocka_unit_test(parts_have_the_bits_of_the_whole),
        cmocka_unit_test(parts_are_added_when_final),
        cmocka_unit_test(bytes_of_any_number),
        cmocka_unit_test(long_ones_go_in_parts),
        cmocka_unit_test(barriers_hold),
        cmocka_unit_test(a_skipped_collective_is_named),
        cmocka_unit_test(sizes_must_agree),
        cmocka_unit_test(a_failure_ends_every_wait),
        cmocka_unit_test(the_first_failure_is_the_reason),
        cmocka_unit_test(a_silent_rank_is_named),
        cmocka_unit_test(a_stopped_rank_is_named),
        cmocka_unit_test(a_dead_rank_is_noticed_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
