// grpo doctor: is this machine good for a run, and do the files that a configuration names fit together?
#include "learner.h"
#include "reward_set.h"
#include "chat.h"
#include "commands.h"
#include "device.h"
#include "prompt.h"
#include "reward_set.h"
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>
#include <yaml.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <utf8proc.h>
#include <stdio.h>

typedef enum { FINDING_OK, FINDING_WARN, FINDING_FAIL } Finding;
typedef struct {
    int count[3];
    ExitCode code; // of the first failure
} Checkup;

static const double GiB = 1024.0 * 1024 * 1024;

static void PRINTF_LIKE(4, 5) say(Checkup *r, Finding f, const char *what, const char *fmt, ...) {
    static const char *const word[] = {"OK", "WARN", "FAIL"};
    char text[sizeof((Error *)0)->text + 256];
    Str safe = {0};
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    str_visible(&safe, text, n < (int)sizeof text ? (size_t)n : sizeof text - 1);
    printf("%-5s %-14s %s\n", word[f], what, safe.s);
    str_free(&safe);
    r->count[f]++;
}

static void fail(Checkup *r, const char *what, const Error *e) {
    say(r, FINDING_FAIL, what, "%s", e->text);
    if (r->code == EXIT_OK) r->code = e->code;
}

// ---- the machine -------------------------------------------------------------------------------------------------

static void check_build(Checkup *r) {
#ifdef __clang__
    static const char compiler[] = __VERSION__; // "Clang 14.0.6"
#else
    static const char compiler[] = "gcc " __VERSION__;
#endif
#ifdef _OPENMP
    say(r, FINDING_OK, "compiler", "%s, OpenMP", compiler);
#else
    say(r, FINDING_WARN, "compiler", "%s without OpenMP: one thread only; see what `make` says", compiler);
#endif
    uint32_t jit = 0;
    char pcre[64] = "";
    pcre2_config(PCRE2_CONFIG_JIT, &jit);
    pcre2_config(PCRE2_CONFIG_VERSION, pcre);
    say(r, jit ? FINDING_OK : FINDING_WARN, "libraries", "PCRE2 %s%s, libyaml %s, Jansson %s, utf8proc %s", pcre,
        jit ? "" : " without its JIT (the tokenizer is slow)", yaml_get_version_string(), jansson_version_str(),
        utf8proc_version());
}

// Says which instruction sets the ops can run on, and why not on the others.
static void check_instructions(Checkup *r, const Device *d) {
    Str there = {0}, missing = {0};
    for (int isa = CPU_ISA_AUTO + 1; isa < CPU_ISA_END; isa++) {
        const char *why = cpu_isa_missing(isa), *name = cpu_isa_name(isa);
        const char *slow = cpu_isa_slow(isa), *used = strcmp(name, d->numerics) ? NULL : "used";
        if (why) {
            str_printf(&missing, "; %s: %s", name, why);
            continue;
        }
        str_printf(&there, "%s%s", there.n ? ", " : "", name);
        if (used && slow) str_printf(&there, " (%s; %s)", used, slow);
        else if (used || slow) str_printf(&there, " (%s)", used ? used : slow);
    }
    bool generic = !strcmp(d->numerics, cpu_isa_name(CPU_ISA_generic));
    say(r, generic ? FINDING_WARN : FINDING_OK, "instructions", "%s%s%s", there.s, missing.n ? missing.s : "",
        generic ? "; generic is slow" : "");
    str_free(&there);
    str_free(&missing);
}

// Says which kernels for this kind of card alone are used, and why the others are not.
static void check_variants(Checkup *r, const Device *d) {
    char line[VARIANT_LINE];
    for (int i = 0; d->variant && d->variant(d, i, line); i++)
        say(r, strstr(line, "not used") ? FINDING_WARN : FINDING_OK, "kernels", "%s", line);
}

