// Stopping on request: a signal handler that only sets a flag and acknowledges the signal.
#include "clock.h"
#include "output.h"
#include "signals.h"
#include <errno.h>
#include <poll.h>
#include <unistd.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>

// What asks to stop: users, and batch systems before they kill (Slurm by any that it is told, LSF by SIGUSR2 and
// SIGXCPU, Grid Engine by SIGUSR1, SIGUSR2 and SIGXCPU; the kernel at a soft limit of processor time by SIGXCPU).
static const struct {
    int number;
    const char *said;
    bool repeats; // is sent more than once for one request, at any distance
} stops[] = {{SIGTERM, "grpo: SIGTERM: ", false}, {SIGINT, "grpo: SIGINT: ", false},
             {SIGHUP, "grpo: SIGHUP: ", true},    {SIGUSR1, "grpo: SIGUSR1: ", false},
             {SIGUSR2, "grpo: SIGUSR2: ", false}, {SIGXCPU, "grpo: SIGXCPU: ", true}};
enum { STOPS = sizeof stops / sizeof *stops };

static volatile sig_atomic_t stop; // the first signal; 0: none yet
static double first;               // when it came, in seconds
static bool live;                  // stderr is a terminal: clear the progress line before writing

static const char *stopping; // what the first signal leads to
static int *all_ranks_stop;  // the first signal of any rank; NULL where there is one rank
static void (*alive)(void);  // called whenever that is read

// Writes a text to stderr, using only what signal-safety(7) allows, and without waiting for a pipe that is full.
static void say(const char *text) {
    size_t n = strlen(text);
    while (n) {
        struct pollfd room = {.fd = STDERR_FILENO, .events = POLLOUT};
        if (poll(&room, 1, 0) == 0) return;
        ssize_t w = write(STDERR_FILENO, text, n);
        if (w < 0 && errno != EINTR) return;
        if (w > 0) text += w, n -= (size_t)w;
    }
}

static void handle(int sig) {
    int saved = errno;
    double now = clock_seconds(); // as safe in a handler as clock_gettime is
    int which = 0;
    while (stops[which].number != sig) which++;
    if (stop) {
        // timeout(1) and batch systems send a signal to the process and to its group at once: that counts as one.
        // So do the several SIGHUPs that a closing terminal sends, and the SIGXCPU of every second beyond the limit.
        if (sig == stop && (now - first < 0.1 || stops[which].repeats)) return;
        _exit(128 + sig);
    }
    stop = sig;
    first = now;
    int none = 0; // one request often reaches every rank: only the first acknowledges it
    if (all_ranks_stop &&
        !__atomic_compare_exchange_n(all_ranks_stop, &none, sig, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        errno = saved;
        return;
    }
    if (live) say("\r\033[K");
    say(stops[which].said);
    say(stopping);
    say("; a second signal quits at once\n");
    errno = saved;
}

void signals_install(bool saves) {
    live = output_is_screen(STDERR_FILENO);
    stopping = saves ? "stopping at the next safe point and saving" : "stopping";
    struct sigaction act = {.sa_handler = handle, .sa_flags = SA_RESTART};
    // Each signal blocks the others, so that the handler never interrupts itself.
    sigemptyset(&act.sa_mask);
    for (int i = 0; i < STOPS; i++) sigaddset(&act.sa_mask, stops[i].number);
    struct sigaction former; // nohup has SIGHUP ignored, and so it stays
    for (int i = 0; i < STOPS; i++)
        if (stops[i].number != SIGHUP || (!sigaction(SIGHUP, NULL, &former) && former.sa_handler != SIG_IGN))
            sigaction(stops[i].number, &act, NULL);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGPIPE, &ignore, NULL);
}

bool signals_wait(int fd) {
    for (;;) { // a look first: what is there may be read after a signal too
        struct pollfd input = {.fd = fd, .events = POLLIN};
        if (poll(&input, 1, stop_requested() ? 0 : 100) > 0) return true;
        if (stop_requested()) return false;
    }
}

void signals_share(int *flag, void (*on_look)(void)) {
    all_ranks_stop = flag;
    alive = on_look;
}

int stop_requested(void) {
    if (alive) alive();
    return stop_asked();
}

int stop_asked(void) { return stop || !all_ranks_stop ? stop : __atomic_load_n(all_ranks_stop, __ATOMIC_ACQUIRE); }
