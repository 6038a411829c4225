"""Store reconstructions as files in one folder, on the disk or in a store such as S3.

    settings.json                 the `DireSettings` of everything in the folder
    batch_size.json               images per call of the network, for a job that continues (`zoo.batch_size`)
    maps/NAME.png                 |x_0 - x_0_hat| in 16 bits, or NAME.safetensors: float32, exact
    maps_8bit/NAME.png            the map as an 8-bit image, as the original DIRE writes it
    reconstructions/NAME.png      x_0_hat in 8 bits, rounded down as the original does
    latents/NAME.safetensors      x_T, float32

NAME is the input's name with its suffix (`photo.jpg.png`), so that `photo.jpg` and `photo.png` have different results.
The format of a map does not depend on the format of its input. The windows of one image lie below one another in every
file, (3, N S, S); `manifest.Row.windows` has their places in the image. Instead of single files, `shards.Shards` can
hold the files of all images, with the same names and bytes.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from rediffuse import files, records
from rediffuse.dire.reconstruct import DireMap, Reconstruction
from rediffuse.dire.settings import DireSettings, Kind, MapFormat, StoreForm, require_same
from rediffuse.dire.shards import FOLDER, Place, Shards
from rediffuse.errors import ConfigError, ImageError, InputError
from rediffuse.images.encode import is_whole, png16_bytes, png_bytes, read_png16
from rediffuse.images.tensors import map_to_uint8_floor, to_uint8_floor
from rediffuse.models.config import Precision
from rediffuse.stores import StoreFolder


@dataclass(frozen=True)
class _Output:
    """One file that is written for a reconstruction."""

    folder: str
    suffix: str
    encode: Callable[[Reconstruction], bytes]


class MapStore:
    """The results with one `DireSettings` in a folder. Several threads may use it."""

    def __init__(
        self,
        folder: Path | StoreFolder,
        settings: DireSettings,
        *,
        kinds: tuple[Kind, ...] = ("maps",),
        map_format: MapFormat = "png16",
        form: StoreForm = "files",
    ) -> None:
        """Open `folder` for writing; nothing is written yet.

        Args:
            folder: the folder, which is created with the first result.
            settings: the settings of all results.
            kinds: the parts of each reconstruction that are stored.
            map_format: `png16` has an error of at most 1/65535, `safetensors` is exact and larger.
            form: whether each result is a file of its own, or a part of a shard; shards need a folder on a disk.

        Raises:
            SettingsMismatch: the folder holds results made with other settings.
            ConfigError: its `settings.json` does not hold settings, or its results have the other form.
        """
        self.folder = folder
        self.settings = settings
        if form == "shards" and isinstance(folder, StoreFolder):
            raise ConfigError(f"--store shards: {folder} is in a store; a folder on a disk is needed")
        self._shards = Shards(folder) if form == "shards" and isinstance(folder, Path) else None
        self._outputs = tuple(output for kind in kinds for output in _outputs(kind, map_format))
        if _settings_file(folder).exists():
            self._require_same()

    @classmethod
    def open(cls, folder: Path | StoreFolder) -> "MapStore":
        """Open an existing folder of results for reading.

        Raises:
            InputError: there is no `settings.json` in it.
            ConfigError: its `settings.json` does not hold settings.
        """
        return cls(folder, _read_settings(folder), form=_form_of(folder))

    def prepare(self, is_alone: bool) -> None:
        """Write the settings for all processes that share the folder, or compare them (see `files.claim`).

        Raises:
            SettingsMismatch: another process has begun with other settings.
            ConfigError: another process has begun with the other form.
        """
        self._write_settings()
        self._require_same()

    def holds(self, name: str, place: Place | None = None) -> bool:
        """Whether every file that `write` makes for `name` exists, and none was emptied or cut off.

        Args:
            name: the image's name.
            place: that of its results in a shard, from the manifest.
        """
        if self._shards:
            members = {_member(output, name) for output in self._outputs}
            return place is not None and members <= self._shards.names(place)
        return all(is_whole(self._path(output, name)) for output in self._outputs)

    def write(self, name: str, reconstruction: Reconstruction, earlier: Place | None = None) -> Place | None:
        """Write the files of one image's reconstruction, each of them atomically.

        Args:
            name: the image's name.
            reconstruction: its reconstruction.
            earlier: the place of earlier results for the same content; those of other kinds stay.

        Returns:
            The place in a shard; None for single files.

        Raises:
            StorageError: the disk is full, or the folder cannot be written to.
        """
        assert len(reconstruction) == 1 or self.settings.num_windows is not None
        assert reconstruction.settings == self.settings
        self._write_settings()
        made = {_member(output, name): output.encode(reconstruction) for output in self._outputs}
        if self._shards:
            kept = self._shards.read(earlier) if earlier and self._shards.names(earlier) else {}
            return self._shards.add(kept | made)
        for member, content in made.items():
            files.write_bytes(self.folder.joinpath(member), content)
        return None

    def _write_settings(self) -> None:
        if _settings_file(self.folder).exists():
            return
        if self._shards:
            self._shards.create()  # first, since the form of a folder with settings is known by it
        text = json.dumps(records.dump(self.settings), indent=2) + "\n"
        files.write_bytes(_settings_file(self.folder), text.encode())

    def remove(self, name: str) -> None:
        """Remove every file of `name`, of all kinds and formats; in shards they stay until the manifest is closed.

        Raises:
            StorageError: a file exists and cannot be removed.
        """
        for output in () if self._shards else _ALL:
            files.remove(self._path(output, name))

    def read(self, name: str, place: Place | None = None) -> DireMap:
        """The map of one image, (N, 3, S, S), with its settings; if it is stored in both formats, the exact one.

        N is 1, or the number of the image's windows; the manifest has their places.

        Args:
            name: the image's name.
            place: that of its results in a shard, from the manifest.

        Raises:
            InputError: there is no map of `name`, or its file is damaged; names the file.
        """
        exact, png = self._path(_EXACT_MAP, name), self._path(_PNG16_MAP, name)
        if self._shards:
            members = self._shards.read(place) if place else {}
            contents = {self.folder.joinpath(member): content for member, content in members.items()}
        else:
            contents = {path: None for path in (exact, png) if path.exists()}
        path = exact if exact in contents else png
        if path not in contents:
            raise InputError(f"{path}: there is no map of {name}")
        try:
            content = contents[path] or path.read_bytes()
            if path == exact:
                values = safetensors.torch.load(content)["map"]
            else:
                values = torch.from_numpy(read_png16(content)).movedim(-1, 0)
            return DireMap(values=_rows(values, self.settings), settings=self.settings)
        except (OSError, ImageError, ConfigError, SafetensorError, KeyError) as error:
            raise InputError(f"{path}: cannot be read: {error}") from error

    def _require_same(self) -> None:
        require_same(given=self.settings, expected=_read_settings(self.folder), owner=str(self.folder))
        given, there = "shards" if self._shards else "files", _form_of(self.folder)
        if given != there:
            raise ConfigError(
                f"--store {given}: {self.folder} has its results in {there}; --store {there}, or another folder"
            )

    def _path(self, output: _Output, name: str) -> Path | StoreFolder:
        return self.folder.joinpath(_member(output, name))


def _member(output: _Output, name: str) -> str:
    """The name of a file of results, relative to the folder."""
    return files.result_path(Path(output.folder), name, output.suffix).as_posix()


def _strip(rows: Tensor) -> Tensor:
    """Images (N, 3, S, S) below one another: (3, N S, S)."""
    return torch.cat([*rows], dim=1)


def _rows(strip: Tensor, settings: DireSettings) -> Tensor:
    """The inverse of `_strip`; a strip that does not consist of windows is one image."""
    side = settings.image_size
    if settings.num_windows is None or strip.ndim != 3 or strip.shape[1] % side:
        return strip[None]
    return torch.stack(strip.split(side, dim=1))


def _png16(reconstruction: Reconstruction) -> bytes:
    return png16_bytes(_strip(reconstruction.map.values).movedim(0, -1).numpy())


def _exact(reconstruction: Reconstruction) -> bytes:
    return safetensors.torch.save({"map": _strip(reconstruction.map.values)})


def _eight_bits(reconstruction: Reconstruction) -> bytes:
    return png_bytes(map_to_uint8_floor(_strip(reconstruction.map.values)))


def _image(reconstruction: Reconstruction) -> bytes:
    return png_bytes(to_uint8_floor(_strip(reconstruction.x_0_hat)))


def _latent(reconstruction: Reconstruction) -> bytes:
    return safetensors.torch.save({"x_T": _strip(reconstruction.x_T)})


_PNG16_MAP = _Output("maps", ".png", _png16)
_EXACT_MAP = _Output("maps", ".safetensors", _exact)
_8BIT_MAP = _Output("maps_8bit", ".png", _eight_bits)
_RECONSTRUCTION = _Output("reconstructions", ".png", _image)
_LATENT = _Output("latents", ".safetensors", _latent)
_ALL = (_PNG16_MAP, _EXACT_MAP, _8BIT_MAP, _RECONSTRUCTION, _LATENT)


def _outputs(kind: Kind, map_format: MapFormat) -> tuple[_Output, ...]:
    match kind:
        case "maps":
            return (_PNG16_MAP if map_format == "png16" else _EXACT_MAP), _8BIT_MAP
        case "reconstructions":
            return (_RECONSTRUCTION,)
        case "latents":
            return (_LATENT,)


def _form_of(folder: Path | StoreFolder) -> StoreForm:
    """The form of the results in a folder that has settings."""
    return "shards" if isinstance(folder, Path) and (folder / FOLDER).is_dir() else "files"


def stored_precision(folder: Path | StoreFolder) -> Precision | None:
    """The precision of the results in a folder; None if it has none.

    Raises:
        ConfigError: its `settings.json` does not hold settings.
    """
    return _read_settings(folder).precision if _settings_file(folder).exists() else None


def _settings_file(folder: Path | StoreFolder) -> Path | StoreFolder:
    return folder / "settings.json"


def _read_settings(folder: Path | StoreFolder) -> DireSettings:
    path = _settings_file(folder)
    if not path.exists():
        raise InputError(f"{path}: does not exist; a folder of results of `rediffuse dire` is needed")
    return records.parse(DireSettings, records.read_json(path), str(path))
