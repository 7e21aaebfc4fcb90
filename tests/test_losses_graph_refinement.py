"""Graph refinement is its formula, term by term; its options reach graph and layers, or fail."""

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from batches import batch
from nearkin import graphs
from nearkin.losses import make
from nearkin.losses.graph_refinement import GraphRefinement
from nearkin.losses.refinement_options import (
    SETTINGS,
    as_published,
    as_released,
    refinement_from_options,
)
from nearkin.tensors import unit

SIZES = [3, 3, 2, 1]


def built(**options) -> GraphRefinement:
    torch.manual_seed(0)
    return refinement_from_options(5, 8, **options).double()


def smoothed(logits, labels, smoothing, temperature):
    """Cross-entropy with smoothed labels, image by image."""
    terms = []
    for row, y in zip(logits / temperature, labels, strict=True):
        log_share = row - row.exp().sum().log()
        terms.append(-(1 - smoothing) * log_share[y] - smoothing * log_share.mean())
    return torch.stack(terms).mean()


def normalised(x):
    return (x - x.mean(0)) / (x.var(0, correction=0) + 1e-5).sqrt()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"neck": False, "layer": "gatv2", "builder": "knn", "k": 3},
        {"layers": 2, "concat": True, "temperature": 0.2},
        {"layers": 2, "every": True, "smoothing": 0.0},
        {"auxiliary": 0.5, "refined": 2.0, "input_linear": False},
    ],
    ids=str,
)
def test_formula(options):
    loss = built(dropout=0.0, **options)
    x, labels = batch(SIZES, dim=8)
    smoothing, temperature = options.get("smoothing", 0.1), options.get("temperature", 1.0)
    nodes = loss.refiner.refine(unit(x)).nodes
    outputs = nodes if loss.every else [loss.refiner.output(nodes)]
    expected = options.get("auxiliary", 1.0) * smoothed(
        x @ loss.classifier.weight.T + loss.classifier.bias, labels, smoothing, temperature
    )
    for output, classifier in zip(outputs, loss.heads, strict=True):
        output = normalised(output) if options.get("neck", True) else output
        logits = output @ list(classifier.parameters())[-1].T
        expected = expected + options.get("refined", 1.0) * smoothed(
            logits, labels, smoothing, temperature
        )
    torch.testing.assert_close(loss(x, labels), expected)


@pytest.mark.parametrize("layer", ["dot-product", "graph-network"])
@pytest.mark.parametrize("size", [1, 60])
def test_the_edge_loss_tells_kin_from_others(layer, size):
    options = {"layer": layer, "builder": "knn", "k": 4, "dropout": 0.0}
    loss, without = built(edge_loss=0.7, **options), built(**options)
    without.load_state_dict(loss.state_dict(), strict=False)
    x, labels = batch([size * s for s in SIZES], dim=8)
    found = loss(x, labels) - without(x, labels)
    adjacency = graphs.knn(unit(x), k=4)
    edges = graphs.edge_features(unit(x), adjacency)
    if layer == "graph-network":
        _, edges = loss.refiner.layers[0](loss.refiner.input_linear(unit(x)), adjacency, edges)
    kin = labels[:, None] == labels
    off = adjacency & ~torch.eye(len(x), dtype=torch.bool)
    terms = F.binary_cross_entropy_with_logits(
        loss.same_class(edges)[..., 0], kin.double(), reduction="none"
    )
    expected = 0.7 * (terms[off & kin].mean() + terms[off & ~kin].mean()) / 2
    torch.testing.assert_close(found, expected)


def test_any_refiner_serves():
    x, labels = batch(SIZES, dim=8)
    options: Any = {"layer": "gatv2", "layers": 2, "builder": "knn", "k": 3, "concat": True}
    flat = built(**options, heads=2, dropout=0.0, input_linear=False, every=False)
    layers = [graphs.GATv2(8, heads=2) for _ in range(2)]
    refiner = graphs.Refiner(partial(graphs.knn, k=3), layers, concat=True)
    loss = GraphRefinement(5, 8, refiner).double()
    loss.load_state_dict(flat.state_dict())
    assert loss.refiner is refiner
    torch.testing.assert_close(loss(x, labels), flat(x, labels))


def test_layers_of_many_kinds_follow_one_another():
    x, labels = batch(SIZES, dim=8)
    network = graphs.GraphNetwork(8, edge_dim=6)
    layers = [network, graphs.GAT(8, edges="bias", edge_in=6), graphs.DotProduct(8)]
    loss = GraphRefinement(5, 8, graphs.Refiner(graphs.full, layers), edge_loss=1.0).double()
    assert loss.same_class.in_features == 6
    assert loss(x, labels).isfinite()


