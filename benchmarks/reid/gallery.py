"""How well a gallery knows people again: three videos in which not everybody appears, one after the other.

    python -m benchmarks.reid.gallery [--seeds 1 2 3 4 5 6] [--json FILE]

A world has 18 people, of whom 12, drawn from the seed, are in each of three videos of 400 frames: the second has about
four whom the first has not, the third about two. Each video is linked within itself as `benchmarks.reid.run` does it,
then to the gallery. What decides was chosen on seeds 101 to 103; the seeds reported are others.
"""

import argparse
import json
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from benchmarks.reid import sprites
from benchmarks.reid.generator import Episode as Video
from benchmarks.reid.generator import World
from benchmarks.reid.methods import calibrated, look
from patchatlas.reid.config import LinkConfig
from patchatlas.reid.embed.lab import LabEmbedder
from patchatlas.reid.episode import Episode
from patchatlas.reid.evaluate import score_pairs, true_identities
from patchatlas.reid.files.embeddings import Embeddings, Row
from patchatlas.reid.files.memory import Memory
from patchatlas.reid.gallery.match import LinkReport, link_read
from patchatlas.reid.link import link
from patchatlas.reid.split import split_impure

TUNED_ON = range(101, 104)
TWINS = {"base": 0, "twins": 3}
PEOPLE, HERE, VIDEOS = 18, 12, 3


@dataclass(frozen=True)
class Scores:
    """Of one world.

    Attributes:
        seed, twins: which.
        f1, precision, recall: over pairs of tracklets of different videos, put together against belonging together.
        all_f1: the same over all pairs; within a video it is the linker's.
        strangers: identities of a video that the gallery does not know.
        named: of them, those taken for somebody (FPIR).
        left: of them, those left unknown.
        known: identities of a video that the gallery knows.
        wrong, unknown, new: of them, those taken for somebody else, left unknown, taken for new (FNIR is all three).
        co_visible: pairs of one identity in the gallery that are two people in one and the same frame.
    """

    seed: int
    twins: int
    f1: float
    precision: float
    recall: float
    all_f1: float
    strangers: int
    named: int
    left: int
    known: int
    wrong: int
    unknown: int
    new: int
    co_visible: int


def videos(seed: int, twins: int, *, frames: int = 400) -> list[tuple[Video, list[int]]]:
    """The videos of a world, and who is who in each: person k of a video is the k-th of the list."""
    rng = np.random.default_rng([seed, 7])
    people = [sprites.person(rng) for _ in range(PEOPLE)]
    for pair in range(twins):
        people[2 * pair + 1] = sprites.twin(people[2 * pair], rng, difference=World.twin_difference)
    made = []
    for number in range(VIDEOS):
        who = np.random.default_rng([seed, number, 50]).permutation(PEOPLE)[:HERE].tolist()
        made.append((Video(World(seed=seed, people=HERE, frames=frames), number, [people[k] for k in who]), who))
    return made


def linked(video: Video) -> Episode:
    """An episode as `patchatlas reid run` makes it, from a video that is drawn on demand."""
    seen = look(video)
    portraits = seen.portraits(seen.best)
    portraits, cuts = split_impure(portraits, below=calibrated(portraits).cosine_at(0.5))
    calibration = calibrated(portraits)
    limit = calibration.cosine_at(0.5)
    links = link(portraits, threshold=limit, seconds_a_frame=1 / video.world.fps, calibration=calibration)
    rows: list[Row] = []
    vectors: list[torch.Tensor] = []
    of_track = {}
    for one in portraits:
        boxes = {box.frame: box for box in one.tracklet.observations}
        of_track[one.tracklet.id] = tuple(range(len(rows), len(rows) + len(one.frames)))
        for frame, vector, weight in zip(one.frames, one.vectors, one.weights.tolist(), strict=True):
            rows.append(Row(one.tracklet.id, frame, boxes[frame].time_s, boxes[frame].box, True, weight, {}))
            vectors.append(vector)
    return Episode(
        Path(video.name),
        video.name,
        {"video": {"sha256": video.name, "size_hw": list(video.world.size_hw)}},
        tuple(one.tracklet for one in portraits),
        Embeddings(torch.stack(vectors).float(), tuple(rows), LabEmbedder().stamp, {}),
        Memory(links, tuple(cuts), {}, of_track, calibration, float("nan"), float("nan")),
    )


def measure(seed: int, twins: int, config: LinkConfig) -> Scores:
    """Link the videos of a world to a new gallery and compare with the truth."""
    made = videos(seed, twins)
    return scores(seed, twins, *told(made, config))


def told(
    made: Sequence[tuple[Video, Sequence[int]]], config: LinkConfig
) -> tuple[LinkReport, list[Episode], dict[str, dict[int, int | None]]]:
    """What a new gallery says of videos, the episodes, and whom each of their tracklets shows."""
    episodes = [linked(video) for video, _ in made]
    truth = {}
    for episode, (video, who) in zip(episodes, made, strict=True):
        majority = true_identities(video.truth, episode.tracklets)
        truth[episode.name] = {
            one.id: None if person is None else who[person - 1]
            for one, person in zip(episode.tracklets, majority, strict=True)
        }
    with TemporaryDirectory() as folder:
        return link_read(Path(folder) / "gallery", episodes, config), episodes, truth


