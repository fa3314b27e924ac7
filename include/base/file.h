// Opening files to read. A path that a user wrote may lead to a pipe that nobody fills, a device that never ends, a Git
// LFS pointer or a compressed table: every file is opened here, and these are refused, with a message that says what
// they are.
#pragma once
#include "error.h"
#include <stdint.h>

// Opens a regular file for reading: the descriptor, or -1 after filling *e (EXIT_INPUT; EXIT_DISK where the disk
// fails). Pipes, sockets, devices and directories are refused, without waiting.
int file_open(const char *path, Error *e);
// Opens a file that is read once, from its start: a pipe too. Where no process has opened the pipe for writing yet, it
// says so and waits; a signal that asks to stop ends the wait (EXIT_STOPPED).
int file_open_once(const char *path, Error *e);

// Whether path is a regular file, without opening it; if not, fills *e as file_open would.
bool file_regular(const char *path, Error *e);

#define FILE_HEAD 512 // bytes that file_foreign looks at
// Whether a file that begins with these n bytes (FILE_HEAD of them, or the whole file) is a known kind of file that
// cannot be read here: a Git LFS pointer, compressed, an archive, a table, UTF-16, a web page. Then *e (EXIT_INPUT)
// says what it is, with a command that mends it. `path` is for the message and need not be a file ("standard input").
// Some safetensors files begin like something else, so ask only about a file that is none.
bool file_foreign(const char *path, const char *head, size_t n, Error *e);

// The same for a file that should be JSON lines: a table in CSV, one JSON list, one object over many lines.
bool file_foreign_lines(const char *path, const char *head, size_t n, Error *e);

// The whole of a regular file, NUL-terminated, at most `limit` bytes; NULL after filling *e. Heap memory.
char *file_read(const char *path, size_t limit, size_t *n, Error *e);
// file_read for a file that should hold text: refuses what file_foreign knows.
char *file_read_text(const char *path, size_t limit, size_t *n, Error *e);
// Whether a text without a format of its own (a prompt) is one: no NUL in it, at which it would end, and UTF-8. If not,
// *e (EXIT_INPUT) says where, counting lines from `line`; `path` is for the message.
bool file_plain(const char *path, int64_t line, const char *text, size_t n, Error *e);
// file_read_text for such a text: refuses what file_plain does, and leaves out the byte order mark.
char *file_read_plain(const char *path, size_t limit, size_t *n, Error *e);
