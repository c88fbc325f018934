"""The contract of a feature: one thing that a group wants of the kernel, such as its data addresses or its tunnels.

A feature is a class in a file of its own, made by `Features.__init__`. It has those methods of `Feature` that it needs,
with the arguments that it needs. It knows what it wants and what it believes to be there, and answers with requests;
`GroupInKernel` reads the kernel once for all features and sends their requests together. `PodEgress` and `Multicast`
speak to the kernel by themselves: they do not use routing messages. `Features` has what is asked of all of them.

In which order `GroupInKernel` calls them; the first comes before the second, for the reason on the right:

    configure         configure             remember            what is configured tells which remembered one is adopted
    configure         remember              data.find           of two members with one the remembered one is right
    configure         data.find             twins.read          a route is judged by the place of its source address
    configure         note                  _memory.keep        the successor of a killed agent can put everything back
    configure         tunnels.note          _memory.keep        the same
    configure         _memory.keep          reconcile           it is on disk before anything is changed
    configure         reconcile             _sink               the core moves addresses only when all there is was told
    _look_for_changes note                  _memory.keep        as in configure, for members that came late
    _compare          _look_for_changes     _differences        it is on disk before anything is changed
    _compare          _take_addresses       _take_routes        as in configure
    _differences      settings.differences  data.differences    an address answers ARP on its own member only
    _compare          _differences          _take_routes        an order that comes while routes are taken is newer
    _compare          _take_routes          _host.send          a route that went with an address is judged without it
    _compare          _host.send            _compare_routes     the kernel refuses a route whose source is not there
    _compare          _compare_routes       _dismiss            a former member is let go when nothing leaves by it
    withdraw          pod_egress.withdraw   data.withdraw       no new connection of a pod gets an address that goes
    withdraw          data.withdraw         twins.endanger      what went with an address is missing, not deleted
    withdraw          data.refuges          twins.restore       routes of a member that is gone go to its refuge
    withdraw          twins.restore         _policy             the host's own routes are back before the rules go
    withdraw          _policy               twins.withdraw      the rules go before the tables that they lead to
    withdraw          twins.withdraw        membership.restore  the rules know members by their interface group
    withdraw          twins.restore         settings.restore    its reverse path filter needs the routes back first
    withdraw          twins.withdraw        twins.settle        equal routes are put in order when all of them are back

`tests/unit/linux/test_features.py` holds classes and order to this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Generator

    from ipmp_agent.core.findings import Finding


class Feature(Protocol):
    """All methods that a feature may have, with whatever arguments; all run in the data plane's thread."""

    def configure(self, *args: Any) -> list[bytes] | None:
        """Take a configuration, the first or a later one; may return requests that remove what is wanted no more."""

    def memory(self) -> dict[str, Any] | list[dict[str, Any]]:
        """What a later agent must know to put everything back: JSON. A feature with `memory` has `remember`."""

    def remember(self, *args: Any) -> None:
        """Take over what an earlier agent remembered, before anything is read."""

    def note(self, *args: Any) -> bool | None:
        """Take down what the host has, before it is changed; may return whether any of it is new, and to be kept."""

    def read(self, *args: Any) -> Generator[None, None, None] | None:
        """Take what the kernel has now as the whole truth, and tell the core what is news to it.

        What may be very much is taken in slices (linux/shared/slices.py): of what is heard meanwhile the news counts.
        """

    def heard(self, *args: Any) -> bool | tuple[bool, bool]:
        """Take one notification; returns whether the kernel may differ from what is wanted.

        It tells of a moment that later orders may have overtaken, so it only asks for a comparison.
        """

    def differences(self, *args: Any) -> list[bytes]:
        """Requests that turn what was read into what is wanted; none where nothing differs."""

    def restore(self, *args: Any) -> list[bytes]:
        """Requests that put members back as they were found; what is not ours any more is left alone."""

    def withdraw(self, *args: Any) -> list[bytes] | None:
        """Requests that take away what is ours and put back the rest, by what was read, not by what is believed."""

    def rest(self) -> None:
        """End what an agent that ends would end: the group only observes from now on. The kernel stays as it is."""

    def findings(self) -> list[Finding]:
        """What stands in its way on this host; asked for at every publication, so it reads nothing."""

    def close(self) -> None:
        """Stop timers, tasks and sockets; the kernel stays as it is."""