def scores(
    seed: int,
    twins: int,
    report: LinkReport,
    episodes: Sequence[Episode],
    truth: dict[str, dict[int, int | None]],
) -> Scores:
    """Compare what a gallery says with the truth of each tracklet."""
    counts: Counter[str] = Counter()
    holds: dict[int, Counter[int]] = defaultdict(Counter)  # whom each identity of the gallery shows, by boxes
    found, true, where, frames = [], [], [], []
    for episode, said in zip(episodes, report.episodes, strict=True):
        boxes = {one.id: len(one.observations) for one in episode.tracklets}
        shown = {one.id: {seen.frame for seen in one.observations} for one in episode.tracklets}
        own = truth[episode.name]
        there = {max(held, key=held.__getitem__) for held in holds.values() if held}
        told: list[tuple[int, int, int]] = []
        for one in said.sightings:
            votes: Counter[int] = Counter()
            for track in one.tracks:
                person = own[track]
                if person is None:
                    continue
                votes[person] += boxes[track]
                found.append(one.identity if one.identity is not None else -len(found) - 1)
                true.append(person)
                where.append(episode.name)
                frames.append(shown[track])
                if one.identity is not None:
                    told.append((one.identity, person, boxes[track]))
            if not votes:
                continue
            person = max(votes, key=votes.__getitem__)
            if person in there:
                counts["known"] += 1
                if one.verdict == "known":
                    right = max(holds[one.candidate or 0], key=holds[one.candidate or 0].__getitem__, default=None)
                    counts["wrong"] += right != person
                else:
                    counts[one.verdict] += 1
            elif there:
                counts["strangers"] += 1
                counts["named"] += one.verdict == "known"
                counts["left"] += one.verdict == "unknown"
        for identity, person, count in told:
            holds[identity][person] += count
    pairs = [(a, b) for a in range(len(found)) for b in range(a) if where[a] != where[b]]
    put, belong = ({(a, b) for a, b in pairs if side[a] == side[b]} for side in (found, true))
    right = len(put & belong)
    precision, recall = right / max(1, len(put)), right / max(1, len(belong))
    co_visible = sum(
        found[a] == found[b] and true[a] != true[b] and where[a] == where[b] and bool(frames[a] & frames[b])
        for a in range(len(found))
        for b in range(a)
    )
    return Scores(
        seed=seed,
        twins=twins,
        f1=2 * precision * recall / max(1e-9, precision + recall),
        precision=precision,
        recall=recall,
        all_f1=score_pairs(found, true).f1,
        strangers=counts["strangers"],
        named=counts["named"],
        left=counts["left"],
        known=counts["known"],
        wrong=counts["wrong"],
        unknown=counts["unknown"],
        new=counts["new"],
        co_visible=co_visible,
    )


def table(records: Sequence[Scores]) -> str:
    """A line a world, and what all of them come to."""
    lines = [
        f"{'seed':>4} {'F1':>6} {'prec.':>6} {'recall':>6} {'all F1':>6} {'strangers':>9} {'named':>6} {'unknown':>7} "
        f"{'known':>6} {'wrong':>6} {'unknown':>7} {'new':>4} {'co-vis':>6}"
    ]
    for one in records:
        lines.append(
            f"{one.seed:4} {one.f1:6.3f} {one.precision:6.3f} {one.recall:6.3f} {one.all_f1:6.3f} {one.strangers:9} "
            f"{one.named:6} {one.left:7} {one.known:6} {one.wrong:6} {one.unknown:7} {one.new:4} {one.co_visible:6}"
        )

    def total(name: str) -> int:
        return sum(getattr(one, name) for one in records)

    f1 = np.array([one.f1 for one in records])
    fpir = total("named") / max(1, total("strangers"))
    fnir = (total("wrong") + total("unknown") + total("new")) / max(1, total("known"))
    lines.append(
        f"mean F1 {f1.mean():.3f} [{f1.min():.3f}-{f1.max():.3f}], FPIR {100 * fpir:.1f} % of {total('strangers')}, "
        f"FNIR {100 * fnir:.1f} % of {total('known')} (wrong {100 * total('wrong') / max(1, total('known')):.1f} %)"
    )
    return "\n".join(lines)


def main() -> None:
    """Measure all seeds, without and with twins."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(1, 7)))
    parser.add_argument("--accept", type=float, nargs="+", default=[LinkConfig().accept])
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    records: dict[tuple[str, float], list[Scores]] = defaultdict(list)
    for seed in given.seeds:
        for name, twins in TWINS.items():
            for accept in given.accept:
                records[name, accept].append(measure(seed, twins, LinkConfig(accept=accept)))
            print(f"seed {seed}, {name}: done", file=sys.stderr)
    for (name, accept), own in records.items():
        print(f"\n{name}, accept {accept}" + (" (tuned on)" if set(given.seeds) & set(TUNED_ON) else ""))
        print(table(own))
    if given.json:
        content = [{"accept": accept, **asdict(one)} for (_, accept), own in records.items() for one in own]
        given.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
