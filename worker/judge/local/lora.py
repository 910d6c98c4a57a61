"""LoRA adapters: checked against the base before they are applied, merged where they are fixed."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from safetensors import safe_open

from worker.errors import ConfigurationError

_KEY = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<half>[AB])(\.\w+)?\.weight$")


def merge_adapter(model: Any, directory: Path, base_id: str) -> Any:
    """The model with the adapter's update added to its weights (own copy of nothing: in place).

    Raises:
        ConfigurationError: the adapter is incomplete, no LoRA, or was made for another base.
    """
    check_adapter(model, directory, base_id)
    merged = PeftModel.from_pretrained(model, directory, is_trainable=False).merge_and_unload(
        safe_merge=True
    )
    return merged.eval()


def check_adapter(model: Any, directory: Path, base_id: str) -> None:
    """Hold every matrix of the adapter against the module it changes.

    Raises:
        ConfigurationError: as ``merge_adapter``; the message names the first module that differs.
    """
    settings, weights = directory / "adapter_config.json", directory / "adapter_model.safetensors"
    for file in (settings, weights):
        if not file.is_file():
            raise ConfigurationError(
                f"adapter {directory.name}: {file.name} is missing; name a directory saved by peft"
            )
    try:
        config = json.loads(settings.read_text())
    except ValueError as error:
        raise ConfigurationError(
            f"adapter {directory.name}: {settings.name} is no JSON; save the adapter again"
        ) from error
    if config.get("peft_type") != "LORA":
        raise ConfigurationError(
            f"adapter {directory.name}: it is of type {config.get('peft_type')}; only LoRA is read"
        )
    _same_base(config.get("base_model_name_or_path"), base_id, directory.name)
    modules = dict(model.named_modules())
    with safe_open(weights, "pt") as stored:
        for key in stored.keys():  # noqa: SIM118 - not a dictionary
            _check_matrix(key, stored.get_slice(key).get_shape(), modules, directory.name)


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


def _check_matrix(key: str, shape: list[int], modules: dict[str, Any], adapter: str) -> None:
    match = _KEY.match(key)
    if match is None:
        raise ConfigurationError(
            f"adapter {adapter}: {key} is no LoRA matrix; only plain LoRA is merged"
        )
    known = _shape(modules.get(match["module"]))
    if known is None:
        raise ConfigurationError(
            f"adapter {adapter}: the model has no module {match['module']}; "
            "the adapter was made for another base"
        )
    axis, place = (1, 1) if match["half"] == "A" else (0, 0)
    if len(known) <= axis or shape[place] != known[axis]:
        raise ConfigurationError(
            f"adapter {adapter}: {match['module']} is {known} in the model and "
            f"{shape[place]} wide in the adapter; the adapter was made for another base"
        )


def _shape(module: Any) -> tuple[int, ...] | None:
    """(out, in) of what an adapter may change. The engine may have taken the weight of a linear
    layer over in eight bits and left it empty, so its own words count."""
    if isinstance(module, torch.nn.Linear):
        return module.out_features, module.in_features
    weight = getattr(module, "weight", None)
    return None if weight is None else tuple(weight.shape)
