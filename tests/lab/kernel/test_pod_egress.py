"""podEgress in a real kernel: the table is what is meant, is repaired, follows no move, and goes."""

from __future__ import annotations

import errno
import itertools
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from ipaddress import ip_interface, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from ipmp_agent.core.actions import Move, MoveAddresses
from ipmp_agent.core.reasons import Reason
from ipmp_agent.linux.group.pod_egress import RETRY_FIRST, WATCH
from ipmp_agent.linux.messages.nftables import ChangedMeanwhileError, Nftables
from ipmp_api.types import DeletionPolicy, Mode
from tests.lab import wait_for
from tests.lab.kernel.running import GROUP, kernel_group, where
from tests.lab.kernel.tables import TABLE, owned_table, tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.lab import Lab
    from tests.lab.kernel.running import RunningKernel

V4, V6 = ip_interface("198.18.0.10/32"), ip_interface("2001:db8:0:1::10/128")
PODS = (ip_network("198.19.0.0/20"), ip_network("2001:db8:0:99::/64"))
EXPECTED = """\
table inet ipmp-data {
	chain pods {
		ip saddr 198.18.0.10 snat ip to 198.18.0.10
		ip6 saddr 2001:db8:0:1::10 snat ip6 to 2001:db8:0:1::10
		ip daddr 198.19.0.0/20 return
		ip6 daddr 2001:db8:0:99::/64 return
		ip saddr 198.19.0.0/20 snat ip to 198.18.0.10
		ip6 saddr 2001:db8:0:99::/64 snat ip6 to 2001:db8:0:1::10
	}

	chain postrouting {
		type nat hook postrouting priority srcnat - 10; policy accept;
		oifname "nic0" jump pods
		oifname "nic1" jump pods
	}
}
"""

_CHAINS = EXPECTED.partition("{")[2].rpartition("}")[0].replace("srcnat - 10", "srcnat + 10").replace("\n", ";")
LATE = " ".join(f"table inet {TABLE} {{ {_CHAINS} }}".replace("{;", "{").replace(";;", ";").split())
"""The table as it is to be, but for the priority of its chain."""


def move(lab: Lab, kernel: RunningKernel, *addresses: Any, source: str | None, destination: str) -> None:
    reason = Reason.FAILOVER if source else Reason.ADDRESS_ADDED
    kernel.perform(MoveAddresses(tuple(Move(address, source, destination, reason) for address in addresses)))
    wait_for(lambda: {a: where(lab, a) for a in addresses}, lambda seen: all(w == [destination] for w in seen.values()))


def installed(lab: Lab, kernel: RunningKernel, **policies: Any) -> None:
    kernel.configure(kernel_group(addresses=(V4, V6), pod_egress=PODS, **policies))
    move(lab, kernel, V4, V6, source=None, destination="nic0")
    wait_for(lambda: tables(lab), lambda seen: seen == EXPECTED)


def handles(lab: Lab) -> str:
    return str(lab.host.namespace.run("nft", "--handle", "list", "table", "inet", TABLE))


def test_table_gives_pods_a_data_address_of_each_family(lab: Lab, kernel: RunningKernel) -> None:
    installed(lab, kernel)
    assert not kernel.call(lambda facade: facade.findings(GROUP))


def test_table_stays_untouched_when_the_address_moves(lab: Lab, kernel: RunningKernel) -> None:
    installed(lab, kernel)
    before = handles(lab)
    move(lab, kernel, V4, V6, source="nic0", destination="nic1")
    kernel.run(lambda facade: facade.reconcile(GROUP))
    assert handles(lab) == before


