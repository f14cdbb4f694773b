"""Every file of `compiler/ops/` keeps the contract that its look-up relies on."""

import re

import pytest

from openwork import plugins
from openwork.compiler import operators


def documented(name):
    """The operators in the table of a file's docstring."""
    doc = plugins.module("compiler.ops", name).__doc__ or ""
    return re.findall(r"^\| (\w+) \|", doc.replace("| op |", ""), re.M)


@pytest.mark.parametrize("name", plugins.names("compiler.ops"))
def test_every_operator_has_a_shape_a_lowering_and_a_row_in_its_files_table(name):
    module = plugins.module("compiler.ops", name)
    listed = documented(name)
    assert len(listed) == len(set(listed))
    for op in listed:
        assert operators.shape_rule(op).__module__ == module.__name__
        assert operators.lowering_rule(op)
    assert listed or name in ("identity", "rearrange"), f"{name}.py adds no operator: its docstring needs a table"


def test_no_operator_is_left_out_of_the_tables():
    operators.shape_rule("conv")  # loads the folder
    listed = {op for name in plugins.names("compiler.ops") for op in documented(name)}
    assert listed == set(operators._shapes) == set(operators._lowerings)


def test_two_rules_for_one_operator_are_a_programming_error():
    with pytest.raises(AssertionError, match="two rules for conv"):
        operators.implies("conv")(lambda node, shapes, graph: None)
