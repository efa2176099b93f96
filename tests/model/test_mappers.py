"""The four mappers: shapes, what they read, and the paper-size count."""

import pytest
import torch
from torch import nn

from gill_lite.errors import GillError
from gill_lite.model.config import GillConfig
from gill_lite.model.mappers import MAPPERS, build_mapper

SMALL = {"prompt_width": 6, "prompt_slots": 8, "num_img_tokens": 4, "img_token_ids": range(9, 13)}
SMALL |= {"mapper_width": 8, "mapper_layers": 2, "mapper_heads": 2, "mapper_ffn": 16}


def make(kind, **changes):
    torch.manual_seed(0)
    return build_mapper(GillConfig(**{**SMALL, "mapper": kind, **changes}), in_width=5)


@pytest.mark.parametrize("kind", MAPPERS)
def test_every_mapper_gives_prompt_embeddings(kind):
    hidden, inputs = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    assert make(kind)(hidden, inputs).shape == (3, 8, 6)


@pytest.mark.parametrize("kind", MAPPERS)
def test_rows_of_a_batch_do_not_see_each_other(kind):
    mapper, hidden, inputs = make(kind), torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    torch.testing.assert_close(mapper(hidden, inputs)[1:2], mapper(hidden[1:2], inputs[1:2]))


@pytest.mark.parametrize("kind, reads", [("gill", 1), ("encoder", 1), ("mlp", 0), ("linear", 0)])
def test_who_reads_the_input_embeddings(kind, reads):
    mapper, hidden, inputs = make(kind), torch.randn(1, 4, 5), torch.randn(1, 4, 5)
    change = (mapper(hidden, inputs) - mapper(hidden, 0 * inputs)).abs().max().item()
    assert (change > 1e-6) == bool(reads)
    if reads:  # the sum of both, as in the official code
        torch.testing.assert_close(mapper(hidden, inputs), mapper(hidden + inputs, 0 * inputs))


@pytest.mark.parametrize("kind, mixes", [("gill", 1), ("encoder", 1), ("mlp", 0), ("linear", 0)])
def test_who_mixes_the_img_tokens(kind, mixes):
    """A token-wise map leaves the other tokens' slots alone; a Transformer does not."""
    mapper, hidden = make(kind), torch.randn(1, 4, 5)
    other = hidden.clone()
    other[:, 0] += 1  # slots 0 and 1 of 8 belong to token 0 of 4
    change = (mapper(hidden, 0 * hidden) - mapper(other, 0 * hidden))[:, 2:].abs().max().item()
    assert (change > 1e-6) == bool(mixes)


def test_gill_mapper_is_torchs_transformer():
    mapper = make("gill")
    plain = nn.Transformer(8, 2, 2, 2, 16, dropout=0.0, norm_first=True, batch_first=True)
    plain.load_state_dict(mapper.transformer.state_dict())
    hidden, inputs = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    memory = mapper.project_in(hidden + inputs)
    expected = mapper.project_out(plain(memory, mapper.queries.repeat(3, 1, 1)))
    torch.testing.assert_close(mapper(hidden, inputs), expected)


def test_layers_start_different():
    first, second = make("encoder").encoder.layers
    assert not torch.equal(first.linear1.weight, second.linear1.weight)


def test_bad_configurations():
    with pytest.raises(GillError, match="unknown mapper 'mlpp'"):
        make("mlpp")
    with pytest.raises(GillError, match="4 .IMG. tokens cannot share 7 x 6"):
        make("linear", prompt_slots=7, prompt_width=6)
