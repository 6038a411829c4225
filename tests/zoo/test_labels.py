from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from rediffuse.errors import ConfigError
from rediffuse.zoo.labels import class_labels
from sampling.tiny import unet


@pytest.mark.parametrize(
    "labels", [[0, 2], (0, 2), range(0, 4, 2), np.array([0, 2], np.int32), torch.tensor([0, 2], dtype=torch.uint8)]
)
def test_a_tensor_or_a_sequence_gives_the_tensor_that_a_network_takes(labels: Tensor | Sequence[int]) -> None:
    given = class_labels(unet(num_classes=3), labels, 2)
    assert given is not None
    assert (given.tolist(), given.dtype) == ([0, 2], torch.int64)


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (None, "labels: none are given; this class-conditional model needs one class from 0 to 2 per image (2)"),
        ([0], "labels: given (1,) int64; one class from 0 to 2 per image (2) is needed"),
        ([[0, 1]], "labels: given (1, 2) int64"),
        ([], "labels: given (0,) float32"),
        ([0.0, 1.0], "labels: given (2,) float32"),
        ([True, False], "labels: given (2,) bool"),
        (["0", "1"], "labels: given ['0', '1']; one class"),
        ([0, 3], "labels: class 3 is given; one class from 0 to 2"),
        (torch.tensor([-1, 0]), "labels: class -1 is given"),
    ],
)
def test_labels_that_do_not_fit_are_refused_with_what_is_needed(labels, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        class_labels(unet(num_classes=3), labels, 2)
    assert line in str(caught.value)


def test_a_model_without_classes_takes_labels_for_a_guidance_alone() -> None:
    model = unet()
    assert class_labels(model, None, 2) is None
    with pytest.raises(ConfigError, match="labels: this model is not class-conditional; leave them out"):
        class_labels(model, [0, 1], 2)
    guided = class_labels(model, [0, 7], 2, guided=True)
    assert guided is not None
    assert guided.tolist() == [0, 7]
    with pytest.raises(ConfigError, match=r"labels: none are given; guidance needs one class of 0 or more per image"):
        class_labels(model, None, 2, guided=True)
    with pytest.raises(ConfigError, match="class -1 is given"):
        class_labels(model, [-1, 0], 2, guided=True)
