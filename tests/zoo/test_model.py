"""Models to folders and back, from every source, and the errors for bad sources."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from golden_values import FOLDER, fill
from golden_values import load as golden
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.errors import CheckpointError, ConfigError, InputError
from rediffuse.files import sha256_of
from rediffuse.models.config import EncoderConfig, UNetConfig
from rediffuse.models.encoder import EncoderUNetModel
from rediffuse.models.superres import SuperResModel
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.model import ClassifierModel, DiffusionModel, Provenance, load, load_classifier

UNET = UNetConfig(image_size=8, model_channels=32, channel_mult=(1, 2), num_res_blocks=1, num_head_channels=16)
ENCODER = EncoderConfig(image_size=8, model_channels=32, channel_mult=(1,), num_res_blocks=1, out_channels=5)
PROCESS = ProcessConfig(schedule="cosine", num_timesteps=100, variance="fixed_large")
HERE = Provenance(source="test", sha256="")
TOLD = {"image_size": 8, "num_head_channels": 16, "use_new_attention_order": False}


def unet(config: UNetConfig = UNET) -> DiffusionModel:
    return DiffusionModel(network=fill(UNetModel(config)), process_config=PROCESS, provenance=HERE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    unet().save(tmp_path / "model")
    return tmp_path / "model"


def rewrite(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def test_a_saved_model_comes_back_as_it_was(tmp_path: Path) -> None:
    model = replace(unet(), training={"steps": 7, "data": "clothing"})
    model.save(tmp_path / "model")
    back = load(tmp_path / "model")
    assert (back.kind, back.network.config, back.process_config) == ("unet", UNET, PROCESS)
    assert back.training == {"steps": 7, "data": "clothing"}
    assert back.provenance.sha256 == sha256_of(tmp_path / "model" / "model.safetensors")
    x, t = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 90])
    for name, tensor in model.network.state_dict().items():
        assert torch.equal(back.network.state_dict()[name], tensor)
    # Loaded networks have another memory layout, with which sums round differently.
    torch.testing.assert_close(back.network(x, t), model.network(x, t))
    assert not back.network.training


def test_an_upsampler_and_a_classifier_come_back_too(tmp_path: Path) -> None:
    upsampler = DiffusionModel(network=fill(SuperResModel(UNET)), process_config=PROCESS, provenance=HERE)
    upsampler.save(tmp_path / "upsampler")
    assert isinstance(load(tmp_path / "upsampler").network, SuperResModel)
    ClassifierModel(network=fill(EncoderUNetModel(ENCODER)), process_config=PROCESS, provenance=HERE).save(
        tmp_path / "classifier"
    )
    assert load_classifier(tmp_path / "classifier").num_classes == 5
    with pytest.raises(CheckpointError, match="a classifier, not a diffusion model"):
        load(tmp_path / "classifier")
    with pytest.raises(CheckpointError, match="a diffusion model, not a classifier"):
        load_classifier(tmp_path / "upsampler")


def test_a_saved_model_has_a_card_that_the_hub_reads(tmp_path: Path) -> None:
    training = {"data": {"folder": "my|photos"}, "steps": 7, "loop": {"batch_size": 4, "seed": 0}, "classes": []}
    replace(unet(), training=training).save(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.to_dict() == {
        "library_name": "rediffuse",
        "pipeline_tag": "unconditional-image-generation",
        "tags": ["diffusion", "guided-diffusion", "arxiv:2105.05233"],
    }
    for row in (
        f"parameters | {sum(tensor.numel() for tensor in UNetModel(UNET).state_dict().values()):,}",
        "channels by level | 32, 64",
        "process | cosine schedule, 100 timesteps",
        "predicts | eps; variance: fixed_large",
        "data | my&#124;photos",
        "steps | 7",
        "batch_size | 4",
    ):
        assert f"\n| {row} |\n" in card.text
    assert 'rediffuse.load("FOLDER")' in card.text


def test_a_classifier_s_card_says_how_it_is_loaded_and_that_its_training_is_not_known(tmp_path: Path) -> None:
    ClassifierModel(network=fill(EncoderUNetModel(ENCODER)), process_config=PROCESS, provenance=HERE).save(tmp_path)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.pipeline_tag == "image-classification"
    assert "rediffuse.load_classifier(" in card.text
    assert "It is not known how it was trained." in card.text


def test_a_card_is_replaced_with_its_model_unless_somebody_wrote_it(tmp_path: Path) -> None:
    unet().save(tmp_path)
    replace(unet(), training={"steps": 8}).save(tmp_path)
    assert "| steps | 8 |" in (tmp_path / "README.md").read_text()
    (tmp_path / "README.md").write_text("mine")
    unet().save(tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"


def test_half_precision_on_disk_is_float32_in_use(tmp_path: Path) -> None:
    unet().save(tmp_path, dtype=torch.float16)
    assert {tensor.dtype for tensor in load_file(tmp_path / "model.safetensors").values()} == {torch.float16}
    assert {tensor.dtype for tensor in load(tmp_path).network.parameters()} == {torch.float32}


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_file_of_weights_needs_only_what_tensors_do_not_tell(suffix: str, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / f"weights.{suffix}"
    state = load_file(folder / "model.safetensors")
    torch.save(state, path) if suffix == "pt" else shutil.copy(folder / "model.safetensors", path)
    model = load(path, network=TOLD, process=PROCESS)
    assert (model.network.config, model.provenance.source) == (UNET, str(path))
    with pytest.raises(
        ConfigError,
        match=r"image_size, use_new_attention_order, num_heads or .*, process: give each of them to `load`, or make a "
        rf"model folder: `rediffuse convert {path} FOLDER` with --image-size, --attention-order, .*, --schedule$",
    ):
        load(path)


def test_the_trained_golden_network_loads_from_its_file() -> None:
    meta, _ = golden("dire_end_to_end")
    told = {name: meta["kwargs"][name] for name in ("image_size", "num_heads")} | {"use_new_attention_order": False}
    process = ProcessConfig(schedule="cosine", variance="fixed_large")
    model = load(FOLDER / "dire_unet.safetensors", network=told, process=process)
    kwargs = {name: tuple(value) if isinstance(value, list) else value for name, value in meta["kwargs"].items()}
    assert model.network.config == UNetConfig(**kwargs)


def test_a_file_with_a_published_name_is_held_against_the_published_configuration(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "lsun_cat.pt"
    torch.save(load_file(folder / "model.safetensors"), path)
    with pytest.raises(CheckpointError, match=r"lsun_cat\.pt: .* was given, but the tensors fit"):
        load(path)


def test_a_published_model_that_is_not_here_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lsun_cat: is not downloaded yet; run `rediffuse models fetch lsun_cat`"):
        load("lsun_cat", cache=tmp_path)


def test_from_pretrained_is_load(folder: Path, tmp_path: Path) -> None:
    assert DiffusionModel.from_pretrained(folder).provenance == load(folder).provenance
    ClassifierModel(network=fill(EncoderUNetModel(ENCODER)), process_config=PROCESS, provenance=HERE).save(tmp_path)
    assert ClassifierModel.from_pretrained(tmp_path, device="cpu").num_classes == 5


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("lsun_catt", "no such folder or file, and no model of that name; did you mean lsun_cat?"),
        ("no/such/folder", "no such folder or file"),
    ],
)
def test_a_source_that_is_nothing_is_one_line(source: str, message: str) -> None:
    with pytest.raises(InputError, match=f"^{source}: {message}".replace("?", r"\?")):
        load(source)


def test_the_run_folder_of_a_training_is_its_model(folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"task": "diffusion", "network": asdict(UNET)}))
    with pytest.raises(
        InputError, match=r"run: this training has not written a model yet; `rediffuse convert` makes one"
    ):
        load(run)
    folder.rename(run / "model")
    assert load(run).provenance.source == str(run)
    assert load(run).network.config == UNET


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is no model of rediffuse .*: it has no config\.json$"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ('{"a": 1}', r"its config\.json is of another program"),
        ('{"architectures": ["CLIPTextModel"], "model_type": "clip_text_model"}', "is of 'clip_text_model'"),
        ('{"_class_name": "UNet2DModel"}', "is of 'UNet2DModel'"),
    ],
)
def test_a_folder_of_another_program_says_what_is_allowed(config: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(config)
    allowed = r"no model of rediffuse \(config\.json with .*\), no pipeline of diffusers \(model_index\.json\), and"
    with pytest.raises(InputError, match=rf"{allowed} no autoencoder of diffusers: .*{reason}$"):
        load(tmp_path)


def test_a_folder_needs_no_configuration_beside_its_own(folder: Path) -> None:
    with pytest.raises(ConfigError, match="has its own configuration"):
        load(folder, process=PROCESS)


def test_weights_of_another_architecture_are_listed_by_name_and_shape(folder: Path) -> None:
    rewrite(folder, network=asdict(replace(UNET, channel_mult=(1, 3))))
    with pytest.raises(CheckpointError, match=r"does not fit this UNetModel: .*96x.* instead|instead of 96"):
        load(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"network": {"image_sise": 8}}, "network: unknown field image_sise; did you mean image_size?"),
        ({"kind": "resnet"}, "kind: "),
        ({"optimizer": {}}, "unknown field optimizer"),
        ({"process": {"schedule": "square"}}, "process: schedule: "),
        ({"network": asdict(replace(UNET, image_size=8)) | {"channel_mult": []}}, "at least one resolution"),
    ],
)
def test_a_configuration_that_is_none_is_one_line(changes: dict[str, Any], message: str, folder: Path) -> None:
    rewrite(folder, **changes)
    with pytest.raises(ConfigError) as caught:
        load(folder)
    assert message in str(caught.value)
    assert "config.json" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["", "{", "[]", "\xff"])
def test_a_configuration_that_is_not_json_is_named(content: str, folder: Path) -> None:
    (folder / "config.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"config\.json: "):
        load(folder)


def test_a_folder_whose_weights_are_damaged_is_one_line(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"model\.safetensors: not a safetensors file, or a damaged one"):
        load(folder)


def test_a_save_that_fails_leaves_no_folder_that_looks_complete(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").mkdir()
    with pytest.raises(Exception, match="could not be written"):
        unet().save(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "model.safetensors"]


def test_a_process_that_the_network_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="needs out_channels=6, but the network has 3"):
        replace(unet(), process_config=ProcessConfig(variance="learned_range"))


def test_a_device_that_is_not_there_is_one_line(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"^device=vulkan:3: "):
        load(folder, device="vulkan:3")
