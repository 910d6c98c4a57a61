"""A bench model as a checkpoint that another server can serve: its text part, with a tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders
from tokenizers.models import WordLevel
from transformers import Gemma3ForCausalLM, PreTrainedTokenizerFast

SPECIAL = {"pad_token": "w0", "eos_token": "w1", "bos_token": "w2", "unk_token": "w3"}


def save(model: Any, directory: Path) -> None:
    """Write the text model as Gemma3ForCausalLM; prompts are sent as token ids."""
    text = Gemma3ForCausalLM(model.config.text_config).to(model.dtype)
    text.model.load_state_dict(model.model.language_model.state_dict())
    text.tie_weights()
    text.save_pretrained(directory)
    words = {f"w{number}": number for number in range(model.config.text_config.vocab_size)}
    tokenizer = Tokenizer(WordLevel(words, SPECIAL["unk_token"]))
    tokenizer.decoder = decoders.WordPiece()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **SPECIAL).save_pretrained(directory)
