"""The toolkit study asks every method once, and reads tables, claims and collapse from its rows."""

from dataclasses import replace

import pytest
import torch

from finished import cells, diverged, figures, finished, with_last
from nearkin.losses import NPair
from nearkin.measure.statistics import Estimate
from nearkin.runs.row import Epoch, Row
from nearkin.studies.shared.methods import UNTRAINED
from nearkin.studies.toolkit import losses
from nearkin.studies.toolkit.losses import BASE, L2, METHODS, SWEEP

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


def rows_of(value=lambda name, seed: {}, seeds=2, **asked) -> list[Row]:
    """The main comparison's rows, with what `done` takes as value(name, seed) gives it."""
    recipes = losses.recipes(seeds=seeds, sweep=False, **asked)
    return [done(r, **value(losses.method(done(r)), r.seed)) for r in recipes]


def swept(value, seeds=2) -> list[Row]:
    """The rows of the sweep for which value(form, l2, seed) gives what `done` takes."""
    rows = []
    for recipe in losses.l2_sweep(range(seeds)):
        form, l2 = losses.sweep_setting(done(recipe)) or ("", 0)
        if (given := value(form, l2, recipe.seed)) is not None:
            rows.append(done(recipe, **given))
    return rows


def test_every_method_is_known_by_its_row():
    assert [losses.method(done(replace(BASE, **change))) for change in METHODS.values()] == list(
        METHODS
    )
    other = replace(BASE, loss="n-pair", loss_options={"l2": 0.9})
    assert losses.method(done(other)) is None
    assert {losses.method(done(r)) for r in losses.l2_sweep([0])} == {None}


def test_recipes_are_unique_seeds_first_all_methods_in_both_dimensions():
    asked = losses.recipes(seeds=3)
    assert len({r.hash for r in asked}) == len(asked) == 3 * (2 * len(TRAINED) + 10) + 2
    main = asked[:-30]
    assert [(r.seed, r.dim) for r in main if r.epochs] == [
        (seed, dim) for seed in range(3) for dim in (2, 64) for _ in TRAINED
    ]
    named = [losses.method(done(r)) for r in main]
    assert named == 2 * list(METHODS) + 4 * TRAINED  # what is not trained has no seeds
    full = losses.recipes(data="mnist", seeds=3)
    assert len(full) == len(asked)
    assert {(r.data, r.epochs, r.lr) for r in full} == {
        ("mnist", 0, 2e-3),
        ("mnist", 4, 2e-3),
        ("mnist-5k", 6, 1e-3),
    }
    two = losses.recipes(seeds=1, dims="2", methods="combined,triplet (4-6)", sweep=False)
    assert [r.loss for r in two] == ["combined", "ratio-triplet"]
    demo = losses.recipes(**losses.DEMO)
    assert [(r.seed, r.dim) for r in demo] == len(METHODS) * [(0, 2)] + len(TRAINED) * [(1, 2)]


def test_the_sweep_is_found_among_the_rows():
    sweep, asked = losses.l2_sweep(range(2)), losses.recipes(seeds=2)
    settings = [(form, l2) for form in ("right", "printed") for l2 in L2]
    assert [losses.sweep_setting(done(r)) for r in sweep] == 2 * settings
    assert {r.hash for r in sweep} <= {r.hash for r in asked}
    found = [losses.sweep_setting(done(r)) for r in asked]
    assert sorted(f for f in found if f) == sorted(2 * settings)
    for change in ({"epochs": 12}, {"dim": 64}, {"data": "mnist"}, {"loss": "contrastive"}):
        assert losses.sweep_setting(done(replace(sweep[0], **change))) is None


def test_main_rows_leave_the_sweep_out():
    for data in ("mnist", "mnist-5k"):
        rows = [done(r) for r in losses.recipes(data=data, seeds=1)]
        main = [done(r) for r in losses.recipes(data=data, seeds=1, sweep=False)]
        assert losses.main_rows(rows) == main != rows
    small = [done(r, 0.5) for r in losses.recipes(seeds=1, sweep=False)]
    assert losses.main_rows(small) == small
    full = [done(r) for r in losses.recipes(data="mnist", seeds=1)]
    assert {r.recipe.data for r in losses.main_rows(full + small)} == {"mnist"}
    assert losses.main_rows([]) == []


