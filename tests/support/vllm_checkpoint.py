"""The demonstration checkpoint as one that vLLM serves: adapter merged, and Gemma's line ends."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file, save_file

from worker.judge.local.loading import load
from worker.settings import JudgeSettings

_LINE_ENDS = ("\n\n", "\n\n\n", "\n\n\n\n")
_NEVER_IN_UTF8 = ("<0xF8>", "<0xF9>", "<0xFA>", "<0xFB>", "<0xFC>", "<0xFD>", "<0xFE>", "<0xFF>")


def export_merged(directory: Path, model: str = "tiny") -> Path:
    """Write the whole checkpoint to ``directory``, its adapter added to its weights."""
    checkpoint = load(JudgeSettings(model=model, dtype="float32", device="cpu"))
    checkpoint.model.save_pretrained(directory)
    checkpoint.processor.save_pretrained(directory)
    _name_vision_tower(directory / "model.safetensors")
    _name_line_ends(directory / "tokenizer.json")
    return directory


def _name_vision_tower(file: Path) -> None:
    """vLLM knows the tower's weights by the names that Gemma 3 was published with."""
    weights = load_file(file)
    own = "vision_tower."
    named = {
        key.replace(own, f"{own}vision_model.", 1)
        if key.startswith(own) and not key.startswith(f"{own}vision_model.")
        else key: tensor
        for key, tensor in weights.items()
    }
    save_file(named, file, metadata={"format": "pt"})


def _name_line_ends(file: Path) -> None:
    """vLLM looks Gemma's tokens for several line ends up by name, and fails where there are none.

    They take the names of bytes that no UTF-8 text holds, and no merge leads to them: nothing is
    tokenised otherwise than before.
    """
    tokenizer = json.loads(file.read_text(encoding="utf-8"))
    vocabulary: dict[str, int] = tokenizer["model"]["vocab"]
    free = [name for name in _NEVER_IN_UTF8 if name in vocabulary]
    for line_end in _LINE_ENDS:
        if line_end not in vocabulary:
            vocabulary[line_end] = vocabulary.pop(free.pop())
    tokenizer["model"]["vocab"] = dict(sorted(vocabulary.items(), key=lambda item: item[1]))
    file.write_text(json.dumps(tokenizer, ensure_ascii=False), encoding="utf-8")
