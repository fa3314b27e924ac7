// Reads what config.json says of rotary embeddings, with the keys of transformers 4 (rope_theta, rope_scaling) or 5
// (rope_parameters). Where both are there, the one counts that transformers 5.24 uses.
#include "hf_fields.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

// Reads "rope_type", or "type" in older files. The types that RopeType lacks are refused: with them the frequencies
// depend on the longest text of a batch.
static RopeType type_field(Fields *rope) {
    const char *key = json_object_get(rope->j, "rope_type") ? "rope_type" : "type";
    const char *text = field(rope, key) ? text_field(rope, key) : "default";
    for (int t = 0; text && t < ROPE_TYPES; t++)
        if (!strcmp(text, rope_type_names[t])) return (RopeType)t;
    if (text)
        refuse(rope,
               "%s: rotary embeddings of \"%s\" \"%.64s\" are not supported (default, linear, llama3 and yarn are)%s",
               rope->path, key, text,
               !strcmp(text, "dynamic") ? ": written as \"default\" they are the same up to the trained length" : "");
    return ROPE_DEFAULT;
}

static void partial_must_be_whole(Fields *f) {
    if (positive_field(f, "partial_rotary_factor", 1) != 1)
        refuse(f, "%s: \"partial_rotary_factor\" is not 1: partial rotary embeddings are not supported", f->path);
}

static void layers_must_be_alike(Fields *f) {
    const char *layers;
    json_t *value;
    json_object_foreach((json_t *)f->j, layers, value) if (json_is_object(value))
        refuse(f, "%s: rotary parameters of \"%.64s\" alone: layers that differ are not supported", f->path, layers);
}

static double needed_field(Fields *f, const char *name, RopeType type) {
    if (!field(f, name))
        refuse(f, "%s: \"%s\" is missing beside rope_type \"%s\"; take the config.json that came with the weights",
               f->path, name, rope_type_names[type]);
    return positive_field(f, name, 1);
}

// A number that is not used where it is 0, as where it is absent: transformers asks whether it is true.
static double set_field(Fields *f, const char *name, double fallback) {
    const json_t *v = field(f, name);
    return json_is_number(v) && json_number_value(v) == 0 ? fallback : positive_field(f, name, fallback);
}

// YaRN's factor on sine and cosine: the file's, else computed from `factor`, by which the context is extended.
static double yarn_scale(Fields *f, double factor) {
    if (field(f, "attention_factor")) return positive_field(f, "attention_factor", 1);
    double slope = set_field(f, "mscale", 0), divisor = set_field(f, "mscale_all_dim", 0);
    if (slope == 0 || divisor == 0) slope = 1, divisor = 0; // one without the other counts for nothing
    double most = factor > 1 ? log(factor) : 0;
    return (0.1 * slope * most + 1) / (0.1 * divisor * most + 1);
}

// Reads the fields of frequency scaling from `f`. `top` is the whole file: some have original_max_position_embeddings
// there, and then that one counts.
static void scaling_fields(Fields *f, Fields *top, const ModelDims *n, RopeSpec *r) {
    if (r->type == ROPE_DEFAULT) return;
    if (r->type != ROPE_LINEAR) {
        r->trained = positive_field(f, "original_max_position_embeddings", n->max_positions);
        r->trained = positive_field(top, "original_max_position_embeddings", r->trained);
    }
    bool by_length = r->type == ROPE_YARN && json_is_null(json_object_get(f->j, "factor")); // null, but there
    r->factor = by_length ? n->max_positions / r->trained : needed_field(f, "factor", r->type);
    if (r->factor < 1) refuse(f, "%s: a rotary \"factor\" of %g: it must be at least 1", f->path, r->factor);
    if (r->type == ROPE_LLAMA3) {
        r->low = needed_field(f, "low_freq_factor", r->type);
        r->high = needed_field(f, "high_freq_factor", r->type);
        if (r->high <= r->low)
            refuse(f, "%s: \"high_freq_factor\" (%g) must be above \"low_freq_factor\" (%g)", f->path, r->high, r->low);
    }
    if (r->type != ROPE_YARN) return;
    r->fast = set_field(f, "beta_fast", 32);
    r->slow = set_field(f, "beta_slow", 1);
    if (r->fast < r->slow)
        refuse(f, "%s: \"beta_fast\" (%g) must not be below \"beta_slow\" (%g)", f->path, r->fast, r->slow);
    r->truncate = bool_field(f, "truncate", true);
    r->scale = yarn_scale(f, r->factor);
}

// Reads one of the two objects; `beside` is the theta to use where it has none.
static RopeSpec spec_of(Fields *rope, Fields *top, const ModelDims *n, double beside) {
    RopeSpec r = {.type = type_field(rope)};
    partial_must_be_whole(rope);
    layers_must_be_alike(rope);
    r.theta = (float)positive_field(rope, "rope_theta", beside);
    scaling_fields(rope, top, n, &r);
    return r;
}

static bool same_spec(RopeSpec a, RopeSpec b) {
    return a.type == b.type && a.theta == b.theta && a.factor == b.factor && a.trained == b.trained && a.low == b.low &&
           a.high == b.high && a.fast == b.fast && a.slow == b.slow && a.scale == b.scale && a.truncate == b.truncate;
}

// Writes into won[size] which key was used, where `unread`, the other object (or NULL), or `beside`, the file's own
// rope_theta (0: absent), says something else than r.
static void say_who_won(double beside, const char *winner, RopeSpec r, const RopeSpec *unread, char *won, size_t size) {
    if (unread && unread->theta != r.theta)
        snprintf(won, size,
                 "\"%s\" stands beside \"rope_parameters\" and replaces it: theta is %g, not %g; take \"%s\" out, or "
                 "write \"rope_theta\" into it",
                 winner, (double)r.theta, (double)unread->theta, winner);
    else if (unread && !same_spec(*unread, r))
        snprintf(won, size, "\"%s\" counts, \"rope_parameters\" beside it is not read", winner);
    else if (beside > 0 && (float)beside != r.theta)
        snprintf(won, size, "\"%s\" counts: theta is %g, not \"rope_theta\"'s %g", winner, (double)r.theta, beside);
}

// Takes rope_parameters (transformers 5), unless there is a rope_scaling (transformers 4), which replaces all of it,
// theta included. A rope_theta at the top of the file is used where the object that counts has none.
void rope_fields(Fields *f, ModelDims *n, char *won, size_t size) {
    const json_t *scaling = object_field(f, "rope_scaling"), *parameters = object_field(f, "rope_parameters");
    partial_must_be_whole(f);
    double beside = positive_field(f, "rope_theta", 10000); // transformers' default
    Fields rope = {scaling ? scaling : parameters, f->path, f->e, f->ok};
    n->rope = spec_of(&rope, f, n, beside);
    f->ok = f->ok && rope.ok;
    if (!f->ok) return;
    Error ignored;
    Fields other = {parameters, f->path, &ignored, true}, top = {f->j, f->path, &ignored, true};
    RopeSpec unread = scaling && parameters ? spec_of(&other, &top, n, beside) : n->rope;
    say_who_won(field(f, "rope_theta") ? beside : 0, scaling ? "rope_scaling" : "rope_parameters", n->rope,
                scaling && parameters ? &unread : NULL, won, size);
}
