"""The toolkit study asks every method once, and reads tables, claims and collapse from its rows."""

from dataclasses import replace

import pytest
import torch

from finished import cells, diverged, figures, finished, with_last
from nearkin.losses import NPair
from nearkin.measure.statistics import Difference, Estimate, estimate, paired
from nearkin.runs.row import Epoch, Row
from nearkin.studies.shared.methods import UNTRAINED
from nearkin.studies.shared.reading import where
from nearkin.studies.shared.sentences import begun
from nearkin.studies.study import Case
from nearkin.studies.toolkit import claims, collapse, losses, tables
from nearkin.studies.toolkit.collapse import L2, SWEEP
from nearkin.studies.toolkit.methods import METHODS

TRAINED = [name for name in METHODS if name != UNTRAINED]


def done(recipe, accuracy=0.9, nine=0, three=0, **last: float) -> Row:
    """The row of a finished run.

    Of 100 digits each, `nine` of the fours are taken for nines, `three` of the twos for threes.
    """
    shapes = {"norm": 3.0, "spread": 0.5, "anisotropy": 0.2, "separation": 20.0}
    row = with_last(finished(recipe, accuracy), **{"knn_accuracy": accuracy, **shapes, **last})
    counts = (100 * torch.eye(10)).long()
    counts[4, 4], counts[4, 9] = 100 - nine, nine
    counts[2, 2], counts[2, 3] = 100 - three, three
    epochs = tuple(replace(epoch, test=row.metrics.last) for epoch in row.epochs)
    return replace(row, confusion=tuple(map(tuple, counts.tolist())), epochs=epochs)


def rows_of(value=lambda name, seed: {}, seeds=2, **asked) -> dict[Case, Row]:
    """The main comparison's rows, with what `done` takes as value(name, seed) gives it."""
    recipes = losses.recipes(seeds=seeds, sweep=False, **asked)
    return {c: done(r, **value(c.method, c.seed)) for c, r in recipes.items()}


def swept(value, seeds=2) -> dict[Case, Row]:
    """The rows of the sweep for which value(form, l2, seed) gives what `done` takes."""
    rows = {}
    for case, recipe in collapse.recipes(range(seeds)).items():
        form = case.method.removeprefix("n-pair (7), ")
        if (given := value(form, case["l2"], case.seed)) is not None:
            rows[case] = done(recipe, **given)
    return rows


def test_cases_are_seeds_first_all_methods_in_both_dimensions():
    asked = losses.recipes(seeds=3)
    assert len({r.hash for r in asked.values()}) == len(asked) == 3 * (2 * len(TRAINED) + 10) + 2
    main = [case for case in asked if "dim" in case]
    in_both = [Case(name, dim=dim) for dim in (2, 64) for name in METHODS]
    others = [Case(name, s, dim=dim) for s in (1, 2) for dim in (2, 64) for name in TRAINED]
    assert main == in_both + others  # what is not trained has no seeds
    assert all((asked[c].dim, asked[c].seed) == (c["dim"], c.seed) for c in main)
    full = losses.recipes(data="mnist", seeds=3)
    assert full.keys() == asked.keys()
    assert {(r.data, r.epochs, r.lr) for r in full.values()} == {
        ("mnist", 0, 2e-3),
        ("mnist", 4, 2e-3),
        ("mnist-5k", 6, 1e-3),
    }
    two = losses.recipes(seeds=1, dims="2", methods="combined,triplet (4-6)", sweep=False)
    assert [r.loss for r in two.values()] == ["combined", "ratio-triplet"]
    demo = losses.recipes(**losses.DEMO)
    few = str(losses.DEMO["methods"]).split(",")
    assert few[0] == "no training"
    first, others = (
        [Case(m, dim=64) for m in few],
        [Case(m, s, dim=64) for s in (1, 2) for m in few[1:]],
    )
    assert list(demo) == [*first, *others]
    assert set(few) < set(METHODS)
    assert {recipe.epochs for recipe in demo.values()} == {0, 6}


