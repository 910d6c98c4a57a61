"""``python -m moderation_tools.kernels``: compile every CUDA kernel on a machine without a GPU.

Triton brings its own assembler, so compile errors, shared memory and spilled registers are seen
anywhere. Shared memory is held to what each architecture has: a compiler does not (86 and 120 build
kernels that no such card can launch). What runs, and how fast, only a card shows.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

SHARED = {80: 166_912, 86: 101_376, 89: 101_376, 90: 232_448, 100: 232_448, 120: 101_376}
"""Bytes of shared memory that a block may have (CUDA programming guide, technical specifications
by compute capability)."""

SHAPES = {
    "4b": (8, 4, 256, 2560, 10_240),
    "tower": (16, 16, 72, 1152, 4304),
    "tiny": (2, 1, 32, 64, 128),
    "small": (1, 1, 16, 32, 32),
    "wide": (8, 2, 128, 1024, 4096),
}
"""Heads, key/value heads, head, hidden and MLP widths: groups of 1, 2 and 4, heads of 16 to 256."""


class Variant(NamedTuple):
    """One compilation: a kernel, the name of the case, types of arguments and constants."""

    kernel: str
    case: str
    arguments: dict[str, str]
    constants: dict[str, Any]
    warps: int
    stages: int


class Compiled(NamedTuple):
    """What came out of it, in bytes; ``spilled`` is a thread's."""

    arch: int
    kernel: str
    case: str
    shared: int
    limit: int
    spilled: int


