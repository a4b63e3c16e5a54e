#!/bin/sh
# Removes what `make install` puts under DESTDIR/PREFIX: installs once more into an empty folder to learn the names.
# Called by `make uninstall`, with PREFIX, LIBDIR and DESTDIR in the environment.
set -eu
staged=$(mktemp -d)
trap 'rm -rf "$staged"' EXIT
make -s install PREFIX="$PREFIX" LIBDIR="$LIBDIR" DESTDIR="$staged" >/dev/null
cd "$staged"
find . ! -type d | while IFS= read -r name; do
    rm -f "${DESTDIR:-}/$name"
done
# Folders named for sluice are ours; all others are shared with other programs.
find . -depth -type d -name sluice | while IFS= read -r name; do
    rmdir "${DESTDIR:-}/$name" 2>/dev/null || true
done
