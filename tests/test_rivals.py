"""The named rivals are pytorch-metric-learning's losses under the settings of their papers."""

import inspect
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pytorch_metric_learning import distances, losses, miners, regularizers

from nearkin.data import Split, Splits
from nearkin.losses import (
    ArcFace,
    Borrowed,
    CrossEntropy,
    Margin,
    MultiSimilarity,
    NormalisedCrossEntropy,
    PMLContrastive,
    PMLNPair,
    ProxyAnchor,
    ProxyNCA,
    SemiHardTriplet,
    SoftTriple,
    SupCon,
    make,
    make_miner,
    param_groups,
)
from nearkin.losses.borrowed import named
from nearkin.losses.borrowed.bridge import DISTANCES
from nearkin.registry import MINERS
from nearkin.runs.loop import train
from nearkin.runs.recipe import Recipe
from nearkin.runs.run import Run

CLASSES, DIM = 6, 8
RIVALS = {
    "arcface": ArcFace,
    "margin": Margin,
    "multi-similarity": MultiSimilarity,
    "pml-contrastive": PMLContrastive,
    "pml-n-pair": PMLNPair,
    "proxy-anchor": ProxyAnchor,
    "proxy-nca": ProxyNCA,
    "semi-hard-triplet": SemiHardTriplet,
    "soft-triple": SoftTriple,
    "supcon": SupCon,
}
BATCHES = {
    "pairs": [0, 0, 1, 1, 2, 2, 3, 3, 4, 5, 5, 5],
    "one class": [2] * 6,
    "no kin": [0, 1, 2, 3, 4, 5],
    "one": [3],
}
OWN_CLASSES = {"arcface", "margin", "proxy-anchor", "proxy-nca", "soft-triple"}


def built(name, options=None):
    torch.manual_seed(0)
    return make(name, options, classes=CLASSES, dim=DIM)


def batch(labels, seed=0):
    torch.manual_seed(seed)
    return torch.randn(len(labels), DIM, requires_grad=True), torch.tensor(labels)


def as_in_the_paper(name):
    """The same method, written out with PML's own classes."""
    squared = distances.LpDistance(power=2)
    loss, miner = {
        "arcface": lambda: (losses.ArcFaceLoss(CLASSES, DIM, margin=28.6, scale=64), None),
        "margin": lambda: (
            losses.MarginLoss(learn_beta=True, num_classes=CLASSES),
            miners.DistanceWeightedMiner(0.5, 1.4),
        ),
        "multi-similarity": lambda: (
            losses.MultiSimilarityLoss(2, 50, 0.5),
            miners.MultiSimilarityMiner(0.1),
        ),
        "pml-contrastive": lambda: (losses.ContrastiveLoss(), None),
        "pml-n-pair": lambda: (
            losses.NPairsLoss(
                distance=distances.DotProductSimilarity(normalize_embeddings=False),
                embedding_regularizer=regularizers.LpRegularizer(power=2),
                embedding_reg_weight=0.001,
            ),
            None,
        ),
        "proxy-anchor": lambda: (losses.ProxyAnchorLoss(CLASSES, DIM), None),
        "proxy-nca": lambda: (losses.ProxyNCALoss(CLASSES, DIM, softmax_scale=8), None),
        "semi-hard-triplet": lambda: (
            losses.TripletMarginLoss(margin=0.2, distance=squared),
            miners.TripletMarginMiner(0.2, "semihard", distance=squared),
        ),
        "soft-triple": lambda: (
            losses.SoftTripleLoss(
                CLASSES,
                DIM,
                weight_regularizer=regularizers.SparseCentersRegularizer(CLASSES, 10),
                weight_reg_weight=0.2,
            ),
            None,
        ),
        "supcon": lambda: (losses.SupConLoss(temperature=0.1), None),
    }[name]()
    return lambda x, y: loss(x, y, miner(x, y) if miner else None), loss


