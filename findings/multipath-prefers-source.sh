#!/bin/sh
# A multipath route written as legs keeps all flows of one source address on the leg whose NIC has that address; a route
# by a nexthop group of the same NICs spreads them.
#
# Seen on: Linux 6.18.44. net/ipv4/fib_semantics.c, fib_select_multipath: of the legs of a route those are preferred whose
# device has the flow's source address (since 6.15); a nexthop group has its own selection, which does not look at it.
#
# Output seen (the second line depends on the kernel's random hash seed):
#   legs in the route:  64 of 64 flows from 198.18.9.101, which eth0 has, leave by eth0
#   a nexthop group:    30 of 64 flows from 198.18.9.101, which eth0 has, leave by eth0
#
# Run as root on Debian; needs iproute2. Exits 0 while the kernel behaves so.
set -eu
here=find-$$
trap 'ip netns del $here' EXIT
ip netns add $here
for n in 0 1; do
    ip -n $here link add eth$n type veth peer name far$n
    ip -n $here link set eth$n up && ip -n $here link set far$n up
    ip -n $here address add 198.18.9.10$((n + 1))/24 dev eth$n noprefixroute
done
sleep 1
by_first() {
    count=0
    for k in $(seq 1 64); do
        case $(ip -n $here route get 198.18.9.$k from 198.18.9.101) in *"dev eth0"*) count=$((count + 1)) ;; esac
    done
    echo $count
}
ip -n $here route add 198.18.9.0/24 nexthop dev eth0 nexthop dev eth1
legs=$(by_first)
ip -n $here nexthop add id 1 dev eth0 && ip -n $here nexthop add id 2 dev eth1 && ip -n $here nexthop add id 3 group 1/2
ip -n $here route replace 198.18.9.0/24 nhid 3
group=$(by_first)
echo "legs in the route:  $legs of 64 flows from 198.18.9.101, which eth0 has, leave by eth0"
echo "a nexthop group:    $group of 64 flows from 198.18.9.101, which eth0 has, leave by eth0"
[ "$legs" -eq 64 ] && [ "$group" -lt 64 ]