def attention(arch: int, shape: str, number: str) -> Iterator[Variant]:
    """Every path of the attention kernel: scoring and decoding, sliding or not, with marks."""
    from worker.judge.engine.triton_backend import DECODING, padded, tile_of

    heads, kv_heads, head, _, _ = SHAPES[shape]
    groups, tile = heads // kv_heads, tile_of((arch // 10, arch % 10))
    pointers = dict.fromkeys(("Q", "K", "V", "OUT"), f"*{number}")
    strides = dict.fromkeys(
        ("q_token", "q_head", "k_token", "k_head", "v_token", "v_head", "out_token", "out_head"),
        "i32",
    )
    arrays = dict.fromkeys(
        ("BLOCK_ROW", "BLOCK_FIRST", "QUERY_START", "QUERY_COUNT", "QUERY_TOKEN", "TOKEN_START",
         "TOKEN_COUNT", "MARKED", "POSITION", "BRANCH", "IMAGE", "SEGMENT_FIRST"), "*i32",
    )  # fmt: skip
    addresses = dict.fromkeys(("SEGMENT_KEYS", "SEGMENT_VALUES", "SEGMENT_STRIDE"), "*i64")
    held = dict.fromkeys(("SEGMENT_HELD", "SEGMENT_POSITION"), "*i32")
    arguments = {
        **pointers, **strides, **arrays, **addresses, **held, "scale": "fp32", "window": "i32",
    }  # fmt: skip
    for queries, warps in ((tile.queries, tile.warps), (max(1, DECODING // groups), 4)):
        for sliding in (False, True):
            for marks in (False, True):
                constants = {
                    "GROUPS": groups, "HEAD": head, "HEAD_PADDED": padded(head),
                    "BLOCK_Q": queries, "BLOCK_K": tile.keys, "SLIDING": sliding, "MARKS": marks,
                }  # fmt: skip
                case = f"{shape} {number} {queries} queries"
                case += " sliding" * sliding + " marks" * marks
                yield Variant("attention", case, arguments, constants, warps, tile.stages)


def between(shape: str, number: str) -> Iterator[Variant]:
    """The kernels between products, with and without eight bits."""
    from worker.judge.engine.triton_backend import padded

    heads, kv_heads, head, hidden, mlp = SHAPES[shape]
    for eight_bits in (False, True) if number == "bf16" else (False,):
        out = "*fp8e4nv" if eight_bits else f"*{number}"
        scale = "*fp32" if eight_bits else f"*{number}"
        end = " fp8" if eight_bits else ""
        for add in (False, True):
            yield Variant(
                "add_norm", f"{shape} {number}{' add' if add else ''}{end}",
                {"X": f"*{number}", "Y": f"*{number}", "GAIN_Y": "*fp32", "GAIN_X": "*fp32",
                 "OUT": out, "SCALE": scale, "tokens": "i32", "eps": "fp32"},
                {"WIDTH": hidden, "WIDTH_PADDED": padded(hidden), "ROWS": 1, "ADD": add,
                 "EIGHT_BITS": eight_bits}, 8, 1,
            )  # fmt: skip
        yield Variant(
            "gelu_up", f"{shape} {number}{end}",
            {"GATE_UP": f"*{number}", "OUT": out, "SCALE": scale, "tokens": "i32"},
            {"WIDTH": mlp, "WIDTH_PADDED": padded(mlp), "ROWS": 1, "EIGHT_BITS": eight_bits},
            16 if mlp > 4096 else 4, 1,
        )  # fmt: skip
    yield Variant(
        "norm_rotate", f"{shape} {number}",
        {"QKV": f"*{number}", "GAIN_Q": "*fp32", "GAIN_K": "*fp32", "COS": f"*{number}",
         "SIN": f"*{number}", "tokens": "i32", "eps": "fp32"},
        {"HEADS": heads, "KV_HEADS": kv_heads, "HEAD": head, "HALF_PADDED": padded(head // 2),
         "ROWS": 1}, 1, 1,
    )  # fmt: skip
    width = kv_heads * head
    yield Variant(
        "write_slots", f"{shape} {number}",
        {"K": f"*{number}", "V": f"*{number}", "SLOT_KEYS": f"*{number}",
         "SLOT_VALUES": f"*{number}", "SLOT": "*i32", "AT": "*i32", "tokens": "i32",
         "slot_rows": "i32", "k_token": "i32", "v_token": "i32"},
        {"WIDTH": width, "WIDTH_PADDED": padded(width), "ROWS": 1}, 4, 1,
    )  # fmt: skip
    if number == "bf16":
        yield Variant(
            "quantize", f"{shape} {number}",
            {"X": "*bf16", "OUT": "*fp8e4nv", "SCALE": "*fp32", "tokens": "i32"},
            {"WIDTH": heads * head, "WIDTH_PADDED": padded(heads * head), "ROWS": 1}, 8, 1,
        )  # fmt: skip


def compiled(arch: int, variant: Variant) -> tuple[Compiled, str]:
    """The figures of one variant, and its PTX."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from worker.judge.engine import triton_kernels

    kernel = getattr(triton_kernels, variant.kernel)
    signature = {name: variant.arguments.get(name, "constexpr") for name in kernel.arg_names}
    places = {name: (place,) for place, name in enumerate(kernel.arg_names)}
    constants = {places[name]: value for name, value in variant.constants.items()}
    aligned = {
        places[name]: [["tt.divisibility", 16]]
        for name, kind in variant.arguments.items()
        if kind.startswith("*") or name.endswith(("_token", "_head"))
    }
    source = ASTSource(kernel, signature, constants, aligned)
    options = {"num_warps": variant.warps, "num_stages": variant.stages}
    built = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    found = Compiled(
        arch, variant.kernel, variant.case, built.metadata.shared, SHARED[arch],
        _spilled(built.asm["cubin"]),
    )  # fmt: skip
    return found, built.asm["ptx"]


def _spilled(cubin: bytes) -> int:
    """Bytes of stack that a thread has, by the tool that Triton brings; -1 where it does not."""
    import re
    import subprocess
    import tempfile
    from pathlib import Path

    import triton

    found = [*Path(triton.__file__).parent.rglob("cuobjdump")]
    if not found:
        return -1
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run(  # noqa: S603 - Triton's own tool on our own file
            [found[0], "-res-usage", file.name], capture_output=True, text=True, check=False
        ).stdout
    stack = re.findall(r"STACK:(\d+)", said)
    return max(map(int, stack), default=-1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Compile, print a line of JSON for each, exit 1 where one does not fit."""
    parser = argparse.ArgumentParser("kernels", description=__doc__)
    parser.add_argument("--arch", type=int, nargs="+", choices=SHARED, default=list(SHARED))
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--numbers", nargs="+", choices=("bf16", "fp32"), default=["bf16"])
    parser.add_argument("--only", help="one kernel")
    parser.add_argument("--cases", help="cases that contain this")
    chosen = parser.parse_args(arguments)
    wrong = 0
    for arch in chosen.arch:
        for shape in chosen.shapes:
            for number in chosen.numbers:
                for variant in (*attention(arch, shape, number), *between(shape, number)):
                    if chosen.only and variant.kernel != chosen.only:
                        continue
                    if chosen.cases and chosen.cases not in variant.case:
                        continue
                    if arch < 89 and "fp8" in json.dumps(variant.arguments):
                        continue  # no fp8 before Ada
                    found, ptx = compiled(arch, variant)
                    said = found._asdict() | {"tf32": "tf32" in ptx}
                    print(json.dumps(said), flush=True)
                    wrong += found.shared > found.limit
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
