"""Decoding of files from strangers: the cost of the process that keeps the budget, and damaged files.

    .venv/bin/python benchmarks/decoding.py cost
    .venv/bin/python benchmarks/decoding.py damaged --files 10000
    .venv/bin/python benchmarks/decoding.py largest

`cost` compares the CPU time of one file decoded in this process and in the other one with that of the whole job, all in
one run. `damaged` changes bytes of small files of every format at random, decodes them, and prints the number of each
kind of result, the longest time, and the memory before and after. `largest` decodes the slowest and largest files that
are allowed, with the CPU time and the largest memory of the process that decoded each of them.
"""

import argparse
import os
import resource
from collections import Counter
from collections.abc import Iterator
from io import BytesIO
from time import perf_counter, process_time

import numpy as np
from PIL import Image

from rediffuse.errors import ImageError
from rediffuse.images import isolation
from rediffuse.images.decode import decode_bytes
from rediffuse.images.headers import is_cheap
from rediffuse.images.isolation import decode_isolated
from rediffuse.images.limits import Limits
from rediffuse.images.rows import decode_rows

FORMATS = {
    "JPEG": {},
    "PNG": {},
    "WEBP": {},
    "TIFF": {"compression": "tiff_lzw"},
    "BMP": {},
    "GIF": {},
    "AVIF": {},
    "JPEG2000": {},
}


def encoded(pixels: np.ndarray, codec: str, **options: object) -> bytes:
    """The bytes of a file."""
    file = BytesIO()
    Image.fromarray(pixels).save(file, codec, **{**FORMATS[codec], **options})
    return file.getvalue()


def photo_like(side: int, seed: int = 0) -> np.ndarray:
    """(side, side, 3) uint8: noise at all scales."""
    rng, pixels = np.random.default_rng(seed), np.zeros((side, side, 3))
    scale = 2
    while scale <= side:
        coarse = rng.normal(size=(scale, scale, 3)) * 128 / scale**0.5
        rows = np.arange(side) * scale // side
        pixels += coarse[rows][:, rows]
        scale *= 2
    return ((pixels - pixels.min()) * (255 / np.ptp(pixels))).astype(np.uint8)


