"""YAML as kubectl reads it, with lines for people."""

import pytest

from ipmp_api.errors import ManifestError
from ipmp_api.manifest import load_manifest


def test_documents_come_with_their_lines() -> None:
    documents = load_manifest("# first\nkind: A\n---\n---\n\nkind: B\nspec: {n: 1}\n")
    assert [(d.line, d.kind) for d in documents] == [(2, "A"), (6, "B")]
    assert documents[1].content == {"kind": "B", "spec": {"n": 1}}
    assert load_manifest("") == load_manifest("---\n# nothing\n") == ()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("52:54:00:12:34:56", "52:54:00:12:34:56"),  # a number of base sixty to plain PyYAML
        ("0000:00:03.0", "0000:00:03.0"),
        ("2026-11-22", "2026-11-22"),  # a date to plain PyYAML
        ("2001:db8::1", "2001:db8::1"),
        ("198.18.0.1", "198.18.0.1"),
        ("1e3", 1000.0),
        ("1000", 1000),
        ("-0x10", -16),
        ("1.5", 1.5),
        ("true", True),
        ("~", None),
        ("'5'", "5"),
    ],
)
def test_scalars_are_read_as_kubectl_reads_them(text: str, value: object) -> None:
    (document,) = load_manifest(f"a: {text}")
    assert document.content == {"a": value}
    assert type(document.content["a"]) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("a: 1\nb: [1", 2, 6, "expected ',' or ']'"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", 4, 3, 'key "c" already set'),
        ("a: 1\n---\n- b\n", 3, 1, "a manifest is an object"),
        ("a: 1\nb: \x01", 2, 4, "U+0001"),
        ("a: 1\nb: *c\n", 2, 4, "undefined alias"),
        ("a: 1\n5: 2\n", 2, 1, "key 5 is not a string"),
        ("a: !!python/object:os.system {}\n", 1, 4, "could not determine a constructor"),
        ("a:\n\t- b\n", 2, 1, "cannot start any token"),
    ],
)
def test_what_is_no_manifest_is_refused_with_its_place(text: str, line: int, column: int, words: str) -> None:
    with pytest.raises(ManifestError) as refused:
        load_manifest(text)
    assert (refused.value.line, refused.value.column) == (line, column)
    assert words in str(refused.value)
    assert str(refused.value).startswith(f"line {line}, column {column}: ")
