// Reading a reward's parameters by their names.
#include "params.h"
#include <stdio.h>
#include <string.h>

int param_text_place(const RewardInfo *info, int i) {
    int place = 0;
    while (--i >= 0) place += param_is_text(info->params[i].kind);
    return place;
}

int param_choice_place(const char *choices, const char *text) {
    size_t n = strlen(text);
    for (int i = 0;; i++) {
        size_t word = strcspn(choices, "|");
        if (word == n && strncmp(choices, text, n) == 0) return i;
        if (!choices[word]) return -1;
        choices += word + 1;
    }
}

// The place of a parameter in its reward's table. Ends the program where there is none of that kind (text or number).
static int place_of(const Reward *r, const char *name, bool text) {
    for (int i = 0; i < r->info->n_params; i++)
        if (strcmp(r->info->params[i].name, name) == 0 && param_is_text(r->info->params[i].kind) == text) return i;
    die("reward %s has no %s named %s", r->info->name, text ? "text" : "number", name);
}

double reward_number(const Reward *r, const char *name) { return r->param[place_of(r, name, false)]; }

bool reward_chose(const Reward *r, const char *name, const char *choice) {
    int i = place_of(r, name, false);
    const RewardParam *p = &r->info->params[i];
    int place = p->kind == PARAM_CHOICE ? param_choice_place(p->choices, choice) : -1;
    if (place < 0) die("reward %s: %s has no choice %s", r->info->name, name, choice);
    return (int)r->param[i] == place;
}

const char *reward_text(const Reward *r, const char *name) {
    return r->text[param_text_place(r->info, place_of(r, name, true))];
}

void reward_set_text(Reward *r, const char *name, const char *text) {
    snprintf(r->text[param_text_place(r->info, place_of(r, name, true))], REWARD_MAX_TEXT, "%s", text);
}
