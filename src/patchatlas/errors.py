"""Every error that patchatlas raises for a mistake that a user can mend::

    PatchAtlasError
    ├── UsageError            an option or argument that makes no sense          (exit 2)
    │   └── MissingExtraError an optional dependency is not installed
    ├── InputError            a file or array that cannot be used                (exit 4)
    │   ├── ShapeError        sizes that do not fit (patch, grid, window)
    │   ├── FormatError       a file that cannot be read as what it should be
    │   ├── LandmarkError     a mark that is absent, doubled or without identity
    │   ├── StampError        features made in different ways, mixed
    │   └── MisalignedError   tokens that do not sit where their pixels are
    ├── WeightsError          weights absent, incomplete, gated or not as named  (exit 5)
    └── ResourceError         out of memory, disk or budget                      (exit 6)

A message says what was given, what is allowed and what to do. Those that stem from a bad value are also a `ValueError`.
"""


class PatchAtlasError(Exception):
    """Base of all errors raised on purpose."""


class UsageError(PatchAtlasError, ValueError):
    """An option or argument that makes no sense."""


class MissingExtraError(UsageError, ImportError):
    """An optional dependency is needed and not installed."""

    def __init__(self, package: str, *, extra: str, needed_for: str) -> None:
        super().__init__(f"{needed_for} needs {package}; install it with: pip install 'patchatlas[{extra}]'")


class InputError(PatchAtlasError, ValueError):
    """A file or array that cannot be used."""


class ShapeError(InputError):
    """Sizes that do not fit: patch, grid, window or axes."""


class FormatError(InputError):
    """A file that cannot be read as what it should be."""


class LandmarkError(InputError):
    """A mark that is absent, doubled, outside its picture or without identity."""


class StampError(InputError):
    """Features that were made in different ways and must not be mixed."""


class MisalignedError(InputError):
    """Tokens that do not sit where their pixels are."""


class WeightsError(PatchAtlasError):
    """Weights that are absent, incomplete, gated or not what their name says."""


class ResourceError(PatchAtlasError):
    """Out of memory, disk or an agreed budget."""
