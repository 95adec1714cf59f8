"""The optimisation loop: transformers.Trainer, taught that the model is a method."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from torch import Tensor, nn
from transformers.trainer_utils import rotate_checkpoints

from simcse_kit.errors import ModelError
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.common.batch import Batch
from simcse_kit.training.batching.gradient_cache import GradientCache
from simcse_kit.training.batching.order import ShuffledOrder
from simcse_kit.training.batching.subset import RowSubset
from simcse_kit.training.monitor.divergence import check_finite
from simcse_kit.training.selection import UNDEFINED
from simcse_kit.training.state.checkpoints import checkpoint_steps, written_whole
from simcse_kit.utils.distributed import ALONE, Processes

__all__ = ["ContrastiveTrainer"]

logger = logging.getLogger(__name__)

_WEIGHTS = "model.safetensors"
# As the trainer calls them.
_OPTIMIZER = "optimizer.pt"
_STATE = "trainer_state.json"


class ContrastiveTrainer(transformers.Trainer):
    """A thin Trainer: the loss comes from the method, the dev score from a function.

    Args:
        method: the model; its ``forward`` takes the collator's tensors by name.
        args: the trainer's own arguments.
        rows: the training rows.
        collator: rows to tensors.
        evaluate_method: gives the dev metrics; called with the method at every evaluation.
        ln_batch: loss of an encoder that tells nothing apart, logged beside the loss unless the
            method logs its own; None where there is no such number.
        sentences_per_step: for the speed.
        cache: makes the steps in chunks; None: in one piece.
        processes: those that share each batch; then ``cache`` must share it out.
        trace_method: measures the method's encoder for :meth:`trace`; None: nothing to measure on.
        callbacks: what else happens.
    """

    def __init__(
        self,
        method: Method,
        args: transformers.TrainingArguments,
        *,
        rows: RowSubset,
        collator: Callable[[Sequence[Any]], dict[str, Tensor]],
        evaluate_method: Callable[[Method], dict[str, float]] | None,
        ln_batch: float | None,
        sentences_per_step: int,
        cache: GradientCache | None = None,
        trace_method: Callable[[Method], dict[str, float]] | None = None,
        callbacks: list[transformers.TrainerCallback],
        processes: Processes = ALONE,
    ):
        super().__init__(
            model=method,
            args=args,
            train_dataset=rows,
            # Never read; the trainer insists on one where it is to evaluate.
            eval_dataset=None if evaluate_method is None else rows,
            data_collator=collator,
            callbacks=callbacks,
        )
        # Else the trainer may take the method for one that scales its loss by num_items_in_batch.
        self.model_accepts_loss_kwargs = False
        # We bring our own bar; the trainer's prints its logs to stdout.
        self.remove_callback(transformers.trainer_callback.PrinterCallback)
        self.remove_callback(transformers.trainer_callback.ProgressCallback)
        self._rows = rows
        self._method = method
        self._evaluate_method = evaluate_method
        self._ln_batch = ln_batch
        self._per_step = sentences_per_step
        self._cache = cache
        self._processes = processes
        self._trace_method = trace_method
        self._method_logs: dict[str, list[Tensor | float]] = {}
        self._inputs: dict[str, Tensor] = {}
        self._staging: Path | None = None
        self._mark = (time.perf_counter(), 0)
        self._evaluating = 0.0

    def _get_train_sampler(self, train_dataset: Any = None) -> ShuffledOrder:  # noqa: ARG002
        return ShuffledOrder(len(self._rows), self.args.seed)

    def training_step(self, *arguments: Any, **named: Any) -> Tensor:
        """Forward and backward; the gradients of several processes become that of their one loss,
        before anything looks at them."""
        loss = super().training_step(*arguments, **named)
        if self.accelerator.sync_gradients:
            trained = [weight for weight in self._method.parameters() if weight.requires_grad]
            self._processes.average_gradients(trained)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002 - a trainer argument
    ) -> Any:
        """The method's loss; its logs are collected for the next log line."""
        if self._cache is None:
            output = model(**inputs)
        else:
            output = self._cache(self._method, Batch(**inputs))
        self._check_finite("the loss", output.loss.detach(), inputs)
        self._inputs = inputs
        for name, value in output.logs.items():
            self._method_logs.setdefault(name, []).append(value)
        return (output.loss, output) if return_outputs else output.loss

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        norm = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        # A scaler of half precision passes over steps whose gradient is infinite.
        if self.accelerator.scaler is None:
            self._check_finite("the norm of the gradient", norm, self._inputs)
        return norm

    def _check_finite(self, what: str, value: Tensor | float, inputs: dict[str, Tensor]) -> None:
        step = self.state.global_step + 1
        check_finite(
            what,
            value,
            self._method,
            inputs,
            step=step,
            checkpoints=self._folder,
            write=self._processes.first,
        )

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The dev metrics, under the names that the trainer looks for."""
        if self._evaluate_method is None:
            return {}
        began = time.perf_counter()
        found = self._evaluate_method(self._method)
        # On other processors the last digit may differ, and with it what is done about it.
        found = self._processes.agree(lambda: found)
        metrics = {f"eval_{name}": value for name, value in found.items()}
        self._evaluating += time.perf_counter() - began
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Whether the newest evaluation is the best; one whose score is undefined never is."""
        name = str(self.args.metric_for_best_model)
        if self.args.metric_for_best_model is not None and f"eval_{name}" not in metrics:
            logger.warning(
                "step %d: %s is undefined, because %s; this checkpoint cannot be chosen",
                self.state.global_step,
                name,
                UNDEFINED.get(name, "it was not measured"),
            )
            return False
        better: bool = super()._determine_best_metric(metrics, trial)
        return better

    def trace(self) -> None:
        """Log what the trace measures; its time does not count as that of training."""
        if self._trace_method is None:
            return
        began = time.perf_counter()
        found = self._trace_method(self._method)
        found = self._processes.agree(lambda: found)
        self._evaluating += time.perf_counter() - began
        if found:
            self.log(found)

    def go_back(self, most: int) -> int | None:
        """Put back weights and optimizer of an earlier checkpoint, with half the learning rate.

        Steps, schedule and data go on from where they are.

        Args:
            most: the checkpoint may have so many steps.

        Returns:
            Its step; None where there is none.

        Raises:
            ModelError: the checkpoint cannot be read.
        """
        written = checkpoint_steps(self._folder)
        step = max((step for step in written if step <= most), default=None)
        if step is None:
            return None
        checkpoint = written[step]
        self._load_from_checkpoint(str(checkpoint))
        assert self.optimizer is not None
        self.optimizer.load_state_dict(torch.load(checkpoint / _OPTIMIZER, weights_only=True))
        schedule: Any = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)
        # A checkpoint holds these, so that a resumed run keeps to the lower rate.
        schedule.base_lrs = [rate / 2 for rate in schedule.base_lrs]
        return step

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add what the method says, ln(candidates) and the speed to a training line."""
        if "loss" in logs:
            for name, values in self._method_logs.items():
                logs[name] = sum(float(value) for value in values) / len(values)
            self._method_logs.clear()
            if self._ln_batch is not None:
                logs.setdefault("ln_batch", self._ln_batch)
            now, step = time.perf_counter(), self.state.global_step
            seconds = now - self._mark[0] - self._evaluating
            if self._mark[1] and seconds > 0:
                done = (step - self._mark[1]) * self._per_step
                logs["sentences_per_second"] = round(done / seconds, 1)
            self._mark, self._evaluating = (now, step), 0.0
        super().log(logs, start_time)

    @property
    def _folder(self) -> Path:
        return Path(str(self.args.output_dir))

    def _get_output_dir(self, trial: Any) -> str:  # noqa: ARG002
        return str(self._staging or self._folder)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Have the first process write a checkpoint, and all know which is the best."""
        self.state.best_model_checkpoint = self._processes.agree(
            lambda: self._write_checkpoint(model, trial)
        )

    def _write_checkpoint(self, model: nn.Module, trial: Any) -> str | None:
        """Write a checkpoint whole, then remove those that are neither the newest nor the best."""
        name = f"checkpoint-{self.state.global_step}"
        best = self._here(self.state.best_model_checkpoint)
        with written_whole(self._folder / name) as self._staging:
            super()._save_checkpoint(model, trial)
            inside = self._staging / name
            # The trainer has looked for the best checkpoint beside this one, where it alone is.
            if self.state.best_model_checkpoint == str(inside):
                best = str(self._folder / name)
            self.state.best_model_checkpoint = best
            self.state.save_to_json(str(inside / _STATE))
            for path in inside.iterdir():
                path.rename(self._staging / path.name)
            inside.rmdir()
        self._staging = None
        rotate_checkpoints(str(self._folder), self.args.save_total_limit, best)
        return best

    # ---- Checkpoints hold the whole method. The trainer's own _save fails on tied weights and
    # pickles its arguments; its loading is not strict, so that a missing tensor goes unnoticed.

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ARG002
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        save_model(self._method, str(folder / _WEIGHTS))

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        path = Path(resume_from_checkpoint) / _WEIGHTS
        try:
            load_model(model or self._method, str(path), strict=True)
        except (OSError, RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ModelError(f"checkpoint {path} cannot be read: {reason}") from error

    def reopen(self, checkpoint: Path) -> None:
        """Put back the state that a finished run ended with: the log, and the best weights.

        To train on from its last checkpoint would make one step too many.

        Raises:
            ModelError: the weights cannot be read.
        """
        self.state = transformers.TrainerState.load_from_json(str(checkpoint / _STATE))
        best = self.state.best_model_checkpoint
        # By its name: the folder may have been moved since.
        kept = checkpoint if best is None else checkpoint.parent / Path(best).name
        self._load_from_checkpoint(str(kept if kept.is_dir() else checkpoint))

    def _here(self, checkpoint: str | None) -> str | None:
        """A checkpoint of this run, whose folder may have been moved since it was written."""
        return None if checkpoint is None else str(self._folder / Path(checkpoint).name)

    def _load_best_model(self) -> None:
        if not self._processes.first:  # what is saved is the first one's
            return
        best = self._here(self.state.best_model_checkpoint)
        if best is None:
            logger.warning("no checkpoint had a dev score; the last state is kept")
            return
        self._load_from_checkpoint(best)
