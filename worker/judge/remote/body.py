"""The body of a chat completion request that asks for a verdict.

Source of the keyword arguments and of the order (image, then text): the model's chat template and
its model card; ``chat_template_kwargs`` is how vLLM, SGLang and NIM hand them to the template.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping

import msgspec
from PIL import Image

from worker.guard.template import CATEGORIES_SWITCH
from worker.images import JudgeImage
from worker.judge.remote.prepare import Prepared
from worker.judgement import Rubric

ANSWER_TOKENS = 96
"""Room for the labels and the category line, as the local judge has it."""
POLICY_ANSWER_TOKENS = 176
"""The same under a free policy, whose categories are whole sentences."""


def answer_budget(rubric: Rubric) -> int:
    """Tokens that a whole answer may take under a rubric."""
    return POLICY_ANSWER_TOKENS if rubric.mode == "policy" else ANSWER_TOKENS


def messages(prepared: Prepared, *, earlier: bool = True) -> list[dict[str, object]]:
    """The conversation to judge; blocking where there is an image.

    ``earlier`` says whether the earlier turns are folded in.
    """
    text = prepared.user if earlier else prepared.alone
    content: object = text
    if prepared.image is not None:
        url = {"url": data_uri(prepared.image)}
        content = [{"type": "image_url", "image_url": url}, {"type": "text", "text": text}]
    found: list[dict[str, object]] = [{"role": "user", "content": content}]
    if prepared.response is not None:
        found.append({"role": "assistant", "content": prepared.response})
    return found


def data_uri(image: JudgeImage) -> str:
    """The decoded pixels as a PNG, so that the server sees exactly what was decoded here."""
    picture = Image.frombytes("RGB", (image.width, image.height), image.rgb)
    encoded = io.BytesIO()
    picture.save(encoded, "PNG", compress_level=1)
    return "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode("ascii")


def template_kwargs(
    rubric: Rubric, *, think: bool, further: Mapping[str, object]
) -> dict[str, object]:
    """The template's switches for a rubric; ``further`` are the operator's own."""
    kwargs: dict[str, object] = {
        **further,
        "enable_thinking": think,
        "request_categories": CATEGORIES_SWITCH,
    }
    if rubric.mode == "policy":
        kwargs["custom_policy"] = rubric.text
    elif rubric.text is not None:
        kwargs["custom_taxonomy"] = rubric.text
    return kwargs


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
