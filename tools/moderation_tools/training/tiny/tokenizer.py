"""The tokenizer: whole words where they are known, characters and bytes where they are not.

No piece crosses a line end except the template's own constants, and a word carries the blank in
front of it; so the prompt's constant text, the event's text and the answer can be tokenised apart
at ``user:``, at the end of the text and after ``model`` + line end, with the same tokens.
"""

from __future__ import annotations

import re

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from moderation_tools.training.tiny.constants import constant_pieces
from moderation_tools.training.tiny.vocabulary import SPECIAL, unsegmented_words, vocabulary
from worker.guard.nemotron35 import BUILTIN

_SINGLE = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Hangul}ー]"
_NO_LETTER_AFTER = r"(?![\p{L}\p{M}\p{N}])"


def split_pattern() -> str:
    """The pre-tokeniser's regular expression (Oniguruma): every match is one piece."""
    constants = sorted(constant_pieces(), key=len, reverse=True)
    names = sorted((name for name in BUILTIN if not name.isalpha()), key=len, reverse=True)
    return "|".join(
        [
            *(_quote(piece) + (_NO_LETTER_AFTER if piece[-1].isalpha() else "")
              for piece in constants),
            " ?(?:" + "|".join(
                _quote(name) + (_NO_LETTER_AFTER if name[-1].isalpha() else "") for name in names
            ) + ")",
            " ?(?:" + "|".join(_quote(word) for word in unsegmented_words()) + ")",
            f" ?{_SINGLE}",
            rf" ?(?:(?!{_SINGLE})[\p{{L}}\p{{M}}])+",
            r" ?\p{N}",
            r" ?[^\s\p{L}\p{M}\p{N}]",
            r"\s",
        ]
    )  # fmt: skip


def build_tokenizer() -> PreTrainedTokenizerFast:
    """The tokenizer of the checkpoint; decoding is lossless for any Unicode text."""
    pieces = vocabulary().pieces
    core = Tokenizer(
        models.BPE(
            vocab={piece: index for index, piece in enumerate(pieces)},
            merges=[],
            unk_token="<unk>",  # noqa: S106
            byte_fallback=True,
            ignore_merges=True,
        )
    )
    core.pre_tokenizer = pre_tokenizers.Split(Regex(split_pattern()), behavior="isolated")
    core.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    core.add_special_tokens([AddedToken(piece, normalized=False) for piece in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",  # noqa: S106
        eos_token="<eos>",  # noqa: S106
        bos_token="<bos>",  # noqa: S106
        unk_token="<unk>",  # noqa: S106
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=8192,
        extra_special_tokens={
            "boi_token": "<start_of_image>",
            "eoi_token": "<end_of_image>",
            "image_token": "<image_soft_token>",
        },
    )


def _quote(text: str) -> str:
    return re.escape(text).replace("\\\n", "\\n").replace("\n", "\\n")
