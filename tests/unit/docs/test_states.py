from ipmp_agent.core.interface import TRANSITIONS
from tests.docs import states


def test_the_page_of_states_is_what_the_table_says() -> None:
    assert states.PATH.read_text(encoding="utf-8") == states.page(), "run: .venv/bin/python -m tests.docs.states"


def test_the_diagram_has_an_arrow_for_every_transition_and_no_other() -> None:
    arrows = [line for line in states.diagram().splitlines() if "-->" in line and "[*]" not in line]
    assert len(arrows) == len(set(arrows)) == len(TRANSITIONS)
