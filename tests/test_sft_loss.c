// The loss of supervised tuning against the same tokens' log-probs, asked of the model one row at a time.
#include "train_commands.h"
#include "commands.h"
#include "file.h"
#include "train_fixture.h"
#include <math.h>

// Ids of an example, `learned` or not as they are added.
typedef struct {
    Ids ids;
    uint8_t wanted[512];
} Wanted;

static void want(const Fixture *f, Wanted *x, const char *text, bool special, bool learned) {
    size_t first = x->ids.n;
    tokenizer_encode(f->t.learner.engine.tokenizer, text, strlen(text), special, &x->ids);
    for (size_t i = first; i < x->ids.n; i++) x->wanted[i] = learned;
}
static void want_end(const Fixture *f, Wanted *x) {
    ids_add(&x->ids, f->t.learner.engine.hf.eos[0]);
    x->wanted[x->ids.n - 1] = true;
}

// The mean of - log-prob over the tokens that are to be learned, by the model that the fixture holds.
static double mean_nll(Fixture *f, const Wanted *x) {
    Learner *l = &f->t.learner;
    float logp[512];
    Packing p = packing_new(l->engine.shape.train_tokens, l->engine.shape.train_seqs);
    assert_true(packing_add(&p, x->ids.id, (int64_t)x->ids.n, 0, x->wanted));
    TrainWork w = micro_pack(l, &p);
    micro_forward(l->engine.device, &l->engine.policy, &w, 1);
    micro_hold(l, 0, w.logp);
    micro_fetch(l, p.N, logp);
    double sum = 0;
    for (int64_t i = 0; i < p.N; i++) sum -= (double)logp[i] / (double)p.N;
    packing_free(&p);
    return sum;
}

// The loss that `grpo sft` logs for a file of one line.
static double sft_loss(const Fixture *f, const char *template, const char *line) {
    char *file = xasprintf("%s/sft.jsonl", f->dir), *out = xasprintf("%s/sft-%s-%zu", f->dir, template, strlen(line));
    FILE *to = fopen(file, "w");
    assert_true(to && fputs(line, to) >= 0 && !fclose(to));
    char *all =
        xasprintf("device=cpu model=models/tiny init=random dtype=f32 seed=7 progress=off max_steps=1 save_steps=0 "
                  "max_length=400 per_device_train_batch_size=1 gradient_accumulation_steps=1 "
                  "system_prompt=S chat_template=%s train_file=%s output_dir=%s",
                  template, file, out);
    char *arg[32];
    int n = 0;
    for (char *word = strtok(all, " "); word; word = strtok(NULL, " ")) arg[n++] = word;
    Error e = {0};
    if (command_sft(n, arg, &e) != EXIT_OK) fail_msg("sft: %s", e.text);
    char *path = xasprintf("%s/metrics.jsonl", out);
    size_t bytes;
    char *metrics = file_read(path, 1 << 16, &bytes, &e);
    json_t *j = metrics ? json_loads(metrics, 0, NULL) : NULL;
    double loss = json_number_value(json_object_get(j, "loss"));
    json_decref(j);
    free(metrics), free(path), free(all), free(file), free(out);
    return loss;
}

static void answers_and_their_ends_are_learned(void **state) {
    static const struct {
        const char *template, *first, *between; // around the first answer's turn
        bool ends; // the template writes the token that ends an answer; it is learned with the newlines around the turn
    } cases[] = {{"qwen2.5", "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
                  "<|im_start|>user\nAnd?<|im_end|>\n<|im_start|>assistant", true},
                 {"r1-zero", "S\n\nUser: Hi\nAssistant:\n", "\n\nUser: And?\nAssistant:\n", false}};
    Fixture f;
    fixture_dir(&f);
    fixture_open(&f, "max_prompt_length=400 per_device_train_batch_size=4");
    for (int k = 0; k < 2; k++) {
        Wanted x = {0};
        want(&f, &x, cases[k].first, true, false);
        want(&f, &x, "It is 3.", false, true);
        want_end(&f, &x);
        double loss = sft_loss(&f, cases[k].template, "{\"prompt\": \"Hi\", \"completion\": \"It is 3.\"}\n");
        assert_true(fabs(loss - mean_nll(&f, &x)) < 1e-5);
        ids_free(&x.ids);

        // Two turns: where the template writes no end that stops sampling, only the last answer can be followed by one.
        x = (Wanted){0};
        want(&f, &x, cases[k].first, true, false);
        if (cases[k].ends) x.wanted[x.ids.n - 1] = true;
        want(&f, &x, cases[k].ends ? "It is 3.<|im_end|>\n" : "It is 3.", true, true);
        want(&f, &x, cases[k].between, true, false);
        want(&f, &x, cases[k].ends ? "\n4<|im_end|>\n" : "4", true, true);
        if (!cases[k].ends) want_end(&f, &x);
        loss = sft_loss(&f, cases[k].template,
                        "{\"messages\": [{\"role\": \"system\", \"content\": \"S\"}, {\"role\": \"user\", \"content\": "
                        "\"Hi\"}, {\"role\": \"assistant\", \"content\": \"It is 3.\"}, {\"role\": \"user\", "
                        "\"content\": \"And?\"}, {\"role\": \"assistant\", \"content\": \"4\"}]}\n");
        double wanted = mean_nll(&f, &x);
        if (!(fabs(loss - wanted) < 1e-5)) fail_msg("%s: loss %.7f, not %.7f", cases[k].template, loss, wanted);
        ids_free(&x.ids);
    }
    fixture_close(&f);
    fixture_remove(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(answers_and_their_ends_are_learned)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
