"""What a budget of views costs and finds: ``python -m tests.media.measure_views [CLIPS_A_KIND]``.

Prints the tables of docs/images.md. Animations: whether a thing flashed for one frame among
harmless ones is among the views, or said to be unseen, and how many harmless animations end
undecided.
Details: by the demonstration checkpoint, which reads 64 x 64 pixels, so that a thing must have a
quarter of a view's side.
"""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Sequence
from random import Random

from PIL import Image, ImageDraw

from moderation_tools.training.tiny.glyphs import GLYPHS
from moderation_tools.training.tiny.lexicon import SYMBOLS
from tests.support.clips import KINDS, harmless, texture
from tests.support.images import encoded
from tests.support.judgements import policy
from worker.judge.factory import open_judge
from worker.judgement import JudgeRequest
from worker.media.decode import DecodeLimits, look_at
from worker.media.views import moments, seen_from_afar
from worker.policy.passes import passes
from worker.settings.sections import JudgeSettings

BUDGETS = (4, 8, 12, 20, 32)
SHARES = (0.1, 0.15, 0.25, 0.4)


def with_symbol(picture: Image.Image, share: float, rng: Random) -> Image.Image:
    """A dark symbol somewhere on the picture, ``share`` of its height."""
    side = int(share * picture.height)
    mask = Image.new("L", (2 * side, 2 * side), 0)
    GLYPHS[rng.choice(sorted(SYMBOLS))](ImageDraw.Draw(mask), 2 * side)
    marked = picture.copy()
    at = rng.randint(0, picture.width - side), rng.randint(0, picture.height - side)
    dark = Image.new("RGB", (side, side), (rng.randrange(60),) * 3)
    marked.paste(dark, at, mask.resize((side, side)))
    return marked


def flashes(count: int) -> None:
    """Print how flashes in harmless animations end, by size and budget."""
    found: dict[tuple[int, float], Counter[str]] = {}
    harmless_ends: dict[int, list[tuple[int, int]]] = {budget: [] for budget in BUDGETS}
    for kind in KINDS:
        for number in range(count):
            clip, rng = harmless(kind, number), Random(f"{kind} {number}")
            looks = [seen_from_afar(frame.convert("RGBA")) for frame in clip.frames]
            # What a smaller budget judges is the beginning of what a larger one does.
            views, distinct = moments(looks, clip.ms, max(BUDGETS))
            for budget in BUDGETS:
                harmless_ends[budget].append((min(len(views), budget), distinct))
            for share in SHARES:
                at = rng.randrange(len(looks))
                frame = with_symbol(clip.frames[at], share, rng)
                changed = list(looks)
                changed[at] = seen_from_afar(frame.convert("RGBA"))
                views, distinct = moments(changed, clip.ms, max(BUDGETS))
                for budget in BUDGETS:
                    judged = at in views[:budget]
                    end = "judged" if judged else "undecided" if distinct > budget else "missed"
                    found.setdefault((budget, share), Counter())[end] += 1
    print(f"\nA symbol for one frame in {len(KINDS) * count} animations of {len(KINDS)} kinds")
    head = " | ".join(f"{share:.0%} judged, undecided, missed" for share in SHARES)
    print(f"| max_frames | views | harmless undecided | {head} |")
    print("| --- " * (3 + len(SHARES)) + "|")
    for budget in BUDGETS:
        ends = harmless_ends[budget]
        mean = sum(views for views, _ in ends) / len(ends)
        over = sum(distinct > budget for _, distinct in ends)
        cells = " | ".join(
            ", ".join(str(found[budget, share][end]) for end in ("judged", "undecided", "missed"))
            for share in SHARES
        )
        print(f"| {budget} | {mean:.1f} | {over} | {cells} |")


def slide_shows() -> None:
    """Print how one bad slide of many ends, over every place that it can have."""
    print("\nOne slide of a slide show, over all places: judged, undecided, missed")
    print("| slides | " + " | ".join(f"max_frames {budget}" for budget in BUDGETS) + " |")
    print("| --- " * (1 + len(BUDGETS)) + "|")
    for count in (6, 8, 12, 20, 30):
        rng = Random(count)
        looks = [seen_from_afar(texture(rng, 320, 240).convert("RGBA")) for _ in range(count)]
        cells = []
        for budget in BUDGETS:
            views, distinct = moments(looks, [2_000] * count, budget)
            judged = len(set(views[:budget]))
            unseen = count - judged
            cells.append(
                f"{judged}, {unseen}, 0" if distinct > budget else f"{judged}, 0, {unseen}"
            )
        print(f"| {count} | " + " | ".join(cells) + " |")


async def details(count: int) -> None:
    """Print what small symbols in large pictures come to, whole alone and in parts."""
    judge = open_judge(JudgeSettings())
    await judge.start()
    rubric = passes(policy())[0].rubric

    async def score(data: bytes, limits: DecodeLimits) -> tuple[float, int]:
        seen = look_at(data, limits)
        asked = [
            judge.judge(JudgeRequest(user="look", response=None, image=view, rubric=rubric))
            for view in seen.frames
        ]
        judgements = await asyncio.gather(*asked)
        return max(judgement.user.score for judgement in judgements), len(seen.frames)

    print(f"\nA symbol in {count} pictures of 3,000 x 3,000: called unsafe, by share of the side")
    shares: Sequence[float] = (0.0, 0.05, 0.08, 0.12, 0.16, 0.25, 0.4)
    print(
        "| parts | views | "
        + " | ".join(f"{share:.0%}" if share else "none" for share in shares)
        + " |"
    )
    print("| --- " * (2 + len(shares)) + "|")
    for name, side in (("none", 0), ("1,792 (default)", 1_792), ("1,000", 1_000)):
        limits = DecodeLimits(max_pixels=40_000_000, max_frames=20, tile_side=side)
        cells, views = [], 0
        for share in shares:
            unsafe = 0
            for number in range(count):
                rng = Random(f"{share} {number}")
                ground = tuple(rng.randint(185, 255) for _ in range(3))
                picture = Image.new("RGB", (3_000, 3_000), ground)
                if share:
                    picture = with_symbol(picture, share, rng)
                worst, views = await score(encoded(picture, "JPEG", quality=90), limits)
                unsafe += worst >= 0.5
            cells.append(f"{unsafe}")
        print(f"| {name} | {views} | " + " | ".join(cells) + " |", flush=True)
    await judge.stop()


if __name__ == "__main__":
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 8
    slide_shows()
    flashes(wanted)
    asyncio.run(details(2 * wanted))
