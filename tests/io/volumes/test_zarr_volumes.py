"""Folders of zarr: plain arrays as NPY, OME-Zarr with its scales, units and orientations, and each fault its reason."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from patchatlas.errors import MissingExtraError
from patchatlas.io.volumes.reasons import VolumeError
from patchatlas.io.volumes.sources import find_volumes, read_volume
from patchatlas.io.volumes.volume import Declared, Volume
from patchatlas.pretrain.index import index_volumes
from tests.io.volumes.volume_files import SPACING_ZYX, example, write_sidecar

SPACED = Declared(spacing_zyx=SPACING_ZYX)


def write_array(path: Path, values: np.ndarray | None = None, **options) -> Path:
    values = example() if values is None else values
    array = zarr.create_array(path, shape=values.shape, dtype=values.dtype, chunks=(3,) * values.ndim, **options)
    array[...] = values
    return path


def axis(name: str, *, unit: str | None = "millimeter", to: str | None = None, kind: str = "space") -> dict:
    told = {"name": name, "type": kind}
    if unit:
        told["unit"] = unit
    if to:
        told["orientation"] = {"type": "anatomical", "value": to}
    return told


def write_image(path: Path, values: np.ndarray, axes: list[dict], *, zarr_format=3, both=None, **scales) -> Path:
    """An OME-Zarr image of two levels, the coarse one of half the size; `both` scales all levels."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    half = values[tuple(slice(None, None, 2) if n > 1 else slice(None) for n in values.shape)]
    datasets = []
    for name, level in (("fine", values), ("coarse", half)):
        group.create_array(name, shape=level.shape, dtype=level.dtype)[...] = level
        if name in scales:
            change = [{"type": "scale", "scale": scales[name]}, {"type": "translation", "translation": scales[name]}]
            datasets.append({"path": name, "coordinateTransformations": change})
        else:
            datasets.append({"path": name})
    image = {"axes": axes, "datasets": datasets}
    if both:
        image["coordinateTransformations"] = [{"type": "scale", "scale": both}]
    if zarr_format == 3:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    else:
        group.attrs["multiscales"] = [{"version": "0.4", **image}]
    return path


def same(volume: Volume) -> bool:
    return np.array_equal(volume.values, example()) and volume.spacing_zyx == pytest.approx(SPACING_ZYX)


def reason_of(path: Path, declared: Declared | None = None) -> str:
    with pytest.raises(VolumeError) as raised:
        read_volume(path, declared)
    assert str(path) in str(raised.value)
    return raised.value.reason


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_plain_array_is_read_as_npy_is(tmp_path, zarr_format):
    path = write_array(tmp_path / "a.zarr", zarr_format=zarr_format)
    assert same(read_volume(path, SPACED))
    assert reason_of(path) == "no_spacing"
    path = write_array(tmp_path / "b.zarr", example()[:, ::-1, ::-1], zarr_format=zarr_format)
    write_sidecar(path, axes="SPL")
    volume = read_volume(path)
    assert same(volume)
    assert volume.facts["format"] == "zarr"


def test_shards_a_channel_and_a_group_of_one_array(tmp_path):
    assert same(read_volume(write_array(tmp_path / "a.zarr", shards=(6, 6, 9)), SPACED))
    assert same(read_volume(write_array(tmp_path / "b.zarr", example()[None].astype(np.float32)), SPACED))
    group = zarr.open_group(tmp_path / "c.zarr", mode="w")
    group.create_array("ct", shape=example().shape, dtype="i2")[...] = example()
    group.create_array("gains", shape=(4,), dtype="f4")
    assert same(read_volume(tmp_path / "c.zarr", SPACED))
    group.create_array("other", shape=(2, 2, 2), dtype="i2")
    assert reason_of(tmp_path / "c.zarr", SPACED) == "not_a_volume"


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_ome_zarr_says_its_spacing(tmp_path, zarr_format):
    """3, 2 and 1 mm are 300, 200 and 100 um of the level times 10 of all levels; what is declared is not asked."""
    axes = [axis(name, unit="micrometer") for name in "zyx"]
    scales = {"fine": [300, 200, 100], "coarse": [600, 400, 200]}
    path = write_image(tmp_path / "a.ome.zarr", example(), axes, both=[10, 10, 10], zarr_format=zarr_format, **scales)
    assert same(read_volume(path, Declared(spacing_zyx=(9.0, 9.0, 9.0))))


def test_ome_zarr_in_another_order_of_axes_with_time_and_channel(tmp_path):
    values = example().transpose(2, 1, 0)[None, :, :, None, :]  # t x y c z
    axes = [axis("t", kind="time", unit="second"), axis("x"), axis("y"), axis("c", kind="channel", unit=None)]
    path = write_image(tmp_path / "a.zarr", values, [*axes, axis("z", unit="centimeter")], fine=[5, 1, 2, 1, 0.3])
    assert same(read_volume(path))
    path = write_image(tmp_path / "b.zarr", np.concatenate([values] * 2, axis=3), [*axes, axis("z")], fine=[1] * 5)
    assert reason_of(path) == "not_a_volume"


