# grpo.c: make | make demo | make test | make bench | make help
#
# Every .c file in a folder is found by wildcard; header dependencies are real (-MMD), and a change of flags rebuilds.
# Folders are rooms, and rooms stand on each other: see `rooms` below.

BUILD   ?= build
MODE    ?= release
CUDA    ?= yes
PREFIX  ?= /usr/local
V       ?= 0
OBJCOPY ?= objcopy

MAKEFLAGS += --no-builtin-rules
# All cores, unless -j says otherwise.
ifeq ($(MAKELEVEL)$(filter -j% --jobs%,$(MAKEFLAGS)),0)
MAKEFLAGS += -j$(or $(shell nproc 2>/dev/null),1)
endif
.DEFAULT_GOAL := all
Q := $(if $(filter 1,$(V)),,@)

# ---- what this machine has -------------------------------------------------------------------------------------------
hash := \#
# Names each header that the compiler cannot find.
missing = $(shell printf '$(hash)if !__has_include(<%s.h>)\n%s\n$(hash)endif\n' $(foreach h,$1,$h $h) | $(CC) -E -P -x c - 2>/dev/null)
missing_cxx = $(shell printf '$(hash)if !__has_include(<%s>)\n%s\n$(hash)endif\n' $1 $1 | $(CXX) -E -P -x c++ - 2>/dev/null)
accepts = $(shell echo 'int main(void) { return 0; }' | $(CC) $1 -x c -o /dev/null - >/dev/null 2>&1 && echo $1)

ifneq ($(filter-out clean help,$(or $(MAKECMDGOALS),all)),)
compiler := $(shell $(CC) --version 2>/dev/null | head -n 1)
$(if $(compiler),,$(error no C compiler ($(CC)): run tools/deps.sh))
lacking  := $(call missing,pcre2 yaml jansson utf8proc)
$(if $(lacking),$(error no development files of $(lacking): run tools/deps.sh))
curl     := $(if $(call missing,curl/curl),,yes)
openmp   := $(if $(filter tsan fuzz,$(MODE)),,$(call accepts,-fopenmp))
machine  := $(shell $(CC) -dumpmachine)
version  := $(or $(shell git describe --tags --always --dirty 2>/dev/null),unknown)
endif

# ---- rooms, bottom to top --------------------------------------------------------------------------------------------
# A room sees itself and the rooms before it in its list, and of include/ what stands below it: the base its own folder,
# kernels and models the engine's too, rewards and the host all of it. `make check-rooms` asks the same of the objects:
# which symbol of which room reaches up.
headers        := -Iinclude -Iinclude/base -Iinclude/engine
headers_engine := -Iinclude/base -Iinclude/engine
headers_base   := -Iinclude/base
base    := host/base
kernels := $(addprefix kernels/,cpu gpu comm ops device)
rewards := $(addprefix rewards/,limits math rules code ask) rewards
host    := $(addprefix host/,text config ranks files report rollout learn train cmd)
rooms   := $(base) $(kernels) models $(rewards) $(host)

# ---- flags -----------------------------------------------------------------------------------------------------------
# -g1: the lines that profilers and sanitizers name; more of it is a third of the compiler's time. For a debugger there is
# MODE=debug.
optimize_release  := -O3 -g1
optimize_debug    := -Og -g3
# The CUDA device under emulation (tests/emu): its kernels' memory is always guarded; and as on a GPU, so are 16-byte loads.
optimize_emu      := -O2 -g1 -fno-omit-frame-pointer -fsanitize=address,alignment -fno-sanitize-recover=alignment
optimize_sanitize := -O1 -g1 -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
# Parsers under clang's libFuzzer (make fuzz): nothing else is built.
optimize_fuzz     := -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined \
                     -fno-sanitize-recover=undefined
# Threads and ranks without data races. OpenMP's own barriers are none that this sanitizer knows, so there is one thread.
optimize_tsan     := -O1 -g1 -fno-omit-frame-pointer -fsanitize=thread
# gcc 13 lays the frames of this check out on 32 bytes only, and 64-byte vectors in them crash.
ifneq ($(filter sanitize emu,$(MODE)),)
optimize_$(MODE) += $(call accepts,--param=asan-use-after-return=0)
endif
$(if $(optimize_$(MODE)),,$(error MODE=$(MODE): choose release, debug, sanitize, tsan, fuzz or emu))

# -ffp-contract=off: a multiply-add is fused only where the code says so; the numerics contract hangs on it.
# -Wno-psabi: gcc's note that 64-byte vectors have no agreed calling convention; ours are all inlined.
# -Wno-missing-field-initializers: what is not named is zero on purpose (gcc 11 warns even of designated ones).
# -Wno-pass-failed: clang's note that it did not unroll a loop over the generic instruction set's vectors, which come in pieces.
# Warnings are errors with WERROR=yes, as in CI: a newer compiler has more of them, and they shall stop nobody's build.
WERROR ?= no
werror := $(if $(filter yes,$(WERROR)),-Werror)
flags := -std=gnu11 -Wall -Wextra $(werror) -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wno-unused-parameter \
         -Wno-psabi -Wno-missing-field-initializers $(if $(findstring clang,$(compiler)),-Wno-pass-failed) $(optimize_$(MODE)) $(openmp) \
         $(if $(openmp),,-Wno-unknown-pragmas) -ffp-contract=off -fno-math-errno -fno-trapping-math \
         -fno-strict-aliasing -D_GNU_SOURCE $(CPPFLAGS) $(CFLAGS)
