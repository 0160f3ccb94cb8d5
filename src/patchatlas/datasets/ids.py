"""Names for pictures that can name files and shard members: unique, without a dot, from the path alone."""

import hashlib
import re
from pathlib import PurePosixPath

_LONGEST_SLUG = 80


def image_id(relative_path: str) -> str:
    """The id of a picture: its name without the suffix, made plain, and 64 bits of the SHA-256 of its path.

    `a.jpg`, `a.png` and `sub/a.jpg` differ in the hash. There is no dot, for WebDataset takes what follows the first
    dot of a member's name as its kind. The same path has the same id in every run and on every machine.

    Args:
        relative_path: posix path below the input folder.

    Returns:
        Letters, digits, `_` and `-`; at most 97 of them.
    """
    # A name that is no UTF-8 comes with surrogates for its bytes; they go back to those bytes.
    digest = hashlib.sha256(relative_path.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    slug = re.sub(r"[^A-Za-z0-9_-]", "_", PurePosixPath(relative_path).stem)[:_LONGEST_SLUG]
    return f"{slug}-{digest}"
