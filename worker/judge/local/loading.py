"""Loading a checkpoint: where it lies, whether it can judge, and what verdicts call it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoProcessor, Gemma3Config, Gemma3ForConditionalGeneration
from transformers.utils import logging as transformers_logging

from worker.contracts.verdict import ModelRef
from worker.digests import directory_digest
from worker.errors import ConfigurationError
from worker.guard.template import check_template
from worker.judge.engine.backends import choose
from worker.judge.identity import DEMONSTRATION, marked, template_digest
from worker.judge.local.label_scores import AnswerTokens, answer_tokens
from worker.judge.local.lora import Adapter, merge_adapter, read_adapter
from worker.judge.local.memory import fit
from worker.settings import JudgeSettings

logger = logging.getLogger(__name__)

PINNED_REVISIONS = {
    "nvidia/Nemotron-3.5-Content-Safety": "35645ed3543b7e7ffaed2e788699e57a5051497c",
}
"""Hub repositories whose behaviour is known at one commit."""

OWN_ADAPTER = "adapter"
"""Sub-directory of a checkpoint whose LoRA adapter belongs to it, unless settings name another."""

_TOKENIZER_FILES = ("tokenizer.json",)
_LONG_TEXT = 4_096
"""Characters that are tokenised in a few milliseconds."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Source:
    """A resolved checkpoint. ``directory`` is None for a hub repository."""

    id: str
    location: str
    directory: Path | None
    revision: str | None
    adapter: Path | None


@dataclass
class Checkpoint:
    """Everything that is read from a checkpoint, with its model merged and on its device.

    ``differences`` is the unified diff of its chat template from the known text, empty if none;
    ``matrices`` the numerics that the text model's matrices are to be multiplied in.
    """

    source: Source
    model: Any
    processor: Any
    tokenizer: Any
    template: str
    answer: AnswerTokens
    ref: ModelRef
    max_context: int
    differences: str = ""
    matrices: str = "model"

    def render(self, user: object, response: str | None = None, **kwargs: object) -> str:
        """The prompt as the checkpoint's own chat template renders it (see ``template.Render``)."""
        return render(self.tokenizer, self.template, user, response, **kwargs)


def resolve(settings: JudgeSettings) -> Source:
    """Where the model of these settings lies; reads nothing but directory entries.

    Raises:
        ConfigurationError: the bundled checkpoint or a named directory is not there.
    """
    if settings.model == "tiny":
        # Imported here: the bundled checkpoint is an optional part of an installation.
        from worker.checkpoints import TINY

        directory, name = Path(TINY), "tiny"
    else:
        directory, name = Path(settings.model), Path(settings.model).name
        looks_local = directory.is_absolute() or settings.model.startswith((".", "~"))
        if not directory.expanduser().is_dir() and not looks_local:
            revision = settings.revision or PINNED_REVISIONS.get(settings.model)
            return Source(settings.model, settings.model, None, revision, settings.adapter)
        directory = directory.expanduser()
    if not directory.is_dir():
        raise ConfigurationError(f"judge.model: {directory} is no directory; name a checkpoint")
    if settings.revision is not None:
        raise ConfigurationError(
            f"judge.revision: {settings.model} is no hub repository and has no commits; leave it "
            "out, verdicts name the digest of its files"
        )
    for file in ("config.json", *_TOKENIZER_FILES):
        if not (directory / file).is_file():
            raise ConfigurationError(
                f"judge.model: {file} is missing in {directory}; name a complete checkpoint"
            )
    if not any(directory.glob("*.safetensors")):
        raise ConfigurationError(
            f"judge.model: no *.safetensors in {directory}; name a complete checkpoint"
        )
    own = directory / OWN_ADAPTER
    adapter = settings.adapter or (own if own.is_dir() else None)
    return Source(name, str(directory), directory, None, adapter)


def fit_device(settings: JudgeSettings) -> JudgeSettings:
    """The settings as this machine's device can hold them, before any weights are read.

    Raises:
        ConfigurationError: it cannot, whatever is lowered; or the checkpoint cannot be read.
    """
    device = choose_device(settings.device)
    config = _read(resolve(settings), Gemma3Config)
    return fit(settings, config, device, choose_dtype(settings.dtype, device))


def load(settings: JudgeSettings) -> Checkpoint:
    """Load, check and identify the checkpoint; blocking, seconds to minutes.

    Raises:
        ConfigurationError: it cannot be read, is no Gemma 3, its adapter does not fit, or its
            template or tokenizer lacks what the judge relies on.
    """
    source = resolve(settings)
    transformers_logging.disable_progress_bar()
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    config = _read(source, Gemma3Config)
    processor, tokenizer, template = read_words(source)

    def rendered(user: str, response: str | None, **kwargs: object) -> str:
        return render(tokenizer, template, user, response, **kwargs)

    differences = check_template(rendered, tokenizer.bos_token or "")
    if differences:
        logger.warning("the chat template differs from the known one:\n%s", differences)
    answer = answer_tokens(encoder(tokenizer), ())
    own = read_adapter(source.adapter) if source.adapter else None
    model = load_model(source, own, device, dtype, settings.numerics)
    answer = answer._replace(stop=_stop_ids(model, tokenizer))
    revision = source.revision or getattr(config, "_commit_hash", None) or ""
    if source.directory is not None:
        revision = directory_digest(source.directory)
    mark = marked(config)
    name = source.id
    if mark.demonstration:
        name = f"{DEMONSTRATION}{mark.family or Path(source.id).name}"
    return Checkpoint(
        source=source,
        model=model,
        processor=processor,
        tokenizer=tokenizer,
        template=template,
        answer=answer,
        ref=ModelRef(
            id=name,
            revision=revision,
            adapter=f"sha256:{own.digest}" if own else None,
            template_sha256=template_digest(template),
            numerics=numerics(model, settings.numerics, attention_of(model, settings)),
        ),
        max_context=min(settings.max_context, config.text_config.max_position_embeddings),
        differences=differences,
        matrices=settings.numerics,
    )


