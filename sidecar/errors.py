"""What can go wrong, by whose fault it is.

    SidecarError
    ├── DownstreamError   the caller sent what we refuse         -> 4xx, close
    ├── UpstreamError     the endpoint failed us                 -> 502, 503, 504; maybe a retry
    ├── OverloadError     a limit of ours is reached             -> 503
    ├── ConfigError       one thing in the configuration is wrong
    ├── ConfigErrors      several of them: what a check reports
    ├── IdentityError     a certificate or a peer's identity is not acceptable
    └── OperationError    the operator asked for what cannot be done (a taken port, an absent file)

`code` is a stable word for logs, metrics and replies; `detail` says what was expected and what came.
"""

from collections.abc import Iterable, Sequence
from typing import Final

DETAIL_LIMIT: Final = 400  # characters; peers choose part of the text, so it is cut


class SidecarError(Exception):
    """The root: whatever is not one of these is a bug."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail[:DETAIL_LIMIT]}")
        self.code: Final = code
        self.detail: Final = detail[:DETAIL_LIMIT]


class DownstreamError(SidecarError):
    """The caller broke the protocol or a limit; answer 4xx and close."""


class UpstreamError(SidecarError):
    """The endpoint failed us; answer 502, 503 or 504, and retry if the route allows."""

    def __init__(self, code: str, detail: str, *, sent: bool) -> None:
        super().__init__(code, detail)
        self.sent: Final = sent  # True once any request byte may have reached the endpoint


class OverloadError(SidecarError):
    """A limit of ours is reached; answer 503 before anything breaks."""


class IdentityError(SidecarError):
    """Key material or a peer certificate is not acceptable; `code` is the reason."""


class OperationError(SidecarError):
    """The operator asked for what cannot be done now; the text says what to do."""


class ConfigError(SidecarError):
    """One thing in the configuration is wrong.

    `path` is where, in the file's own words (`outbound[0].routes[2].cluster`), empty for the whole;
    `file` and `line` are filled in by the source that read it.
    """

    def __init__(self, path: str, detail: str, *, file: str = "", line: int = 0) -> None:
        super().__init__("config-error", detail)
        self.path: Final = path
        self.file: Final = file
        self.line: Final = line

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}: " if self.line else f"{self.file}: " if self.file else ""
        return f"{where}{self.path}: {self.detail}" if self.path else f"{where}{self.detail}"


class ConfigErrors(SidecarError):  # noqa: N818 - several of them
    """All that a check found, in the order of the file."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        super().__init__("config-errors", "; ".join(map(str, errors)))
        self.errors: Final = tuple(errors)

    def __str__(self) -> str:
        return "\n".join(map(str, self.errors))


def nearest(word: str, words: Iterable[str]) -> str:
    """Return which of `words` was meant by `word`, which is none of them; empty if none is near."""
    import difflib  # noqa: PLC0415 - 0.2 MB that only a mistake needs

    return next(iter(difflib.get_close_matches(word, list(words), 1)), "")
