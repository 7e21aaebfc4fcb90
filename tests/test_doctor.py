"""The doctor names what ails runs and sets, is silent on healthy ones, and changes nothing.

The whole zoo is `python tests/zoo.py`; here stands a slice of it.
"""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import nearkin as nk
from nearkin.app.main import main
from nearkin.doctor import ILLNESSES, examine
from nearkin.doctor.crowd import copies, crowd_of, dimension
from nearkin.doctor.history import History, history_of
from nearkin.doctor.rules_of_runs import RUNS
from nearkin.doctor.shape import shape_of
from nearkin.measure import neighbours
from test_index import folder, shop  # noqa: F401 - fixtures
from zoo import HEALTHY, SICK, arrays_of, doubled, drawn, healthy, leaking, looped, rooted, sick

ILL = ("NaN", "learning rate too high", "idle proxies", "leak between splits", "duplicates")
WELL = ("triplets on a linear head", "two far groups of classes", "tight classes of five")


@pytest.mark.parametrize("name", ILL)
def test_a_sick_run_is_named_and_its_cure_heals(name):
    fine, line = sick(name, 0)
    assert fine, line


@pytest.mark.parametrize("name", WELL)
def test_a_healthy_run_is_called_healthy_at_its_end_and_on_the_way(name):
    fine, line = healthy(name, 0)
    assert fine, line


def test_the_zoo_has_every_illness_and_as_many_healthy_runs():
    assert set(SICK) == set(ILLNESSES)
    assert len(HEALTHY) == len(SICK) > 16


# NaN


def test_nan_is_traced_to_its_step_and_tensor():
    found = looped(0, rooted).diagnoses[0]
    assert found.name == "NaN"
    assert "step 1, in the gradient of 2.bias" in found.evidence


class Logarithm(nn.Module):
    def forward(self, x):
        return x.log()


def born(net, x, criterion=None):
    """Step and tensor of NaN in the second of two steps, of which the first is sound."""
    doctor, y = nk.Doctor(), torch.arange(4)
    doctor.step(torch.randn(4, 2), y, torch.tensor(1.0), net, criterion)
    doctor.step(net(x), y, torch.tensor(math.nan), net, criterion)
    found = doctor.history.born
    return found and (found.step, found.tensor)


def test_nan_in_the_input_in_a_weight_in_a_layer_and_in_the_loss_are_told_apart():
    sound, bad = torch.ones(4, 3), torch.ones(4, 3)
    bad[2, 1] = math.nan
    layer = nn.Linear(3, 2)
    net = nn.Sequential(layer, nn.Identity())
    assert born(net, bad) == (2, "the input of the network, item 2")
    assert born(nn.Sequential(nn.Identity(), Logarithm()), -sound) == (2, "the output of 1")
    loss = nk.losses.Triplet()
    assert born(net, sound, loss) == (2, "the value of the Triplet, whose embeddings are finite")
    layer.weight.data[0, 0] = math.inf
    assert born(net, sound) == (1, "the gradient of 0.weight")


# what it reads


def slow_shape(x, labels):
    """R@1, and the share of variance in the first direction, from their definitions."""
    d = torch.cdist(x, x).fill_diagonal_(math.inf)
    asked = [(labels == y).sum() > 1 for y in labels]
    right = [labels[row.argmin()] == y for row, y in zip(d, labels, strict=True)]
    values = np.linalg.eigvalsh(np.cov(x.numpy().T, bias=True))[::-1]
    needed = int(np.searchsorted(np.cumsum(values) / values.sum(), 0.99)) + 1
    recall = sum(r and a for r, a in zip(right, asked, strict=True)) / sum(asked)
    length = x.square().sum(1).mean()
    return recall, values[0] / values.sum(), needed, values.sum() / length


@pytest.mark.parametrize("size", [(40, 6), (12, 20)])
def test_the_shape_is_that_of_its_definition(size):
    torch.manual_seed(0)
    labels = torch.randint(0, 5, size[:1])
    x = torch.randn(5, size[1])[labels] + torch.randn(*size) + 3
    found, _ = shape_of(x, labels, "euclidean")
    recall, first, needed, spread = slow_shape(x, labels)
    assert found.recall == pytest.approx(float(recall))
    assert found.first == pytest.approx(first, rel=1e-4)
    assert found.needed == needed
    assert found.spread == pytest.approx(float(spread), rel=1e-4)