def test_the_sweep_is_of_both_forms_and_every_weight():
    sweep, asked = collapse.recipes(range(2)), losses.recipes(seeds=2)
    assert sweep.items() <= asked.items()
    assert [(c.seed, c.method, c["l2"]) for c in sweep] == [
        (seed, f"n-pair (7), {form}", l2)
        for seed in (0, 1)
        for form in ("right", "printed")
        for l2 in L2
    ]
    for case, recipe in sweep.items():
        assert recipe.loss_options == {"form": case.method.split(", ")[1], "l2": case["l2"]}
        assert (recipe.data, recipe.dim) == ("mnist-5k", 2)


def test_pixels_alone_lead_nothing_and_are_no_reference():
    bare = rows_of(seeds=1, methods=UNTRAINED, dims="2")
    assert claims.findings({2: bare}) == []
    assert tables.comparison(bare, 2).note.endswith("No training: the pixels, 784-D.")
    assert losses.leader(bare) is None


def test_the_comparison_has_means_by_dimension_and_who_differs_from_the_leading_one():
    def value(name, seed):
        best = name == "combined"
        return {"accuracy": 0.9 + 0.05 * best + 0.001 * seed * (1 + best)}

    rows = rows_of(value, seeds=3)
    rows = {c: with_last(row, nmi=row.recipe.dim / 100) for c, row in rows.items()}
    table = tables.comparison(where(rows, dim=64), 64)
    assert [row[0] for row in table.rows] == list(METHODS)
    combined, triplet = cells(table, "combined"), cells(table, "triplet (4-6)")
    assert combined["5-NN"].mean == pytest.approx(0.952)
    assert triplet["5-NN"].mean == pytest.approx(0.901)
    assert triplet["R@1"].n == 3
    assert cells(tables.comparison(where(rows, dim=2), 2), "combined")["NMI"].mean == pytest.approx(
        0.02
    )
    assert combined["NMI"].mean == pytest.approx(0.64)
    assert combined["p"] == ""
    assert triplet["p"] == "0.002"  # t = -88.3 with 2 degrees: 1.28e-4, twelve times by Holm
    assert "against combined" in table.note
    assert tables.comparison({}, 3).rows == ()
    in_train = {c: with_last(row, **{"in_train.recall@1": 0.7}) for c, row in rows.items()}
    table = tables.comparison(where(in_train, dim=2), 2)
    assert cells(table, "combined")["R@1 in train"].mean == pytest.approx(0.7)
    assert "R@1 among training images against" in table.note


def test_the_shapes_and_overlaps_are_those_of_their_method_and_dimension():
    def value(name, seed):
        nine = 30 if name == "triplet (4-6)" else 6
        return {"nine": nine, "three": 10 * seed, "spread": 0.5 + seed, "separation": 20 - seed}

    rows = rows_of(value, dims="2") | rows_of(lambda name, seed: {"nine": 60}, dims="64")
    table = tables.shapes(where(rows, dim=2), 2)
    triplet = cells(table, "triplet (4-6)")
    assert triplet["4/7/9"].mean == pytest.approx(0.1)  # 30 of the 300 fours, sevens and nines
    assert triplet["2/3"].mean == pytest.approx(0.025)  # 0 and 10 of 200
    assert (triplet["spread"].mean, triplet["separation"].mean) == (1.0, 19.5)
    assert triplet["anisotropy"].mean == pytest.approx(0.2)
    for dim, expected in ((2, [0.1, 0.025]), (64, [0.2, 0.0])):
        bars = tables.overlaps(where(rows, dim=dim), dim)
        assert (bars.groups, bars.series) == (tuple(METHODS), ("4/7/9", "2/3"))
        shown = bars.values[bars.groups.index("triplet (4-6)")]
        assert [value.mean for value in shown if value] == pytest.approx(expected)


