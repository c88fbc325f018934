from typing import get_args

from ipmp_agent.core import events, multipathing


def test_every_event_has_a_handler() -> None:
    assert set(get_args(events.Event)) == set(multipathing._HANDLERS)
