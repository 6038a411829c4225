"""What the workers of a cluster get and give; tests/cli/test_engine.py has the cluster."""

import pickle
from inspect import getgeneratorlocals
from pathlib import Path
from typing import Any

import pytest

import rediffuse
from detection.tiny import save_noise, save_weights
from rediffuse.cluster import LEFT_OUT, Pool
from rediffuse.detection.on_cluster import detect_on_cluster
from rediffuse.errors import ConfigError
from rediffuse.images.find import FoundImage, find_images

POOL = Pool(num_workers=2, num_gpus=0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    save_weights(folder)
    return folder


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[FoundImage]:
    folder = tmp_path_factory.mktemp("images")
    save_noise(folder, 40)
    return find_images([folder])


def sent(found: list[FoundImage], weights: Path, **options: Any) -> dict[str, Any]:
    """The arguments of `cluster.each`."""
    given: dict[str, Any] = {
        "model": weights,
        "detector": weights,
        "stability": False,
        "batch_size": 4,
        "num_files": len(found),
        "max_false_alarms": None,
        "max_misses": None,
        "workers": 1,
        "device": "cpu",
        "precision": "auto",
        "explain": True,
        "evidence": False,
    }
    return getgeneratorlocals(detect_on_cluster(found, POOL, **given | options))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("stability", [False, True])
def test_a_worker_gives_the_verdicts_of_one_machine(stability: bool, found: list[FoundImage], weights: Path) -> None:
    begin = sent(found, weights, stability=stability)["begin"]
    work = pickle.loads(pickle.dumps(begin))()
    verdicts = rediffuse.detect(
        [image.path for image in found[:3]], model=weights, detector=weights, stability=stability, device="cpu"
    )
    assert [str(verdict) for verdict in work(found[:3])] == [str(verdict) for verdict in verdicts]
    assert {len(verdict.copies) for verdict in work(found[:3])} == {3 * stability}


def test_a_file_that_is_left_out_has_a_reason_and_what_the_other_verdicts_name(
    found: list[FoundImage], weights: Path
) -> None:
    work = sent(found, weights)["begin"]()
    [other] = work(found[:1])
    verdict = work.left_out(found[1])
    assert (verdict.file, verdict.decision, verdict.reason) == ("01.png", None, f"{found[1].source}: {LEFT_OUT}")
    assert (verdict.settings, verdict.detector_sha256) == (other.settings, other.detector_sha256)
    assert verdict.detector_sha256 is not None


def test_each_worker_gets_all_files_in_whole_batches_which_copies_share(found: list[FoundImage], weights: Path) -> None:
    alone, with_copies = (sent(found, weights, stability=stability) for stability in (False, True))
    assert (alone["items"], alone["pool"]) == (found, POOL)
    # 40 files are 10 batches of 4, and each of the 2 workers gets two chunks or more.
    assert (alone["chunk_size"], with_copies["chunk_size"]) == (8, 4)
    assert sent(found[:4], weights, num_files=9)["chunk_size"] == 3  # as the whole job has 3 batches of 3


def test_a_worker_has_the_device_of_the_call(found: list[FoundImage], weights: Path) -> None:
    with pytest.raises(ConfigError, match=r"^device=abacus: "):
        sent(found, weights, device="abacus")["begin"]()
