"""One seed an example, so that results depend on no order, neighbour or resume point."""

import hashlib


def example_seed(run_seed: int, example_id: str) -> int:
    """The seed of an example's noise: a hash of the run's seed and the example's id alone."""
    digest = hashlib.sha256(f"{run_seed}/{example_id}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1  # 63 bits: what torch.Generator takes
