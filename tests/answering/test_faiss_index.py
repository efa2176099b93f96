"""The index that FAISS searches: the hits of the plain one, behind the same methods."""

import builtins

import pytest
import torch

from gill_lite.answering.faiss_index import FAISS, FaissIndex, add_faiss
from gill_lite.answering.index import INDEX, ImageIndex, load_index
from gill_lite.cli import main as cli
from gill_lite.errors import GillError


@pytest.fixture
def faiss():
    return pytest.importorskip("faiss", reason="optional: pip install 'gill-lite[faiss]'")


def vectors(n: int, seed: int = 0, width: int = 16) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("count", [1, 16, 256])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_faiss_gives_the_hits_of_the_whole_product(tmp_path, faiss, dtype, count):
    names = [f"photo-{i}" for i in range(3_000)]
    plain = ImageIndex.build(vectors(3_000).to(dtype), names)
    queries, hidden = vectors(count, seed=1), [["photo-7", "unknown"]] * count
    plain.save(tmp_path / INDEX)
    add_faiss(tmp_path / INDEX)
    index = load_index(tmp_path)
    assert isinstance(index, FaissIndex) and len(index) == 3_000
    for exclude in (None, hidden, [list(row) for row in plain.search(queries, k=2).ids]):
        expected, hits = (i.search(queries, k=5, exclude=exclude) for i in (plain, index))
        torch.testing.assert_close(hits.scores, expected.scores)
        assert hits.ids == expected.ids and torch.equal(hits.indices, expected.indices)


def test_it_is_built_saved_and_loaded_as_the_plain_one_is(tmp_path, faiss):
    index = FaissIndex.build(vectors(30), range(30))
    index.save(tmp_path / "index")
    loaded = FaissIndex.load(tmp_path / "index").to("cpu")
    expected = ImageIndex.build(vectors(30), range(30)).search(vectors(4, seed=1), k=99)
    for same in (index, loaded):
        hits = same.search(vectors(4, seed=1), k=99)
        torch.testing.assert_close(hits.scores, expected.scores)
        assert hits.ids == expected.ids


def test_equal_scores_keep_the_order_of_the_index(faiss):
    hits = FaissIndex.build(vectors(1).repeat(9, 1), range(9)).search(vectors(1), k=9)
    assert hits.indices.tolist() == [list(range(9))]


def test_lists_look_at_a_part_and_say_so_by_fewer_hits(tmp_path, faiss):
    images = vectors(2_000)
    ImageIndex.build(images, range(2_000)).save(tmp_path / INDEX)
    add_faiss(tmp_path / INDEX, lists=32)
    index = load_index(tmp_path)
    assert index.searcher.nprobe == 2
    hits = index.search(images[:50], k=1_000)
    assert [row[0] for row in hits.ids] == [str(i) for i in range(50)]
    assert all(len(row) < 1_000 for row in hits.ids)
    assert torch.isinf(hits.scores[:, -1]).all()


def test_without_faiss_one_sentence_says_what_helps(tmp_path, monkeypatch):
    ImageIndex.build(vectors(3), "abc").save(tmp_path / INDEX)
    (tmp_path / INDEX / FAISS).touch()
    found = builtins.__import__

    def missing(name, *more, **others):
        if name == "faiss":
            raise ModuleNotFoundError(name)
        return found(name, *more, **others)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(GillError, match=r"pip install 'gill-lite\[faiss\]'"):
        load_index(tmp_path)


def test_broken_and_foreign_files_are_named(tmp_path, faiss):
    ImageIndex.build(vectors(3), "abc").save(tmp_path / INDEX)
    (tmp_path / INDEX / FAISS).write_bytes(b"no index")
    with pytest.raises(GillError, match="index.faiss is missing or broken; make it again"):
        load_index(tmp_path)
    FaissIndex.build(vectors(4), "abcd").write(tmp_path / INDEX)
    with pytest.raises(GillError, match="index.faiss is not of the embeddings beside it"):
        load_index(tmp_path)
    with pytest.raises(GillError, match="4 lists are too many for 3 pictures"):
        add_faiss(tmp_path / INDEX, lists=4)


def test_the_command_makes_it_of_an_index_that_is_there(tmp_path, faiss, capsys):
    ImageIndex.build(vectors(40), range(40)).save(tmp_path / INDEX)
    assert cli.main(["index", "-o", str(tmp_path), "--faiss"]) == 0
    assert f"the index is in {tmp_path}" in capsys.readouterr().out
    assert isinstance(load_index(tmp_path), FaissIndex)
    assert cli.main(["index", "-o", str(tmp_path), "--faiss", "4"]) == 0
    assert load_index(tmp_path).searcher.nlist == 4
    assert cli.main(["index", "-o", str(tmp_path)]) == 2
    assert "name a folder of pictures to index, or --faiss" in capsys.readouterr().err