def test_pixels_alone_are_neither_best_nor_a_reference():
    bare = [done(r) for r in losses.recipes(seeds=1, methods=UNTRAINED, sweep=False)]
    assert losses.findings(bare, [2, 64]) == []
    assert losses.comparison(bare, 2).note.endswith("No training: the pixels, 784-D.")
    assert losses.winner(bare, 64) is None


def test_the_comparison_has_means_by_dimension_and_who_differs_from_the_best():
    def value(name, seed):
        best = name == "combined"
        return {"accuracy": 0.9 + 0.05 * best + 0.001 * seed * (1 + best)}

    rows = rows_of(value, seeds=3)
    rows = [with_last(row, nmi=row.recipe.dim / 100) for row in rows]
    sweep = [done(r, 0.99) for r in losses.l2_sweep(range(3)) if r.loss_options.get("l2") == 0.9]
    table = losses.comparison(rows + sweep, 64)
    assert [row[0] for row in table.rows] == list(METHODS)
    combined, triplet = cells(table, "combined"), cells(table, "triplet (4-6)")
    assert combined["5-NN"].mean == pytest.approx(0.952)
    assert triplet["5-NN"].mean == pytest.approx(0.901)
    assert triplet["R@1"].n == 3
    assert cells(losses.comparison(rows, 2), "combined")["NMI"].mean == pytest.approx(0.02)
    assert combined["NMI"].mean == pytest.approx(0.64)
    assert combined["p"] == ""
    assert triplet["p"] == "0.002"  # t = -88.3 with 2 degrees: 1.28e-4, twelve times by Holm
    assert "against combined" in table.note
    assert losses.comparison(rows, 3).rows == ()


def test_the_shapes_and_overlaps_are_those_of_their_method_and_dimension():
    def value(name, seed):
        nine = 30 if name == "triplet (4-6)" else 6
        return {"nine": nine, "three": 10 * seed, "spread": 0.5 + seed, "separation": 20 - seed}

    rows = rows_of(value, dims="2") + rows_of(lambda name, seed: {"nine": 60}, dims="64")
    table = losses.shapes(rows, 2)
    triplet = cells(table, "triplet (4-6)")
    assert triplet["4/7/9"].mean == pytest.approx(0.1)  # 30 of the 300 fours, sevens and nines
    assert triplet["2/3"].mean == pytest.approx(0.025)  # 0 and 10 of 200
    assert (triplet["spread"].mean, triplet["separation"].mean) == (1.0, 19.5)
    assert triplet["anisotropy"].mean == pytest.approx(0.2)
    for dim, expected in ((2, [0.1, 0.025]), (64, [0.2, 0.0])):
        bars = losses.overlaps(rows, dim)
        assert (bars.groups, bars.series) == (tuple(METHODS), ("4/7/9", "2/3"))
        shown = bars.values[bars.groups.index("triplet (4-6)")]
        assert [value.mean for value in shown if value] == pytest.approx(expected)


def test_curves_are_means_over_seeds_of_the_epochs_that_were_evaluated():
    rows = rows_of(lambda name, seed: {"accuracy": 0.8 + 0.1 * seed}, dims="2")
    for i, row in enumerate(rows):
        early = Epoch(3, test={"knn_accuracy": 0.5 + 0.1 * row.recipe.seed})
        rows[i] = replace(row, epochs=(Epoch(1), early, *row.epochs))
    lines = losses.curves(rows, 2).lines
    assert [line.name for line in lines] == TRAINED
    assert lines[0].x == (3, 12)
    assert lines[0].y == pytest.approx((0.45, 0.15))
    assert losses.curves(rows, 64).lines == ()


A, B = "triplet (4-6)", "Siamese (1-3)"


@pytest.mark.parametrize(
    ("head", "a", "b", "said", "size"),
    [
        ("5-NN", {"accuracy": 0.95}, {"accuracy": 0.9}, "better than", "+5.00 points"),
        ("5-NN", {"accuracy": 0.85}, {"accuracy": 0.9}, "worse than", "−5.00 points"),
        ("4/7/9", {"nine": 3}, {"nine": 30}, "better than", "−9.00 points"),
        ("4/7/9", {"nine": 30}, {"nine": 3}, "worse than", "+9.00 points"),
        ("separation", {"separation": 9.0}, {"separation": 20.0}, "worse than", "−11"),
        ("anisotropy", {"anisotropy": 0.1}, {"anisotropy": 0.4}, "better than", "−0.3"),
    ],
)
def test_a_claim_says_who_is_better_whichever_way_the_column_goes(head, a, b, said, size):
    rows = rows_of(lambda name, seed: {A: a, B: b}.get(name, {}))
    expected = f"{A} is {said} {B} ({size}, p < 0.001)"
    assert losses.claim(rows, 2, A, B, head) == [expected]
    if head != "5-NN":
        (line,) = (f for f in losses.findings(rows, [2]) if f.startswith(f"2-D, by {head}: "))
        assert (expected in line) == (head != "anisotropy")  # of which nothing was claimed


