"""Seeds that differ between all places of a training."""

import torch

from rediffuse.training.randomness import NOISE, TIMESTEPS, Place, derive


def test_streams_and_places_have_seeds_of_their_own() -> None:
    seeds = {derive(*place) for place in [(0, NOISE, 0), (0, NOISE, 1), (0, TIMESTEPS, 0), (1, NOISE, 0)]}
    assert len(seeds) == 4


def test_process_knows_its_part_of_the_batch() -> None:
    assert Place(0, 3, 8, range(28, 32)).in_batch == slice(4, 8)


def test_step_generator_is_shared_by_processes_and_sample_seeds_are_not() -> None:
    first, second = Place(0, 3, 8, range(24, 28)), Place(0, 3, 8, range(28, 32))
    assert torch.rand(1, generator=first.generator(NOISE)) == torch.rand(1, generator=second.generator(NOISE))
    assert not set(first.sample_seeds(NOISE)) & set(second.sample_seeds(NOISE))
