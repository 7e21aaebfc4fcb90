"""Losses of other papers as pytorch-metric-learning (PML) has them, under the papers' settings.

Each owns its miner, where its paper has one, and a learning rate for its proxies. Options have
PML's names; num_classes and embedding_size are taken for classes and dim.
Dimensions: B batch, D embedding, C classes. x are unit rows unless it is said otherwise.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from nearkin.extras import optional
from nearkin.losses.borrowed import bridge
from nearkin.losses.borrowed.bridge import PROXY_RATE, distance
from nearkin.losses.inputs import above, at_least, peer_names, within


def pml() -> Any:
    """PML's losses, miners and regularizers, imported when the first rival is built."""
    with optional():
        import pytorch_metric_learning.miners
        import pytorch_metric_learning.regularizers
        from pytorch_metric_learning import losses as losses

    return pytorch_metric_learning


@peer_names
class ArcFace(nn.Module):
    """ArcFace: cross-entropy of a classifier by angles, with a margin on the true class's angle.

        loss = mean over i of  -log softmax(s z_i) at y_i,
        z_ij = cos(theta_ij),  but cos(theta_ij + m) for j = y_i

    theta_ij is the angle between x_i and the weights of class j; where theta + m is beyond 180
    degrees, z = cos(theta) - m sin(m) goes on falling.

    Source: Deng et al., ArcFace, CVPR 2019, eq. 3; m = 0.5 rad and s = 64 as there.

    Args:
        classes: C.
        dim: D.
        margin: m, in degrees.
        scale: s.
        rate: the learning rate that the weights ask for.
    """

    metric, references = "cosine", False
    forward, rates, start_at = bridge.forward, bridge.rates, bridge.start_at

    def __init__(
        self,
        classes: int,
        dim: int,
        margin: float = 28.6,
        scale: float = 64.0,
        rate: float = PROXY_RATE,
    ):
        super().__init__()
        within(0, 180, margin=margin)
        above(0, scale=scale)
        at_least(0, rate=rate)
        self.loss = pml().losses.ArcFaceLoss(classes, dim, margin=margin, scale=scale)
        self.miner, self.classes, self.rate = None, classes, rate


@peer_names
class Margin(nn.Module):
    """The margin loss: kin nearer than a boundary that is learnt for each class, others farther.

        loss = (sum of [d_ap - b + m]+  +  sum of [b - d_an + m]+) / number of terms above 0,

    over triplets (a, p, n) drawn by distance-weighted sampling, with b = b_y of the anchor's class.

    Source: Wu et al., Sampling matters in deep embedding learning, ICCV 2017, eqs. 4 and 6, and its
    settings. Differs, as PML does: triplets are drawn from one batch's distances.

    Args:
        classes: C.
        margin: m.
        beta: b at the start.
        nu: weight of the penalty on b.
        learn_beta: whether b is learnt.
        cutoff: distances below this one count as this one in the sampling.
        nonzero_loss_cutoff: others beyond this distance are not drawn.
        rate: the learning rate that b asks for.
    """

    metric, references = "cosine", True
    forward, rates = bridge.forward, bridge.rates

    def __init__(
        self,
        classes: int,
        margin: float = 0.2,
        beta: float = 1.2,
        nu: float = 0.0,
        learn_beta: bool = True,
        cutoff: float = 0.5,
        nonzero_loss_cutoff: float = 1.4,
        rate: float = 0.1,
    ):
        super().__init__()
        at_least(0, margin=margin, nu=nu, rate=rate)
        above(0, beta=beta, cutoff=cutoff, nonzero_loss_cutoff=nonzero_loss_cutoff)
        self.loss = pml().losses.MarginLoss(
            margin=margin, nu=nu, beta=beta, learn_beta=learn_beta, num_classes=classes
        )
        self.miner = pml().miners.DistanceWeightedMiner(cutoff, nonzero_loss_cutoff)
        self.classes, self.rate = classes, rate


