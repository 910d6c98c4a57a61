"""The pictures of a file as viewers show them: decoded by Pillow, composed here.

Pillow decodes one frame at a time, from a file of its own without metadata. Everything a viewer
does beyond that is done here, because the library does it otherwise in places: colour keys at every
depth, frames on a transparent canvas by the rules of their format, colours, orientation.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from worker.media.colour import Convert, changes_much, conversion
from worker.media.container import (
    Container,
    Frame,
    ImageFormat,
    PngColours,
    corrupt,
    frame_file,
    not_alike,
)

_DECODERS: Final[Mapping[ImageFormat, Callable[[BytesIO], ImageFile.ImageFile]]] = {
    "JPEG": JpegImageFile,
    "PNG": PngImageFile,
    "GIF": GifImageFile,
    "WEBP": WebPImageFile,
}

# EXIF orientation (tag 0x0112) to the turn that undoes it; 1 is upright.
_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def upright(image: Image.Image, turn: int) -> Image.Image:
    """The picture turned as the EXIF orientation ``turn`` asks for."""
    transpose = _TURNS.get(turn)
    return image if transpose is None else image.transpose(transpose)


def still(data: bytes, container: Container, size: tuple[int, int] | None = None) -> Image.Image:
    """A still image in RGB, or RGBA where the file has transparency; not turned.

    A JPEG may come at 1/2, 1/4 or 1/8 of its size, never below ``size``.
    """
    (frame,) = container.frames
    picture = _picture(data, container, frame, size)
    convert = _conversion(container, picture.info.get("icc_profile"))
    if convert is not None:
        picture = convert(picture)
    if picture.mode not in ("RGB", "RGBA"):
        picture = picture.convert("RGB")
    if container.format == "JPEG" or picture.size == (container.width, container.height):
        return picture
    canvas = Image.new("RGBA", (container.width, container.height))
    canvas.paste(picture, (frame.x, frame.y))
    return canvas


def moving(data: bytes, container: Container) -> Iterator[Image.Image]:
    """Every picture of an animation as it stands on the screen, RGBA, in order; not turned.

    The same object is changed from one to the next: take what you need before you go on. A default
    image that is no part of the animation comes first, alone on its canvas.
    """
    # Frames are blended as they are stored, and what came of it is brought to sRGB.
    convert = _conversion(container, None)

    def shown(picture: Image.Image) -> Image.Image:
        return picture if convert is None else convert(picture.copy())

    canvas = Image.new("RGBA", (container.width, container.height))
    first = True
    for frame in container.frames:
        picture = _picture(data, container, frame).convert("RGBA")
        if frame.hidden:
            yield shown(picture)
            continue
        # What reaches past the canvas is not shown (GIF).
        box = (
            frame.x,
            frame.y,
            min(frame.x + frame.width, container.width),
            min(frame.y + frame.height, container.height),
        )
        if box[2] <= box[0] or box[3] <= box[1]:
            yield shown(canvas)
            continue
        picture = picture.crop((0, 0, box[2] - box[0], box[3] - box[1]))
        before = canvas.crop(box) if frame.disposal == "restore" and not first else None
        if frame.over:
            canvas.alpha_composite(picture, box[:2])
        else:
            canvas.paste(picture, box[:2])
        yield shown(canvas)
        if frame.disposal == "clear" or (frame.disposal == "restore" and first):
            canvas.paste((0, 0, 0, 0), box)
        elif before is not None:
            canvas.paste(before, box[:2])
        first = False


def _conversion(container: Container, profile: bytes | None) -> Convert | None:
    convert = conversion(container, profile)
    if convert is None or container.format != "WEBP" or not container.animated:
        return convert
    # Chromium shows an animated WebP without its profile, others with it.
    if changes_much(convert):
        raise not_alike("an animated WebP with a colour profile")
    return None


def _picture(
    data: bytes, container: Container, frame: Frame, size: tuple[int, int] | None = None
) -> Image.Image:
    """The samples of one frame, in the file's own colours: L, RGB, RGBA or CMYK."""
    image = _DECODERS[container.format](BytesIO(frame_file(data, container, frame)))
    if image.size != (frame.width, frame.height):
        raise corrupt("the picture is not of the size announced")
    if container.format == "PNG":
        assert container.png is not None
        return _png(image, container.png, lambda: frame_file(data, container, frame))
    if container.format == "GIF":
        return _gif(image, frame)
    if container.format == "JPEG":
        return _jpeg(image, size)
    return _webp(image, container)


def _webp(image: ImageFile.ImageFile, container: Container) -> Image.Image:
    image.load()
    if image.mode != "RGBA":
        return image if image.mode == "RGB" else image.convert("RGB")
    if container.opaque and image.getchannel("A").getextrema() != (255, 255):
        raise not_alike("transparency in a WebP that is said to have none")
    return image


def _jpeg(image: ImageFile.ImageFile, size: tuple[int, int] | None) -> Image.Image:
    if size is not None:
        image.draft(None, size)
    image.load()
    return image


