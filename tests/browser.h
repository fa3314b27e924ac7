// A page in headless Chromium, over the DevTools protocol on a pair of pipes (--remote-debugging-pipe): JSON messages,
// a NUL behind each.
#pragma once
#include "json.h"
#include "str.h"
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

typedef struct {
    pid_t pid;
    int in, out; // ours: written to, read from
    int id;
    int loads;       // pages loaded
    json_t *session; // of the page, once there is one
    Str got;         // bytes read
    Str complaints;  // what the page's console said, and the exceptions
} Browser;

static inline void browser_send(Browser *b, const char *method, json_t *params) {
    json_t *m =
        json_pack("{s:i, s:s, s:o}", "id", ++b->id, "method", method, "params", params ? params : json_object());
    if (b->session) json_object_set(m, "sessionId", b->session);
    char *text = json_dumps(m, JSON_COMPACT);
    size_t n = strlen(text) + 1;
    assert_int_equal(write(b->in, text, n), n);
    free(text);
    json_decref(m);
}

// The next message, waited for half a minute at most.
static inline json_t *browser_next(Browser *b) {
    char *end, block[65536];
    while (!(end = b->got.n ? memchr(b->got.s, 0, b->got.n) : NULL)) {
        struct pollfd p = {.fd = b->out, .events = POLLIN};
        if (poll(&p, 1, 30000) < 1) fail_msg("the browser does not answer");
        ssize_t n = read(b->out, block, sizeof block);
        if (n < 1) fail_msg("the browser has ended");
        str_add(&b->got, block, (size_t)n);
    }
    size_t n = (size_t)(end - b->got.s);
    json_t *m = json_loadb(b->got.s, n, 0, NULL);
    memmove(b->got.s, end + 1, b->got.n - n - 1);
    b->got.n -= n + 1;
    assert_non_null(m);
    return m;
}

// Takes in one message: *result is that of the last call where it is the answer to it, else NULL.
static inline bool browser_take(Browser *b, json_t **result) {
    json_t *m = browser_next(b), *id = json_object_get(m, "id"), *error = json_object_get(m, "error");
    const char *method = json_string_value(json_object_get(m, "method"));
    if (error) fail_msg("%s", json_dumps(error, 0));
    if (!method) method = "";
    b->loads += !strcmp(method, "Page.loadEventFired");
    if (!strcmp(method, "Runtime.exceptionThrown") || !strcmp(method, "Log.entryAdded") ||
        !strcmp(method, "Runtime.consoleAPICalled")) {
        char *text = json_dumps(json_object_get(m, "params"), JSON_COMPACT);
        str_printf(&b->complaints, "%s\n", text);
        free(text);
    }
    bool answer = id && json_integer_value(id) == b->id;
    *result = answer ? json_incref(json_object_get(m, "result")) : NULL;
    json_decref(m);
    return answer;
}

static inline json_t *browser_call(Browser *b, const char *method, json_t *params) {
    json_t *result;
    browser_send(b, method, params);
    while (!browser_take(b, &result))
        ;
    return result;
}
static inline void browser_do(Browser *b, const char *method, json_t *params) {
    json_decref(browser_call(b, method, params));
}

static inline Browser browser_open(const char *profile) {
    int to[2], from[2];
    assert_int_equal(pipe(to) | pipe(from), 0);
    Browser b = {.pid = fork(), .in = to[1], .out = from[0]};
    if (!b.pid) {
        char *dir = xasprintf("--user-data-dir=%s", profile);
        setpgid(0, 0);
        int in = fcntl(to[0], F_DUPFD, 10), out = fcntl(from[1], F_DUPFD, 10), null = open("/dev/null", O_WRONLY);
        dup2(null, 2);
        dup2(in, 3), dup2(out, 4);
        for (int fd = 5; fd < 64; fd++) close(fd);
        execlp("chromium", "chromium", "--headless=new", "--remote-debugging-pipe", "--disable-gpu",
               "--hide-scrollbars", "--no-first-run", dir, geteuid() ? "--disable-sync" : "--no-sandbox", (char *)NULL);
        _exit(127);
    }
    close(to[0]), close(from[1]);
    json_t *target = browser_call(&b, "Target.createTarget", json_pack("{s:s}", "url", "about:blank"));
    json_t *session =
        browser_call(&b, "Target.attachToTarget",
                     json_pack("{s:O, s:b}", "targetId", json_object_get(target, "targetId"), "flatten", 1));
    b.session = json_incref(json_object_get(session, "sessionId"));
    json_decref(target), json_decref(session);
    browser_do(&b, "Page.enable", NULL);
    browser_do(&b, "Runtime.enable", NULL);
    browser_do(&b, "Log.enable", NULL);
    return b;
}

static inline void browser_close(Browser *b) {
    kill(-b->pid, SIGKILL);
    waitpid(b->pid, NULL, 0);
    close(b->in), close(b->out);
    json_decref(b->session);
    str_free(&b->got), str_free(&b->complaints);
}

static inline void browser_load(Browser *b, const char *url) {
    int before = b->loads;
    json_t *none;
    browser_do(b, "Page.navigate", json_pack("{s:s}", "url", url));
    while (b->loads == before) browser_take(b, &none), json_decref(none);
}

// Opens file://PATH#fragment in a window of so many pixels, and waits until it is loaded.
static inline void browser_goto(Browser *b, const char *path, const char *fragment, int width, int height) {
    browser_do(
        b, "Emulation.setDeviceMetricsOverride",
        json_pack("{s:i, s:i, s:i, s:b}", "width", width, "height", height, "deviceScaleFactor", 1, "mobile", 0));
    browser_load(b, "about:blank"); // the same page with another fragment would not be loaded anew
    char *url = xasprintf("file://%s#%s", path, fragment);
    browser_load(b, url);
    free(url);
}

// The value of a JavaScript expression.
static inline json_t *browser_value(Browser *b, const char *expression) {
    json_t *r =
        browser_call(b, "Runtime.evaluate",
                     json_pack("{s:s, s:b, s:b}", "expression", expression, "returnByValue", 1, "awaitPromise", 1));
    if (json_object_get(r, "exceptionDetails")) fail_msg("%s: %s", expression, json_dumps(r, 0));
    json_t *value = json_incref(json_object_get(json_object_get(r, "result"), "value"));
    json_decref(r);
    return value;
}

static inline void browser_key(Browser *b, const char *key) {
    browser_do(b, "Input.dispatchKeyEvent",
               json_pack("{s:s, s:s, s:s}", "type", "keyDown", "key", key, "text", key[1] ? "" : key));
    browser_do(b, "Input.dispatchKeyEvent", json_pack("{s:s, s:s}", "type", "keyUp", "key", key));
}

static inline void browser_mouse(Browser *b, const char *event, const char *button, double x, double y) {
    browser_do(
        b, "Input.dispatchMouseEvent",
        json_pack("{s:s, s:f, s:f, s:s, s:i}", "type", event, "x", x, "y", y, "button", button, "clickCount", 1));
}
static inline void browser_hover(Browser *b, double x, double y) { browser_mouse(b, "mouseMoved", "none", x, y); }
static inline void browser_click(Browser *b, double x, double y) {
    browser_hover(b, x, y);
    browser_mouse(b, "mousePressed", "left", x, y);
    browser_mouse(b, "mouseReleased", "left", x, y);
}
