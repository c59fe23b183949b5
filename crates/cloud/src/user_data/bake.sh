# Makes this disk one that many machines can start from: what each of them needs, and the images that most of them pull.
# $1 is the URL of the agent's program, $2 its SHA-256, the rest are images. If all went well, what makes this machine itself is
# forgotten and it ends; else it says what went wrong and stays until its deadline, so that no image is made of it.
set -eu
step='install what machines need'
trap 'code=$?; [ $code = 0 ] || echo "stagely: bake failed: $step" >/dev/console' EXIT
sh /usr/local/sbin/stagely-install "$1" "$2"
shift 2

step='wait for Docker'
for try in $(seq 60); do
  ! docker info >/dev/null 2>&1 || break
  sleep 2
done
docker info >/dev/null
for image; do
  step="pull $image"
  for try in 1 2 3; do
    ! docker pull --quiet -- "$image" || break
    sleep 3
  done
  docker image inspect -- "$image" >/dev/null
done

# The rest is done once cloud-init has written the last of its own files.
step='go on after the first boot'
systemctl start --no-block stagely-generalise.service
