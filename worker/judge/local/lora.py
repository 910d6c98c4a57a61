"""LoRA adapters: read once, checked against the base, merged.

Digest and weights come from one read, so a verdict never names an adapter that did not judge it.
What an adapter lacks is refused with its name: one that loads by half gives the base's answers
under the adapter's name.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors

from worker.digests import files_digest, weighty_files
from worker.errors import ConfigurationError

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_KEY = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])(\.\w+)?\.weight$")
LARGEST_SCALE = 256.0
"""Of what an adapter adds: ``lora_alpha / r`` is 1 or 2 as a rule, and a typing error at 1e9."""
_NAMED = 3
"""Modules that a message names."""


@dataclasses.dataclass(frozen=True)
class Adapter:
    """An adapter as it was read: its directory's name, digest, settings and matrices."""

    name: str
    digest: str
    config: dict[str, Any]
    matrices: dict[str, dict[str, torch.Tensor]]
    """By module: ``A`` (rank, in) and ``B`` (out, rank)."""

    def scale(self, module: str) -> float:
        """What the product of a module's matrices is multiplied with."""
        rank = self.matrices[module]["A"].shape[0]
        alpha = _by_pattern(self.config.get("alpha_pattern"), module, self.config["lora_alpha"])
        return float(alpha / math.sqrt(rank) if self.config.get("use_rslora") else alpha / rank)


def read_adapter(directory: Path) -> Adapter:
    """Read an adapter that peft saved.

    Raises:
        ConfigurationError: it is not there, no plain LoRA, or its numbers make no sense.
    """
    name = directory.name
    try:
        files = weighty_files(directory)
    except OSError as error:
        raise ConfigurationError(
            f"adapter {name}: {directory} is missing or cannot be read; name a directory saved by "
            "peft"
        ) from error
    for file in (_CONFIG, _WEIGHTS):
        if file not in files:
            raise ConfigurationError(
                f"adapter {name}: {file} is missing; name a directory saved by peft"
            )
    try:
        config = json.loads(files[_CONFIG])
    except ValueError as error:
        raise ConfigurationError(
            f"adapter {name}: {_CONFIG} is no JSON; save the adapter again"
        ) from error
    _check_config(config, name)
    try:
        tensors = load_tensors(files[_WEIGHTS])
    except SafetensorError as error:
        raise ConfigurationError(
            f"adapter {name}: {_WEIGHTS} cannot be read ({error}); save the adapter again"
        ) from error
    matrices: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        match = _KEY.match(key)
        if match is None:
            raise ConfigurationError(
                f"adapter {name}: {key} is no LoRA matrix; only plain LoRA is merged"
            )
        if not bool(torch.isfinite(tensor).all()):
            raise ConfigurationError(
                f"adapter {name}: {match['module']} holds what is no number; train or save it again"
            )
        matrices.setdefault(match["module"], {})[match["half"]] = tensor
    return Adapter(name, files_digest(files), config, matrices)


def check_adapter(model: Any, adapter: Adapter, base_id: str) -> None:
    """Hold an adapter against the model it changes.

    Raises:
        ConfigurationError: it lacks modules, was made for another base, or changes nothing.
    """
    _same_base(adapter.config.get("base_model_name_or_path"), base_id, adapter.name)
    modules = dict(model.named_modules())
    for module, halves in adapter.matrices.items():
        for half, matrix in halves.items():
            _check_matrix(module, half, list(matrix.shape), modules, adapter.name)
    if missing := sorted(_missing(adapter, modules)):
        more = f" and {len(missing) - _NAMED} more" if len(missing) > _NAMED else ""
        raise ConfigurationError(
            f"adapter {adapter.name}: {', '.join(missing[:_NAMED])}{more} are missing in "
            f"{_WEIGHTS}, of what {_CONFIG} says it changes; save the whole adapter"
        )
    if not any(bool(halves["B"].any()) for halves in adapter.matrices.values()):
        raise ConfigurationError(
            f"adapter {adapter.name}: it changes nothing, every B is zero; name a trained one"
        )