@pytest.mark.parametrize("name", RIVALS)
def test_is_pml_under_the_settings_of_the_paper(name):
    x, y = batch(BATCHES["pairs"])
    ours: Any = built(name)
    assert type(ours) is RIVALS[name]
    theirs, module = as_in_the_paper(name)
    module.load_state_dict(ours.loss.state_dict())
    torch.manual_seed(1)
    value = ours(x, y)
    torch.manual_seed(1)
    torch.testing.assert_close(value, theirs(x, y))
    assert value > 0


@pytest.mark.parametrize("labels", BATCHES.values(), ids=BATCHES)
@pytest.mark.parametrize("name", RIVALS)
def test_is_finite_and_has_a_gradient_on_odd_batches(name, labels):
    x, y = batch(labels)
    value = built(name)(x, y)
    value.backward()
    assert value.isfinite()
    assert x.grad is not None
    assert x.grad.isfinite().all()


@pytest.mark.parametrize("name", RIVALS)
def test_asks_for_a_rate_where_it_learns_and_refuses_classes_that_it_has_not(name):
    loss: Any = built(name)
    learns = [n for n, _ in loss.named_parameters()]
    assert (loss.rates() != {}) == bool(learns) == (name in OWN_CLASSES)
    assert (loss.rate > 0) == bool(learns)
    assert all(n.startswith(tuple(loss.rates())) for n in learns)
    x, y = batch([0, 0, 7, 7])
    if learns:
        with pytest.raises(ValueError, match=r"labels must be in 0\.\.5, got 0\.\.7"):
            loss(x, y)
    else:
        loss(x, y)


def test_a_miner_of_the_run_goes_before_that_of_the_paper():
    x, y = batch(BATCHES["pairs"])
    hard = make_miner("pml:BatchHardMiner")(x, y)
    theirs = losses.MultiSimilarityLoss(2, 50, 0.5)
    torch.testing.assert_close(built("multi-similarity")(x, y, hard), theirs(x, y, hard))


def test_any_loss_of_pml_can_be_named():
    x, y = batch(BATCHES["pairs"])
    circle = built("pml:CircleLoss", {"m": 0.3})
    torch.testing.assert_close(circle(x, y), losses.CircleLoss(m=0.3)(x, y))
    euclidean = built("pml:TripletMarginLoss", {"distance": "squared", "margin": 0.1})
    expected = losses.TripletMarginLoss(0.1, distance=distances.LpDistance(power=2))
    torch.testing.assert_close(euclidean(x, y), expected(x, y))
    for name in ("CosFaceLoss", "SubCenterArcFaceLoss", "NormalizedSoftmaxLoss"):
        assert built(f"pml:{name}")(x, y).isfinite()
    references = built("pml:ContrastiveLoss")(x, y, None, x.detach() + 1, y)
    expected = losses.ContrastiveLoss()(x, y, None, x.detach() + 1, y)
    torch.testing.assert_close(references, expected)


def test_names_and_options_are_strict():
    with pytest.raises(ValueError, match="did you mean 'CircleLoss'"):
        built("pml:CircelLoss")
    with pytest.raises(ValueError, match=r"'gama': did you mean 'gamma'"):
        built("pml:CircleLoss", {"gama": 80})
    with pytest.raises(ValueError, match="wanted a value of type float, got 'wide'"):
        built("proxy-anchor", {"margin": "wide"})
    with pytest.raises(ValueError, match="wanted a value of type float, got 'wide'"):
        built("pml:ProxyAnchorLoss", {"margin": "wide"})
    with pytest.raises(ValueError, match="pml:CircleLoss cannot be built with"):
        built("pml:CircleLoss", {"distance": "euclidean"})
    with pytest.raises(ValueError, match=r"smoothing must be in \[0, 1\], got 2"):
        built("cross-entropy", {"smoothing": 2.0})
    with pytest.raises(ValueError, match=r"smoothing must be in \[0, 1\], got 2"):
        built("graph-refinement", {"smoothing": 2.0})
    with pytest.raises(ValueError, match=r"heads must divide dim, got dim=.*heads=0"):
        built("graph-refinement", {"heads": 0})
    with pytest.raises(ValueError, match="did you mean 'squared'"):
        built("pml:TripletMarginLoss", {"distance": "sqared"})
    with pytest.raises(ValueError, match="ProxyNCALoss must be given num_classes, embedding_size"):
        make("pml:ProxyNCALoss")
    with pytest.raises(ValueError, match="unknown loss of pytorch-metric-learning"):
        built("pml:BatchHardMiner")
    with pytest.raises(ValueError, match="did you mean 'pml:BatchHardMiner'"):
        make_miner("pml:BatchHrdMiner")
    with pytest.raises(ValueError, match="did you mean 'proxy-anchor'"):
        built("proxy-ancor")