def test_curves_are_means_over_seeds_of_the_epochs_that_were_evaluated():
    rows = rows_of(lambda name, seed: {"accuracy": 0.8 + 0.1 * seed}, dims="2")
    for case, row in rows.items():
        early = Epoch(3, test={"knn_accuracy": 0.5 + 0.1 * case.seed})
        rows[case] = replace(row, epochs=(Epoch(1), early, *row.epochs))
    lines = tables.curves(rows, 2).lines
    assert [line.name for line in lines] == TRAINED
    assert lines[0].x == (3, 12)
    assert lines[0].y == pytest.approx((0.45, 0.15))
    assert tables.curves({}, 64).lines == ()


A, B = "triplet (4-6)", "Siamese (1-3)"


@pytest.mark.parametrize(
    ("a", "b", "relation", "size"),
    [
        ({"nine": 3}, {"nine": 30}, "mistakes 4/7/9 for one another less often", "−9.00 points"),
        ({"nine": 30}, {"nine": 3}, "mistakes 4/7/9 for one another more often", "+9.00 points"),
        ({"separation": 9.0}, {"separation": 20.0}, "separates classes worse", "−11"),
    ],
)
def test_a_claim_says_who_is_better_whichever_way_the_column_goes(a, b, relation, size):
    rows = rows_of(lambda name, seed: {A: a, B: b}.get(name, {}), dims="2")
    (line,) = (t for f in claims.findings({2: rows}) if begun(A) in (t := str(f)))
    sentence = next(part for part in line.split(". ") if f"{relation} than {B}: its " in part)
    assert sentence.startswith(f"{begun(A)} ")
    assert f"differs by {size} at 2-D (p < 0.001)" in sentence


def test_a_claim_of_shares_and_one_of_unevenness():
    sure = Difference(estimate([0.05, 0.051, 0.049]), 0.001)
    assert claims.claim_words({2: sure, 64: sure}, "5-NN", A, B) == [
        f"{begun(A)} classifies better than {B}: its 5-NN accuracy differs by +5.00 points at 2-D "
        "(p = 0.001) and by +5.00 points at 64-D (p = 0.001)."
    ]
    (rounder,) = claims.claim_words({2: sure}, "anisotropy", A, B)
    assert rounder == (
        f"{begun(A)} makes classes less round than {B}: its anisotropy differs by +0.05 at 2-D "
        "(p = 0.001)."
    )


def test_a_claim_needs_seeds_of_both_and_a_difference_beyond_chance():
    rows = rows_of(lambda name, seed: {"nine": 10 - 2 * (name == A) * (1 - 3 * seed)}, dims="2")
    found = claims.claims(rows)
    words = claims.claim_words({2: found["4/7/9", A, B]}, "4/7/9", A, B)  # -2/3, +4/3: t = 1/3
    assert words == [
        f"{begun(A)} cannot be told from {B} by its share of 4/7/9 mistaken for one another, which "
        "differs by +0.33 points at 2-D (p = 1.000)."
    ]
    assert claims.claims(rows_of(seeds=1, dims="2")) == {}
    assert claims.claims({c: r for c, r in rows.items() if c.method == A}) == {}


def test_the_p_of_claims_are_corrected_together():
    rows = rows_of(lambda name, seed: {"nine": 10 + (name == A) * (1 + seed)}, seeds=3, dims="2")
    found = claims.claims(rows)
    alone = paired({0: 1, 1: 2, 2: 3}, dict.fromkeys(range(3), 0))
    assert len(found) == 8
    assert found["4/7/9", A, B].p == pytest.approx(8 * alone.p)


