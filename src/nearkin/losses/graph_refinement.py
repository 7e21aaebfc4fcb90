"""Graph refinement: classification of embeddings that message passing over their batch refined.

Dimensions: B batch, D embedding, C classes, L layers, D' = D or L D refined features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nearkin.graphs.attention import DotProduct
from nearkin.graphs.build import full
from nearkin.graphs.edges import edge_features
from nearkin.graphs.graph import Graph
from nearkin.graphs.refiner import Refiner
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
from nearkin.tensors import masked_mean, pair_masks, unit

DROPOUT = 0.1


@peer_names
class GraphRefinement(nn.Module):
    """Classification of embeddings that message passing over their batch has refined.

        h = Refiner(A f / |f|)                      message passing over the batch, (B, D')
        loss = auxiliary CE(W f / T) + refined CE(V BN(h) / T) + edge_loss BCE(w . e_ij, y_i = y_j)

    CE with labels smoothed, (1 - s) onehot + s / C. The backbone's embedding f learns from both;
    the graph is thrown away after training, and f / |f| is what is searched by. With refined = 0
    there is no refiner: the loss is cross-entropy on f alone.

    Source: Seidenschwarz, Elezi & Leal-Taixé, Learning intra-batch connections for deep metric
    learning, ICML 2021, arXiv:2102.07753, section 3, and its released code (dvl-tum/intra_batch).
    `refinement_options` has its settings on four data sets.
    Differs: the released softmax has a neighbour that says nothing, here an option of the layers.
    Its quirks outside the loss (a typed standard deviation, learning rates, epochs chosen on test
    images) are not ours. Graphs, layers and edges other than full, dot-product and none are new,
    and so is the loss of the edges: each kind of pair, kin and others, counts half.

    Args:
        classes: C.
        dim: D.
        refiner: any graph, and any layers over it, as one module; by default a full graph and one
            DotProduct layer with a dropout of 0.1, after a linear map.
        every: classify the output of every layer, and add the losses up.
        neck: BN, batch normalisation without a bias, before each classifier of refined nodes.
        smoothing: s.
        temperature: T.
        auxiliary, refined, edge_loss: weights of the three terms.
        rate: the learning rate that the classifiers ask for; 0 takes the run's.

    >>> from nearkin.graphs import GAT, Refiner, knn
    >>> loss = GraphRefinement(classes=5, dim=8, refiner=Refiner(knn, [GAT(8), GAT(8)]))
    >>> loss.refiner.layers, loss.classifier
    (ModuleList(
      (0-1): 2 x GAT(8)
    ), Linear(in_features=8, out_features=5, bias=True))
    """

    metric = "cosine"

    def __init__(
        self,
        classes: int,
        dim: int,
        refiner: Refiner | None = None,
        *,
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
        above(0, temperature=temperature)
        within(0, 1, smoothing=smoothing)
        at_least(0, auxiliary=auxiliary, refined=refined, edge_loss=edge_loss, rate=rate)
        self.every, self.rate = every, rate
        self.smoothing, self.temperature = smoothing, temperature
        self.weights = {"auxiliary": auxiliary, "refined": refined, "edges": edge_loss}
        self.classifier = nn.Linear(dim, classes)
        if not refined:
            return
        if refiner is None:
            layer = DotProduct(dim, dropout=DROPOUT)
            refiner = Refiner(full, [layer], input_linear=nn.Linear(dim, dim))
        if refiner.concat and every:
            raise ValueError("wanted concat or every: outputs side by side, or classified each")
        self.refiner, layers = refiner, len(refiner.layers)
        size = dim * layers if refiner.concat else dim
        self.heads = nn.ModuleList(head(size, classes, neck) for _ in range(layers if every else 1))
        if edge_loss:
            self.same_class = nn.Linear(refiner.edge_dim, 1)

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
        if self.classifier.weight.dtype in (torch.float16, torch.bfloat16):
            raise ValueError(
                f"{type(self).__name__} computes in float32 or float64: take loss.float(), and "
                "autocast for speed"
            )
        embeddings = embeddings.to(self.classifier.weight.dtype)
        loss = self.weights["auxiliary"] * self.classify(self.classifier(embeddings), labels)
        if not self.weights["refined"] or len(labels) < 2:  # nobody to listen to
            return loss
        nodes, edges, graph = self.refiner.refine(unit(embeddings), labels)
        outputs = nodes if self.every else [self.refiner.output(nodes)]
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
        """Attention (B, B), what i gives to j: the mean over layers and heads, None without any."""
        if not self.weights["refined"]:
            return None
        return self.mean_attention(embeddings, self.refiner.graph(unit(embeddings), labels))

    def mean_attention(self, embeddings: Tensor, graph: Graph) -> Tensor | None:
        """`attention` over this graph, a matrix."""
        weights = self.refiner.attention(unit(embeddings), graph)
        return torch.cat(weights).mean(0) if weights else None

    @torch.no_grad()
    def monitor(self, embeddings: Tensor, labels: Labels) -> dict[str, float]:
        """Means over the images of a batch: of its graph, and of where attention goes.

        degree             others that an image listens to
        kin_heard          share of these that are kin
        attention_self, attention_within, attention_across     attention to itself, to its kin, to
                           others, as a mean over the heads of layers that have any; they sum to 1,
                           or to less with a null neighbour or a gate
        """
        if not self.weights["refined"]:
            return {}
        labels = checked_labels(labels, embeddings, self.classifier.out_features)
        graph = self.refiner.graph(unit(embeddings), labels)  # once: a random one is drawn
        connected = graph.matrix()
        kin, others = pair_masks(labels)
        edges = (connected & (kin | others)).sum().item()
        found = {
            "degree": edges / max(len(labels), 1),
            "kin_heard": (connected & kin).sum().item() / max(edges, 1),
        }
        mean = self.mean_attention(embeddings, graph)
        if mean is not None:
            parts = {"self": ~(kin | others), "within": kin, "across": others}
            for name, mask in parts.items():
                found[f"attention_{name}"] = (mean * mask).sum(1).mean().item()
        return found

    def rates(self) -> dict[str, float]:
        """The learning rates of the classifiers; the refiner takes the run's."""
        return {"classifier.": self.rate, "heads.": self.rate} if self.rate else {}


def head(size: int, classes: int, neck: bool) -> nn.Sequential:
    """A classifier of refined nodes: batch normalisation whose bias stays 0, and a linear map."""
    classifier = nn.Linear(size, classes, bias=False)
    nn.init.normal_(classifier.weight, std=0.001)
    if not neck:
        return nn.Sequential(classifier)
    norm = nn.BatchNorm1d(size)
    norm.bias.requires_grad_(False)
    return nn.Sequential(norm, classifier)
