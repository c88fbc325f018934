from tests.unit.docs import pages

PAGE, COLUMNS = "docs/solaris.md", 4


def test_every_row_names_tests_that_exist() -> None:
    assert len(pages.rows(PAGE, COLUMNS)) > 50
    pages.every_row_names_tests_that_exist(PAGE, COLUMNS)
