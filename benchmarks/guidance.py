"""Measure whether classifier guidance increases the accuracy of the guiding classifier on the samples.

    python benchmarks/guidance.py --classifier runs/classifier/model --scales 0 1 4

All scales have the same seeds and classes; scale 0 is unguided. The classifier is applied to finished samples at t = 0.
"""

from dataclasses import dataclass

import torch
from script import read_flags
from torch import Tensor

from rediffuse.sampling.config import SamplingSettings
from rediffuse.sampling.guide import guide
from rediffuse.sampling.sample import sample
from rediffuse.zoo.model import ClassifierModel, load, load_classifier


@dataclass(frozen=True, kw_only=True)
class Flags:
    """Compare scales of guidance."""

    classifier: str
    """A folder that `rediffuse train classifier` wrote."""
    model: str = "default"
    scales: tuple[float, ...] = (0, 1, 4)
    num_samples: int = 100
    steps: int = 25
    """Number of DDIM steps."""
    batch_size: int = 50
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes a GPU where there is one."""


def main(args: Flags) -> None:
    model, classifier = load(args.model, device=args.device), load_classifier(args.classifier, device=args.device)
    labels = [index % classifier.num_classes for index in range(args.num_samples)]
    settings = SamplingSettings(sampler="ddim", steps=args.steps)
    print(f"{args.num_samples} samples of {classifier.num_classes} classes, DDIM in {args.steps} steps")
    print(f"{'scale':>6}  {'top-1':>6}  {'mean log p(y | x_0)':>20}")
    for scale in args.scales:
        guidance = guide(model, classifier, scale)
        images = sample(
            model, range(args.num_samples), settings, labels=labels, guidance=guidance, batch_size=args.batch_size
        )
        log_p = judge(classifier, torch.stack(list(images)).clamp(-1, 1))
        wanted = torch.tensor(labels)
        accuracy = (log_p.argmax(dim=1) == wanted).float().mean().item()
        print(f"{scale:6g}  {accuracy:6.2f}  {log_p.gather(1, wanted[:, None]).mean().item():20.3f}", flush=True)


def judge(classifier: ClassifierModel, x_0: Tensor) -> Tensor:
    """log p(class | x_0), (N, classes), on the CPU."""
    with torch.inference_mode():
        t = torch.zeros(len(x_0), dtype=torch.int64, device=classifier.device)
        return classifier.network(x_0.to(classifier.device), t).log_softmax(dim=1).cpu()


if __name__ == "__main__":
    main(read_flags(Flags))
