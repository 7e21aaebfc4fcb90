"""At test time an image is refined among neighbours that are found without labels, and said so."""

import pytest
import torch

from nearkin import graphs
from nearkin.graphs import Refiner, refine_at_test
from nearkin.graphs.rerank import nearest, reciprocal
from nearkin.tensors import unit


def points(count: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 8, dtype=torch.double, generator=generator)


def refiner() -> Refiner:
    torch.manual_seed(0)
    return Refiner(graphs.full, [graphs.DotProduct(8, dropout=0.5)]).double()


def test_each_image_alone_with_its_neighbours():
    query, gallery, network = points(5, 0), points(30, 1), refiner()
    refined, said = refine_at_test(network, query, gallery, source="gallery", k=4)
    assert said == "each image with its 4 nearest neighbours in the gallery"
    assert network.training
    network.eval()
    for x, found in zip(unit(query), refined, strict=True):
        near = (unit(gallery) @ x).argsort(descending=True)[:4]
        expected = network(torch.cat([x[None], unit(gallery)[near]]))[0]
        torch.testing.assert_close(found, expected)


def test_numpy_embeddings_are_taken():
    query, gallery = points(3, 0), points(9, 1)
    found, _ = refine_at_test(refiner(), query.numpy(), gallery.numpy(), source="gallery")
    torch.testing.assert_close(
        found, refine_at_test(refiner(), query, gallery, source="gallery")[0]
    )


def test_nobody_is_a_neighbour_of_itself():
    query = points(12, 0)
    refined, said = refine_at_test(refiner(), query, source="gallery", k=3)
    assert said == "each image with its 3 nearest neighbours among the queries"
    assert refined.shape == query.shape
    for i, index in enumerate(nearest(unit(query), unit(query), 3, True)):
        assert i not in index.tolist()


def test_an_image_does_not_see_the_other_test_images():
    query, gallery = points(5, 0), points(30, 1)
    together, _ = refine_at_test(refiner(), query, gallery, source="gallery")
    alone, _ = refine_at_test(refiner(), query[2:3], gallery, source="gallery")
    torch.testing.assert_close(together[2:3], alone)


def slow_reciprocal(points, i: int, k: int) -> set[int]:
    """R*(i) by sets, over all points."""
    cosine = unit(points) @ unit(points).T
    order = cosine.fill_diagonal_(-2).argsort(1, descending=True).tolist()

    def mutual(i: int, reach: int) -> set[int]:
        return {j for j in order[i][:reach] if i in order[j][:reach]}

    own = mutual(i, 30)
    grown = set(own)
    for c in own:
        half = mutual(c, 15)
        if len(own & half) >= 2 / 3 * len(half):
            grown |= half
    return set(sorted(grown - {i}, key=lambda j: order[i].index(j))[:k])


def test_reciprocal_neighbours_by_sets():
    x = points(80, 2)
    for k in (6, 80):
        lists = [set(index.tolist()) for index in reciprocal(unit(x), unit(x), k, True)]
        assert lists == [slow_reciprocal(x, i, k) for i in range(80)]
    refined, said = refine_at_test(refiner(), x, source="reciprocal")
    assert said == "each image with its 6 nearest 30-reciprocal neighbours among the queries"
    assert refined.isfinite().all()


def test_reciprocal_neighbours_of_a_query_apart_are_those_that_would_have_it():
    gallery, query = points(60, 3), points(4, 4)
    found = reciprocal(unit(query), unit(gallery), 60, False)
    for x, index in zip(query, found, strict=True):
        both = torch.cat([gallery, x[None]])
        cosine = (unit(both) @ unit(both).T).fill_diagonal_(-2)
        order = cosine.argsort(1, descending=True)
        mutual = {j for j in order[60, :30].tolist() if 60 in order[j, :30].tolist()}
        assert mutual <= set(index.tolist())


def test_grouping_by_label_is_refused():
    x = points(6, 0)
    with pytest.raises(ValueError, match="gives the answer away"):
        refine_at_test(refiner(), x, source="labels")
    with pytest.raises(ValueError, match="gives the answer away"):
        refine_at_test(refiner(), x, source="gallery", labels=torch.zeros(6))
    with pytest.raises(ValueError, match="source must be one of gallery, reciprocal"):
        refine_at_test(refiner(), x, source="batch")
    with pytest.raises(ValueError, match="wanted k of 0 or more"):
        refine_at_test(refiner(), x, source="gallery", k=-1)
    with pytest.raises(ValueError, match=r"a gallery \(M, 8\), got 6 and \(5, 3\)"):
        refine_at_test(refiner(), x, torch.zeros(5, 3).double(), source="gallery")
    guided = Refiner(graphs.label_guided, [graphs.DotProduct(8)]).double()
    with pytest.raises(ValueError, match="training only"):
        refine_at_test(guided, x, source="gallery")


@pytest.mark.parametrize("source", ["gallery", "reciprocal"])
@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images(source, count):
    refined, _ = refine_at_test(refiner(), points(count, 0), source=source)
    assert refined.shape == (count, 8)
