#!/bin/sh
# The machines of the walkthrough on one machine: `lab.sh up`, `lab.sh down`. Root.
#
#   10.10.10.201 to 205   five members of etcd        addresses of a bridge here
#   10.10.10.214          the DNS server              address of the bridge
#   10.10.10.253          a name server outside       address of the bridge; NSD with example.com
#   10.10.10.31, .32      web1 and web2               network namespaces behind the bridge
set -eu
folder=${SKYDNS_LAB:-/run/skydns-lab}
case ${1:-} in
up)
    mkdir -p "$folder"
    ip link add skein0 type bridge
    ip link set skein0 up
    for last in 201 202 203 204 205 214 253; do
        ip address add "10.10.10.$last/24" dev skein0
    done
    ip address add 2001:db8:10::1/64 dev skein0 nodad
    for host in 1 2; do
        ip netns add "web$host"
        ip link add "skein-web$host" type veth peer name eth0 netns "web$host"
        ip link set "skein-web$host" master skein0 up
        ip -n "web$host" link set lo up
        ip -n "web$host" link set eth0 up
        ip -n "web$host" address add "10.10.10.3$host/24" dev eth0
        ip -n "web$host" address add "2001:db8:10::3$host/64" dev eth0 nodad
    done
    cat >"$folder/example.com" <<'EOF'
$ORIGIN example.com.
$TTL 300
@ SOA ns admin 1 7200 900 1209600 300
@ NS ns
ns A 10.10.10.253
www A 192.0.2.80
EOF
    cat >"$folder/nsd.conf" <<EOF
server:
  ip-address: 10.10.10.253
  username: ""
  zonesdir: "$folder"
  database: ""
  pidfile: "$folder/nsd.pid"
  zonelistfile: "$folder/nsd.zones"
  xfrdfile: "$folder/nsd.xfrd"
  xfrdir: "$folder"
remote-control:
  control-enable: no
zone:
  name: example.com
  zonefile: example.com
EOF
    nsd -c "$folder/nsd.conf" 2>"$folder/nsd.log"
    ;;
down)
    ip netns delete web1 || true
    ip netns delete web2 || true
    ip link delete skein0 || true
    find "$folder" -mindepth 1 -delete
    ;;
*)
    echo "usage: lab.sh up|down" >&2
    exit 2
    ;;
esac
