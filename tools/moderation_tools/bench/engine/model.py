"""Models of Gemma 3's true shape with random weights, made on the device they run on.

Random weights are fair for speed: a dense model does the same work whatever it has learnt. Only the
length of texts would differ, so the bench fixes it.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from worker.judge.engine.shapes import config_4b


def config_75m() -> Any:
    """About 75 M parameters in the text model: 12 layers in the true pattern (five sliding, one
    full), 640 wide. The tower takes 1.8 times the work of an image event's tokens, as the true one.
    """
    text = {
        "vocab_size": 29_696,
        "hidden_size": 640,
        "intermediate_size": 2048,
        "num_hidden_layers": 12,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "query_pre_attn_scalar": 128,
        "sliding_window": 512,
        "max_position_embeddings": 8192,
    }
    vision = {
        "hidden_size": 384,
        "intermediate_size": 1440,
        "num_hidden_layers": 19,
        "num_attention_heads": 6,
        "image_size": 448,
        "patch_size": 14,
        "vision_use_head": False,
    }
    return Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=256, image_token_index=4
    )


def config_small() -> Any:
    """Two layers, 32 wide, over texts as long as the others': all but the matrix products."""
    text = {
        "vocab_size": 4096,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"],
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "sliding_window": 512,
        "max_position_embeddings": 8192,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "image_size": 224,
        "patch_size": 14,
        "vision_use_head": False,
    }
    return Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=256, image_token_index=4
    )


CONFIGS = {"75m": config_75m, "4b": config_4b, "small": config_small}


def random_model(shape: str, device: torch.device, dtype: torch.dtype, seed: int = 0) -> Any:
    """A Gemma3ForConditionalGeneration of a shape of ``CONFIGS`` with seeded random weights."""
    torch.manual_seed(seed)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = Gemma3ForConditionalGeneration(CONFIGS[shape]())
    finally:
        torch.set_default_dtype(before)
    return model.eval()