def test_the_dimension_of_a_plane_in_space_is_two():
    torch.manual_seed(0)
    x = torch.randn(600, 2) @ torch.randn(2, 30)
    far = -neighbours(x, 10, metric="euclidean").similarities
    assert dimension(far) == pytest.approx(2, abs=0.4)


def test_copies_are_found_and_near_kin_in_a_plane_are_none():
    torch.manual_seed(0)
    plane = torch.randn(500, 2)
    found = neighbours(plane, 10, metric="euclidean")
    none = copies(found.indices, -found.similarities, torch.zeros(500, dtype=torch.int64))
    assert none.sum() <= 5
    crowd = crowd_of(torch.from_numpy(doubled(0)["x"]), torch.arange(840))
    assert set(crowd.copies) == set(range(800, 840))


def test_a_whole_class_that_is_tight_is_no_clump_of_copies():
    torch.manual_seed(0)
    labels = torch.arange(60).repeat_interleave(5)
    width = torch.where(labels % 4 == 0, 0.01, 0.5)[:, None]
    x = torch.randn(60, 24)[labels] + width * torch.randn(300, 24)
    assert not crowd_of(x, labels).copies
    assert len(crowd_of(x, torch.arange(300) % 60).copies) > 50  # of other classes they are copies


def test_leaks_are_the_training_items():
    made = leaking(0)
    found = next(d for d in examine(made["x"], made["y"], made["split"] != "train") if d.items)
    assert found.name == "leak between splits"
    assert set(made["split"][list(found.items)]) == {"train"}


# manners


def test_it_changes_no_number_of_a_run():
    data = drawn(0, classes=10)

    def weights(doctor):
        kinds = "linear", "proxy-anchor", data
        model = nk.fit(*kinds, doctor=doctor, device="cpu", threads=1, batch=40, epochs=3, dim=8)
        return model.backbone.state_dict()

    seen, plain = weights(nk.Doctor()), weights(None)
    assert all(torch.equal(seen[key], plain[key]) for key in plain)


def test_it_works_in_a_loop_without_module_and_loss():
    torch.manual_seed(0)
    doctor, y = nk.Doctor(), np.repeat(list("abcdefgh"), 4)
    for _ in range(60):
        doctor.step(torch.ones(32, 8) + 1e-4 * torch.randn(32, 8), y, 0.2)
    assert "collapse to a point" in {d.name for d in doctor.diagnoses()}


def test_an_illness_is_told_once():
    told = []
    doctor, y = nk.Doctor(tell=told.append), torch.arange(8).repeat_interleave(4)
    for _ in range(100):
        doctor.step(torch.ones(32, 8), y, 0.2)
    assert len(told) == len({line.partition(":")[0] for line in told}) >= 1


def test_history_goes_to_json_and_back():
    doctor, y = nk.Doctor(), torch.arange(8).repeat_interleave(4)
    for _ in range(40):
        doctor.step(torch.ones(32, 8), y, 0.2)
    again = history_of(json.loads(json.dumps(doctor.history.plain())))
    names = [d.name for d in doctor.diagnoses()]
    doctor.history = again
    assert [d.name for d in doctor.diagnoses()] == names
    for wrong in ({}, [], {"looks": 3}, {**again.plain(), "losses": ["a"]}):
        with pytest.raises(ValueError, match="not the history of a run"):
            history_of(wrong)


def test_no_rule_judges_a_run_that_has_hardly_begun():
    assert not any(rule(History(steps=3)) for rule in RUNS)


def test_wrong_sets_are_refused():
    with pytest.raises(ValueError, match="three items"):
        examine(torch.ones(2, 2), [0, 1])
    with pytest.raises(ValueError, match="test must be 4 booleans"):
        examine(torch.randn(4, 2), [0, 0, 1, 1], [True])
    with pytest.raises(ValueError, match="row 1 holds NaN"):
        examine([[1.0, 2], [math.nan, 1], [1, 3]], [0, 0, 1])


# the command


def write(path, arrays):
    np.savez(path, x=arrays["x"], y=arrays["y"], split=arrays["split"])


