# What tests/deb.sh runs in the copy of the machine.
ip link set lo up
cd /
say() { echo "packages: $*"; }
fail() { say "$*"; cat /packages/*.log; exit 1; }
until_true() {
    for _ in $(seq 100); do
        ! "$@" > /dev/null 2>&1 || return 0
        sleep 0.1
    done
    fail "waited too long for: $*"
}
answers() { dig @127.0.0.1 +tries=1 +time=2 +short "$1" A | grep -qx "$2"; }
is_gone() { ! dig @127.0.0.1 +tries=1 +time=2 +short "$1" A | grep -q .; }

dpkg -i /packages/skeindns_*.deb /packages/skeindns-register_*.deb
[ "$(stat -c %U /etc/skeindns/Dnsfile)" = root ]
id skeindns > /dev/null

# Not a word from systemd about the units.
verified=$(systemd-analyze verify /usr/lib/systemd/system/skeindns*.service 2>&1 | grep -i skein || true)
[ -z "$verified" ] || fail "$verified"
for unit in skeindns skeindns-skydns skeindns-register; do
    systemctl is-enabled "$unit" > /packages/enabled.log || true
    grep -qx disabled /packages/enabled.log || fail "$unit is enabled by being installed"
done

# A setting of a unit, and its command line as its user with the capabilities that it is given.
setting() { sed -n "s/^$2=//p" "/usr/lib/systemd/system/$1.service"; }
run() {
    unit=$1
    user=$(setting "$unit" User)
    capabilities=$(setting "$unit" AmbientCapabilities | tr A-Z a-z | sed 's/cap_/+/')
    # A unit with DynamicUser has nobody's rights.
    user=${user:-nobody}
    directory=$(setting "$unit" StateDirectory)
    [ -z "$directory" ] || install -d -o "$user" -g "$user" -m "$(setting "$unit" StateDirectoryMode)" "/var/lib/$directory"
    # shellcheck disable=SC2046
    (cd "${directory:+/var/lib/$directory}" && exec setpriv --reuid "$user" --regid "$(id -g "$user")" --init-groups --no-new-privs \
        --bounding-set "-all${capabilities:+,$capabilities}" --inh-caps "-all${capabilities:+,$capabilities}" \
        ${capabilities:+--ambient-caps "$capabilities"} $(setting "$unit" ExecStart)) > "/packages/$unit.log" 2>&1 &
}
reload() {
    # shellcheck disable=SC2086
    MAINPID=$2 sh -c "$(setting "$1" ExecReload)"
}

printf 'nameserver 192.0.2.53\n' > /packages/resolv.conf
sed -i 's|/etc/resolv.conf|/packages/resolv.conf|' /etc/skeindns/Dnsfile
skeindns check --conf /etc/skeindns/Dnsfile > /packages/check.log 2>&1 || fail "the Dnsfile of the package is wrong"
run skeindns
server=$!
until_true curl -sf 127.0.0.1:8181/ready
[ "$(ps -o user= -p "$server")" = skeindns ] || fail "it runs as another user"
skeindns service put node1.skydns.local --host 192.0.2.11
until_true answers node1.skydns.local 192.0.2.11
say "serves on port 53 as $(ps -o user= -p "$server")"

# A reload takes a change over, and one that is wrong changes nothing.
sed -i 's|etcd skydns.local|etcd skydns.local example.org|' /etc/skeindns/Dnsfile
reload skeindns "$server"
skeindns service put node2.example.org --host 192.0.2.12
until_true answers node2.example.org 192.0.2.12
cp /etc/skeindns/Dnsfile /packages/Dnsfile
echo 'no such thing {' >> /etc/skeindns/Dnsfile
reload skeindns "$server"
until_true grep -q ERROR /packages/skeindns.log
answers node1.skydns.local 192.0.2.11 || fail "a wrong Dnsfile changes answers"
cp /packages/Dnsfile /etc/skeindns/Dnsfile
say "reloads"

# The agent, with an address to register.
ip link add eth7 type veth peer name eth8
ip addr add 192.0.2.77/24 dev eth7
ip link set eth7 up; ip link set eth8 up
hostname agent7
run skeindns-register
agent=$!
until_true answers agent7.skydns.local 192.0.2.77
kill -TERM "$agent"
wait "$agent" || fail "the agent does not stop cleanly"
until_true is_gone agent7.skydns.local
say "the agent registers and takes its records away"

# An upgrade keeps the operator's Dnsfile, and what is served.
dpkg -i /packages/skeindns_*.deb > /packages/upgrade.log 2>&1
grep -q example.org /etc/skeindns/Dnsfile || fail "an upgrade forgets the Dnsfile"
kill -TERM "$server"
wait "$server" || fail "the server does not stop cleanly"

# SkyDNS's place: etcd is a real one here.
etcd --data-dir /packages/etcd > /packages/etcd.log 2>&1 &
etcd=$!
export ETCDCTL_API=3
until_true etcdctl put /skydns/local/skydns/node3 '{"host":"192.0.2.13"}'
export ETCD_MACHINES=http://127.0.0.1:2379
run skeindns-skydns
server=$!
until_true answers node3.skydns.local 192.0.2.13
kill -TERM "$server"
wait "$server" || fail "SkyDNS's heir does not stop cleanly"
kill "$etcd"
say "serves as SkyDNS did"

dpkg -r skeindns-register skeindns > /packages/remove.log
[ -e /etc/skeindns/Dnsfile ] && [ -e /var/lib/skeindns/store ] || fail "a removal forgets what purge would"
dpkg -P skeindns-register skeindns > /packages/purge.log
! [ -e /etc/skeindns ] || fail "purge leaves $(find /etc/skeindns)"
