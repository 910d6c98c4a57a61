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

from worker.training.tiny.vocabulary import Vocabulary

IMAGE_SIZE = 64
PATCH_SIZE = 8
IMAGE_TOKENS = 16
LAYER_TYPES = (
    "sliding_attention",
    "full_attention",
    "full_attention",
    "full_attention",
)
SLIDING_WINDOW = 64
_QUIET = -0.6


def model_config(vocabulary: Vocabulary) -> Gemma3Config:
    """Four layers, 128 wide; every width, the head size and the vocabulary divide by 16.

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
            num_key_value_heads=2,
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
    """A fresh model whose key projections start as copies of query projections.

    A head that starts so attends from a word to the same word: the in-context rules ("is this word
    in the policy?") are learnt in minutes instead of hours. The layers start quiet, so that the
    word itself is still there to be matched in the later ones.
    """
    torch.manual_seed(seed)
    config = model_config(vocabulary)
    model = Gemma3ForConditionalGeneration(config)
    text = config.text_config
    layers = model.model.language_model.layers
    group = text.num_attention_heads // text.num_key_value_heads
    with torch.no_grad():
        for layer in layers:
            layer.post_attention_layernorm.weight.fill_(_QUIET)
            layer.post_feedforward_layernorm.weight.fill_(_QUIET)
            attention = layer.self_attn
            for projection in (attention.q_proj, attention.k_proj, attention.v_proj):
                projection.weight.normal_(0.0, text.hidden_size**-0.5)
            attention.o_proj.weight.normal_(0.0, 0.5 * text.hidden_size**-0.5)
            layer.mlp.gate_proj.weight.normal_(0.0, text.hidden_size**-0.5)
            layer.mlp.up_proj.weight.normal_(0.0, text.hidden_size**-0.5)
            layer.mlp.down_proj.weight.normal_(0.0, 0.5 * text.intermediate_size**-0.5)
            for head in range(text.num_key_value_heads):
                keys = slice(head * text.head_dim, (head + 1) * text.head_dim)
                queries = slice(head * group * text.head_dim, (head * group + 1) * text.head_dim)
                attention.k_proj.weight[keys] = attention.q_proj.weight[queries]
    model.generation_config = GenerationConfig(
        bos_token_id=text.bos_token_id,
        eos_token_id=text.eos_token_id,
        pad_token_id=text.pad_token_id,
        do_sample=False,
    )
    return model
