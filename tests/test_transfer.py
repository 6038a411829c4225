"""Copies to a device and back, as far as they can be checked without a GPU."""

import torch

from rediffuse.transfer import OnHost, to_device


def test_a_tensor_that_is_on_the_device_is_not_copied() -> None:
    x = torch.arange(3)
    assert to_device(x, torch.device("cpu")) is x
    assert to_device(x, torch.device("meta")).device.type == "meta"


def test_a_value_is_read_as_it_was_computed() -> None:
    x = torch.ones(())
    assert OnHost(x + 1).read() == 2
