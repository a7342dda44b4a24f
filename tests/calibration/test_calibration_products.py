"""Measured matrix products: exact at their points, and right for shapes and devices that were left out."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from txlplan import resources
from txlplan.calibration import LEFT_OUT, ProductModel, Products, read_products, score_products
from txlplan.errors import InputError

FILE = resources.shipped("profiles") / "measurements" / "deepbench_gemm.csv"


@pytest.fixture(scope="module")
def groups() -> list[Products]:
    return read_products(FILE)


@pytest.fixture(scope="module")
def v100(groups) -> ProductModel:
    return ProductModel(groups[0])


def test_every_measured_product_is_read_and_comes_back_exactly(groups):
    assert sum(len(group.seconds) for group in groups) == 636
    for group in groups:
        assert ProductModel(group).seconds(group) == pytest.approx(group.seconds, rel=1e-9)


def test_families_left_out_and_another_device_are_within_their_bars(groups):
    scores = score_products(groups)
    left_out = [score for score in scores if score.what == LEFT_OUT]
    assert len(left_out) == 4
    assert all(score.median < 0.10 for score in left_out)
    (transfer,) = (score for score in scores if score.precision == "all")
    assert (transfer.device, transfer.n) == ("t4", 318)
    assert transfer.median < 0.15


def test_a_family_left_out_does_not_see_itself(groups):
    """Its own times could be anything, but for the few numbers of the tiles, which all products share."""
    own = groups[0]
    mine = own.families == "4096x4096"
    model = ProductModel(own)
    before = model.seconds(own, own.families[:, None] == own.families[None])
    model._residual = np.where(mine, model._residual + 1.0, model._residual)
    after = model.seconds(own, own.families[:, None] == own.families[None])
    assert after[mine] == pytest.approx(before[mine])
    assert np.abs(after / before - 1).max() > 0.01


def shapes(group: Products, sizes: list[tuple[int, int, int]]) -> Products:
    count = len(sizes)
    return replace(group, shape=np.array(sizes, dtype=float), order=np.array(["NN"] * count), seconds=np.ones(count))


def test_waves_are_whole(groups, v100):
    """80 multiprocessors: a result of a row of tiles more than they hold is computed at a lower rate."""
    full, more = v100.seconds(shapes(groups[0], [(1280, 1024, 4096), (1408, 1024, 4096)]))
    assert more / 1408 > 1.03 * full / 1280


def test_a_larger_product_is_never_much_faster(groups, v100):
    sizes = [(2048, n, 2048) for n in (16, 64, 256, 1024, 4096, 16384)]
    times = v100.seconds(shapes(groups[0], sizes))
    assert all(after > 0.98 * before for before, after in pairwise(times))


def test_an_unknown_device_is_refused(tmp_path):
    file = tmp_path / "x.csv"
    file.write_text("gpu,precision,M,N,K,transA,transB,ms\nH9,fp32,1,1,1,N,N,1\n")
    with pytest.raises(InputError, match="line 2: H9 fp32 is not known"):
        read_products(file)