@pytest.mark.parametrize(
    ("name", "option", "ours"),
    [
        ("pml:ProxyNCALoss", "num_classes", "num_classes"),
        ("arcface", "embedding_size", "dim"),
        ("pml:P2SGradLoss", "descriptors_dim", "descriptors_dim"),
        ("soft-triple", "num_classes", "classes"),
    ],
)
def test_an_option_that_contradicts_the_run_is_refused(name, option, ours):
    known = {"num_classes": CLASSES}.get(option, DIM)
    with pytest.raises(ValueError, match=f"option of {name} '{ours}': wanted {known}, .* got 3"):
        built(name, {option: 3})
    assert built(name, {option: known})(*batch(BATCHES["pairs"])).isfinite()


@pytest.mark.parametrize("name", ["pml:ProxyNCALoss", "arcface", "pml:MarginLoss", "soft-triple"])
def test_classes_that_an_option_gives_are_classes(name):
    given = {"num_classes": 3}
    given |= {} if "Margin" in name else {"embedding_size": DIM}
    loss: Any = make(name, given)
    x, y = batch([0, 0, 5, 5])
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.2, got 0\.\.5"):
        loss(x, y)
    assert loss(x, y.clamp_max(2)).isfinite()
    assert (loss.rates() != {}) == any(True for _ in loss.parameters())


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("soft-triple", {"centers_per_class": 1}, "centers_per_class must be .* 2 or more, got 1"),
        ("soft-triple", {"centers_per_class": 2.5}, "wanted a value of type int, got 2.5"),
        ("pml:SoftTripleLoss", {"centers_per_class": 1, "weight_reg_weight": 0.2}, "wanted 2 cent"),
        ("pml:SoftTripleLoss", {"gamma": 0}, "gamma must be a number above 0, got 0"),
        ("pml:RankedListLoss", {"margin": 0.4}, "RankedListLoss must be given Tn"),
        ("pml:SelfSupervisedLoss", {}, "unknown loss of pytorch-metric-learning 'SelfSupervised"),
        ("pml:CircleLoss", {"distance": "squared"}, "cannot be built with distance=squared"),
    ],
)
def test_an_error_of_the_constructor_is_one_line(name, options, said):
    with pytest.raises(ValueError, match=said) as error:
        built(name, options)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore:__array_wrap__")
def test_an_error_in_a_borrowed_loss_is_one_line_with_its_name():
    x, y = batch(BATCHES["pairs"])
    with pytest.raises(ValueError, match=r"pml:LargeMarginSoftmaxLoss: .*zero") as error:
        built("pml:LargeMarginSoftmaxLoss", {"margin": 0})(x, y)
    assert isinstance(error.value.__cause__, ZeroDivisionError)
    with pytest.raises(ValueError, match="pml:SmoothAPLoss: All classes must have") as error:
        built("pml:SmoothAPLoss")(x, y)
    assert "\n" not in str(error.value)


