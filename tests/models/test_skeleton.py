import pytest

from prunus.models.pose.skeleton import (
    COCO17,
    SKELETONS,
    UNIFIED23,
    UNIFIED23_FROM,
    UNIFIED23_FROM_JRDB,
    skeleton_for,
)
from prunus.runtime.errors import UsageError

COUNTS = {"coco": 17, "ochuman": 17, "mpii": 16, "aic": 14, "crowdpose": 14}
# Names of the first and last joints in each data set's own order.
ENDS = {
    "coco": ("nose", "right_ankle"),
    "ochuman": ("nose", "right_ankle"),
    "mpii": ("right_ankle", "left_wrist"),
    "aic": ("right_shoulder", "neck"),
    "crowdpose": ("left_shoulder", "neck"),
}


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=SKELETONS.keys())
def test_tables_are_consistent(skeleton):
    count = len(skeleton.joints)
    assert len(set(skeleton.joints)) == count == len(skeleton.sigmas)
    assert all(0 <= i < count for pair in skeleton.limbs for i in pair)
    for left, right in skeleton.flip_pairs:
        assert skeleton.joints[left] == "left" + skeleton.joints[right].removeprefix("right")
        assert skeleton.sigmas[left] == skeleton.sigmas[right]
    paired = {i for pair in skeleton.flip_pairs for i in pair}
    sided = {i for i, n in enumerate(skeleton.joints) if n.startswith(("left", "right"))}
    assert paired == sided


def test_limbs_mirror_onto_limbs():
    for skeleton in SKELETONS.values():
        mirror = {a: b for pair in skeleton.flip_pairs for a, b in (pair, pair[::-1])}
        limbs = {frozenset(limb) for limb in skeleton.limbs}
        assert {frozenset(mirror.get(i, i) for i in limb) for limb in limbs} == limbs


def test_coco_constants():
    assert len(COCO17.joints) == 17
    assert sum(COCO17.sigmas) == pytest.approx(1.138)
    assert UNIFIED23.joints[:17] == COCO17.joints


@pytest.mark.parametrize("dataset", UNIFIED23_FROM)
def test_data_set_maps(dataset):
    table = UNIFIED23_FROM[dataset]
    assert len(table) == COUNTS[dataset] == len(set(table))
    assert (UNIFIED23.joints[table[0]], UNIFIED23.joints[table[-1]]) == ENDS[dataset]


def test_jrdb_map():
    assert len(UNIFIED23_FROM_JRDB) == 17 == len(set(UNIFIED23_FROM_JRDB.values()))
    assert set(UNIFIED23_FROM_JRDB.values()) <= set(UNIFIED23.joints)


def test_lookup_by_count():
    assert skeleton_for(17) is COCO17 and skeleton_for(23) is UNIFIED23
    assert skeleton_for(5).joints[4] == "joint_4"
    with pytest.raises(UsageError, match="at least 1"):
        skeleton_for(0)
