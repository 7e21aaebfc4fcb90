"""Embedding in chunks leaves the loss and every gradient as they are for the batch in one piece."""

import copy
import warnings

import pytest
import torch
from torch import nn

from nearkin.losses import Memory, RatioTriplet, Triplet, cached_backward


def network(*extra):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), *extra, nn.Tanh(), nn.Linear(8, 3)).double()


def batch_of_images():
    x = torch.randn(13, 5, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    return x, torch.arange(13) % 4


def gradients(embed):
    return [p.grad for p in embed.parameters()]


@pytest.mark.parametrize("chunk", [1, 4, 13, 50])
@pytest.mark.parametrize("loss", [RatioTriplet(), Triplet(0.5), Memory(RatioTriplet(), 10)])
def test_gradients_are_those_of_the_whole_batch(chunk, loss):
    x, y = batch_of_images()
    frozen = nn.BatchNorm1d(8).double().eval()
    whole = network(frozen)
    frozen.eval()
    pieces = copy.deepcopy(whole)
    value = copy.deepcopy(loss)(whole(x), y)
    value.backward()
    embeddings, cached = cached_backward(pieces, x, y, copy.deepcopy(loss), chunk)
    torch.testing.assert_close(cached, value.detach())
    torch.testing.assert_close(embeddings, whole(x).detach())
    torch.testing.assert_close(gradients(pieces), gradients(whole), atol=1e-6, rtol=1e-6)


def test_dropout_draws_the_same_numbers_again():
    """Chunk by chunk on one graph is the reference; what the loss draws comes after them all."""

    def loss(x, y):
        return RatioTriplet()(nn.functional.dropout(x, 0.2), y)

    x, y = batch_of_images()
    whole = network(nn.Dropout(0.5))
    pieces = copy.deepcopy(whole)
    torch.manual_seed(7)
    loss(torch.cat([whole(part) for part in x.split(4)]), y).backward()
    expected_next = torch.rand(1)
    torch.manual_seed(7)
    cached_backward(pieces, x, y, loss, 4)
    assert torch.rand(1) == expected_next
    torch.testing.assert_close(gradients(pieces), gradients(whole))


def test_the_parameters_of_the_loss_get_their_gradients():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones((), dtype=torch.double))

        def forward(self, x, y):
            return RatioTriplet()(self.scale * x, y)

    x, y = batch_of_images()
    whole, pieces, embed = Scaled(), Scaled(), network()
    whole(embed(x), y).backward()
    cached_backward(embed, x, y, pieces, 4)
    torch.testing.assert_close(pieces.scale.grad, whole.scale.grad)


def test_live_batch_normalisation_is_warned_of():
    x, y = batch_of_images()
    embed = network(nn.BatchNorm1d(8))
    with pytest.warns(UserWarning, match="sees chunks, not the batch"):
        cached_backward(embed, x, y, RatioTriplet(), 7)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cached_backward(embed.eval(), x, y, RatioTriplet(), 7)


def test_the_way_back_may_be_anothers():
    x, y = batch_of_images()
    calls = []

    def backward(tensor, *gradient):
        calls.append(tensor.shape)
        torch.autograd.backward(tensor, *gradient)

    cached_backward(network(), x, y, RatioTriplet(), 5, backward)
    assert calls == [(), (5, 3), (5, 3), (3, 3)]
    with pytest.raises(ValueError, match="got 0"):
        cached_backward(network(), x, y, RatioTriplet(), 0)
