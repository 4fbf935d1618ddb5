"""eva/strict_yaml.py: what is taken, what is refused, and that each refusal says the line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eva.strict_yaml import BadSettings, load


def fault(text: str, read=lambda section: section.nothing_else()) -> BadSettings:
    with pytest.raises(BadSettings) as caught:
        read(load(text, "x.yaml"))
    return caught.value


def test_reads_the_three_scalars():
    section = load("a: one\nb: 2\nc: true\n", "x.yaml")
    assert (section.text("a"), section.integer("b"), section.flag("c")) == ("one", 2, True)


def test_an_empty_file_is_an_empty_section():
    load("# only a comment\n", "x.yaml").nothing_else()


def test_a_quoted_number_is_text():
    assert load('a: "22"\n', "x.yaml").text("a") == "22"


def test_a_key_twice_is_refused_with_both_lines():
    error = fault("a: 1\nb: 2\na: 3\n")
    assert (error.line, error.key) == (3, "a")
    assert "first in line 1" in error.why


def test_a_key_twice_is_refused_in_a_section_below():
    error = fault("a:\n  b: 1\n  b: 2\n", lambda section: section.section("a"))
    assert (error.line, error.key) == (3, "a.b")


def test_an_unknown_key_is_refused_and_the_known_ones_are_named():
    def read(section):
        section.text("port")
        section.nothing_else()

    error = fault("port: x\nprot: y\n", read)
    assert (error.line, error.key) == (2, "prot")
    assert "known: port" in error.why


def test_a_missing_key_names_its_section():
    error = fault("\n\ntls:\n  ca: x\n", lambda section: section.section("tls").text("key"))
    assert (error.line, error.key, error.why) == (4, "tls.key", "is missing")


def test_an_absent_section_reads_as_empty():
    assert load("", "x.yaml").section("tls").integer("depth", default=3) == 3


@pytest.mark.parametrize(
    "text", ["a: yes", "a: on", "a: 0755", "a: 1:30", "a: 1.5", "a: 2026-01-02", "a:", "a: ~", "a: 0x10", "a: 1_000"]
)
def test_spellings_that_read_otherwise_than_they_look_are_refused(text: str):
    assert fault("x: 1\n" + text + "\n", lambda section: section.text("a")).line == 2
    assert fault("x: 1\n" + text + "\n", lambda section: section.integer("a")).line == 2


@pytest.mark.parametrize(
    "text",
    ["a: &x 1", "a: &x {b: 1}\nc: *x", "a: !!str 5", "a: !!python/name:os.system ''", "%YAML 1.1\n---\na: 1", "a: 1\n---\nb: 2"],
)
def test_anchors_tags_directives_and_second_documents_are_refused(text: str):
    fault(text)


def test_a_merge_key_is_refused():
    fault("<<: {a: 1}\n")


def test_a_key_that_is_no_text_is_refused():
    assert fault("a: 1\n2: b\n").line == 2


def test_what_is_no_mapping_is_refused():
    assert "keys and values" in fault("- a\n").why


def test_bad_yaml_says_its_line():
    assert fault("a: 1\nb: [1, 2\n").line >= 2


def test_a_control_character_says_its_line():
    assert fault("a: 1\nb: x\x01\n").line == 2


def test_text_with_a_line_feed_is_refused():
    assert fault('a: "x\\ny"\n', lambda section: section.text("a")).key == "a"


@pytest.mark.parametrize("value", ["4", "61", "true", "'10'", "[10]"])
def test_an_integer_keeps_its_bounds_and_kind(value: str):
    assert "from 5 to 60" in fault(f"a: {value}\n", lambda s: s.integer("a", 5, 60)).why or value == "[10]"


def test_integer_bounds_are_inclusive():
    section = load("a: 5\nb: 60\n", "x.yaml")
    assert (section.integer("a", 5, 60), section.integer("b", 5, 60)) == (5, 60)


def test_a_default_stands_for_an_absent_key_only():
    section = load("a: 7\n", "x.yaml")
    assert (section.integer("a", default=1), section.integer("b", default=1), section.flag("c", default=False)) == (7, 1, False)


def test_each_makes_items_and_refuses_one_twice_with_its_line():
    assert load("a: [x, y]\n", "x.yaml").each("a", str.upper) == ["X", "Y"]
    assert fault("a:\n  - x\n  - y\n  - X\n", lambda s: s.each("a", str.upper)).line == 4


def test_sections_of_a_list_are_numbered_in_errors():
    error = fault("hosts:\n  - name: a\n  - nmae: b\n", lambda s: [one.text("name") for one in s.sections("hosts")])
    assert (error.key, error.line) == ("hosts[1].name", 3)


def test_convert_keeps_the_reason():
    error = fault("a: q\n", lambda s: s.convert("a", int))
    assert "invalid literal" in error.why


def test_deep_nesting_is_an_error_and_no_crash():
    fault("[" * 5000)


@given(st.text(max_size=60))
def test_nothing_but_bad_settings_leaves_load(text: str):
    line = 1
    try:
        load(text, "x.yaml").nothing_else()
    except BadSettings as error:
        line = error.line
    assert line >= 1
