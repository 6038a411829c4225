"""Networks for inference: equal to the network that they were made of, with work done once instead of in every call."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from golden_values import fill
from operations import Operations
from rediffuse.models.config import UNetConfig
from rediffuse.models.inference import PackedConv2d, for_inference
from rediffuse.models.unet import UNetModel
from rediffuse.threads import use_cores

CONFIG = UNetConfig(
    image_size=16,
    model_channels=32,
    channel_mult=(1, 2),
    attention_resolutions=(2,),
    num_head_channels=16,
    use_scale_shift_norm=True,
    resblock_updown=True,
)


def images(num_images: int, side: int = 16) -> Tensor:
    return torch.randn(num_images, 3, side, side, generator=torch.Generator().manual_seed(num_images))


def at(timestep: int, num_images: int) -> Tensor:
    """One timestep for all images, as samplers give it."""
    return torch.tensor(timestep).expand(num_images)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
def test_it_is_equal_for_batches_and_images_of_any_size(dtype: torch.dtype, tolerance: float) -> None:
    network = fill(UNetModel(CONFIG)).eval()
    inference = for_inference(network, dtype)
    assert inference.torso_dtype == dtype
    for num_images, side, timestep in ((2, 16, 3), (5, 16, 3), (1, 24, 700), (2, 16, 3)):
        x, t = images(num_images, side), at(timestep, num_images)
        with torch.inference_mode():
            given, expected = inference(x, t), network(x, t)
        torch.testing.assert_close(given, expected, atol=tolerance, rtol=tolerance)


def test_it_is_equal_with_classes_and_a_timestep_per_image() -> None:
    network = fill(UNetModel(replace(CONFIG, num_classes=3))).eval()
    t, y = torch.tensor([3, 900]), torch.tensor([0, 2])
    with torch.no_grad():
        given, expected = for_inference(network, torch.float32)(images(2), t, y), network(images(2), t, y)
    torch.testing.assert_close(given, expected, atol=1e-5, rtol=1e-5)


def test_weights_are_packed_and_timesteps_embedded_only_in_the_first_call() -> None:
    inference = for_inference(UNetModel(CONFIG).eval(), torch.float32)
    packs = [module for module in inference.modules() if isinstance(module, PackedConv2d)]
    counts = []
    with torch.inference_mode():
        for _ in range(2):
            with Operations() as operations:
                inference(images(2), at(500, 2))
            counts.append(operations.counts)
    pack = "mkldnn._reorder_convolution_weight.default"
    assert [count[pack] for count in counts] == [len(packs), 0]
    num_attention = 2 * sum("qkv.weight" in name for name, _ in inference.named_parameters())
    assert counts[1]["aten.linear.default"] == num_attention  # the others embed the timestep
    assert counts[1]["aten.mul.Tensor"] == 0  # scale and shift are part of the weights of the normalisation


def test_weights_are_packed_again_for_another_number_of_cores_or_images() -> None:
    """In a layout for others they would be converted in every call, which may take longer than the call."""
    inference = for_inference(UNetModel(CONFIG).eval(), torch.float32)
    packs = [module for module in inference.modules() if isinstance(module, PackedConv2d)]
    counts = []
    with torch.inference_mode(), Operations() as operations:
        for cores, number in ((1, 1), (2, 1), (1, 1), (2, 1), (2, 3), (2, 3), (1, 1)):
            with use_cores(cores):
                inference(images(number), at(500, number))
            counts.append(operations.counts["mkldnn._reorder_convolution_weight.default"])
    assert [count / len(packs) for count in counts] == [1, 2, 2, 2, 3, 3, 3]


def test_it_shares_the_weights_that_are_not_converted() -> None:
    network = UNetModel(CONFIG).eval()
    half = for_inference(network, torch.bfloat16, packs=False)
    weights, halves = dict(network.named_parameters()), dict(half.named_parameters())
    own = [name for name in weights if weights[name] is not halves[name]]
    assert {halves[name].dtype for name in own} == {torch.bfloat16}
    assert sum(weights[name].numel() for name in own) > 0.5 * sum(weight.numel() for weight in weights.values())
    assert {weight.dtype for weight in network.parameters()} == {torch.float32}
