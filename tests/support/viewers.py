"""What people see of an image: the decoders of Chrome, asked from outside.

``Chromium`` runs Debian's headless package over a page of its own, and is what counts. ``skia``
(skia-python) is the same decoders for stills, GIF and WebP without a browser's colour management
of PNG chunks, and takes milliseconds. Both give RGBA as a viewer composes it, upright, in sRGB.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""(height, width, 4): RGBA, not premultiplied."""


class Shown(NamedTuple):
    """What a viewer shows: its frames with their durations (ms), or why it shows none."""

    frames: Sequence[Pixels]
    durations: Sequence[float]
    error: str = ""


_PAGE = b"""<!doctype html><script>
const canvas = new OffscreenCanvas(1, 1);
const context = canvas.getContext('2d', {willReadFrequently: true, colorSpace: 'srgb'});
function pixels(source, width, height) {
  canvas.width = width; canvas.height = height;
  context.clearRect(0, 0, width, height);
  context.drawImage(source, 0, 0);
  return context.getImageData(0, 0, width, height).data;
}
const send = (index, query, body) =>
  fetch(`/result/${index}?` + new URLSearchParams(query), {method: 'POST', body});
async function still(index, blob) {
  const image = new Image();
  const url = URL.createObjectURL(blob);
  image.src = url;
  await image.decode();
  const width = image.naturalWidth, height = image.naturalHeight;
  const data = pixels(image, width, height);
  URL.revokeObjectURL(url);
  await send(index, {frame: 0, width, height, ms: 0}, data);
}
async function moving(index, blob, type) {
  const decoder = new ImageDecoder({data: await blob.arrayBuffer(), type, preferAnimation: true});
  await decoder.completed; await decoder.tracks.ready;
  const count = decoder.tracks.selectedTrack.frameCount;
  for (let frame = 0; frame < count; frame++) {
    const {image, complete} = await decoder.decode({frameIndex: frame});
    if (!complete) throw new Error('incomplete');
    const width = image.displayWidth, height = image.displayHeight;
    const data = pixels(image, width, height);
    await send(index, {frame, width, height, ms: (image.duration || 0) / 1000}, data);
    image.close();
  }
  decoder.close();
}
(async () => {
  for (const {index, type, animated} of await (await fetch('/list')).json()) {
    const blob = new Blob([await (await fetch('/file/' + index)).arrayBuffer()], {type});
    try { await (animated ? moving(index, blob, type) : still(index, blob)); }
    catch (error) { await send(index, {error: String(error)}, ''); }
  }
  await fetch('/done', {method: 'POST'});
})();
</script>"""

_TYPES: Mapping[bytes, str] = {
    b"\xff\xd8": "image/jpeg",
    b"\x89P": "image/png",
    b"GI": "image/gif",
    b"RI": "image/webp",
}


def chromium() -> str | None:
    """The browser's program, or None where it is not installed."""
    return shutil.which("chromium") or shutil.which("chromium-browser")


def shown_by_chromium(
    files: Sequence[bytes], *, animated: bool = False, timeout_s: float = 600
) -> list[Shown]:
    """What Chromium shows of each file: as an ``<img>``, or every frame by its ``ImageDecoder``."""
    program = chromium()
    assert program is not None, "chromium is not installed"
    results: dict[int, Shown] = {}
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            path = self.path
            if path == "/list":
                listed = [
                    {
                        "index": index,
                        "type": _TYPES.get(data[:2], "image/png"),
                        "animated": animated,
                    }
                    for index, data in enumerate(files)
                ]
                self._answer(json.dumps(listed).encode(), "application/json")
            elif path.startswith("/file/"):
                self._answer(files[int(path[6:])], "application/octet-stream")
            else:
                self._answer(_PAGE if path == "/" else b"", "text/html")

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            where = urlsplit(self.path)
            if where.path == "/done":
                done.set()
            else:
                index = int(where.path.rsplit("/", 1)[1])
                query = {key: values[0] for key, values in parse_qs(where.query).items()}
                results[index] = _with(results.get(index, Shown((), ())), query, body)
            self._answer(b"", "text/plain")

        def _answer(self, body: bytes, kind: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as profile:
        browser = subprocess.Popen(
            [
                program,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--force-color-profile=srgb",
                f"--user-data-dir={Path(profile) / 'p'}",
                f"http://127.0.0.1:{server.server_port}/",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            assert done.wait(timeout_s), f"chromium answered {len(results)} of {len(files)}"
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()
            server.shutdown()
            server.server_close()
    return [results.get(index, Shown((), (), "no frame")) for index in range(len(files))]


def _with(shown: Shown, query: Mapping[str, str], body: bytes) -> Shown:
    if "error" in query:
        return Shown(shown.frames, shown.durations, query["error"])
    size = int(query["height"]), int(query["width"])
    pixels = np.frombuffer(body, np.uint8).reshape(*size, 4)
    return Shown((*shown.frames, pixels), (*shown.durations, float(query["ms"])))


def skia_missing() -> str | None:
    """Why skia-python cannot be asked here: not installed, or without the libraries it loads."""
    try:
        import skia  # noqa: F401
    except ImportError as error:
        return f"skia-python needs libgl1 and libegl1 ({error})"
    return None


def shown_by_skia(data: bytes) -> Shown:
    """What Skia's codecs make of a file: every frame composed, upright, in sRGB."""
    import skia

    held = skia.Data.MakeWithCopy(data)  # the codec reads from it, and does not keep it alive
    codec = skia.Codec.MakeFromData(held)
    if codec is None:
        return Shown((), (), "no codec")
    width, height = codec.dimensions().width(), codec.dimensions().height()
    info = skia.ImageInfo.Make(
        width,
        height,
        skia.kRGBA_8888_ColorType,
        skia.kUnpremul_AlphaType,
        skia.ColorSpace.MakeSRGB(),
    )
    frames: list[Pixels] = []
    durations: list[float] = []
    known = codec.getFrameInfo() if data[:2] in (b"GI", b"RI") else []
    for index in range(max(1, codec.getFrameCount())):
        # Each from the beginning: the codec composes what a frame needs by itself.
        options = skia.Codec.Options()
        options.fFrameIndex = index
        pixels = np.zeros((height, width, 4), np.uint8)
        if codec.getPixels(info, pixels, 4 * width, options) != skia.Codec.kSuccess:
            return Shown(frames, durations, "incomplete")
        frames.append(pixels)
        durations.append(float(known[index].fDuration) if index < len(known) else 0.0)
    return Shown(frames, durations)
