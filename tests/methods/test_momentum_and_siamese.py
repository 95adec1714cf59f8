"""SimCLR, MoCo, BYOL, SimSiam and the dual encoder: momentum, queues, heads, collapse."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from simcse_kit.data.collate import Collator
from simcse_kit.data.readers import Example
from simcse_kit.encoder.encoder import SentenceEncoder
from simcse_kit.errors import ConfigError
from simcse_kit.losses.info_nce import info_nce
from simcse_kit.losses.moco import momentum_contrast
from simcse_kit.losses.nt_xent import nt_xent
from simcse_kit.losses.prediction import negative_cosine, normalized_mse
from simcse_kit.methods import METHODS, build_config
from simcse_kit.methods.byol import BYOL
from simcse_kit.methods.common.base import Method
from simcse_kit.methods.common.batch import Batch
from simcse_kit.methods.common.checks import check_batch
from simcse_kit.methods.common.contrast import Contrast, DataSpec
from simcse_kit.methods.common.heads import project_batch, relu_layers
from simcse_kit.methods.common.momentum import Momentum, cosine_momentum
from simcse_kit.methods.common.queue import KeyQueue
from simcse_kit.methods.dual_encoder import DualEncoder
from simcse_kit.methods.moco import MoCo
from simcse_kit.methods.simclr import SimCLR
from simcse_kit.methods.simsiam import SimSiam
from tests.small_data import sentences

Make = Callable[..., Any]


@pytest.fixture
def make(tiny_encoder_dir: Path) -> Make:
    def build(name: str, **options: Any) -> Method:
        torch.manual_seed(0)
        encoder = SentenceEncoder.load(tiny_encoder_dir, pooling="mean")
        method: Method = METHODS.resolve(name)(encoder, build_config(name, options))
        return method.train()

    return build


def batch_of(method: Method, start: int = 0, rows: int = 6, views: int = 1) -> dict[str, Tensor]:
    texts = sentences(120)
    columns = [texts[40 * view + start : 40 * view + start + rows] for view in range(views)]
    examples = [Example(row) for row in zip(*columns, strict=True)]
    return Collator(method.encoder.tokenize, 0, tuple(range(views)))(examples)


def step(method: Method, start: int, progress: float = 0.5, rows: int = 6) -> dict[str, Any]:
    output = method(**batch_of(method, start, rows))
    optimizer = torch.optim.SGD([w for w in method.parameters() if w.requires_grad], lr=0.1)
    torch.autograd.backward(output.loss)
    optimizer.step()
    method.zero_grad()
    method.after_step(progress)
    return dict(output.logs)


# ------------------------------------------------------------------ momentum


def test_momentum_is_a_moving_average_of_the_weights() -> None:
    live = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    slow = Momentum(live)
    old = copy.deepcopy(live.state_dict())
    with torch.no_grad():
        for weight in live.parameters():
            weight.add_(torch.randn_like(weight))
    live(torch.randn(8, 3))
    slow.follow(live, 0.9)
    for key, value in slow.copy.state_dict().items():
        new = live.state_dict()[key]
        is_weight = key in dict(live.named_parameters())
        expected = 0.9 * old[key] + 0.1 * new if is_weight else new
        torch.testing.assert_close(value, expected)
    slow.follow(live, 1.0)
    slow.follow(live, 0.0)
    torch.testing.assert_close(slow.copy.state_dict(), live.state_dict())
    assert not slow(torch.randn(4, 3)).requires_grad


def test_schedule_of_the_momentum_is_that_of_byol() -> None:
    # Section 3.2 of arXiv 2006.07733 at k = 0, K/2 and K, and in between.
    assert cosine_momentum(0.996, 0.0) == pytest.approx(0.996)
    assert cosine_momentum(0.996, 0.5) == pytest.approx(1 - 0.004 / 2)
    assert cosine_momentum(0.996, 1.0) == 1.0
    quarter = 1 - (1 - 0.9) * (math.cos(math.pi / 4) + 1) / 2
    assert cosine_momentum(0.9, 0.25) == pytest.approx(quarter)
    values = [cosine_momentum(0.5, k / 20) for k in range(21)]
    assert values == sorted(values)


@pytest.mark.parametrize("progress", [0.25, 1.0])
def test_byol_follows_by_its_schedule(make: Make, progress: float) -> None:
    method = make("byol", momentum=0.9)
    parts = [
        (method.target_encoder.copy, method.encoder),
        (method.target_projector.copy, method.projector),
    ]
    before = [copy.deepcopy(slow.state_dict()) for slow, _ in parts]
    step(method, 0, progress)
    share = cosine_momentum(0.9, progress)
    for (slow, live), old in zip(parts, before, strict=True):
        weights, moved = dict(live.named_parameters()), 0
        for key, weight in slow.named_parameters():
            torch.testing.assert_close(weight, share * old[key] + (1 - share) * weights[key])
            moved += not weight.equal(old[key])
        assert (moved > 0) == (progress < 1)


def test_moco_follows_with_its_momentum(make: Make) -> None:
    method = make("moco", momentum=0.75, queue_size=6)
    before = copy.deepcopy(method.key_encoder.copy.state_dict())
    head = copy.deepcopy(method.key_head.copy.state_dict())
    step(method, 0)
    for slow, live, old in (
        (method.key_encoder, method.encoder, before),
        (method.key_head, method.head, head),
    ):
        weights = dict(live.named_parameters())
        for key, weight in slow.copy.named_parameters():
            torch.testing.assert_close(weight, 0.75 * old[key] + 0.25 * weights[key])


@pytest.mark.parametrize(
    ("name", "copies"),
    [
        ("moco", ("key_encoder.", "key_head.")),
        ("byol", ("target_encoder.", "target_projector.")),
    ],
)
def test_no_gradient_reaches_a_momentum_copy(
    make: Make, name: str, copies: tuple[str, ...]
) -> None:
    method = make(name)
    torch.autograd.backward(method(**batch_of(method)).loss)
    slow = {key: w for key, w in method.named_parameters() if key.startswith(copies)}
    assert len(slow) > 20
    assert all(w.grad is None and not w.requires_grad for w in slow.values())
    others = {key: w for key, w in method.named_parameters() if key not in slow}
    assert all(w.grad is not None and w.requires_grad for w in others.values())
    # The trainer's optimizer takes what requires a gradient; the copy shares no memory with it.
    owned = {w.data_ptr() for w in others.values()}
    assert not owned & {w.data_ptr() for w in slow.values()}


@pytest.mark.parametrize(
    ("name", "attribute", "view"), [("moco", "key_encoder", 1), ("byol", "target_encoder", 2)]
)
def test_the_copy_embeds_its_views_without_gradient(
    make: Make, name: str, attribute: str, view: int
) -> None:
    method = make(name).eval()
    slow = getattr(method, attribute).copy
    with torch.no_grad():
        for weight in slow.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    ids, mask = Batch(**batch_of(method)).rows()
    views = torch.tensor([0, view, 0, view, view, 0])
    found = method.embed(ids, mask, views)
    expected = torch.where(views.unsqueeze(1) > 0, slow(ids, mask), method.encoder(ids, mask))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not method.embed(ids, mask, torch.full_like(views, view)).requires_grad


# ------------------------------------------------------------------ the queue


@pytest.mark.parametrize(
    ("size", "batches"), [(5, [2, 2, 2, 2]), (3, [3, 3]), (4, [7, 1]), (6, [1] * 9)]
)
def test_queue_keeps_the_newest_in_order_round_its_end(size: int, batches: list[int]) -> None:
    queue, seen = KeyQueue(size, 2), 0
    for count in batches:
        ids = torch.arange(seen, seen + count)
        queue.push(ids.unsqueeze(1).expand(-1, 2).float(), ids)
        assert not set(ids.tolist()) & set(queue.contents()[1].tolist())  # not before `advance`
        queue.advance()
        seen += count
        keys, kept = queue.contents()
        assert sorted(kept.tolist()) == list(range(max(0, seen - size), seen))
        assert torch.equal(keys[:, 0].long(), kept)


def test_queue_makes_the_round_trip_in_the_middle() -> None:
    whole, cut = KeyQueue(5, 1), KeyQueue(5, 1)
    for number in range(9):
        for queue in (whole, cut):
            queue.push(torch.full((2, 1), float(number)), torch.full((2,), number))
            queue.advance()
        fresh = KeyQueue(5, 1)
        fresh.load_state_dict(cut.state_dict(), strict=True)
        cut = fresh
    assert torch.equal(cut.keys, whole.keys)
    assert torch.equal(cut.ids, whole.ids)
    assert torch.equal(cut.state, whole.state)


def test_moco_never_meets_the_keys_of_its_own_batch(make: Make) -> None:
    method = make("moco", queue_size=9)
    held: list[int] = []
    for number in range(4):
        batch = batch_of(method, start=6 * number)
        ids = batch["text_ids"][:, 0].tolist()
        assert method.queue.contents()[1].tolist() != ids
        logs = step(method, start=6 * number)
        assert logs["queue"] == min(9, len(held))
        candidates = min(9, len(held)) + (1 if held else 6)
        assert logs["ln_batch"] == pytest.approx(math.log(candidates))
        held += ids
        assert sorted(method.queue.contents()[1].tolist()) == sorted(held[-9:])


def test_moco_is_its_formula_with_queue_and_without(make: Make) -> None:
    method = make("moco", queue_size=8, temperature=0.3)
    method.encoder.set_dropout(0.0)
    method.key_encoder.copy.set_dropout(0.0)
    texts = sentences(120)

    def project(rows: list[str], head: nn.Module) -> Tensor:
        with torch.no_grad():
            vectors: Tensor = head(method.encoder.encode(rows, to="torch", normalize=False))
        return vectors

    first = method(**batch_of(method))
    queries = project(texts[:6], method.head)
    # Key encoder and encoder are still the same.
    expected = info_nce(queries, queries, temperature=0.3)
    torch.testing.assert_close(first.loss.detach(), expected, rtol=1e-4, atol=1e-4)
    method.queue.advance()
    second = method(**batch_of(method, start=6))
    keys, queries = queries, project(texts[6:12], method.head)
    expected = momentum_contrast(queries, queries, keys, temperature=0.3).loss
    torch.testing.assert_close(second.loss.detach(), expected, rtol=1e-4, atol=1e-4)
    method.options = build_config("moco", {"in_batch": True})
    third = method(**batch_of(method, start=6))
    assert third.logs["ln_batch"] == pytest.approx(math.log(12))
    expected = info_nce(queries, torch.cat([queries, keys])[:6], keys.unsqueeze(1), temperature=0.3)
    torch.testing.assert_close(third.loss.detach(), expected, rtol=1e-4, atol=1e-4)


def test_moco_does_not_take_its_own_text_for_a_negative(make: Make) -> None:
    method = make("moco", queue_size=64, momentum=1.0)
    step(method, 0)
    logs = step(method, 0)
    assert logs["queue"] == 6
    # Only the five other texts are left; a key of the own text would win against the positive.
    keys, ids = method.queue.contents()
    assert len(keys) == 12
    assert len(set(ids.tolist())) == 6
    method.queue.ids[:12] = ids[0]
    batch = batch_of(method, 0)
    batch["text_ids"][:] = ids[0]
    assert method(**batch).loss.item() == 0.0


def test_held_out_rows_do_not_depend_on_the_queue(make: Make) -> None:
    method = make("moco", queue_size=30)
    batch = batch_of(method, start=30)
    with torch.no_grad():
        torch.manual_seed(1)
        before = method(**batch).loss
        for number in range(3):
            keys = torch.randn(6, 128)
            method.queue.push(keys, torch.arange(6) + 6 * number)
        method.queue.advance()
        torch.manual_seed(1)
        after = method(**batch).loss
    assert before.equal(after)
    assert not method.queue._pending


def test_queue_waits_for_all_parts_of_an_accumulated_step(make: Make) -> None:
    method = make("moco", queue_size=30)
    for start in (0, 6):
        logs = method(**batch_of(method, start)).logs
        assert logs["queue"] == 0
    method.after_step(0.1)
    assert len(method.queue) == 12


@pytest.mark.parametrize("name", ["moco", "byol", "simsiam"])
def test_resumed_in_the_middle_equals_uninterrupted(make: Make, name: str) -> None:
    options = {"queue_size": 9} if name == "moco" else {}
    whole, cut = make(name, **options), make(name, **options)
    for number in range(4):
        for method in (whole, cut):
            torch.manual_seed(number)
            step(method, 6 * number, number / 4)
        if number == 1:
            fresh = make(name, **options)
            fresh.load_state_dict(cut.state_dict(), strict=True)
            cut = fresh
    for key, value in whole.state_dict().items():
        assert torch.equal(value, cut.state_dict()[key]), key


# ------------------------------------------------------------------ each method's loss


def projected(method: Any, rows: list[str]) -> Tensor:
    vectors: Tensor = method.encoder.encode(rows, to="torch", normalize=False)
    return vectors


@pytest.mark.parametrize("batch_norm", [False, True])
def test_simclr_is_nt_xent_of_the_projections(make: Make, batch_norm: bool) -> None:
    method: SimCLR = make("simclr", temperature=0.4, batch_norm=batch_norm)
    method.encoder.set_dropout(0.0)
    texts = sentences(120)
    output = method(**batch_of(method, views=2))
    both = torch.stack([projected(method, texts[:6]), projected(method, texts[40:46])], dim=1)
    first, second = method.projector(both.flatten(0, 1)).view(6, 2, -1).unbind(1)
    expected = nt_xent(first, second, temperature=0.4)
    torch.testing.assert_close(output.loss, expected, rtol=1e-4, atol=1e-4)
    assert any(isinstance(m, nn.BatchNorm1d) for m in method.modules()) == batch_norm


def test_simclr_takes_no_copy_of_a_text_for_a_negative(make: Make) -> None:
    method: SimCLR = make("simclr")
    method.eval()
    batch = batch_of(method, rows=2, views=2)
    assert method(**batch).loss > 0
    # Two rows that share a positive: the other anchor is all that is left, for the anchors alone.
    batch["text_ids"][1, 1] = batch["text_ids"][0, 1]
    embeddings = method.embed(*Batch(**batch).rows(), torch.zeros(4, dtype=torch.int64))
    rows = nn.functional.normalize(method.projector(embeddings).view(2, 2, -1), dim=2) / 0.1**0.5
    own, other = (rows[:, 0] * rows[:, 1]).sum(dim=1), (rows[0, 0] @ rows[1, 0])
    back = torch.stack([rows[0, 1] @ rows[1, 0], rows[1, 1] @ rows[0, 0]])
    expected = torch.cat([(other - own).exp().log1p(), (back - own).exp().log1p()]).mean()
    torch.testing.assert_close(method(**batch).loss, expected, rtol=1e-4, atol=1e-4)


def test_byol_is_symmetric_and_predicts_the_other_view(make: Make) -> None:
    method: BYOL = make("byol")
    step(method, 20)  # the target differs from the online network
    method.encoder.set_dropout(0.0)
    method.target_encoder.copy.set_dropout(0.0)
    output = method(**batch_of(method, views=2))
    texts = sentences(120)
    columns = texts[:6], texts[40:46]
    online = [method.predictor(method.projector(projected(method, rows))) for rows in columns]
    target = [
        method.target_projector(
            method.target_encoder.copy.encode(rows, to="torch", normalize=False)
        )
        for rows in columns
    ]
    expected = normalized_mse(online[0], target[1]) + normalized_mse(online[1], target[0])
    torch.testing.assert_close(output.loss, expected, rtol=1e-4, atol=1e-4)
    assert not expected.equal(
        normalized_mse(online[0], target[0]) + normalized_mse(online[1], target[1])
    )


@pytest.mark.parametrize("stop_gradient", [True, False])
def test_simsiam_is_its_formula(make: Make, stop_gradient: bool) -> None:
    method: SimSiam = make("simsiam", stop_gradient=stop_gradient)
    method.encoder.set_dropout(0.0)
    batch = batch_of(method, views=2)
    embeddings = torch.stack(
        [projected(method, rows) for rows in (sentences(120)[:6], sentences(120)[40:46])], dim=1
    ).requires_grad_()
    output = method.loss(embeddings, Batch(**batch))
    p, z = [], []
    for view in (0, 1):
        z.append(method.projector(embeddings[:, view]))
        p.append(method.predictor(z[-1]))
    targets = [part.detach() for part in z] if stop_gradient else z
    expected = torch.zeros(())
    for one, other in ((p[0], targets[1]), (p[1], targets[0])):
        expected = expected - torch.cosine_similarity(one, other).mean() / 2
    torch.testing.assert_close(output.loss, expected)
    grads = [torch.autograd.grad(x, embeddings)[0] for x in (output.loss, expected)]
    torch.testing.assert_close(*grads, rtol=1e-4, atol=1e-6)
    assert negative_cosine(p[0], z[1]).requires_grad


def test_heads_have_the_layers_of_the_papers() -> None:
    def kinds(head: nn.Sequential) -> list[str]:
        return [type(layer).__name__ for layer in head]

    plain = relu_layers([8, 6, 4])
    assert kinds(plain) == ["Linear", "ReLU", "Linear"]
    byol: Any = relu_layers([8, 16, 4], batch_norm=True)
    assert kinds(byol) == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert byol[0].bias is None
    assert byol[3].bias is not None
    simsiam: Any = relu_layers([8, 8, 8, 8], batch_norm=True, last_norm=True)
    assert kinds(simsiam) == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    assert [layer.affine for layer in simsiam if isinstance(layer, nn.BatchNorm1d)] == [
        True,
        True,
        False,
    ]


def test_versions_of_moco(make: Make) -> None:
    first, second = make("moco", version="v1", queue_size=8), make("moco", queue_size=8)
    assert (first.temperature, second.temperature) == (0.07, 0.2)
    assert [len(first.head), len(second.head)] == [1, 3]
    assert make("moco", temperature=0.5, queue_size=8).temperature == 0.5


# ------------------------------------------------------------------ the dual encoder


def test_queries_and_keys_have_encoders_of_their_own(make: Make) -> None:
    method: DualEncoder = make(
        "dual_encoder", temperature=0.1, objective="info_nce(symmetric=True)"
    )
    with torch.no_grad():
        for weight in method.key_encoder.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    method.eval()
    texts = sentences(120)
    queries = projected(method, texts[:6])
    keys = method.key_encoder.encode(texts[40:46], to="torch", normalize=False)
    output = method(**batch_of(method, views=2))
    expected = info_nce(queries, keys, temperature=0.1, symmetric=True)
    torch.testing.assert_close(output.loss, expected, rtol=1e-4, atol=1e-4)
    torch.autograd.backward(output.loss)
    for encoder in (method.encoder, method.key_encoder):
        assert any(w.grad is not None and w.grad.any() for w in encoder.parameters())


# ------------------------------------------------------------------ collapse


@pytest.mark.parametrize("name", ["byol", "simsiam"])
def test_the_projector_is_measured_with_the_statistics_of_the_sample(make: Make, name: str) -> None:
    method = make(name).eval()
    vectors = torch.randn(12, 32)
    before = copy.deepcopy(method.monitored_head.state_dict())
    found = project_batch(method.monitored_head, vectors)
    torch.testing.assert_close(method.monitored_head.state_dict(), before, rtol=0, atol=0)
    assert not method.monitored_head.training
    torch.testing.assert_close(found, method.projector.train()(vectors).detach())


@pytest.mark.parametrize("name", ["byol", "simsiam"])
def test_a_checkpoint_that_still_holds_what_was_measured_first_loads(make: Make, name: str) -> None:
    first, second = make(name), make(name)
    old = first.state_dict() | {"watch.start": torch.zeros(2, 3, dtype=torch.float64)}
    second.load_state_dict(old, strict=True)
    torch.testing.assert_close(second.state_dict(), first.state_dict(), rtol=0, atol=0)


def test_each_method_names_its_own_remedy_for_a_collapse() -> None:
    assert "method.momentum" in str(build_config("byol", {}).collapse_remedy())
    assert build_config("simsiam", {}).collapse_remedy() is None
    unstopped = build_config("simsiam", {"stop_gradient": False})
    assert unstopped.collapse_remedy() == "set method.stop_gradient back to true"


# ------------------------------------------------------------------ bad input


@pytest.mark.parametrize("name", ["byol", "simsiam"])
def test_methods_without_negatives_say_so(name: str) -> None:
    method = METHODS.resolve(name)
    options = build_config(name, {})
    texts = DataSpec("texts")
    check_batch(method, options, texts, 2)
    assert options.contrast(texts, 64) == Contrast(0, needed=False)
    assert str(options.contrast(texts, 64)) == "no negatives"
    with pytest.raises(ConfigError, match=r"batch_size is 1, but .*use --batch-size 2") as caught:
        check_batch(method, options, texts, 1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["simclr", "moco"])
def test_one_row_leaves_nothing_to_tell_apart(name: str) -> None:
    with pytest.raises(ConfigError, match=r"batch_size is 1, which leaves no negatives for texts"):
        check_batch(METHODS.resolve(name), build_config(name, {}), DataSpec("texts"), 1)


def test_a_queue_smaller_than_a_batch_is_refused() -> None:
    options = build_config("moco", {"queue_size": 63})
    with pytest.raises(ConfigError) as caught:
        check_batch(MoCo, options, DataSpec("texts"), 64)
    assert str(caught.value) == (
        "method.queue_size is 63, less than a batch of 64; use --set method.queue_size=64 "
        "or more, or a smaller --batch-size"
    )
    check_batch(MoCo, options, DataSpec("texts"), 63)
    contrast = options.contrast(DataSpec("texts"), 32)
    assert str(contrast) == "31 negatives per anchor, up to 63 from the queue"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("moco", {"queue_size": 0}, "method.queue_size is 0: input should be greater than"),
        ("moco", {"momentum": 1.5}, "method.momentum is 1.5"),
        ("moco", {"version": "v3"}, "method.version is 'v3': input should be 'v1' or 'v2'"),
        ("byol", {"momentum": -0.1}, "method.momentum is -0.1"),
        ("simclr", {"temperature": 0}, "method.temperature is 0"),
        ("simsiam", {"predictor_size": 0}, "method.predictor_size is 0"),
        ("dual_encoder", {"objective": "cosine"}, "unknown objective 'cosine'"),
    ],
)
def test_wrong_options_are_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        build_config(name, options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_defaults_are_those_of_the_papers() -> None:
    chosen = {
        "simclr": {"temperature": 0.1, "projection_size": 128, "batch_norm": False},
        "moco": {"version": "v2", "momentum": 0.999, "queue_size": 65536, "projection_size": 128},
        "byol": {"momentum": 0.996, "projection_size": 256},
        "simsiam": {"stop_gradient": True},
    }
    for name, expected in chosen.items():
        assert expected.items() <= build_config(name, {}).model_dump().items()


def test_widths_scale_as_in_the_papers(make: Make) -> None:
    def widths(head: nn.Module) -> list[tuple[int, int]]:
        layers = [m for m in head.modules() if isinstance(m, nn.Linear)]
        return [(layer.in_features, layer.out_features) for layer in layers]

    assert widths(make("simclr").projector) == [(32, 32), (32, 128)]
    assert widths(make("moco", queue_size=8).head) == [(32, 32), (32, 128)]
    assert widths(make("byol").projector) == [(32, 64), (64, 256)]
    assert widths(make("byol").predictor) == [(256, 64), (64, 256)]
    assert widths(make("simsiam").projector) == [(32, 32)] * 3
    assert widths(make("simsiam").predictor) == [(32, 8), (8, 32)]
