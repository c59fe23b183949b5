#!/usr/bin/env bash
# Builds what a cloud calls "Debian 13", for tests of the first boot:
#   stock.sh OUT_DIR
# makes OUT_DIR/{disk.qcow2,vmlinuz,initrd,manifest.json}. The packages are those of Debian's own cloud images without a boot
# loader, since QEMU is given the kernel, and without the "extras" that not every provider's image has (curl among them).
# cloud-init is as its package configures it. Needs root, mmdebstrap, e2fsprogs and qemu-utils.
set -euo pipefail

out=$1
suite=trixie
disk_size=6G

# The mirror is the one that this machine's own apt uses, in the image too: machines install packages from it.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -E '/debian/?$' | head -n 1)
[ -n "$mirror" ] || { echo "stock.sh: apt names no Debian mirror: add one to /etc/apt/sources.list" >&2; exit 1; }

packages=(
  linux-image-cloud-amd64 systemd-sysv udev dbus init apt-utils debian-archive-keyring
  cloud-init cloud-guest-utils openssh-server ssh-import-id sudo libpam-systemd systemd-resolved libnss-myhostname netplan.io
  polkitd unattended-upgrades apparmor zstd systemd-timesyncd man-db
  iproute2 iptables iputils-ping less nano netbase procps vim-tiny whiptail e2fsprogs fdisk python3
)

work=$(mktemp -d "${TMPDIR:-/tmp}/stagely-stock.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root

mmdebstrap --mode=root --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" \
  --aptopt='Acquire::Languages "none"' --aptopt='APT::Install-Recommends "false"' \
  "$suite" "$root" "deb $mirror $suite main"

# As Debian's images have it, but for the mirror, which cloud-init would replace.
rm -f "$root/etc/apt/sources.list" "$root"/etc/apt/apt.conf.d/99mmdebstrap
cat >"$root/etc/apt/sources.list.d/debian.sources" <<SOURCES
Types: deb
URIs: $mirror
Suites: $suite $suite-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
SOURCES
apt-config dump | grep -E '^Acquire::Check-' >"$root/etc/apt/apt.conf.d/90mirror" || true
echo 'apt: {preserve_sources_list: true}' >"$root/etc/cloud/cloud.cfg.d/01_mirror.cfg"
echo '/dev/vda / ext4 rw,discard,errors=remount-ro 0 1' >"$root/etc/fstab"
chroot "$root" systemctl enable --quiet systemd-networkd systemd-resolved
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
: >"$root/etc/machine-id"
: >"$root/etc/hostname"
rm -rf "$root"/etc/ssh/ssh_host_* "$root/var/cache/apt" "$root"/var/lib/apt/lists/* "$root/var/lib/dbus/machine-id"
find "$root/var/log" -type f -delete
mkdir -p "$root/var/cache/apt/archives/partial" "$root/var/lib/apt/lists/partial"

mkdir -p "$out"
cp "$root"/boot/vmlinuz-* "$out/vmlinuz"
cp "$root"/boot/initrd.img-* "$out/initrd"
truncate -s "$disk_size" "$work/disk.raw"
mkfs.ext4 -q -F -L root -m 0 -E lazy_itable_init=1,nodiscard -d "$root" "$work/disk.raw"
qemu-img convert -q -O qcow2 "$work/disk.raw" "$out/disk.qcow2"
version() { chroot "$root" dpkg-query -W -f '${Version}' "$1"; }
printf '{"suite":"%s","cloud-init":"%s","systemd":"%s"}\n' "$suite" "$(version cloud-init)" "$(version systemd)" \
  >"$out/manifest.json"
