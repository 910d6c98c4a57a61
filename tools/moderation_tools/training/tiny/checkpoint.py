"""The checkpoint as a directory: processor, chat template, base weights and LoRA adapter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import (
    AutoProcessor,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    PreTrainedTokenizerFast,
)

from moderation_tools.training.tiny.model import IMAGE_SIZE, IMAGE_TOKENS

ADAPTER = "adapter"


def new_processor(tokenizer: PreTrainedTokenizerFast) -> Gemma3Processor:
    """The processor of the checkpoint: any RGB image is squeezed to the tower's square."""
    return Gemma3Processor(
        image_processor=image_processor(),
        tokenizer=tokenizer,
        chat_template=Path(__file__).with_name("chat_template.jinja").read_text(encoding="utf-8"),
        image_seq_length=IMAGE_TOKENS,
    )


def image_processor() -> Gemma3ImageProcessorPil:
    """Resizes to the tower's size and scales values to -1..1."""
    return Gemma3ImageProcessorPil(size={"height": IMAGE_SIZE, "width": IMAGE_SIZE})


def save_base(
    model: Gemma3ForConditionalGeneration, processor: Gemma3Processor, directory: Path
) -> None:
    """Write the base checkpoint; weights are stored as bfloat16 and loaded as
    float32; the output layer is tied to the embedding and not stored."""
    directory.mkdir(parents=True, exist_ok=True)
    model.config.dtype = torch.float32
    state = {
        name: tensor.to(torch.bfloat16)
        for name, tensor in model.state_dict().items()
        if name != "lm_head.weight"
    }
    model.save_pretrained(directory, state_dict=state)
    processor.save_pretrained(directory)


def save_adapter(adapter: PeftModel, directory: Path) -> None:
    """Write the LoRA adapter below ``directory``, without the empty model card peft adds."""
    adapter.save_pretrained(directory / ADAPTER)
    (directory / ADAPTER / "README.md").unlink(missing_ok=True)


def load(directory: Path, *, adapter: bool = True) -> tuple[Gemma3ForConditionalGeneration, Any]:
    """The model ready to serve (adapter merged unless ``adapter`` is false) and its processor."""
    processor = AutoProcessor.from_pretrained(directory)
    model = Gemma3ForConditionalGeneration.from_pretrained(directory)
    if adapter:
        model = PeftModel.from_pretrained(model, directory / ADAPTER).merge_and_unload()
    return model.eval(), processor