def read_config(source: Source) -> Any:
    """The checkpoint's ``Gemma3Config``; that of a hub repository from the local cache.

    Raises:
        ConfigurationError: it is not there, or of another kind of model.
    """
    return _read(source, Gemma3Config, local_files_only=source.directory is None)


def read_words(source: Source, *, local: bool = False) -> tuple[Any, Any, str]:
    """The checkpoint's processor, its tokenizer and its chat template; ``local`` asks no hub.

    Raises:
        ConfigurationError: one of them is not there.
    """
    processor = _read(source, AutoProcessor, local_files_only=local)
    tokenizer = processor.tokenizer
    template = getattr(processor, "chat_template", None) or tokenizer.chat_template
    if not isinstance(template, str):
        raise ConfigurationError(
            "judge.model: chat_template.jinja is missing; use the checkpoint's own template"
        )
    return processor, tokenizer, template


def load_model(
    source: Source,
    adapter: Adapter | None,
    device: torch.device,
    dtype: Any,
    matrices: str = "model",
) -> Any:
    """The weights, on the device, with the adapter merged into them."""
    model, info = _read(
        source, Gemma3ForConditionalGeneration, dtype=dtype, output_loading_info=True
    )
    absent = sorted(str(key) for key in (*info["missing_keys"], *info["mismatched_keys"]))
    if absent:
        raise ConfigurationError(
            f"judge.model: {len(absent)} weights of {source.id} are missing or of another shape, "
            f"first {absent[0]}; name a complete checkpoint"
        )
    if adapter is not None:
        model = merge_adapter(model, adapter, source.location)
    return placed(model, device, matrices).eval()


def placed(model: Any, device: torch.device, matrices: str) -> Any:
    """The model on its device. Matrices that will be held in eight bits stay behind and follow one
    by one as they are made: a card that they fit may not hold them as they were loaded."""
    if matrices == "model":
        return model.to(device)
    layers = model.model.language_model.layers
    linears = [each for each in layers.modules() if isinstance(each, torch.nn.Linear)]
    weights = [linear.weight for linear in linears]
    for linear in linears:
        linear.weight = torch.nn.Parameter(linear.weight.new_empty(0), requires_grad=False)
    model = model.to(device)
    for linear, weight in zip(linears, weights, strict=True):
        linear.weight = weight
    return model


def render(
    tokenizer: Any, template: str, user: object, response: str | None, **kwargs: object
) -> str:
    """One user message (text, or a list with an image first), an optional assistant message."""
    messages: list[dict[str, object]] = [{"role": "user", "content": user}]
    if response is not None:
        messages.append({"role": "assistant", "content": response})
    text: str = tokenizer.apply_chat_template(
        messages, chat_template=template, tokenize=False, add_generation_prompt=True, **kwargs
    )
    return text


def encoder(tokenizer: Any) -> Any:
    """Text to token ids, adding nothing the text does not spell. Safe from several threads.

    A long text is a batch of one: ``encode`` holds the interpreter while it works, that does not.
    """
    core = tokenizer.backend_tokenizer
    core.no_padding()
    core.no_truncation()

    def encode(text: str) -> list[int]:
        if len(text) < _LONG_TEXT:
            short: list[int] = core.encode(text, add_special_tokens=False).ids
            return short
        ids: list[int] = core.encode_batch_fast([text], add_special_tokens=False)[0].ids
        return ids

    return encode


def numerics(model: Any, matrices: str, attention: str) -> str:
    """Number format, kind of device and attention, as verdicts name them; ``matrices`` where the
    engine multiplies in another format."""
    named = f"{str(model.dtype).removeprefix('torch.')}/{model.device.type}/{attention}"
    return named if matrices == "model" else f"{named}/{matrices}"


def attention_of(model: Any, settings: JudgeSettings) -> str:
    """What computes attention: the engine's backend, or what transformers took."""
    if settings.engine == "packed":
        return choose(settings.attention, model.device)
    taken: str = model.config.get_text_config()._attn_implementation
    return taken


def choose_device(name: str) -> torch.device:
    """The device of ``judge.device``; ``auto`` is the first GPU, else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigurationError(f"judge.device: {name!r} is no device; use auto or cpu") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("judge.device: no CUDA device is visible; use auto or cpu")
    return device


def choose_dtype(name: str, device: torch.device) -> Any:
    """The number format of ``judge.dtype`` on a device."""
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    return _DTYPES[name]


def _stop_ids(model: Any, tokenizer: Any) -> frozenset[int]:
    ends = model.generation_config.eos_token_id
    ids = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
    turn = tokenizer.convert_tokens_to_ids("<end_of_turn>")
    return frozenset(token for token in (*ids, turn) if token is not None)


def _read(source: Source, kind: Any, **kwargs: object) -> Any:
    """``from_pretrained`` with its many errors turned into one that says what to do."""
    revision = {"revision": source.revision} if source.revision else {}
    try:
        loaded = kind.from_pretrained(source.location, **revision, **kwargs)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigurationError(
            f"judge.model: {source.id} cannot be read as {kind.__name__}: {first}; "
            "name a directory with a complete Gemma 3 checkpoint and its processor, or a hub id "
            "that this machine can reach"
        ) from error
    if kind is Gemma3Config and getattr(loaded, "model_type", "") != "gemma3":
        raise ConfigurationError(
            f"judge.model: {source.id} is of type {loaded.model_type}; only Gemma 3 is judged with"
        )
    return loaded
