"""Plant faults on disk so that only the fault shows: files, sizes and hashes stay consistent unless they are it."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from patchatlas.datasets.build.drawing import draw
from patchatlas.datasets.build.settings import Settings
from patchatlas.datasets.verify.report import Finding, Report
from patchatlas.datasets.verify.verify import verify
from patchatlas.encoders.protocol import Encoder, Tokens
from patchatlas.io.codecs import encode_array
from patchatlas.io.feature_store import HEADER, FeatureStore
from patchatlas.io.images import MAX_PIXELS
from patchatlas.io.manifest import FeatureEntry, Record, read_manifest, write_manifest

PATCHES, CLS, REGISTERS = "dinov3_patches", "dinov3_cls", "dinov3_registers"


@dataclass(frozen=True)
class Built:
    """A build on disk.

    Attributes:
        root: folder of manifest and derived folder.
        settings: how it was made.
    """

    root: Path
    settings: Settings

    def at(self, root: Path) -> "Built":
        """The same build, copied to another folder."""
        settings = replace(self.settings, manifest=root / "set.jsonl", derived_dir=root / "derived")
        return Built(root, settings)

    @property
    def manifest(self) -> Path:
        return self.settings.manifest

    @property
    def derived(self) -> Path:
        return self.settings.derived_dir

    @property
    def records(self) -> dict[str, Record]:
        return {record.image_path: record for record in read_manifest(self.manifest)}

    @property
    def store(self) -> FeatureStore:
        return FeatureStore(self.derived)

    def folder(self, kind: str = PATCHES) -> Path:
        (folder,) = self.store.sets(kind)
        return folder

    def path(self, image_path: str, kind: str = PATCHES) -> Path:
        return self.store.path(self.records[image_path].features[kind])

    def verify(self, **options: Any) -> Report:
        return verify(self.manifest, self.derived, workers=2, **options)

    def pixels(self, record: Record) -> Tensor:
        """What an encoder of patch 16 sees of a picture."""
        return draw(record, self.settings.input_dir, (16, 16), self.settings.recipe, max_pixels=MAX_PIXELS)

    def change(self, image_path: str, **fields: Any) -> None:
        """Change fields of a record in the manifest."""
        write_manifest(
            self.manifest, [replace(r, **fields) if r.image_path == image_path else r for r in self.records.values()]
        )

    def change_entry(self, image_path: str, kind: str = PATCHES, **fields: Any) -> None:
        """Change fields of one entry of a record."""
        features = self.records[image_path].features
        self.change(image_path, features={**features, kind: replace(features[kind], **fields)})

    def edit_line(self, image_path: str, **fields: Any) -> None:
        """Change a line as text, past all checks."""
        rows = [json.loads(line) for line in self.manifest.read_text().splitlines()]
        changed = [{**row, **fields} if row["image_path"] == image_path else row for row in rows]
        self.manifest.write_text("".join(json.dumps(row) + "\n" for row in changed))

    def put(self, image_path: str, values: Tensor, kind: str = PATCHES, **entry: Any) -> None:
        """Store other values, with an entry that is right for them."""
        self.put_bytes(image_path, encode_array(values.float(), "fp32"), kind, **entry)

    def put_bytes(self, image_path: str, content: bytes, kind: str = PATCHES, **entry: Any) -> None:
        """Store other bytes, with their size and hash in the entry."""
        self.path(image_path, kind).write_bytes(content)
        self.change_entry(image_path, kind, bytes=len(content), sha256=hashlib.sha256(content).hexdigest(), **entry)

    def put_all(self, make: Callable[[str, Record], Tensor], kind: str = PATCHES, *, grid: Any = None) -> None:
        """Store other values for every picture; `grid` gives another grid of a record."""
        changed = []
        for path, record in self.records.items():
            content = encode_array(make(path, record).float(), "fp32")
            entry = record.features[kind]
            (self.derived / entry.file).write_bytes(content)
            new = replace(
                entry,
                bytes=len(content),
                sha256=hashlib.sha256(content).hexdigest(),
                grid=entry.grid if grid is None else grid(record),
            )
            changed.append(replace(record, features={**record.features, kind: new}))
        write_manifest(self.manifest, changed)

    def encoded_all(self, encoder: Encoder, use: Callable[[Tokens, FeatureEntry], Tensor], kind: str = PATCHES) -> None:
        """Store what `use` makes of the tokens of every picture."""
        self.put_all(lambda _, record: use(encoder(self.pixels(record)[None]), record.features[kind]), kind)

    def restamp(self, kind: str, facts: Mapping[str, Any]) -> tuple[str, str]:
        """`_features.json` of a set as it would be with other facts: its content and digest."""
        header = self.store.header(self.folder(kind))
        stamp = type(header.stamp)(tuple(sorted({**dict(header.stamp.facts), **facts}.items())))
        spec = replace(header.spec, **{name: value for name, value in facts.items() if hasattr(header.spec, name)})
        return replace(header, stamp=stamp, spec=spec).to_json(), stamp.digest

    def second_set(self, kind: str, facts: Mapping[str, Any], *, below: str = "") -> str:
        """A folder of another set of the same kind, empty but for its header; its digest."""
        content, digest = self.restamp(kind, facts)
        folder = self.derived / below / f"{kind}@{digest[:8]}"
        folder.mkdir(parents=True)
        (folder / HEADER).write_text(content)
        return digest


def only(report: Report, fault: str) -> tuple[Finding, ...]:
    """The findings, after checking that there are some and all of this fault."""
    assert set(report.counts()) == {fault}, [finding.sentence for finding in report.findings]
    return report.findings


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
