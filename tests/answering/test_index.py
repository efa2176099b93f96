"""The image index: exact, stable, saved whole."""

import pytest
import torch

from gill_lite.answering import index as retrieval
from gill_lite.answering.index import ImageIndex, Names
from gill_lite.errors import GillError
from gill_lite.evaluation.metrics import recall_at_k


def vectors(n: int, seed: int = 0, width: int = 16) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def test_search_agrees_with_the_whole_matrix_for_every_chunk_size():
    images, queries = vectors(50), vectors(7, seed=1)
    index = ImageIndex.build(images, range(50))
    cosine = torch.nn.functional.cosine_similarity(queries[:, None], images[None], dim=-1)
    expected = cosine.topk(10, dim=1)
    for chunk in (1, 7, 50, 1000):
        hits = index.search(queries, k=10, chunk=chunk)
        torch.testing.assert_close(hits.scores, expected.values)
        assert torch.equal(hits.indices, expected.indices)
        assert hits.ids == [[str(i) for i in row] for row in expected.indices.tolist()]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64"])
def test_numpy_arrays_are_indexed_as_tensors_are(dtype):
    rows = (10 * vectors(5)).numpy().astype(dtype)
    rows.flags.writeable = False
    index, query = ImageIndex.build(rows, range(5)), torch.tensor(rows[2:3]).float()
    assert index.search(query).ids == [["2"]]


@pytest.mark.parametrize("count", [1, 3, 9])
@pytest.mark.parametrize("chunk", [1, 7, 200, 5000])
def test_half_precision_gives_the_hits_of_the_whole_product(count, chunk):
    images = torch.nn.functional.normalize(vectors(400), dim=1).half()
    images = torch.cat([images, images[:200] + 2**-12 * vectors(200, seed=2).half()])  # near ties
    queries, names = vectors(count, seed=1), [str(i) for i in range(600)]
    index = ImageIndex(images, names)
    unit = torch.nn.functional.normalize(queries, dim=1)
    expected = unit @ images.float().T
    hidden = [[str(int(row.argmax())), "unknown"] for row in expected]
    for row, ids in zip(expected, hidden, strict=True):
        row[int(ids[0])] = -torch.inf
    hits = index.search(queries, k=8, exclude=hidden, chunk=chunk)
    torch.testing.assert_close(hits.scores, expected.topk(8).values)
    assert torch.equal(hits.indices, expected.topk(8).indices)


@pytest.mark.parametrize("count", [1, 16, 256])
def test_a_gpu_gives_the_hits_of_a_cpu(count, monkeypatch):
    """Its way of searching, here on a CPU, in one piece and in several."""
    images = torch.nn.functional.normalize(vectors(3_000), dim=1).half()
    index = ImageIndex(images, [str(i) for i in range(3_000)]).to("cpu")
    queries = vectors(count, seed=1)
    expected = index.search(queries, k=5)
    monkeypatch.setattr(retrieval, "_on_gpu", lambda embeddings: True)
    for held in (2**28, 700 * count):
        monkeypatch.setattr(retrieval, "ROUGH_ON_GPU", held)
        hits = index.search(queries, k=5)
        torch.testing.assert_close(hits.scores, expected.scores)
        assert hits.ids == expected.ids and torch.equal(hits.indices, expected.indices)


def test_nearly_equal_rows_are_told_apart(monkeypatch):
    """Half precision cannot tell these rows apart: most are computed exactly, in pieces."""
    monkeypatch.setattr(retrieval, "CHUNK", 100)
    images = (vectors(1) + 2**-9 * vectors(1_050, seed=2)).half()
    query = vectors(1, seed=1)
    expected = torch.nn.functional.normalize(query, dim=1) @ images.float().T
    hits = ImageIndex(images, [str(i) for i in range(1_050)]).search(query, k=9)
    torch.testing.assert_close(hits.scores, expected.topk(9).values)
    assert torch.equal(hits.indices, expected.topk(9).indices)


def test_exact_cosines_widen_few_rows_at_a_time(monkeypatch):
    monkeypatch.setattr(retrieval, "CHUNK", 100)
    images, queries, rows = vectors(300).half(), vectors(2, seed=1), torch.arange(0, 300, 2)
    widened = []

    class Watched:
        def __getitem__(self, some):
            widened.append(len(some))
            return images[some]

    found = retrieval._exact(queries, Watched(), rows)
    assert widened == [100, 50]
    torch.testing.assert_close(found, queries @ images[rows].float().T)