def test_it_is_told_whom_ours_beats_and_whom_not():
    def value(name, seed):
        noise = 0.001 * seed * list(METHODS).index(name)
        separation, anisotropy = (40, 0.1) if name.startswith("ours") else (20, 0.3)
        separation = {A: 60, B: 40 + (-1) ** seed * 9}.get(name, separation)
        return {"separation": separation + noise, "anisotropy": anisotropy + noise}

    ours, count = "ours: Fisher NCA", len(TRAINED) - 2
    expected = {
        "separation": f"a separation of 40, above that of {count - 2} of the {count} others, below "
        f"that of {A} and not to be told from that of {B}",
        "anisotropy": f"an anisotropy of 0.118, below that of all {count} others",
    }
    rows = rows_of(value, seeds=4, dims="64")
    for head, words in expected.items():
        assert claims.ours_words(rows, ours, head) == words
    assert claims.ours_words(rows_of(value, seeds=1, dims="64"), ours, "separation") == ""
    alone = rows_of(value, seeds=4, methods=ours, dims="64")
    assert claims.ours_words(alone, ours, "separation") == ""
    late = {c: row for c, row in rows.items() if c.seed == 0 or c.method in (ours, A)}
    assert claims.ours_words(late, ours, "separation") == (f"a separation of 40, below that of {A}")
    found = map(str, claims.findings({64: rows}))
    (line,) = (f for f in found if f.startswith("At 64-D, our Fisher NCA has "))
    assert all(words in line for words in expected.values())


def test_groups_that_look_alike_are_those_of_the_data_set():
    rows = rows_of(data="fashion-mnist", dims="2")
    heads = ("pullover/coat/shirt", "sandal/sneaker/boot")
    assert tables.shapes(rows, 2).columns[-2:] == tables.overlaps(rows, 2).series == heads
    assert cells(tables.shapes(rows_of(dims="2"), 2), A).keys() >= {"4/7/9", "2/3"}
    assert "pullover/coat/shirt mistaken for one another" in " ".join(
        map(str, claims.findings({2: rows}))
    )


def test_the_leader_s_gallery_is_of_its_first_finished_seed():
    rows = rows_of(lambda name, seed: {"accuracy": 0.95 if name == A else 0.9}, dims="64")
    first, second = Case(A, dim=64), Case(A, 1, dim=64)
    assert losses.leader(rows) == (A, rows[first])
    rows[first] = diverged(rows[first])
    assert losses.leader(dict(reversed(rows.items()))) == (A, rows[second])
    assert losses.leader({}) is None


def test_the_answer_shows_every_method_and_one_picture_of_each():
    rows = {c: done(r) for c, r in losses.recipes(seeds=1).items()}
    for case, row in rows.items():  # three epochs, so that there is a curve
        early = tuple(replace(epoch, epoch=at) for at in (1, 2) for epoch in row.epochs)
        rows[case] = replace(row, epochs=early + row.epochs)
    found = losses.answer(rows)
    _, kin, shape, *_, sweep = found.tables
    assert len(kin.rows) == len(shape.rows) == len(METHODS)
    assert [row[:2] for row in sweep.rows] == [(f, l2) for f in ("right", "printed") for l2 in L2]
    between = sweep.rows[0][sweep.columns.index("share between")]
    assert isinstance(between, Estimate)
    assert between.mean == pytest.approx(20 / 21)  # a separation of 20
    _, maps, *dots_and_lines, gallery = figures(found)
    assert [name for name, _ in maps.rows] == TRAINED  # pixels are not in 2-D
    assert {(r.recipe.dim, r.recipe.seed) for _, r in maps.rows} == {(2, 0)}
    assert [type(f).__name__ for f in dots_and_lines] == ["Dots", "Dots", "Lines", "Lines"]
    assert gallery.title == "Neighbours by cross-entropy, 64-D"  # the first of equals
    sweep, *leaders = map(str, found.findings)
    assert "Of the weights 0, 0.1, 0.5, 0.9 and 1.1, the right form" in sweep
    assert [text.split(",")[0] for text in leaders] == ["At 2-D", "At 64-D"]
    assert found.summary[0].startswith("At 64-D, cross-entropy leads with 90.00 % 5-NN accuracy")
    assert found.summary[-1].startswith("The n-pair loss (7) collapses under no weight")


def test_the_answer_to_no_rows_is_empty():
    found = losses.answer({})
    assert (found.tables, found.figures, found.findings) == ((), (), ())
    assert found.question


