"""The same requests to a vLLM server: ``--against URL`` (its OpenAI-compatible completions).

The server runs the checkpoint that ``--save DIR`` wrote. Prompts are token ids, so no tokenizer
stands between; it decodes twelve tokens, which is what a verdict costs it.
"""

from __future__ import annotations

import json
import statistics
import threading
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from moderation_tools.bench.engine.generate import ANSWER_TOKENS


class Served(NamedTuple):
    """Verdicts per second, and latency in seconds at p50 and p95."""

    per_second: float
    p50: float
    p95: float


def ask(url: str, model: str, prompt: Sequence[int], tokens: int = ANSWER_TOKENS) -> float:
    """Seconds until one prompt's tokens are written."""
    body = {
        "model": model,
        "prompt": list(prompt),
        "max_tokens": tokens,
        "min_tokens": tokens,
        "ignore_eos": True,
        "temperature": 0,
    }
    request = urllib.request.Request(  # noqa: S310 - the URL is the operator's
        f"{url.rstrip('/')}/v1/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    started = time.perf_counter()
    with urllib.request.urlopen(request, timeout=600) as answer:  # noqa: S310
        json.load(answer)
    return time.perf_counter() - started


def model_name(url: str) -> str:
    """The id of the first model that the server serves."""
    with urllib.request.urlopen(f"{url.rstrip('/')}/v1/models", timeout=30) as answer:  # noqa: S310
        return str(json.load(answer)["data"][0]["id"])


def saturated(url: str, prompts: Sequence[Sequence[int]], in_flight: int = 64) -> Served:
    """All prompts, ``in_flight`` at a time."""
    name = model_name(url)
    started = time.perf_counter()
    with ThreadPoolExecutor(in_flight) as pool:
        latencies = list(pool.map(lambda prompt: ask(url, name, prompt), prompts))
    return _served(latencies, time.perf_counter() - started)


def at_rate(url: str, prompts: Sequence[Sequence[int]], per_second: float) -> Served:
    """Prompts sent at a steady rate, whatever the server does."""
    name = model_name(url)
    latencies: list[float] = []
    lock = threading.Lock()

    def send(prompt: Sequence[int]) -> None:
        taken = ask(url, name, prompt)
        with lock:
            latencies.append(taken)

    started = time.perf_counter()
    with ThreadPoolExecutor(len(prompts)) as pool:
        for number, prompt in enumerate(prompts):
            time.sleep(max(0.0, started + number / per_second - time.perf_counter()))
            pool.submit(send, prompt)
    return _served(latencies, time.perf_counter() - started)


def _served(latencies: list[float], seconds: float) -> Served:
    ordered = sorted(latencies)
    p95 = ordered[round(0.95 * (len(ordered) - 1))]
    return Served(len(latencies) / seconds, statistics.median(latencies), p95)
