#!/bin/sh
# Linux takes a route over two devices without gateways for IPv4, and refuses it for IPv6 unless it is made of nexthop
# objects.
#
# Seen on: Linux 6.18.44, iproute2 6.1.0. net/ipv6/route.c, ip6_route_multipath_add.
#
# Output seen:
#   IPv4, two devices:                    taken
#   IPv6, two devices:                    refused: Device only routes can not be added for IPv6 using the multipath API.
#   IPv6, two devices as a nexthop group: taken
#
# Run as root on Debian; needs iproute2. Exits 0 while the kernel behaves so.
set -u
here=find-$$
trap 'ip netns del $here' EXIT
ip netns add $here
for n in 0 1; do
    ip -n $here link add eth$n type veth peer name far$n
    ip -n $here link set eth$n up && ip -n $here link set far$n up
done
sleep 1
attempt() { # does it, and says what came of it
    if words=$(ip -n $here "$@" 2>&1); then echo taken; else echo "refused: $(echo "$words" | sed -n 's/^Error: //p')"; fi
}
four=$(attempt route add 198.18.9.0/24 nexthop dev eth0 nexthop dev eth1)
six=$(attempt -6 route add 2001:db8:9::/64 nexthop dev eth0 nexthop dev eth1)
ip -n $here -6 nexthop add id 1 dev eth0 && ip -n $here -6 nexthop add id 2 dev eth1 && ip -n $here nexthop add id 3 group 1/2
group=$(attempt -6 route add 2001:db8:9::/64 nhid 3)
echo "IPv4, two devices:                    $four"
echo "IPv6, two devices:                    $six"
echo "IPv6, two devices as a nexthop group: $group"
[ "$four" = taken ] && [ "$group" = taken ] && case $six in refused:*Device\ only*) ;; *) exit 1 ;; esac
