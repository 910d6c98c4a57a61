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

    ``sha256`` is of the encoded bytes. A still image has one frame, an animation several; a frame
    that is partly transparent comes twice, laid over white and over black (worker/media/decode.py
    says what the digests of frames stand for).
    """

    uri: str
    sha256: str | None = None
    frames: tuple[JudgeImage, ...] = ()
    error: str | None = None
    detail: str = ""
