#!/bin/sh
# A packet socket that is bound to an interface and to ETH_P_ARP hears the ARP of every VLAN that comes in by that
# interface and has no device there, with the tag taken off. Nothing in the frame tells it from ARP of the interface's
# own link: only the packet type does (PACKET_OTHERHOST, although it is a broadcast), which SOCK_RAW readers commonly do
# not look at. So on a trunk port a monitor of ARP takes an address of another VLAN for one of its own link.
#
# Seen on: Linux 6.18.44, Python 3.11.2, iproute2 6.1.0.
# Output seen: untagged: type 1 (broadcast), VLAN 100: type 3 (another host's), VLAN 0: type 1; all with EtherType 0x0806.
#
# Needs root, iproute2, python3. Exits 0 while the behaviour is as described.
set -eu
exec unshare --net python3 - <<'END'
import socket
import struct
import subprocess
import sys

for words in ("link add near type veth peer name far", "link set near up", "link set far up"):
    subprocess.run(["ip", *words.split()], check=True)
hearing = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
hearing.bind(("near", 0x0806))
hearing.settimeout(5)
sending = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
sending.bind(("far", 0))

MAC, ADDRESS = bytes.fromhex("02000000aa01"), socket.inet_aton("198.18.0.9")
ARP = struct.pack("!HHBBH6s4s6s4s", 1, 0x0800, 6, 4, 1, MAC, ADDRESS, bytes(6), ADDRESS)
seen = {}
for name, tag in (("untagged", b""), ("VLAN 100", struct.pack("!HH", 0x8100, 100)), ("VLAN 0", struct.pack("!HH", 0x8100, 0))):
    sending.send(b"\xff" * 6 + MAC + tag + b"\x08\x06" + ARP)
    while True:
        frame, (_, _, kind, _, _) = hearing.recvfrom(2048)
        if frame[6:12] == MAC:
            break
    seen[name] = kind, frame[12:14].hex(), frame[14 : 14 + len(ARP)] == ARP
    print(name, "-> packet type", kind, "EtherType", frame[12:14].hex())
expected = {"untagged": (1, "0806", True), "VLAN 100": (3, "0806", True), "VLAN 0": (1, "0806", True)}
sys.exit(seen != expected)
END
