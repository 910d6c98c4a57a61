import numpy as np
from random import Random
from PIL import Image, ImageDraw, ImageFilter

W, H = 320, 240


def texture(rng, w, h, rough=1.0):
    g = np.random.default_rng(rng.getrandbits(32))
    out = np.zeros((h, w, 3))
    for k, amp in ((4, 70), (8, 50), (16, 35), (32, 25), (64, 15)):
        small = g.normal(0, 1, (max(2, h * k // max(w, h)), max(2, w * k // max(w, h)), 3))
        small = small * 0.4 + small.mean(-1, keepdims=True) * 0.6
        layer = np.stack(
            [
                np.asarray(
                    Image.fromarray(small[..., c].astype(np.float32)).resize(
                        (w, h), Image.Resampling.BICUBIC
                    )
                )
                for c in range(3)
            ],
            -1,
        )
        out += layer * amp * rough
    return (out + 128 + g.normal(0, 20, 3)).clip(0, 255).astype(np.uint8)


def sprite(rng, size):
    im = Image.fromarray(texture(rng, size, size))
    m = Image.new("L", (size, size), 0)
    d = ImageDraw.Draw(m)
    (d.ellipse if rng.random() < 0.6 else d.rectangle)((2, 2, size - 3, size - 3), fill=255)
    return im, m


def clip(rng, n, shots=1, drift=True):
    fr = []
    for s in range(shots):
        bg = Image.fromarray(texture(rng, W + 80, H + 60))
        sp = [sprite(rng, rng.randint(40, 120)) for _ in range(rng.randint(1, 4))]
        pos = [(rng.uniform(0, W), rng.uniform(0, H)) for _ in sp]
        vel = [(rng.uniform(-5, 5), rng.uniform(-4, 4)) for _ in sp]
        for i in range(n // shots):
            ox = 40 + (30 * np.sin(i / 9) if drift else 0)
            oy = 30 + (15 * np.sin(i / 13) if drift else 0)
            f = bg.crop((int(ox), int(oy), int(ox) + W, int(oy) + H))
            for (im, m), (x, y), (vx, vy) in zip(sp, pos, vel):
                f.paste(im, (int(x + vx * i - 40), int(y + vy * i - 40)), m)
            fr.append(noisy(rng, f))
    return fr, [rng.choice((30, 40, 60, 80, 100))] * len(fr)


def noisy(rng, f, s=4):
    a = np.asarray(f).astype(int)
    g = np.random.default_rng(rng.getrandbits(32))
    return Image.fromarray((a + g.normal(0, s, a.shape)).clip(0, 255).astype(np.uint8))


def pan(rng, n):
    bg = Image.fromarray(texture(rng, W * 2, H))
    return [bg.crop((i * W // n, 0, i * W // n + W, H)) for i in range(n)], [
        rng.choice((40, 60, 100))
    ] * n


def zoom(rng, n):
    bg = Image.fromarray(texture(rng, W * 2, H * 2))
    out = []
    for i in range(n):
        s = 1 - 0.6 * i / n
        w, h = int(W * 2 * s), int(H * 2 * s)
        x, y = (2 * W - w) // 2, (2 * H - h) // 2
        out.append(bg.crop((x, y, x + w, y + h)).resize((W, H)))
    return out, [60] * n


def typing(rng, n):
    out = []
    im = Image.new("RGB", (W, H), (250, 250, 250))
    d = ImageDraw.Draw(im)
    d.rectangle((0, 0, W, 20), fill=(60, 80, 120))
    x, y = 8, 30
    for i in range(n):
        for _ in range(2):
            d.text((x, y), rng.choice("abcdefghijklmnop"), fill=(20, 20, 20))
            x += 7
            if x > W - 12:
                x = 8
                y += 14
        f = im.copy()
        fd = ImageDraw.Draw(f)
        if i % 2:
            fd.rectangle((x, y, x + 5, y + 11), fill=(0, 0, 0))
        cx = int(160 + 100 * np.sin(i / 7))
        cy = int(120 + 60 * np.cos(i / 5))
        fd.polygon([(cx, cy), (cx, cy + 14), (cx + 9, cy + 9)], fill=(0, 0, 0))
        out.append(f)
    return out, [rng.choice((100, 150, 200))] * n


def scroll(rng, n):
    page = Image.new("RGB", (W, H * 3), "white")
    d = ImageDraw.Draw(page)
    for y in range(5, H * 3, 14):
        d.text(
            (8, y), "".join(rng.choice("abcdefg hijkl mnop") for _ in range(48)), fill=(30, 30, 30)
        )
    for _ in range(4):
        page.paste(
            Image.fromarray(texture(rng, 100, 70)),
            (rng.randint(0, 200), rng.randint(0, H * 3 - 80)),
        )
    out = []
    y = 0
    for i in range(n):
        out.append(page.crop((0, int(y), W, int(y) + H)))
        y = min(2 * H, y + 2 * H / n)
    return out, [60] * n


def dither(rng, n):
    fr, ms = clip(rng, n, drift=False)
    return [f.quantize(32, dither=Image.Dither.FLOYDSTEINBERG).convert("RGB") for f in fr], ms


def fade(rng, n):
    a, b = Image.fromarray(texture(rng, W, H)), Image.fromarray(texture(rng, W, H))
    return [Image.blend(a, b, i / (n - 1)) for i in range(n)], [50] * n


def slides(rng, n):
    return [Image.fromarray(texture(rng, W, H)) for _ in range(n)], [2000] * n


def sticker(rng, n):
    out = []
    im, m = sprite(rng, 100)
    for i in range(n):
        f = Image.new("RGBA", (W, H), (0, 0, 0, 0))
        r = im.copy()
        r.putalpha(m)
        r = r.rotate(15 * np.sin(i / 3), resample=Image.Resampling.BILINEAR)
        f.paste(r, (110 + int(20 * np.sin(i / 4)), 70 + int(20 * np.cos(i / 4))))
        out.append(f)
    return out, [50] * n


def rotate(rng, n):
    im, m = sprite(rng, 180)
    bg = Image.fromarray(texture(rng, W, H))
    out = []
    for i in range(n):
        f = bg.copy()
        f.paste(im.rotate(360 * i / n), (70, 30), m)
        out.append(f)
    return out, [60] * n


def head(rng, n):
    bg = Image.fromarray(texture(rng, W, H))
    out = []
    face = (220, 180, 150)
    for i in range(n):
        f = bg.copy()
        d = ImageDraw.Draw(f)
        x = 160 + int(6 * np.sin(i / 5))
        y = 110 + int(4 * np.cos(i / 4))
        d.ellipse((x - 55, y - 70, x + 55, y + 70), fill=face)
        o = int(10 + 9 * np.sin(i * 1.7))
        d.ellipse((x - 20, y + 28 - o // 2, x + 20, y + 28 + o // 2), fill=(120, 30, 40))
        for e in (-22, 22):
            d.ellipse(
                (
                    x + e - 8,
                    y - 20 - (1 if i % 15 == 0 else 6),
                    x + e + 8,
                    y - 20 + (1 if i % 15 == 0 else 6),
                ),
                fill=(30, 30, 60),
            )
        out.append(noisy(rng, f, 6))
    return out, [70] * n


BENIGN = {
    "clip": lambda r: clip(r, r.choice((20, 40, 60, 90))),
    "still camera": lambda r: clip(r, r.choice((20, 40, 60)), drift=False),
    "cuts": lambda r: clip(r, r.choice((40, 60, 90)), shots=r.choice((2, 3, 4))),
    "pan": lambda r: pan(r, r.choice((20, 40, 60))),
    "zoom": lambda r: zoom(r, r.choice((20, 40))),
    "typing": lambda r: typing(r, r.choice((20, 40, 80))),
    "scroll": lambda r: scroll(r, r.choice((30, 60))),
    "dither": lambda r: dither(r, r.choice((15, 30, 45))),
    "fade": lambda r: fade(r, r.choice((10, 20))),
    "slides": lambda r: slides(r, r.choice((3, 5, 8))),
    "sticker": lambda r: sticker(r, r.choice((12, 24))),
    "rotate": lambda r: rotate(r, r.choice((12, 24))),
    "head": lambda r: head(r, r.choice((20, 40, 60))),
}
