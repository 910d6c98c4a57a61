"""A checkpoint is loaded whole and identified, or refused with what to do."""

from __future__ import annotations

import copy as copy_module
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.checkpoints import (
    chat_template,
    make_adapter,
    make_checkpoint,
    make_config,
    make_model,
    make_tokenizer,
)
from worker.errors import ConfigurationError, DependencyUnavailable
from worker.judge.local.judge import LocalJudge
from worker.judge.local.label_scores import answer_tokens
from worker.judge.local.loading import PINNED_REVISIONS, choose_device, encoder, load, resolve
from worker.judgement import JudgeRequest
from worker.policy.passes import builtin_rubric
from worker.settings import JudgeSettings


def settings(directory: Path, **fields: object) -> JudgeSettings:
    return JudgeSettings(**({"model": str(directory)} | fields))


@pytest.fixture
def copy(checkpoint: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def refused(settings: JudgeSettings) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(settings)
    return str(caught.value)


def test_a_verdict_names_checkpoint_adapter_template_and_numbers(checkpoint: Path) -> None:
    ref = load(settings(checkpoint)).ref
    assert ref.id == checkpoint.name
    assert len(ref.revision) == 64
    assert ref.adapter is not None
    assert ref.adapter.startswith("sha256:")
    assert ref.numerics == "float32/cpu/cpu"


def test_identity_follows_the_bytes(copy: Path) -> None:
    """Another weight, another adapter, another template: each moves its own digest only."""
    before = load(settings(copy)).ref
    make_adapter(make_model(make_config(make_tokenizer())), copy / "adapter", seed=9)
    other = load(settings(copy)).ref
    assert (other.revision, other.template_sha256) == (before.revision, before.template_sha256)
    assert other.adapter != before.adapter
    template = copy / "chat_template.jinja"
    template.write_text(template.read_text() + "{# changed #}")
    changed = load(settings(copy)).ref
    assert changed.template_sha256 != other.template_sha256
    assert changed.revision != other.revision


def test_the_published_model_is_pinned_to_its_known_revision() -> None:
    name = "nvidia/Nemotron-3.5-Content-Safety"
    assert resolve(JudgeSettings(model=name)).revision == PINNED_REVISIONS[name]
    assert resolve(JudgeSettings(model=name, revision="main")).revision == "main"


def test_a_revision_of_a_directory_is_refused(checkpoint: Path) -> None:
    """It would not count: the files are what they are, and their digest is in every verdict."""
    for model in (str(checkpoint), "tiny"):
        assert "judge.revision" in refused(JudgeSettings(model=model, revision="main"))


def test_a_missing_directory_is_refused(tmp_path: Path) -> None:
    assert "no directory" in refused(settings(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "file", ["config.json", "tokenizer.json", "model.safetensors", "chat_template.jinja"]
)
def test_an_incomplete_checkpoint_is_refused_by_the_missing_file(copy: Path, file: str) -> None:
    (copy / file).unlink()
    assert file.removeprefix("model") in refused(settings(copy))


def test_truncated_weights_are_refused(copy: Path) -> None:
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    assert "cannot be read" in refused(settings(copy))


def test_weights_that_are_not_all_there_are_refused(copy: Path) -> None:
    """What a checkpoint lacks must not be made up at random."""
    tensors = load_file(copy / "model.safetensors")
    del tensors[next(key for key in tensors if key.endswith("layers.1.mlp.up_proj.weight"))]
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    assert "up_proj" in refused(settings(copy))


def test_a_model_that_is_not_gemma_3_is_refused(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    config["model_type"] = "llama"
    (copy / "config.json").write_text(json.dumps(config))
    assert "Gemma" in refused(settings(copy))


def test_an_adapter_of_another_shape_is_refused_by_its_module(copy: Path, tmp_path: Path) -> None:
    other = make_model(make_config(make_tokenizer(), hidden=96))
    make_adapter(other, tmp_path / "wide", seed=1)
    message = refused(settings(copy, adapter=tmp_path / "wide"))
    assert "another base" in message
    assert "q_proj" in message or "proj" in message


def test_an_adapter_that_names_another_hub_base_is_refused(copy: Path) -> None:
    from worker.judge.local.lora import check_adapter, read_adapter

    config = copy / "adapter" / "adapter_config.json"
    values = json.loads(config.read_text())
    config.write_text(json.dumps(values | {"base_model_name_or_path": "google/gemma-3-4b-it"}))
    model = load(settings(copy, adapter=copy / "first")).model
    with pytest.raises(ConfigurationError, match=r"google/gemma-3-4b-it"):
        check_adapter(model, read_adapter(copy / "adapter"), "nvidia/Nemotron-3.5-Content-Safety")


def change_config(adapter: Path, **fields: object) -> None:
    file = adapter / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | fields))


def change_matrices(adapter: Path, change: Any) -> None:
    """Every matrix by its key and itself; None leaves it out."""
    file = adapter / "adapter_model.safetensors"
    changed = {key: change(key, value) for key, value in load_file(file).items()}
    save_file({key: value for key, value in changed.items() if value is not None}, file)


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda key, m: None if "layers.1" in key else m, "are missing"),
        (lambda key, m: None if "lora_B" in key else m, "are missing"),
        (lambda key, m: None, "are missing"),
        (lambda key, m: m * float("nan") if "layers.2.self_attn.v_proj" in key else m, "no number"),
        (lambda key, m: m * 0 if "lora_B" in key else m, "changes nothing"),
    ],
    ids=["half its layers", "without B", "empty", "NaN", "untrained"],
)
def test_an_adapter_that_would_judge_as_the_base_is_refused(
    copy: Path, what: Any, said: str
) -> None:
    """Loaded by half, verdicts would name an adapter that had no part in them."""
    change_matrices(copy / "adapter", what)
    message = refused(settings(copy))
    assert message.startswith("adapter adapter:")
    assert said in message


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"lora_alpha": 1e9}, "lora_alpha"),
        ({"lora_alpha": float("inf")}, "lora_alpha"),
        ({"r": 0}, "r and lora_alpha"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"use_dora": True}, "use_dora"),
        ({"bias": "all"}, "bias"),
    ],
)
def test_an_adapter_with_settings_that_make_no_sense_is_refused(
    copy: Path, fields: dict[str, object], said: str
) -> None:
    """By the field's name, before its numbers reach any weight."""
    change_config(copy / "adapter", **fields)
    assert said in refused(settings(copy))


