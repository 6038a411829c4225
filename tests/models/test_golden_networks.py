"""The networks against outputs computed with guided-diffusion."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from golden_values import fill, load, relative_error
from rediffuse.models.config import EncoderConfig, UNetConfig
from rediffuse.models.encoder import EncoderUNetModel
from rediffuse.models.superres import SuperResModel
from rediffuse.models.unet import UNetModel


def arguments(meta: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in meta["kwargs"].items()}


def layout(network: nn.Module) -> dict[str, list[int]]:
    return {name: list(tensor.shape) for name, tensor in network.state_dict().items()}


@pytest.mark.parametrize("name", ["adm", "default", "ddpm", "avgpool", "1d", "3d"])
def test_unet_gives_the_golden_output_and_gradients(name: str) -> None:
    meta, golden = load(f"unet_{name}")
    model = fill(UNetModel(UNetConfig(**arguments(meta))))
    assert layout(model) == meta["state_dict"]

    x = golden["x"].requires_grad_()
    out = model(x, golden["t"], y=golden.get("y"))
    grad_x, grad_stem = torch.autograd.grad(
        (out * golden["w"]).sum(), [x, model.get_parameter("input_blocks.0.0.weight")]
    )

    assert relative_error(out, golden["out"]) <= 2e-5
    assert relative_error(grad_x, golden["grad_x"]) <= 1e-4
    assert relative_error(grad_stem, golden["grad_in_conv"]) <= 1e-4


@pytest.mark.parametrize("pool", ["adaptive", "attention", "spatial", "spatial_v2"])
def test_encoder_gives_the_golden_logits_and_gradient(pool: str) -> None:
    meta, golden = load(f"encoder_{pool}")
    model = fill(EncoderUNetModel(EncoderConfig(**arguments(meta))))
    assert layout(model) == meta["state_dict"]

    x = golden["x"].requires_grad_()
    logits = model(x, golden["t"])
    log_probability = logits.log_softmax(-1)[range(2), torch.tensor([1, 2])].sum()

    assert relative_error(logits, golden["out"]) <= 2e-5
    assert relative_error(torch.autograd.grad(log_probability, x)[0], golden["grad_logp"]) <= 1e-4


def test_superres_gives_the_golden_output() -> None:
    meta, golden = load("superres")
    model = fill(SuperResModel(UNetConfig(**arguments(meta))))
    assert layout(model) == meta["state_dict"]

    with torch.no_grad():
        out = model(golden["x"], golden["t"], low_res=golden["low_res"])

    assert relative_error(out, golden["out"]) <= 2e-5


def test_channels_last_gives_the_same_output() -> None:
    meta, golden = load("unet_adm")
    model = fill(UNetModel(UNetConfig(**arguments(meta)))).to(memory_format=torch.channels_last)

    def run(x: Tensor) -> Tensor:
        with torch.no_grad():
            return model(x, golden["t"], y=golden["y"])

    assert relative_error(run(golden["x"].to(memory_format=torch.channels_last)), golden["out"]) <= 2e-5
