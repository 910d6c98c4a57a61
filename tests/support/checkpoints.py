"""Checkpoints made on the spot: Gemma 3 with SigLIP, random sharp weights, a few hundred kB.

They answer nothing sensible (seed 7 labels both ways, often undecidedly); they are for promises
about the machinery (equality, faults, limits).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3ImageProcessorPil,
    Gemma3Processor,
    PreTrainedTokenizerFast,
)

from worker.guard.nemotron35 import BUILTIN, reference_prompt

WINDOW = 384
"""Sliding window: the stock prompt without content is shorter, with a long text it is longer."""

IMAGE_TOKENS = 4
"""Soft tokens of one image: a square number, 16 at most."""

ADDED = (
    "<pad>",
    "<eos>",
    "<bos>",
    "<unk>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<start_of_image>",
    "<end_of_image>",
    "<image_soft_token>",
    "<unused0>",
    "<unused1>",
    "<unused17>",
    "[multimodal]",
    "\n\n",
)

CHAT_TEMPLATE = """\
{%- set taxonomy -%}
TAXONOMY_LINES
{%- endset -%}
{%- set ns = namespace(user='', image=false, response=none) -%}
{%- for message in messages -%}
  {%- if message.role == 'user' -%}
    {%- if message.content is string -%}
      {%- set ns.user = message.content -%}
    {%- else -%}
      {%- for part in message.content -%}
        {%- if part.type == 'image' -%}{%- set ns.image = true -%}
        {%- else -%}{%- set ns.user = ns.user + part.text -%}{%- endif -%}
      {%- endfor -%}
    {%- endif -%}
  {%- elif message.role == 'assistant' -%}
    {%- set ns.response = message.content -%}
  {%- endif -%}
{%- endfor -%}
{{- bos_token + '<start_of_turn>user\\n' -}}
{%- if custom_policy -%}{{- custom_policy -}}
{%- else -%}{{- INTRO -}}{{- custom_taxonomy if custom_taxonomy else taxonomy -}}{%- endif -%}
{{- '\\n<BEGIN CONVERSATION>\\nuser: ' -}}
{%- if ns.image -%}{{- '<start_of_image>' -}}{%- endif -%}
{{- ns.user | trim -}}
{%- if ns.response is not none -%}
{{- '\\nresponse: agent:  ### Answer: ' + (ns.response | trim) -}}
{%- endif -%}
{{- FORMAT_START -}}
{{- 'custom policy' if custom_policy else 'provided taxonomy' -}}
{{- FORMAT_END -}}
{{- request_categories | default('/no_categories') -}}
{{- ' /think' if enable_thinking else ' /no_think' -}}
{{- '\\nOutput:<end_of_turn>\\n<start_of_turn>model\\n' -}}
"""


def chat_template() -> str:
    """A template of the contract, cut from the known text so that the two cannot drift apart."""
    plain = reference_prompt("\0", None, bos="")
    opening, _, rest = plain.partition("\n<BEGIN CONVERSATION>\nuser: \0")
    intro, _, lines = opening.removeprefix("<start_of_turn>user\n").partition("S1: ")
    start, _, end = rest.partition("provided taxonomy")
    end = end.partition("/no_categories")[0]
    text = CHAT_TEMPLATE.replace("TAXONOMY_LINES", f"S1: {lines}")
    for name, value in (("INTRO", intro), ("FORMAT_START", start), ("FORMAT_END", end)):
        text = text.replace(name, json.dumps(value))
    return text


def make_tokenizer(normalizer: Any = None) -> PreTrainedTokenizerFast:
    """A byte-level BPE trained on the prompt's own text, with Gemma 3's added tokens."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(" ", "merged_with_next"),
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    if normalizer is not None:
        core.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=900,
        special_tokens=list(ADDED),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    lines = "User Safety: safe\nResponse Safety: unsafe\nSafety Categories: " + ", ".join(BUILTIN)
    corpus = [reference_prompt("hello there", "fine"), lines, lines.replace("unsafe", "safe")]
    core.train_from_iterator([*corpus * 4, "User Safety: unsafe\n"], trainer)
    core.add_special_tokens([AddedToken(token, normalized=bool(normalizer)) for token in ADDED[:9]])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="<eos>",
        bos_token="<bos>",
        unk_token="<unk>",
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
    )


