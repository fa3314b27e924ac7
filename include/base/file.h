// Files to read: opened at once or refused, and named for what they are where they are something else.
//
// A path that a user wrote may lead to a pipe that nobody fills, to a device that never ends, to a Git LFS pointer or to
// a compressed table. Whatever is read is opened here, so that each of them is met in one place.
#pragma once
#include "error.h"

// Opens a regular file for reading; the descriptor, or -1 after filling *e (EXIT_INPUT; EXIT_DISK where the disk fails).
// Pipes, sockets, devices and directories are refused, without waiting for anybody.
int file_open(const char *path, Error *e);
// The same for what is read once, from its start: a pipe will do too. One that nobody has opened to write is waited
// for, aloud; a signal that asks to stop ends the wait (EXIT_STOPPED).
int file_open_once(const char *path, Error *e);

// Whether there is a regular file, without opening it; else *e, as file_open would fill it.
bool file_regular(const char *path, Error *e);

#define FILE_HEAD 512 // bytes that file_foreign looks at
// Whether a file that begins with these n bytes (FILE_HEAD of them, or the whole file) is neither text in UTF-8 nor
// safetensors but something known: a Git LFS pointer, compressed, an archive, a table, UTF-16, a web page. Then *e
// (EXIT_INPUT) says what it is and gives the line that mends it. A path that is no file ("standard input") is fine.
// Some safetensors begin like something else: ask only once a file has turned out not to be one.
bool file_foreign(const char *path, const char *head, size_t n, Error *e);

// The same for what should be JSON, an object a line: a table in CSV, one JSON list, one object over many lines.
bool file_foreign_lines(const char *path, const char *head, size_t n, Error *e);

// The whole of a regular file, NUL-terminated, at most `limit` bytes; NULL after filling *e. Heap memory.
char *file_read(const char *path, size_t limit, size_t *n, Error *e);
// The same of a file that should hold text: what file_foreign knows is refused by its name.
char *file_read_text(const char *path, size_t limit, size_t *n, Error *e);
