"""Models on the hub: pushed to a real server, loaded from it by name, and from the cache without a network."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

import pipelines
import rediffuse
from hub_server import HubServer, serve_hub
from rediffuse.errors import FetchError, StorageError
from rediffuse.zoo.folder import Provenance
from rediffuse.zoo.hub import fetch_from_hub, push_folder
from sampling.tiny import unet

PROGRAM = """
import json, sys, rediffuse
model = rediffuse.load(sys.argv[1])
address = model.push_to_hub("owner/name", private=True)
loaded = rediffuse.load("owner/name")
again = rediffuse.DiffusionModel.from_pretrained("owner/name", revision=loaded.provenance.source.partition("@")[2])
print(json.dumps([address, *(vars(model.provenance) for model in (model, loaded, again))]))
"""


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with serve_hub() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    unet().save(tmp_path / "model")
    return tmp_path / "model"


def test_a_model_is_pushed_and_loaded_by_its_name(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    environment = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.token, "HF_HOME": str(tmp_path / "cache")}
    words = [sys.executable, "-c", PROGRAM, str(folder)]
    ended = subprocess.run(words, capture_output=True, text=True, env=os.environ | environment)
    assert ended.returncode == 0, ended.stderr
    address, *(local, loaded, again) = json.loads(ended.stdout)
    assert address == f"{hub.url}/owner/name/commit/{0:040x}"
    assert loaded == again == {"source": f"owner/name@{0:040x}", "sha256": local["sha256"], "parts": {}}
    assert [Provenance(**given).revision for given in (local, loaded)] == [None, f"{0:040x}"]
    assert hub.visibility == "private"
    [files] = hub.commits
    assert files.keys() == {"README.md", "config.json", "model.safetensors"}
    assert b'rediffuse.load("owner/name")\n' in files["README.md"]


def push(folder: Path, hub: HubServer, **options: str) -> str:
    return push_folder(folder, "owner/name", endpoint=hub.url, **{"token": hub.token, **options})


def test_a_card_that_somebody_wrote_on_the_hub_stays(
    hub: HubServer, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    push(folder, hub)
    generated = (folder / "README.md").read_bytes()
    hub.commits.append(hub.commits[-1] | {"README.md": generated + b"an earlier one"})
    push(folder, hub)
    assert hub.commits[-1]["README.md"] == generated
    hub.commits.append(hub.commits[-1] | {"README.md": b"mine", "config.json": b"{}"})
    push(folder, hub)
    assert hub.commits[-1]["README.md"] == b"mine"
    assert hub.commits[-1]["config.json"] == (folder / "config.json").read_bytes()


def test_a_branch_or_commit_is_named_after_an_at(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    push(folder, hub)
    hub.commits.append(dict.fromkeys(hub.commits[0], b""))
    first = fetch_from_hub(f"owner/name@{0:040x}", tmp_path / "cache", endpoint=hub.url)
    assert (first / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    assert (fetch_from_hub("owner/name", tmp_path / "cache", endpoint=hub.url) / "config.json").read_bytes() == b""


def test_a_hub_that_refuses_is_one_line(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(
        StorageError, match=r"^owner/name: could not be pushed to the hub: .*401 Unauthorized"
    ) as caught:
        push(folder, hub, token="hf_wrong")
    assert "\n" not in str(caught.value)
    with pytest.raises(FetchError, match=r"^owner/other: could not be fetched from the hub: .*404") as missing:
        fetch_from_hub("owner/other", tmp_path, endpoint=hub.url)
    assert "\n" not in str(missing.value)
    assert hub.commits == []


def test_a_hub_that_cannot_be_reached_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="owner/name: could not be fetched from the hub") as caught:
        fetch_from_hub("owner/name", tmp_path, endpoint="http://127.0.0.1:1")
    assert "\n" not in str(caught.value)


def test_a_model_of_the_hub_that_was_fetched_needs_no_network(tmp_path: Path) -> None:
    commit = "0123456789" * 4
    repository = tmp_path / "models--owner--name"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    assert fetch_from_hub("owner/name", tmp_path, endpoint="http://127.0.0.1:1") == snapshot


def test_a_pipeline_is_fetched_without_other_forms_of_its_weights_and_needs_no_network_later(
    hub: HubServer, tmp_path: Path
) -> None:
    pipelines.pixel().save_pretrained(tmp_path / "saved")
    saved = {str(path.relative_to(tmp_path / "saved")): path for path in (tmp_path / "saved").rglob("*.*")}
    others = [
        "unet/weights.bin",
        "unet/model.onnx_data",
        "unet/model.fp16.safetensors",
        "safety_checker/model.safetensors",
        "all.ckpt",
    ]
    hub.commits.append({name: path.read_bytes() for name, path in saved.items()} | dict.fromkeys(others, b"large"))
    folder = fetch_from_hub("owner/name", tmp_path / "cache", endpoint=hub.url)
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.*")} == saved.keys()
    assert fetch_from_hub("owner/name", tmp_path / "cache", endpoint="http://127.0.0.1:1") == folder
    expected = rediffuse.load(tmp_path / "saved").provenance.sha256
    assert rediffuse.load(folder).provenance.sha256 == expected


def test_the_autoencoder_of_a_pipeline_is_fetched_alone_and_has_its_commit(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipelines.ldm().save_pretrained(tmp_path / "saved")
    saved = {str(path.relative_to(tmp_path / "saved")): path for path in (tmp_path / "saved").rglob("*.*")}
    hub.commits.append({name: path.read_bytes() for name, path in saved.items()})
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}")
    model = rediffuse.load("owner/name/vqvae", cache=tmp_path / "cache")
    assert model.provenance.source == f"owner/name/vqvae@{0:040x}"
    settings = rediffuse.DireSettings.for_model(model, solver="autoencoder")
    assert settings.model_revision == f"{0:040x}"
    assert settings.model_parts == {"vae": rediffuse.load(pipelines.ldm()).provenance.parts["vqvae"]}
    fetched = {path.name for path in (tmp_path / "cache").rglob("*.safetensors")}
    assert fetched == {"diffusion_pytorch_model.safetensors"}
    assert not [*(tmp_path / "cache").rglob("unet")]


def test_a_gated_model_names_its_licence(hub: HubServer, tmp_path: Path) -> None:
    hub.commits.append({"model_index.json": b"{}"})
    hub.is_gated = True
    with pytest.raises(FetchError, match=r"^owner/name: could not be fetched from the hub: .*[Aa]ccess.*restricted"):
        fetch_from_hub("owner/name", tmp_path, endpoint=hub.url)
