"""Score RESULTS against the truth GT: HOTA, IDF1, MOTA, identity switches; of an episode also how tracks were joined.

GT is a MOTChallenge file of ground truth, or a folder with gt/gt.txt. RESULTS is a MOTChallenge file of results, of
which all frames count, or an episode, of which those that were looked at do.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from pydantic import Field

from patchatlas.cli.console import Output, emit
from patchatlas.errors import InputError

if TYPE_CHECKING:
    from patchatlas.reid.episode import Episode
    from patchatlas.reid.motchallenge import MotRow


class Config(Output):
    """What `patchatlas reid eval` is asked to do."""

    gt: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="GT")]
    """Ground truth: a file, or a folder with gt/gt.txt."""
    results: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RESULTS")]
    """Results: a file, or the folder of an episode."""
    max_frame: Annotated[int | None, Field(gt=0)] = None
    """Score only frames up to this one, counted from 1."""


def run(config: Config) -> int:
    """Score, print, and return 0.

    Raises:
        InputError: a file that cannot be used, or truth without a row to score.
        MissingExtraError: `trackers` is not installed.
    """
    from patchatlas.cli.main import OK
    from patchatlas.reid.episode import read_episode
    from patchatlas.reid.evaluate import score_tracking
    from patchatlas.reid.motchallenge import read_rows

    truth = read_rows(config.gt / "gt" / "gt.txt" if config.gt.is_dir() else config.gt)
    episode = read_episode(config.results) if config.results.is_dir() else None
    found = read_rows(config.results if episode is None else config.results / "mot.txt")
    if config.max_frame is not None:
        truth, found = ([row for row in rows if row.frame <= config.max_frame] for rows in (truth, found))
    if episode is not None:
        truth = looked_at(truth, episode)
    scores = score_tracking(truth, found)
    data: dict[str, Any] = {"tracking": vars(scores)}
    lines = [
        f"HOTA {100 * scores.hota:.1f}  IDF1 {100 * scores.idf1:.1f}  MOTA {100 * scores.mota:.1f}  "
        f"switches {scores.id_switches}",
        f"DetA {100 * scores.deta:.1f}  AssA {100 * scores.assa:.1f}  precision {100 * scores.precision:.1f}  "
        f"recall {100 * scores.recall:.1f}",
        f"{scores.found_boxes} boxes found, {scores.true_boxes} true ones",
    ]
    if episode is not None:
        linked = of_tracks(truth, episode)
        data["linking"] = linked
        lines += [f"{name.replace('_', ' ')}: {_shown(value)}" for name, value in linked.items()]
    emit(config, human="\n".join(lines), data=data)
    return OK


def looked_at(truth: "list[MotRow]", episode: "Episode") -> "list[MotRow]":
    """The rows of frames that the episode looked at.

    Raises:
        InputError: there is none.
    """
    from patchatlas.reid.files.detections import read_head

    frames = {number + 1 for number, _ in read_head(episode.folder)["frames"]}
    kept = [row for row in truth if row.frame in frames]
    if not kept:
        raise InputError(
            f"the truth has no row in the {len(frames)} frames that {episode.folder} looked at; are they of one video?"
        )
    return kept


def of_tracks(truth: "list[MotRow]", episode: "Episode") -> dict[str, float | int | None]:
    """How tracks were joined, and how well their looks tell people apart; tracks that show nobody do not count.

    Retrieval asks each track for the others, those seen together with it left out. For the open set each track is asked
    of all others, at the threshold of the episode; who has no other track is a stranger.
    """
    import torch

    from patchatlas.reid import evaluate
    from patchatlas.reid.portraits import handover_frames, likeness, together

    true = dict(
        zip(
            [one.id for one in episode.tracklets],
            evaluate.true_identities(truth, episode.tracklets),
            strict=True,
        )
    )
    named = [one for one in episode.tracklets if true[one.id] is not None and one.id in episode.identities]
    out: dict[str, float | int | None] = {
        "tracks": len(episode.tracklets),
        "identities": len(episode.members),
        "true_identities": len({row.id for row in truth if row.confidence != 0}),
        "co_visible_merges": len(
            evaluate.co_visible_merges(
                episode.tracklets, episode.identities, [true[one.id] for one in episode.tracklets]
            )
        ),
    }
    if named:
        given, real = [episode.identities[one.id] for one in named], [_sure(true[one.id]) for one in named]
        boxes = [float(len(one.observations)) for one in named]
        pairs = evaluate.score_pairs(given, real)
        out |= {
            "purity": evaluate.purity(given, real, weights=boxes),
            "completeness": evaluate.purity(real, given, weights=boxes),
            "pair_precision": pairs.precision,
            "pair_recall": pairs.recall,
            "pair_f1": pairs.f1,
        }
    seen = [one for one in episode.tracklets if true[one.id] is not None and episode.portraits[one.id].frames]
    ids = [_sure(true[one.id]) for one in seen]
    if len(set(ids)) < len(ids):
        alike = likeness([episode.portraits[one.id] for one in seen])
        skip = together(seen, tolerance=handover_frames(seen)) | torch.eye(len(seen), dtype=torch.bool)
        ranked = evaluate.score_retrieval(alike, ids, ids, skip=skip)
        threshold = episode.memory.links.threshold
        rows = [
            evaluate.score_open_set(
                alike[k : k + 1, [j for j in range(len(ids)) if j != k]],
                [ids[k]],
                ids[:k] + ids[k + 1 :],
                threshold=threshold,
            )
            for k in range(len(ids))
        ]
        strangers, known = sum(one.strangers for one in rows), sum(one.known for one in rows)
        out |= {
            "rank1": ranked.rank1,
            "mean_ap": ranked.mean_ap,
            "fpir": sum(one.fpir for one in rows if one.strangers) / strangers if strangers else None,
            "fnir": sum(one.fnir for one in rows if one.known) / known if known else None,
        }
    return out


def _sure(identity: int | None) -> int:
    assert identity is not None, "those without were left out"
    return identity


def _shown(value: float | int | None) -> str:
    return "none to ask" if value is None else f"{100 * value:.1f} %" if isinstance(value, float) else str(value)