def test_ome_zarr_may_say_where_its_axes_grow_to(tmp_path):
    told = {"z": "superior-to-inferior", "y": "anterior-to-posterior", "x": "left-to-right"}
    axes = [axis(name, to=to) for name, to in told.items()]
    path = write_image(tmp_path / "a.zarr", example()[::-1, ::-1], axes, fine=SPACING_ZYX)
    assert same(read_volume(path, Declared(axes="SPL")))
    told = {"z": "inferior-to-superior", "y": "posterior-to-anterior", "x": "right-to-left"}
    axes = [axis(name, to=to) for name, to in told.items()]
    path = write_image(tmp_path / "d.zarr", example()[:, :, ::-1], axes, fine=SPACING_ZYX)
    path.with_suffix(".json").write_text('{"spacing": [9, 9, 9], "axes": "IPR"}')  # the image goes before it
    assert same(read_volume(path))
    axes[0] = axis("z", to="dorsal-to-ventral")
    assert reason_of(write_image(tmp_path / "b.zarr", example(), axes, fine=SPACING_ZYX)) == "no_orientation"
    axes[0] = axis("z")
    assert reason_of(write_image(tmp_path / "c.zarr", example(), axes, fine=SPACING_ZYX)) == "no_orientation"


def test_without_all_units_the_spacing_is_declared(tmp_path):
    axes = [axis("z"), axis("y"), axis("x", unit=None)]
    path = write_image(tmp_path / "a.zarr", example(), axes, fine=[9, 9, 9])
    assert reason_of(path) == "no_spacing"
    assert same(read_volume(path, SPACED))
    axes[2] = axis("x", unit="parsec")
    assert reason_of(write_image(tmp_path / "b.zarr", example(), axes, fine=[9, 9, 9])) == "no_spacing"
    axes[2] = axis("x")
    path = write_image(tmp_path / "d.zarr", example(), axes, both=SPACING_ZYX)  # of the finest level nothing is said
    assert reason_of(path) == "no_spacing"
    axes = [axis(name) for name in "yx"]
    assert reason_of(write_image(tmp_path / "c.zarr", example()[0], axes, fine=[9, 9])) == "not_a_volume"


def test_chunks_that_are_not_there_may_only_be_air(tmp_path):
    """zarr reads a missing chunk as the fill value: 0 HU is water."""
    path = write_array(tmp_path / "a.zarr")
    (path / "c" / "1" / "0" / "2").unlink()
    assert reason_of(path, SPACED) == "truncated"
    air = example()
    air[3:, :3, 6:] = -1024
    path = write_array(tmp_path / "b.zarr", air, fill_value=-1024)
    assert not (path / "c" / "1" / "0" / "2").exists()
    volume = read_volume(path, SPACED)
    np.testing.assert_array_equal(volume.values, air)
    assert volume.facts["chunks_absent"] == 1
    mask = write_array(tmp_path / "c.zarr", (example() > 500).astype(np.uint8))
    assert (read_volume(mask, Declared(spacing_zyx=SPACING_ZYX, units="labels")).values == (example() > 500)).all()


def test_chunks_that_are_not_there_of_no_value_are_no_air(tmp_path):
    path = write_array(tmp_path / "a.zarr", zarr_format=2)
    told = json.loads((path / ".zarray").read_text())
    (path / ".zarray").write_text(json.dumps(told | {"fill_value": None}))
    assert same(read_volume(path, SPACED))
    (path / "1.0.2").unlink()
    with pytest.raises(VolumeError, match="1 of its 12 chunks are not there and would read as nothing") as raised:
        read_volume(path, SPACED)
    assert raised.value.reason == "truncated"


def test_faults(tmp_path):
    path = write_array(tmp_path / "a.zarr")
    (path / "c" / "0" / "0" / "0").write_bytes(b"nothing")
    assert reason_of(path, SPACED) == "damaged"
    for name, content in (("b", "{"), ("d", '{"zarr_format": 3, "node_type": "array", "shape": [2]}')):
        path = write_array(tmp_path / f"{name}.zarr")
        (path / "zarr.json").write_text(content)
        assert reason_of(path, SPACED) == "damaged"
    (tmp_path / "e.zarr").mkdir()
    assert reason_of(tmp_path / "e.zarr", SPACED) == "damaged"
    (tmp_path / "f.zarr").write_bytes(b"PK")
    assert reason_of(tmp_path / "f.zarr", SPACED) == "damaged"
    path = write_image(tmp_path / "g.zarr", example(), [axis(name) for name in "zyx"], fine=SPACING_ZYX)
    metadata = json.loads((path / "zarr.json").read_text())
    metadata["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = "finest"
    (path / "zarr.json").write_text(json.dumps(metadata))
    assert reason_of(path) == "damaged"
    assert reason_of(write_array(tmp_path / "h.zarr", example() / 1000), SPACED) == "wrong_units"


def test_without_zarr_the_extra_is_named(tmp_path, monkeypatch):
    path = write_array(tmp_path / "a.zarr")
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingExtraError, match=r"patchatlas\[zarr\]"):
        read_volume(path, SPACED)


def test_a_folder_of_zarr_is_one_source_and_its_chunks_are_none(tmp_path):
    top = tmp_path / "scans"
    (top / "a").mkdir(parents=True)
    path = write_array(top / "a" / "one.zarr")
    write_sidecar(path)
    found = find_volumes(top)
    assert [(source.name, source.stem) for source in found.sources] == [("a/one.zarr", "a/one")]
    assert not found.ignored
    assert not found.faults
    report = index_volumes([top], tmp_path / "cache")
    np.testing.assert_array_equal(report.cache.read(report.cache.records[0], (0, 0, 0), example().shape), example())
    assert index_volumes([top], tmp_path / "cache").how == {"kept": 1}
    source, before = found.sources[0], report.cache.records[0].sha256
    assert source.sha256() == before
    (path / "c" / "1" / "1" / "2").rename(path / "c" / "1" / "1" / "3")  # the same bytes in another place
    assert source.sha256() != before
    assert [fault.reason for fault in index_volumes([top], tmp_path / "cache").skipped] == ["truncated"]