def test_a_diverged_run_counts_nowhere():
    asked = losses.recipes(data="mnist", seeds=1)
    lost = [c for c in asked if c.method.startswith("tuple ratio") or c.get("l2") == 1.1]
    rows = {c: diverged(done(r)) if c in lost else done(r) for c, r in asked.items()}
    found = losses.answer(rows)
    assert not any("tuple ratio (8)" in str(table.rows) for table in found.tables)
    assert len(figures(found)[1].rows) == len(TRAINED) - 2
    assert len(found.tables[-1].rows) == 2 * (len(L2) - 1)
    nothing = losses.answer({c: diverged(done(r)) for c, r in asked.items()})
    assert (nothing.tables, nothing.figures, nothing.findings) == ((), (), ())
    assert nothing.summary == ("No run that could be compared has finished.",)


PREDICTED = "as predicted"


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            lambda l2, seed: {"norm": 3 / (1 + l2) if l2 < 1 else 0.1, "accuracy": 0.4},
            f"at 1.1 (5-NN accuracy 40.00 %), which is {PREDICTED}",
        ),
        (lambda l2, seed: {"norm": 3 / (1 + l2)}, f"nowhere, which is not {PREDICTED}"),
        (
            lambda l2, seed: {"norm": 0.01 if l2 + 0.2 * seed > 1 else 3.0},
            "at 0.9 in 1 of 2 seeds (5-NN accuracy 90.00 %) and at 1.1 (5-NN accuracy 90.00 %), "
            f"which is not {PREDICTED}",
        ),
        (  # at l2 = 0 it may grow without bound, in some seeds by far
            lambda l2, seed: {"norm": 0.01 if l2 > 1 else 1000.0**seed if l2 == 0 else 1.0},
            f"at 1.1 (5-NN accuracy 90.00 %), which is {PREDICTED}",
        ),
        (  # all at one point that is not zero
            lambda l2, seed: {"accuracy": 0.1 if l2 > 1 else 0.9},
            f"at 1.1 (5-NN accuracy 10.00 %), which is {PREDICTED}",
        ),
    ],
)
@pytest.mark.parametrize("form", ["right", "printed"])
def test_collapse_is_told_by_norm_or_by_chance_and_held_against_theory(form, value, said):
    rows = swept(lambda f, l2, seed: value(l2, seed) if f == form else {"norm": 10 * (1.2 - l2)})
    (finding,) = collapse.findings(rows)
    assert "is to collapse under L2 weights above 1 alone. Of the weights 0, 0.1, " in str(finding)
    assert f"the {form} form collapses {said}" in str(finding)
    assert losses.answer(rows).findings == (finding,)


def test_nothing_is_said_of_collapse_before_weights_on_both_sides_are_done():
    def some(*weights):
        return swept(lambda form, l2, seed: {} if l2 in weights else None)

    assert collapse.findings(some(0.0, 0.1, 0.9)) == []
    assert collapse.findings(some(0.1, 1.1)) == []
    (found,) = collapse.findings(some(0.0, 1.1))
    assert "Of the weights 0 and 1.1, the right form collapses" in str(found)


@pytest.mark.parametrize("form", ["right", "printed"])
@pytest.mark.parametrize("l2", L2)
def test_in_the_sweep_s_batches_zero_becomes_a_minimum_at_1(form, l2):
    """loss(eps c) - loss(0) = (l2 - 1) eps^2 mean |c|^2 + O(eps^4), classes at centred c."""
    labels = torch.arange(10).repeat_interleave(SWEEP.per_class)
    assert (SWEEP.sampler, SWEEP.batch) == ("tuples", len(labels))
    centres = torch.randn(10, 2, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    centres -= centres.mean(0)
    loss, eps = NPair(form, l2), 1e-3
    rise = loss(eps * centres[labels], labels) - loss(0 * centres[labels], labels)
    expected = (l2 - 1) * eps**2 * centres.square().sum(1).mean()
    assert rise.item() == pytest.approx(expected.item(), rel=1e-2)
