"""`rediffuse eval fid` and `rediffuse eval nll` as they are called."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants
from PIL import Image

from feature_networks import Detour, save_inception
from golden_values import fill
from rediffuse.cli.main import main
from rediffuse.diffusion.config import ProcessConfig
from rediffuse.models.config import UNetConfig
from rediffuse.models.unet import UNetModel
from rediffuse.zoo.fetch import default_cache, fetch_published
from rediffuse.zoo.model import DiffusionModel, Provenance
from rediffuse.zoo.published import FEATURE_NETWORKS
from sampling.tiny import upsampler


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_inception(tmp_path_factory.mktemp("network") / "inception.pt"))


@pytest.fixture
def samples(tmp_path: Path) -> str:
    np.savez(tmp_path / "samples.npz", np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), dtype=np.uint8))
    return str(tmp_path / "samples.npz")


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    rng = np.random.default_rng(1)
    (tmp_path / "pictures").mkdir()
    for index in range(5):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "pictures" / f"{index}.png")
    return str(tmp_path / "pictures")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("model")
    network = fill(UNetModel(UNetConfig(image_size=8, model_channels=32, num_res_blocks=1, channel_mult=(1,))))
    process = ProcessConfig(variance="fixed_large", num_timesteps=50)
    DiffusionModel(network=network, process_config=process, provenance=Provenance(source="test", sha256="")).save(
        folder
    )
    return str(folder)


def fid(*words: str) -> int:
    return main(["eval", "fid", *words, "--device", "cpu"])


def test_a_table_and_json_of_the_same_figures(
    samples: str, pictures: str, network: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (samples, pictures, "--network", network, "--cache", str(tmp_path / "cache"))
    assert fid(*words) == 0
    table = dict(line.rsplit(maxsplit=1) for line in capsys.readouterr().out.splitlines()[:5])
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert fid(*words, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    names = {"FID": "fid", "sFID": "sfid", "Inception score": "inception_score", "Precision": "precision"}
    for shown, name in names.items():
        assert float(table[shown]) == pytest.approx(record[name], abs=1e-4)
    assert (record["num_samples"], record["num_reference"]) == (6, 5)


def test_a_figure_that_cannot_be_had_says_why(samples: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = save_inception(tmp_path / "network.pt", Detour)
    np.savez(tmp_path / "reference.npz", mu=np.zeros(12), sigma=np.eye(12))
    assert fid(samples, str(tmp_path / "reference.npz"), "--network", str(network)) == 0
    printed = capsys.readouterr().out
    assert "sFID             - (its layers, called one by one, give other features than the network itself)" in printed
    assert "Recall           - (one of the two has only statistics" in printed
    assert "6 images against given statistics" in printed


def test_an_unreadable_image_is_reported(
    samples: str, pictures: str, network: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path(pictures, "2.png").write_bytes(b"no image")
    assert fid(samples, pictures, "--network", network) == 1
    printed = capsys.readouterr()
    assert "2.png" in printed.err
    assert "6 images against 4 images" in printed.out


def test_a_fetched_network_is_run_under_its_name_as_long_as_it_is_what_was_fetched(
    samples: str,
    network: str,
    server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path))  # where downloads lie
    words = (samples, samples, "--network", "inception-2015-12-05", "--json")
    assert fid(*words) == 2
    assert "is not downloaded yet; run `rediffuse models fetch inception-2015-12-05`" in capsys.readouterr().err
    server.content = Path(network).read_bytes()
    script = replace(FEATURE_NETWORKS["inception-2015-12-05"], address=server.url, min_bytes=1000)
    path = fetch_published(script, default_cache())
    assert fid(*words) == 0
    sha256 = hashlib.sha256(server.content).hexdigest()
    assert json.loads(capsys.readouterr().out)["network_sha256"] == sha256
    save_inception(path, Detour)
    assert fid(*words) == 2
    assert f"but {sha256} is expected; nothing of it was run" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--network", "none.pt"), "none.pt: there is no such file"),
        (("--network", "inception"), "inception: there is no such file; did you mean inception-2015-12-05?"),
        (("--network", "{network}", "--sha256", "00"), "nothing of it was run"),
        (("--network", "{network}", "--batch-size", "0"), "batch_size=0: at least 1 is needed"),
        (("--network", "{network}", "--size", "0"), "size=0: at least 1 is needed"),
        (("--network", "{network}", "--device", "vulkan:3"), "device=vulkan:3"),
    ],
)
def test_a_wrong_call_of_fid_is_one_line(
    flags: tuple[str, ...], line: str, samples: str, network: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "fid", samples, samples, *(flag.format(network=network) for flag in flags)]) == 2
    assert line in capsys.readouterr().err.splitlines()[-1]


def nll(*words: str) -> int:
    return main(["eval", "nll", *words, "--device", "cpu"])


def test_bits_per_dimension_are_the_sum_of_the_printed_terms(
    pictures: str, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "terms.npz")
    assert nll(pictures, "--model", model, "--steps", "5", "--out", out) == 0
    printed = capsys.readouterr().out
    assert "(5 images, 5 timesteps)" in printed
    total, *terms = (
        float(line.removeprefix("  t > 0").removeprefix("  t = 0").split("  (")[0].split()[-1])
        for line in printed.splitlines()[:4]
    )
    assert total == pytest.approx(sum(terms), abs=2e-4)
    with np.load(out) as saved:
        assert saved["total_bpd"].mean() == pytest.approx(total, abs=1e-3)
    assert nll(pictures, "--model", model, "--out", out) == 2
    assert "terms.npz: exists already; --force replaces it" in capsys.readouterr().err
    assert nll(pictures, "--model", model, "--steps", "1", "--out", out, "--force") == 0


def test_an_unreadable_image_has_no_likelihood(pictures: str, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path(pictures, "2.png").write_bytes(b"no image")
    assert nll(pictures, "--model", model, "--steps", "1") == 1
    printed = capsys.readouterr()
    assert "2.png" in printed.err
    assert "(4 images, 1 timesteps)" in printed.out


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (("--out", "terms.csv"), "--out terms.csv: a name that ends in .npz is needed"),
        (("--class", "0"), "not class-conditional"),
        (("--steps", "51"), "51"),
        (("--batch-size", "0"), "batch_size=0: at least 1 is needed"),
    ],
)
def test_a_wrong_call_of_nll_is_one_line(
    flags: tuple[str, ...], line: str, pictures: str, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert nll(pictures, "--model", model, *flags) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("rediffuse: ")
    assert line in last


def test_a_model_without_likelihood_is_refused_whatever_its_classes(
    pictures: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    upsampler(num_classes=3).save(tmp_path / "upsampler")
    assert nll(pictures, "--model", str(tmp_path / "upsampler")) == 2
    assert "upsampler: a superres of 3 channels in 2 dimensions cannot give a likelihood" in capsys.readouterr().err
