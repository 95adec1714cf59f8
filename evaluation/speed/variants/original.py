"""The step of the original SimCSE trainer (Gao, Yao, Chen 2021, arXiv 2104.08821), reimplemented
for the comparison of speed and of loss curves.

Each sentence is in the batch twice, padded to the longest; one forward pass of 2B rows (3B with a
hard negative); the [CLS] vector through a linear layer and tanh; the cosine of every pair by
broadcasting; cross entropy of the cosines divided by the temperature; gradients clipped to norm 1;
AdamW parameter by parameter, with linear decay. Texts are tokenized beforehand, as in the original.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, AutoTokenizer, set_seed

from variants.threads import pin
from variants.training import batches, one_seed_a_round

TEMPERATURE = 0.05


class Original:
    """Model, optimizer and step.

    Args:
        params: model, batch, steps, max_length, learning_rate and attention; if given,
            device, and bf16 for autocast.
        seed: seed of the head, of dropout, and of the order of the rows.
    """

    def __init__(self, params: dict[str, Any], seed: int):
        set_seed(seed)
        self.device = torch.device(params.get("device", "cpu"))
        self.bf16 = params.get("bf16", False)
        self.bert = AutoModel.from_pretrained(
            params["model"],
            add_pooling_layer=False,
            attn_implementation=params["attention"],
            dtype=torch.float32,
        ).train()
        width = self.bert.config.hidden_size
        self.dense = nn.Linear(width, width)
        nn.init.normal_(self.dense.weight, std=0.02)
        nn.init.zeros_(self.dense.bias)
        self.bert.to(self.device)
        self.dense.to(self.device)
        self.weights = [*self.bert.parameters(), *self.dense.parameters()]
        self.optimizer = torch.optim.AdamW(
            self.weights,
            lr=params["learning_rate"],
            betas=(0.9, 0.999),
            eps=1e-8,
            weight_decay=0.0,
            foreach=False,
            fused=False,
        )
        steps = params["steps"]
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: max(0.0, 1 - step / steps)
        )
        self.tokenizer = AutoTokenizer.from_pretrained(params["model"])
        self._batches = (self._tokens(rows, params["max_length"]) for rows in batches(params, seed))
        self._batches = iter(list(self._batches))

    def _tokens(self, rows: list[list[str]], length: int) -> list[dict[str, Any]]:
        """Return the token ids of every view of every row. A single text gives two views."""
        texts = [text for row in rows for text in (row if len(row) > 1 else 2 * row)]
        self.views = len(texts) // len(rows)
        encoded = self.tokenizer(texts, truncation=True, max_length=length)
        return [{key: encoded[key][n] for key in encoded} for n in range(len(texts))]

    def step(self) -> Tensor:
        """Make one step on the next batch, and return its loss."""
        features = self.tokenizer.pad(next(self._batches), return_tensors="pt").to(self.device)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            states = self.bert(**features).last_hidden_state
            vectors = torch.tanh(self.dense(states[:, 0])).view(-1, self.views, states.shape[-1])
            loss = self._loss(*vectors.unbind(dim=1))
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return loss.detach()

    @staticmethod
    def _loss(anchors: Tensor, *candidates: Tensor) -> Tensor:
        cosine = nn.CosineSimilarity(dim=-1)
        scores = [cosine(anchors.unsqueeze(1), c.unsqueeze(0)) / TEMPERATURE for c in candidates]
        targets = torch.arange(len(anchors), device=anchors.device)
        return nn.functional.cross_entropy(torch.cat(scores, dim=1), targets)


def steps(params: dict[str, Any], rounds: Any) -> None:
    """Make ``per_round`` steps in each round."""
    pin()
    trainer = Original(params, seed=1)
    rounds.ready()
    while True:
        rounds.wait()
        for _ in range(params["per_round"]):
            trainer.step()
        rounds.done()


def curve(params: dict[str, Any], rounds: Any) -> None:
    """Report the losses of a whole run for each seed."""
    pin()
    one_seed_a_round(rounds, lambda seed: run_losses(params, seed))


def run_losses(params: dict[str, Any], seed: int, dropout: int | None = None) -> list[float]:
    """Return the losses of a whole run. ``dropout`` is a seed of its own for the dropout masks."""
    trainer = Original(params, seed)
    if dropout is not None:
        torch.manual_seed(dropout)
    return [trainer.step().item() for _ in range(params["steps"])]
