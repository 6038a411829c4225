"""Measure the page of many images: its size, the time to write it, and the time until a browser shows it.

    python benchmarks/report_page.py --data WILD --images 2000

No network is run: the reconstruction of a window is the window with noise. Chromium must be installed.
"""

import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import cycle, islice
from pathlib import Path

import numpy as np
import torch
from playwright.sync_api import sync_playwright
from script import read_flags

from rediffuse.detection.verdict import BETWEEN, Bound, Decision, Evidence, Verdict
from rediffuse.dire.bands import band_profile, radial_means
from rediffuse.dire.job import load_file
from rediffuse.dire.settings import DireSettings
from rediffuse.errors import ConfigError
from rediffuse.images.find import FoundImage, find_images
from rediffuse.report.page import Report

SETTINGS = DireSettings(image_size=32, model_sha256="0" * 64, depth=5, crop="windows:8")
BOUND = Bound(share=0.05, limit=0.05, is_for_unseen=True, num_images=978, num_groups=231)

SEARCH = """() => {
  const begun = performance.now();
  const controls = document.getElementById("controls");
  controls.elements.text.value = "00017";
  controls.dispatchEvent(new Event("input"));
  document.body.offsetHeight;
  return performance.now() - begun;
}"""


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Write a page of many images in both forms, and open it."""

    data: Path
    """A folder of images, which are repeated as often as necessary."""
    images: int = 2000
    distinct: int = 100
    """Number of different images."""


def main(args: Flags) -> None:
    chromium = shutil.which("chromium")
    if chromium is None:
        raise ConfigError("chromium is not installed; `make browser` installs it")
    made = verdicts(find_images([args.data]), args.distinct)
    print(f"{args.images} images")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for name in ("file", "folder"):
            target = Path(folder, f"{name}.html")
            begun = time.process_time()
            with Report(**{name: target}) as report:
                for number, verdict in enumerate(islice(cycle(made), args.images)):
                    report.add(replace(verdict, file=f"{number:05}.jpg"))
                [page] = report.write().values()
            written = 1000 * (time.process_time() - begun) / args.images
            total = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.set_default_timeout(600_000)
            tab.goto(page.as_uri())
            paint = tab.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
            loaded = tab.evaluate("performance.timing.loadEventEnd - performance.timing.navigationStart")
            search = tab.evaluate(SEARCH)
            print(
                f"{name}: page of {page.stat().st_size / 1e6:.1f} MB, {total / 1e6:.1f} MB in all; {written:.1f} ms "
                f"of CPU time per image to write; first paint after {paint / 1000:.2f} s, loaded after "
                f"{loaded / 1000:.2f} s, search {search / 1000:.2f} s"
            )
            tab.close()
            shutil.rmtree(target) if target.is_dir() else target.unlink()
        browser.close()


def verdicts(found: list[FoundImage], number: int) -> list[Verdict]:
    """One verdict with evidence for each image that is as large as a window, with a random score."""
    rng = np.random.default_rng(0)
    made = []
    for one in found[:: max(1, len(found) // number)][:number]:
        loaded = load_file(one, SETTINGS, with_original=True)
        if loaded.x_0 is None:
            continue
        x_0, score = loaded.x_0, rng.uniform()
        decision: Decision = "generated" if score > 0.8 else "real" if score < 0.2 else "unsure"
        x_0_hat = x_0 + torch.from_numpy(0.03 * rng.standard_normal(x_0.shape)).float()
        made.append(
            Verdict(
                file=one.name,
                decision=decision,
                reason=BETWEEN if decision == "unsure" else None,
                probability=score,
                threshold=0.8,
                real_threshold=0.2,
                real_bound=BOUND,
                generated_bound=BOUND,
                mean_dire=0.02,
                bands=tuple(rng.uniform(-9, 0, 8)),
                coherences=tuple(rng.uniform(0.5, 1, 8)),
                contributions=tuple(rng.normal(0, 2, 8)),
                windows=loaded.windows,
                window_contributions=tuple(rng.normal(0, 1, len(loaded.windows))),
                settings=SETTINGS,
                detector_sha256="0" * 64,
                evidence=Evidence(
                    x_0=x_0.numpy(),
                    x_0_hat=x_0_hat.numpy(),
                    powers=radial_means(band_profile(x_0, x_0_hat).powers.mean(dim=0)).numpy(),
                    original=loaded.original,
                    meta=loaded.meta,
                ),
            )
        )
    return made


if __name__ == "__main__":
    main(read_flags(Flags))
