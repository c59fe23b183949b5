#!/usr/bin/env bash
# Makes the root file system of `debian:13-slim` from Debian's packages, for hosts that reach no container registry:
#   base-image.sh OUT.tar
# Its apt uses the mirror that this machine's own apt uses.
set -euo pipefail
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -E '/debian/?$' | head -n 1)
[ -n "$mirror" ] || { echo "base-image.sh: apt names no Debian mirror: add one to /etc/apt/sources.list" >&2; exit 1; }
mmdebstrap --mode=root --variant=minbase --include=ca-certificates \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --aptopt='Acquire::Languages "none"' \
  --customize-hook='rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin "$1"/var/cache/debconf/*-old' \
  --format=tar trixie "$1" "deb $mirror trixie main"
