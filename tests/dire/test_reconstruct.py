"""An image, its inversion and its reconstruction: against the original, and against misuse."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode

import golden_values
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.dire.bands import without_middle
from rediffuse.dire.reconstruct import DireMap, Reconstruction, Reconstructor, network_calls, reconstruct
from rediffuse.dire.settings import DireSettings
from rediffuse.errors import ConfigError, SettingsMismatch
from rediffuse.images.crop import center_crop
from rediffuse.images.decode import decode_bytes
from rediffuse.images.tensors import map_to_uint8_floor, to_tensor, to_uint8_floor
from rediffuse.images.windows import Window
from rediffuse.models.config import UNetConfig
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.model import DiffusionModel, Provenance


@pytest.fixture(scope="module")
def golden() -> tuple[dict, dict]:
    return golden_values.load("dire_end_to_end")


@pytest.fixture(scope="module")
def golden_model(golden) -> DiffusionModel:
    meta, _ = golden
    config = UNetConfig(**{key: tuple(v) if isinstance(v, list) else v for key, v in meta["kwargs"].items()})
    network = UNetModel(config)
    network.load_state_dict({k: v.float() for k, v in load_file(golden_values.FOLDER / meta["weights"]).items()})
    return DiffusionModel(
        network=network.eval(),
        process_config=ProcessConfig(schedule=meta["schedule"], prediction="eps", variance="fixed_large"),
        provenance=Provenance(source="golden", sha256="0" * 64),
    )


def images(count: int, side: int = 16) -> torch.Tensor:
    return golden_values.rnd("images", count, 3, side, side).clamp(-1, 1)


def test_files_become_the_original_x_0(golden) -> None:
    meta, arrays = golden
    for index, name in enumerate(meta["files"]):
        image = decode_bytes(arrays[f"file_{name}"].numpy().tobytes(), name)
        x_0 = to_tensor(center_crop(image.pixels, meta["image_size"]))
        assert torch.equal(x_0, arrays["x_0"][index]), name


@pytest.mark.parametrize("depth", [0, 5])
def test_reconstruction_is_the_original_one(golden, golden_model: DiffusionModel, depth: int) -> None:
    _, arrays = golden
    settings = DireSettings.for_model(golden_model, steps=20, depth=depth or None, grid="compat")
    result = reconstruct(golden_model, arrays["x_0"], settings)
    assert golden_values.relative_error(result.x_T, arrays[f"x_T_{depth}"]) < 1e-3
    assert golden_values.relative_error(result.x_0_hat, arrays[f"x_0_hat_{depth}"]) < 1e-3
    dire, original = map_to_uint8_floor(result.map.values), arrays[f"dire_u8_{depth}"].numpy()
    assert np.mean(dire != original) <= 1e-3
    assert np.mean(to_uint8_floor(result.x_0_hat) != arrays[f"recon_u8_{depth}"].numpy()) <= 1e-3


@pytest.mark.parametrize("grid", ["compat", "aligned"])
def test_results_do_not_depend_on_the_batch(golden, golden_model: DiffusionModel, grid) -> None:
    x_0 = golden[1]["x_0"][:3]
    settings = DireSettings.for_model(golden_model, steps=2, grid=grid)
    together = reconstruct(golden_model, x_0, settings)
    apart = [reconstruct(golden_model, part, settings) for part in x_0.split((1, 2))]
    # Convolutions round differently for other batch sizes: 1e-6 of the output in every call of the network.
    assert torch.allclose(torch.cat([part.x_0_hat for part in apart]), together.x_0_hat, rtol=0, atol=5e-5)


def test_class_decides_what_a_class_conditional_model_returns(class_model: DiffusionModel) -> None:
    settings = DireSettings.for_model(class_model, steps=2)
    one, other = (reconstruct(class_model, images(1), settings, labels=[label]).x_0_hat for label in (0, 2))
    assert not torch.equal(one, other)


def test_class_conditional_model_refuses_labels_that_do_not_fit(class_model: DiffusionModel) -> None:
    with pytest.raises(ConfigError, match="one class from 0 to 2 per image"):
        reconstruct(class_model, images(2), DireSettings.for_model(class_model, steps=2), labels=[0, 3])


def test_labels_for_an_unconditional_model_are_refused(model: DiffusionModel) -> None:
    with pytest.raises(ConfigError, match="not class-conditional"):
        reconstruct(model, images(1), DireSettings.for_model(model, steps=2), labels=torch.tensor([0]))


@pytest.mark.parametrize(
    ("x_0", "reason"),
    [
        (images(1, side=8), r"given \(1, 3, 8, 8\) float32; \(N, 3, 16, 16\) float32 is allowed"),
        (images(1).double(), "float64"),
        (images(0), "^x_0: given no image; at least 1 is needed$"),
        (images(1) * 255, "numbers from -1 to 1 are allowed"),
        (images(1) * 1.0001, "x_0: values span -1.0001 to 1.0001; numbers from -1 to 1 are allowed"),
        (images(1) * torch.nan, "nan to nan"),
    ],
    ids=["shape", "dtype", "empty", "range", "just above", "nan"],
)
def test_other_images_are_refused(model: DiffusionModel, x_0: torch.Tensor, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        reconstruct(model, x_0, DireSettings.for_model(model, steps=2))


def test_settings_of_another_model_are_refused(model: DiffusionModel) -> None:
    settings = replace(DireSettings.for_model(model, steps=2), model_sha256="f" * 64, image_size=32)
    line = r"^the model has other settings: image_size=32 \(there 16\), model_sha256=f+ \(there 0+\)$"
    with pytest.raises(SettingsMismatch, match=line):
        reconstruct(model, images(1, side=32), settings)


def test_a_model_of_gray_images_is_refused(model: DiffusionModel) -> None:
    gray = replace(model, network=UNetModel(replace(model.network.config, in_channels=1, out_channels=1)).eval())
    with pytest.raises(ConfigError, match=r"^test: a unet of 1 channels in 2 .* cannot reconstruct images; "):
        Reconstructor(gray, DireSettings.for_model(model, steps=2))
    with pytest.raises(ConfigError, match="cannot reconstruct images"):
        DireSettings.for_model(gray)


def test_a_model_of_images_has_no_autoencoder_to_use_alone(model: DiffusionModel) -> None:
    with pytest.raises(ConfigError, match=r"^solver=autoencoder: test has no autoencoder; a latent model has$"):
        DireSettings.for_model(model, solver="autoencoder")


def test_grid_without_an_integer_stride_is_refused_at_once(model: DiffusionModel) -> None:
    with pytest.raises(ConfigError, match="ddim600"):
        DireSettings.for_model(model, steps=600)


def test_settings_have_the_fields_of_a_reconstruction_and_no_others(model: DiffusionModel) -> None:
    settings = DireSettings.for_model(model, depth=3, crop="squash")
    assert settings == DireSettings(image_size=16, model_sha256="0" * 64, depth=3, crop="squash")
    with pytest.raises(TypeError, match="dept"):
        DireSettings.for_model(model, dept=3)


def test_without_settings_those_of_the_model_are_taken(model: DiffusionModel) -> None:
    assert reconstruct(model, images(1)).settings == DireSettings.for_model(model)


def test_what_is_printed_is_shapes_and_settings_not_pixels(model: DiffusionModel) -> None:
    settings = DireSettings.for_model(model, steps=2, depth=1)
    reconstruction = reconstruct(model, images(2), settings)
    shape = "(2, 3, 16, 16) float32"
    assert repr(reconstruction) == f"Reconstruction(x_0={shape}, x_T={shape}, x_0_hat={shape}, settings={settings})"
    assert repr(reconstruction.map) == f"DireMap(values={shape}, settings={settings})"
    two_views = reconstruct(model, images(2), replace(settings, second_view=True))
    assert f"x_0_hat={shape}, second={shape}, " in repr(two_views)
    assert repr(model) == "DiffusionModel('test', unet, 16 px, 272,803 parameters, cpu)"


def test_network_in_training_mode_is_refused(model: DiffusionModel) -> None:
    settings = DireSettings.for_model(model, steps=2)
    model.network.train()
    try:
        with pytest.raises(ConfigError, match=r"^model\.network is in training mode, .*: call \.eval\(\) first$"):
            reconstruct(model, images(1), settings)
    finally:
        model.network.eval()


def test_the_two_half_precisions_round_differently(model: DiffusionModel) -> None:
    settings = DireSettings.for_model(model, steps=2)
    fp16, bf16 = (reconstruct(model, images(1), replace(settings, precision=name)).x_0_hat for name in ("fp16", "bf16"))
    assert not torch.equal(fp16, bf16)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_half_precision_stays_in_the_network(model: DiffusionModel, precision) -> None:
    settings = DireSettings.for_model(model, steps=2, precision=precision)
    half = reconstruct(model, images(2), settings)
    full = reconstruct(model, images(2), DireSettings.for_model(model, steps=2))
    assert half.x_0_hat.dtype == half.x_T.dtype == torch.float32
    assert {parameter.dtype for parameter in model.network.parameters()} == {torch.float32}
    assert not torch.equal(half.x_0_hat, full.x_0_hat)
    assert (half.x_T - full.x_T).abs().mean() < 0.05


def test_result_can_enter_a_graph(model: DiffusionModel) -> None:
    result = reconstruct(model, images(1), DireSettings.for_model(model, steps=2))
    weight = torch.ones(3, requires_grad=True)
    (result.map.values * weight[:, None, None]).sum().backward()
    assert weight.grad is not None


def test_map_is_the_absolute_error_between_0_and_2(model: DiffusionModel) -> None:
    result = reconstruct(model, images(2), DireSettings.for_model(model, steps=2, clip=False))
    assert torch.equal(result.error, result.x_0 - result.x_0_hat)
    assert result.error.abs().max() > 2
    assert torch.equal(result.map.values, result.error.abs().clamp(max=2))


@pytest.mark.parametrize(
    "values",
    [
        torch.full((1, 3, 16, 16), 2.1),
        torch.full((1, 3, 16, 16), -0.1),
        torch.full((1, 3, 16, 16), torch.nan),
        torch.zeros(3, 16, 16),
        torch.zeros(1, 3, 16, 16, dtype=torch.float64),
    ],
)
def test_what_is_no_map_is_refused(model: DiffusionModel, values: torch.Tensor) -> None:
    with pytest.raises(ConfigError, match="DireMap"):
        DireMap(values=values, settings=DireSettings.for_model(model))


@pytest.mark.parametrize("error", [0.0, 2.0])
def test_an_error_of_nothing_and_one_from_black_to_white_are_maps(model: DiffusionModel, error: float) -> None:
    assert DireMap(values=torch.full((1, 3, 16, 16), error), settings=DireSettings.for_model(model))


@pytest.mark.parametrize("preset", ["freeu", "freeu:1.3", "sharpen", "lowpass"])
def test_a_preset_acts_there_and_back(model: DiffusionModel, preset: str) -> None:
    plain, filtered = (
        reconstruct(model, images(2), DireSettings.for_model(model, steps=4, frequency=frequency))
        for frequency in ("trained", preset)
    )
    assert not torch.allclose(filtered.x_T, plain.x_T, atol=1e-3)
    assert not torch.allclose(filtered.x_0_hat, plain.x_0_hat, atol=1e-3)


def test_a_network_without_gates_reconstructs_the_same_when_they_are_off(model: DiffusionModel) -> None:
    plain, off = (
        reconstruct(model, images(2), DireSettings.for_model(model, steps=4, frequency=frequency)).x_0_hat
        for frequency in ("trained", "off")
    )
    assert torch.equal(plain, off)


def test_the_second_view_is_the_reconstruction_of_the_image_without_its_middle(model: DiffusionModel) -> None:
    settings = DireSettings.for_model(model, steps=4, depth=2, grid="aligned", second_view=True)
    x_0 = images(3)
    both = reconstruct(model, x_0, settings)
    plain = replace(settings, second_view=False)
    assert both.second is not None
    assert torch.equal(both.x_0_hat, reconstruct(model, x_0, plain).x_0_hat)
    assert torch.equal(both.second, reconstruct(model, without_middle(x_0), plain).x_0_hat)
    assert reconstruct(model, x_0, plain).second is None
    assert torch.equal(both[1:].second, both.second[1:])


def test_a_part_of_the_rows_has_their_windows_and_a_copy_has_all(model: DiffusionModel) -> None:
    windows = tuple(Window(top=0, left=8 * index, size=16) for index in range(3))
    settings = DireSettings.for_model(model, crop="windows:3")
    all_rows = Reconstruction(x_0=images(3), x_T=images(3), x_0_hat=images(3), settings=settings, windows=windows)
    assert all_rows[1:].windows == windows[1:]
    assert torch.equal(all_rows[1:].x_0, images(3)[1:])
    assert all_rows.to("meta").windows == windows
    assert {tensor.device.type for tensor in all_rows.to("meta").tensors.values()} == {"meta"}


def test_network_calls_are_counted(model: DiffusionModel) -> None:
    calls = []
    handle = model.network.register_forward_hook(lambda *_: calls.append(1))
    plain = DireSettings.for_model(model, steps=5, grid="aligned")
    for fields, expected in (
        ({}, 10),
        ({"depth": 3}, 6),
        ({"depth": 3, "second_view": True}, 12),
        ({"depth": 3, "solver": "heun"}, 10),
        ({"depth": 3, "solver": "dpm_solver"}, 6),
    ):
        calls.clear()
        settings = replace(plain, **fields)
        reconstruct(model, images(2), settings)
        assert len(calls) == network_calls(model, settings) == expected
        assert network_calls(model, replace(settings, crop="windows:3")) == 3 * expected
    handle.remove()
    assert network_calls(model, replace(plain, solver="autoencoder", second_view=True)) == 2  # of the autoencoder


class HostReads(TorchDispatchMode):
    """Counts the reads of a tensor's value by Python, each of which would synchronise with a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.aten._local_scalar_dense.default
        return func(*args, **(kwargs or {}))


def test_the_steps_of_a_reconstruction_read_no_values_from_the_device(model: DiffusionModel) -> None:
    counts = []
    for depth in (1, 4):
        with HostReads() as reads:
            reconstruct(model, images(2), DireSettings.for_model(model, steps=4, depth=depth))
        counts.append(reads.count)
    assert counts[0] == counts[1]


def test_the_weights_are_converted_once_for_all_batches(model: DiffusionModel) -> None:
    run = Reconstructor(model, DireSettings.for_model(model, steps=2, precision="bf16"))
    first = run(images(1))
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as seen:
        again = run(images(1))
    weights = {tuple(weight.shape) for weight in model.network.parameters() if weight.ndim == 4}
    copied = {tuple(event.input_shapes[0]) for event in seen.events() if event.name == "aten::_to_copy"}
    assert not copied & weights
    torch.testing.assert_close(first.x_0_hat, again.x_0_hat, atol=0, rtol=0)
