#!/usr/bin/env bash
# Nexthop objects of another program are deleted, and zebra lays them anew as its own, under the same numbers.
#
# Version: FRR 8.4.4 of Debian 12 (package frr), Linux 6.18, iproute2 6.1.
# Behaviour: zebra remembers the nexthop objects that the kernel tells it of, whosever they are. When those that a route
#   uses are deleted, by `ip nexthop flush` say, it lays them again with its own protocol, and leaves them when it ends.
# Seen: before "id 1000 dev nic0 scope link proto 73", after the flush "id 1000 dev nic0 scope link proto zebra", the same
#   after the end of zebra; with `no zebra nexthop kernel enable` nothing after the flush.
# Consequence here: numbers that zebra has taken are not used again, for its objects are not ours; the routes move to
#   other numbers. The option keeps zebra off (docs/host.md).
#
# Needs root, iproute2 and frr; works in a network namespace of its own. Exits 1 if this changes.
set -euo pipefail
[ -x /usr/lib/frr/zebra ] || { echo "install frr first (apt-get install frr)"; exit 2; }
exec unshare --net bash -euo pipefail -c '
directory=$(mktemp -d)
ip link set lo up
for nic in nic0 nic1; do ip link add $nic type veth peer name p$nic; ip link set $nic up; ip link set p$nic up; done
ip address add 2001:db8::10/64 dev nic0 nodad
flushed_under() {
    echo "$1" > "$directory/zebra.conf"; chown -R frr:frr "$directory"
    ip -6 nexthop add id 1000 dev nic0 protocol 73
    ip -6 nexthop add id 1001 dev nic1 protocol 73
    ip nexthop add id 1010 group 1000/1001 protocol 73
    ip -6 route add 2001:db8:9::/64 nhid 1010 table 73 protocol 73
    /usr/lib/frr/zebra -f "$directory/zebra.conf" -i "$directory/pid" -z "$directory/zserv" \
        --vty_socket "$directory" -P 0 --log stdout > /dev/null 2>&1 &
    zebra=$!
    sleep 2
    ip nexthop flush > /dev/null 2>&1 || true
    sleep 2
    ip nexthop show id 1000 2>/dev/null || echo "nothing"
    kill $zebra; wait $zebra || true
}
default=$(flushed_under "!")
echo "as zebra is: $default"
sleep 1
left=$(ip nexthop show id 1000 2>/dev/null || echo "nothing")
echo "after its end: $left"
ip nexthop flush > /dev/null 2>&1 || true
told=$(flushed_under "no zebra nexthop kernel enable")
echo "with no zebra nexthop kernel enable: $told"
rm -r "$directory"
[[ $default == *"proto zebra"* && $left == *"proto zebra"* && $told == nothing ]] || { echo "this changed"; exit 1; }
'
