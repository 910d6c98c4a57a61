"""A batch through the engine in a process where Triton cannot be imported."""

from __future__ import annotations

import json
import sys

sys.modules["triton"] = None  # type: ignore[assignment]

import torch  # noqa: E402

from moderation_tools.bench.engine.model import random_model  # noqa: E402
from worker.judge.engine.batch import InputSequence  # noqa: E402
from worker.judge.engine.forward import Forward  # noqa: E402
from worker.judge.engine.model import TextWeights  # noqa: E402

forward = Forward(TextWeights(random_model("small", torch.device("cpu"), torch.float32)))
logits = forward.run([InputSequence((20, 21, 22), wanted=(2,))]).logits[0]
assert torch.isfinite(logits).all()
imported = "worker.judge.engine.triton_kernels" in sys.modules
print(json.dumps({"backend": forward.backend.name, "imported": imported}))
