"""Images on their way from the store to the judge: pixels, digests, and what went wrong."""

from __future__ import annotations

import msgspec


class JudgeImage(msgspec.Struct, frozen=True, kw_only=True):
    """One decoded image: RGB bytes, row by row (height x width x 3), and its content digest."""

    sha256: str
    width: int
    height: int
    rgb: bytes


class FetchedImage(msgspec.Struct, frozen=True, kw_only=True):
    """One image of an event, in event order: its frames to judge, or the code why there are none.

    ``sha256`` is of the encoded bytes. ``frames`` are the views worth judging, in that order: the
    moments of an animation, the parts of a large image, on light and on dark ground where it is
    partly transparent (worker/media/decode.py says what their digests stand for). ``total`` is how
    many it takes to see everything; 0 means as many as there are. ``scale``: pixels of the image
    for one of the model's, in the finest of them.
    """

    uri: str
    sha256: str | None = None
    frames: tuple[JudgeImage, ...] = ()
    total: int = 0
    scale: float = 1.0
    error: str | None = None
    detail: str = ""

    @property
    def unseen(self) -> int:
        """Views that no budget was left for."""
        return max(0, self.total - len(self.frames))
