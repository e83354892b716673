from itertools import chain

import torch

from howsparse.risk.spread import nested, spread


def test_nested_samples_are_spread_samples_and_no_example_is_lost() -> None:
    batches = list(torch.arange(1000).split(70))
    reordered, ends = nested(batches, (15, 60, 240))
    found = [batch.tolist() for batch in reordered]
    assert sorted(chain(*found)) == list(range(1000))
    for count, end in zip((15, 60, 240), ends, strict=True):
        wanted = list(chain(*(batch.tolist() for batch in spread(batches, count))))
        assert sorted(chain(*found[:end])) == wanted


def test_batches_that_cannot_be_split_are_in_exactly_one_place() -> None:
    batches = [(torch.full((4,), i), torch.zeros(3)) for i in range(40)]
    reordered, ends = nested(batches, (8, 32))
    found = [int(batch[0][0]) for batch in reordered]
    assert sorted(found) == list(range(40))
    assert ends == (8, 32)