def test_a_claim_needs_seeds_of_both_and_a_difference_beyond_chance():
    rows = rows_of(lambda name, seed: {"accuracy": 0.9 - 0.02 * (name == A) * (1 - 3 * seed)})
    (sentence,) = losses.claim(rows, 2, A, B, "5-NN")
    assert f"{A} is no different from {B} (+1.00 points, p 0.795)" in sentence  # -2, +4: t = 1/3
    assert losses.claim(rows_of(seeds=1), 2, A, B, "5-NN") == []
    assert losses.claim([r for r in rows if losses.method(r) != B], 2, A, B, "5-NN") == []


def test_it_is_said_whom_ours_beats_and_whom_not():
    def value(name, seed):
        noise = 0.001 * seed * list(METHODS).index(name)
        separation, anisotropy = (40, 0.1) if name.startswith("ours") else (20, 0.3)
        separation = {A: 60, B: 40 + (-1) ** seed * 9}.get(name, separation)
        return {"separation": separation + noise, "anisotropy": anisotropy + noise}

    ours, count = "ours: Fisher NCA", len(TRAINED) - 2
    said = {
        "separation": f"{ours} is better than {count - 2} of the {count} others, "
        f"worse than {A}, no different from {B}",
        "anisotropy": f"{ours} is better than all {count} others",
    }
    for head, words in said.items():
        assert losses.whom_ours_beats(rows_of(value, seeds=4), 64, ours, head) == [words]
    assert losses.whom_ours_beats(rows_of(value, seeds=1), 64, ours, "separation") == []
    alone = rows_of(value, seeds=4, methods=ours)
    assert losses.whom_ours_beats(alone, 64, ours, "separation") == []
    late = [
        r for r in rows_of(value, seeds=4) if r.recipe.seed == 0 or losses.method(r) in (ours, A)
    ]
    assert losses.whom_ours_beats(late, 64, ours, "separation") == [
        f"{ours} is better than 0 of the 1 others, worse than {A}"
    ]
    found = losses.findings(rows_of(value, seeds=4, dims="64"), [64])
    for head, words in said.items():
        (line,) = (f for f in found if f.startswith(f"64-D, by {head}: "))
        assert f"; {words}; " in line
    assert sum(line.count("others") for line in found) == 4  # of both forms of ours


def test_groups_that_look_alike_are_those_of_the_data_set():
    rows = rows_of(data="fashion-mnist", dims="2")
    heads = ("pullover/coat/shirt", "sandal/sneaker/boot")
    assert losses.shapes(rows, 2).columns[-2:] == losses.overlaps(rows, 2).series == heads
    assert cells(losses.shapes(rows_of(dims="2"), 2), A).keys() >= {"4/7/9", "2/3"}
    assert "by pullover/coat/shirt: triplet" in " ".join(losses.findings(rows, [2]))


def test_the_winner_is_a_finished_run_of_the_best_method():
    rows = rows_of(lambda name, seed: {"accuracy": 0.95 if name == A else 0.9})
    found = losses.winner(rows, 64)
    assert found is not None
    assert (losses.method(found), found.recipe.dim, found.recipe.seed) == (A, 64, 0)
    first = rows.index(found)
    rows[first] = diverged(done(replace(BASE, dim=64, **METHODS[A])))
    found = losses.winner(rows[::-1], 64)
    assert found is not None
    assert (losses.method(found), found.recipe.dim, found.recipe.seed) == (A, 64, 1)
    assert losses.winner(rows, 3) is None