def test_a_file_of_features_is_cured(tmp_path, capsys):
    write(tmp_path / "x.npz", leaking(0))
    main(["doctor", str(tmp_path / "x.npz"), "--cure", str(tmp_path / "healed.npz")])
    assert "leak between splits" in capsys.readouterr().out
    main(["doctor", str(tmp_path / "healed.npz"), "--json"])
    assert json.loads(capsys.readouterr().out)["diagnoses"] == []


def test_parts_of_a_file_in_a_table_are_refused(tmp_path, capsys):
    arrays = leaking(0)
    write(tmp_path / "x.npz", {**arrays, "split": arrays["split"][None]})
    with pytest.raises(SystemExit) as left:
        main(["doctor", str(tmp_path / "x.npz"), "--cure", str(tmp_path / "healed.npz")])
    assert left.value.code == 2
    assert f"wanted `split` of {len(arrays['x'])}, got (1, " in capsys.readouterr().err


@pytest.mark.parametrize("word", ["val", "Train", "zzz"])
def test_parts_of_a_file_that_nobody_knows_are_refused(word, tmp_path, capsys):
    arrays = leaking(0)
    write(
        tmp_path / "x.npz", {**arrays, "split": np.where(arrays["split"] == "train", word, "query")}
    )
    with pytest.raises(SystemExit) as left:
        main(["doctor", str(tmp_path / "x.npz")])
    assert left.value.code == 2
    assert f"`split` must be train, query or gallery, got '{word}'" in capsys.readouterr().err


def test_features_without_training_items_are_cured_by_all(tmp_path, capsys):
    arrays = doubled(0)
    write(tmp_path / "x.npz", {**arrays, "split": np.full(len(arrays["x"]), "query")})
    main(["doctor", str(tmp_path / "x.npz"), "--cure", str(tmp_path / "healed.npz")])
    left = len(np.load(tmp_path / "healed.npz")["x"])
    assert f"{left:,} of {len(arrays['x']):,} items" in capsys.readouterr().out
    assert 0 < left < len(arrays["x"])


def test_copies_in_an_index_are_named(shop, folder, capsys):  # noqa: F811
    for number, path in enumerate(sorted(folder.rglob("*.png"))[:3]):
        shutil.copy(path, path.with_name(f"again-{number}.png"))
    shop.update()
    main(["doctor", str(shop.path)])
    assert "duplicates (mild)" in capsys.readouterr().out


def test_every_illness_stands_in_the_docs():
    text = (Path(__file__).parents[1] / "docs" / "doctor.md").read_text()
    assert all(f"| {name} |" in text for name in ILLNESSES)


def test_train_says_once_what_ails_the_run_and_doctor_says_it_again(tmp_path, capsys, monkeypatch):
    write(tmp_path / "x.npz", arrays_of(drawn(0)))
    monkeypatch.chdir(tmp_path)
    words = "train --data x.npz --loss triplet --lr 3 --batch 64 --dim 16 --epochs 12 --threads 1"
    main(words.split())
    said = capsys.readouterr().err
    assert said.count("learning rate too high") == 1
    assert "nearkin: doctor: learning rate too high" in said
    run = next((tmp_path / "out" / "runs").iterdir())
    for patient in ("out", str(run)):
        main(["doctor", patient])
        assert "learning rate too high" in capsys.readouterr().out


def test_a_harmed_file_of_a_run_is_named_and_the_rest_is_looked_at(tmp_path, capsys, monkeypatch):
    write(tmp_path / "x.npz", arrays_of(drawn(0)))
    monkeypatch.chdir(tmp_path)
    words = "train --data x.npz --loss triplet --batch 64 --epochs 1 --threads 1"
    main(words.split())
    run = next((tmp_path / "out" / "runs").iterdir())
    steps, embeddings = run / "steps.csv", run / "embeddings.npz"
    capsys.readouterr()
    main(["doctor", "out"])
    sound = capsys.readouterr()
    assert not sound.err
    head, first, *_ = steps.read_text().splitlines()
    for path, contents in {
        steps: ["PK", "\0\n", "a,b\n1,2\n", f"{head}\n1,1,64\n", f"{head}\none{first}\n"],
        embeddings: ["PK", ""],
    }.items():
        whole = path.read_bytes()
        for content in contents:
            path.write_text(content)
            with pytest.warns(
                UserWarning, match=re.escape(str(path.relative_to(tmp_path)))
            ) as told:
                main(["doctor", "out"])
            assert len(told) == 1
            assert "run " in capsys.readouterr().out
        path.write_bytes(whole)
