"""What a step of the first SimCSE trainer (Gao, Yao, Chen 2021, arXiv 2104.08821) computes,
written anew: as a peer in speed and as an oracle for the loss curve.

Each sentence stands in the batch twice, padded to the longest; one forward of 2B rows (3B with a
hard negative); the vector of [CLS] through a linear layer and tanh; the cosine of every pair by
broadcasting; cross entropy over them, divided by the temperature; gradients clipped to norm 1;
AdamW parameter by parameter, with linear decay. Tokens are made beforehand, as there.
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
        params: model, batch, steps, max_length, learning_rate, attention.
        seed: of the head and of dropout, and of the order of the rows.
    """

    def __init__(self, params: dict[str, Any], seed: int):
        set_seed(seed)
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
        """The token ids of every view of every row; the only text of a row is there twice."""
        texts = [text for row in rows for text in (row if len(row) > 1 else 2 * row)]
        self.views = len(texts) // len(rows)
        encoded = self.tokenizer(texts, truncation=True, max_length=length)
        return [{key: encoded[key][n] for key in encoded} for n in range(len(texts))]

    def step(self) -> float:
        """One step on the next batch; gives its loss."""
        features = self.tokenizer.pad(next(self._batches), return_tensors="pt")
        states = self.bert(**features).last_hidden_state
        vectors = torch.tanh(self.dense(states[:, 0])).view(-1, self.views, states.shape[-1])
        loss = self._loss(*vectors.unbind(dim=1))
        loss.backward()
        nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return loss.item()

    @staticmethod
    def _loss(anchors: Tensor, *candidates: Tensor) -> Tensor:
        cosine = nn.CosineSimilarity(dim=-1)
        scores = [cosine(anchors.unsqueeze(1), c.unsqueeze(0)) / TEMPERATURE for c in candidates]
        return nn.functional.cross_entropy(torch.cat(scores, dim=1), torch.arange(len(anchors)))


def steps(params: dict[str, Any], rounds: Any) -> None:
    """``per_round`` steps a round."""
    pin()
    trainer = Original(params, seed=1)
    rounds.ready()
    while True:
        rounds.wait()
        for _ in range(params["per_round"]):
            trainer.step()
        rounds.done()


def curve(params: dict[str, Any], rounds: Any) -> None:
    """The losses of a whole run, for each seed."""
    pin()

    def losses(seed: int) -> list[float]:
        trainer = Original(params, seed)
        return [trainer.step() for _ in range(params["steps"])]

    one_seed_a_round(rounds, losses)
