#!/usr/bin/env bash
# Makes the file system of `debian:13-slim` from Debian's packages:
#   debian.sh MIRROR OUT.tar
# for machines that cannot reach Docker Hub; run by `cargo xtask`. What makes it behave as the official image does
# (no documentation, no packages left by apt) follows the settings that it has in apt.conf.d and dpkg.cfg.d.
# Needs root and mmdebstrap.
set -euo pipefail

mirror=$1
out=$2
suite=trixie

work=$(mktemp -d "${TMPDIR:-/tmp}/stagely-base-image.XXXXXX")
trap 'rm -rf "$work"' EXIT
# What apt computes from the lists is kept between `update` and `install`, unlike in the official image: computing it
# twice is a fifth of a small layer's time on an emulated processor.
cat >"$work/docker-clean" <<'APT'
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb /var/cache/apt/*.bin || true"; };
APT

include=()
case $mirror in https:*) include=(--include=ca-certificates) ;; esac

# Bookworm's keyring also holds trixie's keys once it is up to date; what apt trusts is what we trust.
# The images built from this one fetch their packages from the same mirror: it is what can be reached here.
mmdebstrap --quiet --mode=root --variant=minbase "${include[@]}" \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/lintian/*' \
  --dpkgopt='force-unsafe-io' --aptopt='Acquire::Languages "none"' \
  --aptopt='APT::AutoRemove::SuggestsImportant "false"' \
  --customize-hook="upload '$work/docker-clean' /etc/apt/apt.conf.d/docker-clean" \
  --customize-hook='rm -f "$1/etc/resolv.conf" "$1/etc/hostname" "$1/etc/machine-id" && : >"$1/etc/machine-id"' \
  --customize-hook='rm -rf "$1"/var/log/* "$1"/var/cache/apt/*.bin "$1"/var/cache/debconf/*-old "$1"/var/lib/dpkg/*-old' \
  --format=tar "$suite" "$out" "deb $mirror $suite main"
