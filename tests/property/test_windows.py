"""The laws of the sketch: 1 % relative error, and a merge that is the sketch of the union, however it is grouped."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from processing.windows import RELATIVE_ERROR, Sketch, keys_of, merge, quantile

values = st.lists(
    st.one_of(
        st.floats(min_value=0, allow_nan=False, allow_infinity=False, allow_subnormal=False),
        st.floats(min_value=1e-4, max_value=1e4),
        st.integers(min_value=0, max_value=2**63 - 1).map(float),
    ),
    min_size=1,
    max_size=80,
)


def sketch_of(numbers: list[float]) -> Sketch:
    counts = Counter(keys_of(np.array(numbers, dtype=np.float64)).tolist())
    keys = sorted(counts)
    return keys, [counts[key] for key in keys]


@given(values, st.floats(min_value=0, max_value=1))
def test_a_quantile_is_within_one_percent_of_the_exact_one(numbers: list[float], q: float) -> None:
    exact = sorted(numbers)[int(q * (len(numbers) - 1))]
    found = quantile(*sketch_of(numbers), q)
    assert found is not None
    assert abs(found - exact) <= RELATIVE_ERROR * exact * (1 + 1e-9)


@given(values, values, values)
def test_a_merge_is_the_sketch_of_the_union_in_any_grouping(a: list[float], b: list[float], c: list[float]) -> None:
    union = sketch_of(a + b + c)
    first, second, third = sketch_of(a), sketch_of(b), sketch_of(c)
    assert merge([first, second, third]) == union
    assert merge([merge([first, second]), third]) == union
    assert merge([first, merge([third, second])]) == union
    assert merge([union, ([], [])]) == union


@given(values)
def test_keys_order_as_their_values_do(numbers: list[float]) -> None:
    keys = keys_of(np.array(sorted(numbers))).tolist()
    assert keys == sorted(keys)
