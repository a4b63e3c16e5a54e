#!/bin/sh
# `make install` into an empty folder gives a program that runs, a library that a stranger can build against, shared
# and static, and its manual and completion; `make uninstall` leaves nothing of it.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
stage=$(mktemp -d)
trap 'rm -rf "$stage"' EXIT
cd "$root"

fail() {
    echo "install check: $*" >&2
    exit 1
}

make -s install DESTDIR="$stage" PREFIX=/usr/local LIBDIR=lib
usr=$stage/usr/local

for name in bin/sluice lib/libsluice.a lib/libsluice.so include/sluice/sluice.h lib/pkgconfig/sluice.pc \
    share/man/man1/sluice.1 share/bash-completion/completions/sluice.bash; do
    test -s "$usr/$name" || fail "$name is missing or empty"
done
"$usr/bin/sluice" --version | grep -q '[0-9]\.[0-9]' || fail "the installed program does not name its version"
head -n 5 "$usr/share/man/man1/sluice.1" | grep -q '^\.TH ' || fail "sluice.1 is no manual page"
bash -n "$usr/share/bash-completion/completions/sluice.bash" || fail "the completion is no bash"

cat >"$stage/user.c" <<'EOF'
#include <sluice/sluice.h>
#include <stdio.h>
#include <string.h>

int main(void)
{
    puts(sl_version());
    return sl_abi_version() != SL_ABI_VERSION || strcmp(sl_version(), SL_VERSION_STRING) != 0;
}
EOF
flags="-std=c99 -pedantic -Wall -Wextra -Werror"
export PKG_CONFIG_PATH="$usr/lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$stage"
# The flags are split into words on purpose.
# shellcheck disable=SC2046,SC2086
${CC:-cc} $flags "$stage/user.c" $(pkg-config --cflags --libs sluice) -o "$stage/user_shared"
LD_LIBRARY_PATH="$usr/lib" "$stage/user_shared" >/dev/null || fail "a program with the shared library does not run"
readelf -d "$stage/user_shared" | grep -q 'NEEDED.*libsluice\.so\.[0-9]' || fail "the SONAME has no version"
# The static case: libsluice.a with the system's shared libraries, those that the .pc file names. They are not below the
# stage, so the sysroot is set aside; --static would ask for what libzip itself is made of, which need not be installed.
needs=$(pkg-config --print-requires-private sluice)
# shellcheck disable=SC2046,SC2086
${CC:-cc} $flags -I"$usr/include" "$stage/user.c" "$usr/lib/libsluice.a" \
    $(PKG_CONFIG_SYSROOT_DIR='' pkg-config --libs $needs) -lm -pthread -o "$stage/user_static"
"$stage/user_static" >/dev/null || fail "a program with the static library does not run"

# The examples, compiled with the one line that each names; the same answer from both libraries.
model=$root/tests/golden/tiny_llama.gguf
export XDG_CACHE_HOME="$stage/cache"
for name in complete many embed; do
    # shellcheck disable=SC2046,SC2086
    ${CC:-cc} $flags "$root/examples/$name.c" -o "$stage/$name" $(pkg-config --cflags --libs sluice)
    # shellcheck disable=SC2046,SC2086
    ${CC:-cc} $flags -I"$usr/include" "$root/examples/$name.c" "$usr/lib/libsluice.a" \
        $(PKG_CONFIG_SYSROOT_DIR='' pkg-config --libs $needs) -lm -pthread -o "$stage/${name}_static"
    if ! LD_LIBRARY_PATH="$usr/lib" "$stage/$name" "$model" "the quick brown fox" >"$stage/shared.out" 2>"$stage/err"; then
        fail "examples/$name.c does not run: $(cat "$stage/err")"
    fi
    "$stage/${name}_static" "$model" "the quick brown fox" >"$stage/static.out" ||
        fail "examples/$name.c does not run with the static library"
    test -s "$stage/shared.out" || fail "examples/$name.c says nothing"
    cmp -s "$stage/shared.out" "$stage/static.out" || fail "examples/$name.c: the two libraries answer differently"
done

make -s uninstall DESTDIR="$stage" PREFIX=/usr/local LIBDIR=lib >/dev/null
left=$(find "$usr" ! -type d)
test -z "$left" || fail "make uninstall left: $left"
test ! -d "$usr/include/sluice" || fail "make uninstall left include/sluice"
