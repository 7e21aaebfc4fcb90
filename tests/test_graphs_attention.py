"""Attention layers equal torch-geometric's, PyTorch's and their equations, dense and on lists."""

import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nearkin import graphs
from nearkin.graphs import GAT, LAYERS, DotProduct, GATv2, GraphNetwork, Mean, NoEdges
from nearkin.graphs.attention import PARTS
from nearkin.names import resolve

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from torch_geometric.nn import GATConv, GATv2Conv, TransformerConv

ATTENTION = {"dot-product": DotProduct, "gat": GAT, "gatv2": GATv2, "mean": Mean}
BARE = ("residual", "norms", "feedforward")
DIM, HEADS = 12, 3


def batch(size: int = 10, dim: int = DIM, seed: int = 0) -> Any:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, dim, generator=generator, dtype=torch.double)


def sparse_graph(x):
    return graphs.knn(x, k=3, symmetry="union")


GRAPHS = {"full": graphs.full, "sparse": sparse_graph}


def make(name: str, seed: int = 0, dim: int = DIM, **options) -> Any:
    torch.manual_seed(seed)
    layer = resolve(LAYERS[name])(dim, **options).double()
    for parameter in layer.parameters():  # biases and norms too, which start at 0 and 1
        nn.init.normal_(parameter, std=0.5)
    return layer


