import numpy as np
import pytest

from tfpeft.channels.tags import FIXED, Tagged, Tags, untagged


def test_new_tags_are_all_different_and_never_the_fixed_one():
    tags = Tags()
    first, second = tags.new(3), tags.new(2)
    assert first.tolist() == [1, 2, 3]
    assert second.tolist() == [4, 5]
    assert tags.count == 6
    assert tags.roots(first).tolist() == [1, 2, 3]


def test_united_tags_have_one_root_through_any_chain():
    tags = Tags()
    made = tags.new(6)
    tags.unite(made[:2], made[2:4])  # 1 and 3, 2 and 4
    tags.unite(made[3], made[4])  # 4 and 5
    assert tags.roots(made).tolist() == [1, 2, 1, 2, 2, 6]


def test_what_meets_the_fixed_tag_is_fixed_in_any_order():
    tags = Tags()
    made = tags.new(4)
    tags.unite(made[0], made[1])
    tags.unite(FIXED, made[1])
    tags.unite(made[2], FIXED)
    tags.unite(made[2], made[3])
    assert tags.roots(made).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        ([[1, 2], [3, 4]], [[1, 2]], [1, 2, 1, 2, 5]),  # a row against the first row
        ([1, 2, 3], 3, [1, 1, 1, 4, 5]),
        ([], [], [1, 2, 3, 4, 5]),
    ],
)
def test_tags_are_united_pair_by_pair_with_broadcasting(left, right, expected):
    tags = Tags()
    made = tags.new(5)
    tags.unite(np.array(left, int), np.array(right, int))
    assert tags.roots(made).tolist() == expected


def test_roots_keep_the_shape_of_their_array():
    tags = Tags()
    made = tags.new(4).reshape(2, 2)
    tags.unite(made[0], made[1])
    assert tags.roots(made).tolist() == [[1, 2], [1, 2]]
    assert tags.roots(np.zeros((0,), int)).shape == (0,)


def test_many_tags_in_one_chain():
    tags = Tags()
    made = tags.new(20_000)
    tags.unite(made[1:], made[:-1])
    assert np.all(tags.roots(made) == 1)


def test_a_tensor_with_other_tags_along_an_axis():
    x = untagged((None, 4, 2))
    assert x.tagged_axes() == []
    other = x.replace(2, np.array([1, 2]))
    assert other.tagged_axes() == [2]
    assert x.axes == (None, None, None)
    assert other.shape == x.shape
    assert isinstance(other, Tagged)
