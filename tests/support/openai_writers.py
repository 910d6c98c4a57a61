"""What the OpenAI-compatible test server answers: a checkpoint's own words, or a script's."""

from __future__ import annotations

import base64
import io
import math
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from tests.support.openai_server import Body, TooLong, Written, WrittenToken
from worker.judge.local.loading import load
from worker.settings import JudgeSettings


class CheckpointWriter:
    """Answers with a checkpoint through ``generate``: nothing of the local judge is in its way."""

    def __init__(self, model: str = "tiny", *, max_context: int = 8192) -> None:
        self._checkpoint = load(JudgeSettings(model=model, dtype="float32", device="cpu"))
        self.tokenizer = self._checkpoint.tokenizer
        self._max_context = max_context
        self._lock = threading.Lock()

    def prompt(self, messages: Sequence[Body], kwargs: Mapping[str, Any]) -> list[int]:
        ids: list[int] = self._inputs(messages, kwargs)["input_ids"][0].tolist()
        return ids

    def write(self, body: Body) -> Written:
        with self._lock:
            return self._write(body)

    def _write(self, body: Body) -> Written:
        inputs = self._inputs(body["messages"], body.get("chat_template_kwargs") or {})
        length = inputs["input_ids"].shape[1]
        if length + 1 > self._max_context:
            raise TooLong
        bias = {(int(token),): value for token, value in (body.get("logit_bias") or {}).items()}
        with torch.inference_mode():
            out = self._checkpoint.model.generate(
                **inputs,
                max_new_tokens=min(body["max_tokens"], self._max_context - length),
                do_sample=False,
                sequence_bias=bias or None,
                output_logits=True,
                return_dict_in_generate=True,
            )
        ids = out.sequences[0, length:].tolist()
        tokens = tuple(
            self._token(token, torch.log_softmax(logits[0].float(), -1), body["top_logprobs"])
            for token, logits in zip(ids, out.logits, strict=True)
        )
        ended = ids[-1] in self._checkpoint.answer.stop
        return Written(
            tokens=tokens,
            content="".join(token.text for token in (tokens[:-1] if ended else tokens)),
            finish="stop" if ended else "length",
            prompt_tokens=length,
        )

    def _token(self, token: int, logprobs: torch.Tensor, count: int) -> WrittenToken:
        values, indexes = logprobs.topk(max(count, 1))
        listed = dict(zip(indexes.tolist(), values.tolist(), strict=True))
        listed[token] = float(logprobs[token])
        top = tuple((self.tokenizer.decode([each]), value) for each, value in listed.items())
        return WrittenToken(self.tokenizer.decode([token]), listed[token], top)

    def _inputs(self, messages: Sequence[Body], kwargs: Mapping[str, Any]) -> Any:
        return self._checkpoint.processor.apply_chat_template(
            [{"role": each["role"], "content": _content(each["content"])} for each in messages],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
            **kwargs,
        )


class ScriptWriter:
    """Answers what ``answer`` returns for a request: (token, probability, alternatives) in order.

    Its prompts are as long as everything that would stand in them, so that switches have an effect.
    ``like`` lends its tokenizer and template.
    """

    def __init__(
        self, answer: Callable[[Body], Written], like: CheckpointWriter | None = None
    ) -> None:
        self._answer, self._like = answer, like
        self.tokenizer = like.tokenizer if like is not None else None

    def write(self, body: Body) -> Written:
        written = self._answer(body)
        length = len(str(body["messages"])) + len(str(body.get("chat_template_kwargs")))
        return Written(written.tokens, written.content, written.finish, length, written.reasoning)

    def prompt(self, messages: Sequence[Body], kwargs: Mapping[str, Any]) -> list[int]:
        assert self._like is not None
        return self._like.prompt(messages, kwargs)


def token(
    text: str, probability: float = 0.99, others: Mapping[str, float] | None = None
) -> WrittenToken:
    """A token of a script; ``others`` are the alternatives at its place and what they have."""
    top = [(text, math.log(probability))]
    top += [(other, math.log(value)) for other, value in (others or {}).items()]
    return WrittenToken(text, math.log(probability), tuple(top))


def script(*tokens: WrittenToken, finish: str = "stop", reasoning: str | None = None) -> Written:
    """An answer of these tokens; an end of the turn is added unless it is there or cut off."""
    end = WrittenToken("<end_of_turn>", -0.01, (("<end_of_turn>", -0.01), (",", -5.0)))
    if tokens and tokens[-1].text == end.text:
        *tokens, end = tokens  # type: ignore[assignment]
    content = "".join(each.text for each in tokens)
    written = (*tokens, end) if finish == "stop" else tokens
    spelled = (WrittenToken(reasoning, -0.1, ()),) if reasoning else ()
    return Written((*spelled, *written), content, finish, reasoning=reasoning)


def _content(content: Any) -> Any:
    """The parts of a message as the processor takes them; images from data URIs."""
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    parts = []
    for part in content:
        if part["type"] == "text":
            parts.append(part)
            continue
        encoded = part["image_url"]["url"].removeprefix("data:image/png;base64,")
        picture = Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB")
        parts.append({"type": "image", "image": picture})
    return parts
