from pathlib import Path

import pytest
from PIL import Image

from rediffuse.detection.labelled import find_labelled
from rediffuse.errors import InputError


def test_class_and_group_are_the_folders_that_an_image_lies_in(tmp_path: Path):
    for name in ("real/a.png", "real/2019/b.png", "generated/c.png", "generated/ddim/d.png", "generated/ddpm/x/e.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    images = {image.found.name: image for image in find_labelled(tmp_path)}
    assert {name: (image.label, image.group, image.collection) for name, image in images.items()} == {
        "real/a.png": (0, "real", "real"),
        "real/2019/b.png": (0, "2019", "2019"),
        "generated/c.png": (1, "generated", "generated"),
        "generated/ddim/d.png": (1, "ddim", "ddim"),
        "generated/ddpm/x/e.png": (1, "ddpm/x", "ddpm"),
    }
    assert all(image.found.path == tmp_path / name for name, image in images.items())


def test_missing_class_is_named_with_its_folder(tmp_path: Path):
    (tmp_path / "real").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "real" / "a.png")
    with pytest.raises(InputError, match=f"^{tmp_path}: has no subfolder generated/; real and generated are needed$"):
        find_labelled(tmp_path)


def test_a_group_of_both_classes_is_refused_by_name(tmp_path: Path):
    for name in ("real/flux/a.png", "generated/flux/b.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    with pytest.raises(
        InputError, match=f"^{tmp_path}: the group flux has images of both classes; one class is allowed$"
    ):
        find_labelled(tmp_path)
