// The parts of the page as arrays: the assembler includes the files of host/report/page/ as they are (their paths are
// relative to the root of the tree, where make runs).
#include "page.h"

#define TAKE_IN(name, path)                                                                                            \
    __asm__(".pushsection .rodata\n.global " #name "\n" #name ":\n.incbin \"" path "\"\n.byte 0\n.popsection\n");      \
    extern const char name[]

TAKE_IN(page_css, "host/report/page/page.css");
TAKE_IN(page_js_data, "host/report/page/data.js");
TAKE_IN(page_js_plot, "host/report/page/plot.js");
TAKE_IN(page_js_curves, "host/report/page/curves.js");
TAKE_IN(page_js_completions, "host/report/page/completions.js");
TAKE_IN(page_js_run, "host/report/page/run.js");
TAKE_IN(page_js_main, "host/report/page/main.js");
const char *const page_js[] = {page_js_data,        page_js_plot, page_js_curves,
                               page_js_completions, page_js_run,  page_js_main};
const int page_js_count = sizeof page_js / sizeof *page_js;
