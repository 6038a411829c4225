"""Results in shards: the bytes of single files, nothing twice, and nothing lost by a job that was killed anywhere."""

import os
import pickle
import subprocess
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dire.test_folder import fill_folder
from dire.test_manifest import DONE
from dire.test_maps import KINDS, SETTINGS, files_below, reconstruction
from faults import files_at_most
from rediffuse.dire.manifest import Manifest, Row, read
from rediffuse.dire.maps import MapStore
from rediffuse.dire.settings import DireSettings
from rediffuse.dire.shards import Shards
from rediffuse.errors import ConfigError, InputError, StorageError
from rediffuse.images.stored import tar_samples
from rediffuse.stores import StoreFolder
from rediffuse.zoo.model import DiffusionModel


def members(folder: Path) -> dict[str, bytes]:
    """The files in all shards, each of which has its end; an error if a name is there twice."""
    found: dict[str, bytes] = {}
    for path in sorted((folder / "shards").iterdir()):
        with tarfile.open(path) as archive:
            for member in archive:
                assert member.name not in found
                file = archive.extractfile(member)
                assert file is not None
                found[member.name] = file.read()
            assert path.read_bytes()[archive.offset :] == bytes(1024)
    return found


def shard_of(folder: Path) -> Path:
    """The only shard of a folder."""
    [path] = (folder / "shards").iterdir()
    return path


def results(folder: Path) -> dict[str, bytes]:
    """The files of results that are no shards."""
    return {name: (folder / name).read_bytes() for name in files_below(folder) if "/" in name}


def rows_of(folder: Path) -> list[Row]:
    return [row for row in read(folder) if row.status == "done"]


def require_readable(folder: Path) -> None:
    store = MapStore.open(folder)
    for row in rows_of(folder):
        assert store.holds(row.name, row.place)
        assert store.read(row.name, row.place).values.mean().item() == pytest.approx(row.mean_error, abs=1e-4)


def test_shards_hold_the_bytes_of_single_files_and_are_unpacked_to_them(
    model: DiffusionModel, pictures: Path, tmp_path: Path
) -> None:
    fill_folder(pictures, tmp_path / "files", model, KINDS)
    fill_folder(pictures, tmp_path / "out", model, KINDS, form="shards")
    assert members(tmp_path / "out") == results(tmp_path / "files")
    shard = shard_of(tmp_path / "out")
    assert files_below(tmp_path / "out") == ["manifest.parquet", "settings.json", f"shards/{shard.name}"]
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-xf", shard, "-C", tmp_path / "unpacked"], check=True)
    assert results(tmp_path / "unpacked") == results(tmp_path / "files")
    assert len(list(tar_samples(str(shard)))) > 0
    require_readable(tmp_path / "out")
    [again] = fill_folder(pictures, tmp_path / "out", model, KINDS, form="shards")
    assert again.status == "failed"


def test_a_changed_image_and_another_kind_leave_each_file_once(
    model: DiffusionModel, pictures: Path, tmp_path: Path
) -> None:
    for form in ("files", "shards"):
        fill_folder(pictures, tmp_path / form, model, form=form)
    Image.fromarray(np.full((16, 16, 3), 200, np.uint8)).save(pictures / "photo.png")
    (pictures / "photo.jpg").write_bytes(b"no image")
    for form in ("files", "shards"):
        assert len(fill_folder(pictures, tmp_path / form, model, form=form)) == 3
        assert len(fill_folder(pictures, tmp_path / form, model, ("latents",), form=form)) == 6
    assert members(tmp_path / "shards") == results(tmp_path / "files")
    require_readable(tmp_path / "shards")


def test_what_a_killed_job_left_goes_and_what_it_recorded_stays(
    model: DiffusionModel, pictures: Path, tmp_path: Path
) -> None:
    settings = DireSettings.for_model(model, steps=2)
    fill_folder(pictures, tmp_path / "files", model)
    out = tmp_path / "out"
    store = MapStore(out, settings, form="shards")
    killed = Manifest(out)
    given = replace(reconstruction(), settings=settings)
    store.write("unrecorded.png", given)
    killed.add(replace(DONE, name="wide.bmp").at(store.write("wide.bmp", given)))
    store.write("unrecorded too.png", given)
    with shard_of(out).open("ab") as shard:
        shard.write(b"half a header")
    (out / "shards" / "00001-0123abcd.tar").touch()
    (out / "shards" / "00000.tar").write_bytes(b"of somebody")
    before = store.read("wide.bmp", killed.get("wide.bmp").place)
    killed._claimed.pop_all()  # as the end of the process, which releases its claim
    with Manifest(out) as manifest:
        row = manifest.get("wide.bmp")
        assert row is not None
        assert torch.equal(store.read("wide.bmp", row.place).values, before.values)
    [row] = read(out)
    (out / "shards" / "00000.tar").unlink()  # still there
    assert members(out).keys() == {"maps/wide.bmp.png", "maps_8bit/wide.bmp.png"}
    assert torch.equal(MapStore.open(out).read("wide.bmp", row.place).values, before.values)


