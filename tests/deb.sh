#!/bin/sh
# The Debian packages: built, looked at by lintian, installed, their units checked and their command lines run as the units' users, reloaded,
# upgraded, removed and purged. All of it happens in a copy of this machine that is gone afterwards: an overlay over /, with a network and
# processes of its own. Needs root (or sudo).
#
# tests/deb.sh [BINARY] packs the tests' own binary unless another is named: what is tested is the packages, not how fast the binary is.
set -eu
target=$(realpath "${CARGO_TARGET_DIR:-target}")
binary=${1:-$target/debug/skeindns}
sudo=$([ "$(id -u)" = 0 ] || echo sudo)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$work/target/release"
strip -o "$work/target/release/skeindns" "$binary"
for variant in "" "--variant=register"; do
    CARGO_TARGET_DIR="$work/target" cargo deb --quiet --fast --no-build --no-strip --output "$work/" $variant
done
ls -l "$work"/*.deb

# There is no bug that asks Debian for it, nor an address of a maintainer.
lintian --fail-on warning --suppress-tags initial-upload-closes-no-bugs,bogus-mail-host-in-debian-changelog,bogus-mail-host "$work"/*.deb

cp tests/deb-inside.sh "$work/inside.sh"
$sudo unshare --mount --net --pid --fork sh -eu -c '
    work=$1
    mkdir "$work/overlay"
    mount -t tmpfs tmpfs "$work/overlay"
    cd "$work/overlay"
    mkdir upper scratch root
    mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=scratch root
    mount -t proc proc root/proc
    mount --rbind /dev root/dev
    mkdir -p root/packages
    cp "$work"/*.deb "$work/inside.sh" root/packages/
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 chroot root sh -eu /packages/inside.sh
    rm -r root/packages
    # What is left of us in the copy, by name; the empty places of removed files
    # (character devices), notes of dpkg and rendered manuals are not.
    left=$(find upper -iname "*skein*" ! -type c ! -path "*/dpkg/*" ! -path "*/cache/man/*")
    [ -z "$left" ] || { echo "packages: purge leaves $left"; exit 1; }
' sh "$work"
echo "packages: installed, served, registered, reloaded, upgraded, purged"
