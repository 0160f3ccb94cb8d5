"""Simulate scans with known truth: object, probe, positions, object tiles, and diffraction with photon noise.

Writes train.npz and test.npz into OUTPUT in PtychoPINN's layout. Both scan one object at different positions.
"""

from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic import Field

from patchatlas.cli.console import Output, emit
from patchatlas.cli.threads import one_thread
from patchatlas.errors import InputError


class Config(Output):
    """What `patchatlas stitch simulate` is asked to do."""

    output: tyro.conf.Positional[Path]
    """Folder to write to; made if it is not there. Files of a former run are replaced."""
    positions: Annotated[int, Field(gt=0)] = 1000
    """Positions of train.npz."""
    test_positions: Annotated[int, Field(ge=0)] = 512
    """Positions of test.npz; 0 leaves it out."""
    tile: Annotated[int, Field(ge=8)] = 64
    """Pixels along a side of a tile and of a diffraction frame."""
    object: Annotated[int, Field(gt=0)] = 392
    """Pixels along a side of the object."""
    path: Literal["raster", "spiral", "fermat", "random"] = "fermat"
    """Path of train.npz. That of test.npz is random."""
    jitter: Annotated[float, Field(ge=0)] = 0.0
    """RMS error, in pixels along each axis, of the recorded positions against the true ones."""
    photons: Annotated[float, Field(gt=0)] = 1e6
    """Photons of the probe in a frame."""
    noise: bool = True
    """Poisson noise of the photons."""
    seed: Annotated[int, Field(ge=0)] = 0
    """The same seed and options give the same bytes."""


def run(config: Config) -> int:
    """Simulate and write.

    Raises:
        InputError: OUTPUT is a file, or its parent folder does not exist.
        UsageError: the object is too small for the tiles.
    """
    if config.output.exists() and not config.output.is_dir():
        raise InputError(f"OUTPUT {config.output} is a file; name a folder")
    if not config.output.parent.is_dir():
        raise InputError(f"cannot make {config.output}: the folder {config.output.parent} does not exist")

    import numpy as np

    from patchatlas.stitch.simulate import make_object, make_probe, save_simulation, scan_path, simulate

    one_thread()
    # One stream for each part, so that one option does not change what the others give.
    streams = np.random.default_rng(config.seed).spawn(5)
    side = (config.object, config.object)
    image, probe = make_object(side, streams[0]), make_probe(config.tile, photons=config.photons)
    wanted = [("train", config.positions, config.path, streams[1:3])]
    if config.test_positions:
        wanted.append(("test", config.test_positions, "random", streams[3:5]))
    made = []
    for name, count, path, (places, noise) in wanted:
        positions = scan_path(path, count, object_hw=side, side=config.tile, generator=places)
        made.append(
            (name, simulate(image, probe, positions, generator=noise, jitter=config.jitter, noise=config.noise))
        )
    config.output.mkdir(exist_ok=True)
    written, lines = [], []
    for name, simulation in made:
        file = config.output / f"{name}.npz"
        told = config.model_dump(mode="json", exclude={"output", "format", "verbose"})
        save_simulation(file, simulation, metadata={"simulation": told, "part": name})
        count, size = len(simulation.positions), file.stat().st_size
        written.append({"file": str(file), "positions": count, "bytes": size})
        lines.append(f"{file}: {count} positions, {size / 1e6:.1f} MB")
    emit(config, human="\n".join(lines), data={"files": written})
    return 0
