"""The official evaluation's choices and ours."""

import dataclasses

import pytest

from gill_lite.errors import GillError
from gill_lite.evaluation import protocol
from gill_lite.files import DATA


def test_protocols_differ_where_the_official_code_is_at_fault():
    official, corrected = protocol.get_protocol("official"), protocol.get_protocol("corrected")
    assert official.one_generator and not corrected.one_generator
    assert (official.output_key, corrected.output_key) == ("target", "example")
    assert (official.visdial_lpips, corrected.visdial_lpips) == (False, True)
    with pytest.raises(GillError, match="corrected and official"):
        protocol.get_protocol("mine")


def test_the_docs_tell_every_choice_as_the_code_has_it():
    page = (DATA.parent / "docs" / "protocols.md").read_text(encoding="utf-8")
    table = protocol.choices_markdown()
    assert table in page, "write it anew: python -m gill_lite.experiments.readme"
    choices = [choice.name for choice in dataclasses.fields(protocol.Protocol)]
    assert choices[0] == "name" and len(choices) == len(table.splitlines()) - 2 + 1
    for name in choices[1:]:
        values = [getattr(p, name) for p in (protocol.OFFICIAL, protocol.CORRECTED)]
        assert values[0] != values[1], f"{name} is no choice"
        (row,) = [line for line in table.splitlines() if line.startswith(f"| `{name}` |")]
        assert all(f"| `{value!r}`: " in row for value in values)
