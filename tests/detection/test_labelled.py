"""Class and group of an image, from the folders of published data sets and from a CSV file."""

import os
from collections.abc import Iterable
from pathlib import Path

import pytest
from PIL import Image

from rediffuse.detection.labelled import find_labelled, left_out_scores, scores_by_class
from rediffuse.detection.left_out import LeftOut
from rediffuse.errors import ConfigError, InputError
from rediffuse.images.limits import Limits


def write(folder: Path, names: Iterable[str]) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(folder / name)
    return folder


def found(data: Path) -> dict[str, tuple[int, str]]:
    """Class and group of each image by its name."""
    return {image.found.name: (image.label, image.group) for image in find_labelled(data)}


def test_class_and_group_are_the_folders_that_an_image_lies_in(tmp_path: Path):
    write(
        tmp_path,
        ("real/a.png", "real/2019/b.png", "generated/c.png", "generated/ddim/d.png", "generated/ddpm/x/e.png"),
    )
    images = {image.found.name: image for image in find_labelled(tmp_path)}
    assert {name: (image.label, image.group, image.collection) for name, image in images.items()} == {
        "real/a.png": (0, "real", "real"),
        "real/2019/b.png": (0, "2019", "2019"),
        "generated/c.png": (1, "generated", "generated"),
        "generated/ddim/d.png": (1, "ddim", "ddim"),
        "generated/ddpm/x/e.png": (1, "ddpm/x", "ddpm"),
    }
    assert all(image.found.path == tmp_path / name for name, image in images.items())


def test_genimage_has_photographs_and_images_of_each_generator(tmp_path: Path):
    write(tmp_path, (f"{name}/val/{kind}/a.png" for name in ("adm", "sdv4") for kind in ("nature", "ai")))
    assert found(tmp_path) == {
        "adm/val/nature/a.png": (0, "adm/val"),
        "adm/val/ai/a.png": (1, "adm/val"),
        "sdv4/val/nature/a.png": (0, "sdv4/val"),
        "sdv4/val/ai/a.png": (1, "sdv4/val"),
    }


def test_cnndetection_has_generators_with_and_without_categories(tmp_path: Path):
    classes = ("0_real", "1_fake")
    write(tmp_path, (f"{name}/{kind}/a.png" for name in ("stargan", "progan/cat", "progan/dog") for kind in classes))
    assert {group for _, group in found(tmp_path).values()} == {"stargan", "progan/cat", "progan/dog"}
    assert {image.collection for image in find_labelled(tmp_path)} == {"stargan", "progan"}