def copy(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    with torch.no_grad():
        ours.copy_(theirs.reshape(ours.shape))


def gat_and_peer():
    layer = make("gat", heads=HEADS, without=BARE, shared_projection=True)
    peer: Any = GATConv(DIM, DIM // HEADS, HEADS, add_self_loops=False, bias=False).double()
    copy(layer.value.weight, peer.lin.weight)
    nn.init.zeros_(layer.value.bias)
    copy(layer.score.listener, peer.att_dst)
    copy(layer.score.speaker, peer.att_src)
    same = [(layer.score.listener, peer.att_dst), (layer.score.speaker, peer.att_src)]
    return layer, peer, [(layer.value.weight, peer.lin.weight), *same]


def gatv2_and_peer():
    layer = make("gatv2", heads=HEADS, without=BARE, shared_projection=True)
    peer = GATv2Conv(DIM, DIM // HEADS, HEADS, add_self_loops=False).double()
    pairs = [(layer.value, peer.lin_l), (layer.query, peer.lin_r)]
    for ours, theirs in pairs:
        nn.init.normal_(theirs.bias)
        copy(ours.weight, theirs.weight)
        copy(ours.bias, theirs.bias)
    copy(layer.score.weight, peer.att)
    return layer, peer, [*weights_and_biases(pairs), (layer.score.weight, peer.att)]


def dot_product_and_peer():
    layer = make("dot-product", heads=HEADS, without=("out", *BARE))
    peer = TransformerConv(DIM, DIM // HEADS, HEADS, root_weight=False).double()
    pairs = [
        (layer.query, peer.lin_query),
        (layer.key, peer.lin_key),
        (layer.value, peer.lin_value),
    ]
    for ours, theirs in pairs:
        copy(ours.weight, theirs.weight)
        copy(ours.bias, theirs.bias)
    return layer, peer, weights_and_biases(pairs)


def weights_and_biases(pairs):
    """Parameters to compare, of linear maps to compare."""
    weights = [(ours.weight, theirs.weight) for ours, theirs in pairs]
    return weights + [(ours.bias, theirs.bias) for ours, theirs in pairs]


@pytest.mark.parametrize("both", [dot_product_and_peer, gat_and_peer, gatv2_and_peer])
@pytest.mark.parametrize("graph", GRAPHS.values(), ids=GRAPHS)
@pytest.mark.parametrize("lists", [False, True], ids=["dense", "lists"])
def test_parity_with_torch_geometric(both, graph, lists):
    layer, peer, same = both()
    x, y = batch().requires_grad_(), batch().requires_grad_()
    adjacency = graph(x)
    ours, _ = layer(x, graphs.neighbour_lists(adjacency) if lists else adjacency)
    theirs = peer(y, adjacency.nonzero().T.flip(0))  # (speaker, listener)
    torch.testing.assert_close(ours, theirs)
    towards = batch(seed=1)
    (ours * towards).sum().backward()
    (theirs * towards).sum().backward()
    torch.testing.assert_close(x.grad, y.grad)
    for a, b in same:
        torch.testing.assert_close(a.grad, b.grad.reshape(a.shape))


def test_parity_with_pytorchs_transformer_layer():
    layer = make("dot-product", heads=HEADS)
    peer = nn.TransformerEncoderLayer(DIM, HEADS, 4 * DIM, dropout=0.0, batch_first=True).double()
    three = [layer.query, layer.key, layer.value]
    copy(peer.self_attn.in_proj_weight, torch.cat([p.weight for p in three]))
    copy(peer.self_attn.in_proj_bias, torch.cat([p.bias for p in three]))
    update = layer.update
    for theirs, ours in [
        (peer.self_attn.out_proj, layer.out),
        (peer.linear1, update.feedforward_in),
        (peer.linear2, update.feedforward_out),
        (peer.norm1, update.norm_attention),
        (peer.norm2, update.norm_feedforward),
    ]:
        copy(theirs.weight, ours.weight)
        copy(theirs.bias, ours.bias)
    x = batch()
    adjacency = sparse_graph(x)
    theirs = peer(x[None], src_mask=~adjacency)[0]
    torch.testing.assert_close(layer(x, adjacency)[0], theirs)


def columns(head: int, heads: int, x) -> slice:
    width = x.shape[1] // heads
    return slice(head * width, (head + 1) * width)


def slow_message(layer: Any, x, weight, edges, score):
    """Message of every node before the output projection, term by term; weight 0: no edge."""
    size = len(x)
    heads = layer.heads
    value = layer.value(x)
    query = value if layer.query is None else layer.query(x)
    key = value if layer.key is None else layer.key(x)
    message = torch.zeros_like(value)
    for i in range(size):
        for h in range(heads):
            part, wide = (columns(h, heads, x) for x in (query, value))
            total = torch.tensor(float(layer.null_neighbour), dtype=torch.double)
            heard = torch.zeros_like(value[0, wide])
            for j in range(size):
                if not weight[i, j]:
                    continue
                e = score(layer, h, query[i, part], key[j, part])
                gate = 1.0
                if layer.edge is not None and layer.gated:
                    gate = (layer.edge.weight[h] @ edges[i, j] + layer.edge.bias[h]).sigmoid()
                elif layer.edge is not None:
                    e = e + layer.edge.weight[h] @ edges[i, j]
                total = total + weight[i, j] * e.exp()
                heard = heard + weight[i, j] * e.exp() * gate * value[j, wide]
            message[i, wide] = heard / total
    return message


SLOW = {
    "dot-product": lambda layer, h, q, k: q @ k / len(q) ** 0.5,
    "gat": lambda layer, h, q, k: F.leaky_relu(
        layer.score.listener[h] @ q + layer.score.speaker[h] @ k, 0.2
    ),
    "gatv2": lambda layer, h, q, k: layer.score.weight[h] @ F.leaky_relu(q + k, 0.2),
    "mean": lambda layer, h, q, k: torch.zeros((), dtype=torch.double),
}


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"edges": "bias"},
        {"edges": "gate"},
        {"null_neighbour": True},
        {"without": ("query", "key", "value")},
        {"without": ("out",)},
    ],
    ids=str,
)
def test_equations_node_by_node(name, options):
    x = batch(6)
    layer = make(name, heads=HEADS, **options)
    adjacency = sparse_graph(x)
    edges = graphs.edge_features(x, adjacency)
    message = layer.out(slow_message(layer, x, adjacency.double(), edges, SLOW[name]))
    u = F.layer_norm(x + message, (DIM,)) * layer.update.norm_attention.weight
    u = u + layer.update.norm_attention.bias
    hidden = layer.update.feedforward_in(u).clamp_min(0)
    expected = F.layer_norm(u + layer.update.feedforward_out(hidden), (DIM,))
    expected = expected * layer.update.norm_feedforward.weight + layer.update.norm_feedforward.bias
    torch.testing.assert_close(layer(x, adjacency, edges)[0], expected)


@pytest.mark.parametrize("name", ATTENTION)
def test_a_weighted_graph_multiplies_attention_before_it_is_normalised(name):
    x = batch(6)
    layer = make(name, heads=HEADS, without=("out", *BARE))
    weight = torch.rand(6, 6, dtype=torch.double) * (torch.rand(6, 6) < 0.5) + torch.eye(6)
    weight.requires_grad_()
    expected = slow_message(layer, x, weight, None, SLOW[name])
    found, _ = layer(x, graphs.Graph.weighted(weight))
    torch.testing.assert_close(found, expected)
    gradient = [torch.autograd.grad(y.square().sum(), weight)[0] for y in (found, expected)]
    connected = weight > 0
    torch.testing.assert_close(gradient[0][connected], gradient[1][connected])
    assert gradient[0].isfinite().all()


@pytest.mark.parametrize("name", LAYERS)
def test_lists_and_matrices_agree_under_autocast(name):
    layer, x = make(name).float(), batch(size=20).float()
    adjacency = graphs.threshold(x, threshold=0.2)
    with torch.autocast("cpu", torch.bfloat16):
        dense, listed = (layer(x, a)[0] for a in (adjacency, graphs.neighbour_lists(adjacency)))
    torch.testing.assert_close(dense.float(), listed.float(), rtol=0.05, atol=0.05)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("edges", ["none", "bias", "gate"])
def test_lists_give_the_numbers_of_the_matrix(name, edges):
    if edges != "none" and name not in ATTENTION:
        return
    options: Any = {"edges": edges} if name in ATTENTION else {}
    layer = make(name, **options)
    found = []
    for lists in (False, True):
        x = batch(size=20).requires_grad_()
        adjacency = graphs.threshold(x, threshold=0.2)  # rows of many lengths
        adjacency = graphs.neighbour_lists(adjacency) if lists else adjacency
        nodes, _ = layer(x, adjacency, graphs.edge_features(x, adjacency))
        layer.zero_grad()
        (nodes * batch(20, seed=1)).sum().backward()
        found.append([nodes, x.grad, *(p.grad for p in layer.parameters())])
    for dense, listed in zip(*found, strict=True):
        torch.testing.assert_close(dense, listed)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(list(LAYERS)), st.integers(1, 12), st.integers(0, 99))
