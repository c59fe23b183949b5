# Forgets what makes this machine itself, so that each copy of its disk has a first boot of its own, and ends it.
set -eu
step='stop Docker'
trap 'code=$?; [ $code = 0 ] || echo "stagely: bake failed: $step" >/dev/console' EXIT
systemctl stop docker.socket docker.service containerd.service
rm -f /var/lib/docker/engine-id /etc/docker/key.json

step='clean after cloud-init'
cloud-init clean --logs --seed --configs all

step='forget names, keys and logs'
# Empty rather than "uninitialized", which would have systemd enable every unit there is.
: >/etc/machine-id
: >/etc/hostname
[ -L /var/lib/dbus/machine-id ] || rm -f /var/lib/dbus/machine-id
rm -f /etc/ssh/ssh_host_* /var/lib/systemd/random-seed /var/lib/systemd/credential.secret
# Providers let the owner in with a key or a password of the first boot.
usermod --password '*' root
rm -rf /root/.ssh /root/.cache /root/.docker /root/.*_history /home/*/.ssh /home/*/.*_history
apt-get clean
rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /tmp/* /var/tmp/* /etc/stagely /var/lib/stagely
rm -f /usr/local/sbin/stagely-* /etc/systemd/system/stagely-generalise.service
journalctl --relinquish-var
rm -rf /var/log/journal/*
find /var/log -type f -delete

step='end'
sync
echo 'stagely: bake done' >/dev/console
systemctl poweroff