flags += $(if $(curl),-DGRPO_CURL)
libs  := $(LDFLAGS) $(if $(curl),-lcurl) -lpcre2-8 -lyaml -ljansson -lutf8proc -lm -lpthread -ldl $(LDLIBS)

# ---- CPU instruction sets --------------------------------------------------------------------------------------------
# kernels/cpu and kernels/ops are compiled once for each (include/engine/cpu_isa.h), all else for the plain architecture: one
# program runs on every machine of it. What the compiler does not know is left out.
ifneq ($(filter x86_64%,$(machine)),)
isa_generic     :=
isa_avx2        := -mavx2 -mfma -mbmi2
isa_avx512      := $(isa_avx2) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mprefer-vector-width=512
isa_avx512_bf16 := $(isa_avx512) -mavx512bf16
isa_amx         := $(isa_avx512_bf16) -mamx-tile -mamx-bf16
endif
isa_names := avx2 avx512 avx512_bf16 amx
isas := generic $(foreach i,$(isa_names),$(if $(isa_$i),$(if $(call accepts,$(isa_$i)),$i)))
# The same with C in the place of its instructions (kernels/cpu/twin.h), for the tests: whatever machine they run on.
$(foreach i,$(isa_names),$(eval isa_$(i)_twin := $(if $(filter release,$(MODE)),-O2) -DISA_TWIN))
twins := $(if $(filter release,$(MODE)),$(isa_names:%=%_twin),$(if $(filter fuzz emu,$(MODE)),,amx_twin))

