"""The page of an incident: what it says, that it needs nothing else, and what it says to input that is none."""

from __future__ import annotations

import builtins
import json
import re
from html.parser import HTMLParser
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from ipmp_agent.commands.ipmp_agent import main
from ipmp_agent.core.actions import InterfaceVerdict
from ipmp_agent.core.reasons import Reason
from ipmp_agent.core.words import InterfaceWord
from ipmp_agent.simulate import drawing, picture
from ipmp_agent.simulate.__main__ import main as simulate
from ipmp_agent.simulate.page import page
from ipmp_agent.simulate.picture import NOWHERE, Picture, Spans
from ipmp_agent.simulate.timeline import AddressChange, Judged, Probed
from tests.unit.simulate.playing import make_group
from tests.unit.simulate.recorded import HEAD, incident, write

EXAMPLES = Path(__file__).parents[3] / "examples"


class Text(HTMLParser):
    """The rows of the tables of a page, and everything that would be loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.loaded: list[str] = []
        self._cell = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value for name, value in attrs if name in {"src", "href"} and value and value != "data:,"]
        self._cell = tag in {"td", "th"} or (self._cell and tag == "span")
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        self._cell = self._cell and tag not in {"td", "th"}

    def handle_data(self, data: str) -> None:
        if self._cell:
            self.rows[-1][-1] += data


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    path = tmp_path / "incident.jsonl"
    write(path, incident())
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "incident.html"


def read(target: Path) -> Text:
    text = Text()
    text.feed(target.read_text(encoding="utf-8"))
    return text


def test_page_of_a_recording_has_everything_as_text_too(recording: Path, target: Path) -> None:
    assert main(["report", str(recording), "-o", str(target)]) == 0
    text = target.read_text(encoding="utf-8")
    assert "Group storage on node node" in text
    assert re.search(
        r"nic0 failed at 1[56]\.\d+ s \(ProbesLost\), \d+ ms after the first loss; 1 data address moved", text
    )
    happened = [row[-1] for row in read(target).rows]
    for words in (
        "nic0 has failed (ProbesLost)",
        "198.18.0.100 nic0 -> nic1",
        "nic0 is failed, not active (ProbesLost)",
        "failure of nic0 detected: its probes are not answered",
    ):
        assert any(words in line for line in happened), words


def test_page_needs_nothing_from_elsewhere(recording: Path, target: Path) -> None:
    assert main(["report", str(recording), "-o", str(target)]) == 0
    assert read(target).loaded == []


def test_page_of_a_simulation_marks_the_faults_of_its_script(target: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [str(EXAMPLES / "lab.yaml"), str(EXAMPLES / "simulations/silent-failure.yaml")]
    assert simulate(files) == 0
    plain = capsys.readouterr().out
    assert simulate([*files, "--report", str(target)]) == 0
    assert capsys.readouterr().out == plain
    marks = {row[0]: row[-1] for row in read(target).rows if row[0]}
    assert marks["A"] == "frames of nic0 vanish, its link stays up"
    assert "has failed" in marks["1"]
    assert "works again" in marks["2"]


def test_replay_is_drawn_as_well(recording: Path, target: Path) -> None:
    assert simulate(["--replay", str(recording), "--report", str(target)]) == 0
    assert "Group storage on node node" in target.read_text(encoding="utf-8")


def test_recording_that_knows_the_date_says_it(recording: Path, target: Path) -> None:
    lines = recording.read_text().splitlines(keepends=True)
    recording.write_text(json.dumps(HEAD | {"clock": 1_790_000_000.5 - 1234.5}) + "\n" + "".join(lines[1:]))
    assert main(["report", str(recording), "-o", str(target)]) == 0
    assert "from 2026-09-21 14:13:20 UTC" in target.read_text(encoding="utf-8")
    failed = next(row for row in read(target).rows if "nic0 has failed" in row[-1])
    assert re.fullmatch(r"14:13:3\d", failed[2])


@pytest.mark.parametrize("clock", [1e300, None, "1", [], True])
def test_date_that_is_none_is_left_out(recording: Path, target: Path, clock: Any) -> None:
    lines = recording.read_text().splitlines(keepends=True)
    recording.write_text(json.dumps(HEAD | {"clock": clock}) + "\n" + "".join(lines[1:]))
    assert main(["report", str(recording), "-o", str(target)]) == 0


def test_words_of_a_recording_are_no_markup(recording: Path, target: Path) -> None:
    recording.write_text(recording.read_text().replace('"storage"', '"<b onclick=x>&</b>"'))
    assert main(["report", str(recording), "-o", str(target)]) == 0
    text = target.read_text(encoding="utf-8")
    assert "<b onclick" not in text
    assert "Group &lt;b onclick=x&gt;&amp;&lt;/b&gt; on node" in text


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a recording"),
        ("<html></html>\n", "not a recording: a line is not JSON"),
        ("kind: FaultScript\n", "not JSON"),
        (json.dumps(HEAD) + "\n", "the recording holds no group"),
        (json.dumps(HEAD)[:20], "not JSON"),
        (json.dumps(HEAD | {"version": 99}) + "\n", "not a recording of version"),
        (json.dumps(HEAD) + '\n{"g": "storage", "t": 1}\n', "without its start"),
        (json.dumps(HEAD) + '\n{"end": "closed", "lost": 3}\n', "3 entries were lost"),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_words(
    tmp_path: Path, target: Path, text: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    assert main(["report", str(path), "-o", str(target)]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert not target.exists()


def test_bytes_that_are_no_text_are_no_recording(
    tmp_path: Path, target: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "core.dump"
    path.write_bytes(b"\x7fELF\xff\xfe\x00")
    assert main(["report", str(path), "-o", str(target)]) == 2
    assert "core.dump" in capsys.readouterr().err


def test_recording_cut_by_a_kill_is_drawn_to_where_it_ends(recording: Path, target: Path) -> None:
    text = recording.read_text()
    recording.write_text(text[: len(text) // 3])
    assert main(["report", str(recording), "-o", str(target)]) == 0
    assert "No interface was found to have failed." in target.read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["missing.jsonl", "."])
def test_file_that_cannot_be_read_is_named(
    tmp_path: Path, target: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(tmp_path / name), "-o", str(target)]) == 2
    assert str(tmp_path / name) in capsys.readouterr().err


def test_page_that_cannot_be_written_is_named(
    recording: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(recording), "-o", str(tmp_path / "no/where.html")]) == 2
    assert "no/where.html: No such file or directory" in capsys.readouterr().err


def test_without_plotly_it_says_what_to_install(
    recording: Path, target: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "plotly":
            raise ModuleNotFoundError(name)
        return original(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["report", str(recording), "-o", str(target)]) == 2
    assert "pip install 'ipmp[report]'" in capsys.readouterr().err
    assert simulate(["--replay", str(recording), "--report", str(target)]) == 2
    assert "pip install 'ipmp[report]'" in capsys.readouterr().err


class TestWithoutColours:
    """What the picture tells apart is told apart on a black and white printer."""

    def test_states_differ_in_hatching_and_links_too(self) -> None:
        for looks in (drawing.STATES, drawing.LINKS):
            assert len({look.shape for look in looks.values()}) == len(looks)

    def test_bars_of_one_row_differ_in_brightness_or_hatching(self) -> None:
        for one, other in combinations(drawing.STATES.values(), 2):
            assert one.shape != other.shape or abs(brightness(one.colour) - brightness(other.colour)) > 0.2

    @pytest.mark.parametrize("look", [*drawing.STATES.values(), drawing.ADDRESS], ids=lambda look: look.name)
    def test_text_stands_out_of_its_bar(self, look: drawing.Look) -> None:
        light, dark = sorted((brightness(look.colour), brightness(look.text)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2.2, 1.4.3

    def test_probes_differ_in_shape(self, recording: Path) -> None:
        assert drawing.STATES.keys() == set(InterfaceWord)
        marks = [trace for trace in drawing.figure(drawn()).data if trace.type == "scatter"]
        assert len({trace.marker.symbol for trace in marks}) == 2


def brightness(colour: str) -> float:
    """Relative luminance (WCAG 2.2), 0 to 1."""
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def drawn(probes: int = 3) -> Picture:
    """A picture of a failure at 100 s: an address goes from nic0 to nic1."""
    made = Picture(make_group(addresses=1), 0.0, 0.0)
    made.take(AddressChange(0.0, "198.18.0.100", "nic0", None))
    for number in range(probes):
        made.take(Probed(number / 10, "nic0", "198.18.0.1", number / 10, 0.001))
    made.take(Judged(100.0, "storage", InterfaceVerdict("nic0", failed=True, reason=Reason.PROBES_LOST, since=99.0)))
    made.take(AddressChange(100.0, "198.18.0.100", "nic1", "nic0"))
    made.end(probes / 10 + 200)
    return made


def test_spans_follow_each_other_without_overlaps_or_empty_ones() -> None:
    spans: Spans[str] = Spans()
    for at, value in ((0.0, "a"), (1.0, "b"), (1.0, "c"), (2.0, None), (3.0, "d")):
        spans.change(at, value)
    spans.close(4.0)
    assert [(span.value, span.begin, span.end) for span in spans] == [("a", 0, 1), ("c", 1, 2), ("d", 3, 4)]


def test_address_is_in_one_lane_at_a_time() -> None:
    made = drawn()
    assert [(s.begin, s.end) for s in made.lanes["nic0"].addresses["198.18.0.100"]] == [(0, 100)]
    assert [s.begin for s in made.lanes["nic1"].addresses["198.18.0.100"]] == [100]
    assert not made.lanes[NOWHERE].addresses


def test_probes_are_thinned_but_not_near_verdicts() -> None:
    made = drawn(probes=50_000)
    kept = drawing.thinned(made.lanes["nic0"].answered, [100.0])
    near = [probe for probe in kept if 85 <= probe.sent <= 115]
    assert len(near) == 301
    assert len(kept) < drawing.PROBES + len(near) + 1
    assert drawing.thinned(kept[:10], []) == kept[:10]


def test_a_storm_is_drawn_within_bounds_and_says_what_is_left_out() -> None:
    made = Picture(make_group(addresses=1), 0.0, 0.0)
    verdicts = [InterfaceVerdict("nic0", failed=failed, reason=Reason.LINK_DOWN) for failed in (True, False)]
    for number in range(100_000):
        at = number / 10
        made.take(Probed(at, "nic0", "198.18.0.1", at, None))
        if number % 20 == 0:
            made.take(Judged(at, "storage", verdicts[number // 20 % 2]))
            source, destination = ("nic0", "nic1")[:: 1 if number // 20 % 2 else -1]
            made.take(AddressChange(at, "198.18.0.100", destination, source))
    made.end(10_000.0)
    figure = drawing.figure(made)
    (lost,) = [trace for trace in figure.data if trace.name == "probe lost"]
    assert len(lost.x) <= drawing.CROWD
    assert len(figure.layout.shapes) == drawing.CROSSING
    text = page("storm", [made], None)
    assert f"Of 100000 probes of nic0 that were lost, {len(lost.x)} are drawn." in text
    assert f"Lines and arrows end after {drawing.CROSSING} verdicts" in text
    assert "more failures are in the table" in text
    assert "more lines are left out" in text
    assert len(text) < 12_000_000


def test_a_short_incident_of_a_long_recording_is_shown_first() -> None:
    assert drawing.first_sight(drawn(probes=50_000)) == (95.0, 105.0)
    quiet = Picture(make_group(), 0.0, 0.0)
    quiet.end(200.0)
    assert drawing.first_sight(quiet) == (-2.0, 202.0)


def test_marks_that_would_touch_are_one() -> None:
    marked = [picture.Happened(at, "verdict", "", str(number)) for number, at in enumerate((1.0, 1.1, 9.0), start=1)]
    assert [[one.mark for one in cluster] for cluster in drawing._clusters(marked, 0.5)] == [["1", "2"], ["3"]]


def test_faults_have_letters_however_many() -> None:
    assert [picture._letters(number) for number in (0, 25, 26, 27, 701, 702)] == ["A", "Z", "AA", "AB", "ZZ", "AAA"]
