#!/bin/bash
# Builds, runs and tests the committed tree in a fresh root that holds only git, make and python3-pip:
#
#   tools/clean_root_test.sh FOLDER [TARGET...]      default targets: run test
#
# FOLDER/base-SUITE keeps the bare system between runs, FOLDER/root is made anew each time. Needs root and debootstrap.
#   SUITE    release to install (default bookworm)
#   MIRROR   archive to take it from (default: where the host's apt gets this release)
#   COMPONENTS            of the archive (default main; Ubuntu needs main,universe)
#   DEBOOTSTRAP_OPTIONS   more options, such as --keyring=FILE for a release of another distribution
#   DEBOOTSTRAP_SCRIPT    for a release newer than the host's debootstrap
# The network settings of the host (proxies, pip's settings, certificates, resolver) are handed on.
set -euo pipefail
folder=$(realpath -m "$1")
shift
targets=("${@:-run}")
[ $# -gt 0 ] || targets=(run test)
suite=${SUITE:-bookworm}
base=$folder/base-$suite
root=$folder/root
repository=$(cd "$(dirname "$0")/.." && pwd)

make_base() {
    local mirror=${MIRROR:-}
    if [ -z "$mirror" ]; then
        # shellcheck disable=SC2016
        mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' |
            awk -v suite="$suite" '$2 == suite { print $1; exit }')
    fi
    [ -n "$mirror" ] || { echo "apt knows no mirror of $suite: set MIRROR" >&2; exit 1; }
    # The options are split into words on purpose.
    # shellcheck disable=SC2086
    debootstrap --variant=minbase --components="${COMPONENTS:-main}" --include=git,make,python3-pip \
        ${DEBOOTSTRAP_OPTIONS:-} "$suite" "$base.part" "$mirror" ${DEBOOTSTRAP_SCRIPT:-} >"$folder/debootstrap.log" 2>&1 ||
        { tail -n 5 "$folder/debootstrap.log" >&2; exit 1; }
    mv "$base.part" "$base"
}

hand_on_network() {
    cp /etc/resolv.conf /etc/hosts "$root/etc/"
    apt-config dump | grep -i '^Acquire::.*proxy' >"$root/etc/apt/apt.conf.d/90proxy" || true
    [ ! -e /etc/pip.conf ] || cp /etc/pip.conf "$root/etc/"
    [ ! -e /etc/ssl/certs/ca-certificates.crt ] || cp /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
}

# inside USER COMMAND...: runs it in the new root, in /home/sluice/sluice; mounts vanish with the namespace.
inside() {
    local user=$1
    shift
    local settings=() name
    while IFS= read -r name; do
        settings+=("$name=${!name}")
    done < <(compgen -e | grep -E '^(PIP_|SSL_CERT_|REQUESTS_CA_BUNDLE|[a-zA-Z]+_proxy$|[A-Z]+_PROXY$)')
    # shellcheck disable=SC2016
    unshare --mount sh -c 'root=$1 user=$2; shift 2
        mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" && cd "$root" &&
        exec chroot --userspec="$user" "$root" env -i "$@"' sh "$root" "$user" \
        PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/home/sluice LANG=C.UTF-8 "${settings[@]}" \
        sh -c 'cd /home/sluice/sluice && exec "$@"' sh "$@"
}

mkdir -p "$folder"
[ -d "$base" ] || make_base
rm -rf --one-file-system "$root"
cp -a --reflink=auto "$base" "$root"
hand_on_network
mkdir -p "$root/home/sluice/sluice"
git -C "$repository" archive HEAD | tar -x -C "$root/home/sluice/sluice"
chown -R 1000:1000 "$root/home/sluice"

echo "== without root: one line that prints the apt command, exit status 1"
status=0
inside 1000:1000 make run >"$folder/out" 2>"$folder/err" || status=$?
cat "$folder/out" "$folder/err"
if [ "$status" != 1 ] || [ -s "$folder/out" ] || [ "$(wc -l <"$folder/err")" != 1 ] ||
    ! grep -q 'apt-get install' "$folder/err"; then
    echo "FAILED: exit status $status" >&2
    exit 1
fi

chown -R 0:0 "$root/home/sluice"
for target in "${targets[@]}"; do
    echo "== make $target"
    started=$(date +%s)
    inside 0:0 make "$target"
    echo "== make $target: $(($(date +%s) - started)) s"
done
