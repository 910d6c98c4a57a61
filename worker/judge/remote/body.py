"""The body of a chat completion request that asks for a verdict.

An image stands in front of its text, as model cards have it; ``chat_template_kwargs`` is how vLLM,
SGLang and NIM hand switches to a chat template.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

import msgspec
from PIL import Image

from worker.guard.base import Conversation
from worker.images import JudgeImage


def messages(conversation: Conversation, image: JudgeImage | None) -> list[dict[str, object]]:
    """A conversation as the API takes it; blocking where there is an image."""
    found: list[dict[str, object]] = [
        {"role": role, "content": text} for role, text in conversation.turns
    ]
    if image is not None:
        last = next(each for each in reversed(found) if each["role"] == "user")
        url = {"url": data_uri(image)}
        last["content"] = [
            {"type": "image_url", "image_url": url},
            {"type": "text", "text": last["content"]},
        ]
    return found


def data_uri(image: JudgeImage) -> str:
    """The decoded pixels as a PNG, so that the server sees exactly what was decoded here."""
    picture = Image.frombytes("RGB", (image.width, image.height), image.rgb)
    encoded = io.BytesIO()
    picture.save(encoded, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation as it is put to the server, any number of times.

    ``messages`` are encoded once: an image is megabytes. ``budget`` is in tokens.
    """

    model: str
    messages: msgspec.Raw
    kwargs: dict[str, object]
    budget: int
    top_logprobs: int

    def body(self, bias: Mapping[int, float] = {}) -> bytes:
        """JSON; ``bias`` adds to the logits of tokens, by id."""
        fields: dict[str, object] = {
            "model": self.model,
            "messages": self.messages,
            "chat_template_kwargs": self.kwargs,
            "max_tokens": self.budget,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": self.top_logprobs,
            "stream": False,
        }
        if bias:
            fields["logit_bias"] = {str(token): value for token, value in bias.items()}
        return msgspec.json.encode(fields)