def test_generators_of_diffusionforensics_lie_beside_the_real_images(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level("INFO", logger="rediffuse")
    names = ("real/a.png", "real/indoor/b.png", "adm/c.png", "sdv2/x/d.png")
    write(tmp_path / "images" / "test" / "imagenet", names)
    expected = {(0, "real"), (0, "indoor"), (1, "adm"), (1, "sdv2/x")}
    assert set(found(tmp_path / "images" / "test" / "imagenet").values()) == expected
    assert set(found(tmp_path).values()) == expected  # the folders that are above all images tell nothing apart
    assert caplog.messages[-1] == f"{tmp_path}: folders beside real images are taken as generators: adm, sdv2"
    write(tmp_path / "images" / "test" / "celebahq", ("real/e.png", "sdv2/f.png"))
    assert set(found(tmp_path).values()) == {
        *((0, "imagenet"), (0, "imagenet/indoor"), (0, "celebahq")),
        *((1, "imagenet/adm"), (1, "imagenet/sdv2/x"), (1, "celebahq/sdv2")),
    }


def test_names_of_classes_may_have_capitals_and_the_outermost_counts(tmp_path: Path):
    write(tmp_path, ("REAL/nature/a.png", "Fake/b.png", "other/c.png", ".real/d.png"))
    assert found(tmp_path) == {"REAL/nature/a.png": (0, "nature"), "Fake/b.png": (1, "generated")}


def test_a_folder_that_holds_itself_is_read_once(tmp_path: Path):
    write(tmp_path, ("x/real/a.png", "x/fake/b.png"))
    (tmp_path / "x" / "again").symlink_to(tmp_path)
    assert len(found(tmp_path)) == 2


def test_missing_class_is_named_with_its_folder(tmp_path: Path):
    write(tmp_path, ("x/real/a.png",))
    message = (
        rf"^{tmp_path}: has no folder of generated images \(generated, fake, 1_fake, ai\) at any depth; "
        "both classes are needed$"
    )
    with pytest.raises(InputError, match=message):
        find_labelled(tmp_path)
    with pytest.raises(
        InputError, match=f"^{tmp_path}/y: does not exist; a folder, or a CSV or Parquet file, is needed$"
    ):
        find_labelled(tmp_path / "y")


def test_a_group_of_both_classes_is_refused_by_name(tmp_path: Path):
    write(tmp_path, ("real/flux/a.png", "generated/flux/b.png"))
    with pytest.raises(
        InputError, match=f"^{tmp_path}: the group flux has images of both classes; one class is allowed$"
    ):
        find_labelled(tmp_path)


def test_a_csv_file_names_files_beside_it_with_their_classes_and_groups(tmp_path: Path):
    table = tmp_path / "table.csv"
    table.write_text("\ufefffile,label,group\na.png,real,phone\nsub/b.png,1,flux/dev\nc.png,0\nd.png,generated,\n")
    assert found(table) == {
        "a.png": (0, "phone"),
        "sub/b.png": (1, "flux/dev"),
        "c.png": (0, "real"),
        "d.png": (1, "generated"),
    }
    assert [image.found.path for image in find_labelled(table)][1] == tmp_path / "sub" / "b.png"


def test_the_files_of_a_list_have_the_given_limits(tmp_path: Path):
    table, limits = tmp_path / "table.csv", Limits(max_pixels=7)
    table.write_text("file,label\na.png,real\nb.png,generated\n")
    assert [image.found.limits for image in find_labelled(table, limits)] == [limits] * 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,label\na,0\n", "the column path or file is needed, given name, label"),
        (
            "file,label\na,0\nb,fake\n",
            "line 3: the label of b is 'fake'; a number of 0 or more, real or generated is needed",
        ),
        ("file,label\na\n", "line 2: a has no label; real, 0, generated, 1 are allowed"),
        ("file,label\na,2\n", "line 2: a has the label 2; real, 0, generated, 1 are allowed"),
        ("file,label\n,0\n", "line 2: names no file"),
        ("file,label\na,0\na,1\n", "line 3: a occurs twice"),
        ("file,label\na,0\n", "has no generated images; both classes are needed"),
        ("file,label\na,1\n", "has no real images; both classes are needed"),
        ("file,label,group\na,0,x\nb,1,x\n", "the group x has images of both classes; one class is allowed"),
    ],
)
def test_a_wrong_csv_file_is_one_line(text: str, message: str, tmp_path: Path):
    table = tmp_path / "table.csv"
    table.write_text(text)
    with pytest.raises(InputError) as error:
        find_labelled(table)
    assert str(error.value) == f"{table}: {message}"


def test_scores_are_grouped_by_class_and_group_and_a_class_without_images_is_named(tmp_path: Path):
    images = find_labelled(write(tmp_path, ("real/b/x.png", "real/a/y.png", "generated/flux/z.png", "real/b/z.png")))
    place = {image.found.name: score for image, score in zip(images, (0.1, 0.2, 0.3, 0.4), strict=True)}
    real = {"a": (place["real/a/y.png"],), "b": (place["real/b/x.png"], place["real/b/z.png"])}
    generated = {"flux": (0.4,)}
    assert scores_by_class(images, (0.1, 0.2, 0.3, 0.4)) == {"real": real, "generated": generated}
    assert scores_by_class(images[3:], (0.4,)) == {"generated": generated}
    assert left_out_scores(images, (0.1, 0.2, 0.3, 0.4)) == LeftOut(real=real, generated=generated)
    for given, missing in ((images[:3], "generated images"), (images[3:], "photographs")):
        with pytest.raises(ConfigError, match=f"^left_out: no scores of {missing}; at least 1 is needed$"):
            left_out_scores(given, [0.5] * len(given))


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(write(tmp_path, ("real/a.png", "generated/b.png")))
    for _ in range(20):  # 250 bytes each; a path may have 4,096
        Path("x" * 250).mkdir()
        os.chdir("x" * 250)
    with pytest.raises(InputError, match=f"^{tmp_path}/x.*/x+: cannot be listed: File name too long$"):
        find_labelled(tmp_path)


def test_hidden_folders_hold_no_images(tmp_path: Path):
    write(tmp_path, ("real/a.png", "generated/b.png", ".trash/real/c.png"))
    assert sorted(found(tmp_path)) == ["generated/b.png", "real/a.png"]


def test_slashes_around_a_group_of_a_csv_file_are_no_part_of_it(tmp_path: Path):
    write(tmp_path, ("a.png", "b.png"))
    (tmp_path / "data.csv").write_text("file,label,group\na.png,real, /cameras/x/ \nb.png,generated,\n")
    assert found(tmp_path / "data.csv") == {"a.png": (0, "cameras/x"), "b.png": (1, "generated")}
