# The front door: `make help` lists the targets. Meson does the building, tools/run_tests.py the testing.

MODEL  ?= smollm2
PROMPT ?= Explain in two sentences why the sky is blue.
PREFIX ?= /usr/local
LIBDIR ?= lib

# Seconds for each fuzz target in `make fuzz`; `make test` gives each 15.
FUZZ_SECONDS ?= 600

BUILD := build
SETUP := meson setup $(BUILD) -Dtests=false

# A value as one word of the shell, whatever quotes or dollars it holds.
quote = '$(subst ','\'',$(value $(1)))'

# What is missing is installed before anything is built. This happens while the Makefile is read: a recipe that fails
# makes make add lines of its own and exit with 2, whereas -q ends it silently with 1 after bootstrap's one line.
# Under `make -n` (shell completion uses it) nothing is installed.
GOALS   := $(or $(MAKECMDGOALS),all)
TESTING := $(filter test test-long fuzz,$(GOALS))
ifneq (,$(filter-out help clean,$(GOALS)))
ifeq (,$(findstring n,$(firstword -$(MAKEFLAGS))))
ifneq (ok,$(shell tools/bootstrap.sh $(if $(TESTING),test,build) && echo ok))
MAKEFLAGS += -q
endif
endif
endif

.PHONY: all run test test-long bench bench-peers fuzz format install uninstall clean help
.DEFAULT_GOAL := all

all: $(BUILD)/build.ninja ## build the program, build/sluice
	@ninja -C $(BUILD) sluice

$(BUILD)/build.ninja:
	@$(SETUP)

run: all ## fetch MODEL (a name or a path) and answer PROMPT
	@test -e $(call quote,MODEL) || $(BUILD)/sluice pull $(call quote,MODEL)
	@$(BUILD)/sluice run -m $(call quote,MODEL) -p $(call quote,PROMPT)

test: ## everything that must pass before a change lands; ends in "N passed, N failed"
	@python3 tools/run_tests.py

test-long: ## the same, with the tests that take too long for every change
	@python3 tools/run_tests.py --long

fuzz: ## FUZZ_SECONDS of libFuzzer for each target
	@python3 tools/run_tests.py --only fuzz --fuzz-seconds $(FUZZ_SECONDS)

bench: all ## measure the speed with MODEL
	@test -e $(call quote,MODEL) || $(BUILD)/sluice pull $(call quote,MODEL)
	@$(BUILD)/sluice bench -m $(call quote,MODEL)

bench-peers: all ## measure sluice beside llama.cpp, ik_llama.cpp and transformers (PEERS_OPTIONS: see the script)
	@python3 tools/bench_peers.py $(PEERS_OPTIONS)

format: ## format all C files in place
	@python3 tools/format.py --fix

install: $(BUILD)/build.ninja ## install under DESTDIR/PREFIX
	@meson configure $(BUILD) -Dprefix=$(call quote,PREFIX) -Dlibdir=$(call quote,LIBDIR)
	@ninja -C $(BUILD)
	@meson install -C $(BUILD) --no-rebuild --destdir $(call quote,DESTDIR)

uninstall: ## remove what `make install` with the same PREFIX and DESTDIR put there
	@env PREFIX=$(call quote,PREFIX) LIBDIR=$(call quote,LIBDIR) DESTDIR=$(call quote,DESTDIR) tools/uninstall.sh

clean: ## remove all that was built
	@rm -rf build build-asan build-tsan build-fuzz

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile
