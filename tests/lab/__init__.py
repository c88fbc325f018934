"""The lab: topologies of network namespaces, faults, traffic meters and the agent as a process in them."""

from tests.lab.agent import Agent, group_manifest
from tests.lab.dump import KernelDump
from tests.lab.filters import Direction, Family
from tests.lab.namespaces import CommandFailedError, Namespace, remove_stale, with_own_sysfs
from tests.lab.ping import Outage, PingReport, PingTrain
from tests.lab.sniffer import Announcement, Form, Sniffer
from tests.lab.stream import Sender, StreamReport, TcpStream
from tests.lab.topology import Host, Lab, Nic, Switch, Uplink
from tests.lab.waiting import NotInTimeError, wait_for

__all__ = [
    "Agent",
    "Announcement",
    "CommandFailedError",
    "Direction",
    "Family",
    "Form",
    "Host",
    "KernelDump",
    "Lab",
    "Namespace",
    "Nic",
    "NotInTimeError",
    "Outage",
    "PingReport",
    "PingTrain",
    "Sender",
    "Sniffer",
    "StreamReport",
    "Switch",
    "TcpStream",
    "Uplink",
    "group_manifest",
    "remove_stale",
    "wait_for",
    "with_own_sysfs",
]
