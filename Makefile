# grpo.c: make | make demo | make test | make bench | make help
#
# Every .c file in the five folders is found by wildcard; header dependencies are real (-MMD). Each folder sees include/
# and itself, nothing else: that is the architecture, enforced.

CC      ?= cc
BUILD   ?= build
MODE    ?= release
MARCH   ?= native
PREFIX  ?= /usr/local
V       ?= 0

MAKEFLAGS += --no-builtin-rules
Q := $(if $(filter 1,$(V)),,@)

warn   := -Wall -Wextra -Werror -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wno-unused-parameter
opt    := $(if $(filter release,$(MODE)),-O3 -g,$(if $(filter debug,$(MODE)),-Og -g3,-O1 -g3 -fno-omit-frame-pointer))
san    := $(if $(filter sanitize,$(MODE)),-fsanitize=address$(comma)undefined -fno-sanitize-recover=undefined)
comma  := ,
# -ffp-contract=off: a multiply-add is fused only where the code says so; the numerics contract hangs on it.
CFLAGS_ALL := -std=gnu11 $(warn) $(opt) $(san) -march=$(MARCH) -ffp-contract=off -fno-math-errno -fno-trapping-math \
              -fno-strict-aliasing -D_GNU_SOURCE $(CFLAGS)
LDLIBS_ALL := -lpcre2-8 -lyaml -ljansson -lutf8proc -lm -lpthread $(LDLIBS)

openmp := $(shell printf 'int main(void){return 0;}' | $(CC) -fopenmp -x c -o /dev/null - 2>/dev/null && echo -fopenmp)

folders := kernels models rewards host
dir     := $(BUILD)/$(MODE)
objects := $(foreach f,$(folders),$(patsubst %.c,$(dir)/%.o,$(wildcard $f/*.c)))
library := $(filter-out $(dir)/host/main.o,$(objects))
tests   := $(patsubst tests/%.c,$(dir)/tests/%,$(wildcard tests/test_*.c))
tools   := $(patsubst tools/%.c,$(dir)/tools/%,$(wildcard tools/*.c))
grpo    := $(if $(filter release,$(MODE)),$(BUILD)/grpo,$(dir)/grpo)

.PHONY: all debug sanitize test bench demo check doctor install clean help found
.SECONDARY:
all: found $(grpo) $(tools)

found:
	@echo "compiler  $(CC): $$($(CC) --version | head -n 1)"
	@echo "OpenMP    $(if $(openmp),$(openmp),not found: one thread only)"

$(grpo): $(objects)
	@echo "  LD  $@"
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS_ALL) $(openmp) -o $@ $^ $(LDLIBS_ALL)

$(foreach f,$(folders),$(eval $(dir)/$f/%.o: inc := -Iinclude -I$f))
$(dir)/%.o: %.c
	@echo "  CC  $<"
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS_ALL) $(openmp) $(inc) -MMD -MP -c -o $@ $<

$(dir)/tests/%: tests/%.c $(library)
	@echo "  CC  $<"
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS_ALL) $(openmp) -Iinclude -Itests -MMD -MP -MF $@.d -o $@ $< $(library) $(LDLIBS_ALL) -lcmocka

$(dir)/tools/%: tools/%.c $(library)
	@echo "  CC  $<"
	$(Q)mkdir -p $(@D) && $(CC) $(CFLAGS_ALL) $(openmp) -Iinclude -MMD -MP -MF $@.d -o $@ $< $(library) $(LDLIBS_ALL)

debug:    ; $(Q)$(MAKE) MODE=debug all
sanitize: ; $(Q)$(MAKE) MODE=sanitize all

# One test program alone: make run-test_ops
run-%: $(dir)/tests/%
	$(Q)$<

clean:
	$(Q)rm -rf $(BUILD)

-include $(objects:.o=.d) $(wildcard $(dir)/tests/*.d) $(wildcard $(dir)/tools/*.d)
