// grpo plan: the memory a training run would take, before it takes any.
#include "commands.h"
#include "device.h"
#include "output.h"
#include "reward_set.h"
#include "engine.h"
#include <stdlib.h>
#include <stdio.h>

ExitCode command_plan(int argc, char **argv, Error *e) {
    Config c;
    if (!config_args(&c, "plan", argc, argv, e)) return e->code;
    Engine r = {0};
    Rewards rw;
    Device *d = rewards_select_training(&c, &rw, e) ? device_open(c.device, 0, (int)c.threads, c.cpu_isa, e) : NULL;
    bool ok = d && engine_describe(&r, d, &c, shape_for_train(&c, &rw), e);
    if (ok) {
        const ModelDims n = r.hf.dims;
        char *table = plan_table(&r);
        printf("%s: %s, %lld parameters, %d layers, hidden %d, vocabulary %d\n", c.model, n.family->model_type,
               (long long)model_param_count(n), n.L, n.D, n.V);
        if (c.gpus > 1) printf("%lld ranks; what follows is of each\n", (long long)c.gpus);
        printf("rollout: %d sequences at a time, %d + %d tokens each; training: %lld tokens a micro-batch\n\n%s\n",
               r.shape.rollout.slots, r.shape.rollout.max_prompt, r.shape.rollout.max_completion,
               (long long)r.shape.train_tokens, table);
        free(table);
        ok = output_flush(e);
    }
    device_close(d);
    r.device = NULL;
    engine_close(&r);
    config_free(&c);
    return ok ? EXIT_OK : e->code;
}