NO_LABELS = {"ManifoldLoss", "SelfSupervisedLoss", "VICRegLoss"}
WRAPPERS = {"CrossBatchMemory", "MultipleLosses"}
BASES = {"BaseLossWrapper", "BaseMetricLossFunction", "BaseMiner", "GenericPairLoss"}
BASES |= {"EmbeddingRegularizerMixin", "WeightRegularizerMixin"}
LEFT_OUT = NO_LABELS | WRAPPERS | BASES | {"EmbeddingsAlreadyPackagedAsTriplets"}
LEFT_OUT |= {"DynamicSoftMarginLoss"}  # it goes back through the graph of the step before
NOT_PLAIN = {"collect_stats", "embedding_regularizer", "mat_based_loss", "reducer", "self"}
NOT_PLAIN |= {"triplets_per_anchor", "weight_init_func", "weight_regularizer"}


def classes_of(module):
    return {name: found for name, found in vars(module).items() if inspect.isclass(found)}


def options_of_pml(build):
    """Option -> default of a class of PML, whose constructors hand `**kwargs` up to their bases."""
    defaults: dict[str, Any] = {}
    for ancestor in build.__mro__:
        if "__init__" in vars(ancestor) and ancestor.__module__.startswith("pytorch_metric"):
            for name, parameter in inspect.signature(ancestor.__init__).parameters.items():
                has_name = parameter.kind in (
                    parameter.POSITIONAL_OR_KEYWORD,
                    parameter.KEYWORD_ONLY,
                )
                if has_name and name not in NOT_PLAIN:
                    defaults.setdefault(name, parameter.default)
    return defaults


@pytest.mark.parametrize("name", named.LOSSES)
def test_the_options_and_defaults_are_those_of_pml(name):
    theirs = options_of_pml(getattr(losses, name)) | named.COMMON
    if "weight_reg_weight" in theirs:  # SoftTriple's tau: it alone has centres
        theirs |= {"weight_reg_weight": 0.0}
    if name != "SoftTripleLoss":
        theirs.pop("weight_reg_weight", None)
    assert named.defaults(name) == theirs


def test_every_class_of_pml_is_offered_or_left_out_for_a_reason():
    assert {*classes_of(losses)} == {*named.LOSSES} | (LEFT_OUT & {*classes_of(losses)})
    offered = {name.removeprefix("pml:") for name in MINERS if name.startswith("pml:")}
    assert {*classes_of(miners)} == offered | (LEFT_OUT & {*classes_of(miners)})


NEEDED: dict[str, dict] = {"RankedListLoss": {"margin": 0.4, "Tn": 1.0}}


def trained(**changes):
    """Two steps on features, after which the weights are others and the loss is finite."""
    torch.manual_seed(0)
    y = torch.arange(4).repeat_interleave(4)
    parts = [Split(torch.randn(16, 6), y, tuple(f"{part}{i}" for i in range(4))) for part in "ab"]
    splits = Splits("features", parts[0], parts[1], parts[1])
    recipe = Recipe(backbone="linear", dim=DIM, batch=8, per_class=2, steps=2, epochs=1, **changes)
    run = Run(recipe, splits, device="cpu")
    before = run.backbone.module.head.weight.detach().clone()
    (*_, last) = train(run)
    assert not torch.equal(before, run.backbone.module.head.weight)
    assert math.isfinite(last.watched["loss"])


@pytest.mark.filterwarnings("ignore:__array_wrap__", "ignore:Using a non-tuple sequence")
@pytest.mark.parametrize("name", named.LOSSES)
def test_every_loss_of_pml_trains(name):
    trained(loss=f"pml:{name}", loss_options=NEEDED.get(name, {}))


@pytest.mark.parametrize("name", MINERS)
def test_every_miner_trains(name):
    trained(loss="pml:ContrastiveLoss", miner=name)


@pytest.mark.filterwarnings("ignore:__array_wrap__")
@pytest.mark.parametrize("name", named.LOSSES)
def test_an_empty_batch_is_0_with_a_gradient(name):
    x, y = batch([])
    value = built(f"pml:{name}", NEEDED.get(name))(x, y)
    value.backward()
    assert value == 0
    assert x.grad is not None


