"""Classification of embeddings refined by message passing over their batch.

Dimensions: B batch, D embedding, C classes, L layers, D' = D or L D refined features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearkin.graphs.build import make_builder
from nearkin.graphs.edges import EDGE_START, edge_features
from nearkin.graphs.graph import Graph
from nearkin.graphs.refiner import Refiner, make_layers
from nearkin.losses.inputs import (
    Labels,
    Mined,
    above,
    at_least,
    checked_labels,
    peer_names,
    refuse,
    within,
)
from nearkin.names import Plain, look_up
from nearkin.tensors import masked_mean, pair_masks, unit


@peer_names
class GraphRefinement(nn.Module):
    """Classification of embeddings that message passing over their batch has refined.

        h = Refiner(A f / |f|)                      message passing over the batch, (B, D')
        loss = auxiliary CE(W f / T) + refined CE(V BN(h) / T) + edge_loss BCE(w . e_ij, y_i = y_j)

    CE with labels smoothed, (1 - s) onehot + s / C. The backbone's embedding f learns from both;
    the graph is thrown away after training, and f / |f| is what is searched by. With refined = 0
    there is no graph at all: cross-entropy on f alone.

    Source: Seidenschwarz, Elezi & Leal-Taixé, Learning intra-batch connections for deep metric
    learning, ICML 2021, arXiv:2102.07753, section 3, and its released code (dvl-tum/intra_batch).
    `as_published` and `as_released` give its settings as options.
    Differs: the released softmax has a neighbour that says nothing, here an option. Its quirks
    outside the loss (a typed standard deviation, learning rates, epochs chosen on test images) are
    not ours. Graphs, layers and edges other than full, dot-product and none are new, and so is the
    loss of the edges: each kind of pair, kin and not, counts half.

    Args:
        classes: C.
        dim: D.
        builder: the graph, a name of `nearkin.graphs.BUILDERS`, with its options k, threshold,
            ratio, symmetry, sign, similarity (cosine, correlation or learned), bonus, like,
            graph_temperature.
        layer: a name of `nearkin.graphs.LAYERS`, with its options heads, without (parts to leave
            out, separated by spaces), shared_projection, edges, edge_dim, aggregate,
            null_neighbour, dropout. An option left at None is the builder's or layer's own.
        layers: L.
        input_linear: whether A maps the embeddings before the first layer.
        concat: classify the outputs of all layers side by side.
        every: classify the output of every layer, and add the losses up.
        neck: BN, batch normalisation without a bias, before each classifier of refined nodes.
        smoothing: s.
        temperature: T.
        auxiliary, refined, edge_loss: weights of the three terms.
        rate: the learning rate that the classifiers ask for; 0 takes the run's.
    """

    metric = "cosine"

    def __init__(
        self,
        classes: int,
        dim: int,
        builder: str = "full",
        k: int | None = None,
        threshold: float | None = None,
        ratio: float | None = None,
        symmetry: str | None = None,
        sign: str | None = None,
        similarity: str | None = None,
        bonus: float | None = None,
        like: str | None = None,
        graph_temperature: float | None = None,
        layer: str = "dot-product",
        layers: int = 1,
        heads: int | None = None,
        without: str = "",
        shared_projection: bool | None = None,
        edges: str | None = None,
        edge_dim: int | None = None,
        aggregate: str | None = None,
        null_neighbour: bool | None = None,
        dropout: float = 0.1,
        input_linear: bool = True,
        concat: bool = False,
        every: bool = False,
        neck: bool = True,
        smoothing: float = 0.1,
        temperature: float = 1.0,
        auxiliary: float = 1.0,
        refined: float = 1.0,
        edge_loss: float = 0.0,
        rate: float = 0.01,
    ):
        super().__init__()
        at_least(1, layers=layers)
        above(0, temperature=temperature)
        within(0, 1, smoothing=smoothing)
        at_least(0, auxiliary=auxiliary, refined=refined, edge_loss=edge_loss, rate=rate)
        if concat and every:
            raise ValueError("wanted concat or every: outputs side by side, or classified each")
        self.concat, self.every, self.rate = concat, every, rate
        self.smoothing, self.temperature = smoothing, temperature
        self.weights = {"auxiliary": auxiliary, "refined": refined, "edges": edge_loss}
        self.classifier = nn.Linear(dim, classes)
        if not refined:
            return
        graph = make_builder(
            builder,
            dim=dim,
            k=k,
            threshold=threshold,
            ratio=ratio,
            symmetry=symmetry,
            sign=sign,
            similarity=similarity,
            bonus=bonus,
            like=like,
            temperature=graph_temperature,
        )
        stack = make_layers(
            layer,
            layers,
            dim=dim,
            heads=heads,
            without=tuple(without.split()) or None,
            shared_projection=shared_projection,
            edges=edges,
            edge_dim=edge_dim,
            aggregate=aggregate,
            null_neighbour=null_neighbour,
            dropout=dropout,
        )
        first = nn.Linear(dim, dim) if input_linear else None
        self.refiner = Refiner(graph, stack, input_linear=first, concat=concat)
        size = dim * layers if concat else dim
        self.heads = nn.ModuleList(head(size, classes, neck) for _ in range(layers if every else 1))
        if edge_loss:
            self.same_class = nn.Linear(stack[-1].edge_dim or EDGE_START, 1)

    def forward(
        self,
        embeddings: Tensor,
        labels: Labels,
        indices_tuple: Mined = None,
        ref_emb: Tensor | None = None,
        ref_labels: Labels | None = None,
    ) -> Tensor:
        refuse(self, indices_tuple, ref_emb, ref_labels)
        labels = checked_labels(labels, embeddings, self.classifier.out_features)
        embeddings = embeddings.to(self.classifier.weight.dtype)
        loss = self.weights["auxiliary"] * self.classify(self.classifier(embeddings), labels)
        if not self.weights["refined"] or len(labels) < 2:  # nobody to listen to
            return loss
        nodes, edges, graph = self.refiner.refine(unit(embeddings), labels)
        outputs = nodes if self.every else [torch.cat(nodes, 1) if self.concat else nodes[-1]]
        for output, classifier in zip(outputs, self.heads, strict=True):
            loss = loss + self.weights["refined"] * self.classify(classifier(output), labels)
        if self.weights["edges"]:
            edges = edge_features(unit(embeddings), graph) if edges is None else edges
            loss = loss + self.weights["edges"] * self.tell_apart(edges, graph, labels)
        return loss

    def classify(self, logits: Tensor, labels: Tensor) -> Tensor:
        """CE of logits (B, C) at this temperature and smoothing; 0 for no image."""
        total = F.cross_entropy(
            logits / self.temperature, labels, reduction="sum", label_smoothing=self.smoothing
        )
        return total / max(len(labels), 1)

    def tell_apart(self, edges: Tensor, graph: Graph, labels: Tensor) -> Tensor:
        """BCE of whether the ends of each edge of the graph are kin; each kind counts half."""
        kin, others = pair_masks(labels)  # (B, B)
        if graph.speakers is not None:
            kin, others = (pairs.gather(1, graph.speakers) for pairs in (kin, others))  # (B, k)
        kin, others = kin & graph.connected, others & graph.connected
        logits = self.same_class(edges).squeeze(-1)  # (B, M)
        return (masked_mean(F.softplus(-logits), kin) + masked_mean(F.softplus(logits), others)) / 2

    @torch.no_grad()
    def attention(self, embeddings: Tensor, labels: Tensor) -> Tensor | None:
        """What i gives to j (B, B): the mean over layers and heads; None where no layer has any."""
        if not self.weights["refined"]:
            return None
        return self.mean_attention(embeddings, self.refiner.graph(unit(embeddings), labels))

    def mean_attention(self, embeddings: Tensor, graph: Graph) -> Tensor | None:
        """`attention` over this graph, a matrix."""
        weights = self.refiner.attention(unit(embeddings), graph)
        return torch.cat(weights).mean(0) if weights else None

    @torch.no_grad()
    def monitor(self, embeddings: Tensor, labels: Labels) -> dict[str, float]:
        """What the graph of a batch is like, and where attention goes.

        degree             others that an image listens to, in the mean
        kin_heard          share of these that are of its class
        attention_self, _within, _across     attention to oneself, to one's class, to others;
                           sum 1, or less with a null neighbour or a gate; the mean over layers,
                           heads and images, of layers that have any
        """
        if not self.weights["refined"]:
            return {}
        labels = checked_labels(labels, embeddings, self.classifier.out_features)
        graph = self.refiner.graph(unit(embeddings), labels)  # once: a random one is drawn
        connected = graph.matrix()
        kin, others = pair_masks(labels)
        heard = (connected & (kin | others)).sum().item()
        said = {
            "degree": heard / max(len(labels), 1),
            "kin_heard": (connected & kin).sum().item() / max(heard, 1),
        }
        mean = self.mean_attention(embeddings, graph)
        if mean is not None:
            parts = {"self": ~(kin | others), "within": kin, "across": others}
            for name, mask in parts.items():
                said[f"attention_{name}"] = (mean * mask).sum(1).mean().item()
        return said

    def rates(self) -> dict[str, float]:
        """Those of the classifiers; the message passing network takes the run's."""
        return {"classifier.": self.rate, "heads.": self.rate} if self.rate else {}


def head(size: int, classes: int, neck: bool) -> nn.Sequential:
    """A classifier of refined nodes: batch normalisation without a bias, and a linear map."""
    classifier = nn.Linear(size, classes, bias=False)
    nn.init.normal_(classifier.weight, std=0.001)
    if not neck:
        return nn.Sequential(classifier)
    norm = nn.BatchNorm1d(size)
    norm.bias.requires_grad_(False)
    return nn.Sequential(norm, classifier)


SETTINGS: dict[str, dict[str, Plain]] = {
    "cub": {"layers": 1, "heads": 2, "temperature": 0.2},
    "cars": {"layers": 2, "heads": 8, "temperature": 1 / 9, "concat": True},
    "sop": {"layers": 1, "heads": 8, "temperature": 0.6046909},
    "inshop": {"layers": 1, "heads": 4, "temperature": 0.1859135},
}
"""What the released training configurations of Seidenschwarz et al. set, by data set."""


def as_published(data: str) -> dict[str, Plain]:
    """Options of GraphRefinement that run it as its paper has it, on one of its data sets.

    One learning rate for all, as there.
    """
    return {**look_up(data, SETTINGS, "data set of the paper"), "rate": 0.0}


def as_released(data: str) -> dict[str, Plain]:
    """The same as the released code does it: the null neighbour; and on SOP no graph at all."""
    quirks = {"null_neighbour": True} if data != "sop" else {"refined": 0.0}
    return as_published(data) | quirks