@pytest.mark.parametrize(
    "tampering",
    [
        "flush ruleset",
        f"delete table inet {TABLE}",
        f"flush chain inet {TABLE} pods",
        f"add rule inet {TABLE} pods return",
        f"insert rule inet {TABLE} postrouting return",
        f"add table inet {TABLE} {{ flags dormant; }}",
        f"add chain inet {TABLE} postrouting {{ policy drop; }}",
        f"delete table inet {TABLE}; add table inet {TABLE}; {LATE}",
        f"add chain inet {TABLE} another",
        f"add chain inet {TABLE} another {{ type filter hook output priority 0; policy drop; }}",
        f"add set inet {TABLE} some {{ type ipv4_addr; }}",
        f"add map inet {TABLE} some {{ type ipv4_addr : verdict; }}",
        f"add counter inet {TABLE} some",
    ],
)
def test_table_that_somebody_changed_is_made_anew(lab: Lab, kernel: RunningKernel, tampering: str) -> None:
    installed(lab, kernel)
    kernel.run(lambda facade: facade.reconcile(GROUP))
    lab.host.namespace.run("nft", tampering)
    assert tables(lab) != EXPECTED
    wait_for(lambda: tables(lab), lambda seen: seen == EXPECTED)
    wait_for(lambda: kernel.call(lambda facade: facade.counters["foreign_changes"]), lambda count: count == 1)