def test_the_answer_shows_every_method_and_one_picture_of_each():
    found = losses.answer([done(r) for r in losses.recipes(seeds=1)])
    kin, shape, *_, sweep = found.tables
    assert len(kin.rows) == len(shape.rows) == len(METHODS)
    assert [row[:2] for row in sweep.rows] == [(f, l2) for f in ("right", "printed") for l2 in L2]
    between = sweep.rows[0][sweep.columns.index("share between")]
    assert isinstance(between, Estimate)
    assert between.mean == pytest.approx(20 / 21)  # a separation of 20
    maps, *bars_and_lines, gallery = figures(found)
    assert [name for name, _ in maps.rows] == TRAINED  # pixels are not in 2-D
    assert {(r.recipe.dim, r.recipe.seed) for _, r in maps.rows} == {(2, 0)}
    assert [type(f).__name__ for f in bars_and_lines] == ["Bars", "Bars", "Lines", "Lines"]
    assert gallery.title == "Neighbours by cross-entropy, 64-D"  # the first of equals
    assert [f.split(":")[0] for f in found.findings] == [
        "2-D",
        "64-D",
        "n-pair (7), right",
        "n-pair (7), printed",
    ]


def test_the_answer_to_no_rows_is_empty():
    found = losses.answer([])
    assert (found.tables, found.figures, found.findings) == ((), (), ())
    assert found.question


def test_a_diverged_run_is_named_and_counts_nowhere():
    asked = losses.recipes(data="mnist", seeds=1)
    lost = [r for r in asked if r.loss == "tuple-ratio" or r.loss_options.get("l2") == 1.1]
    found = losses.answer([diverged(done(r)) if r in lost else done(r) for r in asked])
    assert found.findings[-1] == (
        "Diverged: tuple ratio (8) on mnist, 2-D, seed 0; "
        "tuple ratio (8) printed on mnist, 2-D, seed 0; "
        "tuple ratio (8) on mnist, 64-D, seed 0; "
        "tuple ratio (8) printed on mnist, 64-D, seed 0; "
        "n-pair l2=1.1 on mnist-5k, 2-D, seed 0; "
        "n-pair form=printed l2=1.1 on mnist-5k, 2-D, seed 0."
    )
    assert not any("tuple ratio (8)" in str(table.rows) for table in found.tables)
    assert len(figures(found)[0].rows) == len(TRAINED) - 2
    assert len(found.tables[-1].rows) == 2 * (len(L2) - 1)
    nothing = losses.answer([diverged(done(r)) for r in asked])
    assert (nothing.tables, nothing.figures, len(nothing.findings)) == ((), (), 1)


ALL = "over l2 = 0, 0.1, 0.5, 0.9, 1.1 it has collapsed"
PREDICTED = "as predicted for classes that are points (above 1 alone)."


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (
            lambda l2, seed: {"norm": 3 / (1 + l2) if l2 < 1 else 0.1, "accuracy": 0.4},
            f"at 1.1 (5-NN 40.00 %), {PREDICTED}",
        ),
        (lambda l2, seed: {"norm": 3 / (1 + l2)}, f"nowhere, not {PREDICTED}"),
        (
            lambda l2, seed: {"norm": 0.01 if l2 + 0.2 * seed > 1 else 3.0},
            f"at 0.9 in 1 of 2 seeds (5-NN 90.00 %) and at 1.1 (5-NN 90.00 %), not {PREDICTED}",
        ),
        (  # at l2 = 0 it may grow without bound, in some seeds by far
            lambda l2, seed: {"norm": 0.01 if l2 > 1 else 1000.0**seed if l2 == 0 else 1.0},
            f"at 1.1 (5-NN 90.00 %), {PREDICTED}",
        ),
        (  # all at one point that is not zero
            lambda l2, seed: {"accuracy": 0.1 if l2 > 1 else 0.9},
            f"at 1.1 (5-NN 10.00 %), {PREDICTED}",
        ),
    ],
)
@pytest.mark.parametrize("form", ["right", "printed"])
def test_collapse_is_told_by_norm_or_by_chance_and_held_against_theory(form, value, said):
    rows = swept(lambda f, l2, seed: value(l2, seed) if f == form else {"norm": 10 * (1.2 - l2)})
    assert losses.collapse(rows, form) == [f"n-pair (7), {form}: {ALL} {said}"]
    assert losses.findings(rows, [])[form == "printed"] == losses.collapse(rows, form)[0]


def test_nothing_is_said_of_collapse_before_weights_on_both_sides_are_done():
    def some(*weights):
        return swept(lambda form, l2, seed: {} if l2 in weights else None)

    assert losses.collapse(some(0.0, 0.1, 0.9), "right") == []
    assert losses.collapse(some(0.1, 1.1), "right") == []
    assert losses.collapse(some(0.0, 1.1), "right")[0].startswith("n-pair (7), right: over l2 = 0,")


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
