#!/bin/sh
# arp_ignore=1 makes Linux answer nobody who asks by ARP for an address that has a peer.
#
# Seen on: Linux 6.18.44. net/ipv4/devinet.c, confirm_addr_indev: the address asked for is compared with the peer under
# the mask, not with the address itself, unless another address of the interface covers it.
# Documentation/networking/ip-sysctl.rst says of 1: "reply only if the target IP address is local address configured on
# the incoming interface", which it is.
#
# Output seen:
#   address 198.18.9.10/24                 arp_ignore=0: answered   arp_ignore=1: answered
#   address 198.18.9.10 peer 198.18.9.1/32 arp_ignore=0: answered   arp_ignore=1: silent
#   the same beside 198.18.9.11/24         arp_ignore=0: answered   arp_ignore=1: answered
#
# Run as root on Debian; needs iproute2 and iputils-arping. Exits 0 while the kernel behaves so.
set -eu
near=find-$$-near far=find-$$-far
trap 'ip netns del $near; ip netns del $far' EXIT
ip netns add $near && ip netns add $far
ip link add eth0 netns $near type veth peer name eth0 netns $far
ip -n $near link set eth0 up && ip -n $far link set eth0 up
ip -n $far address add 198.18.9.1/24 dev eth0
ip -n $near route add 198.18.9.1/32 dev eth0
asked() { # whether 198.18.9.10 is answered with arp_ignore=$1
    ip netns exec $near sysctl -qw net.ipv4.conf.eth0.arp_ignore="$1"
    if ip netns exec $far arping -q -c 3 -w 2 -f -I eth0 198.18.9.10 >/dev/null 2>&1; then echo answered; else echo silent; fi
}
told() { printf '%-38s arp_ignore=0: %-10s arp_ignore=1: %s\n' "$1" "$2" "$3"; }

ip -n $near address add 198.18.9.10/24 dev eth0
a0=$(asked 0) a1=$(asked 1); told 'address 198.18.9.10/24' "$a0" "$a1"
ip -n $near address flush dev eth0
ip -n $near route replace 198.18.9.1/32 dev eth0
ip -n $near address add 198.18.9.10 peer 198.18.9.1/32 dev eth0
b0=$(asked 0) b1=$(asked 1); told 'address 198.18.9.10 peer 198.18.9.1/32' "$b0" "$b1"
ip -n $near address add 198.18.9.11/24 dev eth0
c0=$(asked 0) c1=$(asked 1); told 'the same beside 198.18.9.11/24' "$c0" "$c1"
[ "$a0 $a1 $b0 $b1 $c0 $c1" = "answered answered answered silent answered answered" ]
