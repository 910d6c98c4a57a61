"""Shapes of models that are known without their files."""

from __future__ import annotations

from transformers import Gemma3Config, Gemma3TextConfig, SiglipVisionConfig

LAYERS_4B = 34
PATTERN = 6
"""Every sixth layer of Gemma 3 attends to everything, the others to their window."""


def config_4b() -> Gemma3Config:
    """Gemma 3 4B with its SigLIP tower, the shape of Nemotron 3.5 Content Safety.

    4,300,079,472 parameters. Source: google/gemma_pytorch and the published ``config.json``.
    """
    full, sliding = "full_attention", "sliding_attention"
    text = Gemma3TextConfig(
        vocab_size=262_208,
        hidden_size=2560,
        intermediate_size=10_240,
        num_hidden_layers=LAYERS_4B,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=256,
        query_pre_attn_scalar=256,
        sliding_window=1024,
        max_position_embeddings=131_072,
        rms_norm_eps=1e-6,
        tie_word_embeddings=True,
        layer_types=[sliding if (number + 1) % PATTERN else full for number in range(LAYERS_4B)],
        rope_parameters={
            full: {"rope_type": "linear", "factor": 8.0, "rope_theta": 1_000_000.0},
            sliding: {"rope_type": "default", "rope_theta": 10_000.0},
        },
    )
    vision = SiglipVisionConfig(
        hidden_size=1152,
        intermediate_size=4304,
        num_hidden_layers=27,
        num_attention_heads=16,
        image_size=896,
        patch_size=14,
        vision_use_head=False,
    )
    return Gemma3Config(
        text_config=text, vision_config=vision, mm_tokens_per_image=256, tie_word_embeddings=True
    )
