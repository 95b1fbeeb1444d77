"""Figures of agreement: both limits count, nothing is no number, and the table is aligned."""

import pytest
import torch

from warpfuse.export.agreement import Agreement, differences, table


@pytest.mark.parametrize(
    "worst, mean, agrees",
    [
        (0.1, 0.01, True),
        (0.11, 0.01, False),
        (0.1, 0.02, False),
        (float("nan"), 0.0, False),
        (0.0, float("nan"), False),
    ],
)
def test_both_limits_count(worst, mean, agrees):
    assert Agreement("unet", "onnx", worst, mean, 0.1, 0.01).agrees is agrees


def test_differences_are_over_all_outputs():
    wanted = {"a": torch.zeros(3), "b": torch.ones(1)}
    assert differences({"a": torch.tensor([0.0, 0.0, -2.0]).numpy(), "b": torch.ones(1)}, wanted) == (2.0, 0.5)


def test_columns_of_the_table_are_aligned():
    lines = table([Agreement("unet", "tensorrt-rtx sm89", 0.1, 0.01, 0.1, 0.01), Agreement("x", "onnx", 1, 1, 0.1, 0)])
    assert len({line.index(word) for line, word in zip(lines, ("target", "tensorrt", "onnx"), strict=True)}) == 1
    assert lines[1].endswith("agrees") and lines[2].endswith("OVER THE TOLERANCE")
