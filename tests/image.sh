#!/bin/sh
# Builds the image, runs it, and asks it over the published port. Starts a docker daemon by hand where none runs.
set -eu
sudo=$([ "$(id -u)" = 0 ] || echo sudo)
command -v dockerd >/dev/null || { $sudo apt-get update -qq; $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq docker.io; }
started=
log=$(mktemp)
trap 'docker rm -f skeindns-test >/dev/null 2>&1 || true; [ -z "$started" ] || $sudo kill "$started"; rm -f "$log"' EXIT
if ! docker info --format '{{.ServerVersion}}' 2>/dev/null | grep -q .; then
    $sudo dockerd --storage-driver=vfs > "$log" 2>&1 &
    started=$!
    for _ in $(seq 100); do
        docker info --format '{{.ServerVersion}}' 2>/dev/null | grep -q . && break
        kill -0 "$started" 2>/dev/null || { tail -5 "$log"; echo "image: dockerd does not run here"; exit 1; }
        sleep 0.2
    done
fi
make image
size=$(docker image inspect -f '{{.Size}}' skeindns)
echo "image: $size octets"
[ "$size" -le 20000000 ] || { echo "image: over 20 MB"; exit 1; }
docker run -d --name skeindns-test --read-only --cap-drop ALL -p 127.0.0.1::1053/udp -p 127.0.0.1::1053/tcp skeindns >/dev/null
udp=$(docker port skeindns-test 1053/udp | head -1 | sed 's/.*://')
tcp=$(docker port skeindns-test 1053/tcp | head -1 | sed 's/.*://')
for _ in $(seq 50); do
    dig @127.0.0.1 -p "$udp" +tries=1 +time=1 www.example.org A 2>/dev/null | grep -q 'status: NOERROR' && break
    sleep 0.1
done
dig @127.0.0.1 -p "$udp" www.example.org A | grep -q 'status: NOERROR'
dig @127.0.0.1 -p "$tcp" +tcp www.example.org A | grep -q 'status: NOERROR'
docker stop -t 10 skeindns-test >/dev/null
[ "$(docker inspect -f '{{.State.ExitCode}}' skeindns-test)" = 0 ]
echo "image: answered over the published port and stopped with exit code 0"
