#!/bin/sh
# The strict reverse path filter of nf_tables (fib saddr . iif oif missing drop) lets packets in by both NICs of a route by
# a nexthop group for IPv4, and for IPv6 by the one alone that the hash of the route chooses.
#
# Seen on: Linux 6.18.44, nftables 1.0.6. It is what firewalld lays for IPv6 by default (IPv6_rpfilter=yes), and what
# nft(8) has as its example of a reverse path filter.
#
# Output seen (neighbours reach one address on either NIC; how many depends on the kernel's hash seed):
#   IPv4: 20 of 20 neighbours reach eth0, 20 of 20 reach eth1
#   IPv6: 12 of 20 neighbours reach eth0, 10 of 20 reach eth1
#
# Run as root on Debian; needs iproute2, iputils-ping and nftables. Exits 0 while the kernel behaves so.
set -eu
node=find-$$-node switch=find-$$-switch peer=find-$$-peer
trap 'ip netns del $node; ip netns del $switch; ip netns del $peer' EXIT
for each in $node $switch $peer; do
    ip netns add $each
    ip netns exec $each sysctl -qw net.ipv6.conf.default.accept_dad=0
done
ip -n $switch link add name sw0 type bridge && ip -n $switch link set sw0 up
wire() { # a cable from eth$2 of $1 to the switch
    ip link add "eth$2" netns "$1" type veth peer name "$3" netns $switch
    ip -n $switch link set "$3" master sw0 up && ip -n "$1" link set "eth$2" up
}
wire $node 0 port0; wire $node 1 port1; wire $peer 0 port2
for k in $(seq 1 20); do
    ip -n $peer address add 198.18.9.$k/24 dev eth0
    ip -n $peer address add 2001:db8:9::$k/64 dev eth0
done
for n in 0 1; do
    ip netns exec $node sysctl -qw net.ipv4.conf.eth$n.arp_ignore=1 net.ipv4.conf.eth$n.rp_filter=2
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
ip netns exec $node nft -f - <<'N'
table inet filter {
    chain early {
        type filter hook prerouting priority -290
        icmp type echo-request fib saddr . iif oif missing drop
        icmpv6 type echo-request fib saddr . iif oif missing drop
    }
}
N
reach() { # how many neighbours with addresses $1 followed by 1 to 20 are answered by $2
    count=0
    for k in $(seq 1 20); do
        ip netns exec $peer ping -q -c 1 -W 1 -I "$1$k" "$2" >/dev/null 2>&1 && count=$((count + 1))
    done
    echo $count
}
four0=$(reach 198.18.9. 198.18.9.100) four1=$(reach 198.18.9. 198.18.9.101)
six0=$(reach 2001:db8:9:: 2001:db8:9::100) six1=$(reach 2001:db8:9:: 2001:db8:9::101)
echo "IPv4: $four0 of 20 neighbours reach eth0, $four1 of 20 reach eth1"
echo "IPv6: $six0 of 20 neighbours reach eth0, $six1 of 20 reach eth1"
[ "$four0" -eq 20 ] && [ "$four1" -eq 20 ] && [ $((six0 + six1)) -lt 40 ]
