"""The base checkpoint: all parameters, the dense packed format, and auxiliary heads.

Dense supervision makes the two in-context rules quick to learn: many events a policy, a label for
every word ("does this word break the rubric?") and the facts in between at the layer where they are
needed (what a word means, which bullet a word of the policy stands in). The heads are thrown away.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional
from transformers import Gemma3ForConditionalGeneration, PreTrainedTokenizerFast

from moderation_tools.training.tiny.cases import Case, Mix, draw_case
from moderation_tools.training.tiny.packing import IGNORED, Batch, Packer, Row, collate
from moderation_tools.training.tiny.progress import Progress
from moderation_tools.training.tiny.prompt import dense_answer, dense_closing
from moderation_tools.training.tiny.rubrics import MODES, draw_rubric
from moderation_tools.training.tiny.schedule import schedule
from moderation_tools.training.tiny.seeding import stream
from moderation_tools.training.tiny.start import CONSTANT, CONSTANT_VALUE
from moderation_tools.training.tiny.vision import NOTHING, THINGS, cells
from moderation_tools.training.tiny.vocabulary import Vocabulary

MIX = Mix(
    response=0.35, folded=0.08, image=0.06, think=0.4, no_categories=0.05, foreign=0.35, long=0.01
)
_MODE_WEIGHTS = (2, 3, 4, 5)
_SCALES_TIMES = 4.0
_MEANING_LAYER, _PREFIX_LAYER, _FLAG_LAYER = 1, 2, 3
_AT_MOST = 500


class SharedEmbedding(nn.Module):
    """The embedding as the sum of two small tables: what a piece stands for, and in which form."""

    def __init__(self, vocabulary: Vocabulary, width: int) -> None:
        super().__init__()
        self.bases = nn.Parameter(torch.randn(len(vocabulary.base_names), width) * width**-0.5)
        self.forms = nn.Parameter(
            torch.randn(len(vocabulary.form_names), width) * 0.3 * width**-0.5
        )
        with torch.no_grad():
            self.bases[:, CONSTANT] = 0.0
            self.forms[:, CONSTANT] = CONSTANT_VALUE
        self._base = torch.tensor(vocabulary.base)
        self._form = torch.tensor(vocabulary.form)

    def table(self) -> torch.Tensor:
        """The whole embedding matrix, (vocabulary, width)."""
        return self.bases[self._base] + self.forms[self._form]


class DenseTrainer:
    """Owns the model, the shared embedding and the auxiliary heads while the base is trained."""

    def __init__(
        self,
        model: Gemma3ForConditionalGeneration,
        tokenizer: PreTrainedTokenizerFast,
        vocabulary: Vocabulary,
        seed: int,
    ) -> None:
        width = model.config.text_config.hidden_size
        self.model = model
        self.embedding = SharedEmbedding(vocabulary, width)
        self._shown = [vocabulary.ids[name] for name in (*(f" {name}" for name in THINGS), NOTHING)]
        self._heads = nn.ModuleDict({name: nn.Linear(width, 3) for name in ("flag", "role")})
        self._readers = nn.ModuleDict(
            {name: nn.Linear(width, width, bias=False) for name in ("named", "head", "previous")}
        )
        self._readers["meaning"] = nn.Identity()
        self._packer = Packer(tokenizer, vocabulary)
        self._padding = vocabulary.ids["<pad>"]
        self._rng = stream("dense", seed)
        self._chance = torch.Generator().manual_seed(seed)
        self._text = model.model.language_model
        self._width = width

    def parameters(self) -> list[nn.Parameter]:
        """What is trained."""
        body = [p for name, p in self._text.named_parameters() if "embed_tokens" not in name]
        return [
            *body,
            *self.embedding.parameters(),
            *self._heads.parameters(),
            *self._readers.parameters(),
        ]

    def batch(self, rows: int, budget: int) -> Batch:
        """Fresh rows, each under its own rubric, with exercises in copying at their ends."""
        packed: list[Row] = []
        for _ in range(rows):
            rubric = draw_rubric(self._rng, self._rng.choices(MODES, _MODE_WEIGHTS)[0])
            cases = [draw_case(self._rng, rubric, MIX) for _ in range(22)]
            row, _taken = self._packer.row(
                rubric, cases, dense_closing, dense_answer, budget, self._see
            )
            if rubric.mode in ("taxonomy", "policy"):
                phrases = list(dict.fromkeys(rubric.active.values()))
                for _ in range(2):
                    self._rng.shuffle(phrases)
                    self._packer.recite(row, phrases)
            packed.append(row)
        return collate(packed, [], self._padding)

    def _see(self, case: Case) -> list[int]:
        """The tokens that the image tower will have to say for the image of ``case``."""
        assert case.image is not None
        return [self._shown[cell] for cell in cells([case.image])[0].tolist()]

    def losses(self, batch: Batch) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
        """Loss terms and, for the log, shares of right answers."""
        table = self.embedding.table()
        states = self._text(
            inputs_embeds=table[batch["tokens"]] * math.sqrt(self._width),
            attention_mask=batch.masks,
            position_ids=batch["position"],
            use_cache=False,
            output_hidden_states=True,
        ).hidden_states
        asked = batch["target"] != IGNORED
        logits = states[-1][asked] @ table.T
        wanted = batch["target"][asked]
        losses = {
            "answer": functional.cross_entropy(logits, wanted),
            "flag": self._class_loss("flag", states[_FLAG_LAYER], batch["flag"]),
            "role": self._class_loss("role", states[_PREFIX_LAYER], batch["role"]),
            "named": self._base_loss("named", states[_FLAG_LAYER], batch["named"]),
            "meaning": self._base_loss("meaning", states[_MEANING_LAYER], batch["meaning"]),
            "head": self._base_loss("head", states[_PREFIX_LAYER], batch["head"]),
            "previous": self._base_loss("previous", states[_MEANING_LAYER], batch["previous"]),
        }
        right = (logits.argmax(-1) == wanted).float()
        sort = batch["sort"][asked]
        names = ("label", "answer", "exercise")
        return losses, {
            name: right[sort == index].mean().item()
            for index, name in enumerate(names)
            if bool((sort == index).any())
        }

    def _class_loss(self, head: str, states: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        chosen = wanted != IGNORED
        logits = self._heads[head](_normed(states[chosen]))
        return functional.cross_entropy(logits, wanted[chosen], weight=torch.tensor([0.3, 1, 1]))

    def _base_loss(self, reader: str, states: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        chosen = (wanted != IGNORED).nonzero()
        if not len(chosen):
            return states.new_zeros(())
        if len(chosen) > _AT_MOST:
            chosen = chosen[torch.randperm(len(chosen), generator=self._chance)[:_AT_MOST]]
        rows, places = chosen.unbind(1)
        logits = self._readers[reader](_normed(states[rows, places])) @ self.embedding.bases.T
        return functional.cross_entropy(logits, wanted[rows, places])

    def write_back(self) -> None:
        """Put the embedding where the checkpoint keeps it."""
        with torch.no_grad():
            self.model.get_input_embeddings().weight.copy_(self.embedding.table())


def train_dense(
    trainer: DenseTrainer,
    steps: int,
    *,
    rows: int = 12,
    budget: int = 420,
    rate: float = 1.5e-3,
    report: Callable[[str], None] = lambda line: None,
) -> list[float]:
    """Train the base for ``steps``; returns the loss of every step."""
    parameters = trainer.parameters()
    matrices = [parameter for parameter in parameters if parameter.ndim > 1]
    scales = [parameter for parameter in parameters if parameter.ndim == 1]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "times": 1.0}, {"params": scales, "times": _SCALES_TIMES}],
        lr=rate,
        betas=(0.9, 0.98),
        weight_decay=0.01,
    )
    history: list[float] = []
    progress = Progress("base", steps, report)
    warm_up = min(200, max(1, steps // 5))
    for step in range(steps):
        began = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = rate * group["times"] * schedule(step, steps, warm_up)
        losses, right = trainer.losses(trainer.batch(rows, budget))
        loss = (
            losses["answer"]
            + losses["flag"]
            + 0.5 * losses["role"]
            + 0.3 * losses["named"]
            + 0.5 * losses["meaning"]
            + 0.5 * losses["head"]
            + 0.2 * losses["previous"]
        )
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        history.append(losses["answer"].item())
        parts = {name: value.item() for name, value in losses.items()}
        progress.step(step, parts, right, time.perf_counter() - began)
    trainer.write_back()
    return history


def _normed(states: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(states, states.shape[-1:])
