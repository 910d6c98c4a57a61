"""``policy digest``: what a list of images in a policy's prefilter wants to know of a picture."""

from __future__ import annotations

import hashlib
from pathlib import Path

import click

from worker.errors import Undecided
from worker.media.decode import DecodeLimits, decode
from worker.prefilter.pictures import phash
from worker.settings import Store


@click.command("digest")
@click.argument(
    "images", nargs=-1, required=True, type=click.Path(path_type=Path, dir_okay=False, exists=True)
)
def digest(images: tuple[Path, ...]) -> None:
    """Print SHA-256 and pHash of images, as lists of a prefilter take them.

    An animation has a pHash for every frame that is judged; a picture of one colour has none.
    """
    limits = DecodeLimits(max_pixels=Store().max_image_pixels, max_frames=Store().max_frames)
    failed = False
    for path in images:
        data = path.read_bytes()
        click.echo(f"{hashlib.sha256(data).hexdigest()}  {path}")
        try:
            hashes = dict.fromkeys(phash(frame) for frame in decode(data, limits))
        except Undecided as error:
            click.echo(f"{path}: {error}", err=True)
            failed = True
            continue
        for each in hashes:
            click.echo(
                f"# no pHash: one colour  {path}" if each is None else f"{each:016x}  {path}"
            )
    raise SystemExit(1 if failed else 0)
