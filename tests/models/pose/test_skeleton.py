import pytest

from prunus.models.pose.skeleton import (
    COCO17,
    SKELETONS,
    SUBSETS,
    UNIFIED23,
    UNIFIED23_FROM,
    UNIFIED23_FROM_JRDB,
    read_out,
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


@pytest.mark.parametrize("name", SUBSETS)
def test_subsets_read_the_unified_set(name):
    part, chosen = read_out(UNIFIED23, name)
    count = int("".join(c for c in name if c.isdigit()))
    assert len(chosen) == len(part.joints) == len(part.sigmas) == count
    assert part.name == name
    assert part.joints == tuple(UNIFIED23.joints[i] for i in chosen)
    assert part.sigmas == tuple(UNIFIED23.sigmas[i] for i in chosen)
    for left, right in part.flip_pairs:
        assert part.joints[left].removeprefix("left") == part.joints[right].removeprefix("right")
    sided = {i for i, n in enumerate(part.joints) if n.startswith(("left", "right"))}
    assert {i for pair in part.flip_pairs for i in pair} == sided
    mirror = {a: b for pair in part.flip_pairs for a, b in (pair, pair[::-1])}
    limbs = {frozenset(limb) for limb in part.limbs}
    assert len(limbs) == len(part.limbs)
    assert {frozenset(mirror.get(i, i) for i in limb) for limb in limbs} == limbs


def test_subsets_keep_the_order_of_their_data_set():
    part, _ = read_out(UNIFIED23, "mpii16")
    assert part.joints[:3] == ("right_ankle", "right_knee", "right_hip")
    assert part.joints[6:10] == ("pelvis", "thorax", "neck", "head_top")
    assert set(read_out(UNIFIED23, "coco17")[0].limbs) == set(COCO17.limbs)
    assert read_out(COCO17, "coco17") == (COCO17, tuple(range(17)))


def test_a_chain_runs_on_over_a_missing_joint():
    part, chosen = read_out(UNIFIED23, "left_knee, left_foot,head_top,thorax")
    assert (part.name, chosen) == ("custom4", (13, 21, 17, 19))
    assert {frozenset(part.joints[i] for i in limb) for limb in part.limbs} == {
        frozenset(("left_knee", "left_foot")),
        frozenset(("head_top", "thorax")),
    }


@pytest.mark.parametrize(
    ("skeleton", "wanted", "message"),
    [
        (UNIFIED23, "mpii", "Unknown joint set 'mpii' .did you mean 'mpii16'"),
        (UNIFIED23, "nose,left_tail", "has no joint 'left_tail'"),
        (UNIFIED23, "nose,nose", "expected each once"),
        (UNIFIED23, "", "Unknown joint set"),
        (COCO17, "mpii16", "coco17 has no joint 'pelvis'"),
    ],
)
def test_subsets_that_cannot_be_are_refused(skeleton, wanted, message):
    with pytest.raises(UsageError, match=message):
        read_out(skeleton, wanted)
