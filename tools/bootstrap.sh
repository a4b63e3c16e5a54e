#!/bin/sh
# Makes sure that what a build needs is installed: tools/bootstrap.sh [build|test]
#
#   build   what the program needs (also for `make run`)
#   test    that, and what the tests need: cmocka, clang with libFuzzer, qemu to play lesser CPUs
#
# Each need is probed, so that nothing happens where all is there. What is missing is installed with apt-get as root
# or through sudo; where neither can be had, one line on stderr says what to type, and the exit status is 1.
set -u
purpose=${1:-build}
missing=

# want PROBE PACKAGE...: notes the packages as missing unless the command PROBE succeeds.
want() {
    probe=$1
    shift
    eval "$probe" </dev/null >/dev/null 2>&1 || missing="$missing $*"
}

have_compiler() {
    echo '#include <stdio.h>' | ${CC:-cc} -x c -fsyntax-only -
}

have_libfuzzer() {
    echo 'int LLVMFuzzerTestOneInput(const char *d, long n); int LLVMFuzzerTestOneInput(const char *d, long n) { return 0; }' |
        clang -x c -fsanitize=fuzzer,address,undefined - -o /dev/null
}

probe_all() {
    missing=
    want have_compiler gcc libc6-dev
    want 'command -v meson' meson
    want 'command -v ninja' ninja-build
    want 'command -v pkg-config' pkg-config
    want 'pkg-config --exists libpcre2-8' libpcre2-dev
    want 'pkg-config --exists jansson' libjansson-dev
    want 'pkg-config --exists libcrypto' libssl-dev
    want 'pkg-config --exists libedit' libedit-dev
    want 'pkg-config --exists libzip' libzip-dev
    want 'pkg-config --exists libevent_core' libevent-dev
    want 'python3 -c "import pip"' python3-pip
    want 'test ! -e /etc/debian_version -o -s /etc/ssl/certs/ca-certificates.crt' ca-certificates
    [ "$purpose" = test ] || return 0
    want 'pkg-config --exists cmocka' libcmocka-dev
    want have_libfuzzer clang libclang-rt-dev
    [ "$(uname -m)" != x86_64 ] || want 'command -v qemu-x86_64' qemu-user
}

# as_root COMMAND...: runs it as root, or fails with status 126 if there is no way to become root.
as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
        sudo -n "$@"
    elif command -v sudo >/dev/null 2>&1 && [ -t 0 ] && [ -t 2 ]; then
        sudo "$@"
    else
        return 126
    fi
}

run_apt() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -y -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 \
        -o Dpkg::Use-Pty=0 "$@"
}

lists_are_fresh() {
    ls /var/lib/apt/lists/*_Packages* >/dev/null 2>&1 && [ -n "$(find /var/lib/apt/lists -maxdepth 0 -mtime -2)" ]
}

# Two rounds: package lists that look fresh may still name files which the mirror no longer has.
install_missing() {
    lists_are_fresh || run_apt update || return 1
    # shellcheck disable=SC2086
    run_apt install --no-install-recommends $missing && return 0
    # shellcheck disable=SC2086
    run_apt update && run_apt install --no-install-recommends $missing
}

probe_all
[ -z "$missing" ] && exit 0

command_line="apt-get update && apt-get install -y --no-install-recommends$missing"
if ! command -v apt-get >/dev/null 2>&1; then
    echo "sluice: build dependencies are missing, and so is apt-get; the packages' Debian names are:$missing" >&2
    exit 1
fi
as_root true
if [ $? = 126 ]; then
    echo "sluice: build dependencies are missing; as root, run: $command_line" >&2
    exit 1
fi

echo "sluice: installing$missing" >&2
log=$(mktemp)
trap 'rm -f "$log"' EXIT
if ! install_missing >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    echo "sluice: the installation failed; try as root: $command_line" >&2
    exit 1
fi
probe_all
if [ -n "$missing" ]; then
    echo "sluice: still missing after the installation:$missing" >&2
    exit 1
fi
