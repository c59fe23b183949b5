# Puts on this disk what every machine needs and is not there: Docker and its plugins, git, curl, and the agent's program of
# one hash, which is not started here. A machine whose image has all of it asks no network for anything.
# $1 is the program's URL, $2 its SHA-256.
set -eu
url=$1 sha256=$2
step='look at what is there'
trap 'code=$?; [ $code = 0 ] || echo "stagely: could not $step" >/dev/console' EXIT

lacking=
tool() { command -v "$1" >/dev/null || lacking="$lacking $2"; }
plugin() {
  for root in /usr/local/lib /usr/local/libexec /usr/lib /usr/libexec; do
    [ ! -x "$root/docker/cli-plugins/docker-$1" ] || return 0
  done
  lacking="$lacking docker-$1"
}
tool dockerd 'docker.io crun'
tool docker docker-cli
plugin compose
plugin buildx
tool git git
tool curl curl
[ -e /etc/ssl/certs/ca-certificates.crt ] || lacking="$lacking ca-certificates"

if [ -n "$lacking" ]; then
  step="install$lacking"
  export DEBIAN_FRONTEND=noninteractive
  # This machine lives for hours: it is not upgraded, and nobody else holds apt's locks meanwhile.
  systemctl mask --now apt-daily.timer apt-daily-upgrade.timer apt-daily.service apt-daily-upgrade.service >/dev/null 2>&1 || true
  # Nobody reads manuals on it; their index takes longer than the packages.
  rm -f /var/lib/man-db/auto-update
  case $lacking in
    *docker.io*)
      if [ ! -e /etc/docker/daemon.json ]; then
        mkdir -p /etc/docker
        cat >/etc/docker/daemon.json <<'DAEMON'
{
  "log-opts": {"max-size": "10m", "max-file": "2"},
  "max-concurrent-uploads": 2,
  "userland-proxy": false,
  "default-runtime": "crun",
  "runtimes": {"crun": {"path": "/usr/bin/crun"}}
}
DAEMON
      fi ;;
  esac
  for try in 1 2 3 4 5; do
    # What is half installed after a cut is thrown away with the machine, so nothing waits for the disk.
    if apt-get -q -o APT::Update::Error-Mode=any -o Acquire::Languages=none update \
      && apt-get -q -o DPkg::Lock::Timeout=120 -o Dpkg::Options::=--force-unsafe-io -o Dpkg::Options::=--force-confold \
        install --yes --no-install-recommends $lacking; then
      lacking=
      break
    fi
    sleep 3
  done
  [ -z "$lacking" ]
fi

program=/usr/local/bin/stagely-agent
partial=$program.partial
step="install the agent's program of hash $sha256"
is_ours() { echo "$sha256  $1" | sha256sum --check --status 2>/dev/null; }
if ! is_ours $program; then
  rm -f $program
  for try in 1 2 3 4 5 6 7 8 9 10; do
    if curl --fail --silent --show-error --location --max-time 120 --output $partial -- "$url" && is_ours $partial; then
      chmod 755 $partial
      mv $partial $program
      break
    fi
    rm -f $partial
    sleep 3
  done
  [ -e $program ]
fi
