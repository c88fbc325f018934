#!/usr/bin/env bash
# With arp_ignore=1 a host answers no ARP request for an own address that has a peer.
#
# Version: Linux 6.18, iproute2 6.1 of Debian 12.
# Behaviour: ip-sysctl.rst says of arp_ignore 1 "reply only if the target IP address is local address configured on the
#   incoming interface". 198.18.0.10 is configured there, but with `peer 198.18.0.1` the kernel compares the target with
#   the peer under the mask (inet_confirm_addr), and is silent. With arp_ignore=0 it answers.
# Seen: "arp_ignore=0: answers", "arp_ignore=1: silent", and "arp_ignore=1 without a peer: answers".
# Consequence here: an interface on which an address has a peer is no member (linux/group/fitness.py).
#
# Needs root, iproute2 and python3; works in network namespaces of its own. Exits 1 if this changes.
set -euo pipefail
exec unshare --net --mount bash -euo pipefail -c '
mount -t tmpfs tmpfs /run
ip netns add asking
ip link add nic type veth peer name wire netns asking
ip link set nic up
ip -n asking link set wire up
ip -n asking address add 198.18.0.1/24 dev wire
answers() {
    ip -n asking neigh flush dev wire
    ip netns exec asking python3 - <<P
import socket, subprocess, time
socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("198.18.0.10", 9))
end = time.monotonic() + 1.5
while time.monotonic() < end:
    if "lladdr" in subprocess.run(["ip", "neigh", "show", "198.18.0.10"], capture_output=True, text=True).stdout:
        print("answers")
        break
    time.sleep(0.05)
else:
    print("silent")
P
}
check() {
    found=$(answers)
    echo "$1: $found"
    [ "$found" = "$2" ]
}
ip address add 198.18.0.10 peer 198.18.0.1/32 dev nic
echo 0 > /proc/sys/net/ipv4/conf/nic/arp_ignore
check "arp_ignore=0" answers
echo 1 > /proc/sys/net/ipv4/conf/nic/arp_ignore
check "arp_ignore=1" silent
ip address del 198.18.0.10 peer 198.18.0.1/32 dev nic
ip address add 198.18.0.10/32 dev nic
ip route add 198.18.0.1/32 dev nic
check "arp_ignore=1 without a peer" answers
'