def test_ids_that_are_one_text_are_no_list_of_ids(tmp_path):
    ImageIndex.build(vectors(3), "abc").save(tmp_path / "index")
    (tmp_path / "index" / "ids.json").write_text('{"ids": "abc"}')
    with pytest.raises(GillError, match="not one id for each embedding"):
        ImageIndex.load(tmp_path / "index")


def test_names_are_the_texts_they_were_made_of():
    texts = ["a", "", "ü", "https://host/picture.jpg", "a"]
    names = Names(iter(texts))
    assert names == texts and list(names) == texts and len(names) == 5
    assert (names[-2], names[2], "ü" in names, "b" in names) == (texts[3], "ü", True, False)
    with pytest.raises(IndexError):
        names[5]


def test_equal_scores_keep_the_order_of_the_index():
    images = vectors(1).repeat(9, 1)
    for chunk in (2, 100):
        hits = ImageIndex.build(images, range(9)).search(images[:1], k=5, chunk=chunk)
        assert hits.indices.tolist() == [[0, 1, 2, 3, 4]]


def test_length_of_vectors_does_not_matter():
    images, queries = vectors(20), vectors(3, seed=1)
    plain = ImageIndex.build(images, range(20)).search(queries, k=5)
    scaled = ImageIndex.build(images * torch.rand(20, 1).add(0.1), range(20)).search(queries * 9, 5)
    assert torch.equal(plain.indices, scaled.indices)


def test_excluded_ids_are_not_returned_under_any_of_their_rows():
    images = vectors(6)
    index = ImageIndex.build(images, ["a", "b", "a", "c", "d", "e"])
    hits = index.search(images[[0, 3]], k=6, exclude=[["a", "unknown"], []], chunk=2)
    assert "a" not in hits.ids[0] and len(hits.ids[0]) == 4
    assert hits.ids[1][0] == "c" and len(hits.ids[1]) == 6
    assert torch.isinf(hits.scores[0, -2:]).all() and torch.isfinite(hits.scores[1]).all()


def test_k_larger_than_the_index_gives_all_of_it():
    assert ImageIndex.build(vectors(3), range(3)).search(vectors(2, 1), k=10).scores.shape == (2, 3)


def test_saved_index_gives_the_same_hits(tmp_path):
    index = ImageIndex.build(vectors(30), [f"photo-{i}" for i in range(30)])
    index.save(tmp_path / "index")
    loaded = ImageIndex.load(tmp_path / "index")
    before, after = index.search(vectors(4, 1), k=7), loaded.search(vectors(4, 1), k=7)
    assert torch.equal(before.scores, after.scores) and before.ids == after.ids
    with pytest.raises(GillError, match="there already"):
        index.save(tmp_path / "index")
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_recall_of_an_index_that_holds_the_query_is_one():
    images = vectors(40)
    ids = [str(i) for i in range(40)]
    noisy = images + 0.01 * vectors(40, seed=5)
    ranked = ImageIndex.build(images, ids).search(noisy, k=10).ids
    assert recall_at_k(ranked, ids, 1).mean() == 1.0
    assert recall_at_k(ranked, ids[1:] + ids[:1], 1).mean() == 0.0


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: ImageIndex.build(torch.zeros(2, 4), ["a", "b"]), "image embedding 0 has length 0"),
        (lambda: ImageIndex.build(torch.full((1, 4), torch.nan), ["a"]), "image embedding 0"),
        (lambda: ImageIndex.build(vectors(3), ["a"]), "1 ids"),
        (lambda: ImageIndex.build(vectors(0), []), "at least one"),
        (lambda: ImageIndex.build(vectors(3), "abc").search(vectors(1), k=0), "k must be"),
        (lambda: ImageIndex.build(vectors(3), "abc").search(vectors(1, width=4)), "shape"),
        (lambda: ImageIndex.build(vectors(3), "abc").search(torch.zeros(1, 16)), "query 0"),
        (lambda: ImageIndex.build(vectors(3), "abc").search(vectors(2), exclude=[[]]), "exclude"),
    ],
)
def test_bad_input_is_one_sentence(call, says):
    with pytest.raises(GillError, match=says):
        call()


def test_broken_index_is_named(tmp_path):
    ImageIndex.build(vectors(3), "abc").save(tmp_path / "index")
    (tmp_path / "index" / "embeddings.safetensors").write_bytes(b"no tensors")
    with pytest.raises(GillError, match="embeddings.safetensors is missing or broken"):
        ImageIndex.load(tmp_path / "index")
    with pytest.raises(GillError, match="ids.json is missing"):
        ImageIndex.load(tmp_path / "gone")
