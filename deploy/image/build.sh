#!/usr/bin/env bash
# Builds the machine image for the `qemu` provider from Debian's packages:
#   build.sh OUT_DIR
# makes OUT_DIR/{disk.qcow2,vmlinuz,initrd,manifest.json}. Run by `cargo xtask image`, which skips it when its
# inputs have not changed. Needs root, mmdebstrap, e2fsprogs and qemu-utils.
set -euo pipefail

out=$1
suite=trixie
disk_size=12G

# The mirror is the one that this machine's own apt uses.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -E '/debian/?$' | head -n 1)
[ -n "$mirror" ] || { echo "build.sh: apt names no Debian mirror: add one to /etc/apt/sources.list" >&2; exit 1; }

packages=(
  linux-image-cloud-amd64 systemd-sysv udev dbus cloud-init netbase iproute2 ca-certificates curl
  docker.io docker-cli docker-compose docker-buildx crun git openssh-client e2fsprogs iptables procps
)

work=$(mktemp -d "${TMPDIR:-/tmp}/stagely-image.XXXXXX")
trap 'rm -rf "$work"' EXIT
root=$work/root

# Bookworm's keyring also holds trixie's keys once it is up to date; what apt trusts is what we trust.
mmdebstrap --mode=root --variant=minbase --include="$(IFS=,; echo "${packages[*]}")" \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
  --dpkgopt='path-exclude=/usr/share/locale/*' --aptopt='Acquire::Languages "none"' \
  --aptopt='APT::Install-Recommends "false"' \
  "$suite" "$root" "deb $mirror $suite main"

# What boots: serial console, DHCP, cloud-init with the seed disk only.
cat >"$root/etc/fstab" <<'FSTAB'
/dev/vda / ext4 defaults,noatime,discard 0 1
tmpfs /tmp tmpfs mode=1777,nosuid,nodev 0 0
FSTAB
echo stagely >"$root/etc/hostname"
mkdir -p "$root/etc/systemd/network" "$root/etc/cloud/cloud.cfg.d" "$root/var/lib/stagely"
cat >"$root/etc/systemd/network/10-dhcp.network" <<'NETWORK'
[Match]
Name=en* eth*
[Network]
DHCP=ipv4
LinkLocalAddressing=no
IPv6AcceptRA=no
[DHCPv4]
UseDomains=no
NETWORK
cat >"$root/etc/cloud/cloud.cfg.d/99-stagely.cfg" <<'CLOUD'
datasource_list: [NoCloud, None]
network: {config: disabled}
manage_etc_hosts: false
ssh_deletekeys: false
ssh_genkeytypes: []
disable_root: true
system_info: {default_user: null}
users: []
cloud_init_modules: [seed_random, bootcmd, write_files]
cloud_config_modules: []
cloud_final_modules: [runcmd, scripts_user]
CLOUD
# User mode networking answers names at this address; a machine with another resolver gets it by DHCP.
echo 'nameserver 10.0.2.3' >"$root/etc/resolv.conf"
mkdir -p "$root/etc/docker"
# Starting a container is most of a redeploy. crun starts one in a fraction of runc's time, and published ports are
# forwarded by the kernel rather than by a process for each.
cat >"$root/etc/docker/daemon.json" <<'DAEMON'
{
  "log-opts": {"max-size": "10m", "max-file": "2"},
  "max-concurrent-uploads": 2,
  "userland-proxy": false,
  "default-runtime": "crun",
  "runtimes": {"crun": {"path": "/usr/bin/crun"}}
}
DAEMON
# BuildKit checks in vain for these on a host without swap accounting; quiet and quick beats complete.
chroot "$root" systemctl enable systemd-networkd docker.service >/dev/null 2>&1
chroot "$root" systemctl mask --quiet apt-daily.timer apt-daily-upgrade.timer e2scrub_all.timer fstrim.timer \
  dpkg-db-backup.timer systemd-networkd-wait-online.service getty@tty1.service systemd-timesyncd.service \
  e2scrub_reap.service systemd-pcrphase.service cloud-init-hotplugd.socket >/dev/null 2>&1 || true
rm -f "$root/etc/machine-id" && : >"$root/etc/machine-id"
rm -rf "$root/var/cache/apt" "$root/var/lib/apt/lists" "$root/var/log"/*.log "$root/boot"/config-* "$root/boot"/System.map-*
mkdir -p "$root/var/cache/apt/archives/partial" "$root/var/lib/apt/lists/partial"

mkdir -p "$out"
cp "$root"/boot/vmlinuz-* "$out/vmlinuz"
cp "$root"/boot/initrd.img-* "$out/initrd"
rm -f "$root"/boot/vmlinuz-* "$root"/boot/initrd.img-* "$root"/vmlinuz* "$root"/initrd.img*

truncate -s "$disk_size" "$work/disk.raw"
mkfs.ext4 -q -F -L root -m 0 -O ^has_journal,^metadata_csum -E lazy_itable_init=1,nodiscard -d "$root" "$work/disk.raw"
qemu-img convert -q -O qcow2 "$work/disk.raw" "$out/disk.qcow2"

docker=$(chroot "$root" dpkg-query -W -f '${Version}' docker.io)
compose=$(chroot "$root" dpkg-query -W -f '${Version}' docker-compose)
kernel=$(chroot "$root" dpkg-query -W -f '${Version}' linux-image-cloud-amd64)
printf '{"suite":"%s","docker":"%s","compose":"%s","kernel":"%s"}\n' "$suite" "$docker" "$compose" "$kernel" \
  >"$out/manifest.json"