def test_an_adapter_is_merged_as_peft_merges_it(copy: Path) -> None:
    """Ranks and scales by pattern included."""
    from peft import PeftModel

    from worker.judge.local.lora import merge_adapter, read_adapter

    change_config(copy / "adapter", alpha_pattern={"q_proj": 3})
    for use_rslora in (False, True):
        change_config(copy / "adapter", use_rslora=use_rslora)
        base = make_model(make_config(make_tokenizer()))
        theirs = PeftModel.from_pretrained(
            copy_module.deepcopy(base), copy / "adapter"
        ).merge_and_unload()
        ours = merge_adapter(base, read_adapter(copy / "adapter"), "base")
        for (name, one), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert torch.equal(one, other), name


async def test_verdicts_name_the_adapter_that_was_read(checkpoint: Path, copy: Path) -> None:
    """One that is replaced on disk under the same path is not the one that judges."""
    judge = LocalJudge(settings(checkpoint), min_constant=0.0)
    await judge.start()
    adapter = str(copy / "first")
    await judge.load_adapter(adapter)
    before = judge.model(adapter)
    change_matrices(copy / "first", lambda key, m: m * 2)
    assert judge.model(adapter) == before
    await judge.stop()
    again = LocalJudge(settings(checkpoint), min_constant=0.0)
    await again.start()
    await again.load_adapter(adapter)
    assert again.model(adapter).adapter != before.adapter
    await again.stop()


