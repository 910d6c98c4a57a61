"""Colours of a picture as browsers show them: gAMA, cHRM, sRGB, cICP and ICC to sRGB.

What counts, in this order: cICP, a usable ICC profile, sRGB, gAMA with or without cHRM (W3C PNG
third edition, 4.3). A profile that browsers cannot use is as none. What they can use and we cannot
is ``image_rendering``.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from worker.errors import Undecided
from worker.media.container import Container, PngColours, not_alike

MAX_PROFILE: Final = 4 * 1024 * 1024
"""Bytes of an unpacked ICC profile; printers' profiles have about two million."""
NOTICEABLE: Final = 24
"""Levels of 255 by which colours change on average where it matters whether they do."""
_AT_ONCE: Final = 1 << 20
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
    sample = _sample_colours()
    change = np.asarray(convert(sample)).astype(int) - np.asarray(sample)
    return bool(np.abs(change).mean() > NOTICEABLE)


def _sample_colours() -> Image.Image:
    """Every grey, every level of each primary, and a grid of colours."""
    ramp = np.zeros((4, 256, 3), np.uint8)
    for each in range(3):
        ramp[[each, 3], :, each] = np.arange(256)
    steps = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    padded = np.resize(grid, (3, 256, 3))
    return Image.fromarray(np.concatenate([ramp, padded]))


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
        return None if abs(gamma * 2.2 - 1) < 0.05 else _by_curve(_power(gamma))
    values = [value / 1e5 for value in struct.unpack(">8I", png.chromaticities)]
    primaries_to_xyz = _to_xyz(values)
    if primaries_to_xyz is None:
        raise not_alike("primaries that span no colour space")
    return _by_matrix([_power(gamma)] * 3, primaries_to_xyz)


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


# Curves and primaries

Curve = NDArray[np.float32]
"""Linear light, 0 to 1, of the 256 levels of a sample."""

# sRGB's own primaries in XYZ, adapted to D50 (columns red, green, blue), and the other way.
_SRGB_TO_XYZ: Final = np.array(
    [
        [0.4360747, 0.3850649, 0.1430804],
        [0.2225045, 0.7168786, 0.0606169],
        [0.0139322, 0.0971045, 0.7141733],
    ]
)
_XYZ_TO_SRGB: Final = np.linalg.inv(_SRGB_TO_XYZ)
_STEPS: Final = 1 << 16


def _levels() -> NDArray[np.uint8]:
    """sRGB levels of linear light in steps (IEC 61966-2-1)."""
    light = np.linspace(0, 1, _STEPS)
    dark = light <= 0.0031308
    return (
        (255 * np.where(dark, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055))
        .round()
        .astype(np.uint8)
    )


_LEVELS: Final = _levels()


def _encoded(light: NDArray[np.float32]) -> NDArray[np.uint8]:
    return _LEVELS[(light.clip(0, 1) * (_STEPS - 1) + 0.5).astype(np.int32)]


def _power(gamma: float) -> Curve:
    with np.errstate(under="ignore"):
        return np.asarray(np.linspace(0, 1, 256) ** (1 / gamma), dtype=np.float32)


def _by_curve(curve: Curve) -> Convert:
    """The same curve for every channel, and sRGB's primaries."""
    levels = _encoded(curve).tolist()

    def convert(image: Image.Image) -> Image.Image:
        alpha = list(range(256)) if image.mode == "RGBA" else []
        return image.point(levels * (len(image.getbands()) - bool(alpha)) + alpha)

    return convert


