"""Every row of docs/threat-model.md names the tests that hold it."""

from tests.unit.docs import pages


def test_every_row_names_tests_that_exist() -> None:
    assert len(pages.every_row_names_tests_that_exist("docs/threat-model.md", 4)) > 20