def merge_adapter(model: Any, adapter: Adapter, base_id: str) -> Any:
    """The model with the adapter's update added to its weights, in place.

    Raises:
        ConfigurationError: as ``check_adapter``.
    """
    check_adapter(model, adapter, base_id)
    modules = dict(model.named_modules())
    with torch.no_grad():
        for module, halves in adapter.matrices.items():
            weight = modules[module].weight
            update = (halves["B"].float() @ halves["A"].float()) * adapter.scale(module)
            weight += update.to(weight)
    return model.eval()


def _check_config(config: Any, name: str) -> None:
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise ConfigurationError(f"adapter {name}: it is of type {kind}; only LoRA is read")
    for field, none in (("modules_to_save", None), ("use_dora", False), ("bias", "none"),
                        ("fan_in_fan_out", False), ("trainable_token_indices", None)):  # fmt: skip
        value = config.get(field)
        if value and value != none:
            raise ConfigurationError(
                f"adapter {name}: {field} is {value!r}; only plain LoRA is merged, train without it"
            )
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if rank is None or not _number(rank) or rank <= 0 or not _number(alpha):
        raise ConfigurationError(f"adapter {name}: r and lora_alpha have to be numbers, r above 0")
    alphas = [alpha, *(config.get("alpha_pattern") or {}).values()]
    ranks = [rank, *(config.get("rank_pattern") or {}).values()]
    scale = max(abs(each) for each in alphas) / min(ranks)
    if not scale <= LARGEST_SCALE:
        raise ConfigurationError(
            f"adapter {name}: lora_alpha {alpha} with r {rank} multiplies its update by {scale:g}; "
            f"more than {LARGEST_SCALE:g} is a mistake"
        )


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _missing(adapter: Adapter, modules: dict[str, Any]) -> Iterator[str]:
    """Matrices that the adapter's settings speak of and its weights lack."""
    fields = {field.name for field in dataclasses.fields(LoraConfig)}
    config = LoraConfig(**{k: v for k, v in adapter.config.items() if k in fields})
    changed = set(adapter.matrices)
    if isinstance(config.target_modules, str | set | list):
        changed |= {
            module
            for module, each in modules.items()
            if isinstance(each, torch.nn.Linear) and check_target_module_exists(config, module)
        }
    if not changed:
        yield "all modules"
    for module in changed:
        for half in ("A", "B"):
            if half not in adapter.matrices.get(module, {}):
                yield f"{module}.lora_{half}"


def _same_base(named: object, base_id: str, adapter: str) -> None:
    """Two hub ids that differ are two bases; a path says nothing about where it was made."""
    if not isinstance(named, str) or named.count("/") != 1 or base_id.count("/") != 1:
        return
    if named.startswith((".", "/", "~")) or base_id.startswith((".", "/", "~")):
        return
    if named != base_id:
        raise ConfigurationError(
            f"adapter {adapter}: it was made for {named}, the model is {base_id}; "
            "use the adapter's own base"
        )


def _check_matrix(
    module: str, half: str, shape: list[int], modules: dict[str, Any], adapter: str
) -> None:
    known = _shape(modules.get(module))
    if known is None:
        raise ConfigurationError(
            f"adapter {adapter}: the model has no module {module}; "
            "the adapter was made for another base"
        )
    axis, place = (1, 1) if half == "A" else (0, 0)
    if len(known) <= axis or len(shape) != 2 or shape[place] != known[axis]:
        raise ConfigurationError(
            f"adapter {adapter}: {module} is {known} in the model and "
            f"{shape} in the adapter; the adapter was made for another base"
        )


def _by_pattern(patterns: object, module: str, default: float) -> float:
    """peft's own rule: the first pattern that ends the module's name."""
    for pattern, value in (patterns if isinstance(patterns, dict) else {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return float(value)
    return float(default)


def _shape(module: Any) -> tuple[int, ...] | None:
    """(out, in) of what an adapter may change. The engine may have taken the weight of a linear
    layer over in eight bits and left it empty, so its own words count."""
    if isinstance(module, torch.nn.Linear):
        return module.out_features, module.in_features
    weight = getattr(module, "weight", None)
    return None if weight is None else tuple(weight.shape)
