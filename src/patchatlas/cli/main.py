"""The entry point: finds the command, hands its flags to tyro, and turns errors into exit codes.

Nothing heavy is imported here; a command's module is loaded when it is named, and torch when it runs.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module

from patchatlas import __version__
from patchatlas.errors import InputError, PatchAtlasError, ResourceError, UsageError, WeightsError

# Name as typed: module below patchatlas.cli, one line of help. A module has `Config` and `run(config) -> exit code`.
COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("demo", "find a landmark in the shipped photographs; writes pictures, JSON and a page"),
    "features build": ("features_build", "dense features of a folder of pictures, in aspect buckets, with a manifest"),
    "features plan": ("features_plan", "what a build will make: counts, bytes, hours, and whether caching pays"),
    "features verify": ("features_verify", "check stored features: files, grids, values, stamps, alignment"),
    "features pack": ("features_pack", "write features as WebDataset shards, one folder a bucket"),
    "features stats": ("features_stats", "mean and spread of stored features, per channel"),
    "features export": ("features_export", "stored features in another format"),
    "locate": ("locate", "find a point marked in one photo in another"),
    "automark": ("automark", "propose the marks that a folder of photos lacks, by those in other folders"),
    "pretrain index": ("pretrain_index", "CT volumes into a cache: checked, in one form, foreground counted"),
    "pretrain crops": ("pretrain_crops", "draw the crops that a run would learn from; look before you train"),
    "pretrain run": ("pretrain_run", "train an encoder on volumes or photographs, or go on with a run"),
    "pretrain ablate": ("pretrain_ablate", "train in several named ways and compare: collapse, and a probe of organs"),
    "pretrain report": ("pretrain_report", "a page of a run: curves, verdicts, crops, features of fixed inputs"),
    "probe": ("probe", "prove that an encoder's tokens sit where their pixels are"),
    "reid run": ("reid_run", "find who is in a video: detect, track, embed, link; writes an episode"),
    "reid link": ("reid_link", "link episodes to a gallery of people"),
    "reid eval": ("reid_eval", "score tracks against the truth: HOTA, IDF1, MOTA, switches"),
    "reid gallery": ("reid_gallery", "the people of all episodes: list, show, merge, split, rename, undo, review"),
    "reid showcase": ("reid_showcase", "annotated video and contact sheets of who was found in a video"),
    "stitch run": ("stitch_run", "put tiles of a scan together on one canvas, and check it"),
    "stitch diagnose": ("stitch_diagnose", "check tiles against their positions: sign, axes, order, overlap"),
    "stitch bbox": ("stitch_bbox", "compare the lit box of any picture with what positions predict"),
    "stitch simulate": ("stitch_simulate", "make scans with known truth"),
    "stitch refine": ("stitch_refine", "move tiles so that they agree where they overlap"),
    "weights list": ("weights_list", "known encoders: licence, size, where to get them, whether they are here"),
    "weights check": ("weights_check", "verify a weights file or folder"),
    "weights convert": ("weights_convert", "rewrite weights as one patchatlas .safetensors file"),
}

OK, BUG, USAGE, SKIPPED, BAD_INPUT, WEIGHTS, RESOURCES, INTERRUPTED = 0, 1, 2, 3, 4, 5, 6, 130


def exit_code(error: PatchAtlasError) -> int:
    """The exit code that stands for an error."""
    kinds = ((UsageError, USAGE), (InputError, BAD_INPUT), (WeightsError, WEIGHTS), (ResourceError, RESOURCES))
    return next((code for kind, code in kinds if isinstance(error, kind)), BUG)


def overview(group: str = "") -> str:
    """What `patchatlas --help` prints, or `patchatlas stitch --help` for the commands of a group."""
    known = {name: line for name, (_, line) in COMMANDS.items() if not group or name.split()[0] == group}
    width = max(map(len, known))
    lines = [f"  {name:<{width}}  {line}" for name, line in known.items()]
    return "\n".join(
        [
            "usage: patchatlas COMMAND [OPTIONS]",
            "",
            "Patch features you can trust: every patch knows where it came from.",
            "",
            "commands:",
            *lines,
            "",
            "options:",
            "  --version  print the version",
            "  --help     with a command: its options",
            "",
            "Results go to stdout (--format json for scripts), log and progress to stderr.",
            "Exit codes: 0 ok, 1 bug, 2 usage, 3 some items skipped, 4 bad input, 5 weights or licence,",
            "            6 memory or disk, 130 interrupted.",
        ]
    )


def find_command(args: Sequence[str]) -> tuple[str, list[str]]:
    """Split arguments into a command's name (one or two words) and the rest.

    Raises:
        UsageError: there is no such command.
    """
    for words in (2, 1):
        name = " ".join(args[:words])
        if name in COMMANDS:
            return name, list(args[words:])
    group = [name for name in COMMANDS if name.split()[0] == args[0]]
    if group:
        given = "" if len(args) == 1 else f" not {args[1]!r},"
        raise UsageError(f"`patchatlas {args[0]}` needs{given} one of: {', '.join(name.split()[1] for name in group)}")
    raise UsageError(f"there is no command {args[0]!r}; commands are: {', '.join(COMMANDS)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("--help", "-h", "help"):
        print(overview())
        return OK if args else USAGE
    if args[0] == "--version":
        print(f"patchatlas {__version__}")
        return OK
    if args[0] not in COMMANDS and args[1:] in (["--help"], ["-h"]) and any(n.split()[0] == args[0] for n in COMMANDS):
        print(overview(args[0]))
        return OK
    try:
        name, rest = find_command(args)
        return _run(name, rest)
    except PatchAtlasError as error:
        print(f"error: {error}", file=sys.stderr)
        return exit_code(error)
    except KeyboardInterrupt as stop:  # a command may say what it leaves behind
        print(": ".join(["interrupted", *map(str, stop.args)]), file=sys.stderr)
        return INTERRUPTED
    except MemoryError:
        print("error: out of memory; use windows, a smaller size or a smaller batch", file=sys.stderr)
        return RESOURCES
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):  # how torch says it of the CPU's
            return _bug()
        print("error: out of memory; use windows, a smaller size or a smaller batch", file=sys.stderr)
        return RESOURCES
    except OSError as error:
        if error.errno in (28, 122):  # ENOSPC, EDQUOT
            print(f"error: {error}; free some space and run again", file=sys.stderr)
            return RESOURCES
        print(f"error: {error}", file=sys.stderr)
        return BAD_INPUT
    except Exception:
        return _bug()


def _bug() -> int:
    traceback.print_exc()
    print("This is a bug in patchatlas; please report it with the lines above.", file=sys.stderr)
    return BUG


def _run(name: str, args: list[str]) -> int:
    import tyro
    from pydantic import ValidationError

    from patchatlas.cli.console import log_to_stderr

    module = import_module(f"patchatlas.cli.{COMMANDS[name][0]}")
    try:
        config = tyro.cli(module.Config, args=args, prog=f"patchatlas {name}", description=module.__doc__)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{where + ': ' if where else ''}{first['msg']}, given {first['input']!r}") from error
    except SystemExit as stop:  # tyro printed its help or what is wrong with the flags
        return int(stop.code or OK)
    log_to_stderr(verbose=config.verbose)
    code: int = module.run(config)
    return code
