#!/bin/sh
# The static binary alone in an empty folder that is its whole world: it starts, answers, and stops cleanly.
set -eu
cargo dist
binary=${CARGO_TARGET_DIR:-target}/x86_64-unknown-linux-gnu/release/skeindns
size=$(stat -c %s "$binary")
echo "static binary: $size octets"
[ "$size" -le 20000000 ] || { echo "static binary: over 20 MB"; exit 1; }
root=$(mktemp -d)
pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null || true; rm -rf "$root"' EXIT
chmod 755 "$root"
cp "$binary" "$root/skeindns"
printf '.:0 {\n    bind 127.0.0.1\n    errors\n    whoami\n}\n' > "$root/Dnsfile"
sudo=$([ "$(id -u)" = 0 ] || echo sudo)
: > "$root/log"
$sudo env -i "$(command -v chroot)" --userspec=65532:65532 "$root" /skeindns --conf /Dnsfile > "$root/log" 2>&1 &
pid=$!
port=
for _ in $(seq 100); do
    port=$(sed -n 's/^\.:\([0-9]*\) on 127\.0\.0\.1$/\1/p' "$root/log")
    [ -z "$port" ] || break
    kill -0 "$pid" 2>/dev/null || { cat "$root/log"; exit 1; }
    sleep 0.1
done
[ -n "$port" ] || { echo "static binary: no start-up line"; cat "$root/log"; exit 1; }
dig @127.0.0.1 -p "$port" +tries=3 www.example.org A | grep -q 'status: NOERROR'
dig @127.0.0.1 -p "$port" +tcp www.example.org A | grep -q 'status: NOERROR'
kill -TERM "$pid"
wait "$pid"
pid=
echo "static binary: answered in an empty chroot and stopped with exit code 0"
