"""ICC profiles made for tests: usual ones, and such as show another picture where applied."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray


def _fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65_536))


def _xyz(values: Sequence[float]) -> bytes:
    return b"XYZ \0\0\0\0" + b"".join(_fixed(value) for value in values)


def gamma(value: float) -> bytes:
    """A curve that is a power."""
    return b"curv\0\0\0\0" + struct.pack(">IH", 1, round(value * 256))


def table(values: NDArray[np.float64]) -> bytes:
    """A curve given by samples, 0 to 1."""
    body = (values * 65_535).astype(">u2").tobytes()
    return b"curv\0\0\0\0" + struct.pack(">I", len(values)) + body


def parametric(kind: int, *parameters: float) -> bytes:
    """A curve of ICC.1, 10.18."""
    body = b"".join(_fixed(parameter) for parameter in parameters)
    return b"para\0\0\0\0" + struct.pack(">HH", kind, 0) + body


def profile(
    tags: Sequence[tuple[bytes, bytes]],
    *,
    space: bytes = b"RGB ",
    connection: bytes = b"XYZ ",
    device: bytes = b"mntr",
    version: int = 0x02400000,
) -> bytes:
    """A profile of these tags."""
    body = index = b""
    start = 132 + 12 * len(tags)
    for name, data in tags:
        padded = data + b"\0" * (-len(data) % 4)
        index += name + struct.pack(">II", start + len(body), len(padded))
        body += padded
    head = struct.pack(
        ">I4sI4s4s4s", start + len(body), b"none", version, device, space, connection
    )
    head += b"\0" * 12 + b"acsp" + b"\0" * 28 + _fixed(0.9642) + _fixed(1.0) + _fixed(0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + index + body


_DESCRIPTION = (b"desc", b"desc\0\0\0\0" + struct.pack(">I", 2) + b"x\0" + b"\0" * 80)
_WHITE = (b"wtpt", _xyz((0.9642, 1.0, 0.8249)))


def by_matrix(
    matrix: NDArray[np.float64],
    curve: bytes | Sequence[bytes],
    *,
    connection: bytes = b"XYZ ",
    device: bytes = b"mntr",
    version: int = 0x02400000,
) -> bytes:
    """A display's profile: columns are red, green, blue in XYZ at D50."""
    curves = [curve] * 3 if isinstance(curve, bytes) else curve
    primaries = zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix.T, strict=True)
    tags = [_DESCRIPTION, _WHITE, *((name, _xyz(column)) for name, column in primaries)]
    tags += zip((b"rTRC", b"gTRC", b"bTRC"), curves, strict=True)
    return profile(tags, connection=connection, device=device, version=version)


def of_grey(curve: bytes) -> bytes:
    """A profile of grey."""
    return profile([_DESCRIPTION, _WHITE, (b"kTRC", curve)], space=b"GRAY")


