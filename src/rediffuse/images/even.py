"""Batches of equal size, so that the result of an image does not depend on where a job was interrupted."""

from rediffuse.records import require_range


def even_batch_size(largest: int, total: int) -> int:
    """The size of the batches of a job: at most `largest`, and such that few rows are missing in the last batch.

    A network may round differently for another number of images in a batch. So a job gives every batch this size, and
    repeats an image in the last batch where others are missing. `total` counts the rows of the whole job, and not of
    those that are left after an interruption: then a resumed job has batches of the same size, and the same results.

    Raises:
        ConfigError: `largest` is below 1.
    """
    require_range("batch_size", largest, 1)
    num_batches = max(1, -(-total // largest))
    return max(1, -(-total // num_batches))
