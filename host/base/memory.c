// Allocation that never returns NULL, for our own code and for every library.
//
// This file defines the program's malloc and its relatives, and pthread_create. They call the next definition (the C
// library's, or a preloaded allocator's), and where memory or threads run out they end the process with one line and
// EXIT_MEMORY. So no library ever sees a failed allocation, which it might not handle, or report as a wrong input:
// Jansson, PCRE2, libyaml, utf8proc, libcurl, OpenMP, the C library's own streams and directories. What may well be too
// large for the machine (weights, caches: Device's alloc) comes from mmap, and its failure is an ordinary error.
#include "error.h"
#include "output.h"
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static bool (*may_speak)(ExitCode code, Error *e);
void memory_ask_who_speaks(bool (*ask)(ExitCode code, Error *e)) { may_speak = ask; }

// The first limit of this process that is set: MiB of it, and its option of ulimit; NULL: none is.
static const char *own_limit(unsigned long long *mib) {
    static const struct {
        __rlimit_resource_t which;
        const char *option;
    } all[] = {{RLIMIT_AS, "-v"}, {RLIMIT_DATA, "-d"}};
    struct rlimit r;
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (!getrlimit(all[i].which, &r) && r.rlim_cur != RLIM_INFINITY) {
            *mib = (unsigned long long)r.rlim_cur >> 20;
            return all[i].option;
        }
    return NULL;
}

void memory_name_limit(Error *e) {
    unsigned long long mib;
    const char *option = e->code == EXIT_MEMORY ? own_limit(&mib) : NULL;
    char named[16];
    snprintf(named, sizeof named, "ulimit %s", option ? option : "");
    size_t n = strlen(e->text);
    if (option && !strstr(e->text, named))
        snprintf(e->text + n, sizeof e->text - n,
                 "; this process is limited to %llu MiB, whatever else is free: allow more (%s)", mib, named);
}

void memory_spare_limit(void) {
    unsigned long long mib;
    if (own_limit(&mib)) mallopt(M_ARENA_MAX, 1);
}

// Uses no stream, no lock, no exit handler, and nothing that allocates: any of them may be what ran out of memory.
_Noreturn void out_of_memory(const char *fmt, ...) {
    static atomic_flag said = ATOMIC_FLAG_INIT;
    static _Thread_local bool ending;
    bool again = ending;                                       // reporting it has itself run out of memory
    while (!again && atomic_flag_test_and_set(&said)) pause(); // another thread is ending the process
    ending = true;
    Error e = {.code = EXIT_MEMORY};
    char what[256], line[sizeof e.text + 32];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    unsigned long long mib;
    snprintf(e.text, sizeof e.text, "out of memory: %s; %suse a smaller batch", what,
             own_limit(&mib) ? "" : "close other programs or ");
    memory_name_limit(&e);
    if (again || !may_speak || may_speak(EXIT_MEMORY, &e)) {
        size_t n = (size_t)snprintf(line, sizeof line, "grpo: error: %s\n", e.text);
        output_write(STDERR_FILENO, line, n);
    }
    _exit(EXIT_MEMORY);
}

static _Noreturn void refused(size_t bytes) { out_of_memory("%zu bytes were refused", bytes); }
static size_t product(size_t count, size_t bytes) {
    return bytes && count > SIZE_MAX / bytes ? SIZE_MAX : count * bytes;
}

// ---- for every library ---------------------------------------------------------------------------------------------
// The sanitizers bring allocators of their own, which end the process where memory runs out.

#if defined(__has_feature)
#define SANITIZED (__has_feature(address_sanitizer) || __has_feature(thread_sanitizer))
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

#if !SANITIZED
// Weak, so that a test's own allocator can replace them when it is linked.
#define PUBLIC __attribute__((weak))

void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t count, size_t bytes);
void *__libc_realloc(void *old, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

// The next definition of a function after this program's own. Looking it up makes older C libraries allocate; those
// calls go to `own`, the C library's function itself.
static void *next_of(void *_Atomic *found, const char *name, void *own) {
    static _Thread_local bool looking;
    void *f = atomic_load_explicit(found, memory_order_relaxed);
    if (f || looking) return f ? f : own;
    looking = true;
    f = dlsym(RTLD_NEXT, name);
    looking = false;
    atomic_store_explicit(found, f, memory_order_relaxed);
    return f;
}

PUBLIC void *malloc(size_t bytes) {
    static void *_Atomic next;
    void *(*f)(size_t) = next_of(&next, "malloc", __libc_malloc), *p = f(bytes);
    if (!p && bytes) refused(bytes);
    return p;
}

PUBLIC void *calloc(size_t count, size_t bytes) {
    static void *_Atomic next;
    void *(*f)(size_t, size_t) = next_of(&next, "calloc", __libc_calloc), *p = f(count, bytes);
    if (!p && count && bytes) refused(product(count, bytes));
    return p;
}

PUBLIC void *realloc(void *old, size_t bytes) {
    static void *_Atomic next;
    void *(*f)(void *, size_t) = next_of(&next, "realloc", __libc_realloc), *p = f(old, bytes);
    if (!p && bytes) refused(bytes); // with 0 bytes, realloc has freed the old memory
    return p;
}

static bool alignment_is_wrong(size_t alignment) { return !alignment || (alignment & (alignment - 1)); }

PUBLIC void *aligned_alloc(size_t alignment, size_t bytes) {
    static void *_Atomic next;
    void *(*f)(size_t, size_t) = next_of(&next, "aligned_alloc", __libc_memalign), *p = f(alignment, bytes);
    if (!p && bytes && !alignment_is_wrong(alignment)) refused(bytes);
    return p;
}

PUBLIC void *memalign(size_t alignment, size_t bytes) {
    static void *_Atomic next;
    void *(*f)(size_t, size_t) = next_of(&next, "memalign", __libc_memalign), *p = f(alignment, bytes);
    if (!p && bytes && !alignment_is_wrong(alignment)) refused(bytes);
    return p;
}

PUBLIC int posix_memalign(void **p, size_t alignment, size_t bytes) {
    static void *_Atomic next;
    int (*f)(void **, size_t, size_t) = next_of(&next, "posix_memalign", NULL), why = f(p, alignment, bytes);
    if (why == ENOMEM) refused(bytes);
    return why;
}

PUBLIC int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*run)(void *), void *arg) {
    static void *_Atomic next;
    int (*f)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *) = next_of(&next, "pthread_create", NULL);
    int why = f(thread, how, run, arg);
    if (why == EAGAIN || why == ENOMEM)
        out_of_memory("a thread cannot be started (%s); allow more of them (ulimit -u), or set threads lower",
                      strerror(why));
    return why;
}
#endif

// ---- for our own code, under sanitizers too -------------------------------------------------------------------------

void *xmalloc(size_t bytes) {
    void *p = malloc(bytes ? bytes : 1);
    if (!p) refused(bytes);
    return p;
}

void *xcalloc(size_t count, size_t bytes) {
    void *p = calloc(count ? count : 1, bytes ? bytes : 1);
    if (!p) refused(product(count, bytes));
    return p;
}

void *xrealloc(void *old, size_t bytes) {
    void *p = realloc(old, bytes ? bytes : 1);
    if (!p) refused(bytes);
    return p;
}

char *xstrndup(const char *s, size_t n) {
    char *p = xmalloc(n + 1);
    memcpy(p, s, n);
    p[n] = 0;
    return p;
}

char *xstrdup(const char *s) { return xstrndup(s, strlen(s)); }

char *xasprintf(const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *s = xmalloc((size_t)n + 1);
    va_start(ap, fmt);
    vsnprintf(s, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return s;
}