static void check_machine(Checkup *r, int threads, int isa) {
    struct utsname u;
    if (uname(&u)) snprintf(u.sysname, sizeof u.sysname, "unknown");
    long online = sysconf(_SC_NPROCESSORS_ONLN), usable = machine_cores(1);
    char ours[64] = "";
    if (usable < online) snprintf(ours, sizeof ours, ", %ld of them for this process (affinity, cgroup)", usable);
    say(r, FINDING_OK, "machine", "%s %s %s, %ld cores online%s", u.sysname, u.release, u.machine, online, ours);
    Error e = {0};
    Device *d = device_open(DEVICE_AUTO, 0, threads, isa, &e);
    if (!d) return fail(r, "device", &e);
    say(r, FINDING_OK, "device", "%s", d->about);
    check_variants(r, d);
    // A GPU that is there but cannot be used; that there is none was said above.
    if (*d->instead && !strstr(d->instead, "no GPU answers")) say(r, FINDING_WARN, "GPU", "%s", d->instead);
    check_instructions(r, d);
    device_close(d);
    MemoryLimit m = machine_memory(1);
    say(r, FINDING_OK, "memory", "%s has %.1f GiB; %.1f GiB are free now", m.whose, (double)m.bytes / GiB,
        (double)machine_memory_free() / GiB);
}

// ---- model and tokenizer -----------------------------------------------------------------------------------------

// Says where config.json has the same thing under the names of transformers 4 and 5, with different values, and which
// was used.
static void check_said_twice(Checkup *r, const HfConfig *hf) {
    RopeSpec rope = hf->dims.rope;
    if (rope.type == ROPE_DEFAULT) say(r, FINDING_OK, "rotary", "theta %g", (double)rope.theta);
    else
        say(r, FINDING_OK, "rotary", "theta %g, %s: factor %g", (double)rope.theta, rope_type_names[rope.type],
            rope.factor);
    if (*hf->rope_won) say(r, FINDING_WARN, "rotary", "config.json: as in transformers, %s", hf->rope_won);
    if (hf->dtype_won)
        say(r, FINDING_OK, "dtype",
            "config.json: \"dtype\" counts, as in transformers: the files are %s, not what "
            "\"torch_dtype\" says",
            hf->dtype);
}

static bool check_model(Checkup *r, const Config *c, HfConfig *hf) {
    Error e = {0};
    if (!hf_config_read(c->model, hf, &e)) return fail(r, "model", &e), false;
    bool counted = c->init == INIT_RANDOM || hf_head_read(c->model, &hf->dims, &e); // a head of its own counts
    say(r, FINDING_OK, "model", "%s: %s, %" PRId64 " parameters, %d layers, hidden %d, vocabulary %d, context %d",
        c->model, hf->dims.family->model_type, model_param_count(hf->dims), hf->dims.L, hf->dims.D, hf->dims.V,
        hf->dims.max_positions);
    check_said_twice(r, hf);
    if (!hf->n_eos)
        say(r, FINDING_WARN, "end of text",
            "neither generation_config.json nor config.json has eos_token_id: completions end at stop strings or "
            "max_completion_length only");
    if (c->init == INIT_RANDOM) {
        say(r, FINDING_OK, "weights", "drawn at random (init: random)");
        return true;
    }
    if (!counted) return fail(r, "weights", &e), true;
    Arena measure = arena_measure();
    Model m = model_carve(&measure, hf->dims, F32);
    if (hf_weights_check(c->model, &m, &e)) say(r, FINDING_OK, "weights", "every tensor is there, with its shape");
    else fail(r, "weights", &e);
    model_free(&m);
    return true;
}

static Tokenizer *check_tokenizer(Checkup *r, const Config *c, const HfConfig *hf) {
    Error e = {0};
    Tokenizer *t = tokenizer_load(*c->tokenizer ? c->tokenizer : c->model, &e);
    if (!t) return fail(r, "tokenizer", &e), NULL;
    if (hf && tokenizer_size(t) > hf->dims.V) {
        error_set(&e, EXIT_INPUT, "%s has ids up to %d, the model %d rows; use the model's own tokenizer",
                  tokenizer_path(t), tokenizer_size(t) - 1, hf->dims.V);
        fail(r, "tokenizer", &e);
    } else say(r, FINDING_OK, "tokenizer", "%s: ids 0 to %d", tokenizer_path(t), tokenizer_size(t) - 1);
    return t;
}