def make_config(
    tokenizer: PreTrainedTokenizerFast,
    hidden: int = 64,
    window: int = WINDOW,
    image_tokens: int = IMAGE_TOKENS,
) -> Gemma3Config:
    """Three layers of Gemma 3 (sliding, sliding, full) and a two-layer SigLIP tower."""
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in ADDED}
    return Gemma3Config(
        text_config={
            "vocab_size": len(tokenizer) + (-len(tokenizer) % 16),
            "hidden_size": hidden,
            "intermediate_size": 2 * hidden,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": window,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            "max_position_embeddings": 4096,
            "pad_token_id": ids["<pad>"],
            "bos_token_id": ids["<bos>"],
            "eos_token_id": ids["<eos>"],
        },
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
            "vision_use_head": False,
        },
        mm_tokens_per_image=image_tokens,
        boi_token_index=ids["<start_of_image>"],
        eoi_token_index=ids["<end_of_image>"],
        image_token_index=ids["<image_soft_token>"],
        pad_token_id=ids["<pad>"],
        bos_token_id=ids["<bos>"],
        eos_token_id=ids["<eos>"],
        tie_word_embeddings=True,
    )


def make_model(
    config: Gemma3Config, seed: int = 0, logit_scale: float = 5.0
) -> Gemma3ForConditionalGeneration:
    """Random weights, sharp enough that a wrong mask moves the answer (logit scale about 5)."""
    torch.manual_seed(seed)
    model = Gemma3ForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and "embed" not in name:
                fan_in = parameter[0].numel()
                parameter.normal_(0.0, 1.5 / fan_in**0.5)
        embedding = model.get_input_embeddings().weight
        embedding.normal_(0.0, embedding.shape[1] ** -0.5)
        text = model.model.language_model
        text.norm.weight.fill_(logit_scale - 1.0)
        for layer in text.layers:  # what was attended to outweighs the token itself
            layer.post_attention_layernorm.weight.fill_(1.5)
            layer.self_attn.q_norm.weight.fill_(1.0)
        projection = model.model.multi_modal_projector.mm_input_projection_weight
        projection.normal_(0.0, 1.0)
    return model


def make_checkpoint(
    directory: Path,
    *,
    seed: int = 7,
    template: str | None = None,
    hidden: int = 64,
    window: int = WINDOW,
    image_tokens: int = IMAGE_TOKENS,
    adapters: Mapping[str, int] = {},
) -> Path:
    """A whole checkpoint directory; ``adapters`` are LoRA sub-directories by seed."""
    tokenizer = make_tokenizer()
    config = make_config(tokenizer, hidden, window, image_tokens)
    model = make_model(config, seed)
    ends = [tokenizer.convert_tokens_to_ids(token) for token in ("<eos>", "<end_of_turn>")]
    # Many more ends than a real model has, so that answers end by themselves and early.
    model.generation_config.eos_token_id = [*ends, *range(20, len(tokenizer), 3)]
    model.save_pretrained(directory)
    processor = Gemma3Processor(
        image_processor=Gemma3ImageProcessorPil(size={"height": 56, "width": 56}),
        tokenizer=tokenizer,
        chat_template=template or chat_template(),
        image_seq_length=image_tokens,
    )
    processor.save_pretrained(directory)
    for name, adapter_seed in adapters.items():
        make_adapter(model, directory / name, adapter_seed)
    return directory


def make_adapter(model: Any, directory: Path, seed: int, rank: int = 4) -> Path:
    """A LoRA adapter with weights that change answers, saved as peft does."""
    torch.manual_seed(seed)
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        target_modules=r".*language_model.*\.(q_proj|v_proj|o_proj|up_proj)",
    )
    wrapped = get_peft_model(model, config)
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_" in name:
                parameter.normal_(0.0, 0.15)
    wrapped.save_pretrained(directory)
    wrapped.unload()
    return directory


def stripping_normalizer() -> Any:
    """A tokenizer's normaliser that drops zero-width characters and unifies full-width forms."""
    return normalizers.Sequence([normalizers.NFKC(), normalizers.Replace("\u2060", "")])
