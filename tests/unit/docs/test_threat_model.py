"""Every row of docs/threat-model.md names the tests that hold it."""

from tests.unit.docs import pages


def test_every_row_names_tests_that_exist() -> None:
    assert len(pages.every_row_names_tests_that_exist("docs/threat-model.md", 4)) > 60


def test_every_fault_that_attacks_found_has_its_row() -> None:
    numbers = [row[0].split()[0] for row in pages.rows("docs/threat-model.md", 4)]
    assert [int(number) for number in numbers if number.isdigit()] == list(range(1, 28))
