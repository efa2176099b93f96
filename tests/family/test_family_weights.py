"""The shipped weights of the family: whole, as their manifest says, within 40 MB."""

import pytest

from gill_lite import provenance
from gill_lite.family import SYSTEMS
from gill_lite.family.system import BUDGETS, CONFIG, MANIFEST, WEIGHTS, command_of, folder_of
from gill_lite.family.table import seeds_of
from gill_lite.files import DATA, read_json

LIMIT = 40 * 10**6  # bytes
SHIPPED = [
    (system, seed)
    for system in SYSTEMS.values()
    if system.trained_here
    for seed in seeds_of(system, None)
]


@pytest.mark.parametrize("system, seed", SHIPPED, ids=lambda value: getattr(value, "name", value))
def test_a_system_ships_as_its_manifest_says(system, seed):
    folder, about = folder_of(system.name, seed), read_json(DATA / "family" / MANIFEST, "manifest")
    told = read_json(folder / CONFIG, "configuration")
    for name in (WEIGHTS, CONFIG):
        listed = about["files"][f"{folder.name}/{name}"]
        assert listed["sha256"] == provenance.sha256_of(folder / name)
        assert listed["bytes"] == (folder / name).stat().st_size
    assert told["command"] == command_of(system.name, seed) and told["seconds"] > 0
    budget = BUDGETS[system.task]
    assert abs(sum(told["steps"].values()) - budget.steps) <= 1
    assert told["pairs"] == budget.batch * sum(told["steps"].values())


def test_nothing_else_ships_and_all_is_small():
    folders = {path.name for path in (DATA / "family").iterdir() if path.is_dir()}
    assert folders == {f"{system.name}-{seed}" for system, seed in SHIPPED}
    assert folders == set(read_json(DATA / "family" / MANIFEST, "manifest")["systems"])
    sizes = [path.stat().st_size for path in (DATA / "family").rglob("*.safetensors")]
    assert len(sizes) == len(SHIPPED) and sum(sizes) < LIMIT