// Compares the chat template with the tokenizer's own, and its end of turn with the end ids of the model's files.
static void check_template(Checkup *r, const Config *c, const Tokenizer *t, const HfConfig *hf) {
    Error e = {0};
    const char *own, *name;
    char *unknown;
    if (!chat_template_of(tokenizer_path(t), &own, &unknown, &e)) return fail(r, "template", &e);
    if (!chat_template_choose(c->chat_template, tokenizer_path(t), &name, &e)) fail(r, "template", &e);
    else if (unknown || (own && strcmp(own, name)))
        say(r, FINDING_WARN, "template", "chat_template is %s, the tokenizer came with %s%s", name,
            own ? own : "one that is none of ours: ", own ? "" : unknown);
    else say(r, FINDING_OK, "template", "%s%s", name, own ? "" : ": the model came with none");
    free(unknown);
    const char *end = e.code ? NULL : chat_end_of_turn(name);
    int32_t id = end ? tokenizer_id(t, end) : -1;
    bool known = false;
    for (int i = 0; hf && i < hf->n_own; i++) known |= hf->own[i] == id;
    if (end && id < 0)
        say(r, FINDING_WARN, "template", "%s ends a turn with %s, which is no token here; try chat_template=r1-zero",
            name, end);
    else if (end && hf && !known)
        say(r, FINDING_WARN, "end of turn",
            "%s ends a turn with %s (id %d), generation_config.json does not list it: grpo stops there all the same, "
            "and "
            "lists it in its checkpoints; other programs go on with this model",
            name, end, id);
}

// ---- data --------------------------------------------------------------------------------------------------------

#define MOST_ROWS 20000 // whose prompts are measured

// What a run does with prompts that are too long: in training, with select; in an evaluation.
static const char *fate_of_long(const Config *c, bool eval) {
    switch (c->long_prompts) {
    case LONG_FAIL: return "they stop the run (long_prompts: fail)";
    case LONG_SKIP:
        return eval ? "they keep their last tokens (long_prompts: skip leaves nothing out of an evaluation)"
                    : "they are left out (long_prompts: skip)";
    default:
        return eval ? "they keep their last tokens (long_prompts: truncate_left)"
                    : "they keep their last tokens (long_prompts: truncate_left); select leaves them out";
    }
}

// Checks the rows of one file, and the length of their prompts against max_prompt_length: `p` takes them all.
static void check_rows(Checkup *r, const char *what, const char *path, const Config *c, const Prompter *p) {
    Error e = {0};
    Dataset *d = dataset_open(path, c, p ? &(RowCheck){prompter_check_eval, p} : NULL, &e);
    if (!d) return fail(r, what, &e);
    int64_t n = dataset_rows(d), seen = n < MOST_ROWS ? n : MOST_ROWS, too_long = 0;
    size_t longest = 0;
    Ids ids = {0};
    bool ok = true;
    for (int64_t i = 0; ok && i < seen; i++) {
        Row row;
        ok = dataset_row(d, i, &row, &e);
        if (!ok) break;
        if (p) ok = prompter_ids(p, row.question, &ids, &e);
        too_long += p && ids.n > (size_t)c->max_prompt_length;
        longest = p && ids.n > longest ? ids.n : longest;
        row_free(&row);
    }
    if (!ok) fail(r, what, &e);
    else say(r, FINDING_OK, what, "%s: %" PRId64 " rows", path, n);
    if (dataset_skipped(d))
        say(r, FINDING_WARN, what, "%" PRId64 " bad lines are left out (bad_lines: skip)", dataset_skipped(d));
    if (ok && too_long)
        say(r, c->long_prompts == LONG_FAIL ? FINDING_FAIL : FINDING_WARN, what,
            "%" PRId64 " of %" PRId64 " prompts have more than max_prompt_length %" PRId64
            " tokens (the longest %zu): %s",
            too_long, seen, c->max_prompt_length, longest, fate_of_long(c, !strcmp(what, "eval_file")));
    if (ok && too_long && c->long_prompts == LONG_FAIL && r->code == EXIT_OK) r->code = EXIT_INPUT;
    ids_free(&ids);
    dataset_free(d);
}

