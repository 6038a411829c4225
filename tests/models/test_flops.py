"""The operation counter against counts computed by hand."""

from dataclasses import replace

import pytest
import torch

from rediffuse.errors import ConfigError
from rediffuse.models.config import EncoderConfig, UNetConfig
from rediffuse.models.encoder import EncoderUNetModel
from rediffuse.models.flops import flops
from rediffuse.models.superres import SuperResModel
from rediffuse.models.unet import UNetModel

CONFIG = UNetConfig(image_size=8, model_channels=32, channel_mult=(1,), num_res_blocks=1)
WIDTH = 32  # channels everywhere; the embedding has 4 times as many
PIXELS = 8 * 8
CONVOLUTION = 2 * 9 * WIDTH * WIDTH * PIXELS
TIME_EMBED = 2 * (WIDTH * 4 * WIDTH + 4 * WIDTH * 4 * WIDTH)
RESBLOCK = 2 * CONVOLUTION + 2 * 4 * WIDTH * WIDTH
WIDER = CONVOLUTION + 2 * 2 * WIDTH * WIDTH * PIXELS  # twice the input channels, and a 1-wide shortcut
ATTENTION = 2 * PIXELS * (3 * WIDTH * WIDTH + WIDTH * WIDTH) + 2 * (2 * PIXELS * PIXELS * WIDTH)
STEM = 2 * 9 * 3 * WIDTH * PIXELS
UNET = TIME_EMBED + STEM + 5 * RESBLOCK + 2 * WIDER + ATTENTION + STEM  # the head costs as much as the stem


def test_unet_as_counted_by_hand() -> None:
    assert flops(UNetModel(CONFIG), (1, 3, 8, 8)) == UNET


def test_labels_cost_nothing_and_a_low_resolution_image_one_more_stem() -> None:
    config = replace(CONFIG, num_classes=10)
    assert flops(UNetModel(config), (1, 3, 8, 8)) == UNET
    assert flops(SuperResModel(config), (1, 3, 8, 8)) == UNET + STEM


def test_a_batch_costs_its_size() -> None:
    assert flops(UNetModel(CONFIG), (5, 3, 8, 8)) == 5 * UNET


def test_weights_are_not_needed() -> None:
    with torch.device("meta"):
        model = EncoderUNetModel(EncoderConfig(image_size=256, model_channels=128, channel_mult=(1, 1, 2, 2, 4, 4)))
    assert flops(model, (1, 3, 256, 256)) > 1e11


def test_a_shape_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"shape \(3, 8, 8\)"):
        flops(UNetModel(CONFIG), (3, 8, 8))
