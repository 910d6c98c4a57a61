"""Colours of a picture as browsers show them: gAMA, cHRM, sRGB, cICP and ICC to sRGB.

What counts, in this order: cICP, a usable ICC profile, sRGB, gAMA with or without cHRM (W3C PNG
third edition, 4.3). A profile that browsers cannot use is as none. What they can use and we cannot
is ``image_rendering``.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from worker.media.container import Container, PngColours, not_alike

MAX_PROFILE: Final = 4 * 1024 * 1024
"""Bytes of an unpacked ICC profile; printers' profiles have about two million."""
NOTICEABLE: Final = 24
"""Levels of 255 by which colours change on average where it matters whether they do."""
_ROWS_AT_ONCE: Final = 1 << 20
"""Pixels converted at a time: what is needed beside the picture stays small."""

Convert = Callable[[Image.Image], Image.Image]
"""Takes L, RGB, RGBA or CMYK and gives the same picture in sRGB; alpha is kept."""


def conversion(container: Container, profile: bytes | None) -> Convert | None:
    """What brings the container's pictures to sRGB; None where they are.

    ``profile`` is the ICC profile of a JPEG, which its decoder puts together.

    Raises:
        Undecided: ``image_rendering``.
    """
    if container.png is not None:
        return _of_png(container.png)
    return _by_profile(profile or container.profile)


def changes_much(convert: Convert) -> bool:
    """Whether a picture looks another one after ``convert``, rather than a little paler."""
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    colours = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(27, 27, 3)
    change = np.asarray(convert(Image.fromarray(colours))).astype(int) - colours
    return bool(np.abs(change).mean() > NOTICEABLE)


def _of_png(png: PngColours) -> Convert | None:
    if png.code_points is not None and len(png.code_points) == 4:
        primaries, transfer, matrix, full = png.code_points
        if (primaries, transfer, matrix, full) == (1, 13, 0, 1):
            return None
        if primaries != 2 or transfer != 2:
            raise not_alike("cICP of another colour space than sRGB")
    profile = _unpacked(png.profile) if png.profile is not None else None
    if profile is not None and _is_profile(profile):
        return _by_profile(profile, grey=png.kind in (0, 4))
    if png.srgb:
        return None
    gamma = struct.unpack(">I", png.gamma)[0] / 1e5 if png.gamma and len(png.gamma) == 4 else 0.0
    if not gamma:
        return None
    if png.chromaticities is None or len(png.chromaticities) != 32:
        # Near enough to a monitor's: shown as it is.
        return None if abs(gamma * 2.2 - 1) < 0.05 else _by_curve(gamma)
    values = [value / 1e5 for value in struct.unpack(">8I", png.chromaticities)]
    matrix3 = _to_srgb(values)
    if matrix3 is None:
        raise not_alike("primaries that span no colour space")
    return _by_matrix(gamma, matrix3)


def _unpacked(chunk: bytes) -> bytes | None:
    name, found, rest = chunk.partition(b"\0")
    if not found or len(name) > 79 or rest[:1] != b"\0":
        return None
    try:
        packer = zlib.decompressobj()
        profile = packer.decompress(rest[1:], MAX_PROFILE + 1)
    except zlib.error:
        return None
    return profile if packer.eof or len(profile) > MAX_PROFILE else None


# Gamma and primaries


def _encoded(linear: NDArray[np.float32]) -> NDArray[np.float32]:
    """sRGB samples, 0 to 1, of linear light (IEC 61966-2-1)."""
    light = linear.clip(0, 1)
    return np.where(
        light <= 0.0031308, 12.92 * light, 1.055 * light ** np.float32(1 / 2.4) - 0.055
    ).astype(np.float32)


def _linear(gamma: float) -> NDArray[np.float32]:
    """Linear light of the 256 samples."""
    with np.errstate(under="ignore"):
        return (np.linspace(0, 1, 256) ** (1 / gamma)).astype(np.float32)


def _by_curve(gamma: float) -> Convert:
    curve = (_encoded(_linear(gamma)) * 255).round().astype(np.uint8).tolist()

    def convert(image: Image.Image) -> Image.Image:
        bands = len(image.getbands())
        alpha = list(range(256)) if image.mode == "RGBA" else []
        return image.point(curve * (bands - bool(alpha)) + alpha)

    return convert


