"""Images in stores, lists and tar files are found and read like those in folders."""

import io
import itertools
import pickle
import sys
import tarfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from file_server import serve
from hub_server import serve_hub
from rediffuse.errors import ImageError, InputError, StorageError
from rediffuse.images.decode import decode
from rediffuse.images.encode import png_bytes
from rediffuse.images.find import FoundImage, each_image, find_images, gather_images
from rediffuse.images.limits import Limits
from s3_server import serve_s3


def image(level: int) -> bytes:
    return png_bytes(np.full((8, 8, 3), level, np.uint8))


def level(found: FoundImage) -> int:
    return int(decode(found.path, found.limits).pixels[0, 0, 0])


@pytest.fixture(scope="module", params=["memory", "s3", "file"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a folder in a store of each kind."""
    match request.param:
        case "memory":
            yield f"memory:///{uuid.uuid4()}/photos"
        case "file":
            yield f"file://{tmp_path_factory.mktemp('store')}/photos"
        case _:
            with serve_s3("bucket"):
                yield "s3://bucket/photos"


def put(url: str, content: bytes) -> None:
    file_system, path = fsspec.url_to_fs(url, **({"auto_mkdir": True} if url.startswith("file") else {}))
    file_system.pipe_file(path, content)


def tar_of(files: dict[str, bytes]) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def test_a_folder_in_a_store_is_searched_like_one_on_the_disk(store: str) -> None:
    for number, name in enumerate(("b/2.png", "b/1.PNG", "a.png", ".hidden.png", "notes.txt")):
        put(f"{store}/one/{name}", image(number))
    found = find_images([f"{store}/one"])
    assert [(one.name, level(one)) for one in found] == [("a.png", 2), ("b/1.PNG", 1), ("b/2.png", 0)]
    assert [one.source for one in found] == [f"{store}/one/{name}" for name in ("a.png", "b/1.PNG", "b/2.png")]
    assert [one.name for one in find_images([f"{store}/one/**/*.png"])] == ["a.png", "2.png"]
    assert [one.name for one in find_images([f"{store}/one/a.png", f"{store}/one/notes.txt"])] == ["a.png", "notes.txt"]
    assert pickle.loads(pickle.dumps(found)) == found
    with pytest.raises(StorageError, match=r"one/none: does not exist$"):
        find_images([f"{store}/one/none"])
    with pytest.raises(InputError, match=r"one/\*.gif: the pattern matches nothing$"):
        find_images([f"{store}/one/*.gif"])


def test_files_in_a_store_have_the_same_limits(store: str) -> None:
    put(f"{store}/large/a.png", image(1) + b"\0" * 5000)
    [found] = find_images([f"{store}/large"], Limits(max_bytes=5000))
    with pytest.raises(ImageError, match=r"a.png: more than 5000 bytes, which is the most that is read"):
        found.read()
    put(f"{store}/large/a.png", image(1)[:45])
    with pytest.raises(ImageError, match=r"a\.png: damaged or truncated PNG file"):
        decode(found.path)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_a_list_names_files_beside_it_and_elsewhere(store: str, suffix: str, tmp_path: Path) -> None:
    put(f"{store}/list/sub/a.png", image(1))
    (tmp_path / "b.png").write_bytes(image(2))
    rows = {"path": ["sub/a.png", str(tmp_path / "b.png"), "gone.png"], "label": ["3", "real", ""], "x": ["", "", ""]}
    if suffix == "csv":
        content = "\n".join([",".join(rows), *map(",".join, zip(*rows.values(), strict=True))]).encode()
    else:
        file = io.BytesIO()
        pq.write_table(pa.table(rows), file)
        content = file.getvalue()
    put(f"{store}/list/all.{suffix}", content)
    a, b, gone = find_images([f"{store}/list/all.{suffix}"])
    assert [a.name, b.name, gone.name] == ["sub/a.png", f"{tmp_path.as_posix()[1:]}/b.png", "gone.png"]
    assert [(level(one), one.label) for one in (a, b)] == [(1, 3), (2, 0)]
    assert gone.label is None
    with pytest.raises(ImageError, match=r"list/gone.png: cannot be read: (does not exist|No such file)"):
        gone.read()


def test_samples_of_a_tar_file_are_read_from_their_place_in_it(store: str) -> None:
    files = {"x/0.jpg": b"no image", "x/0.cls": b"2\n", "x/1.png": image(7), "x/1.json": b"{}", "._x/2.png": b""}
    put(f"{store}/tar/0.tar", tar_of(files))
    put(f"{store}/tar/1.tar", tar_of({"x/1.png": image(8), "x/1.cls": b"generated"}))
    one, two, three = find_images([f"{store}/tar/*.tar"])
    assert [found.name for found in (one, two, three)] == ["x/0.jpg", "x/1.png", "1/x/1.png"]
    assert [found.label for found in (one, two, three)] == [2, None, 1]
    assert [level(found) for found in (two, three)] == [7, 8]
    assert one.read() == b"no image"
    assert two.source == f"{store}/tar/0.tar/x/1.png"
    with pytest.raises(ImageError, match="at most 10 are read"):
        find_images([f"{store}/tar/0.tar"], Limits(max_bytes=10))[1].read()


@pytest.mark.parametrize("kept", [1024 + 512 + 20, 1024 + 512])
def test_a_member_that_is_cut_off_is_one_line(kept: int, tmp_path: Path) -> None:
    (tmp_path / "cut.tar").write_bytes(tar_of({"a.png": image(1), "b.png": image(2)})[:kept])
    a, b = find_images([tmp_path / "cut.tar"])
    assert level(a) == 1
    with pytest.raises(ImageError, match=rf"cut\.tar/b\.png: has {kept - 1536} of \d+ bytes: the tar file was cut off"):
        b.read()


@pytest.mark.parametrize(("kept", "number"), [(1024 + 100, 1), (1024, 1), (2048, 2)])
def test_a_tar_file_that_is_cut_between_members_gives_them_and_a_warning(
    kept: int, number: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cut.tar").write_bytes(tar_of({"a.png": image(1), "b.png": image(2)})[:kept])
    assert [level(found) for found in find_images([tmp_path / "cut.tar"])] == [1, 2][:number]
    assert "cut.tar: has no mark of its end; it may have been cut off" in caplog.text


@pytest.mark.parametrize("content", [b"", b"no tar file" * 100, tar_of({"a.txt": b""})])
def test_a_tar_file_that_cannot_be_read_is_one_line_and_others_go_on(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(content)
    (tmp_path / "1.tar").write_bytes(tar_of({"a.png": image(1)}))
    bad, good = find_images([tmp_path / "*.tar"])
    assert level(good) == 1
    with pytest.raises(ImageError, match=r"0.tar: (is not a tar file, or is compressed|holds no images)"):
        bad.read()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file_name,label\na.png,0\n", "the column path or file is needed, given file_name, label"),
        ("path\na.png\n\n,\n", "line 4: names no file"),
        ("path,label\na.png,cat\n", "line 2: the label of a.png is 'cat'; a number of 0 or more, real or generated is"),
    ],
)
def test_a_wrong_list_is_one_line(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(content)
    with pytest.raises(InputError, match=f"list.csv: {message}"):
        find_images([tmp_path / "list.csv"])
    (tmp_path / "list.parquet").write_text(content)
    with pytest.raises(InputError, match=r"list\.parquet: cannot be read as a Parquet file: "):
        find_images([tmp_path / "list.parquet"])


def test_a_protocol_that_is_unknown_or_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        InputError, match=r"^mmory://a/b.png: mmory is not a protocol of fsspec; did you mean memory\?$"
    ):
        find_images(["mmory://a/b.png"])
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)
    with pytest.raises(InputError, match=r'^s3://a: a package is missing for s3: pip install "rediffuse\[s3\]"$'):
        find_images(["s3://a"])


def test_a_store_without_credentials_or_network_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    with serve_s3("bucket") as address:
        options = {"endpoint_url": address}
        monkeypatch.setitem(fsspec.config.conf, "s3", options)
        with pytest.raises(StorageError, match=r"^s3://bucket/a: cannot be read: Unable to locate credentials$"):
            find_images(["s3://bucket/a"])
        monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": "http://127.0.0.1:9", "key": "a", "secret": "b"})
        with pytest.raises(StorageError, match=r"^s3://bucket/a: cannot be read: .*127.0.0.1:9"):
            find_images(["s3://bucket/a"])


def test_a_data_set_on_the_hub_is_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve_hub() as hub:
        hub.commits.append({"images/a.png": image(1), "images/b.png": image(2), "README.md": b""})
        monkeypatch.setitem(fsspec.config.conf, "hf", {"endpoint": hub.url})
        found = find_images(["hf://datasets/owner/name"])
        assert [(one.name, level(one)) for one in found] == [("images/a.png", 1), ("images/b.png", 2)]
        with pytest.raises(StorageError, match="datasets/owner/none: "):
            find_images(["hf://datasets/owner/none"])


def test_an_image_of_a_web_server_without_ranges_is_read_as_far_as_the_limit() -> None:
    with serve() as server:
        server.content, server.knows_ranges = image(1), False
        [found] = find_images([f"{server.url}?size=small"], Limits(max_bytes=1000))
        assert (found.name, level(found)) == ("weights.pt?size=small", 1)
        server.content += b"\0" * 2000
        with pytest.raises(ImageError, match="more than 1000 bytes"):
            found.read()


def test_paths_that_are_read_while_images_are_taken_may_be_endless_and_missing(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(image(1))
    endless = (str(tmp_path / f"{'a' if number == 0 else number}.png") for number in itertools.count())
    found = list(itertools.islice(each_image(endless), 3))
    assert [one.name for one in found] == ["a.png", "1.png", "2.png"]
    with pytest.raises(ImageError, match=r"1\.png: cannot be read: No such file or directory"):
        found[1].read()


def test_images_in_memory_stand_beside_those_in_a_store() -> None:
    put("memory://beside/a.png", image(3))
    pixels = np.zeros((8, 8, 3), np.uint8)
    assert [one.name for one in gather_images([pixels, "memory://beside/a.png"])] == ["image 0", "a.png"]
