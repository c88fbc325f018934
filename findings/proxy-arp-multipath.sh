#!/bin/sh
# With proxy_arp=1 and forwarding, a host with two NICs on one link answers ARP for addresses of that very link.
#
# Seen on: Linux 6.18.44. net/ipv4/arp.c, arp_fwd_proxy: the host does not answer for what its route reaches by the NIC
# that the question came in by. With a route over both NICs of the link every second address is reached by the other
# one. Neighbours that ask for a free address, as duplicate address detection does in its second form, are told that it
# is taken; those that ask for a host that is slow to answer get the wrong MAC address.
#
# Output seen (the count depends on the kernel's random hash seed):
#   proxy_arp=0: 0 of 20 free addresses of the link are answered for
#   proxy_arp=1: 20 of 20 free addresses of the link are answered for
#
# Run as root on Debian; needs iproute2 and iputils-arping. Exits 0 while the kernel behaves so.
set -eu
node=find-$$-node switch=find-$$-switch peer=find-$$-peer
trap 'ip netns del $node; ip netns del $switch; ip netns del $peer' EXIT
for each in $node $switch $peer; do ip netns add $each; done
ip -n $switch link add name sw0 type bridge && ip -n $switch link set sw0 up
wire() { # a cable from eth$2 of $1 to the switch
    ip link add "eth$2" netns "$1" type veth peer name "$3" netns $switch
    ip -n $switch link set "$3" master sw0 up && ip -n "$1" link set "eth$2" up
}
wire $node 0 port0; wire $node 1 port1; wire $peer 0 port2
ip -n $peer address add 198.18.9.1/24 dev eth0
sleep 1
setting() { for n in 0 1; do ip netns exec $node sysctl -qw net.ipv4.conf.eth$n."$1"; done; }
setting arp_ignore=1; setting rp_filter=2
ip netns exec $node sysctl -qw net.ipv4.ip_forward=1
ip -n $node address add 198.18.9.101/24 dev eth0 noprefixroute
ip -n $node address add 198.18.9.102/24 dev eth1 noprefixroute
ip -n $node route add 198.18.9.0/24 nexthop dev eth0 nexthop dev eth1
answered() {
    setting proxy_arp="$1"; count=0
    for k in $(seq 201 220); do
        ip netns exec $peer arping -q -c 2 -w 2 -f -I eth0 -s 198.18.9.1 198.18.9.$k >/dev/null 2>&1 && count=$((count + 1))
    done
    echo $count
}
without=$(answered 0) with=$(answered 1)
echo "proxy_arp=0: $without of 20 free addresses of the link are answered for"
echo "proxy_arp=1: $with of 20 free addresses of the link are answered for"
[ "$without" -eq 0 ] && [ "$with" -gt 0 ]