def test_by_default_the_refiner_is_that_of_the_options():
    torch.manual_seed(0)
    loss, flat = GraphRefinement(5, 8).double(), built()
    loss.load_state_dict(flat.state_dict())
    x, labels = batch(SIZES, dim=8)
    torch.testing.assert_close(loss.eval()(x, labels), flat.eval()(x, labels))
    assert [repr(layer) for layer in loss.refiner.layers] == ["DotProduct(8, dropout=0.1)"]
    assert repr(loss.refiner.layers) == repr(flat.refiner.layers)


def test_the_classifiers_of_refined_nodes_start_small_and_their_neck_has_no_bias():
    torch.manual_seed(0)
    loss = GraphRefinement(200, 64)
    head: Any = loss.heads[0]
    norm, classifier = head
    assert classifier.bias is None
    assert classifier.weight.std().item() == pytest.approx(0.001, rel=0.05)
    assert not norm.bias.requires_grad
    assert (norm.bias == 0).all()
    loss(torch.randn(6, 64), torch.arange(6)).backward()
    assert norm.bias.grad is None
    assert norm.weight.grad is not None


def test_without_its_graph_it_is_cross_entropy():
    x, labels = batch(SIZES, dim=8)
    loss = built(refined=0.0)
    assert [name for name, _ in loss.named_parameters()] == ["classifier.weight", "classifier.bias"]
    expected = F.cross_entropy(loss.classifier(x), labels, label_smoothing=0.1)
    torch.testing.assert_close(loss(x, labels), expected)


def test_every_term_moves_the_embeddings():
    x, labels = batch(SIZES, dim=8)
    gradients = []
    for options in ({"refined": 0.0}, {"auxiliary": 0.0}, {"edge_loss": 1.0}):
        y = x.clone().requires_grad_()
        built(**options)(y, labels).backward()
        assert y.grad is not None
        assert (y.grad.abs().sum(1) > 0).all()
        gradients.append(y.grad)
    assert not torch.allclose(gradients[0], gradients[1])


def test_no_image_costs_nothing():
    x = torch.zeros(0, 8, dtype=torch.double, requires_grad=True)
    loss = built()(x, torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss == 0


def test_options_reach_graph_and_layers():
    options = {"builder": "threshold", "threshold": 0.3, "sign": "both", "layer": "gat"}
    options |= {"heads": 2, "without": "residual norms", "edges": "bias", "layers": 2}
    loss = make("graph-refinement", options, classes=5, dim=8)
    assert isinstance(loss, GraphRefinement)
    x, _ = batch(SIZES, dim=8)
    wanted = graphs.threshold(x, threshold=0.3, sign="both")
    assert (loss.refiner.graph(x).matrix() == wanted).all()
    for layer in loss.refiner.layers:
        assert isinstance(layer, graphs.AttentionBlock)
        assert (layer.heads, layer.update.residual, layer.edge_dim) == (2, False, 2)
        assert isinstance(layer.update.norm_attention, torch.nn.Identity)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 4}, "unknown option of graph 'full' 'k'"),
        ({"builder": "kn"}, "did you mean 'knn'"),
        ({"layer": "gats"}, "did you mean 'gat'"),
        ({"layer": "gat", "aggregate": "sum"}, "unknown option of layer 'gat' 'aggregate'"),
        ({"layer": "graph-network", "heads": 2}, "unknown option of layer 'graph-network' 'heads'"),
        ({"without": "norm"}, "did you mean 'norms'"),
        ({"layers": 0}, "layers must be"),
        ({"temperature": 0.0}, "temperature must be"),
        ({"concat": True, "every": True, "layers": 2}, "wanted concat or every"),
    ],
)
def test_errors_say_what_was_wanted(options, message):
    with pytest.raises(ValueError, match=message):
        built(**options)


def test_labels_outside_the_classes_and_miners_are_refused():
    x, labels = batch(SIZES, dim=8)
    with pytest.raises(ValueError, match=r"labels must be in 0..4"):
        built()(x, labels + 3)
    with pytest.raises(ValueError, match="takes no miner"):
        built()(x, labels, (labels, labels, labels))