def test_a_permuted_batch_gives_permuted_nodes(name, size, seed):
    x = batch(size, seed=seed)
    layer = make(name, seed=seed)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(seed))
    adjacency = graphs.threshold(x, threshold=0.1)
    edges = graphs.edge_features(x, adjacency)
    before, _ = layer(x, adjacency, edges)
    after, _ = layer(x[order], adjacency[order][:, order], edges[order][:, order])
    torch.testing.assert_close(after, before[order])


@pytest.mark.parametrize("name", LAYERS)
def test_a_node_hears_only_those_it_listens_to(name):
    layer = make(name)
    x = batch(9).requires_grad_()
    adjacency = sparse_graph(x)
    nodes, _ = layer(x, adjacency, graphs.edge_features(x.detach(), adjacency))
    (gradient,) = torch.autograd.grad(nodes[0].sum() + (nodes[0] ** 2).sum(), x)
    heard = gradient.abs().sum(1) > 0
    if name == "no-edges":
        adjacency = torch.eye(9, dtype=torch.bool)
    assert (heard == adjacency[0]).all()


@pytest.mark.parametrize("name", LAYERS)
def test_gradients(name):
    layer = make(name, 0, 4, heads=2) if name != "graph-network" else make(name, 0, 4, edge_dim=3)
    x = batch(5, 4).requires_grad_()
    adjacency = graphs.knn(x, k=2)
    edges = graphs.edge_features(x.detach(), adjacency)

    def nodes(x, *parameters):
        given = dict(zip(dict(layer.named_parameters()), parameters, strict=True))
        return torch.func.functional_call(layer, given, (x, adjacency, edges))[0]

    assert torch.autograd.gradcheck(nodes, (x, *layer.parameters()))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("size", [0, 1])
