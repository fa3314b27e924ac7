// What a launcher says about this process: torchrun's, Open MPI's or Slurm's variables, in this order, for torchrun is
// also started by the other two.
#include "launch.h"
#include "tensor.h"
#include <stdlib.h>
#include <stdio.h>

typedef struct {
    const char *by;
    const char *rank, *world, *local; // names of variables
} Family;

static const Family families[] = {
    {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK"},
    {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"},
    {"Slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"},
};

static const char *value_of(const char *name) {
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

// A whole number from `least` to `most` out of a variable that is set.
static bool read_number(const char *name, int least, int most, int *out, Error *e) {
    const char *text = value_of(name);
    char *end;
    long x = strtol(text, &end, 10);
    if (*end || x < least || x > most)
        return error_set(e, EXIT_CONFIG, "environment: %s is `%.40s`, not a number from %d to %d", name, text, least,
                         most);
    *out = (int)x;
    return true;
}

static bool half_set(const Family *f, const char *absent, const char *present, Error *e) {
    return error_set(
        e, EXIT_CONFIG,
        "environment: %s is set but %s is not; %s sets %s, %s and %s together: start all ranks with it, or "
        "unset what is left of it",
        present, absent, f->by, f->rank, f->world, f->local);
}

// Slurm sets its variables for the batch script itself too, which is not a task that srun started.
static bool is_batch_script(void) { return value_of("SLURM_JOB_ID") && !value_of("SLURM_STEP_ID"); }

// The first host of a Slurm list, "node[03-07,9],other" or "a,b".
static void first_host(const char *list, char *out, size_t n) {
    size_t plain = strcspn(list, "[,"), digits = 0;
    if (list[plain] == '[') digits = strcspn(list + plain + 1, "-,]");
    snprintf(out, n, "%.*s%.*s", (int)plain, list, (int)digits, list + plain + 1);
}

// The text that tells this job from another on the same hosts, as a number.
static uint64_t job_hash(const Launch *l) {
    static const char *const names[] = {"TORCHELASTIC_RUN_ID", "MASTER_ADDR",   "MASTER_PORT",
                                        "SLURM_JOB_ID",        "SLURM_STEP_ID", "OMPI_MCA_ess_base_jobid",
                                        "PMIX_NAMESPACE"};
    uint64_t h = 1469598103934665603u + (uint64_t)l->world; // FNV-1a (Fowler, Noll, Vo)
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (const char *p = value_of(names[i]); p && *p; p++) h = (h ^ (uint8_t)*p) * 1099511628211u;
    return h;
}

// Where rank 0 listens: as the environment says, or for Slurm and Open MPI what follows from it.
static bool read_master(Launch *l, const Family *f, Error *e) {
    bool torch = f == &families[0];
    const char *address = value_of("MASTER_ADDR"), *port = value_of("MASTER_PORT");
    if (torch && (!address || !port)) return half_set(f, address ? "MASTER_PORT" : "MASTER_ADDR", f->rank, e);
    if (address) snprintf(l->master, sizeof l->master, "%s", address);
    else if (f == &families[2]) {
        const char *list =
            value_of("SLURM_STEP_NODELIST") ? value_of("SLURM_STEP_NODELIST") : value_of("SLURM_NODELIST");
        const char *nodes = value_of("SLURM_STEP_NUM_NODES");
        if (list && (!nodes || strcmp(nodes, "1"))) first_host(list, l->master, sizeof l->master);
        else snprintf(l->master, sizeof l->master, "127.0.0.1");
    } else {
        int locals = 0;
        if (value_of("OMPI_COMM_WORLD_LOCAL_SIZE") &&
            !read_number("OMPI_COMM_WORLD_LOCAL_SIZE", 1, 1 << 20, &locals, e))
            return false;
        if (locals && locals != l->world)
            return error_set(e, EXIT_CONFIG,
                             "environment: Open MPI started ranks on several hosts, and MASTER_ADDR does not say where "
                             "rank 0 is; set it: mpirun -x MASTER_ADDR=HOST");
        snprintf(l->master, sizeof l->master, "127.0.0.1");
    }
    l->port = 20000 + (int)(job_hash(l) % 10000);
    return !port || read_number("MASTER_PORT", 1, 65535 - LAUNCH_PORTS, &l->port, e);
}

bool launch_read(Launch *l, Error *e) {
    *l = (Launch){.world = 1};
    for (size_t i = 0; i < sizeof families / sizeof *families; i++) {
        const Family *f = &families[i];
        const char *rank = value_of(f->rank), *world = value_of(f->world), *local = value_of(f->local);
        if (i == 2 && (!rank || is_batch_script())) continue; // an allocation, not a task
        if (!rank && !world && !local) continue;
        const char *set = rank ? f->rank : world ? f->world : f->local;
        if (!rank) return half_set(f, f->rank, set, e);
        if (!world) return half_set(f, f->world, set, e);
        if (!local) return half_set(f, f->local, set, e);
        if (!read_number(f->world, 1, 1 << 20, &l->world, e) || !read_number(f->rank, 0, 1 << 20, &l->rank, e) ||
            !read_number(f->local, 0, 1 << 20, &l->local, e))
            return false;
        if (l->rank >= l->world)
            return error_set(e, EXIT_CONFIG, "environment: %s is %d but %s is %d: ranks count from 0", f->rank, l->rank,
                             f->world, l->world);
        if (l->local > l->rank)
            return error_set(
                e, EXIT_CONFIG,
                "environment: %s is %d but %s is %d: a rank's number on its host is never above its number "
                "of all",
                f->local, l->local, f->rank, l->rank);
        l->by = f->by;
        if (l->world > 1 && !read_master(l, f, e)) return false;
        // torchrun's own store has the port then; the next ones are tried.
        const char *store = value_of("TORCHELASTIC_USE_AGENT_STORE");
        if (i == 0 && store && !strcasecmp(store, "true")) l->port++;
        l->job = job_hash(l);
        return true;
    }
    return true;
}

int launch_gpu(const Launch *l) {
    const char *seen = getenv("CUDA_VISIBLE_DEVICES");
    bool alone = l->by && strcmp(l->by, "torchrun") != 0 && seen && *seen && !strchr(seen, ',');
    return alone ? 0 : l->local;
}