class MultiSimilarity(nn.Module):
    """The multi-similarity loss: pairs weighted by their own and by the others' cosines.

        loss = mean over i of   1/alpha log(1 + sum over kin p of    exp(-alpha (s_ip - l)))
                              + 1/beta  log(1 + sum over others n of exp( beta  (s_in - l)))

    over the pairs that its miner takes: kin less similar than the nearest other plus epsilon,
    others more similar than the farthest kin less epsilon.

    Source: Wang et al., Multi-similarity loss with general pair weighting, CVPR 2019, eqs. 11-15.
    Differs: base 0.5 as in the released code, 1 in print.

    Args:
        alpha, beta: weights of kin and of others.
        base: l.
        epsilon: of the miner.
    """

    metric, references = "cosine", True
    forward, rates = bridge.forward, bridge.rates

    def __init__(
        self, alpha: float = 2.0, beta: float = 50.0, base: float = 0.5, epsilon: float = 0.1
    ):
        super().__init__()
        above(0, alpha=alpha, beta=beta)
        within(-2, 2, base=base, epsilon=epsilon)
        self.loss = pml().losses.MultiSimilarityLoss(alpha, beta, base)
        self.miner = pml().miners.MultiSimilarityMiner(epsilon)
        self.classes, self.rate = None, 0.0


class PMLContrastive(nn.Module):
    """The contrastive loss as PML has it: distances between unit embeddings, not squared.

        loss = mean of the positive [d_ap - m_p]+  +  mean of the positive [m_n - d_an]+

    Source: Hadsell, Chopra & LeCun, Dimensionality reduction by learning an invariant mapping,
    CVPR 2006. Differs: PML's form; `Contrastive` is the paper's.

    Args:
        pos_margin: m_p.
        neg_margin: m_n.
    """

    metric, references = "cosine", True
    forward, rates = bridge.forward, bridge.rates

    def __init__(self, pos_margin: float = 0.0, neg_margin: float = 1.0):
        super().__init__()
        at_least(0, pos_margin=pos_margin, neg_margin=neg_margin)
        self.loss = pml().losses.ContrastiveLoss(pos_margin=pos_margin, neg_margin=neg_margin)
        self.miner, self.classes, self.rate = None, None, 0.0


class PMLNPair(nn.Module):
    """The N-pair loss as PML has it: one pair of each class, raw embeddings, and their lengths.

        loss = mean over i of  -log softmax over j of (a_i . p_j) at i  +  w mean over rows of |x|^2

    Source: Sohn, Improved deep metric learning with multi-class N-pair loss objective, NIPS 2016;
    w is that of TensorFlow's npairs_loss (0.002 x 1/2). Differs: `NPair` uses all images of a
    batch.

    Args:
        embedding_reg_weight: w.
    """

    metric, references = "cosine", False
    forward, rates = bridge.forward, bridge.rates

    def __init__(self, embedding_reg_weight: float = 0.001):
        super().__init__()
        at_least(0, embedding_reg_weight=embedding_reg_weight)
        self.loss = pml().losses.NPairsLoss(
            distance=distance("dot"),
            embedding_regularizer=pml().regularizers.LpRegularizer(power=2),
            embedding_reg_weight=embedding_reg_weight,
        )
        self.miner, self.classes, self.rate = None, None, 0.0


@peer_names
class ProxyAnchor(nn.Module):
    """The proxy anchor loss: each proxy against all images of the batch.

        loss =  1/|P+| sum over proxies p with kin   log(1 + sum over kin    exp(-a (s_xp - m)))
              + 1/C    sum over all proxies p        log(1 + sum over others exp( a (s_xp + m)))

    Source: Kim et al., Proxy anchor loss for deep metric learning, CVPR 2020, eq. 4.

    Args:
        classes: C, one proxy each.
        dim: D.
        margin: m.
        alpha: a.
        rate: the learning rate that the proxies ask for: 100 times the network's 1e-4.
    """

    metric, references = "cosine", False
    forward, rates, start_at = bridge.forward, bridge.rates, bridge.start_at

    def __init__(
        self,
        classes: int,
        dim: int,
        margin: float = 0.1,
        alpha: float = 32.0,
        rate: float = PROXY_RATE,
    ):
        super().__init__()
        at_least(0, margin=margin, rate=rate)
        above(0, alpha=alpha)
        self.loss = pml().losses.ProxyAnchorLoss(classes, dim, margin=margin, alpha=alpha)
        self.miner, self.classes, self.rate = None, classes, rate


