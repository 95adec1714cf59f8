"""The optimisation loop: a thin subclass of transformers.Trainer whose model is a method."""

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

from simcse_kit.data.collate import Collated
from simcse_kit.errors import ModelError
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.common.batch import Batch
from simcse_kit.training.batching.gradient_cache import GradientCache
from simcse_kit.training.batching.order import EpochOrder, ShuffledOrder
from simcse_kit.training.batching.prefetch import Prefetch
from simcse_kit.training.batching.subset import RowSubset
from simcse_kit.training.layer_rates import scale_rates
from simcse_kit.training.measurements import LogLine, Measurements
from simcse_kit.training.monitor.divergence import FiniteChecks
from simcse_kit.training.selection import UNDEFINED
from simcse_kit.training.state.checkpoints import checkpoint_steps, written_whole
from simcse_kit.utils.distributed import ALONE, Processes

__all__ = ["ContrastiveTrainer"]

logger = logging.getLogger(__name__)

_WEIGHTS = "model.safetensors"
# Names that transformers.Trainer gives them.
_OPTIMIZER = "optimizer.pt"
_STATE = "trainer_state.json"


class ContrastiveTrainer(transformers.Trainer):
    """Trainer whose loss comes from the method and whose dev score comes from a function.

    Args:
        method: the model; its ``forward`` takes the tensors of the collator by name.
        args: the arguments of the base class.
        rows: the training rows.
        collator: function from rows to the tensors of a batch.
        measurements: what is measured and logged.
        cache: computes the steps in chunks; None: each batch in one piece.
        processes: the processes that share each batch; with several, ``cache`` divides it.
    """

    def __init__(
        self,
        method: Method,
        args: transformers.TrainingArguments,
        *,
        rows: RowSubset,
        collator: Callable[[Sequence[Any]], Collated],
        measurements: Measurements,
        cache: GradientCache | None = None,
        processes: Processes = ALONE,
    ):
        super().__init__(
            model=method,
            args=args,
            train_dataset=rows,
            eval_dataset=None if measurements.scorer is None else rows,  # required, but not read
            data_collator=collator,
        )
        # Otherwise the base class may assume that the loss is scaled by num_items_in_batch.
        self.model_accepts_loss_kwargs = False
        # The package has its own progress bar; that of the base class prints to stdout.
        self.remove_callback(transformers.trainer_callback.PrinterCallback)
        self.remove_callback(transformers.trainer_callback.ProgressCallback)
        self._prefetch: Prefetch | None = None
        self.order: EpochOrder = ShuffledOrder(len(rows), args.seed)
        self._method = method
        self.measurements = measurements
        self._cache = cache
        self._processes = processes
        self._line = LogLine(measurements)
        self._checks = FiniteChecks(method, self._folder, write=processes.first)
        self._inputs: Collated = {}
        self._staging: Path | None = None

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochOrder:  # noqa: ARG002
        return self.order

    def collate_ahead(self) -> None:
        """Let a thread collate batches while the device works on earlier ones."""
        self._prefetch = Prefetch()
        self.add_callback(self._prefetch)

    def train(self, *arguments: Any, **named: Any) -> Any:
        """Train, and check the numbers of the last steps."""
        try:
            output = super().train(*arguments, **named)
            self._checks.settle()
            return output
        finally:
            if self._prefetch is not None:
                self._prefetch.close()

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Create the optimizer, with a rate for each layer if ``layer_decay`` is set."""
        exists = self.optimizer is not None
        made: torch.optim.Optimizer = super().create_optimizer(model)
        decay = None if exists else getattr(self.args, "layer_decay", None)
        return scale_rates(made, self._method, decay)

    def get_batch_samples(self, epoch_iterator: Any, *arguments: Any, **named: Any) -> Any:
        """Take the batches of a step."""
        if self._prefetch is not None:
            epoch_iterator = self._prefetch.of(epoch_iterator)
        return super().get_batch_samples(epoch_iterator, *arguments, **named)

    def training_step(self, *arguments: Any, **named: Any) -> Tensor:
        """Run forward and backward, then average the gradients over all processes."""
        loss = super().training_step(*arguments, **named)
        if self.accelerator.sync_gradients:
            trained = [weight for weight in self._method.parameters() if weight.requires_grad]
            self._processes.average_gradients(trained)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: Collated,
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,  # noqa: ARG002 - required by the base class
    ) -> Any:
        """Compute the loss of the method and collect its logs for the next log line."""
        if self._cache is None:
            output = model(**inputs)
        else:
            output = self._cache(self._method, Batch(**inputs))
        self._checks.check("the loss", output.loss.detach(), inputs, self.state.global_step + 1)
        self._inputs = inputs
        self._line.collect(output.logs)
        return (output.loss, output) if return_outputs else output.loss

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        norm = super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        # In half precision the scaler skips steps whose gradient is infinite.
        if self.accelerator.scaler is None:
            what, step = "the norm of the gradient", self.state.global_step + 1
            self._checks.check(what, norm, self._inputs, step)
        return norm

    def _maybe_log_save_evaluate(self, *arguments: Any, **named: Any) -> None:
        if self.control.should_log or self.control.should_evaluate or self.control.should_save:
            self._checks.settle()
        super()._maybe_log_save_evaluate(*arguments, **named)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Compute the dev metrics, with the prefix that the base class expects."""
        scorer = self.measurements.scorer
        if scorer is None:
            return {}
        if self.state.global_step == 0:
            scorer = self.measurements.start_scorer or scorer
        found = self._measured(lambda: scorer(self._method))
        metrics = {f"eval_{name}": value for name, value in found.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def _measured(self, measure: Callable[[], dict[str, float]]) -> dict[str, float]:
        """Measure outside the training time; all processes get the result of the first."""
        self._checks.settle()
        began = time.perf_counter()
        # The last digit may differ between processors, and with it the decisions that follow.
        found = measure()
        found = self._processes.from_first(lambda: found)
        self._line.leave_out(time.perf_counter() - began)
        return found

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Return whether the newest evaluation is the best; an undefined score never is."""
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
        """Measure and log the geometry of the embeddings."""
        probe = self.measurements.probe
        if probe is None:
            return
        found = self._measured(
            lambda: probe.measure(self._method.encoder, self._method.monitored_head)
        )
        if found:
            self.log(found)

    def go_back(self, most: int) -> int | None:
        """Restore weights and optimizer of an earlier checkpoint, with half the learning rate.

        Steps, schedule and data continue from where they are.

        Args:
            most: the largest step of a checkpoint that may be restored.

        Returns:
            The step of the checkpoint; None if there is none.

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
        moments = torch.load(
            checkpoint / _OPTIMIZER, map_location=self.args.device, weights_only=True
        )
        self.optimizer.load_state_dict(moments)
        schedule: Any = getattr(self.lr_scheduler, "scheduler", self.lr_scheduler)
        # Checkpoints contain these, so a resumed run keeps the lower rate.
        schedule.base_lrs = [rate / 2 for rate in schedule.base_lrs]
        return step

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the logs of the method, ln(candidates) and the speed to a training line."""
        if "loss" in logs:
            self._line.complete(logs, self.state.global_step)
        super().log(logs, start_time)

    @property
    def _folder(self) -> Path:
        return Path(str(self.args.output_dir))

    def _get_output_dir(self, trial: Any) -> str:  # noqa: ARG002
        return str(self._staging or self._folder)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint in the first process, and announce the best one to all processes."""
        self.state.best_model_checkpoint = self._processes.from_first(
            lambda: self._write_checkpoint(model, trial)
        )

    def _write_checkpoint(self, model: nn.Module, trial: Any) -> str | None:
        """Write a checkpoint atomically, then remove old ones except the best."""
        name = f"checkpoint-{self.state.global_step}"
        best = self._here(self.state.best_model_checkpoint)
        with written_whole(self._folder / name) as self._staging:
            super()._save_checkpoint(model, trial)
            inside = self._staging / name
            # In the staging folder the base class has seen only this checkpoint.
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

    # ---- Checkpoints contain the whole method. The _save of the base class fails on tied weights
    # and pickles its arguments; its loading is not strict, so a missing tensor goes unnoticed.

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
        """Restore the final state of a finished run: its log and its best weights.

        Training on from its last checkpoint would make one step too many.

        Raises:
            ModelError: the weights cannot be read.
        """
        self.state = transformers.TrainerState.load_from_json(str(checkpoint / _STATE))
        best = self.state.best_model_checkpoint
        # By name, because the folder may have been moved since.
        kept = checkpoint if best is None else checkpoint.parent / Path(best).name
        self._load_from_checkpoint(str(kept if kept.is_dir() else checkpoint))

    def _here(self, checkpoint: str | None) -> str | None:
        """Return the path of a checkpoint in this run's folder, which may have been moved."""
        return None if checkpoint is None else str(self._folder / Path(checkpoint).name)

    def _load_best_model(self) -> None:
        if not self._processes.first:  # only the first process saves the encoder
            return
        best = self._here(self.state.best_model_checkpoint)
        if best is None:
            logger.warning("no checkpoint had a dev score; the last state is kept")
            return
        self._load_from_checkpoint(best)
