// Computes the frequencies of rotary embeddings, once when a model is carved. All in f32 and operation by operation as
// transformers 5.24 does, so that both rotate by the same angles.
#include "error.h"
#include "rope.h"
#include <math.h>

const char *const rope_type_names[ROPE_TYPES] = {"default", "linear", "llama3", "yarn"};

#define TURN (2 * M_PI)

// Llama 3's scaling: frequencies whose wavelength is long compared with the trained context are divided by the factor,
// short ones stay as they are, and between them the result is a weighted mean.
static float llama3(RopeSpec s, float plain) {
    float wave = (float)TURN / plain;
    float slowed = wave > (float)(s.trained / s.low) ? plain / (float)s.factor : plain;
    if (wave < (float)(s.trained / s.high) || wave > (float)(s.trained / s.low)) return slowed;
    float smooth = ((float)s.trained / wave - (float)s.low) / (float)(s.high - s.low);
    return (1 - smooth) * slowed / (float)s.factor + smooth * slowed;
}

// The index of the pair (not a whole number) that rotates `turns` times within the trained context (Peng et al. 2023,
// YaRN).
static double yarn_pair(RopeSpec s, int d, double turns) {
    return d * log(s.trained / (turns * TURN)) / (2 * log((double)s.theta));
}

// YaRN's share of a pair's own frequency: 1 for the fast pairs, which are kept, 0 for the slow ones, which are divided.
static float yarn_kept(RopeSpec s, int d, int pair) {
    double low = yarn_pair(s, d, s.fast), high = yarn_pair(s, d, s.slow);
    if (s.truncate) low = floor(low), high = ceil(high);
    low = fmax(low, 0), high = fmin(high, d - 1);
    if (low == high) high += 0.001;
    float ramp = ((float)pair - (float)low) / (float)(high - low);
    return 1 - fminf(fmaxf(ramp, 0), 1);
}

RopeTable rope_table(RopeSpec s, int d) {
    RopeTable table = {.scale = s.type == ROPE_YARN ? (float)s.scale : 1};
    if (d > HEAD_MAX) die("heads of size %d; at most %d", d, HEAD_MAX);
    for (int i = 0; i < d / 2; i++) {
        float power = (float)pow((double)s.theta, (double)((float)(2 * i) / (float)d)), plain = 1.0f / power;
        float kept = s.type == ROPE_YARN ? yarn_kept(s, d, i) : 1;
        switch (s.type) {
        case ROPE_LINEAR: table.inv_freq[i] = plain / (float)s.factor; break;
        case ROPE_LLAMA3: table.inv_freq[i] = llama3(s, plain); break;
        case ROPE_YARN: table.inv_freq[i] = 1.0f / ((float)s.factor * power) * (1 - kept) + plain * kept; break;
        default: table.inv_freq[i] = plain;
        }
    }
    return table;
}
