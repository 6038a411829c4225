"""rediffuse's own U-Nets as pipelines of diffusers: equal outputs, or an error that names the reason."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.ddpm.pipeline_ddpm import DDPMPipeline

import rediffuse
from golden_values import fill
from rediffuse.cli.main import main
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.errors import ConfigError
from rediffuse.models.config import FrequencyConfig, UNetConfig
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.convert import convert
from rediffuse.zoo.find import find
from rediffuse.zoo.folder import Provenance

TINY: dict[str, Any] = {"image_size": 8, "model_channels": 32, "num_res_blocks": 1, "channel_mult": (1, 2)}


def saved(folder: Path, process: ProcessConfig | None = None, **fields: Any) -> Path:
    network = fill(UNetModel(UNetConfig(**(TINY | fields))))
    rediffuse.DiffusionModel(
        network=network,
        process_config=process or ProcessConfig(variance="fixed_small"),
        provenance=Provenance(source="test", sha256=""),
    ).save(folder)
    return folder


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"attention_resolutions": (2,), "num_head_channels": 32},
        {"attention_resolutions": (1, 2), "use_new_attention_order": True},
        {"attention_resolutions": (2,), "num_heads": 4, "resblock_updown": True, "use_scale_shift_norm": True},
        {"num_res_blocks": 2, "channel_mult": (1, 1, 2), "attention_resolutions": (2,), "num_classes": 3},
    ],
    ids=["plain", "head_channels", "new_order", "adm", "classes"],
)
def test_outputs_are_equal(fields: dict[str, Any], tmp_path: Path) -> None:
    source = saved(tmp_path / "model", **fields)
    convert(find(source), tmp_path / "pipeline", to="diffusers")
    ours, theirs = rediffuse.load(source), DDPMPipeline.from_pretrained(tmp_path / "pipeline")
    x, t = torch.randn(2, 3, 8, 8), torch.tensor([3, 700])
    y = None if ours.num_classes is None else torch.tensor([0, 2])
    with torch.no_grad():
        expected = ours.network(x, t, y)
        torch.testing.assert_close(theirs.unet(x, t, class_labels=y).sample, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("process", [{"schedule": "cosine"}, {"num_timesteps": 500}, {"prediction": "v"}])
def test_the_process_is_the_same(process: dict[str, Any], tmp_path: Path) -> None:
    given = ProcessConfig(**({"variance": "learned_range"} | process))
    convert(find(saved(tmp_path / "model", given, out_channels=6)), tmp_path / "pipeline", to="diffusers")
    ours, theirs = given.build(), rediffuse.load(tmp_path / "pipeline").process()
    torch.testing.assert_close(
        *(torch.from_numpy(one.schedule.alpha_bar) for one in (ours, theirs)), rtol=1e-4, atol=1e-7
    )
    assert (ours.prediction, ours.variance) == (theirs.prediction, theirs.variance)


def test_the_embedded_model_becomes_a_pipeline_with_equal_samples(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["convert", "default", str(tmp_path / "pipeline"), "--to", "diffusers", "--precision", "fp32"]) == 0
    settings = rediffuse.SamplingSettings(steps=4, spacing="timesteps:0,300,600,900")
    images = [
        next(rediffuse.sample(rediffuse.load(source), [0], settings)) for source in ("default", tmp_path / "pipeline")
    ]
    torch.testing.assert_close(images[0], images[1], rtol=0, atol=1e-3)
    assert main(["convert", "default", str(tmp_path / "pipeline"), "--to", "diffusers"]) == 2
    assert "exists already; --force replaces it" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fields", "process", "reason"),
    [
        ({"conv_resample": False}, {}, "conv_resample=False"),
        ({"frequency": FrequencyConfig()}, {}, "spectral gates"),
        ({"num_heads_upsample": 2}, {}, "num_heads_upsample=2"),
        ({"channel_mult": (2, 2)}, {}, r"channel_mult=\(2\.?0?, 2\.?0?\) \(1 at full resolution is needed\)"),
        ({"num_heads": 2, "attention_resolutions": (1,)}, {}, r"num_heads=2 \(one number of channels per head"),
        ({}, {"prediction": "x_prev"}, "prediction=x_prev"),
        ({}, {"num_timesteps": 500, "rescale_timesteps": True}, "rescale_timesteps"),
    ],
)
def test_what_diffusers_cannot_express_is_named_and_nothing_is_written(
    fields: dict[str, Any], process: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    source = saved(tmp_path / "model", ProcessConfig(**({"variance": "fixed_small"} | process)), **fields)
    with pytest.raises(ConfigError, match=f"diffusers cannot express {reason}"):
        convert(find(source), tmp_path / "pipeline", to="diffusers")
    assert not (tmp_path / "pipeline").exists()
