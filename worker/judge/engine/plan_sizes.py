"""Sizes of a model that its memory follows from, and the bytes of its weights. No torch needed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Body = Literal["model", "int8", "fp8", "weights8"]
"""What the matrices of the text body are held in: the model's own format, or eight bits."""

SCALE = 4
"""Bytes of the float32 scale that each output row of an eight-bit matrix has."""
FLOAT32 = 4


@dataclass(frozen=True)
class Vision:
    """The vision tower and its projector. ``soft`` tokens are what an image becomes."""

    layers: int
    hidden: int
    mlp: int
    image: int
    patch: int
    soft: int

    @property
    def patches(self) -> int:
        side = self.image // self.patch
        return side * side

    @property
    def parameters(self) -> int:
        hidden, mlp = self.hidden, self.mlp
        embedding = 3 * self.patch * self.patch * hidden + hidden + self.patches * hidden
        attention = 4 * (hidden * hidden + hidden)
        layer = attention + 2 * hidden * mlp + mlp + hidden + 4 * hidden
        return embedding + self.layers * layer + 2 * hidden


@dataclass(frozen=True)
class Sizes:
    """A Gemma 3: ``full`` of its ``layers`` attend to everything, the others to ``window``."""

    layers: int
    full: int
    hidden: int
    mlp: int
    heads: int
    kv_heads: int
    head_dim: int
    window: int
    vocabulary: int
    positions: int
    tied: bool
    vision: Vision

    @classmethod
    def of(cls, config: Any) -> Sizes:
        """The sizes of a ``Gemma3Config``."""
        text, vision = config.text_config, config.vision_config
        return cls(
            layers=text.num_hidden_layers,
            full=sum(kind == "full_attention" for kind in text.layer_types),
            hidden=text.hidden_size,
            mlp=text.intermediate_size,
            heads=text.num_attention_heads,
            kv_heads=text.num_key_value_heads,
            head_dim=text.head_dim,
            window=text.sliding_window,
            vocabulary=text.vocab_size,
            positions=text.max_position_embeddings,
            tied=bool(config.tie_word_embeddings),
            vision=Vision(
                layers=vision.num_hidden_layers,
                hidden=vision.hidden_size,
                mlp=vision.intermediate_size,
                image=vision.image_size,
                patch=vision.patch_size,
                soft=config.mm_tokens_per_image,
            ),
        )

    @property
    def query(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head_dim

    @property
    def key(self) -> int:
        """Width of all key heads; as many of values."""
        return self.kv_heads * self.head_dim

    @property
    def groups(self) -> int:
        """Query heads that share one key/value head."""
        return self.heads // self.kv_heads

    @property
    def sliding(self) -> int:
        """Layers that see their window only."""
        return self.layers - self.full

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """(out, in) of one layer: qkv, out, gate_up, down."""
        return (
            (self.query + 2 * self.key, self.hidden),
            (self.hidden, self.query),
            (2 * self.mlp, self.hidden),
            (self.hidden, self.mlp),
        )

    @property
    def gains(self) -> int:
        """Elements of the text model's norms."""
        return self.layers * (4 * self.hidden + 2 * self.head_dim) + self.hidden


@dataclass(frozen=True)
class Weights:
    """Bytes of one replica, by part. ``engine`` are the float32 gains the engine keeps beside."""

    body: int
    embedding: int
    vision: int
    projector: int
    engine: int

    @property
    def model(self) -> int:
        """What the checkpoint's parameters take."""
        return self.body + self.embedding + self.vision + self.projector

    @property
    def total(self) -> int:
        return self.model + self.engine


def weights(sizes: Sizes, element: int, body: Body) -> Weights:
    """Bytes of the weights; ``element`` is that of the model's format, 4 or 2.

    Eight bits hold the matrices of the text body only: its norms, the embedding, which is the head
    too, and the images' part stay in the model's format.
    """
    rows = sum(out for out, _ in sizes.matrices) * sizes.layers
    elements = sum(out * wide for out, wide in sizes.matrices) * sizes.layers
    matrices = elements * element if body == "model" else elements + rows * SCALE
    embedding = sizes.vocabulary * sizes.hidden * (1 if sizes.tied else 2)
    projector = sizes.vision.hidden * sizes.hidden + sizes.vision.hidden
    return Weights(
        body=matrices + sizes.gains * element,
        embedding=embedding * element,
        vision=sizes.vision.parameters * element,
        projector=projector * element,
        engine=sizes.gains * FLOAT32,
    )


def kv_bytes(sizes: Sizes, tokens: int, element: int, *, held: int | None = None) -> int:
    """Keys and values of ``tokens`` tokens; sliding layers hold at most ``held`` of them."""
    short = tokens if held is None else min(tokens, held)
    per_token = 2 * sizes.key * element
    return per_token * (sizes.full * tokens + sizes.sliding * short)
