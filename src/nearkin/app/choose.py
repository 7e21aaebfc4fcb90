"""`nearkin choose`: the method that suits one's own data best."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from tyro.conf import OmitArgPrefixes

from nearkin.app.output import Labels, Output

if TYPE_CHECKING:
    from nearkin.studies.chosen import Choice


def choose(
    data: str,
    output: OmitArgPrefixes[Output] = Output(),
    labels: Labels = "",
    backbone: str = "lite0",
    size: int = 224,
    dim: int = 128,
    jobs: int = 1,
) -> None:
    """Compare no training, closed forms and losses on your data, and say which to take, and how
    surely; `nearkin train --like best` then takes it.

    Photographs are embedded once, by a pretrained backbone; each method tries several settings,
    judged by training classes that it has not learnt from, or images where classes are shared.

    Example: nearkin choose --data images.csv --out grocery

    Args:
        data: a folder of pictures, a .csv of them, an .npz of features, or a name from `nearkin
            list`.
        labels: of a folder, which folders on the way to a picture name its class: all (nested),
            the last (parent) or the first (top).
        backbone: that embeds the photographs: lite0, lite2 or timm:NAME.
        size: side of the pictures in pixels.
        dim: of the embeddings.
        jobs: runs at a time.
    """
    from nearkin.data.sets.catalogue import with_labels
    from nearkin.runs.log import bar
    from nearkin.runs.machine import keep_freed_memory
    from nearkin.studies.choice import choose as search
    from nearkin.studies.chosen import Choice

    keep_freed_memory()
    place = replace(output.place())
    with bar() as shown:
        for found in search(
            with_labels(data, labels),
            output.out,
            dim=dim,
            backbone=backbone,
            size=size,
            jobs=jobs,
            place=place,
            bar=shown,
        ):
            if isinstance(found, Choice):
                print(in_words(found, output.out, following(data, labels, output.out)))
            else:
                shown.count("embedding", found.done, found.total)


def following(data: str, labels: str, out: Path) -> str:
    """What to type next, so that the choice is trained."""
    from nearkin.studies.chosen import FILE

    words = ["nearkin", "train", "--data", data, *(["--labels", labels] if labels else [])]
    return shlex.join([*words, "--like", str(out / FILE), "--out", "mine"])


def in_words(choice: Choice, out: Path, then: str) -> str:
    """The choice as a person reads it; then: what to type next."""
    from nearkin.studies.chosen import FILE

    width, name = max(len(tried.method) for tried in choice.tried), choice.metric_name
    lines = [f"{'method':<{width}}  {name} on validation  seconds of search"]
    lines += [
        f"{tried.method:<{width}}  {100 * tried.validation:>{len(name) + 12}.1f} %"
        f"  {tried.seconds:>17.1f}"
        for tried in choice.tried
    ]
    test, plain, apart = choice.test, choice.untrained, choice.difference
    lines += [
        "",
        f"chosen: {choice.method}",
        f"on the test part, which chose nothing: {100 * test.mean:.1f} % "
        f"({100 * test.low:.1f} to {100 * test.high:.1f}); no training {100 * plain.mean:.1f} %",
    ]
    if choice.sure:
        lines.append(
            f"surely better than no training: by {100 * apart.mean:.1f} points "
            f"({100 * apart.low:.1f} to {100 * apart.high:.1f}, 95 %, over test classes)"
        )
    else:
        lines.append(f"not sure: {choice.doubt}")
    lines.append(f"{out / FILE}; next: {then}")
    return "\n".join(lines)