def _by_matrix(curves: Sequence[Curve], to_xyz: NDArray[np.float64]) -> Convert:
    """A curve for each channel, then these primaries in XYZ at D50."""
    matrix = (_XYZ_TO_SRGB @ to_xyz).astype(np.float32).T

    def convert(image: Image.Image) -> Image.Image:
        picture = image.convert("RGB") if image.mode == "L" else image.copy()
        rows = max(1, _AT_ONCE // picture.width)
        for top in range(0, picture.height, rows):
            box = (0, top, picture.width, min(top + rows, picture.height))
            samples = np.array(picture.crop(box))
            light = np.stack([curves[each][samples[..., each]] for each in range(3)], axis=-1)
            samples[..., :3] = _encoded(light @ matrix)
            picture.paste(Image.fromarray(samples, picture.mode), box)
        return picture

    return convert


# Bradford's cone responses, and the white of the profile connection space (ICC.1, annex E).
_BRADFORD: Final = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
_D50: Final = np.array([0.9642, 1.0, 0.8249])


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


# ICC profiles (ICC.1:2022), read as skcms reads them, which is what Chrome uses


class _Profile:
    """A profile's header and tags."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.space = data[16:20]
        count = int.from_bytes(data[128:132], "big")
        self._tags: dict[bytes, tuple[int, int]] = {}
        for at in range(132, 132 + 12 * count, 12):
            name, start, size = struct.unpack(">4sII", data[at : at + 12])
            self._tags.setdefault(name, (start, start + size))

    def __contains__(self, tag: bytes) -> bool:
        return tag in self._tags

    def body(self, tag: bytes) -> bytes:
        start, end = self._tags.get(tag, (0, 0))
        return self._data[start:end]

    def xyz(self, tag: bytes) -> list[float]:
        body = self.body(tag)
        if body[:4] != b"XYZ " or len(body) < 20:
            raise not_alike("a colour profile that cannot be followed")
        return [value / 65_536 for value in struct.unpack(">3i", body[8:20])]

    def curve(self, tag: bytes) -> Curve:
        body, levels = self.body(tag), np.linspace(0, 1, 256)
        if body[:4] == b"curv" and len(body) >= 12:
            (count,) = struct.unpack(">I", body[8:12])
            values = np.frombuffer(body[12 : 12 + 2 * min(count, len(body))], ">u2")
            if count == 0:
                return levels.astype(np.float32)
            if count == len(values) == 1:
                return np.asarray(levels ** (values[0] / 256), dtype=np.float32)
            if count == len(values):
                steps = np.linspace(0, 1, count)
                return np.interp(levels, steps, values / 65_535).astype(np.float32)
        if body[:4] == b"para" and len(body) >= 12 and body[9] < 5:
            size = (1, 3, 4, 5, 7)[body[9]]
            if len(body) >= 12 + 4 * size:
                return _parametric(body[9], struct.unpack(f">{size}i", body[12 : 12 + 4 * size]))
        raise not_alike("a colour profile that cannot be followed")


def _parametric(kind: int, raw: Sequence[int]) -> Curve:
    g, a, b, c, d, e, f = [value / 65_536 for value in raw] + [0.0] * (7 - len(raw))
    if kind == 0:
        a = 1.0
    elif kind in (1, 2):
        # Below its root the curve is flat.
        e = f = c if kind == 2 else 0.0
        c, d = 0.0, -b / a if a else 0.0
    if g < 0 or a <= 0 or c < 0 or d < 0 or a * d + b < -1e-4:
        raise not_alike("a colour profile that cannot be followed")
    levels = np.linspace(0, 1, 256)
    curved = (a * levels + b).clip(0, None) ** g + e
    return np.where(levels >= d, curved, c * levels + f).clip(0, 1).astype(np.float32)


def _is_profile(data: bytes) -> bool:
    """Whether browsers take it for a profile at all (skcms_Parse)."""
    if len(data) < 132 or data[36:40] != b"acsp" or data[8] > 4:
        return False
    size, count = int.from_bytes(data[:4], "big"), int.from_bytes(data[128:132], "big")
    if size > len(data) or 132 + 12 * count > size or data[20:24] not in (b"XYZ ", b"Lab "):
        return False
    white = [value / 65_536 for value in struct.unpack(">3i", data[68:80])]
    if any(abs(given - wanted) > 0.01 for given, wanted in zip(white, _D50, strict=True)):
        return False
    for at in range(132, 132 + 12 * count, 12):
        start, length = struct.unpack(">II", data[at + 4 : at + 12])
        if length < 4 or start + length > size:
            return False
    return True


def _by_profile(data: bytes | None, *, grey: bool | None = None) -> Convert | None:
    """What a profile does to a picture of its own kind of colour; others it leaves alone."""
    if data is None or not _is_profile(data):
        return None
    if len(data) > MAX_PROFILE:
        raise not_alike("a colour profile too large to follow")
    profile = _Profile(data)

    def convert(image: Image.Image) -> Image.Image:
        is_grey = image.mode == "L" if grey is None else grey
        if (image.mode == "CMYK") != (profile.space == b"CMYK"):
            return image
        if profile.space == b"GRAY":
            wanted = is_grey and b"kTRC" in profile
            return _by_curve(profile.curve(b"kTRC"))(image) if wanted else image
        if b"A2B0" in profile or b"A2B1" in profile:
            return _by_table(data, profile)(image)
        if profile.space == b"RGB " and all(tag in profile for tag in _MATRIX_TAGS):
            return _by_primaries(data, profile)(image)
        return image

    return convert


_MATRIX_TAGS: Final = (b"rTRC", b"gTRC", b"bTRC", b"rXYZ", b"gXYZ", b"bXYZ")


def _by_primaries(data: bytes, profile: _Profile) -> Convert:
    """By Little CMS where it shows the same, which it does for all but odd profiles, and faster."""
    curves = [profile.curve(tag) for tag in _MATRIX_TAGS[:3]]
    exact = _by_matrix(curves, np.array([profile.xyz(tag) for tag in _MATRIX_TAGS[3:]]).T)
    try:
        fast = _by_library(data, "RGB")
        sample = _sample_colours()
        change = np.asarray(fast(sample)).astype(int) - np.asarray(exact(sample))
    except Undecided:
        return exact
    return fast if np.abs(change).max() <= 3 else exact


def _by_table(data: bytes, profile: _Profile) -> Convert:
    """A device's table of colours, always by Little CMS."""
    name = b"A2B0" if b"A2B0" in profile else b"A2B1"
    body = profile.body(name)
    identity = struct.pack(">9i", *(65_536 * (at % 4 == 0) for at in range(9)))
    if body[:4] not in (b"mft1", b"mft2") or body[12:48] != identity:
        raise not_alike("a colour profile that cannot be followed")
    if b"A2B0" in profile and b"A2B1" in profile:
        # Browsers take the perceptual table first, whatever the intent, and scale no black point,
        # which Little CMS does under the perceptual intent: the other table is taken away.
        at = data.index(b"A2B1", 132)
        data = data[:at] + b"none" + data[at + 4 :]
    return _by_library(data, "CMYK" if profile.space == b"CMYK" else "RGB")


def _by_library(data: bytes, space: str) -> Convert:
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(BytesIO(data)),
            ImageCms.createProfile("sRGB"),
            space,
            "RGB",
            ImageCms.Intent.RELATIVE_COLORIMETRIC,
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        raise not_alike("a colour profile that cannot be followed") from None

    def convert(image: Image.Image) -> Image.Image:
        shown = ImageCms.applyTransform(image.convert(space), transform)
        assert shown is not None
        if image.mode == "RGBA":
            shown.putalpha(image.getchannel("A"))
        return shown

    return convert
