"""Large batches in small pieces: the loss sees the whole batch, the network a piece at a time.

Dimensions: B batch, D embedding.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Pulled:
    """What the way back through a loss leaves.

    embeddings: (B, D) of the whole batch, and `value`, their loss, both detached.
    gradients: of the loss by each tensor of rows that went into it; None where it has none.
    """

    embeddings: Tensor
    value: Tensor
    gradients: list[Tensor | None]


def cached_backward(
    embed: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    chunk: int,
    backward: Callable[..., None] = torch.autograd.backward,
) -> tuple[Tensor, Tensor]:
    """Embed in chunks, take one loss over the whole batch, and leave gradients in the parameters.

        1. y = embed(x), chunk by chunk, remembering nothing for the way back
        2. g = d loss(y) / d y, over the whole batch
        3. embed each chunk again, and go back from g

    The memory is that of one chunk, the time that of one more forward pass, and the gradients are
    those of the whole batch: dropout draws the same numbers in 3 as in 1. Live batch normalisation
    differs, since it sees a chunk and not the batch, twice; that is warned of.

    Source: Gao, Zhang, Han & Callan, Scaling deep contrastive learning batch size under memory
    limited setup, RepL4NLP 2021, arXiv:2101.06983, section 3.2.

    Args:
        embed: (B, ...) -> (B, D).
        inputs: (B, ...).
        labels: (B,).
        loss: (embeddings, labels) -> scalar; its own parameters get their gradients too.
        chunk: images embedded at a time.
        backward: (tensor, gradient) -> nothing; Fabric's, say.

    Returns:
        The embeddings (B, D) and the loss, both detached.
    """

    def pull(rows: Tensor) -> Pulled:
        embeddings = rows.requires_grad_()
        value = loss(embeddings, labels)
        backward(value)
        return Pulled(embeddings.detach(), value.detach(), [embeddings.grad])

    found = in_chunks(embed, inputs, chunk, pull, backward)
    return found.embeddings, found.value


def in_chunks(
    embed: nn.Module,
    inputs: Tensor,
    chunk: int,
    pull: Callable[[Tensor], Pulled],
    backward: Callable[..., None] = torch.autograd.backward,
) -> Pulled:
    """Embed rows in chunks, and go back from the gradients that `pull` finds of them.

    pull: embeddings (n, D) of the rows -> what the loss leaves; other processes may hold the rest
    of the batch.
    """
    if chunk < 1:
        raise ValueError(f"chunk must be 1 or more, got {chunk}")
    if any(isinstance(m, nn.modules.batchnorm._BatchNorm) and m.training for m in embed.modules()):
        warnings.warn(
            "live batch normalisation sees chunks, not the batch: so gradients differ",
            stacklevel=3,
        )
    noise, rows = [], []
    with torch.no_grad():
        for part in inputs.split(chunk):
            noise.append(random_state(inputs.device))
            rows.append(embed(part))
    found = pull(torch.cat(rows))
    after, (whole,) = random_state(inputs.device), found.gradients
    assert whole is not None
    for part, gradient, state in zip(inputs.split(chunk), whole.split(chunk), noise, strict=True):
        set_random_state(inputs.device, state)
        backward(embed(part), gradient)
    set_random_state(inputs.device, after)
    return found


def random_state(device: torch.device) -> tuple[Tensor, ...]:
    """Where the generators stand that dropout may draw from: the CPU's and the device's."""
    here = torch.get_rng_state()
    return (here,) if device.type == "cpu" else (here, torch.cuda.get_rng_state(device))


def set_random_state(device: torch.device, state: tuple[Tensor, ...]) -> None:
    """Put the generators back to where they stood."""
    torch.set_rng_state(state[0])
    if device.type != "cpu":
        torch.cuda.set_rng_state(state[1], device)
