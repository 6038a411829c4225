"""Flags for properties of a network that a file of weights does not determine."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

from rediffuse.models.config import Kind

NETWORK = (
    *("--kind", "--image-size", "--num-res-blocks", "--num-heads", "--num-head-channels", "--num-heads-upsample"),
    *("--attention-order", "--dropout"),
)
"""The flags of `NetworkFlags`, for a group of help."""


@dataclass(frozen=True, kw_only=True)
class NetworkFlags:
    """Only for files of weights: what their tensors do not determine. Other sources include their configuration."""

    kind: Kind | None = None
    """Kind of network, if the tensors fit several."""
    image_size: int | None = None
    """Side of the training images, in pixels."""
    num_res_blocks: int | None = None
    """Residual blocks per resolution, if the tensors fit several numbers."""
    num_heads: int | None = None
    """Attention heads."""
    num_head_channels: int | None = None
    """Channels per attention head, instead of the number of heads."""
    num_heads_upsample: int | None = None
    """Attention heads in the decoder, if their number differs."""
    attention_order: Literal["legacy", "new"] | None = None
    """How attention splits its channels: into heads first (legacy), or into q, k and v first (new)."""
    dropout: float | None = None
    """Dropout of the training; outputs do not depend on it."""

    def given(self) -> dict[str, Any]:
        """The given fields, as the argument `network` of `zoo.model.load`."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        if "attention_order" in given:
            given["use_new_attention_order"] = given.pop("attention_order") == "new"
        return given
