"""`nk.Doctor`: it looks at a training loop, one's own or ours, and says what ails it.

Dimensions: B batch, D embedding.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from nearkin.doctor.birth import birth_of
from nearkin.doctor.crowd import crowd_of, swallowing
from nearkin.doctor.history import History, Look, Test
from nearkin.doctor.illness import Diagnosis, sorted_by_severity
from nearkin.doctor.proxies import Proxies, proxies_of
from nearkin.doctor.reading import (
    changes,
    gradient_of,
    level_of,
    margin_of,
    metric_or_none,
    parts_of,
    quiet_active,
)
from nearkin.doctor.rules import ail, of_set
from nearkin.doctor.rules_of_runs import suspicious
from nearkin.doctor.rules_of_sets import KINDS
from nearkin.doctor.shape import shape_of
from nearkin.measure.inputs import check_embeddings, check_labels, matrix
from nearkin.names import look_up

SOON = 10  # steps from one look to the next, at first
LATER = 1.1  # and later on: the tenth part of all steps before
FLUSH = 20  # steps after which losses on a GPU are read


class Doctor:
    """It is shown each step of a training loop, and says what ails it and what cures it.

        doctor = nk.Doctor(tell=print)
        for x, y in loader:
            embeddings = net(x)
            value = loss(embeddings, y)
            optimizer.zero_grad()
            value.backward()
            doctor.step(embeddings, y, value, net, loss, optimizer)
            optimizer.step()
        doctor.test(net(new), new_labels)
        print(*doctor.diagnoses(), sep="\\n")

    It reads, and changes nothing: no weight, no random number. A look at a batch takes some
    milliseconds; after the first hundred steps the next one comes a tenth of all steps later, so
    that 100,000 steps have a hundred looks. docs/doctor.md has the illnesses and their thresholds.

    Args:
        metric: what near means: cosine, inner or euclidean; "": what the loss says, else whichever
            of cosine and euclidean finds more kin.
        tell: called with a line for each illness, once, when it has lasted for a third of the run.
        known: settings by which cures become exact, as a recipe names them.
    """

    def __init__(
        self,
        metric: str = "",
        tell: Callable[[str], Any] | None = None,
        known: Mapping[str, Any] | None = None,
    ):
        self.metric, self.tell = metric, tell
        self.history = History(known=dict(known or {}))
        self.of_data: list[Diagnosis] = []
        self.next, self.told, self.since = 1, set[str](), dict[str, int]()
        self.waiting: list[Tensor] = []  # losses on a GPU that were not read yet
        self.weights: dict[str, Tensor] = {}  # a part of each matrix, at the last look
        self.first: dict[str, Tensor] = {}  # and at the first
        self.proxies: Proxies | None = None
        self.into, self.before = Counter[tuple[int, bool]](), Counter[tuple[int, bool]]()
        self.turned = 1  # the step at which `into` began
        self.heard: dict[int, Any] = {}  # hooks, by the module that they listen to
        self.inputs: tuple[Any, ...] = ()

    def step(
        self,
        embeddings: Tensor,
        labels: Any,
        loss: Tensor | float,
        module: nn.Module | Iterable[nn.Parameter] | None = None,
        criterion: Any = None,
        optimizer: torch.optim.Optimizer | None = None,
    ) -> list[Diagnosis]:
        """One step, after `backward` and before the optimiser's.

        Args:
            embeddings: (B, D) of the batch. labels: (B,), integers or text.
            loss: the value.
            module: the network, or its parameters: for learning rates that are too high or low,
                batch norm, and the layer that bore NaN.
            criterion: the loss itself: for its margin, its proxies, its active pairs.
            optimizer: whose learning rate cures are made of.

        Returns:
            What is found for the first time, and has lasted for a third of the run.
        """
        history = self.history
        if history.born:
            return []
        history.steps += 1
        step = history.steps
        if isinstance(module, nn.Module):
            self.listen(module)
        self.after_look(module)
        known = len(history.losses)
        self.take(loss)
        for place, value in enumerate(history.losses[known:], known):
            if not math.isfinite(value):
                return self.not_finite(place + 1, embeddings, module, criterion)
        if step < self.next:
            return []
        self.next = max(step + min(step, SOON), math.ceil(step * LATER))
        return self.look(embeddings, labels, module, criterion, optimizer)

    def take(self, loss: Tensor | float) -> None:
        """Keep the value of the loss; on a GPU it is read later, so that nobody waits for it."""
        if isinstance(loss, Tensor) and loss.is_cuda:
            self.waiting.append(loss.detach())
            if len(self.waiting) < FLUSH and self.history.steps < self.next:
                return
            values = torch.stack(self.waiting).double().tolist()
            self.waiting.clear()
        else:
            values = [loss.item() if isinstance(loss, Tensor) else float(loss)]
        self.history.losses += values

    def not_finite(self, step: int, embeddings: Tensor, module: Any, criterion: Any) -> list:
        """Find out what bore it, and keep the history of before."""
        inputs = self.inputs if step == self.history.steps else ()
        part = module if isinstance(module, nn.Module) else None
        self.history.born = birth_of(step, embeddings.detach(), part, inputs, criterion)
        del self.history.losses[step - 1 :]
        self.stop_listening()
        return self.announce()

    @torch.no_grad()
    def look(
        self, embeddings: Tensor, labels: Any, module: Any, criterion: Any, optimizer: Any
    ) -> list[Diagnosis]:
        """Look at a batch."""
        x, history = embeddings.detach(), self.history
        y = check_labels(x, labels, "embeddings'")
        if not history.looks:
            self.metric = self.metric or metric_or_none(criterion)
            history.margin = margin_of(criterion)
            self.proxies = proxies_of(criterion, x.shape[1])
        if optimizer is not None:
            self.note(criterion, optimizer, x.shape)
        if not x.isfinite().all():  # the loss of the next step will not be finite
            return []
        shape, nearest = shape_of(x, y, self.metric)
        self.metric = shape.metric
        self.count(y[: shape.items], y[nearest])
        travelled = self.remember(module)
        unmoved, unused = self.proxies.look(x, y) if self.proxies else (None, None)
        history.looks.append(
            Look(
                step=history.steps,
                loss=history.losses[-1],
                shape=shape,
                gradient=gradient_of(module),
                travelled=travelled,
                active=None if criterion is None else quiet_active(criterion, x, y),
                unmoved=unmoved,
                unused=unused,
                displaced=self.displaced(module, x),
                level=level_of(criterion, x, y) if suspicious(history, shape) else None,
            )
        )
        return self.announce()

    def note(self, criterion: Any, optimizer: torch.optim.Optimizer, shape: Any) -> None:
        """Settings that cures are made of, where nobody told them."""
        for name, value in (
            ("lr", max(float(group["lr"]) for group in optimizer.param_groups)),
            ("weight_decay", float(optimizer.param_groups[0].get("weight_decay", 0.0))),
            ("batch", shape[0]),
            ("dim", shape[1]),
        ):
            self.history.known.setdefault(name, value)

    # weights and layers

    def remember(self, module: Any) -> float | None:
        """Keep a part of each matrix; how far the farthest has travelled since the first look."""
        now = parts_of(module)
        self.weights = now
        if not self.first:
            self.first = now
        shares = changes(self.first, now)
        return max(shares) if shares else None

    def after_look(self, module: Any) -> None:
        """One step after a look: how far weights moved in it."""
        if not self.weights:
            return
        shares = sorted(changes(self.weights, parts_of(module)))
        self.weights = {}
        if shares and self.history.looks:
            last = self.history.looks[-1]
            moved = shares[len(shares) // 2]
            self.history.looks[-1] = Look(**{**vars(last), "moved": moved})

    def listen(self, module: nn.Module) -> None:
        """Hold the batch that comes to a network in training: for a second pass of it."""
        if id(module) in self.heard:
            return
        self.stop_listening()

        def hear(part: nn.Module, inputs: tuple) -> None:
            if part.training and torch.is_grad_enabled():
                self.inputs = inputs

        self.heard[id(module)] = module.register_forward_pre_hook(hear)

    def stop_listening(self) -> None:
        """Let go of the network and its batch."""
        for hook in self.heard.values():
            hook.remove()
        self.heard, self.inputs = {}, ()

    def displaced(self, module: Any, x: Tensor) -> float | None:
        """How far the embeddings move when running statistics stand in place of the batch's own."""
        looks = len(self.history.looks)
        if not isinstance(module, nn.Module) or looks < 6 or looks % 2:
            return None
        live = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.training]
        inputs = self.inputs
        if not live or not inputs or not isinstance(inputs[0], Tensor):
            return None
        if len(inputs[0]) != len(x):
            return None
        for norm in live:
            norm.eval()
        try:
            with torch.random.fork_rng(devices=[]):
                moved = (module(*inputs) - x).square().sum()
        finally:
            for norm in live:
                norm.train()
        spread = (x - x.mean(0)).square().sum()
        return (moved / spread).sqrt().item() if spread > 0 else None

    def count(self, labels: Tensor, nearest: Tensor) -> None:
        """Count whose nearest is of which class: over this half of the run, and the one before."""
        if self.history.steps >= 2 * self.turned:
            self.into, self.before = Counter(), self.into
            self.turned = self.history.steps
        kinds, into, others = swallowing(labels, nearest)
        for kind, taken, rest in zip(kinds.tolist(), into.tolist(), others.tolist(), strict=True):
            self.into[kind, True] += taken
            self.into[kind, False] += rest
        both = self.into + self.before
        shares = {
            kind: (taken / both[kind, False], both[kind, False])
            for (kind, is_taken), taken in both.items()
            if is_taken and both[kind, False]
        }
        if shares:
            kind = max(shares, key=lambda each: shares[each][0])
            self.history.swallower = kind
            self.history.swallowed, self.history.others = shares[kind]

    # what else there is to see

    def test(self, embeddings: Any, labels: Any, metric: str = "") -> float:
        """Items that are not trained on, at any time: R@1 of each among all the others.

        Called once an epoch it tells when training classes are memorised.
        """
        x = matrix(embeddings, "embeddings")
        y = check_labels(x, labels, "embeddings'")
        shape, _ = shape_of(x.detach(), y, metric or self.metric, most=len(x))
        self.history.whole = shape if self.history.steps else None
        self.tested(shape.recall, len(x), shape.chance)
        return shape.recall

    def tested(self, recall: float, items: int, chance: float = 0.0) -> None:
        """R@1 of so many items that are not trained on, as somebody else has found it."""
        self.history.tests.append(Test(self.history.steps, recall, chance, items))
        self.announce()

    def examine(
        self, embeddings: Any, labels: Any, test: Any = None, *, kind: str = "vectors"
    ) -> list[Diagnosis]:
        """A whole set of vectors; see `nearkin.doctor.examine`. `diagnoses` has them too."""
        metric, known = ("" if kind == "inputs" else self.metric), self.history.known
        self.of_data = examine(embeddings, labels, test, metric=metric, known=known, kind=kind)
        self.announce(at_once=True)
        return self.of_data

    def diagnoses(self) -> list[Diagnosis]:
        """What ails the run, as far as it has come; the gravest first."""
        if self.waiting:
            self.history.losses += torch.stack(self.waiting).double().tolist()
            self.waiting.clear()
        found = {d.name: d for d in [*ail(self.history), *self.of_data]}
        return sorted_by_severity(list(found.values()))

    def announce(self, at_once: bool = False) -> list[Diagnosis]:
        """What is found for the first time, and has lasted for a third of the run, or is told at
        once."""
        step, new = self.history.steps, []
        now = self.diagnoses()
        self.since = {d.name: self.since.get(d.name, step) for d in now}
        for found in now:
            lasting = self.since[found.name] <= 2 * step / 3
            if found.name not in self.told and (lasting or at_once or self.history.born):
                self.told.add(found.name)
                new.append(found)
                if self.tell:
                    self.tell(f"{found}")
        return new

    def close(self) -> list[Diagnosis]:
        """The end of the training: what was not told yet is told, and the network let go."""
        self.stop_listening()
        self.announce(at_once=True)
        return self.diagnoses()


