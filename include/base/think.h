// What stands around the thoughts of an answer: <think> and </think>, or markers of a run's own (think_markers).
// Thoughts come first, then what a reader is shown: the summary. Both markers may be the same, as R1's |special_token|
// is.
#pragma once
#include "error.h"
#include "text.h"

#define THINK_MARKER_MAX 64 // bytes of a marker, NUL included
typedef struct {
    char open[THINK_MARKER_MAX], close[THINK_MARKER_MAX];
} ThinkMarkers;
extern const ThinkMarkers think_tags; // <think> </think>

// Two markers of n; none, or n of another number, is an error that says so. False after filling *e (EXIT_CONFIG).
bool think_markers_read(ThinkMarkers *m, char *const *marker, int n, Error *e);
// The chain of thought of a completion: what is between its first opening marker and its last closing one; a missing
// one means the text's start or end.
Text thoughts_of(const ThinkMarkers *m, Text completion);
// What follows the last closing marker; a NULL text where there is none.
Text after_thoughts(const ThinkMarkers *m, Text completion);
// The summary: what follows the last closing marker, stripped; all of the completion where there is none.
Text summary_of(const ThinkMarkers *m, Text completion);
// Whether the text is markers and what they are for, and no more: it begins with the opening one, each occurs once, and
// neither the thoughts nor the summary are blank.
bool think_is_whole(const ThinkMarkers *m, Text completion);
// A text that speaks of <think> and </think>, with the markers in their place. Heap memory.
char *think_replace(const ThinkMarkers *m, const char *text);
// "BEFORE marker AFTER" as a text, in `room`.
#define THINK_ROOM (THINK_MARKER_MAX + 64)
Text think_beside(const char *before, const char *marker, const char *after, char room[THINK_ROOM]);
