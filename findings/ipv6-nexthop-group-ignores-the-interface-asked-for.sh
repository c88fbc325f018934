#!/bin/sh
# A lookup that names an interface (IPV6_PKTINFO, SO_BINDTODEVICE, `ip route get ... oif`) is answered by another leg where
# the IPv6 route is by a nexthop group: the hash of the flow chooses. IPv4 takes the leg that was asked for, and so does
# IPv6 where the legs are in the route.
#
# Seen on: Linux 6.18.44, iproute2 6.1.0. Found when neighbours were to be asked by each member of a group of NICs.
#
# Output seen (how many of IPv6 depends on the kernel's hash seed):
#   IPv4, nexthop group: 40 of 40 leave by the interface asked for
#   IPv6, legs in the route: 40 of 40 leave by the interface asked for
#   IPv6, nexthop group: 20 of 40 leave by the interface asked for
#
# Run as root on Debian; needs iproute2. Exits 0 while the kernel behaves so.
set -eu
node=find-$$-node peer=find-$$-peer
trap 'ip netns del $node; ip netns del $peer' EXIT
ip netns add $node
ip netns add $peer
ip netns exec $node sysctl -qw net.ipv6.conf.default.accept_dad=0
for n in 0 1; do
    ip link add eth$n netns $node type veth peer name eth$n netns $peer
    ip -n $peer link set eth$n up
    ip -n $node link set eth$n up
    ip -n $node address add 198.18.9.10$n/24 dev eth$n noprefixroute
    ip -n $node address add 2001:db8:9::10$n/64 dev eth$n noprefixroute
done
sleep 2
for v in 4 6; do
    ip -n $node -$v nexthop add id ${v}1 dev eth0 && ip -n $node -$v nexthop add id ${v}2 dev eth1
    ip -n $node nexthop add id ${v}3 group ${v}1/${v}2
done
ip -n $node route add 198.18.9.0/24 nhid 43
ip -n $node -6 route add 2001:db8:9::/64 nhid 63
ip -n $node -6 route add 2001:db8:8::/64 nexthop via fe80::1 dev eth0 nexthop via fe80::1 dev eth1
asked() { # how many of 20 addresses $1 are reached by the interface asked for, of both
    count=0
    for k in $(seq 1 20); do
        for n in 0 1; do
            ip -n $node route get "$1$k" oif eth$n | grep -q " dev eth$n " && count=$((count + 1))
        done
    done
    echo $count
}
four=$(asked 198.18.9.) legs=$(asked 2001:db8:8::) group=$(asked 2001:db8:9::)
echo "IPv4, nexthop group: $four of 40 leave by the interface asked for"
echo "IPv6, legs in the route: $legs of 40 leave by the interface asked for"
echo "IPv6, nexthop group: $group of 40 leave by the interface asked for"
[ "$four" -eq 40 ] && [ "$legs" -eq 40 ] && [ "$group" -lt 40 ]