def test_a_full_disk_while_shards_are_tidied_leaves_valid_places(
    model: DiffusionModel, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    fill_folder(pictures, out, model, form="shards")
    expected = members(out)
    [first, *others] = rows_of(out)
    manifest = Manifest(out)
    manifest.add(first.at(Shards(out).add({"maps/other.png": b"new"})))
    with files_at_most(2000), pytest.raises(StorageError, match="could not be written"):
        manifest.close()
    for row in others:
        assert MapStore.open(out).holds(row.name, row.place)
    with Manifest(out) as manifest:
        manifest.add(others[0])
    gone = {f"{folder}/{first.name}.png" for folder in ("maps", "maps_8bit")}
    assert members(out) == {name: expected[name] for name in expected if name not in gone} | {"maps/other.png": b"new"}


def test_a_shard_that_cannot_grow_ends_where_it_was(tmp_path: Path) -> None:
    shards = Shards(tmp_path)
    shards.create()
    place = shards.add({"a": b"1" * 1000})
    message = r"00000-\w+\.tar: could not be written: File too large$"
    with files_at_most(place.end + 700), pytest.raises(StorageError, match=message):
        shards.add({"b": b"2" * 1000})
    with files_at_most(place.end + 700), pytest.raises(StorageError, match=message):
        shards.tidy(lambda: [place])
    other = shards.add({"c": b"3" * 1000})
    assert other.begin == place.end
    assert [shards.read(one) for one in (place, other)] == [{"a": b"1" * 1000}, {"c": b"3" * 1000}]


def test_shards_have_a_largest_size_and_every_process_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rediffuse.dire.shards._MOST_BYTES", 5000)
    shards = Shards(tmp_path)
    shards.create()
    sizes = (1000, 2000, 9000, 100)
    places = [shards.add({str(size): bytes(size)}) for size in sizes]
    places.append(pickle.loads(pickle.dumps(shards)).add({"other": b""}))
    assert [place.shard[:5] for place in places] == ["00000", "00000", "00001", "00002", "00003"]
    shards.tidy(lambda: places)
    assert len(members(tmp_path)) == 5
    assert shards.add({"new": b""}).shard.startswith("00004-")  # not behind the mark of an end


def test_a_shard_that_is_in_order_is_not_written_again_and_one_that_was_cut_off_is_left(tmp_path: Path) -> None:
    shards = Shards(tmp_path)
    shards.create()
    shards.create()
    places = [shards.add({name: bytes(1000)}) for name in "abc"]
    shards.tidy(lambda: places)
    path = shard_of(tmp_path)
    before = path.stat()
    assert shards.tidy(lambda: places) == {}
    assert (path.stat().st_mtime_ns, path.stat().st_size) == (before.st_mtime_ns, before.st_size)
    os.truncate(path, places[-1].end - 1)
    assert shards.tidy(lambda: places) == {}
    assert path.stat().st_size == places[-1].end - 1
    path.unlink()
    assert shards.tidy(lambda: places[1:]) == {}  # nor is what was lost an error where it would be copied


def test_results_that_were_cut_off_or_damaged_are_not_held(tmp_path: Path) -> None:
    store = MapStore(tmp_path, SETTINGS, form="shards")
    place = store.write("a.png", reconstruction())
    assert place is not None
    assert store.holds("a.png", place)
    assert not store.holds("b.png", place)
    assert not store.holds("a.png")
    shard = shard_of(tmp_path)
    content = shard.read_bytes()
    for damaged, reason in (
        (content[:-1], "was cut off before byte"),
        (bytes(len(content)), "cannot be read at byte 0"),
    ):
        shard.write_bytes(damaged)
        assert not store.holds("a.png", place)
        with pytest.raises(InputError, match=rf"{shard.name}: {reason}"):
            store.read("a.png", place)
    shard.unlink()
    assert not store.holds("a.png", place)
    with pytest.raises(InputError, match=rf"{shard.name}: cannot be read at byte 0: No such file"):
        store.read("a.png", place)
    with pytest.raises(InputError, match=r"a\.png\.png: there is no map of a\.png"):
        store.read("a.png")


@pytest.mark.parametrize("is_removed", [False, True])
def test_shards_that_were_cut_off_or_removed_from_outside_are_filled_again(
    is_removed: bool, model: DiffusionModel, pictures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    fill_folder(pictures, out, model, form="shards")
    expected = members(out)
    last = max(rows_of(out), key=lambda row: row.shard_end or 0)
    shard = shard_of(out)
    if is_removed:
        shard.unlink()
    else:
        os.truncate(shard, (last.shard_end or 0) - 600)
    with Manifest(out) as manifest:
        manifest.add(DONE)  # as a job on other files
    assert not MapStore.open(out).holds(last.name, last.place)
    fill_folder(pictures, out, model, form="shards")
    assert members(out) == expected


def test_a_shard_never_has_the_name_of_one_that_was_lost(tmp_path: Path) -> None:
    """Otherwise the places of lost results would refer to other results, and these would be taken for them."""
    store = MapStore(tmp_path, SETTINGS, form="shards")
    lost = store.write("a.png", reconstruction())
    shard_of(tmp_path).unlink()
    MapStore.open(tmp_path).write("b.png", reconstruction())
    again = MapStore.open(tmp_path).write("a.png", reconstruction(), lost)
    assert lost is not None
    assert again is not None
    assert set(Shards(tmp_path).read(again)) == {"maps/a.png.png", "maps_8bit/a.png.png"}


def test_one_folder_has_one_form(tmp_path: Path) -> None:
    for form, other in (("files", "shards"), ("shards", "files")):
        MapStore(tmp_path / form, SETTINGS, form=form).write("a.png", reconstruction())
        message = f"--store {other}: {tmp_path / form} has its results in {form}; --store {form}, or another folder"
        with pytest.raises(ConfigError, match=message):
            MapStore(tmp_path / form, SETTINGS, form=other)
    with pytest.raises(ConfigError, match="--store shards: memory://x is in a store; a folder on a disk is needed"):
        MapStore(StoreFolder("memory://x"), SETTINGS, form="shards")


def test_a_folder_that_is_a_file_gives_one_line(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(StorageError, match=r"could not be written: Not a directory$"):
        MapStore(tmp_path / "out", SETTINGS, form="shards").write("a.png", reconstruction())