# ---- CUDA: by nvcc where it is, under emulation in MODE=emu, else none ---------------------------------------------
nvcc      := $(firstword $(shell command -v nvcc) $(wildcard /usr/local/cuda/bin/nvcc))
toolkit   := $(if $(nvcc),$(abspath $(dir $(nvcc))..))
cuda_dirs := $(wildcard $(addprefix $(toolkit)/,lib64 targets/*/lib) /usr/lib/*-linux-gnu /usr/local/lib)
cuda_find  = $(firstword $(foreach d,$(cuda_dirs),$(wildcard $d/lib$1)))
cudart    := $(if $(nvcc),$(call cuda_find,cudart_static.a))
cublas    := $(if $(nvcc),$(call cuda_find,cublasLt.so))
nccl_h    := $(wildcard $(addsuffix /nccl.h,$(toolkit)/include /usr/include /usr/local/include))
nccl      := $(if $(and $(nvcc),$(nccl_h)),$(call cuda_find,nccl.so))
# nvcc alone is not enough: some distributions ship the libraries apart.
no_cuda   := $(if $(filter no,$(CUDA)),CUDA=no,$(if $(nvcc),$(if $(and $(cudart),$(cublas)),,no CUDA libraries),no nvcc))
cuda      := $(if $(filter emu,$(MODE)),emu,$(if $(filter sanitize tsan fuzz,$(MODE)),,$(if $(no_cuda),,$(nvcc))))
flags += $(if $(cuda),-DGRPO_CUDA)
comma := ,
warn_cu := -Wall,-Wextra,-Wno-unused-parameter,-Wno-missing-field-initializers
flags_nvcc = -std=c++17 -O3 --fmad=false $(headers_engine) $(addprefix -I,$(kernels)) $(if $(werror),-Werror all-warnings) -Xcompiler $(warn_cu) \
             $(if $(nccl),-DGRPO_NCCL) $(CPPFLAGS) $(NVCCFLAGS)

# For the card that is here; without one, for every generation of these that nvcc knows, so that no card spends its first
# seconds translating. All others translate what is there of the oldest.
known_archs := $(if $(nvcc),$(shell $(nvcc) --list-gpu-arch))
generations := $(foreach a,80 90a 100 120,$(if $(filter compute_$(a:%a=%),$(known_archs)),$a))
CUDA_ARCH   ?= $(if $(wildcard /dev/nvidia0),native,$(generations))

ifeq ($(cuda),emu)
no_emu := $(if $(shell command -v $(CXX)),$(if $(call missing_cxx,boost/context/detail/fcontext.hpp),Boost.Context),g++)
$(if $(no_emu),$(error the emulated GPU needs $(no_emu): run tools/deps.sh test))
compile_cu = $(CXX) -x c++ -std=c++17 -Itests/emu $(headers_engine) $(addprefix -I,$(kernels)) -DGRPO_EMU -DGRPO_NCCL -Wall -Wextra $(werror) \
             -Wno-unused-parameter -Wno-unknown-pragmas -Wno-missing-field-initializers -Wno-psabi $(optimize_emu) \
             -ffp-contract=off -fno-strict-aliasing $(CPPFLAGS) $(CXXFLAGS)
libs += -lboost_context -lstdc++
else
gencode = $(if $(filter native,$(CUDA_ARCH)),-arch=native,$(foreach a,$(CUDA_ARCH),-gencode arch=compute_$a,code=sm_$a) \
          -gencode arch=compute_$(firstword $(CUDA_ARCH)),code=compute_$(firstword $(CUDA_ARCH)))
# Files of Hopper's own instructions: for that card alone, whatever cards else.
gencode_hopper = -gencode arch=compute_90a,code=sm_90a
compile_cu = $(nvcc) $(flags_nvcc) -lineinfo -Xptxas -v $(if $(filter %_hopper.cu,$<),$(gencode_hopper),$(gencode))
# What the compiler tells of each kernel is kept for check-cuda.
keep_told = 2>$(@:.o=.told) || { grep -v '^ptxas info' $(@:.o=.told); exit 1; }
ifneq ($(cuda),)
cuda_link := $(sort $(patsubst %/,%,$(dir $(cudart) $(cublas) $(nccl))))
libs += $(addprefix -L,$(cuda_link)) $(addprefix -Wl$(comma)-rpath$(comma),$(cuda_link)) -lcudart_static -lcublasLt \
        $(if $(nccl),-lnccl) -ldl -lrt -lstdc++
endif
endif

# ---- files -----------------------------------------------------------------------------------------------------------
dir     := $(BUILD)/$(MODE)
object   = $(patsubst %.c,$(dir)/%.o,$(wildcard $1/*.c))
by_isa  := kernels/cpu kernels/ops
# Compiled so often, they leave out what multiplies the compiler's time: a null or foreign pointer the address sanitizer sees
# without these three; and under the emulated GPU it is the GPU's kernels that are watched.
optimize_by_isa := $(if $(filter sanitize,$(MODE)),-fno-sanitize=null$(comma)pointer-overflow$(comma)object-size) \
                   $(if $(filter emu,$(MODE)),-fno-sanitize=all)
objects := $(foreach f,$(filter-out $(by_isa) $(if $(filter fuzz,$(MODE)),kernels% models),$(rooms)),$(call object,$f))
# Beside the library, not in it: whoever looks for an instruction set's ops takes what is linked.
cpu_ops := $(if $(filter fuzz,$(MODE)),,$(isas:%=$(dir)/cpu_ops_%.o))
twin_ops := $(twins:%=$(dir)/cpu_ops_%.o)
objects_cu := $(patsubst %.cu,$(dir)/%.cu.o,$(wildcard kernels/*/*.cu))
objects += $(if $(cuda),$(objects_cu))
# The machine for PTX: a program, and a part of the emulated GPU.
machine := $(patsubst %.cpp,$(dir)/%.o,$(filter-out %_main.cpp,$(wildcard tests/ptx/*.cpp)))
objects += $(if $(filter emu,$(cuda)),$(patsubst %.cpp,$(dir)/%.o,$(wildcard tests/emu/*.cpp)) $(machine))
main    := $(dir)/host/cmd/main.o
# The base is an archive of its own: kernels and models, another, link with it alone. The third has what is above them.
engine  := $(filter $(patsubst %,$(dir)/%/%,$(kernels) models),$(objects))
libbase := $(dir)/libbase.a
libengine := $(dir)/libengine.a
library := $(dir)/libgrpo.a
ptx     := $(if $(filter release,$(MODE)),$(BUILD)/ptx,$(dir)/ptx)
# test_ptx_ops needs kernels that nvcc compiled (make check-ptx), test_page a browser (make check-report)
tests   := $(patsubst %.c,$(dir)/%,$(filter-out tests/test_ptx_ops.c tests/test_page.c,$(wildcard tests/test_*.c)))
ptx_ops := $(dir)/tests/test_ptx_ops
page    := $(dir)/tests/test_page
# Those that open a device run on an emulated GPU too, and so does the emulator's own (C++: it holds kernels).
# Not those that train for many steps, too long under emulation; test_cuda holds a whole run against the CPU's instead.
trains   := test_train test_resume test_reference test_groups test_mix test_reward_train
emulated := $(filter-out $(trains) test_ptx_ops,$(patsubst tests/%.c,%,$(shell grep -l 'include "on_device.h"' tests/test_*.c))) \
            $(patsubst tests/%.cpp,%,$(wildcard tests/test_*.cpp))
ifeq ($(cuda),emu)
tests   := $(emulated:%=$(dir)/tests/%)
endif
# WITHOUT="test_NAME ...": make test leaves these programs out.
tests   := $(filter-out $(WITHOUT:%=$(dir)/tests/%),$(tests))
fuzzers := $(patsubst %.c,$(dir)/%,$(wildcard tests/fuzz/fuzz_*.c))
fuzz_ptx := $(dir)/tests/fuzz/fuzz_ptx
tools   := $(patsubst %.c,$(dir)/%,$(wildcard tools/*.c))
grpo    := $(if $(filter release,$(MODE)),$(BUILD)/grpo,$(dir)/grpo)
bench   := $(if $(filter release,$(MODE)),$(BUILD)/bench,$(dir)/bench/bench)

.PHONY: all found debug sanitize test programs format check-format compile_commands.json mutants check fuzz fuzzed valgrind check-cuda check-rooms bench nsys ncu demo r1 check-r1 check-kills doctor install clean help FORCE
# Without .SECONDARY for all, with which a header that was moved would leave the objects that include it as they are: so
# what is made on the way to something else stands by its name in a rule, or make would delete it.
.DELETE_ON_ERROR:

all: found $(grpo) $(tools)

found:
	@echo 'compiler   $(compiler)'
	@echo 'CPU        $(isas)'
	@echo 'OpenMP     $(if $(openmp),yes,not found: one thread only (for clang, install libomp-dev))'
	@echo 'libraries  PCRE2, libyaml, Jansson, utf8proc'
	@echo 'libcurl    $(if $(curl),yes,not found: the reward `judge` is left out (tools/deps.sh judge))'
	@echo 'CUDA       $(if $(filter emu,$(cuda)),under emulation,$(if $(cuda),$(nvcc) for $(CUDA_ARCH),off ($(or \
	    $(no_cuda),this mode has none)): the CPU device only))'
	@echo 'NCCL       $(if $(filter-out emu,$(cuda)),$(if $(nccl),yes,no nccl.h or libnccl: one GPU only),not used)'

# ---- rules -----------------------------------------------------------------------------------------------------------
compile = $(Q)mkdir -p $(@D) && $(CC) $(flags) $(includes) -MMD -MP

# -I for room $1 and those before it in the list $2.
below = $(if $(filter $1,$(firstword $2)),-I$1,-I$(firstword $2) $(call below,$1,$(wordlist 2,$(words $2),$2)))
$(foreach f,$(base),$(eval $(dir)/$f/%.o: includes := $(headers_base) -I$f))
$(foreach f,$(kernels),$(eval $(dir)/$f/%.o: includes := $(headers_engine) $(call below,$f,$(kernels))))
$(foreach list,rewards host,$(foreach f,$($(list)),$(eval $(dir)/$f/%.o: includes := $(headers) $(call below,$f,$($(list))))))
$(dir)/models/%.o: includes := $(headers_engine)
host_rooms := $(addprefix -I,$(base) $(host))
$(dir)/tools/%.o: includes := $(headers) $(host_rooms)
$(dir)/tests/%.o: includes := $(headers) -Itests $(host_rooms)
$(dir)/tests/test_twins.o: includes += -Ikernels/cpu
$(dir)/tests/fuzz/%.o: includes := $(headers) $(addprefix -I,$(rewards)) -Itests/fuzz $(host_rooms)
$(dir)/bench/%.o: includes := -Ibench $(headers) -Itests $(host_rooms)
$(dir)/bench/probe.o: includes += -Ikernels/cpu

$(dir)/%.o: %.c $(dir)/flags
	@echo '  CC  $<'
	$(compile) -c -o $@ $<

# The ops of one instruction set are one object: of its names only the table of kernels/ops/table.c stays visible.
define isa_rules
$(dir)/cpu_ops_$1/%.o: %.c $(dir)/flags
	@echo '  CC  $$< ($1)'
	$$(compile) $(optimize_by_isa) $(isa_$1) -DISA_$(1:%_twin=%) -DCPU_TABLE=cpu_ops_$1 -c -o $$@ $$<
$(foreach f,$(by_isa),$(eval $(dir)/cpu_ops_$1/$f/%.o: includes := $(headers_engine) $(call below,$f,$(kernels))))
$(dir)/cpu_ops_$1.o: $(foreach f,$(by_isa),$(patsubst %.c,$(dir)/cpu_ops_$1/%.o,$(wildcard $f/*.c)))
	$(Q)$(LD) -r -o $$@ $$^ && $(OBJCOPY) --keep-global-symbol=$$(basename $$(@F)) $$@
endef
$(foreach i,$(isas) $(twins),$(eval $(call isa_rules,$i)))

$(dir)/%.cu.o: %.cu $(dir)/flags_cu
	@echo '  $(if $(filter emu,$(cuda)),CXX ,NVCC)  $<'
	$(Q)mkdir -p $(@D) && $(compile_cu) -MD -MP -MF $(@:.o=.d) -MT $@ -c -o $@ $< $(keep_told)
$(dir)/tests/%.o: tests/%.cpp $(dir)/flags_cu
	@echo '  CXX  $<'
	$(Q)mkdir -p $(@D) && $(compile_cu) -MMD -MP -c -o $@ $<

# Of the modes only the sanitizers are its own: part of the emulated GPU, it is wanted fast.
optimize_ptx := $(if $(filter sanitize fuzz,$(MODE)),$(optimize_$(MODE)),-O3 -g)
compile_ptx = $(CXX) -std=c++17 $(optimize_ptx) -Wall -Wextra $(werror) -ffp-contract=off -fno-math-errno -fno-strict-aliasing \
              $(CPPFLAGS) $(CXXFLAGS)
$(dir)/tests/ptx/%.o: tests/ptx/%.cpp $(dir)/flags_ptx
	$(if $(shell command -v $(CXX)),,$(error the machine for PTX needs g++: run tools/deps.sh test))
	@echo '  CXX  $<'
	$(Q)mkdir -p $(@D) && $(compile_ptx) -MMD -MP -c -o $@ $<
$(ptx): $(dir)/tests/ptx/ptx_main.o $(machine)
	@echo '  LD  $@'
	$(Q)mkdir -p $(@D) && $(compile_ptx) -o $@ $^ -lpthread

$(filter %/test_ptx %/test_ptx_rules %/test_ptx_input,$(tests)): | $(ptx)

# The kernels as nvcc compiles them, for that machine.
PTX_ARCH ?= 90a
kernels_ptx := $(patsubst %.cu,$(BUILD)/ptx$(PTX_ARCH)/%.ptx,$(notdir $(wildcard kernels/*/*.cu)))
vpath %.cu $(sort $(dir $(wildcard kernels/*/*.cu)))
$(BUILD)/ptx$(PTX_ARCH)/%.ptx: %.cu
	@echo '  NVCC -ptx  $<'
	$(Q)mkdir -p $(@D) && $(nvcc) $(flags_nvcc) -ptx -arch=compute_$(if $(filter %_hopper.cu,$<),90a,$(PTX_ARCH)) -MD -MF $(@:.ptx=.d) -MT $@ -o $@ $<
# And what ptxas says of them: the registers of a launch.
kernels_told := $(kernels_ptx:.ptx=.told)
$(kernels_told): %.told: %.ptx
	$(Q)$(dir $(nvcc))ptxas -v -arch=sm_$(if $(filter %_hopper.ptx,$<),90a,$(PTX_ARCH)) -o /dev/null $< >$@ 2>&1 || { cat $@; exit 1; }
-include $(wildcard $(BUILD)/ptx$(PTX_ARCH)/*.d)

# Switches threads; the kernels' own memory it does not touch.
$(dir)/tests/emu/emu_block.o: compile_cu += -O3 -fno-sanitize=address,alignment

base_objects := $(call object,$(base))
beside_engine := $(filter $(dir)/tests/%,$(objects)) # the emulated GPU, the machine for PTX
$(library): $(filter-out $(main) $(base_objects) $(engine) $(beside_engine),$(objects)) $(dir)/linked
$(libengine): $(engine) $(beside_engine) $(dir)/linked
$(libbase): $(base_objects) $(dir)/linked
$(library) $(libengine) $(libbase):
	$(Q)rm -f $@ && ar rcs $@ $(filter %.o,$^)

$(grpo): $(main)
$(bench): $(call object,bench)
$(tools) $(tests) $(page) $(ptx_ops): %: %.o
$(tests) $(page) $(ptx_ops): cmocka := -lcmocka
$(tests) $(page) $(ptx_ops): $(dir)/tests/filter.o
$(filter $(patsubst %,$(dir)/tests/test_%,ops model contract matmul twins),$(tests)): $(twin_ops)
$(fuzzers): %: %.o $(library) $(libengine) $(libbase)
	@echo '  LD  $@'
	$(Q)$(CC) $(flags) -fsanitize=fuzzer -o $@ $(filter-out %/linked,$^) $(libs)
$(dir)/tests/fuzz/fuzz_ptx.o: tests/fuzz/fuzz_ptx.cpp $(dir)/flags_ptx
	@echo '  CXX  $<'
	$(Q)mkdir -p $(@D) && $(compile_ptx) -MMD -MP -c -o $@ $<
$(fuzz_ptx): %: %.o $(machine)
	@echo '  LD  $@'
	$(Q)$(compile_ptx) -fsanitize=fuzzer -o $@ $^ -lpthread
# Tests of kernels and models need nothing above them, so that running one builds no more.
low_tests := $(filter $(patsubst %,$(dir)/tests/test_%,adamw attention cases comm contract head matmul ops sample twins),$(tests)) $(ptx_ops)
$(grpo) $(bench) $(tools) $(filter-out $(low_tests),$(tests)) $(page): $(library)
$(grpo) $(bench) $(tools) $(tests) $(page) $(ptx_ops): $(cpu_ops) $(libengine) $(libbase)
	@echo '  LD  $@'
	$(Q)mkdir -p $(@D) && $(CC) $(flags) -o $@ $(filter %.o,$^) $(filter $(library),$^) $(libengine) $(libbase) $(libs) $(cmocka)

$(dir)/tests/%.o: tests/%.c $(dir)/flags
	$(if $(call missing,cmocka),$(error no development files of cmocka: run tools/deps.sh test))
	@echo '  CC  $<'
	$(compile) -c -o $@ $<

# The allocator that fails, which test_memory preloads.
$(dir)/tests/test_memory: $(dir)/tests/memory/fail.so
$(dir)/tests/memory/fail.so: tests/memory/fail.c $(dir)/flags
	@echo '  LD  $@'
	$(Q)mkdir -p $(@D) && $(CC) $(flags) -fPIC -shared -o $@ $< -ldl

# Style and script of the report are taken in as they stand.
$(dir)/host/report/page_parts.o: $(wildcard host/report/page/*)
$(dir)/host/base/version.o: includes += -DGRPO_VERSION='"$(version)"'
$(dir)/host/base/version.o: $(dir)/version

# Written anew only where the text differs: what depends on them is rebuilt then, and only then.
$(dir)/flags:  text = $(compiler) $(flags) $(optimize_by_isa) $(foreach i,$(isas),$(isa_$i))
$(dir)/flags_cu: text = $(subst ',,$(compile_cu))
$(dir)/flags_ptx: text = $(compile_ptx)
$(dir)/linked: text = $(objects) $(libs)
$(dir)/version: text = $(version)
$(dir)/flags $(dir)/flags_cu $(dir)/flags_ptx $(dir)/linked $(dir)/version: FORCE
	@mkdir -p $(@D) && echo '$(text)' | cmp -s - $@ || echo '$(text)' >$@

# ---- targets ---------------------------------------------------------------------------------------------------------
debug sanitize:
	$(Q)$(MAKE) MODE=$@ all

# On the CPU; and in the release build, on the emulated GPU after that.
also_emu := $(filter release,$(MODE))
# What the ops, the model and the numerics contract do on every instruction set: by its twin where this CPU lacks it.
per_isa := $(foreach i,generic $(isa_names),$(foreach t,ops matmul model contract,$(dir)/tests/test_$t@$i))
test: $(grpo) $(tools) $(tests)
	$(if $(also_emu),$(Q)$(MAKE) MODE=emu programs)
	$(Q)GRPO=$(grpo) GRPO_CUDA=$(if $(also_emu),$(BUILD)/emu/grpo,$(grpo)) \
	    $(if $(filter sanitize,$(MODE)),TEST_TIMEOUT=1200) tests/run.sh $(if $(filter emu,$(MODE)),--cuda) $(tests) $(if $(also_emu),$(per_isa)) \
	    $(if $(also_emu),--cuda $(emulated:%=$(BUILD)/emu/tests/%))

programs: $(grpo) $(tools) $(tests)

# The kernels broken on purpose, and what feeds them: do the tests notice?
.PHONY: mutants-host
mutants_with := BUILD=$(dir) GRPO=$(grpo) LIBS='$(libengine) $(libbase) $(libs) -lcmocka'
mutants: mutants-host
ifeq ($(MODE),emu)
	$(Q)$(MAKE) MODE=emu programs
	$(Q)LIST=list.sh GRPO_TEST_DEVICE=cuda $(mutants_with) LINK='$(CC) $(flags) $(cpu_ops)' COMPILE_CU='$(compile_cu)' tests/mutants/run.sh
else
	$(Q)$(MAKE) MODE=emu mutants
endif
mutants-host:
ifeq ($(MODE),emu)
else
	$(Q)$(MAKE) programs
	$(Q)LIST=host.sh GRPO_TEST_DEVICE=cpu $(mutants_with) LINK='$(CC) $(flags) $(cpu_ops)' \
	    COMPILE_C='$(CC) $(flags) $(headers) $(host_rooms) $(addprefix -I,$(rewards))' tests/mutants/run.sh
endif

# The speed of the machine for PTX (tests/ptx): memory-bound kernels, then tensor cores by mma.sync and by wgmma.
.PHONY: bench-ptx
bench-ptx: $(ptx)
	$(Q)head -c 8388608 /dev/zero >$(dir)/zeros
	$(Q)$(ptx) tests/golden/ptx/softmax_bf16_80.ptx softmax grid=8000 block=128 shared=16 in:$(dir)/zeros buf:8388608 i32:496 u64:0 u64:0
	$(Q)$(ptx) tests/golden/ptx/layer_norm_bf16_80.ptx layer_norm_backward grid=8000 block=128 shared=2048 out:8388608:/dev/null buf:4096 buf:4096 \
	    in:$(dir)/zeros in:$(dir)/zeros buf:4096 buf:65536 buf:65536 i32:496 u64:0 u64:0
	$(Q)$(ptx) tests/golden/ptx/scan_fp32_80.ptx scan grid=4000 block=256 shared=64 in:$(dir)/zeros out:8388608:/dev/null out:8388608:/dev/null \
	    i32:496 u64:0 u64:0
	$(Q)for a in 80 90; do $(ptx) tests/golden/ptx/matmul_bf16_$$a.ptx matmul_pointers grid=8,8 block=128 shared=49152 in:$(dir)/zeros \
	    in:$(dir)/zeros buf:524288 i32:512 i32:512 i32:512 u64:0 u64:0; done

# Runs our kernels, as nvcc compiled them, on the machine for PTX: every op's rows, and the numerics contract for one way of rounding
# in tensor cores (f32 uses none). -all: the benchmark's shapes too, and every way to round.
on_machine = EMU_PTX=$(BUILD)/ptx$(PTX_ARCH) EMU_ARCH=90 EMU_DEFER=0 EMU_GUARD=0 OMP_WAIT_POLICY=passive
.PHONY: check-ptx check-ptx-all
check-ptx check-ptx-all:
ifeq ($(nvcc),)
	@echo 'SKIP $@: our kernels on the PTX machine need nvcc, which is not here'
else ifneq ($(MODE),emu)
	$(Q)$(MAKE) MODE=emu $@
else
	$(Q)$(MAKE) MODE=emu $(ptx_ops) $(dir)/tests/test_contract $(kernels_told)
	$(Q)$(if $(filter %-all,$@),PTX_ALL=1) EMU_LAUNCHES=$(dir)/launches $(on_machine) $(ptx_ops)
	$(Q)for units in $(if $(filter %-all,$@),ascending groups8 groups16) unlike; do echo "the contract, tensor cores that add as: $$units"; \
	    EMU_UNITS=$$units GRPO_TEST='*bf16' $(if $(filter %-all,$@),,GRPO_TEST_SEQUENCES=20) GRPO_TEST_DEVICE=cuda $(on_machine) \
	    $(dir)/tests/test_contract || exit 1; done
endif

# The compiled kernels broken on purpose: does that machine notice?
.PHONY: mutants-ptx
mutants-ptx:
ifeq ($(nvcc),)
	@echo 'SKIP $@: it breaks what nvcc compiled, which is not here'
else ifneq ($(MODE),emu)
	$(Q)$(MAKE) MODE=emu $@
else
	$(Q)$(MAKE) MODE=emu $(ptx_ops) $(kernels_told)
	$(Q)FOLDER=$(BUILD)/ptx$(PTX_ARCH) PROGRAM=$(ptx_ops) $(filter-out EMU_PTX=%,$(on_machine)) tests/mutants/ptx.sh
endif

# The report in a real browser, headless.
.PHONY: check-report
check-report:
	$(Q)if command -v chromium >/dev/null; then $(MAKE) run-test_page; \
	    else echo 'SKIP $@: no chromium (tools/deps.sh report)'; fi

# TensorBoard's event file, read by tensorboard itself.
PYTHON ?= python3
.PHONY: check-tensorboard
check-tensorboard: $(dir)/tests/test_events
	$(Q)if command -v $(PYTHON) >/dev/null; then $(PYTHON) tools/check_events.py $<; \
	    else echo 'SKIP $@: no $(PYTHON)'; fi

# One test program alone, with all it prints: make run-test_ops. TEST=PATTERN: only the tests of that name; OP=NAME: of the
# case table only that op. The program grpo is built where the test starts it.
starts_grpo := $(patsubst tests/%.c,%,$(shell grep -lF '"GRPO"' tests/test_*.c) \
               $(shell grep -lF $(patsubst tests/%,-e '"%"',$(shell grep -lF '"GRPO"' tests/*.h)) tests/test_*.c))
$(foreach t,$(starts_grpo),$(eval run-$t: $(grpo)))
run-test_problems: $(tools)
run-%: $(dir)/tests/%
	$(Q)GRPO=$(grpo) GRPO_TEST='$(TEST)' $(if $(OP),GRPO_TEST_OP='$(OP)') OMP_WAIT_POLICY=passive \
	    $(if $(filter emu,$(cuda)),GRPO_TEST_DEVICE=cuda EMU_DEFER=1 EMU_GUARD=1) \
	    $(if $(TEST),sh -c '{ "$$1" 2>&1; echo $$? >"$$1.status"; } | tee "$$1.log"; if grep -q "Running 0 test" "$$1.log"; then \
	    echo "$@: none of its tests is named $(TEST); they stand at the end of its source"; exit 1; fi; exit "$$(cat "$$1.status")"' -) $<

# The one style there is, and whether all files have it.
sources = $(shell git ls-files '*.c' '*.h' '*.cu' '*.cuh' '*.cpp')
format:
	$(Q)clang-format -i $(sources)
check-format:
	$(Q)if command -v clang-format >/dev/null; then clang-format --dry-run -Werror $(sources); \
	    else echo 'SKIP the format check: no clang-format'; fi

# What editors and clangd ask for: each file's command, read off a build that is only told.
compile_commands.json:
	$(Q)$(MAKE) -B -n V=1 programs $(bench) $(fuzzers) $(page) | awk -v dir='$(CURDIR)' ' \
	    / -c -o / { sub(/^.*&& /, ""); sub(/ 2>.*/, ""); gsub(/\\/, "\\\\"); gsub(/"/, "\\\""); \
	        printf "%s{\"directory\": \"%s\", \"file\": \"%s\", \"command\": \"%s\"}\n", n++ ? "," : "[", dir, $$NF, $$0 } \
	    END { print "]" }' >$@ && echo '  $@'

# All that can be checked on this machine, for those who change the code.
check:
	$(Q)$(MAKE) test
	$(Q)MEMORY_CALLS=all $(MAKE) run-test_memory
	$(Q)$(MAKE) check-ptx
	$(Q)$(MAKE) check-cuda
	$(Q)$(MAKE) check-rooms
	$(Q)$(MAKE) check-floor
	$(Q)$(MAKE) check-report
	$(Q)$(MAKE) check-tensorboard
	$(Q)$(MAKE) fuzz
	$(Q)$(MAKE) MODE=sanitize test
	$(Q)$(MAKE) MODE=tsan run-test_comm run-test_external run-test_scorer
	$(Q)$(MAKE) valgrind
	$(Q)if command -v clang >/dev/null; then $(MAKE) CC=clang BUILD=$(BUILD)/clang all; \
	    else echo 'SKIP the clang build: no clang'; fi
	$(Q)$(MAKE) check-format

# The tiny run under valgrind.
valgrind:
	$(Q)if command -v valgrind >/dev/null; \
	    then $(MAKE) CUDA=no BUILD=$(BUILD)/valgrind all && \
	        tools/valgrind.sh $(BUILD)/valgrind/grpo $(BUILD)/valgrind/release/tools/problems; \
	    else echo 'SKIP valgrind: it is not installed'; fi

# Names every symbol that a room uses from a room above it: there must be none. Needs the objects of this build, nothing else.
check-rooms: $(library) $(libengine) $(libbase) $(cpu_ops)
	$(Q)tools/check_rooms.sh $(dir) $(rooms)
	$(Q)echo 'int main(void) { return 0; }' | $(CC) $(flags) -x c - -x none -o $(dir)/lower $(engine) $(beside_engine) $(cpu_ops) \
	    $(libbase) $(libs)
	@echo 'kernels and models link without the host: $(words $(engine) $(cpu_ops)) objects, libbase.a'

# Prints the least and the expected time of every kernel that the benchmark times; fails where one is missing.
.PHONY: check-floor
check-floor: $(bench)
	$(Q)$< floor

# What every kernel takes on each GPU generation, read off the build's own objects; needs nvcc, but no GPU. Where the build
# is for this machine's card alone, the others are made beside it.
.PHONY: objects_cu
objects_cu: $(objects_cu)
check_archs := $(if $(filter native,$(CUDA_ARCH)),$(generations),$(CUDA_ARCH))
check_build := $(BUILD)$(if $(filter native,$(CUDA_ARCH)),/generations)
check-cuda:
ifeq ($(nvcc),)
	@echo 'SKIP $@: no nvcc'
else
	$(Q)$(MAKE) MODE=release BUILD=$(check_build) CUDA_ARCH='$(check_archs)' objects_cu
	$(Q)LAUNCHES=$(wildcard $(BUILD)/emu/launches) tools/check_cuda.sh $(check_build)/release $(check_archs)
endif

# FUZZ_SECONDS of random inputs for each parser; what a fuzzer learns stays in the build folder, and an input that fails is
# left there.
FUZZ_SECONDS ?= 60
fuzz:
	$(Q)if echo 'int LLVMFuzzerTestOneInput(void) { return 0; }' | \
	    clang -fsanitize=fuzzer,address -x c -o /dev/null - >/dev/null 2>&1; \
	    then $(MAKE) MODE=fuzz CC=clang CXX=clang++ FUZZ_SECONDS=$(FUZZ_SECONDS) fuzzed; \
	    else echo 'SKIP the fuzzers: no clang with libFuzzer'; fi
fuzzed: $(patsubst %,%.ran,$(fuzzers) $(fuzz_ptx))
$(dir)/%.ran: $(dir)/% FORCE
	$(Q)mkdir -p $<.corpus && echo '  FUZZ  $(@F:.ran=) $(FUZZ_SECONDS) s' && \
	    $< -max_total_time=$(FUZZ_SECONDS) -max_len=4096 -timeout=20 -rss_limit_mb=4096 -artifact_prefix=$<. \
	    $<.corpus tests/fuzz/corpus/$(patsubst fuzz_%,%,$(<F)) >$<.log 2>&1 || { tail -n 40 $<.log; exit 1; }

bench: $(bench)
	$(Q)$(bench) $(ARGS)

# Profiles, where the CUDA toolkit has brought its profilers: make nsys [ARGS="CONFIG.yaml key=value ..."], make ncu OP=rmsnorm
nsys: all
	$(Q)tools/profile.sh nsys $(ARGS)
ncu: $(bench)
	$(if $(OP),,$(error name an op: make ncu OP=rmsnorm))
	$(Q)tools/profile.sh ncu $(OP)

demo: all
	$(Q)tools/demo.sh

r1: all
	$(Q)tools/r1.sh

check-r1: all
	$(Q)tools/check_r1.sh $(SEEDS)

check-kills: all
	$(Q)tools/check_kills.sh

doctor: all
	$(Q)$(grpo) doctor

install: all
	install -D $(grpo) $(DESTDIR)$(PREFIX)/bin/grpo
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/grpo/configs configs/*
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/grpo/models/tiny models/tiny/*
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/include/grpo include/reward_plugin.h
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/share/grpo/examples rewards/examples/*.py
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/grpo/examples rewards/examples/*.c

clean:
	$(Q)rm -rf $(BUILD)

help:
	@echo 'make           build/grpo'
	@echo 'make demo      watch a model learn: three minutes, offline'
	@echo 'make r1        the phases of R1 as a pipeline, on the same model: some minutes, offline'
	@echo 'make check-r1  that it shows what it should, over three seeds; make check-kills: killed ten times, the same bytes'
	@echo 'make test      every test; make run-test_NAME [TEST=PATTERN] [OP=NAME] runs one program, one test, one op'
	@echo 'make check     every test and check that this machine can do: sanitizers, threads, clang, PTX, rooms, format, report, fuzz'
	@echo 'make check-ptx  the kernels that nvcc compiled, on a machine for PTX; check-ptx-all: large shapes too'
	@echo 'make bench-ptx  how fast the machine for PTX is'
	@echo 'make check-cuda  registers and spills of every kernel, the hot ones in machine code; needs nvcc, no GPU'
	@echo 'make check-rooms  names every symbol that a room uses from a room above it'
	@echo 'make check-floor  the least and the expected time of every kernel that the benchmark times'
	@echo 'make check-report  the report page in a headless browser'
	@echo 'make check-tensorboard  event files, read by tensorboard where it is installed (PYTHON=python3)'
	@echo 'make fuzz      the parsers under libFuzzer, FUZZ_SECONDS (60) each'
	@echo 'make mutants   breaks the kernels and what feeds them on purpose, one place at a time, and sees whether the tests notice'
	@echo 'make mutants-ptx  the same of what nvcc compiled, on the machine for PTX'
	@echo 'make format    the one style; make check-format says where it is missing; make compile_commands.json for editors'
	@echo 'make programs  builds everything that make test runs'
	@echo 'make valgrind  the tiny run under valgrind'
	@echo 'make bench     speed beside what this machine can do, and beside PyTorch where it is installed'
	@echo 'make nsys      a timeline of a training run on the GPU; make ncu OP=rmsnorm: the counters of one op'
	@echo 'make doctor    what this machine has, and whether grpo can use it'
	@echo 'make install   to PREFIX ($(PREFIX)), under DESTDIR'
	@echo 'make debug     build/debug/grpo, for a debugger'
	@echo 'make sanitize  build/sanitize/grpo, with the address and undefined-behaviour sanitizers'
	@echo 'make clean     remove $(BUILD)'
	@echo 'Variables: CC CFLAGS LDFLAGS BUILD=$(BUILD) MODE=release|debug|sanitize|tsan|fuzz|emu CUDA=no WITHOUT="test_NAME ..." (make test leaves these out)'
	@echo '           V=1 (show commands) ARGS (of make bench: build/bench --help)'

-include $(wildcard $(dir)/*/*.d $(dir)/*/*/*.d $(dir)/*/*/*/*.d)