def _gif(image: ImageFile.ImageFile, frame: Frame) -> Image.Image:
    if frame.palette is None:
        raise not_alike("a GIF without a palette")
    image.load()
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 3] = 255
    colours = np.frombuffer(frame.palette, np.uint8).reshape(-1, 3)
    palette[: len(colours), :3] = colours
    if frame.transparent is not None:
        palette[frame.transparent] = 0
    return _coloured(image, palette)


# PNG


def _png(image: ImageFile.ImageFile, colours: PngColours, file: Callable[[], bytes]) -> Image.Image:
    """A PNG's samples with its transparency; 16 bits are cut to 8 after the key was compared."""
    image.load()
    last = [
        image.crop((0, row, image.width, row + 1)) for row in (image.height - 2, image.height - 1)
    ]
    if not all(row.getbbox(alpha_only=False) for row in last[-image.height :]):
        _complete(file(), colours)
    if colours.kind == 3:
        return _indexed(image, colours)
    key = _key(colours)
    if colours.kind in (4, 6):
        return image if image.mode == "RGBA" else image.convert("RGBA")
    if colours.kind == 0 and colours.depth == 16:
        samples = np.asarray(image).astype(np.uint16)
        grey = Image.fromarray((samples >> 8).astype(np.uint8))
        return grey if key is None else _keyed(grey, samples != key[0])
    if colours.kind == 0:
        grey = image.convert("L")
        if key is None:
            return grey
        return _keyed(grey, np.asarray(grey) != key[0] * (255 // (2**colours.depth - 1)))
    if key is None:
        return image
    high = np.asarray(image)
    if colours.depth == 8:
        return _keyed(image, (high != key).any(axis=-1))
    # Pillow keeps the upper byte of each sample. The lower ones come by reading the file a second
    # time as if its samples were stored the other way round.
    again = PngImageFile(BytesIO(file()))
    again.tile = [tile._replace(args="RGB;16L") for tile in again.tile]
    again.load()
    differs = (high != (key >> 8)) | (np.asarray(again) != (key & 0xFF))
    return _keyed(image, differs.any(axis=-1))


def _complete(file: bytes, colours: PngColours) -> None:
    """Refuse rows that are announced and not there: the decoder leaves them black, viewers clear.

    Called where the last rows are all zero, for it unpacks the samples a second time.
    """
    width, height = struct.unpack(">II", file[16:24])
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colours.kind]
    passes = _ADAM7 if colours.interlaced else ((0, 0, 1, 1),)
    wanted = 0
    for left, top, across, down in passes:
        columns, rows = -(-(width - left) // across), -(-(height - top) // down)
        if columns > 0 and rows > 0:
            wanted += rows * (1 + -(-columns * channels * colours.depth // 8))
    start = file.index(b"IDAT") + 4
    packed = memoryview(file)[start : start + int.from_bytes(file[start - 8 : start - 4], "big")]
    packer = zlib.decompressobj()
    while wanted > 0:
        part = packer.decompress(packed, 1 << 20)
        if not part:
            raise corrupt("fewer rows than announced")
        wanted -= len(part)
        packed = memoryview(packer.unconsumed_tail)


_ADAM7: Final = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
"""Left, top, steps across and down of the passes of an interlaced PNG."""


def _key(colours: PngColours) -> NDArray[np.int64] | None:
    """The colour that is transparent, one value a channel; up to 8 bits, a byte counts."""
    channels = 1 if colours.kind == 0 else 3
    if colours.kind not in (0, 2) or colours.key is None or len(colours.key) != 2 * channels:
        return None
    values = np.frombuffer(colours.key, ">u2").astype(np.int64)
    return values if colours.depth == 16 else values & 0xFF


def _keyed(image: Image.Image, opaque: NDArray[np.bool_]) -> Image.Image:
    shown = image.convert("RGBA")
    shown.putalpha(Image.fromarray(np.where(opaque, np.uint8(255), np.uint8(0))))
    return shown


def _indexed(image: ImageFile.ImageFile, colours: PngColours) -> Image.Image:
    assert colours.palette is not None
    palette = np.zeros((256, 4), np.uint8)
    palette[:, 3] = 255
    known = np.frombuffer(colours.palette[: 3 * 256], np.uint8)
    known = known[: len(known) // 3 * 3].reshape(-1, 3)
    palette[: len(known), :3] = known
    alpha = np.frombuffer((colours.key or b"")[: len(known)], np.uint8)
    palette[: len(alpha), 3] = alpha
    shown = _coloured(image, palette)
    return shown.convert("RGB") if (alpha == 255).all() else shown


def _coloured(image: Image.Image, palette: NDArray[np.uint8]) -> Image.Image:
    """Indices through a palette of 256 x RGBA."""
    image.putpalette(palette.tobytes(), "RGBA")
    return image.convert("RGBA")
