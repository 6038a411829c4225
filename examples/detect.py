"""Judge images in files and in memory with the embedded detector.

python examples/detect.py FOLDER [IMAGE ...]

Without images, two photographs of scikit-learn are used.
"""

import sys
from pathlib import Path

import sklearn.datasets
from PIL import Image

import rediffuse


def main(folder: Path, paths: list[str]) -> None:
    model = rediffuse.load("default")
    [sample] = rediffuse.sample(model, [0])
    rediffuse.write_image(folder / "sample.png", sample)

    squashed = Image.open(paths[0]).resize((640, 640))
    verdicts = rediffuse.detect([folder, *paths, squashed], model=model)
    for verdict in verdicts:
        print(verdict)  # sample.png: generated, probability 0.99
    settings = rediffuse.load_detector("default").settings
    print(f"each inverted in {settings.depth} of {settings.steps} steps at {settings.image_size} px, and reconstructed")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or sklearn.datasets.load_sample_images().filenames)
