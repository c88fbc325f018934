#!/bin/sh
# With arp_filter=1 and a route by a nexthop group over two NICs of one link, Linux leaves part of the neighbours
# without any answer.
#
# Seen on: Linux 6.18.44. net/ipv4/arp.c, arp_filter: the request is dropped if the route back to the asker, chosen by
# the hash of the two addresses, leaves by another NIC; on that NIC arp_ignore=1 drops it, for the address is not there.
# Documentation/networking/ip-sysctl.rst recommends arp_filter for hosts with several NICs on one subnet.
#
# Output seen (which neighbours are left out depends on the kernel's random hash seed):
#   arp_filter=0: 20 of 20 neighbours are answered
#   arp_filter=1: 9 of 20 neighbours are answered
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
for k in $(seq 1 20); do ip -n $peer address add 198.18.9.$k/24 dev eth0; done
sleep 1
setting() { for n in 0 1; do ip netns exec $node sysctl -qw net.ipv4.conf.eth$n."$1"; done; }
setting arp_ignore=1; setting rp_filter=2
ip -n $node address add 198.18.9.101/24 dev eth0 noprefixroute
ip -n $node address add 198.18.9.102/24 dev eth1 noprefixroute
ip -n $node nexthop add id 1 dev eth0 && ip -n $node nexthop add id 2 dev eth1 && ip -n $node nexthop add id 3 group 1/2
ip -n $node route add 198.18.9.0/24 nhid 3
answered() {
    setting arp_filter="$1"; count=0
    for k in $(seq 1 20); do
        ip netns exec $peer arping -q -c 2 -w 1 -f -I eth0 -s 198.18.9.$k 198.18.9.101 >/dev/null 2>&1 && count=$((count + 1))
    done
    echo $count
}
without=$(answered 0) with=$(answered 1)
echo "arp_filter=0: $without of 20 neighbours are answered"
echo "arp_filter=1: $with of 20 neighbours are answered"
[ "$without" -eq 20 ] && [ "$with" -lt 20 ]
