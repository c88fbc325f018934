"""The kernel's tables of multicast memberships."""

from __future__ import annotations

import sys
from ipaddress import ip_address

from ipmp_agent.linux.group.multicast import memberships


def number(group: str) -> str:
    """An IPv4 address as the kernel prints it: a number in the byte order of the host."""
    return f"{int.from_bytes(ip_address(group).packed, sys.byteorder):08X}"


IGMP = f"""Idx\tDevice    : Count Querier\tGroup    Users Timer\tReporter
1\tlo        :     1      V3
\t\t\t\t{number("224.0.0.1")}     1 0:00000000\t\t0
4\teth0      :     3      V3
\t\t\t\t{number("239.1.2.3")}     1 0:00000000\t\t0
\t\t\t\t{number("239.1.2.4")}     2 0:00000000\t\t0
\t\t\t\t{number("224.0.0.1")}     1 0:00000000\t\t0
12\tfifteen-letters:     1      V3
\t\t\t\t{number("239.5.5.5")}     1 0:00000000\t\t0
"""
IGMP6 = """1    lo              ff020000000000000000000000000001     1 0000000C 0
4    eth0            ff0200000000000000000001ff000001     2 00000004 0
4    eth0            ff020000000000000000000000000001     1 0000000C 0
4    eth0            ff010000000000000000000000000001     1 00000008 0
4    eth0            ff0200000000000000000000000000fb     1 00000004 0
"""


def test_what_every_interface_joins_by_itself_is_left_out() -> None:
    assert memberships(IGMP, IGMP6) == {
        "eth0": {ip_address(group) for group in ("239.1.2.3", "239.1.2.4", "ff02::fb")},
        "fifteen-letters": {ip_address("239.5.5.5")},
    }


def test_empty_tables_have_nothing() -> None:
    assert memberships("", "") == {}
