"""Weights from the Hugging Face hub: the local cache first, the network only for an id that the user named."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)

from patchatlas.encoders import catalogue
from patchatlas.errors import WeightsError

FACTS = ["config.json", "preprocessor_config.json"]
SAFE = ["model*.safetensors", "model.safetensors.index.json"]
PICKLED = ["pytorch_model*.bin", "pytorch_model.bin.index.json"]
"""Taken only where a repository has no safetensors."""

CARD = ["README.md"]
"""Says the licence; a cache without it serves all the same."""


def cached(repo_id: str) -> Path | None:
    """The snapshot of a repository in the local cache, if it holds whole weights. Never asks the network."""
    for weights in (SAFE, PICKLED):
        try:
            folder = Path(snapshot_download(repo_id, allow_patterns=FACTS + weights, local_files_only=True))
        except (LocalEntryNotFoundError, HFValidationError):
            continue
        if _has_weights(folder):
            return folder
    return None


def fetch(repo_id: str) -> Path:
    """The snapshot of a repository, from the local cache or else downloaded.

    Raises:
        WeightsError: offline, gated, not found or unreachable, each with what to do next.
    """
    found = cached(repo_id)
    if found is not None:
        return found
    try:
        folder = Path(snapshot_download(repo_id, allow_patterns=FACTS + CARD + SAFE))
        if not _has_weights(folder):
            folder = Path(snapshot_download(repo_id, allow_patterns=FACTS + CARD + PICKLED))
    except GatedRepoError as error:
        raise WeightsError(
            f"{repo_id} is gated: accept its licence at https://huggingface.co/{repo_id}, then log in with: "
            f"hf auth login. {_another_way(repo_id)}"
        ) from error
    except RepositoryNotFoundError as error:
        raise WeightsError(
            f"{repo_id} is not on the hub, or is private and you are not logged in (hf auth login); check the "
            "spelling, or list the known ids with: patchatlas weights list"
        ) from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled, HfHubHTTPError, OSError) as error:
        raise WeightsError(
            f"{repo_id} is not in the local cache and the hub cannot be reached ({type(error).__name__}). On a machine "
            f"with network run: hf download {repo_id} --local-dir FOLDER, copy FOLDER here and give its path instead "
            f"of the id. {_another_way(repo_id)}"
        ) from error
    if not _has_weights(folder):
        raise WeightsError(
            f"{repo_id} has no model.safetensors and no pytorch_model.bin; it is not a repository of weights"
        )
    return folder


def _has_weights(folder: Path) -> bool:
    return any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))


def _another_way(repo_id: str) -> str:
    entry = catalogue.find(repo_id)
    ungated = (
        "" if entry is None or entry.timm_id in (None, repo_id) else f"The same weights, not gated: {entry.timm_id}. "
    )
    return f"{ungated}--encoder bundled:sift works without any download."
