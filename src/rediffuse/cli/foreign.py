"""Flags for what a file of weights does not tell about its network."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from rediffuse.models.config import Kind

NETWORK = (
    *("--kind", "--image-size", "--num-res-blocks", "--num-heads", "--num-head-channels", "--num-heads-upsample"),
    *("--attention-order", "--dropout"),
)
"""The flags below, as a group of help."""


@dataclass(frozen=True, kw_only=True)
class NetworkFlags:
    """For files of weights alone: what their tensors do not tell. Other sources have their configuration with them."""

    kind: Kind | None = None
    """Kind of network, where the tensors fit several."""
    image_size: int | None = None
    """Side of the images it was trained on, in pixels."""
    num_res_blocks: int | None = None
    """Residual blocks per resolution, where the tensors fit several numbers."""
    num_heads: int | None = None
    """Attention heads."""
    num_head_channels: int | None = None
    """Channels per attention head, instead of the number of heads."""
    num_heads_upsample: int | None = None
    """Attention heads in the decoder, where their number differs."""
    attention_order: Literal["legacy", "new"] | None = None
    """How attention splits its channels: into heads first (legacy), or into q, k and v first (new)."""
    dropout: float | None = None
    """Dropout it was trained with; outputs do not depend on it."""

    def told(self) -> dict[str, Any]:
        """What was given, as `zoo.model.load` takes it."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        if "attention_order" in given:
            given["use_new_attention_order"] = given.pop("attention_order") == "new"
        return given
