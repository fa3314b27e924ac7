// The fields of TRL's GRPOConfig, and what they are here.
#pragma once
#include "error.h"
#include "str.h"

typedef enum { TRL_CONFIG, TRL_EARLIER, TRL_SCRIPT } TrlSource; // GRPOConfig of 1.16; of versions before; TRL's scripts
typedef enum {
    TRL_SAME,     // the option of the same name
    TRL_NAMED,    // the option `ours`, the same value
    TRL_TURNED,   // the option `ours`, as `words` say
    TRL_NEEDLESS, // not needed here; `words` say why
    TRL_ABSENT,   // not supported; `words` say what to use instead
} TrlHow;

typedef struct {
    TrlSource source;
    const char *name, *value; // value: TRL's default as its text; null for None
    TrlHow how;
    const char *ours, *words;
} TrlField;
extern const TrlField trl_fields[];
extern const int trl_field_count;
const TrlField *trl_field(const char *name); // or NULL

// Turns a YAML or JSON file of TRL's into one of our configurations (heap): every option that TRL decides, with the
// value of the file or TRL's default. What cannot be carried over is reported in notes, each with its line, and listed
// at the end.
char *config_from_trl(const char *path, Error *e);
// Writes the fields as a table of the reference page.
void trl_table(Str *out);
