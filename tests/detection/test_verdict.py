import json
import subprocess
import sys
from dataclasses import replace

import numpy as np

from rediffuse.detection.verdict import Bound, Evidence, JudgedCopy, Verdict
from rediffuse.dire.settings import DireSettings
from rediffuse.images.changes import Change
from rediffuse.records import digest

PIXELS = np.zeros((1, 3, 4, 4), np.float32)
JUDGED = Verdict(
    file="a/b.png",
    decision="generated",
    probability=0.9,
    threshold=0.6,
    real_threshold=0.4,
    real_bound=Bound(share=0.03, limit=0.05, is_for_unseen=True, num_images=40, num_groups=20),
    generated_bound=Bound(share=0.9, limit=0.1, is_for_unseen=False, num_images=30, num_groups=3),
    mean_dire=0.01,
    bands=(-1.0, -2.0),
    coherences=(0.9, 0.8),
    contributions=(0.1, -3.0),
    settings=DireSettings(image_size=4, model_sha256="0" * 64),
    detector_sha256="cd" * 32,
    evidence=Evidence(x_0=PIXELS, x_0_hat=PIXELS, powers=PIXELS[0]),
)


def test_a_verdict_is_read_in_one_line():
    assert str(JUDGED) == "a/b.png: generated, probability 0.900"
    assert str(Verdict(file="c.png", reason="c.png: is empty")) == "c.png: not judged, c.png: is empty"
    assert "\n" not in repr(JUDGED)
    assert repr(JUDGED).startswith("Verdict(file='a/b.png', decision='generated', reason=None, probability=0.9")
    assert len(repr(JUDGED)) < 200


def test_row_is_flat_json_without_evidence():
    row = json.loads(json.dumps(JUDGED.to_row()))
    assert row["file"] == "a/b.png"
    assert (row["error_band_1"], row["coherence_band_0"], row["contribution_band_1"]) == (-2.0, 0.9, -3.0)
    assert not any(isinstance(value, list | dict) for value in row.values())
    assert len(row["settings"]) == 16


def test_row_holds_every_value_under_a_name_of_its_own():
    assert JUDGED.to_row() == {
        "file": "a/b.png",
        "decision": "generated",
        "probability": 0.9,
        "reason": None,
        "threshold": 0.6,
        "real_threshold": 0.4,
        "max_false_alarms": 0.05,
        "max_misses": 0.1,
        "real_above": 0.03,
        "generated_below": 0.9,
        "mean_dire": 0.01,
        "num_windows": None,
        "settings": digest(JUDGED.settings),
        "detector": "cd" * 32,
        "error_band_0": -1.0,
        "error_band_1": -2.0,
        "coherence_band_0": 0.9,
        "coherence_band_1": 0.8,
        "contribution_band_0": 0.1,
        "contribution_band_1": -3.0,
    }


def test_row_has_two_columns_for_each_changed_copy():
    copies = (
        JudgedCopy(change=Change("jpeg", 75), probability=0.3, decision="unsure"),
        JudgedCopy(change=Change("reduce", 0.75), probability=0.8, decision="generated"),
    )
    assert replace(JUDGED, copies=copies).to_row() == JUDGED.to_row() | {
        "probability_jpeg_75": 0.3,
        "decision_jpeg_75": "unsure",
        "probability_reduce_0.75": 0.8,
        "decision_reduce_0.75": "generated",
    }


def test_strongest_band_is_the_largest_contribution_of_either_sign():
    assert JUDGED.strongest_band == 1


def test_a_file_that_could_not_be_judged_has_a_reason_and_nothing_else():
    verdict = Verdict(file="x.png", reason="x.png: is empty")
    assert not verdict.judged
    assert verdict.strongest_band is None
    assert {name for name, value in verdict.to_row().items() if value is not None} == {"file", "reason"}


def test_module_needs_no_torch():
    program = "import sys, rediffuse.detection.verdict, rediffuse.detection.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
