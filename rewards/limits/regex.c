// Regular expressions under limits: PCRE2 with match, heap, depth and offset limits and a JIT stack of its own.
#include "regex.h"
#include <stdlib.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define STEPS           (20 << 20) // steps of one match, over all places where it may begin
#define STEPS_MIN       1000       // least steps at one place
#define STEPS_MAX       1000000
#define HEAP_KIB        (16 << 10)
#define DEPTH           100000
#define JIT_STACK       (512 << 10)
#define MAX_PATTERN     4096 // bytes
#define MAX_PARENTHESES 50   // deep

struct Regex {
    pcre2_code *code;
    uint32_t groups;
};

struct RegexRun {
    const Regex *regex;
    pcre2_match_data *data;
    pcre2_match_context *context;
    pcre2_jit_stack *stack; // NULL where there is no JIT
};

Regex *regex_new(const char *pattern, Error *e) {
    pcre2_compile_context *context = pcre2_compile_context_create(NULL);
    if (!context) out_of_memory("PCRE2 was refused some");
    pcre2_set_max_pattern_length(context, MAX_PATTERN);
    pcre2_set_parens_nest_limit(context, MAX_PARENTHESES);
    int why;
    size_t at;
    uint32_t options = PCRE2_UTF | PCRE2_UCP | PCRE2_USE_OFFSET_LIMIT | PCRE2_NEVER_BACKSLASH_C;
    pcre2_code *code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, options, &why, &at, context);
    pcre2_compile_context_free(context);
    if (!code) {
        char text[128] = "";
        pcre2_get_error_message(why, (PCRE2_UCHAR *)text, sizeof text);
        error_set(e, EXIT_CONFIG, "the pattern `%.200s` is wrong at byte %zu: %s", pattern, at, text);
        return NULL;
    }
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE); // without it matching is slower, and the same
    Regex *r = xcalloc(1, sizeof *r);
    r->code = code;
    pcre2_pattern_info(code, PCRE2_INFO_CAPTURECOUNT, &r->groups);
    return r;
}

void regex_free(Regex *r) {
    if (!r) return;
    pcre2_code_free(r->code);
    free(r);
}

int regex_groups(const Regex *r) { return (int)r->groups; }

RegexRun *regex_run_new(const Regex *r) {
    RegexRun *run = xcalloc(1, sizeof *run);
    run->regex = r;
    run->data = pcre2_match_data_create_from_pattern(r->code, NULL);
    run->context = pcre2_match_context_create(NULL);
    if (!run->data || !run->context) out_of_memory("PCRE2 was refused some");
    pcre2_set_heap_limit(run->context, HEAP_KIB);
    pcre2_set_depth_limit(run->context, DEPTH);
    size_t jit = 0;
    if (pcre2_pattern_info(r->code, PCRE2_INFO_JITSIZE, &jit) == 0 && jit > 0)
        run->stack = pcre2_jit_stack_create(32 << 10, JIT_STACK, NULL);
    if (jit > 0 && !run->stack) out_of_memory("PCRE2 was refused a stack"); // on a smaller one it would give up sooner
    if (run->stack) pcre2_jit_stack_assign(run->context, NULL, run->stack);
    return run;
}

void regex_run_free(RegexRun *run) {
    if (!run) return;
    if (run->stack) pcre2_jit_stack_free(run->stack);
    pcre2_match_context_free(run->context);
    pcre2_match_data_free(run->data);
    free(run);
}

RegexResult regex_match(RegexRun *run, Text t, size_t from, Text *group) {
    if (t.n > REGEX_MAX_TEXT) return REGEX_LIMIT;
    size_t steps = STEPS / (t.n - from + 1);
    if (steps < STEPS_MIN) steps = STEPS_MIN;
    if (steps > STEPS_MAX) steps = STEPS_MAX;
    pcre2_set_match_limit(run->context, (uint32_t)steps);
    pcre2_set_offset_limit(run->context, t.n);
    int rc = pcre2_match(run->regex->code, (PCRE2_SPTR)t.s, t.n, from, PCRE2_NO_UTF_CHECK, run->data, run->context);
    if (rc == PCRE2_ERROR_NOMATCH) return REGEX_NONE;
    if (rc < 0) return REGEX_LIMIT;
    const PCRE2_SIZE *range = pcre2_get_ovector_pointer(run->data);
    for (int i = 0; group && i <= REGEX_MAX_GROUPS; i++) {
        bool took_part = i < rc && range[2 * i] != PCRE2_UNSET && range[2 * i] <= range[2 * i + 1];
        group[i] = took_part ? text_slice(t, range[2 * i], range[2 * i + 1]) : (Text){0};
    }
    return REGEX_FOUND;
}

Text regex_text(Text t, Str *mended) {
    static const char replacement[] = "\xef\xbf\xbd";
    size_t kept = 0; // bytes of t that are in *mended
    uint32_t c;
    for (size_t at = 0, n; at < t.n; at += n) {
        n = text_char(t, at, &c);
        if (c != 0xfffd || text_at(t, at, text_of(replacement))) continue;
        str_add(mended, t.s + kept, at - kept);
        str_add(mended, replacement, 3);
        kept = at + n;
    }
    if (kept == 0) return t;
    str_add(mended, t.s + kept, t.n - kept);
    return (Text){mended->s, mended->n};
}