def test_tables_of_others_stay(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.run("nft", "add table ip other; add chain ip other one; add rule ip other one accept")
    before = tables(lab)
    kernel.configure(kernel_group(addresses=(V4, V6), pod_egress=PODS))
    move(lab, kernel, V4, V6, source=None, destination="nic0")
    wait_for(lambda: tables(lab), lambda seen: TABLE in seen)
    kernel.run(lambda facade: facade.withdraw(GROUP))
    assert tables(lab) == before


def test_table_goes_with_the_field(lab: Lab, kernel: RunningKernel) -> None:
    installed(lab, kernel)
    kernel.configure(kernel_group(addresses=(V4, V6)))
    wait_for(lambda: tables(lab), lambda seen: not seen)


def test_deletion_removes_the_table_and_retaining_keeps_it(lab: Lab, kernel: RunningKernel) -> None:
    installed(lab, kernel, deletion_policy=DeletionPolicy.RETAIN)
    kernel.run(lambda facade: facade.withdraw(GROUP))
    assert tables(lab) == EXPECTED
    kernel.configure(kernel_group(addresses=(V4, V6), pod_egress=PODS))
    kernel.run(lambda facade: facade.withdraw(GROUP))
    assert not tables(lab)


def test_next_agent_keeps_the_address_that_flows_have(
    lab: Lab, kernel: RunningKernel, start_kernel: Callable[[], RunningKernel]
) -> None:
    second = ip_interface("198.18.0.9/32")
    kernel.configure(kernel_group(addresses=(second, V4, V6), pod_egress=PODS))
    move(lab, kernel, V4, V6, source=None, destination="nic0")
    wait_for(lambda: tables(lab), lambda seen: seen == EXPECTED)
    move(lab, kernel, second, source=None, destination="nic1")
    kernel.run(lambda facade: facade.reconcile(GROUP))
    # The host sends from the new one from now on, what pods had given they keep.
    of_host = "\t\tip saddr {0} snat ip to {0}\n"
    kept = EXPECTED.replace(of_host.format(V4.ip), of_host.format(second.ip) + of_host.format(V4.ip))
    assert tables(lab) == kept
    memory = kernel.call(lambda facade: facade.memory(GROUP))
    kernel.close()
    restarted = start_kernel()
    restarted.configure(kernel_group(addresses=(second, V4, V6), pod_egress=PODS), memory)
    restarted.run(lambda facade: facade.reconcile(GROUP))
    assert tables(lab) == kept


def test_next_agent_removes_a_table_that_is_wanted_no_more(
    lab: Lab, kernel: RunningKernel, start_kernel: Callable[[], RunningKernel]
) -> None:
    installed(lab, kernel)
    kernel.close()
    start_kernel().configure(kernel_group(addresses=(V4, V6)))
    wait_for(lambda: tables(lab), lambda seen: not seen)


def test_observing_writes_nothing(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.ip("address", "add", str(V4), "dev", "nic0")
    kernel.configure(kernel_group(addresses=(V4, V6), pod_egress=PODS, mode=Mode.OBSERVE))
    kernel.run(lambda facade: facade.reconcile(GROUP))
    assert not tables(lab)


def test_missing_data_address_is_said(lab: Lab, kernel: RunningKernel) -> None:
    kernel.configure(kernel_group(addresses=(V4,), pod_egress=PODS))
    move(lab, kernel, V4, source=None, destination="nic0")
    wait_for(lambda: tables(lab), lambda seen: "snat ip to 198.18.0.10" in seen)
    assert "ip6 saddr" not in tables(lab)
    (finding,) = kernel.call(lambda facade: facade.findings(GROUP))
    assert finding.reason is Reason.EGRESS_ADDRESS_MISSING
    assert "IPv6" in finding.message


def test_observing_chooses_the_address_that_it_would_give(lab: Lab, kernel: RunningKernel) -> None:
    lab.host.namespace.ip("address", "add", str(V4), "dev", "nic0")
    kernel.configure(kernel_group(addresses=(V4,), pod_egress=PODS, mode=Mode.OBSERVE))
    kernel.run(lambda facade: facade.reconcile(GROUP))
    (finding,) = kernel.call(lambda facade: facade.findings(GROUP))
    assert (finding.reason, "IPv6" in finding.message) == (Reason.EGRESS_ADDRESS_MISSING, True)


# -- others change nf_tables at the same time -------------------------------------------------------------------------


def test_change_right_after_ours_is_not_taken_for_ours(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our transaction and our look at what the kernel made of it."""
    really_commit = Nftables.commit
    tampered = threading.Event()

    def commit(self: Nftables, changes: Sequence[bytes], generation: int) -> None:
        really_commit(self, changes, generation)
        if not tampered.is_set():
            tampered.set()
            lab.host.namespace.run("nft", f"insert rule inet {TABLE} postrouting return")

    monkeypatch.setattr(Nftables, "commit", commit)
    installed(lab, kernel)
    assert tampered.is_set()


def test_change_right_before_ours_is_seen_first(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between our look at the table and our transaction: it may have been meant for another table than there is."""
    really_commit = Nftables.commit
    refusals: list[OSError] = []

    def commit(self: Nftables, changes: Sequence[bytes], generation: int) -> None:
        if not refusals:
            lab.host.namespace.run("nft", "add table ip other")
        try:
            really_commit(self, changes, generation)
        except ChangedMeanwhileError as error:
            refusals.append(error)
            raise

    monkeypatch.setattr(Nftables, "commit", commit)
    kernel.configure(kernel_group(addresses=(V4, V6), pod_egress=PODS))
    move(lab, kernel, V4, V6, source=None, destination="nic0")
    wait_for(lambda: tables(lab), lambda seen: seen == "table ip other {\n}\n" + EXPECTED)
    assert len(refusals) == 1
    assert not kernel.call(lambda facade: facade.findings(GROUP))


@contextmanager
def churning(lab: Lab) -> Iterator[None]:
    """Somebody changes nf_tables all the time, and not our table."""
    churn = "while :; do nft add table ip churn; nft delete table ip churn; done"
    busy = lab.host.namespace.popen(["sh", "-c", churn])
    try:
        yield
    finally:
        busy.kill()
        busy.wait(10)


def test_others_that_change_nf_tables_all_the_time_are_no_change_of_ours(lab: Lab, kernel: RunningKernel) -> None:
    with churning(lab):
        kernel.configure(kernel_group(addresses=(V4, V6), pod_egress=PODS))
        move(lab, kernel, V4, V6, source=None, destination="nic0")
        wait_for(lambda: tables(lab), lambda seen: EXPECTED in seen)
        before = handles(lab)
        threading.Event().wait(3 * WATCH)
    assert handles(lab) == before
    assert kernel.call(lambda facade: facade.counters["foreign_changes"]) == 0


def test_table_goes_while_others_change_nf_tables_all_the_time(lab: Lab, kernel: RunningKernel) -> None:
    installed(lab, kernel)
    with churning(lab):
        kernel.run(lambda facade: facade.withdraw(GROUP))
    assert TABLE not in tables(lab)


# -- the kernel refuses -----------------------------------------------------------------------------------------------


def test_table_of_somebody_else_is_told_and_asked_for_again_while_the_group_works_on(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_commit = Nftables.commit
    asked: list[float] = []

    def commit(self: Nftables, changes: Sequence[bytes], generation: int) -> None:
        asked.append(time.monotonic())
        really_commit(self, changes, generation)

    monkeypatch.setattr(Nftables, "commit", commit)
    with owned_table(lab):
        kernel.configure(kernel_group(addresses=(V4, V6), pod_egress=PODS))
        move(lab, kernel, V4, V6, source=None, destination="nic0")
        wait_for(lambda: len(asked), lambda count: count >= 2)
        (finding,) = kernel.call(lambda facade: facade.findings(GROUP))
        assert finding.reason is Reason.KERNEL_REFUSED
        assert os.strerror(errno.EPERM) in finding.message
        move(lab, kernel, V4, V6, source="nic0", destination="nic1")
        before = len(asked)
        for _ in range(10):
            kernel.run(lambda facade: facade.reconcile(GROUP))
        assert len(asked) <= before + 1, "a refusal is not asked for again with every comparison"
    wait_for(lambda: tables(lab), lambda seen: seen == EXPECTED, deadline=10 * RETRY_FIRST)
    wait_for(lambda: kernel.call(lambda facade: facade.findings(GROUP)), lambda found: not found)
    waits = [after - before for before, after in itertools.pairwise(asked)]
    assert all(wait >= RETRY_FIRST for wait in waits[:2]), waits


@pytest.mark.parametrize("number", [errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.EPROTONOSUPPORT, errno.EINVAL])
def test_kernel_without_nf_tables_is_told_and_asked_again(
    lab: Lab, kernel: RunningKernel, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patched:
        for request in ("commit", "generation"):
            patched.setattr(Nftables, request, refuse)
        kernel.configure(kernel_group(addresses=(V4, V6), pod_egress=PODS))
        move(lab, kernel, V4, V6, source=None, destination="nic0")
        (finding,) = kernel.call(lambda facade: facade.findings(GROUP))
        assert finding.reason is Reason.KERNEL_REFUSED
        assert os.strerror(number) in finding.message
        assert not tables(lab)
        move(lab, kernel, V4, V6, source="nic0", destination="nic1")
    wait_for(lambda: tables(lab), lambda seen: seen == EXPECTED, deadline=10 * RETRY_FIRST)
    wait_for(lambda: kernel.call(lambda facade: facade.findings(GROUP)), lambda found: not found)


def test_group_leaves_a_kernel_that_refused_the_table(lab: Lab, kernel: RunningKernel) -> None:
    with owned_table(lab):
        kernel.configure(kernel_group(addresses=(V4, V6), pod_egress=PODS))
        move(lab, kernel, V4, V6, source=None, destination="nic0")
        wait_for(lambda: kernel.call(lambda facade: facade.findings(GROUP)), bool)
        kernel.run(lambda facade: facade.withdraw(GROUP))
        assert {a: where(lab, a) for a in (V4, V6)} == {V4: [], V6: []}


# -- killed -----------------------------------------------------------------------------------------------------------

CHANGING = """
import ipaddress, itertools
from ipmp_agent.linux.messages import nftables
from ipmp_agent.linux.group import pod_egress

tables = nftables.Nftables()
networks = [ipaddress.ip_network(f"198.19.{number}.0/24") for number in range(100)]
for turn in itertools.count():
    sources = {4: ipaddress.ip_address(f"198.18.0.{10 + turn % 2}")}
    requests = pod_egress.replacement("ipmp-data", ["nic0", "nic1"], networks, sources)
    tables.commit(requests, tables.generation())
    print(turn, flush=True)
"""


def test_killed_in_the_middle_of_a_transaction_the_table_is_the_one_or_the_other(
    lab: Lab, start_kernel: Callable[[], RunningKernel]
) -> None:
    for turn in range(20):
        child = lab.host.namespace.popen([sys.executable, "-c", CHANGING], stdout=subprocess.PIPE)
        assert child.stdout is not None
        assert child.stdout.readline()
        threading.Event().wait(0.0007 * turn)  # one transaction takes some milliseconds
        child.kill()
        child.communicate(timeout=10)
        seen = tables(lab)
        counts = [seen.count(f"snat ip to 198.18.0.{last}") for last in (10, 11)]
        assert sorted(counts) == [0, 100]
        assert (seen.count(" return"), seen.count("jump pods")) == (100, 2)
    # Killed before it could save anything: the next agent makes of it what is to be.
    start_kernel().configure(kernel_group(addresses=(V4, V6), pod_egress=PODS))
    wait_for(lambda: tables(lab), lambda seen: "198.18.0.11" not in seen and "198.19.99.0" not in seen)
