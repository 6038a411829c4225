"""The U-Nets of the ablation: trained here or embedded; without gates, with gates, or with a preset."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from ablation.work import Work, say
from rediffuse.models.config import FrequencyConfig
from rediffuse.training.classifier import ClassifierTask
from rediffuse.training.config import LoopConfig
from rediffuse.training.diffusion import DiffusionTask
from rediffuse.training.loop import train
from rediffuse.training.recipes import clothing32, clothing32_classifier
from rediffuse.zoo.model import ClassifierModel, load_classifier


@dataclass(frozen=True)
class Variant:
    """A U-Net with a certain use of gates or presets."""

    family: str
    name: str
    source: Callable[[int], str]
    """The model of a seed, as an argument of `zoo.model.load`."""
    frequency: str = "trained"

    @property
    def key(self) -> str:
        return f"{self.family}-{self.name}".replace(" ", "_")


@dataclass(frozen=True)
class Networks:
    """Trains the networks that do not exist yet."""

    work: Work

    def variants(self) -> list[Variant]:
        """All variants; the base of each family comes first."""
        presets = ("freeu", "sharpen", "lowpass")
        small, embedded = partial(self.small, gated=False), lambda seed: "default"
        return [
            Variant("small", "base", small),
            Variant("small", "gates trained with it", partial(self.small, gated=True)),
            Variant("small", "gates on the frozen base", lambda seed: self.gates("small", self.small(seed), seed)),
            *(Variant("small", preset, small, preset) for preset in presets),
            Variant("embedded", "base", embedded),
            Variant("embedded", "gates on the frozen base", lambda seed: self.gates("embedded", "default", seed)),
            *(Variant("embedded", preset, embedded, preset) for preset in presets),
        ]

    def small(self, seed: int, gated: bool = False) -> str:
        """A U-Net trained from the random weights of the seed, which are the same with and without gates."""
        config = clothing32(str(self.work.photos / "train"))
        network = replace(config.network, frequency=FrequencyConfig() if gated else None)
        loop = self._loop(config.loop, seed, self.work.size.steps)
        task = DiffusionTask(replace(config, network=network, loop=loop))
        return self._trained(task, loop, f"small-{'gated' if gated else 'base'}-{seed}")

    def gates(self, family: str, base: str, seed: int) -> str:
        """Gates trained on a frozen base."""
        config = clothing32(str(self.work.photos / "train"))
        network = replace(config.network, frequency=FrequencyConfig())
        loop = replace(self._loop(config.loop, seed, self.work.size.gate_steps), learning_rate=5e-3, warmup_steps=10)
        task = DiffusionTask(replace(config, network=network, loop=loop, only="frequency"))
        return self._trained(task, loop, f"{family}-gates-{seed}", init=base)

    def _loop(self, loop: LoopConfig, seed: int, num_steps: int) -> LoopConfig:
        rate = 0.99 if num_steps < 2000 else loop.ema_rates[0]
        device = "cpu" if self.work.device.type == "cpu" else "auto"
        return replace(loop, seed=seed, num_steps=num_steps, evaluate_every=num_steps, ema_rates=(rate,), device=device)

    def _trained(
        self, task: DiffusionTask | ClassifierTask, loop: LoopConfig, name: str, init: str | None = None
    ) -> str:
        run = self.work.out / "runs" / name
        if not (run / "model" / "config.json").exists():
            say(f"training {name}")
            train(task, loop, run, init=init)
        return str(run / "model")

    def judge(self) -> ClassifierModel:
        """A classifier of photographs without noise, for the features of the Frechet distance."""
        config = clothing32_classifier(str(self.work.photos / "train"))
        loop = self._loop(config.loop, 0, self.work.size.classifier_steps)
        config = replace(config, network=replace(config.network, pool="adaptive"), loop=loop, clean=True)
        return load_classifier(self._trained(ClassifierTask(config), loop, "judge"), device=self.work.device)