def by_table(space: bytes, channels: int, colours: NDArray[np.float64], name: bytes) -> bytes:
    """``lut16`` in Lab, a grid of 5 points a channel between the corners of the device's colours:
    (2 ** channels, 3) rows of L (0 to 1), a and b (-1 to 1).
    """
    grid = colours.reshape(*[2] * channels, 3)
    for axis in range(channels):
        low, high = np.split(grid, 2, axis=axis)
        grid = np.concatenate([low + (high - low) * step / 4 for step in range(5)], axis=axis)
    colours = grid.reshape(-1, 3)
    lab = np.stack([colours[:, 0], (colours[:, 1] + 1) / 2, (colours[:, 2] + 1) / 2], axis=1)
    samples = (lab.clip(0, 1) * 0xFF00).astype(">u2").tobytes()
    line = struct.pack(">HH", 0, 65_535)
    body = b"mft2\0\0\0\0" + bytes((channels, 3, 5, 0))
    body += b"".join(_fixed(value) for value in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    body += struct.pack(">HH", 2, 2) + line * channels + samples + line * 3
    tags = [_DESCRIPTION, _WHITE, (name, body)]
    return profile(tags, space=space, connection=b"Lab ", device=b"prtr")


SRGB = np.array(
    [[0.43607, 0.38506, 0.14308], [0.22250, 0.71688, 0.06062], [0.01393, 0.09710, 0.71417]]
)
P3 = np.array(
    [[0.51510, 0.29197, 0.15715], [0.24118, 0.69224, 0.06658], [-0.00105, 0.04188, 0.78438]]
)
ADOBE = np.array(
    [[0.60976, 0.20524, 0.14922], [0.31112, 0.62566, 0.06322], [0.01948, 0.06089, 0.74484]]
)
_SRGB_CURVE = parametric(3, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
_X = np.linspace(0, 1, 256)
_CUBE = np.array([[red, green, blue] for red in (0, 1) for green in (0, 1) for blue in (0, 1)])
_LAB = np.stack(
    [_CUBE.mean(axis=1), (_CUBE[:, 0] - _CUBE[:, 1]) * 0.5, (_CUBE[:, 1] - _CUBE[:, 2]) * 0.5],
    axis=1,
)

PROFILES: Mapping[str, bytes] = {
    "sRGB": by_matrix(SRGB, _SRGB_CURVE, version=0x04300000),
    "P3": by_matrix(P3, _SRGB_CURVE, version=0x04300000),
    "Adobe": by_matrix(ADOBE, gamma(2.2)),
    "linear": by_matrix(SRGB, gamma(1.0)),
    "gamma 5": by_matrix(SRGB, gamma(5.0)),
    "gamma 0.1": by_matrix(SRGB, gamma(0.1)),
    "inverted": by_matrix(SRGB, table((1 - _X) ** 2.2)),
    "step": by_matrix(SRGB, table((_X > 0.5).astype(float))),
    "comb": by_matrix(SRGB, table((np.arange(256) % 16) / 15)),
    "bump": by_matrix(SRGB, table(np.sin(_X * np.pi).clip(0, 1))),
    "two points": by_matrix(SRGB, table(np.array([1.0, 0.0]))),
    "swapped": by_matrix(SRGB[:, [2, 0, 1]], gamma(2.2)),
    "a curve each": by_matrix(SRGB, [gamma(1.0), gamma(2.2), gamma(3.0)]),
    "dark matrix": by_matrix(SRGB * 0.1, gamma(2.2)),
    "negative matrix": by_matrix(-SRGB, gamma(2.2)),
    "offset curve": by_matrix(
        SRGB, parametric(4, 2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045, 0.1, 0.1)
    ),
    "Lab connection": by_matrix(SRGB, gamma(2.2), connection=b"Lab "),
    "scanner": by_matrix(P3, gamma(2.2), device=b"scnr"),
    "abstract": by_matrix(SRGB, gamma(1.0), device=b"abst"),
    "link": by_matrix(SRGB, gamma(1.0), device=b"link"),
    "version 5": by_matrix(SRGB, gamma(1.0), version=0x05000000),
    "grey": of_grey(gamma(1.0)),
    "grey inverted": of_grey(table(1 - _X)),
    "cut": by_matrix(SRGB, gamma(1.0))[:-30],
    "no signature": by_matrix(SRGB, gamma(1.0)).replace(b"acsp", b"acsx"),
    "RGB table": by_table(b"RGB ", 3, _LAB, b"A2B0"),
    "RGB table inverted": by_table(b"RGB ", 3, _LAB[::-1], b"A2B0"),
    "RGB table 1": by_table(b"RGB ", 3, _LAB[::-1], b"A2B1"),
    "CMYK table": by_table(
        b"CMYK", 4, np.concatenate([1 - _CUBE, (1 - _CUBE) * 0.2]) * [1, 0.1, 0.1], b"A2B0"
    ),
}
