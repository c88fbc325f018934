#!/usr/bin/env bash
# An address moves from nic0 to nic1, and zebra goes on to say that its prefix is directly connected by nic0.
#
# Version: FRR 8.4.4 of Debian 12 (package frr), Linux 6.18.
# Behaviour: an address is added to nic1 with the prefix that nic0 has, as whoever moves addresses does first; zebra knows
#   both. When the address leaves nic0, zebra forgets the entry of nic1 and keeps that of nic0, which has no address any
#   more. What it resolves by that prefix stays with nic0. A static route that the kernel then drops with the carrier of
#   nic0 zebra takes for installed, and does not lay again.
# Seen: "C>* 192.0.2.0/24 is directly connected, nic0" after `ip address show nic0` has no IPv4 address.
# Consequence here: a twin of ours follows the route while its member is out, and 5 s after. Where members have several
#   addresses of one prefix a route of zebra's may be missing after an outage until zebra is told anew.
#
# Needs root, iproute2 and frr; works in a network namespace of its own. Exits 1 if this changes.
set -euo pipefail
[ -x /usr/lib/frr/zebra ] || { echo "install frr first (apt-get install frr)"; exit 2; }
exec unshare --net bash -euo pipefail -c '
directory=$(mktemp -d); : > "$directory/zebra.conf"; chown -R frr:frr "$directory"
ip link set lo up
for nic in nic0 nic1; do ip link add $nic type veth peer name p$nic; ip link set $nic up; ip link set p$nic up; done
ip address add 192.0.2.10/24 dev nic0
/usr/lib/frr/zebra -f "$directory/zebra.conf" -i "$directory/pid" -z "$directory/zserv" --vty_socket "$directory" \
    -P 0 --log stdout > /dev/null 2>&1 &
zebra=$!
connected() { vtysh --vty_socket "$directory" -d zebra -c "show ip route" | grep "^C[> ][* ]" || echo "nothing"; }
sleep 2
echo "at rest:"; connected
ip address add 192.0.2.10/24 dev nic1; sleep 1
echo "added to nic1:"; connected
ip address del 192.0.2.10/24 dev nic0; sleep 1
left=$(connected)
echo "taken off nic0:"; echo "$left"; ip -br -4 address show
kill $zebra; wait $zebra || true; rm -r "$directory"
[[ $left == *nic0* && $left != *nic1* ]] || { echo "this changed"; exit 1; }
'