def _to_srgb(chromaticities: list[float]) -> NDArray[np.float32] | None:
    """The matrix from linear light in these primaries (white, red, green, blue) to that of sRGB."""
    source = _to_xyz(chromaticities)
    target = _to_xyz([0.3127, 0.3290, 0.64, 0.33, 0.30, 0.60, 0.15, 0.06])
    if source is None or target is None:
        return None
    return np.asarray(np.linalg.inv(target) @ source, dtype=np.float32)


# Bradford's cone responses, and the white of the profile connection space (ICC.1, annex E).
_BRADFORD: Final = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_D50: Final = np.array([0.96422, 1.0, 0.82521])


def _to_xyz(chromaticities: list[float]) -> NDArray[np.float64] | None:
    """Columns: red, green, blue in XYZ, adapted to D50."""
    points = np.array(chromaticities).reshape(4, 2)
    if (points[:, 1] <= 0).any() or (points > 1).any():
        return None
    columns = np.stack([points[:, 0], points[:, 1], 1 - points.sum(axis=1)]) / points[:, 1]
    white, primaries = columns[:, 0], columns[:, 1:]
    if abs(np.linalg.det(primaries)) < 1e-6:
        return None
    scaled = primaries * np.linalg.solve(primaries, white)
    cones = (_BRADFORD @ _D50) / (_BRADFORD @ white)
    return np.asarray(np.linalg.inv(_BRADFORD) @ (cones[:, None] * (_BRADFORD @ scaled)))


def _by_matrix(gamma: float, matrix: NDArray[np.float32]) -> Convert:
    light = _linear(gamma)

    def convert(image: Image.Image) -> Image.Image:
        picture = image.convert("RGB") if image.mode == "L" else image
        rows = max(1, _ROWS_AT_ONCE // picture.width)
        for top in range(0, picture.height, rows):
            box = (0, top, picture.width, min(top + rows, picture.height))
            samples = np.array(picture.crop(box))
            colours = _encoded(light[samples[..., :3]] @ matrix.T)
            samples[..., :3] = (colours * 255).round().astype(np.uint8)
            picture.paste(Image.fromarray(samples, picture.mode), box)
        return picture

    return convert


# ICC profiles


def _is_profile(profile: bytes) -> bool:
    """Whether browsers take it for a profile at all (skcms_Parse)."""
    return (
        len(profile) >= 132
        and profile[36:40] == b"acsp"
        and int.from_bytes(profile[:4], "big") <= len(profile)
        and profile[8] <= 4
    )


_SPACES: Final = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}


def _space(profile: bytes, mode: str, *, grey: bool) -> str | None:
    """The mode in which a profile applies to a picture; one of another kind is not used."""
    space = _SPACES.get(profile[16:20])
    if mode == "CMYK" or space == "CMYK":
        return space if space == mode else None
    return None if space == "L" and not grey else space


def _by_profile(profile: bytes | None, *, grey: bool | None = None) -> Convert | None:
    """By Little CMS, which agrees with browsers to a level of 255 where both take the profile."""
    if profile is None or not _is_profile(profile):
        return None
    if len(profile) > MAX_PROFILE:
        raise not_alike("a colour profile too large to follow")

    def convert(image: Image.Image) -> Image.Image:
        is_grey = image.mode == "L" if grey is None else grey
        space = _space(profile, image.mode, grey=is_grey)
        if space is None:
            return image
        alpha = image.getchannel("A") if image.mode == "RGBA" else None
        picture = image.convert(space)
        try:
            source = ImageCms.ImageCmsProfile(BytesIO(_perceptual_alone(profile)))
            transform = ImageCms.buildTransform(
                source,
                ImageCms.createProfile("sRGB"),
                space,
                "RGB",
                ImageCms.Intent.RELATIVE_COLORIMETRIC,
                ImageCms.Flags.NOOPTIMIZE if space == "L" else ImageCms.Flags.NONE,
            )
            shown = ImageCms.applyTransform(picture, transform)
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            raise not_alike("a colour profile that cannot be followed") from None
        assert shown is not None
        if alpha is not None:
            shown.putalpha(alpha)
        return shown

    return convert


def _perceptual_alone(profile: bytes) -> bytes:
    """The profile without its colorimetric table where it has a perceptual one.

    Browsers take the perceptual table first, whatever the intent, and scale no black point, which
    Little CMS does under the perceptual intent.
    """
    head = profile[128 : 132 + 12 * min(int.from_bytes(profile[128:132], "big"), 100)]
    names = [head[at : at + 4] for at in range(4, len(head), 12)]
    if b"A2B0" not in names or b"A2B1" not in names:
        return profile
    at = 132 + 12 * names.index(b"A2B1")
    return profile[:at] + b"none" + profile[at + 4 :]
