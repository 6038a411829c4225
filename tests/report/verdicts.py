"""Verdicts for the tests, made without a detector."""

from dataclasses import replace

import numpy as np
import torch

from rediffuse.detection.verdict import Bound, Decision, Evidence, Verdict
from rediffuse.dire.bands import band_profile, radial_means
from rediffuse.dire.settings import DireSettings
from rediffuse.images.original import Original, original_of
from rediffuse.images.tensors import to_tensor
from rediffuse.images.windows import network_inputs


def judged(file: str, decision: Decision = "generated", *, bands: int = 4, side: int = 16) -> Verdict:
    random = np.random.default_rng(0)
    x_0 = random.uniform(-1, 1, (1, 3, side, side)).astype(np.float32)
    x_0_hat = x_0 + 0.01 * random.standard_normal(x_0.shape).astype(np.float32)
    return Verdict(
        file=file,
        decision=decision,
        reason="between the thresholds" if decision == "unsure" else None,
        probability={"generated": 0.93, "unsure": 0.5, "real": 0.02}[decision],
        threshold=0.8,
        real_threshold=0.2,
        real_bound=Bound(share=0.013, limit=0.05, is_for_unseen=True, num_images=978, num_groups=231),
        generated_bound=Bound(share=0.37, limit=0.1, is_for_unseen=False, num_images=60, num_groups=7),
        mean_dire=0.0123,
        bands=tuple(np.linspace(-6, -1, bands).tolist()),
        coherences=tuple(np.linspace(1, 0.2, bands).tolist()),
        contributions=tuple(np.linspace(-1, 2, bands).tolist()),
        settings=DireSettings(image_size=side, model_sha256="ab" * 32, depth=5),
        detector_sha256="cd" * 32,
        evidence=evidence_of(x_0, x_0_hat),
    )


def judged_by_windows(file: str, number: int = 3, *, side: int = 16, content: bytes | None = None) -> Verdict:
    """As `judged`, by windows of a picture of 200 x 120 pixels, whose file has this content."""
    pixels = np.random.default_rng(1).integers(0, 256, (120, 200, 3), np.uint8)
    squares, windows = network_inputs(pixels, side, f"windows:{number}")
    x_0 = to_tensor(squares).numpy()
    original = original_of(pixels, content, file) if content else original_of(pixels)
    evidence = evidence_of(x_0, np.clip(x_0 * 0.9, -1, 1), original)
    return replace(
        judged(file, side=side),
        windows=windows,
        window_contributions=tuple(np.linspace(-1, 0.5, len(windows)).tolist()),
        settings=DireSettings(image_size=side, model_sha256="ab" * 32, depth=5, crop=f"windows:{number}"),
        evidence=evidence,
    )


def evidence_of(x_0: np.ndarray, x_0_hat: np.ndarray, original: Original | None = None) -> Evidence:
    powers = band_profile(torch.from_numpy(x_0), torch.from_numpy(x_0_hat)).powers
    return Evidence(x_0=x_0, x_0_hat=x_0_hat, powers=radial_means(powers.mean(dim=0)).numpy(), original=original)


def unjudged(file: str, reason: str = "holds no pixels") -> Verdict:
    return Verdict(file=file, reason=reason)