@peer_names
class ProxyNCA(nn.Module):
    """Proxy NCA: each image against the proxies of all classes.

        loss = mean over i of  -log softmax over proxies j of (-s |x_i - p_j|^2) at y_i

    Source: Movshovitz-Attias et al., No fuss distance metric learning using proxies, ICCV 2017,
    eq. 6; scale (proxies of length 8) and rate (111 times the network's) as in
    dichotomies/proxy-nca. Differs, as PML does: the own proxy stands in the denominator too.

    Args:
        classes: C, one proxy each.
        dim: D.
        softmax_scale: s.
        rate: the learning rate that the proxies ask for.
    """

    metric, references = "cosine", False
    forward, rates, start_at = bridge.forward, bridge.rates, bridge.start_at

    def __init__(
        self, classes: int, dim: int, softmax_scale: float = 8.0, rate: float = PROXY_RATE
    ):
        super().__init__()
        above(0, softmax_scale=softmax_scale)
        at_least(0, rate=rate)
        self.loss = pml().losses.ProxyNCALoss(classes, dim, softmax_scale=softmax_scale)
        self.miner, self.classes, self.rate = None, classes, rate


class SemiHardTriplet(nn.Module):
    """The triplet loss on semi-hard triplets: others farther than the kin, but within the margin.

        loss = mean over triplets (a, p, n) with d_ap < d_an < d_ap + m of   d_ap - d_an + m,

    d squared Euclidean, between unit embeddings.

    Source: Schroff, Kalenichenko & Philbin, FaceNet, CVPR 2015, sections 3.1 and 3.2.

    Args:
        margin: m.
    """

    metric, references = "cosine", True
    forward, rates = bridge.forward, bridge.rates

    def __init__(self, margin: float = 0.2):
        super().__init__()
        above(0, margin=margin)
        self.loss = pml().losses.TripletMarginLoss(margin, distance=distance("squared"))
        self.miner = pml().miners.TripletMarginMiner(
            margin, "semihard", distance=distance("squared")
        )
        self.classes, self.rate = None, 0.0


@peer_names
class SoftTriple(nn.Module):
    """SoftTriple: a classifier whose classes have several centres each, softly chosen.

        S_ic = sum over centres k of c of   softmax(x_i.w_ck / gamma) x_i.w_ck
        loss = mean over i of  -log softmax(la (S_i - m onehot y_i)) at y_i
               + tau/2 x mean over pairs of centres of a class of   sqrt(2 - 2 w_ck.w_cl)

    Source: Qian et al., SoftTriple loss, ICCV 2019, eqs. 6-10, and its settings.

    Args:
        classes: C.
        dim: D.
        centers_per_class: K.
        la: lambda, an inverse temperature.
        gamma: the temperature of the choice of centres.
        margin: m.
        weight_reg_weight: tau; 0 leaves the centres apart.
        rate: the learning rate that the centres ask for.
    """

    metric, references = "cosine", False
    forward, rates, start_at = bridge.forward, bridge.rates, bridge.start_at

    def __init__(
        self,
        classes: int,
        dim: int,
        centers_per_class: int = 10,
        la: float = 20.0,
        gamma: float = 0.1,
        margin: float = 0.01,
        weight_reg_weight: float = 0.2,
        rate: float = PROXY_RATE,
    ):
        super().__init__()
        at_least(2 if weight_reg_weight else 1, centers_per_class=centers_per_class)
        above(0, la=la, gamma=gamma)
        at_least(0, margin=margin, weight_reg_weight=weight_reg_weight, rate=rate)
        together = pml().regularizers.SparseCentersRegularizer
        self.loss = pml().losses.SoftTripleLoss(
            classes,
            dim,
            centers_per_class=centers_per_class,
            la=la,
            gamma=gamma,
            margin=margin,
            weight_regularizer=together(classes, centers_per_class) if weight_reg_weight else None,
            weight_reg_weight=weight_reg_weight,
        )
        self.miner, self.classes, self.rate = None, classes, rate


class SupCon(nn.Module):
    """The supervised contrastive loss: each image against all kin, in a softmax over the batch.

        loss = mean over i, and over kin p of i, of  -log softmax over a != i of (x_i.x_a / t) at p

    Source: Khosla et al., Supervised contrastive learning, NeurIPS 2020, eq. 2 (L_out).

    Args:
        temperature: t.
    """

    metric, references = "cosine", True
    forward, rates = bridge.forward, bridge.rates

    def __init__(self, temperature: float = 0.1):
        super().__init__()
        above(0, temperature=temperature)
        self.loss = pml().losses.SupConLoss(temperature=temperature)
        self.miner, self.classes, self.rate = None, None, 0.0