static void check_readable(Checkup *r, const char *what, const char *path) {
    Error e = {0};
    if (!*path) return;
    if (access(path, R_OK) == 0) return say(r, FINDING_OK, what, "%s", path);
    error_set(&e, EXIT_INPUT, "%s: cannot read: %s", path, strerror(errno));
    fail(r, what, &e);
}

static void check_data(Checkup *r, const Config *c, Tokenizer *t) {
    Error e = {0};
    Engine run = {.cfg = c, .tokenizer = t};
    Prompter p;
    bool have_template = t && engine_find_template(&run, NULL); // check_template has said why not
    bool have_prompter = have_template && engine_prompter(&run, &p, &e);
    if (have_template && !have_prompter) fail(r, "prompt", &e);
    Config measured = *c; // a view: what is too long is counted here, and refuses no file
    measured.long_prompts = LONG_TRUNCATE_LEFT;
    if (have_prompter) p.cfg = &measured;
    for (int i = 0; i < c->train_file.n; i++)
        check_rows(r, "train_file", c->train_file.item[i].path, c, have_prompter ? &p : NULL);
    if (*c->eval_file) check_rows(r, "eval_file", c->eval_file, c, have_prompter ? &p : NULL);
    for (int i = 0; i < c->train_file.n; i++)
        if (!strcmp(c->train_file.item[i].path, c->eval_file))
            say(r, FINDING_WARN, "eval_file", "is the training file: what is measured was trained on");
    check_readable(r, "prompt_file", c->prompt_file);
    if (have_prompter) prompter_close(&p);
}

// ---- rewards -----------------------------------------------------------------------------------------------------

// Starts what each reward needs, as a run would: its program, its library, its sandbox, its template. Models behind
// rewards are described with the plan; a judge's server is not asked.
static void check_rewards(Checkup *r, Rewards *rw) {
    for (int k = 0; k <= rw->n; k++) {
        Reward *one = k < rw->n ? &rw->reward[k] : &rw->grader;
        Error e = {0};
        if (!one->info || !one->info->open) continue;
        if (!reward_open(one, &e)) {
            fail(r, k < rw->n ? "rewards" : "eval_grader", &e);
            continue;
        }
        const char *program = reward_program(one);
        say(r, FINDING_OK, k < rw->n ? "rewards" : "eval_grader", "%s%s%s can be used", one->name, *program ? ": " : "",
            program);
        reward_close(one);
    }
}

// ---- room --------------------------------------------------------------------------------------------------------

static void check_memory(Checkup *r, const Config *c, const Rewards *rw, Learner *l) {
    Error e = {0};
    RunShape shape = c->train_file.n ? shape_for_train(c, rw) : shape_for_rollout(c, 64, 8);
    shape.rewards = rw;
    Device *d = device_open(c->device, 0, (int)c->threads, c->cpu_isa, &e); // where not: said before
    size_t need;
    MemoryLimit have;
    bool described = learner_describe(l, d, c, shape, &e);
    bool fits = described && d && plan_fits(&l->engine, &need, &have), gpu = d && !on_host(d), opened = d != NULL;
    device_close(d);
    l->engine.device = NULL;
    if (!described) return fail(r, "context", &e);
    if (!opened) return;
    const char *purpose = c->train_file.n ? "training" : "sampling";
    if (!fits) {
        error_set(&e, EXIT_MEMORY, "%s takes %.1f GiB, %s has %.1f; `grpo plan` shows what would help", purpose,
                  (double)need / GiB, have.whose, (double)have.bytes / GiB);
        fail(r, "plan", &e);
    } else if (!gpu && need > machine_memory_free())
        say(r, FINDING_WARN, "plan", "%s takes %.1f GiB, more than is free now; close other programs", purpose,
            (double)need / GiB);
    else
        say(r, FINDING_OK, "plan", "%s takes %.1f GiB of memory%s", purpose, (double)need / GiB,
            gpu ? " on the GPU" : "");
}