def test_batches_of_no_node_and_of_one(name, size):
    layer = make(name)
    x = batch(size).requires_grad_()
    adjacency = torch.ones(size, size, dtype=torch.bool)
    for graph in (adjacency, graphs.neighbour_lists(adjacency)):
        nodes, _ = layer(x, graph, graphs.edge_features(x, graph))
        assert nodes.shape == (size, DIM)
        nodes.sum().backward()
        assert x.grad.isfinite().all()


def parameters(layer: nn.Module) -> int:
    return sum(p.numel() for p in layer.parameters())


def test_parameters_are_matched_and_all_of_use():
    wanted = parameters(DotProduct(512))
    for name in ("gat", "gatv2"):
        assert parameters(resolve(LAYERS[name])(512)) == wanted
    for name in ("mean", "no-edges"):
        assert abs(parameters(resolve(LAYERS[name])(512)) / wanted - 1) < 0.001
    for name in LAYERS:
        layer = make(name)
        x = batch()
        nodes, _ = layer(x, sparse_graph(x), graphs.edge_features(x, sparse_graph(x)))
        (nodes * batch(seed=1)).sum().backward()
        for key, parameter in layer.named_parameters():
            assert parameter.grad is not None, key
            if name != "dot-product" or key != "key.bias":  # softmax cancels it
                assert parameter.grad.abs().max() > 1e-9, key


@pytest.mark.parametrize("name", ["dot-product", "gat", "gatv2"])
@pytest.mark.parametrize("part", PARTS)
def test_each_part_can_be_left_out(name, part):
    whole, less = make(name), make(name, without=(part,))
    x = batch()
    assert not torch.allclose(whole(x, graphs.full(x))[0], less(x, graphs.full(x))[0])
    names = {n.split(".")[-2] for n, _ in whole.named_parameters()}
    gone = names - {n.split(".")[-2] for n, _ in less.named_parameters()}
    assert gone == {
        "residual": set(),
        "norms": {"norm_attention", "norm_feedforward"},
        "feedforward": {"feedforward_in", "feedforward_out", "norm_feedforward"},
    }.get(part, {part})


def test_nothing_left_is_the_mean_of_the_neighbours():
    x = batch()
    layer = Mean(DIM, without=PARTS)
    assert parameters(layer) == 0
    torch.testing.assert_close(layer(x, graphs.full(x))[0], x.mean(0).expand_as(x))
    torch.testing.assert_close(NoEdges(DIM, without=PARTS)(x, graphs.full(x))[0], x)


def test_dropout_drops_weights_of_attention_and_numbers_of_the_message():
    torch.manual_seed(0)
    layer, x = Mean(DIM, heads=1, without=PARTS, dropout=0.5), torch.ones(32, DIM)
    assert torch.equal(layer.eval()(x), x)
    heard = layer.train()(x)
    assert 0.4 < (heard == 0).float().mean() < 0.6  # of the message: the others are doubled
    left = heard[heard > 0] / 2 * 16  # of 32 weights of 1/32: these are doubled, too
    assert torch.equal(left, left.round())
    assert len(left.unique()) > 5
    assert left.mean() == pytest.approx(16, abs=2)


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_sums_to_one_and_less_beside_a_null_neighbour(name):
    x = batch()
    adjacency = sparse_graph(x)
    plain = make(name, heads=HEADS).attention(x, adjacency)
    assert plain.shape == (HEADS, len(x), len(x))
    torch.testing.assert_close(plain.sum(-1), torch.ones(HEADS, len(x), dtype=torch.double))
    assert (plain[:, ~adjacency] == 0).all()
    silent = make(name, heads=HEADS, null_neighbour=True).attention(x, adjacency)
    assert (silent.sum(-1) < 1).all()


