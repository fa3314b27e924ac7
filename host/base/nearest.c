// Finding the nearest name, for messages that ask "did you mean ...".
#include "nearest.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define LONGEST 63 // bytes of a word that are compared

static int fold(char c) { return tolower((unsigned char)c); }

// Edit distance with transpositions of neighbours (optimal string alignment); case costs nothing.
static int distance(const char *a, const char *b) {
    int row[3][LONGEST + 1];
    int n = (int)strnlen(a, LONGEST), m = (int)strnlen(b, LONGEST);
    for (int j = 0; j <= m; j++) row[0][j] = j;
    for (int i = 1; i <= n; i++) {
        int *now = row[i % 3], *last = row[(i + 2) % 3], *before = row[(i + 1) % 3];
        now[0] = i;
        for (int j = 1; j <= m; j++) {
            int best = last[j - 1] + (fold(a[i - 1]) != fold(b[j - 1]));
            if (last[j] + 1 < best) best = last[j] + 1;
            if (now[j - 1] + 1 < best) best = now[j - 1] + 1;
            bool swapped = i > 1 && j > 1 && fold(a[i - 1]) == fold(b[j - 2]) && fold(a[i - 2]) == fold(b[j - 1]);
            if (swapped && before[j - 2] + 1 < best) best = before[j - 2] + 1;
            now[j] = best;
        }
    }
    return row[n % 3][m];
}

const char *nearest_name(const char *word, const char *const *names, int n) {
    const char *best = NULL;
    int least = ((int)strnlen(word, LONGEST) + 2) / 3 + 1; // a name that is farther away is no misspelling
    for (int i = 0; i < n; i++) {
        int d = distance(word, names[i]);
        if (d < least && d < (int)strlen(names[i])) least = d, best = names[i];
    }
    return best;
}

bool no_such_option(const char *arg, const char *const *names, int n, const char *command, Error *e) {
    char word[LONGEST + 1];
    const char *name = arg + strspn(arg, "-");
    snprintf(word, sizeof word, "%.*s", (int)strcspn(name, "="), name);
    const char *near = nearest_name(word, names, n);
    if (near) return error_set(e, EXIT_CONFIG, "there is no option %.60s; did you mean `%s=`?", arg, near);
    return error_set(e, EXIT_CONFIG, "there is no option %.60s; see grpo %s --help", arg, command);
}
