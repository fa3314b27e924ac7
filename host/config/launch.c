// Reading what a launcher says about this process in the environment: the variables of torchrun, Open MPI, MPICH or
// Slurm. They are tried in this order, because torchrun may be started by the others, and the MPIs start their ranks
// through Slurm in an allocation.
#include "launch.h"
#include "tensor.h"
#include <stdlib.h>
#include <stdio.h>

typedef enum { TORCHRUN, OPEN_MPI, MPICH, SLURM } By;
// The names of a launcher's variables. locals: how many ranks are on the host.
typedef struct {
    const char *by, *rank, *world, *local, *locals;
} Variables;

static const Variables launchers[] = {
    [TORCHRUN] = {"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"},
    [OPEN_MPI] = {"Open MPI", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
                  "OMPI_COMM_WORLD_LOCAL_SIZE"},
    [MPICH] = {"MPICH (or Intel MPI)", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
    [SLURM] = {"Slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"},
};

static const char *value_of(const char *name) {
    const char *v = getenv(name);
    return v && *v ? v : NULL;
}

// Reads a whole number from `least` to `most` from a variable that is set.
static bool variable_number(const char *name, int least, int most, int *out, Error *e) {
    const char *text = value_of(name);
    char *end;
    long x = strtol(text, &end, 10);
    if (*end || x < least || x > most)
        return error_set(e, EXIT_CONFIG, "environment: %s is `%.40s`, not a number from %d to %d", name, text, least,
                         most);
    *out = (int)x;
    return true;
}

static bool half_set(const Variables *v, const char *absent, const char *present, Error *e) {
    return error_set(
        e, EXIT_CONFIG,
        "environment: %s is set but %s is not; %s sets %s, %s and %s together: start all ranks with it, or "
        "unset what is left of it",
        present, absent, v->by, v->rank, v->world, v->local);
}

// The variables of a launcher in this environment. Slurm's usual number of tasks is the allocation's, which a shell
// inside has too: the step's own counts.
static Variables variables_here(By by) {
    Variables v = launchers[by];
    if (by == SLURM && value_of("SLURM_STEP_NUM_TASKS")) v.world = "SLURM_STEP_NUM_TASKS";
    if (by == SLURM && !value_of(v.locals)) v.locals = "SLURM_NTASKS_PER_NODE";
    return v;
}

// Whether a launcher's variables are about this process.
static bool is_launched(By by, const Variables *v) {
    // Slurm sets its variables for the batch script itself too, which is not a task that srun started.
    if (by == SLURM) return value_of(v->rank) && !(value_of("SLURM_JOB_ID") && !value_of("SLURM_STEP_ID"));
    if (by == MPICH && value_of("SLURM_PROCID") && !value_of(v->local)) return false; // srun --mpi=pmi2
    return value_of(v->rank) || value_of(v->world) || (by != MPICH && value_of(v->local));
}

// The first host of a Slurm list, "node[03-07,9],other" or "a,b".
static void first_host(const char *list, char *out, size_t n) {
    size_t plain = strcspn(list, "[,"), digits = 0;
    if (list[plain] == '[') digits = strcspn(list + plain + 1, "-,]");
    snprintf(out, n, "%.*s%.*s", (int)plain, list, (int)digits, list + plain + 1);
}

// A number that tells this job from others on the same hosts: a hash of what the environment says of it.
static uint64_t job_hash(const Launch *l) {
    static const char *const names[] = {"TORCHELASTIC_RUN_ID", "MASTER_ADDR",   "MASTER_PORT",
                                        "SLURM_JOB_ID",        "SLURM_STEP_ID", "OMPI_MCA_ess_base_jobid",
                                        "PMIX_NAMESPACE"};
    uint64_t h = 1469598103934665603u + (uint64_t)l->world; // FNV-1a (Fowler, Noll, Vo)
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        for (const char *p = value_of(names[i]); p && *p; p++) h = (h ^ (uint8_t)*p) * 1099511628211u;
    return h;
}

// Reads where rank 0 listens: from the environment, or for Slurm and Open MPI derived from it.
static bool read_master(Launch *l, By by, const Variables *v, Error *e) {
    bool torch = by == TORCHRUN;
    const char *address = value_of("MASTER_ADDR"), *port = value_of("MASTER_PORT");
    if (torch && (!address || !port)) return half_set(v, address ? "MASTER_PORT" : "MASTER_ADDR", v->rank, e);
    if (address) snprintf(l->master, sizeof l->master, "%s", address);
    else if (by == SLURM) {
        const char *list =
            value_of("SLURM_STEP_NODELIST") ? value_of("SLURM_STEP_NODELIST") : value_of("SLURM_NODELIST");
        const char *nodes = value_of("SLURM_STEP_NUM_NODES");
        if (list && (!nodes || strcmp(nodes, "1"))) first_host(list, l->master, sizeof l->master);
        else snprintf(l->master, sizeof l->master, "127.0.0.1");
    } else {
        int locals = 0;
        if (value_of(v->locals) && !variable_number(v->locals, 1, 1 << 20, &locals, e)) return false;
        if (locals && locals != l->world)
            return error_set(e, EXIT_CONFIG,
                             "environment: %s started ranks on several hosts, and MASTER_ADDR does not say where "
                             "rank 0 is; set it: mpirun %s",
                             v->by, by == OPEN_MPI ? "-x MASTER_ADDR=HOST" : "-genv MASTER_ADDR HOST");
        snprintf(l->master, sizeof l->master, "127.0.0.1");
    }
    l->port = 20000 + (int)(job_hash(l) % 10000);
    return !port || variable_number("MASTER_PORT", 1, 65535 - LAUNCH_PORTS, &l->port, e);
}

static void say_why(Launch *l, const Variables *v) {
    snprintf(l->why, sizeof l->why, "%s started it as one of %d (%s=%d, %s=%d)", v->by, l->world, v->rank, l->rank,
             v->world, l->world);
}

bool launch_read(Launch *l, Error *e) {
    *l = (Launch){.world = 1};
    for (By by = TORCHRUN; by <= SLURM; by++) {
        const Variables of = variables_here(by), *v = &of;
        if (!is_launched(by, v)) continue;
        const char *rank = value_of(v->rank), *world = value_of(v->world), *local = value_of(v->local);
        const char *set = rank ? v->rank : world ? v->world : v->local;
        if (!rank) return half_set(v, v->rank, set, e);
        if (!world) return half_set(v, v->world, set, e);
        if (!local && by != MPICH) return half_set(v, v->local, set, e);
        if (!variable_number(v->world, 1, 1 << 20, &l->world, e) || !variable_number(v->rank, 0, 1 << 20, &l->rank, e))
            return false;
        l->local = l->rank; // PMI alone does not say it: then all are taken to be on one host
        if (local && !variable_number(v->local, 0, 1 << 20, &l->local, e)) return false;
        if (l->rank >= l->world)
            return error_set(e, EXIT_CONFIG, "environment: %s is %d but %s is %d: ranks count from 0", v->rank, l->rank,
                             v->world, l->world);
        if (l->local > l->rank)
            return error_set(
                e, EXIT_CONFIG,
                "environment: %s is %d but %s is %d: a rank's number on its host is never above its number "
                "of all",
                v->local, l->local, v->rank, l->rank);
        if (by != TORCHRUN && l->world == 1) { // a shell in an allocation, or one task: it may fork ranks of its own
            *l = (Launch){.world = 1};
            return true;
        }
        l->by = v->by;
        const char *here = value_of(v->locals);
        l->locals = here ? atoi(here) : 0; // "4(x2),3": 4
        if (l->world > 1 && !read_master(l, by, v, e)) return false;
        say_why(l, v);
        // torchrun's own store uses the port itself then: begin with the next.
        const char *store = value_of("TORCHELASTIC_USE_AGENT_STORE");
        if (by == TORCHRUN && store && !strcasecmp(store, "true")) l->port++;
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
