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


@pytest.mark.parametrize(
    "scalar",
    [
        "0x_",
        "0b_",
        "9" * 5000,
        "0x" + "f" * 5000,
        "0b" + "1" * 70,
        "!!int x",
        "!!int ''",
        "!!int [1]",
        "!!float x",
        "!!float ''",
        "!!bool x",
        "!!bool ''",
        "!!timestamp 2001-99-99",
        "!!timestamp x",
        "!!binary ä",
        "!!pairs [1]",
        "!!omap {a: 1}",
        "!!set [1]",
        "!!null {}",
        "{<<: 5}",
        "{<<: [1]}",
        "{? {b: 1} : 2}",
        "{? [b] : 2}",
        '"\\ud800"',
    ],
)
def test_a_value_that_no_object_has_is_refused_with_its_place(scalar: str) -> None:
    with pytest.raises(ManifestError) as refused:
        load_manifest(f"kind: A\na: {scalar}\n")
    assert refused.value.line == 2
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 3000, "a: " + "[" * 200 + "]" * 200, "- " * 2000, "? " * 3000])
def test_what_is_nested_too_deeply_is_refused(text: str) -> None:
    with pytest.raises(ManifestError):
        load_manifest(text)


def test_what_kubectl_shows_of_several_objects_is_read_one_by_one() -> None:
    text = """\
apiVersion: v1
kind: List
metadata: {resourceVersion: ""}
items:
- kind: A
  spec: {n: 1}
- kind: B
---
kind: IPMPGroupList
items: []
---
{kind: List, items: [{kind: C}]}
"""
    assert [(d.line, d.kind) for d in load_manifest(text)] == [(5, "A"), (7, "B"), (12, "C")]


@pytest.mark.parametrize("items", ["[1]", "[{kind: A}, ]\n- x", "5", "[[]]"])
def test_a_list_of_anything_but_objects_is_refused(items: str) -> None:
    with pytest.raises(ManifestError):
        load_manifest(f"kind: List\nitems: {items}\n")
