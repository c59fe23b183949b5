#!/usr/bin/env bash
# Makes the file system of `busybox:1` from Debian's package:
#   busybox.sh MIRROR OUT.tar
# for machines that cannot reach Docker Hub; run by `cargo xtask`. Needs root and mmdebstrap.
set -euo pipefail

mirror=$1
out=$2
suite=trixie

work=$(mktemp -d "${TMPDIR:-/tmp}/stagely-base-image.XXXXXX")
trap 'rm -rf "$work"' EXIT
mmdebstrap --quiet --mode=root --variant=extract --include=busybox-static \
  --format=directory "$suite" "$work/package" "deb $mirror $suite main"

root=$work/root
install -D --mode=755 "$work/package/usr/bin/busybox" "$root/bin/busybox"
install --directory --mode=755 "$root/etc" "$root/root"
install --directory --mode=1777 "$root/tmp"
echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
echo 'root:x:0:' >"$root/etc/group"
"$root/bin/busybox" --list | while read -r applet; do
  [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
tar --create --file="$out" --directory="$root" --sort=name --owner=0 --group=0 --numeric-owner --mtime=@0 .