def modal_share(attention) -> torch.Tensor:
    """Share of the listeners whose favourite is the most common one, per head."""
    favourites = attention.argmax(-1)
    return torch.stack([(f == f.mode().values).double().mean() for f in favourites])


def test_gat_is_static_and_the_others_are_dynamic():
    x = batch(40)
    share = {
        name: modal_share(make(name, heads=HEADS).attention(x, graphs.full(x)))
        for name in ("dot-product", "gat", "gatv2")
    }
    assert (share["gat"] == 1).all()
    assert share["gatv2"].mean() < 0.9
    assert share["dot-product"].mean() < 0.9


def dictionaries(count: int, keys: int, generator: torch.Generator):
    """Key nodes with names and values, query nodes with names; queries listen to all keys."""
    names = torch.eye(keys).repeat(count, 2, 1)
    values = torch.stack([torch.randperm(keys, generator=generator) for _ in range(count)])
    known = torch.cat([F.one_hot(values, keys), torch.zeros(count, keys, keys)], 1)
    one = torch.eye(2 * keys, dtype=torch.bool)
    one[keys:, :keys] = True
    adjacency = torch.block_diag(*[one] * count).bool()
    return torch.cat([names, known], 2).flatten(0, 1), adjacency, values


def look_up_accuracy(name: str, keys: int = 5, count: int = 20, steps: int = 200) -> float:
    """Accuracy on unseen dictionaries: each query must say the value of the key of its name.

    The problem of Brody et al. 2022, section 4.1, with one head and the papers' form of layers.
    """
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    layer = resolve(LAYERS[name])(2 * keys, heads=1, without=BARE, shared_projection=True)
    model = nn.ModuleList([layer, nn.Linear(2 * keys, keys)])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    right = torch.zeros(0)
    for _ in range(steps):
        x, adjacency, values = dictionaries(count, keys, generator)
        answer = model[1](layer(x, adjacency)[0]).unflatten(0, (count, -1))[:, keys:]
        right = answer.argmax(2) == values
        optimizer.zero_grad()
        F.cross_entropy(answer.flatten(0, 1), values.flatten()).backward()
        optimizer.step()
    return right.double().mean().item()


def test_dictionary_lookup_is_solved_by_gatv2_and_not_by_gat():
    assert look_up_accuracy("gatv2") == 1
    assert look_up_accuracy("gat") < 0.6


def test_dropout_acts_in_training_alone():
    x = batch()
    for name in ("dot-product", "graph-network"):
        layer = make(name, dropout=0.5)
        edges = graphs.edge_features(x, graphs.full(x))
        first, second = (layer(x, graphs.full(x), edges)[0] for _ in range(2))
        assert not torch.allclose(first, second)
        layer.eval()
        first, second = (layer(x, graphs.full(x), edges)[0] for _ in range(2))
        assert torch.equal(first, second)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GAT(10, heads=4), "heads must divide dim, got dim=10, heads=4"),
        (lambda: GAT(8, without=("norm",)), "did you mean 'norms'"),
        (lambda: GAT(8, without=("quer",)), "did you mean 'query'"),
        (lambda: GAT(8, edges="biass"), "did you mean 'bias'"),
        (lambda: DotProduct(8, shared_projection=True), "shared_projection is for GAT and GATv2"),
        (lambda: GAT(8, edges="bias", edge_in=3)(torch.ones(1, 8)), r"edges must be .* got none"),
        (lambda: GraphNetwork(8, aggregate="man"), "did you mean 'mean'"),
        (
            lambda: GraphNetwork(8, without=("resdual",)),
            "did you mean 'residual'",
        ),
        (
            lambda: GraphNetwork(8, without=("query",)),
            "unknown part of a node update",
        ),
    ],
)
def test_errors_say_what_was_wanted(call, message):
    with pytest.raises(ValueError, match=message):
        call()
