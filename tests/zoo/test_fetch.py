"""Published models: download, verification against the list or the first download, and the list itself."""

import gzip
import hashlib
import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rediffuse.diffusion.script_flags import ProcessFlags, process_config
from rediffuse.errors import ConfigError, FetchError, InputError
from rediffuse.models.script_flags import ClassifierFlags, UNetFlags, classifier_config, superres_config, unet_config
from rediffuse.zoo.fetch import fetch_published, known_sha256, published_path
from rediffuse.zoo.published import FEATURE_NETWORKS, PUBLISHED, PublishedFile

GOLDEN = Path(__file__).parents[1] / "golden" / "published_checkpoints.json.gz"
LAYOUTS = json.loads(gzip.decompress(GOLDEN.read_bytes()))


def checkpoint(**options: bool) -> bytes:
    content = io.BytesIO()
    torch.save({"a.weight": torch.arange(1000.0), "a.bias": torch.zeros(10)}, content, **options)
    return content.getvalue()


CONTENT = checkpoint()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def model(server):
    server.content = CONTENT
    return replace(PUBLISHED["64x64_classifier"], address=server.url, parameters=1010)


def test_the_list_is_the_published_one() -> None:
    assert [model.file for model in PUBLISHED.values()] == list(LAYOUTS)
    assert [model.parameters for model in PUBLISHED.values()] == [layout["parameters"] for layout in LAYOUTS.values()]


@pytest.mark.parametrize("file", LAYOUTS)
def test_networks_and_processes_follow_from_the_published_flags(file: str) -> None:
    model, flags = PUBLISHED[file.removesuffix(".pt")], dict(LAYOUTS[file]["flags"])
    if model.kind == "encoder":
        assert model.network == classifier_config(ClassifierFlags(**flags))
        return
    steps = {name: flags.pop(name) for name in ("diffusion_steps", "noise_schedule")}
    assert model.process == process_config(ProcessFlags(learn_sigma=flags["learn_sigma"], **steps))
    if model.kind == "superres":
        flags["image_size"] = flags.pop("large_size")
        del flags["small_size"]
        assert model.network == superres_config(UNetFlags(**flags))
    else:
        assert model.network == unet_config(UNetFlags(**flags))


def test_the_first_download_is_recorded_and_later_ones_are_held_against_it(model, server, tmp_path: Path) -> None:
    path = fetch_published(model, tmp_path)
    assert path == published_path(model, tmp_path)
    assert path.with_name("64x64_classifier.pt.sha256").read_text() == f"{SHA256}  64x64_classifier.pt\n"
    assert known_sha256(model, path) == SHA256

    path.unlink()
    server.content = CONTENT[::-1]
    with pytest.raises(FetchError, match=f"but {SHA256} is expected; the file was deleted"):
        fetch_published(model, tmp_path)
    assert not path.exists()


def test_garbage_in_the_middle_of_a_file_without_a_known_checksum_is_noticed(model, server, tmp_path: Path) -> None:
    place = CONTENT.index(torch.arange(1000.0).numpy().tobytes()) + 2000
    server.content = CONTENT[:place] + b"garbage" + CONTENT[place + 7 :]
    with pytest.raises(FetchError, match=r"is damaged: archive/data/\d; the file was deleted"):
        fetch_published(model, tmp_path)


def test_the_older_format_of_checkpoints_is_fetched_too(model, server, tmp_path: Path) -> None:
    server.content = checkpoint(_use_new_zipfile_serialization=False)
    assert fetch_published(model, tmp_path).read_bytes() == server.content


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"<html>please log in</html>", "has 26 bytes, but at least 4040 are expected"),
        (b"<html>please log in</html>" * 1000, "not a checkpoint, or a damaged one"),
        (CONTENT[:-1], "not a checkpoint, or a damaged one"),
        (CONTENT[:4100], "not a checkpoint, or a damaged one"),
        (checkpoint(_use_new_zipfile_serialization=False)[:-1], "not a checkpoint, or a damaged one"),
    ],
)
def test_without_a_known_checksum_a_file_that_is_no_whole_checkpoint_is_refused(
    content: bytes, fault: str, model, server, tmp_path: Path
) -> None:
    server.content = content
    with pytest.raises(FetchError, match=rf"weights\.pt: {fault}; the file was deleted"):
        fetch_published(model, tmp_path)
    assert [path.name for path in (tmp_path / "published").iterdir()] == [".64x64_classifier.pt.lock"]


def test_a_checkpoint_of_another_network_is_refused(model, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match="holds 1010 parameters, but 1000 are expected"):
        fetch_published(replace(model, parameters=1000), tmp_path)


@pytest.mark.parametrize("damaged", [b"", b"\xff\xfe", b"0123  weights.pt\n"])
def test_a_damaged_record_of_the_checksum_is_one_line(damaged: bytes, model, tmp_path: Path) -> None:
    record = fetch_published(model, tmp_path).with_name("64x64_classifier.pt.sha256")
    record.write_bytes(damaged)
    with pytest.raises(InputError, match=r"classifier\.pt\.sha256: does not begin with a SHA-256; delete it and 64x64"):
        fetch_published(model, tmp_path)


@pytest.fixture
def script(server) -> PublishedFile:
    server.content = CONTENT
    return replace(FEATURE_NETWORKS["inception-2015-12-05"], address=server.url, min_bytes=len(CONTENT))


def test_a_network_of_features_is_fetched_as_models_are(script: PublishedFile, tmp_path: Path) -> None:
    path = fetch_published(script, tmp_path)
    assert (path.name, path.read_bytes()) == ("inception-2015-12-05.pt", CONTENT)
    assert known_sha256(script, path) == SHA256


def test_a_network_of_features_that_is_cut_is_refused(script: PublishedFile, server, tmp_path: Path) -> None:
    server.content = CONTENT[:-1]
    with pytest.raises(FetchError, match="is not a TorchScript file, or not a complete one; the file was deleted"):
        fetch_published(replace(script, min_bytes=1000), tmp_path)
    assert not published_path(script, tmp_path).exists()


def test_a_file_is_kept_only_if_it_is_what_the_user_says(script: PublishedFile, tmp_path: Path) -> None:
    with pytest.raises(FetchError, match=f"has sha256 {SHA256}, but 0+ is expected; the file was deleted"):
        fetch_published(script, tmp_path, sha256="0" * 64)
    assert not published_path(script, tmp_path).exists()
    path = fetch_published(script, tmp_path, sha256=SHA256.upper())
    assert known_sha256(script, path) == SHA256
    with pytest.raises(ConfigError, match=rf"sha256=0+: .*\.pt\.sha256 has {SHA256} for inception"):
        fetch_published(script, tmp_path, sha256="0" * 64)


def test_folders_of_downloads_are_for_the_user_only(model, tmp_path: Path) -> None:
    path = fetch_published(model, tmp_path / "cache" / "rediffuse")
    assert {folder.stat().st_mode & 0o777 for folder in path.parents if tmp_path in folder.parents} == {0o700}


def test_a_fetched_model_needs_no_server(model, tmp_path: Path) -> None:
    fetch_published(model, tmp_path)
    unreachable = replace(model, address="http://127.0.0.1:1/weights.pt")
    assert fetch_published(unreachable, tmp_path).read_bytes() == CONTENT


def test_a_file_that_changed_on_disk_is_noticed(model, tmp_path: Path) -> None:
    fetch_published(model, tmp_path).write_bytes(CONTENT + b"!")
    with pytest.raises(FetchError, match="delete it to download it again"):
        fetch_published(model, tmp_path)
