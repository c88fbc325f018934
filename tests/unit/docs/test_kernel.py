from pathlib import PurePath

from tests.unit.docs import pages

PAGE, COLUMNS = "docs/design/kernel-tests.md", 2
SURPRISES = ("tests/lab/kernel/test_surprises_addresses.py", "tests/lab/kernel/test_surprises_routes.py")


def test_every_row_names_tests_that_exist_and_run_on_a_real_kernel() -> None:
    named = pages.every_row_names_tests_that_exist(PAGE, COLUMNS)
    assert len(named) > 50
    assert [path for path, _ in named if PurePath(path).parts[1] != "lab"] == []


def test_every_surprise_that_a_test_shows_is_in_the_table() -> None:
    named = pages.every_row_names_tests_that_exist(PAGE, COLUMNS)
    shown = {(path, test) for path in SURPRISES for test in pages.functions_of(path)}
    assert sorted(shown - named) == []