@pytest.mark.parametrize("file", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_incomplete_adapter_is_refused(copy: Path, file: str) -> None:
    (copy / "adapter" / file).unlink()
    assert file in refused(settings(copy))


@pytest.mark.parametrize(
    ("switch", "found", "written"),
    [
        ("enable_thinking", "enable_thinking", "false"),
        ("request_categories", "request_categories | default('/no_categories')", "'/categories'"),
        ("custom_policy", "{%- if custom_policy -%}", "{%- if false -%}"),
        ("custom_taxonomy", "custom_taxonomy if custom_taxonomy else taxonomy", "taxonomy"),
    ],
)
def test_a_template_without_one_of_the_switches_is_refused(
    copy: Path, switch: str, found: str, written: str
) -> None:
    template = chat_template()
    assert found in template
    (copy / "chat_template.jinja").write_text(template.replace(found, written))
    assert switch in refused(settings(copy))


def test_any_other_difference_of_the_template_warns_with_a_diff(
    copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (copy / "chat_template.jinja").write_text(chat_template().replace("Output:", "Answer:"))
    loaded = load(settings(copy))
    assert "-Output:<end_of_turn>" in loaded.differences
    assert "+Answer:<end_of_turn>" in loaded.differences
    assert "differs from the known one" in caplog.text


def test_the_known_template_has_no_difference(checkpoint: Path) -> None:
    assert load(settings(checkpoint)).differences == ""


def test_labels_that_are_not_single_tokens_are_refused() -> None:
    encode = encoder(make_tokenizer())

    def spelled(text: str) -> list[int]:
        return [ord(character) for character in text]

    assert answer_tokens(encode, [1]).safe != answer_tokens(encode, [1]).unsafe
    with pytest.raises(ConfigurationError, match="not two single tokens"):
        answer_tokens(spelled, [1])


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"judge\.device"):
        choose_device("toaster")


async def test_a_policys_own_adapter_answers_differently_and_is_named(checkpoint: Path) -> None:
    judge = LocalJudge(settings(checkpoint), min_constant=0.0)
    await judge.start()
    rubric, own = builtin_rubric(()), str(checkpoint / "first")
    plain = await judge.judge(JudgeRequest(user="Hello", response=None, rubric=rubric))
    adapted = await judge.judge(
        JudgeRequest(user="Hello", response=None, rubric=rubric, adapter=own)
    )
    assert adapted.user.score != pytest.approx(plain.user.score, abs=1e-4)
    assert judge.model(own).adapter not in (None, judge.model().adapter)
    with pytest.raises(ConfigurationError, match="missing"):
        await judge.load_adapter(str(checkpoint / "nowhere"))
    missing = JudgeRequest(
        user="x", response=None, rubric=rubric, adapter=str(checkpoint / "nowhere")
    )
    with pytest.raises(DependencyUnavailable):
        await judge.judge(missing)
    await judge.stop()


async def test_another_adapter_under_a_loaded_path_is_refused_and_never_named(
    copy: Path,
) -> None:
    """Verdicts name the bytes that judged them: digest and weights are of one reading."""
    judge = LocalJudge(settings(copy), min_constant=0.0)
    await judge.start()
    own = copy / "first"
    await judge.load_adapter(str(own))
    named = judge.model(str(own)).adapter
    await judge.load_adapter(str(own))  # unchanged: nothing to say
    make_adapter(make_model(make_config(make_tokenizer())), own, seed=77)
    with pytest.raises(ConfigurationError, match="another one than was loaded"):
        await judge.load_adapter(str(own))
    assert judge.model(str(own)).adapter == named
    await judge.stop()


async def test_a_checkpoint_that_answers_in_another_format_is_refused_at_start(
    checkpoint: Path,
) -> None:
    """Random weights never write the answer's constant text: found out before any event is."""
    judge = LocalJudge(settings(checkpoint))
    with pytest.raises(ConfigurationError, match="format"):
        await judge.start()
    await judge.stop()


def test_making_a_checkpoint_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first = load(settings(make_checkpoint(tmp_path / "one"))).ref
    second = load(settings(make_checkpoint(tmp_path / "two"))).ref
    assert first.revision == second.revision


@pytest.mark.parametrize("matrices", ["int8", "w8a16"])
async def test_a_policys_adapter_is_checked_beside_matrices_in_eight_bits(
    checkpoint: Path, tmp_path: Path, matrices: str
) -> None:
    """The base's own weights are gone by then: a good adapter loads, another base's is refused."""
    judge = LocalJudge(settings(checkpoint, numerics=matrices), min_constant=0.0)
    await judge.start()
    rubric, own = builtin_rubric(()), str(checkpoint / "first")
    await judge.prepare(rubric, own)
    plain = await judge.judge(JudgeRequest(user="Hello", response=None, rubric=rubric))
    adapted = await judge.judge(
        JudgeRequest(user="Hello", response=None, rubric=rubric, adapter=own)
    )
    assert adapted.user.score != pytest.approx(plain.user.score, rel=0.2)
    make_adapter(make_model(make_config(make_tokenizer(), hidden=96)), tmp_path / "wide", seed=1)
    with pytest.raises(ConfigurationError, match="another base"):
        await judge.prepare(rubric, str(tmp_path / "wide"))
    await judge.stop()


async def test_the_start_says_how_long_it_took(
    checkpoint: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Loading and the first case apart: the second is where compiling takes its minute."""
    judge = LocalJudge(settings(checkpoint), min_constant=0.0)
    with caplog.at_level("INFO", logger="worker.judge.local.judge"):
        await judge.start()
    await judge.stop()
    assert "loaded in" in caplog.text
    assert "first case judged in" in caplog.text
