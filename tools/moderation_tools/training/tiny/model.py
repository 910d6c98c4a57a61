"""The architecture: Gemma 3 with a SigLIP tower, small enough to learn on two CPU cores."""

from __future__ import annotations

import torch
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    GenerationConfig,
    SiglipVisionConfig,
)

from moderation_tools.training.tiny.start import start_heads
from moderation_tools.training.tiny.vocabulary import Vocabulary

IMAGE_SIZE = 64
PATCH_SIZE = 8
IMAGE_TOKENS = 16
LAYER_TYPES = ("sliding_attention", *["full_attention"] * 5)
SLIDING_WINDOW = 64


def model_config(vocabulary: Vocabulary) -> Gemma3Config:
    """Six layers, 128 wide; every width, the head size and the vocabulary divide by 16.

    The window of the sliding layer is short, so that ordinary prompts already reach past it.
    """
    ids = vocabulary.ids
    return Gemma3Config(
        text_config=Gemma3TextConfig(
            vocab_size=len(vocabulary.pieces),
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=len(LAYER_TYPES),
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=32,
            query_pre_attn_scalar=32,
            max_position_embeddings=8192,
            sliding_window=SLIDING_WINDOW,
            layer_types=list(LAYER_TYPES),
            pad_token_id=ids["<pad>"],
            eos_token_id=[ids["<eos>"], ids["<end_of_turn>"]],
            bos_token_id=ids["<bos>"],
        ),
        vision_config=SiglipVisionConfig(
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=3,
            num_attention_heads=2,
            image_size=IMAGE_SIZE,
            patch_size=PATCH_SIZE,
            vision_use_head=False,
        ),
        # Travels with every copy of the checkpoint: a worker on a real log refuses it.
        moderation_worker={"demonstration": True, "family": "tiny"},
        mm_tokens_per_image=IMAGE_TOKENS,
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
        image_token_index=ids["<image_soft_token>"],
        eos_token_id=[ids["<eos>"], ids["<end_of_turn>"]],
        bos_token_id=ids["<bos>"],
        pad_token_id=ids["<pad>"],
        dtype="float32",
    )


def new_model(vocabulary: Vocabulary, seed: int) -> Gemma3ForConditionalGeneration:
    """A fresh model whose heads start as what they are to become; see ``start.start_heads``."""
    torch.manual_seed(seed)
    config = model_config(vocabulary)
    model = Gemma3ForConditionalGeneration(config)
    start_heads(model.model.language_model)
    text = config.text_config
    model.generation_config = GenerationConfig(
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
        pad_token_id=text.pad_token_id,
        do_sample=False,
    )
    return model
