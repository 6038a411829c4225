"""The precision that `auto` chooses."""

import pytest
import torch

from rediffuse.zoo.precision import choose_precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("capabilities", "expected"), [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({}, "fp32")]
)
def test_auto_is_bf16_only_where_the_processor_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert choose_precision("auto", CPU) == expected


def test_a_given_precision_is_kept() -> None:
    assert choose_precision("fp16", CPU) == "fp16"