def damaged(num_files: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Files with random changes: bytes replaced, removed, repeated, or the end cut off."""
    rng = np.random.default_rng(seed)
    whole = [(codec, encoded(photo_like(48, place), codec)) for place, codec in enumerate(FORMATS)]
    whole.append(("JPEG", encoded(photo_like(48), "JPEG", progressive=True)))
    for _ in range(num_files):
        codec, content = whole[rng.integers(len(whole))]
        changed = bytearray(content)
        for _ in range(rng.integers(1, 6)):
            place = int(rng.integers(min(len(changed), 256)) if rng.random() < 0.5 else rng.integers(len(changed)))
            length = int(rng.integers(1, 5))
            kind = rng.integers(4)
            if kind == 0:
                changed[place : place + length] = rng.bytes(length)
            elif kind == 1:
                changed[place : place + length] = b"\xff" * length
            elif kind == 2:
                changed[place:place] = changed[place : place + 64]
            else:
                del changed[place : place + (length if rng.random() < 0.9 else len(changed))]
            if not changed:
                break
        yield codec, bytes(changed)


def outcome_of(content: bytes) -> str:
    """Whether a file is decoded or refused; only errors of one line are allowed."""
    try:
        decode_bytes(content, "file")
    except ImageError as error:
        if "\n" in str(error):
            raise
        return "ended its process" if "the decoder was ended" in str(error) else "refused"
    return "decoded"


def resident_mb() -> float:
    """Memory of this process."""
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def peak_of_waiting() -> str:
    """The largest memory that the process that has decoded the last file had, with the interpreter."""
    if isolation._waiting.empty():
        return "no process waits"  # the file was decoded here, or ended its process
    worker = isolation._idle()
    with open(f"/proc/{worker.process.pid}/status") as file:  # noqa: PTH123
        kilobytes = next(line.split()[1] for line in file if line.startswith("VmHWM"))
    isolation._release(worker)
    return f"{int(kilobytes) / 1024:.0f} MB"


def cpu_seconds() -> float:
    """CPU time of this process and of those that it has waited for."""
    return process_time() + sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2])


def run_damaged(num_files: int, seed: int) -> None:
    counts: Counter[str] = Counter()
    longest, before = 0.0, None
    for number, (codec, content) in enumerate(damaged(num_files, seed)):
        begun = perf_counter()
        outcome = outcome_of(content)
        longest = max(longest, perf_counter() - begun)
        counts[f"{codec}: {outcome}"] += 1
        if number == num_files // 10:
            before = resident_mb()
    for name, count in sorted(counts.items()):
        print(f"{count:6} {name}")
    print(f"{sum(counts.values())} files, the longest took {longest:.2f} s of real time")
    print(f"memory: {before or 0:.0f} MB after a tenth of the files, {resident_mb():.0f} MB at the end")


def largest() -> Iterator[tuple[str, bytes]]:
    """Small files with many pixels, or much work for each of them."""
    flat, smaller = Image.new("RGB", (10_000, 10_000)), Image.new("RGB", (5000, 5000))
    for image, name in ((flat, "100"), (smaller, "25")):
        for codec in FORMATS:
            file = BytesIO()
            image.save(file, codec, **({"speed": 10} if codec == "AVIF" else FORMATS[codec]))
            yield f"{codec}, {name} million pixels", file.getvalue()
        file = BytesIO()
        image.save(file, "JPEG", progressive=True)
        progressive = file.getvalue()
        yield f"progressive JPEG, {name} million pixels", progressive
    scan = progressive[progressive.rindex(b"\xff\xda") : -2]
    for count in (20, 2000):
        yield f"progressive JPEG, {count} more scans", progressive[:-2] + scan * count + b"\xff\xd9"


def run_largest() -> None:
    for name, content in largest():
        begun = cpu_seconds()
        try:
            decode_bytes(content, "file")
            outcome = "decoded"
        except ImageError as error:
            outcome = str(error)
        peak = peak_of_waiting()
        isolation._end_all()
        seconds = cpu_seconds() - begun
        print(f"{name}, {len(content) / 1000:.0f} kB: {seconds:.1f} s; {peak}; {outcome}", flush=True)


def run_cost(side: int, repeats: int) -> None:
    import torch

    import rediffuse
    from rediffuse.dire.reconstruct import reconstruct
    from rediffuse.images.tensors import to_tensor
    from rediffuse.images.windows import network_inputs

    torch.set_num_threads(1)
    model, settings = rediffuse.load("default"), rediffuse.load_detector("default").settings
    pixels = photo_like(side)
    begun = process_time()
    squares, _ = network_inputs(pixels, settings.image_size, settings.crop, "image")
    reconstruct(model, to_tensor(squares), settings)
    job = process_time() - begun
    print(f"{side} px; windows and reconstruction: {job:.2f} s of CPU time per file")
    for codec in FORMATS:
        content = encoded(pixels, codec)
        here, apart = (_cpu_per_file(function, content, repeats) for function in (decode_rows, decode_isolated))
        used = "here" if is_cheap(content) else "other process"
        added = 0.0 if is_cheap(content) else (apart - here) / (job + here)
        print(
            f"{codec:9} here {here * 1e3:7.1f} ms, other process {apart * 1e3:7.1f} ms; used: {used}, adds {added:.1%}"
        )


def _cpu_per_file(function: object, content: bytes, repeats: int) -> float:
    isolation._end_all()  # its CPU time is known when it has ended
    begun = cpu_seconds()
    for _ in range(repeats):
        for _part in function(content, "file", Limits(), first_frame=False):  # type: ignore[operator]
            pass
    isolation._end_all()
    return (cpu_seconds() - begun) / repeats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    cost = commands.add_parser("cost")
    cost.add_argument("--side", type=int, default=1024)
    cost.add_argument("--repeats", type=int, default=20)
    several = commands.add_parser("damaged")
    several.add_argument("--files", type=int, default=10_000)
    several.add_argument("--seed", type=int, default=0)
    commands.add_parser("largest")
    args = parser.parse_args()
    if args.command == "cost":
        run_cost(args.side, args.repeats)
    elif args.command == "largest":
        run_largest()
    else:
        run_damaged(args.files, args.seed)


if __name__ == "__main__":
    main()
