"""No value, whoever sent it, can forge a line or drive a terminal."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lb.log import MAX_VALUE_CHARS, render_json, render_text

HOSTILE = {
    "crlf": ("gpt\r\nlevel=error msg=forged", '"gpt\\r\\nlevel=error msg=forged"'),
    "ansi": ("\x1b[31mred", '"\\x1b[31mred"'),
    "c1": ("\x9b31m", '"\\x9b31m"'),
    "quote": ('a" b="c', '"a\\" b=\\"c"'),
    "backslash": ("a\\nb", '"a\\\\nb"'),
    "bidi": ("a\u202eb", '"a\\u202eb"'),
    "line separator": ("a\u2028b", '"a\\u2028b"'),
    "surrogate": ("a\ud800b", '"a\\ud800b"'),
    "empty": ("", '""'),
    "space": ("two words", '"two words"'),
    "equals": ("a=b", '"a=b"'),
    "url": ("http://10.0.0.1:8000/v1", "http://10.0.0.1:8000/v1"),
    "words": ("größer", '"größer"'),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_l12_a_hostile_value_is_escaped_in_text(name: str) -> None:
    value, shown = HOSTILE[name]
    assert render_text({"model": value}) == f"model={shown}"


@pytest.mark.parametrize("name", HOSTILE)
def test_l12_a_hostile_value_is_escaped_in_json(name: str) -> None:
    value, _ = HOSTILE[name]
    line = render_json({"model": value})
    assert "\n" not in line
    assert all(ord(character) >= 32 and not 0x7F <= ord(character) <= 0x9F for character in line)
    assert json.loads(line)["model"] == value.encode("utf-8", "backslashreplace").decode()


@pytest.mark.parametrize("render", [render_text, render_json])
def test_l12_a_megabyte_is_cut(render: object) -> None:
    line = render({"model": "x" * 1_000_000})  # type: ignore[operator]
    assert len(line) < MAX_VALUE_CHARS + 100
    assert "(1000000 characters)" in line


def test_values_keep_their_kind() -> None:
    fields = {"n": 3, "ratio": 0.123456789, "yes": True, "none": None, "nan": math.nan, "list": [1, 2]}
    assert render_text(fields) == 'n=3 ratio=0.123457 yes=true nan=nan list="[1, 2]"'
    assert json.loads(render_json(fields)) == {"n": 3, "ratio": 0.123457, "yes": True, "nan": "nan", "list": "[1, 2]"}


@given(value=st.text() | st.binary() | st.floats() | st.integers() | st.none())
def test_any_value_gives_one_clean_line(value: object) -> None:
    text = render_text({"a": value, "b": 1})
    assert text.endswith("b=1")
    assert not any(ord(character) < 32 or 0x7F <= ord(character) <= 0x9F for character in text)
    text.encode()
    assert json.loads(render_json({"a": value, "b": 1}))["b"] == 1
