"""The networks beyond golden values: sizes, labels, precision, recomputation of activations."""

from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from golden_values import fill, relative_error
from rediffuse.errors import ConfigError
from rediffuse.models.attention import AttentionBlock
from rediffuse.models.config import EncoderConfig, UNetConfig
from rediffuse.models.encoder import EncoderUNetModel
from rediffuse.models.layers import GroupNorm, ResBlock
from rediffuse.models.superres import SuperResModel
from rediffuse.models.unet import UNetModel

CONFIG = UNetConfig(
    image_size=16,
    model_channels=32,
    channel_mult=(1, 2),
    num_res_blocks=1,
    attention_resolutions=(2,),
    num_heads=2,
    use_scale_shift_norm=True,
    resblock_updown=True,
)
T = torch.tensor([3, 700])


def images(*size: int) -> Tensor:
    return torch.randn(2, 3, *(size or (16, 16)), generator=torch.Generator().manual_seed(0))


def calls_in_a_training_step(config: UNetConfig) -> tuple[Counter[type[nn.Module]], Tensor, list[Tensor]]:
    """How often the norms in the blocks ran, by type of block; the output; all gradients."""
    model, calls = fill(UNetModel(config)), Counter()

    def count(kind: type[nn.Module], *_: object) -> None:
        calls[kind] += 1

    for block in model.modules():
        if isinstance(block, (ResBlock, AttentionBlock)):
            norm = block.norm if isinstance(block, AttentionBlock) else block.in_layers[0]
            norm.register_forward_hook(partial(count, type(block)))
    out = model(images(), T)
    out.square().mean().backward()
    return calls, out, [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def test_attention_is_not_recomputed_unless_asked() -> None:
    calls, _, _ = calls_in_a_training_step(CONFIG)
    modules = Counter(type(module) for module in UNetModel(CONFIG).modules())
    assert calls == {kind: modules[kind] for kind in (ResBlock, AttentionBlock)}


def test_checkpointing_recomputes_every_block_and_changes_no_number() -> None:
    calls, out, gradients = calls_in_a_training_step(CONFIG)
    recomputed, out_again, gradients_again = calls_in_a_training_step(replace(CONFIG, use_checkpoint=True))
    assert recomputed == {kind: 2 * number for kind, number in calls.items()}
    torch.testing.assert_close(out_again, out, rtol=0, atol=0)
    torch.testing.assert_close(gradients_again, gradients)


def test_new_networks_predict_zero() -> None:
    assert UNetModel(CONFIG)(images(), T).count_nonzero() == 0


def test_fractional_channel_multipliers() -> None:
    model = UNetModel(replace(CONFIG, model_channels=64, channel_mult=(0.5, 1)))
    assert model.get_parameter("input_blocks.0.0.weight").shape[0] == 32
    assert model(images(), T).shape == (2, 3, 16, 16)


@pytest.mark.parametrize("size", [(8, 8), (10, 26), (64, 2)])
def test_any_size_that_the_downsampling_divides_runs(size: tuple[int, int]) -> None:
    assert UNetModel(CONFIG)(images(*size), T).shape == (2, 3, *size)


def test_any_number_of_channels_and_classes() -> None:
    model = UNetModel(replace(CONFIG, in_channels=5, out_channels=7, num_classes=1))
    assert model(torch.randn(2, 5, 8, 8), T, y=torch.zeros(2, dtype=torch.int64)).shape == (2, 7, 8, 8)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    model, x = fill(UNetModel(CONFIG)), images()
    with torch.no_grad():
        assert relative_error(model(x, T)[1:], model(x[1:], T[1:])) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_torso_is_close_to_float32(dtype: torch.dtype) -> None:
    model = fill(UNetModel(CONFIG))
    with torch.no_grad():
        expected = model(images(), T)
        out = model.to_torso_dtype(dtype)(images(), T)
    assert out.dtype == torch.float32
    assert relative_error(out, expected) < 16 * torch.finfo(dtype).eps


def test_half_precision_leaves_norms_embeddings_and_head_in_float32() -> None:
    model = UNetModel(replace(CONFIG, num_classes=4)).to_torso_dtype(torch.bfloat16)
    halved = {name for name, parameter in model.named_parameters() if parameter.dtype == torch.bfloat16}
    norms = [module for module in model.modules() if isinstance(module, GroupNorm)]
    assert {name.split(".")[0] for name in halved} == {"input_blocks", "middle_block", "output_blocks"}
    assert all(norm.weight.dtype == torch.float32 for norm in norms)


@pytest.mark.parametrize("pool", ["adaptive", "spatial_v2"])
def test_half_precision_encoder_gives_float32_logits(pool: str) -> None:
    config = EncoderConfig(image_size=16, model_channels=32, channel_mult=(1, 2), out_channels=4, pool=pool)  # pyright: ignore[reportArgumentType]
    model = fill(EncoderUNetModel(config))
    with torch.no_grad():
        expected = model(images(), T)
        logits = model.to_torso_dtype(torch.bfloat16)(images(), T)
    assert logits.dtype == torch.float32
    assert relative_error(logits, expected) < 0.1


def test_superres_stem_takes_twice_the_image_channels() -> None:
    model = SuperResModel(CONFIG)
    assert model.get_parameter("input_blocks.0.0.weight").shape[1] == 6
    assert model(images(), T, low_res=images(5, 4)).shape == (2, 3, 16, 16)


@pytest.mark.parametrize(
    ("size", "message"),
    [((16, 17), "image of 16x17: every side must be a multiple of 2"), ((16,), r"shape \(2, 3, 16\)")],
)
def test_a_size_that_does_not_fit_is_named(size: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        UNetModel(CONFIG)(images(*size), T)


def test_an_image_whose_groups_would_be_single_numbers_is_refused() -> None:
    model = UNetModel(replace(CONFIG, channel_mult=(1, 1)))
    with pytest.raises(ConfigError, match="image of 2x2: at least 2 pixels"):
        model(images(2, 2), T)


@pytest.mark.parametrize(
    ("num_classes", "y", "message"),
    [
        (None, [0, 1], "this model has no classes"),
        (10, None, "conditioned on 10 classes: labels y are needed"),
        (10, [0], r"shape \(1,\): one per image, \(2,\)"),
        (10, [0, 10], r"y=\[0, 10\]: 0 to 9 are allowed"),
        (10, [-1, 3], r"y=\[-1, 3\]: 0 to 9 are allowed"),
    ],
)
def test_labels_that_do_not_fit_are_refused(num_classes: int | None, y: list[int] | None, message: str) -> None:
    model = UNetModel(replace(CONFIG, num_classes=num_classes))
    with pytest.raises(ConfigError, match=message):
        model(images(), T, y=None if y is None else torch.tensor(y))


@pytest.mark.parametrize(
    ("low_res", "message"),
    [
        (None, "low_res is missing"),
        (torch.zeros(2, 1, 8, 8), r"low_res of shape \(2, 1, 8, 8\): \(2, 3, ...\) is needed"),
    ],
)
def test_superres_says_what_it_needs(low_res: Tensor | None, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SuperResModel(CONFIG)(images(), T, low_res=low_res)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"dims": 1, "num_head_channels": 32}, "only dims=2"), ({}, "needs num_head_channels")],
)
def test_attention_pooling_says_what_it_needs(change: dict[str, int], message: str) -> None:
    config = EncoderConfig(image_size=16, model_channels=32, channel_mult=(1, 2), pool="attention", **change)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ConfigError, match=message):
        EncoderUNetModel(config)


def test_one_timestep_for_all_images_is_embedded_once() -> None:
    network = UNetModel(CONFIG).eval()
    timesteps = torch.tensor([7]).expand(4)
    assert len(network.embed(timesteps)) == 1
    torch.testing.assert_close(network.embed(timesteps).expand(4, -1), network.embed(timesteps.clone()))


def test_every_constructor_puts_the_channels_of_weights_innermost() -> None:
    weights = [weight for weight in UNetModel(CONFIG).parameters() if weight.ndim == 4]
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
