"""The model card of a folder: a README.md with the fields that the Hugging Face hub reads."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rediffuse.diffusion.config import ProcessConfig
from rediffuse.models.config import EncoderConfig, Kind, UNetConfig

CARD_FILE = "README.md"
GENERATED = (
    "<!-- Written by rediffuse and replaced when the model is saved again; delete this line to keep changes. -->"
)
"""The line that marks a generated card; cards without it were written by a person and are not replaced."""

_TITLES: Mapping[Kind, str] = {
    "unet": "Diffusion model",
    "superres": "Super-resolution diffusion model",
    "encoder": "Classifier of noisy images",
}
_TASKS: Mapping[Kind, str] = {
    "unet": "unconditional-image-generation",
    "superres": "image-to-image",
    "encoder": "image-classification",
}
"""The hub's names for the tasks of models."""


def model_card(
    kind: Kind,
    network: UNetConfig | EncoderConfig,
    process: ProcessConfig,
    training: Mapping[str, Any],
    *,
    num_parameters: int,
    name: str | None = None,
) -> str:
    """The text of the card.

    The card names no licence, because it is not known.

    Args:
        kind: as in the folder's `config.json`.
        network: as in the folder's `config.json`.
        process: as in the folder's `config.json`.
        training: as in the folder's `config.json`.
        num_parameters: number of parameters of the network.
        name: name of the repository on the hub; None for a card that is not for the hub.
    """
    from huggingface_hub import ModelCardData

    is_conditional = isinstance(network, UNetConfig) and network.num_classes is not None
    fields = ModelCardData(
        library_name="rediffuse",
        pipeline_tag=None if is_conditional else _TASKS[kind],  # the hub has no name for class-conditional models
        tags=["diffusion", "guided-diffusion", "arxiv:2105.05233"],
    )
    load = "load_classifier" if kind == "encoder" else "load"
    return f"""\
---
{fields.to_yaml()}
---

{GENERATED}

# {_TITLES[kind]}, {network.image_size} px

The architecture is that of guided-diffusion (ADM, arXiv:2105.05233). `config.json` has every field.

{_table(_model_rows(network, process, num_parameters))}

## Training

{_table(_training_rows(training)) if training else "It is not known how it was trained."}

## Use

```python
import rediffuse

model = rediffuse.{load}("{name or "FOLDER"}"){"" if name else "  # the folder of this file"}
```
"""


def is_generated(card: Path) -> bool:
    """Whether a card was written by `model_card`, and not by a person."""
    return GENERATED in card.read_text(errors="replace")


def _model_rows(network: UNetConfig | EncoderConfig, process: ProcessConfig, num_parameters: int) -> dict[str, Any]:
    widths = ", ".join(str(int(factor * network.model_channels)) for factor in network.channel_mult)
    rows: dict[str, Any] = {
        "parameters": f"{num_parameters:,}",
        "image": f"{network.image_size} px, {network.in_channels} channels",
        "channels by level": widths,
        "residual blocks per level": network.num_res_blocks,
        "process": f"{process.schedule} schedule, {process.num_timesteps:,} timesteps",
    }
    if isinstance(network, EncoderConfig):
        return rows | {"classes": network.out_channels}
    rows |= {"predicts": f"{process.prediction}; variance: {process.variance}"}
    if network.frequency is not None:
        rows["spectral gates"] = f"{network.frequency.num_bands} bands"
    return rows | {"classes": network.num_classes or "none: unconditional"}


def _training_rows(training: Mapping[str, Any]) -> dict[str, Any]:
    """The training settings that fit into a line of the table, such as the folder of images."""
    data, loop = (value if isinstance(value := training.get(name), Mapping) else {} for name in ("data", "loop"))
    lists = {name: ", ".join(map(str, value)) for name, value in training.items() if isinstance(value, list | tuple)}
    of_loop = {name: loop[name] for name in ("batch_size", "learning_rate", "precision") if name in loop}
    rows = {**training, **of_loop, **lists, **({"data": data.get("folder")} if data else {})}
    return {name: value for name, value in rows.items() if isinstance(value, str | int | float) and value != ""}


def _table(rows: Mapping[str, Any]) -> str:
    lines = [f"| {name} | {' '.join(str(value).split()).replace('|', '&#124;')} |" for name, value in rows.items()]
    return "\n".join(["| | |", "| --- | --- |", *lines])
