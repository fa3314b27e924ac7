// notes.jsonl in output_dir: the notes and progress lines of a run, with their time. Resuming does not cut it back.
#pragma once
#include "str.h"

// From notes_begin on, what progress_say and note print is kept, in memory until notes_open names the directory. With
// `anew` the file starts empty, else the notes are appended.
void notes_begin(void);
void notes_open(const char *output_dir, bool anew);
void notes_close(void);
void notes_add(const char *text); // does nothing before notes_begin; never fails: on a full disk the note is lost
// Appends the last lines of dir/notes.jsonl as a JSON list.
void notes_json(const char *dir, Str *out);