// Checks that output_dir, or the place where it would be made, can be written and has room for the checkpoints.
static void check_output(Checkup *r, const Config *c, const Learner *l) {
    Error e = {0};
    char *dir = xstrdup(*c->output_dir ? c->output_dir : ".");
    while (access(dir, F_OK)) { // the nearest directory that is there
        char *slash = strrchr(dir, '/');
        if (slash == dir || !slash) {
            strcpy(dir, slash ? "/" : ".");
            break;
        }
        *slash = 0;
    }
    struct statvfs s;
    struct stat st;
    bool writable =
        !stat(dir, &st) && (S_ISDIR(st.st_mode) || (errno = ENOTDIR, false)) && access(dir, W_OK | X_OK) == 0;
    if (!writable) {
        error_set(&e, EXIT_DISK, "%s: cannot write in %s: %s; choose another output_dir", c->output_dir, dir,
                  strerror(errno));
        fail(r, "output_dir", &e);
    } else if (statvfs(dir, &s) == 0) {
        double room = (double)s.f_bavail * (double)s.f_frsize / GiB;
        size_t weight = c->dtype == DTYPE_F32 ? 4 : 2, one = 0;
        if (l)
            one = (size_t)model_param_count(l->engine.hf.dims) * weight + tensor_bytes(l->master) +
                  tensor_bytes(l->moment1) + tensor_bytes(l->moment2);
        double need = (double)one * (double)(c->save_total_limit + 1) / GiB; // a new one before the oldest goes
        say(r, need > room ? FINDING_WARN : FINDING_OK, "output_dir", "%s: %.1f GiB free%s", c->output_dir, room,
            need > room ? ", less than the checkpoints need: lower save_total_limit, or choose another place" : "");
    }
    free(dir);
}

static void check_config(Checkup *r, const Config *c) {
    HfConfig hf;
    Learner l = {0};
    Rewards rw;
    rewards_select_training(c, &rw, NULL); // the configuration was checked
    bool model = *c->model && check_model(r, c, &hf);
    if (!*c->model) say(r, FINDING_WARN, "model", "not set; add model=DIRECTORY");
    Tokenizer *t = *c->model || *c->tokenizer ? check_tokenizer(r, c, model ? &hf : NULL) : NULL;
    if (t && !c->raw) check_template(r, c, t, model ? &hf : NULL);
    check_data(r, c, t);
    check_rewards(r, &rw);
    if (model) check_memory(r, c, &rw, &l);
    if (c->train_file.n) check_output(r, c, l.engine.cfg ? &l : NULL);
    learner_close(&l);
    tokenizer_free(t);
}

ExitCode command_doctor(int argc, char **argv, Error *e) {
    Config c;
    Checkup r = {0};
    if (!config_args(&c, "doctor", argc, argv, e)) return e->code;
    check_build(&r);
    check_machine(&r, (int)c.threads, c.cpu_isa);
    if (argc) check_config(&r, &c);
    else printf("\nWith a configuration (grpo doctor CONFIG.yaml) its files are checked too.\n");
    config_free(&c);
    int fails = r.count[FINDING_FAIL];
    if (fails) error_set(e, r.code, "doctor: %d check%s failed; see FAIL above", fails, fails == 1 ? "" : "s");
    return fails ? r.code : EXIT_OK;
}
