import numpy as np
import pytest

from prunus.models.training.pictures import decode, encode
from prunus.models.training.pose.shards import PeopleShard, read_shards, write_shard
from prunus.runtime.errors import PrunusError, SourceError


def _shard(values):
    images = [np.full((16, 24, 3), v, np.uint8) for v in values]
    joints = np.arange(len(values) * 51, dtype=np.float32).reshape(-1, 17, 3)
    return PeopleShard([encode(i) for i in images], joints, np.zeros((len(values), 4)))


def test_what_is_written_is_read_in_name_order(tmp_path):
    write_shard(tmp_path / "b.npz", _shard([200]))
    write_shard(tmp_path / "a.npz", _shard([10, 60]))
    both = read_shards(tmp_path)
    means = [decode(j).mean() for j in both.jpegs]
    np.testing.assert_allclose(means, [10, 60, 200], atol=2)
    assert both.keypoints.shape == (3, 17, 3)
    assert both.keypoints[1, 0, 0] == 51
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_colours_keep_their_order():
    image = np.zeros((16, 16, 3), np.uint8)
    image[..., 0] = 220  # red first
    assert decode(encode(image)).mean((0, 1))[0] > 180


def test_an_empty_folder_says_how_to_fill_it(tmp_path):
    with pytest.raises(PrunusError, match=r"rendering\.people"):
        read_shards(tmp_path)


def test_a_damaged_shard_is_refused_by_name(tmp_path, broken_npz):
    write_shard(tmp_path / "people" / "a.npz", _shard([10]))
    arrays = dict(np.load(tmp_path / "people" / "a.npz"))
    broken_npz("people/b.npz", **arrays)
    with pytest.raises(SourceError, match=r"b\.npz is not a complete .* Remove it"):
        read_shards(tmp_path / "people")
    np.savez(tmp_path / "people" / "b.npz", images=arrays["data"])
    with pytest.raises(SourceError, match="expected 'data' and 'lengths' and 'keypoints'"):
        read_shards(tmp_path / "people")
