# A thin front for Meson and Ninja: what a user or a developer does most, by name.
# ./demo and ./check also install what these targets need.
BUILD ?= build
PREFIX ?= /usr/local
DESTDIR ?=
MESON ?= meson

# A test that hangs must end, but one that starves on a busy machine has not failed.
TEST = $(MESON) test -C $(BUILD) --no-rebuild --print-errorlogs --timeout-multiplier 4

# build/pal and the library.
all: $(BUILD)/build.ninja
	@ninja -C $(BUILD) $(NINJA_FLAGS) product

# And all tests, which need NumPy.
everything: $(BUILD)/build.ninja
	@ninja -C $(BUILD) $(NINJA_FLAGS)

$(BUILD)/build.ninja:
	@mkdir -p $(BUILD)
	@$(MESON) setup $(BUILD) --prefix=$(PREFIX) $(MESON_FLAGS) >$(BUILD)/setup.log 2>&1 || \
		{ cat $(BUILD)/setup.log; exit 1; }

# All tests but the suite `long`; the last line is "N passed, N failed".
check:
	@$(MAKE) --no-print-directory test; rc=$$?; \
	python3 tests/tools/summary.py $(BUILD) && exit $$rc

# The same without the summary; ./check sums up several builds.
test: everything
	@$(TEST) --no-suite long $(TEST_FLAGS)

# Minutes of fuzzing for each target, and property tests over many more models.
check-long: everything
	@$(TEST) --suite long --timeout-multiplier 10 $(TEST_FLAGS); rc=$$?; \
	python3 tests/tools/summary.py $(BUILD) && exit $$rc

# Speed beside llama.cpp's on the same files, turn by turn; BENCH_FLAGS: see bench/README.md.
bench: all
	@python3 bench/compare.py --pal $(BUILD)/pal $(BENCH_FLAGS)

# Line coverage of src/ by the tests of `make check`; fails below 85 %. Counters are atomic,
# since threads share them. Details: build-coverage/html/index.html
coverage:
	@$(MAKE) --no-print-directory everything BUILD=build-coverage MESON_FLAGS='-Db_coverage=true \
		--buildtype=debugoptimized -Dc_args=-fprofile-update=atomic'
	@find build-coverage -name '*.gcda' -delete
	@mkdir -p build-coverage/html
	@$(MESON) test -C build-coverage --no-rebuild --print-errorlogs --no-suite long; tests=$$?; \
	cd build-coverage && gcovr --root .. --filter ../src/ --sort-uncovered \
		--html-details html/index.html --txt coverage.txt --fail-under-line 85 .; rc=$$?; \
	cat coverage.txt; [ $$tests = 0 ] && exit $$rc

# Program, library, header, pkg-config file and man page.
install: all
	@$(MESON) configure $(BUILD) -Dprefix=$(PREFIX)
	@ninja -C $(BUILD) --quiet product
	@DESTDIR="$(abspath $(DESTDIR))" $(MESON) install -C $(BUILD) --no-rebuild

format:
	@git ls-files '*.c' '*.h' | xargs clang-format -i

clean:
	@rm -rf build build-*

.PHONY: all everything check test check-long bench coverage install format clean