@pytest.mark.parametrize("name", [*RIVALS, "pml:NTXentLoss", "pml:NCALoss", "pml:ContrastiveLoss"])
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_references_of_half_precision_are_computed_in_float32(name, kind):
    loss: Any = built(name)
    if not loss.references:
        return
    x, y = batch(BATCHES["pairs"])
    others = (x.detach() + 1).to(kind)
    values = []
    for references in (others, others.float()):
        torch.manual_seed(0)
        values.append(loss(x.to(kind), y, None, references, y.clone()))
    torch.testing.assert_close(*values)


@pytest.mark.parametrize("distance", DISTANCES)
def test_a_distance_may_be_named(distance):
    x, y = batch(BATCHES["pairs"])
    assert built("pml:NCALoss", {"distance": distance})(x, y).isfinite()


def test_parameter_groups_give_proxies_the_rate_that_they_ask_for():
    net = torch.nn.Linear(4, DIM)
    groups = param_groups(net, ProxyAnchor(CLASSES, DIM), lr=1e-4)
    assert [(g["lr"], len(g["params"])) for g in groups] == [(1e-4, 2), (0.01, 1)]
    assert param_groups(net, ProxyAnchor(CLASSES, DIM), 1e-4, loss_lr=0.5)[1]["lr"] == 0.5
    (alone,) = param_groups(net.parameters(), SupCon(), lr=1e-4)
    assert len(alone["params"]) == 2
    theirs = losses.ProxyAnchorLoss(CLASSES, DIM)  # asks for nothing: the model's rate
    (both,) = param_groups(net, theirs, lr=1e-4)
    assert len(both["params"]) == 3
    torch.optim.SGD(groups)


def test_borrowed_names_any_class():
    loss: Any = Borrowed("CircleLoss", {"m": 0.3})
    assert (loss.loss.m, loss.metric, loss.references) == (0.3, "cosine", True)
    assert not Borrowed("SoftTripleLoss", classes=3, dim=4).references


def test_half_precision_is_computed_in_float32():
    x, y = batch(BATCHES["pairs"])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = built("proxy-anchor")(x.bfloat16(), y)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, built("proxy-anchor")(x, y), rtol=0.02, atol=0)


def test_cross_entropy_is_that_of_a_linear_layer():
    x, y = batch(BATCHES["pairs"])
    loss = CrossEntropy(CLASSES, DIM, smoothing=0.1)
    loss.bias.data.normal_()
    logits = x @ loss.weight.T + loss.bias
    log_share = logits.log_softmax(1)
    own = log_share[torch.arange(len(y)), y]
    expected = -(0.9 * own + 0.1 * log_share.mean(1)).mean()
    torch.testing.assert_close(loss(x, y), expected)
    assert loss.rates() == {"": 0.01}


def test_normalised_cross_entropy_is_pmls():
    x, y = batch(BATCHES["pairs"])
    loss = NormalisedCrossEntropy(CLASSES, DIM, temperature=0.1)
    theirs = losses.NormalizedSoftmaxLoss(CLASSES, DIM, temperature=0.1)
    theirs.W.data = loss.weight.data.T.clone()
    torch.testing.assert_close(loss(x, y), theirs(x, y))
    torch.testing.assert_close(loss(5 * x, y), loss(x, y))
    at_random = NormalisedCrossEntropy(100, 64, temperature=10.0)
    value = at_random(F.normalize(torch.randn(50, 64)), torch.randint(100, (50,))).item()
    assert value == pytest.approx(math.log(100), abs=0.01)


@pytest.mark.parametrize("name", ["cross-entropy", "normalised-cross-entropy"])
def test_classifiers_refuse_foreign_labels_and_miners_and_pass_gradcheck(name):
    loss = built(name).double()
    x, y = batch([0, 1, 5])
    x = x.detach().double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: loss(x, y), (x,))
    with pytest.raises(ValueError, match=r"labels must be in 0\.\.5, got 0\.\.6"):
        loss(x, torch.tensor([0, 1, 6]))
    with pytest.raises(ValueError, match="takes no miner"):
        loss(x, y, (y, y, y))
    with pytest.raises(ValueError, match="temperature"):
        NormalisedCrossEntropy(2, 2, temperature=0.0)
