// Words that tell languages of one script apart.
#pragma once

typedef struct {
    const char *word;   // lower case, UTF-8
    unsigned languages; // bit 0 English, 1 French, 2 German, 3 Spanish
} LanguageWord;

extern const LanguageWord language_words[]; // in byte order
extern const int language_word_count;