def examine(
    embeddings: Any,
    labels: Any,
    test: Any = None,
    *,
    metric: str = "",
    known: Mapping[str, Any] | None = None,
    kind: str = "vectors",
) -> list[Diagnosis]:
    """What ails a set of vectors: its shape, copies, leaks, labels and scale; the gravest first.

    Args:
        embeddings: (N, D). labels: (N,), integers or text.
        test: (N,) bool, which items are those of the test set; by default there is none.
        metric: what near means; "": cosine or euclidean, whichever finds more kin.
        known: settings by which cures become exact, as a recipe names them.
        kind: vectors; or inputs of a network, whose shape and classes are no fault of training; or
            embeddings, whose scale is no fault of the inputs.
    """
    x = matrix(embeddings, "embeddings")
    y = check_labels(x, labels, "embeddings'")
    apart = None if test is None else torch.as_tensor(test, dtype=torch.bool)
    if apart is not None and apart.shape != y.shape:
        raise ValueError(f"test must be {len(y)} booleans, one a row, got {tuple(apart.shape)}")
    if len(x) < 3:
        raise ValueError(f"a set wants three items or more, got {len(x)}")
    check_embeddings(x, zero=True)
    rules = look_up(kind, KINDS, "kind")
    return sorted_by_severity(of_set(crowd_of(x, y, apart, metric), known, rules))