@pytest.mark.parametrize("builder", [*graphs.BUILDERS, "knn by a learned similarity"])
@pytest.mark.parametrize("layer", graphs.LAYERS)
def test_every_graph_goes_with_every_layer(builder, layer):
    x, labels = batch(SIZES, dim=8)
    x.requires_grad_()
    name, learned = builder.split()[0], "learned" in builder
    similarity = "learned" if learned and name != "learned" else None
    loss = built(builder=name, similarity=similarity, layer=layer, edge_loss=1.0)
    loss(x, labels).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()
    weights = [p for key, p in loss.named_parameters() if key.endswith("builder.project.weight")]
    assert len(weights) == learned
    for weight in weights if layer != "no-edges" else []:
        assert weight.grad is not None
        assert weight.grad.isfinite().all()
        assert weight.grad.abs().max() > 1e-9


@pytest.mark.parametrize("builder", [*graphs.BUILDERS, "knn by a learned similarity"])
@pytest.mark.parametrize("layer", ["gatv2", "graph-network"])
def test_embeddings_that_diverged_give_nan_and_no_error(builder, layer):
    x, labels = batch(SIZES, dim=8)
    x[3] = torch.nan
    similarity = "learned" if builder not in graphs.BUILDERS else None
    loss = built(builder=builder.split()[0], similarity=similarity, layer=layer)
    assert loss(x, labels).isnan()
    assert loss(x * torch.nan, labels).isnan()


def test_the_temperature_of_a_learned_graph_reaches_its_control():
    x, labels = batch([8] * 5, dim=8)
    degrees = []
    for temperature in (0.01, 10.0):
        like = {"builder": "random", "like": "learned", "graph_temperature": temperature}
        learned = built(builder="learned", graph_temperature=temperature)
        wanted = learned.refiner.graph(unit(x)).connected.sum(1)
        assert (built(**like).refiner.graph(unit(x), labels).connected.sum(1) == wanted).all()
        degrees.append(wanted.sum())
    assert degrees[0] < degrees[1]


def test_monitor_says_where_attention_goes():
    x, labels = batch(SIZES, dim=8)
    loss = built(layers=2, heads=2)
    shares = loss.monitor(x, labels)
    names = ("attention_self", "attention_within", "attention_across")
    assert sum(shares[name] for name in names) == pytest.approx(1)
    mean = torch.stack(loss.refiner.attention(unit(x), graphs.full(x))).mean((0, 1))
    kin = [
        (i, j) for i in range(len(x)) for j in range(len(x)) if i != j and labels[i] == labels[j]
    ]
    expected = sum(mean[i, j].item() for i, j in kin) / len(x)
    assert shares["attention_within"] == pytest.approx(expected)
    assert shares["degree"] == len(x) - 1
    assert shares["kin_heard"] == pytest.approx(len(kin) / (len(x) * (len(x) - 1)))
    assert shares["attention_self"] == pytest.approx(mean.diagonal().mean().item())
    assert loss.eval().monitor(x, labels) == shares
    assert built(builder="label-guided").eval().monitor(x, labels)["attention_within"] > 0
    assert built(refined=0.0).monitor(x, labels) == {}
    mean = built(layer="mean", builder="random", k=2)  # of itself and two others, drawn once
    for seed in range(5):
        torch.manual_seed(seed)
        said = mean.monitor(x, labels)
        assert said["attention_within"] == pytest.approx(said["kin_heard"] * 2 / 3)
    said = built(layer="graph-network", builder="knn", k=3).monitor(x, labels)
    assert set(said) == {"degree", "kin_heard"}
    assert said["degree"] == 3


@pytest.mark.parametrize("data", SETTINGS)
def test_settings_of_the_paper_and_of_its_code(data):
    x, labels = batch(SIZES, dim=8)
    published: Any = make("graph-refinement", as_published(data), classes=5, dim=8).double()
    released: Any = make("graph-refinement", as_released(data), classes=5, dim=8).double()
    assert published(x, labels).isfinite()
    assert released(x, labels).isfinite()
    assert published.rates() == {}
    if data == "sop":
        assert not hasattr(released, "refiner")
    else:
        assert all(layer.null_neighbour for layer in released.refiner.layers)
        assert not any(layer.null_neighbour for layer in published.refiner.layers)


def test_learns_to_tell_classes_apart():
    torch.manual_seed(0)
    x, labels = batch([8] * 5, dim=8)
    x.requires_grad_()
    loss = GraphRefinement(5, 8, auxiliary=0.0).double()
    optimizer = torch.optim.Adam([x, *loss.parameters()], lr=0.01)
    values = []
    for _ in range(60):
        value = loss(x, labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert values[-1] < 0.6 * values[0]
