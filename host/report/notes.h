// notes.jsonl in output_dir: what a run has said of itself, with the time; not cut back where it is resumed.
#pragma once
#include "str.h"

// From here on what progress_say and note say is kept, in memory until notes_open says where: `anew`, or behind what is there.
void notes_begin(void);
void notes_open(const char *output_dir, bool anew);
void notes_close(void);
void notes_add(const char *text); // nothing before notes_begin; never fails: what the disk does not take is lost
// Appends the last lines of dir/notes.jsonl as a JSON list.
void notes_json(const char *dir, Str *out);
