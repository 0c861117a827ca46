"""Joint sets: names, limbs, mirror pairs and OKS constants, as data.

COCO's order and OKS constants are those of the COCO keypoint evaluation. The unified set of 23
joints merges COCO, MPII, AI Challenger, CrowdPose and JRDB-Pose after the description of
UniTransPose (arXiv 2503.00232); its official order is not public, so ours is a table to replace.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from prunus.runtime.errors import UsageError, nearest


@dataclass(frozen=True, slots=True)
class Skeleton:
    """One joint set.

    Attributes:
        name: Short name, e.g. ``coco17``.
        joints: Names in output order.
        limbs: Index pairs to draw.
        flip_pairs: Index pairs that swap when the picture is mirrored.
        sigmas: OKS constant of each joint (k_i / 2 in the COCO evaluation).
    """

    name: str
    joints: tuple[str, ...]
    limbs: tuple[tuple[int, int], ...]
    flip_pairs: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]


def _mirror(joints: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    return tuple(
        (i, joints.index("right" + name[4:]))
        for i, name in enumerate(joints)
        if name.startswith("left")
    )


_COCO_JOINTS = (
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
    "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
_COCO_LIMBS = (
    (0, 1), (0, 2), (1, 3), (2, 4), (5, 6), (5, 7), (7, 9), (6, 8), (8, 10), (5, 11), (6, 12),
    (11, 12), (11, 13), (13, 15), (12, 14), (14, 16),
)  # fmt: skip
_COCO_SIGMAS = (
    0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107,
    0.087, 0.087, 0.089, 0.089,
)  # fmt: skip

COCO17 = Skeleton("coco17", _COCO_JOINTS, _COCO_LIMBS, _mirror(_COCO_JOINTS), _COCO_SIGMAS)

_UNIFIED_JOINTS = (
    *_COCO_JOINTS, "head_top", "neck", "thorax", "pelvis", "left_foot", "right_foot",
)  # fmt: skip
UNIFIED23 = Skeleton(
    "unified23",
    _UNIFIED_JOINTS,
    (*_COCO_LIMBS, (17, 18), (18, 19), (19, 20), (15, 21), (16, 22)),
    _mirror(_UNIFIED_JOINTS),
    # CrowdPose gives 0.079 for head top and neck; the others take their neighbours' constants.
    (*_COCO_SIGMAS, 0.079, 0.079, 0.079, 0.107, 0.089, 0.089),
)

# Dataset -> for each of its joints in its own order, the index in UNIFIED23.
UNIFIED23_FROM: dict[str, tuple[int, ...]] = {
    "coco": tuple(range(17)),
    "ochuman": tuple(range(17)),
    "mpii": (16, 14, 12, 11, 13, 15, 20, 19, 18, 17, 10, 8, 6, 5, 7, 9),
    "aic": (6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 17, 18),
    "crowdpose": (5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18),
}

# JRDB-Pose by name, as the order of its files is not settled here. Its head has no counterpart but
# the top of the head; ears, nose and ankles have no label there.
_JRDB_SIDED = ("eye", "shoulder", "elbow", "wrist", "hip", "knee", "foot")
UNIFIED23_FROM_JRDB: dict[str, str] = {
    "head": "head_top",
    "center_shoulder": "thorax",
    "center_hip": "pelvis",
    **{f"{side}_{part}": f"{side}_{part}" for side in ("left", "right") for part in _JRDB_SIDED},
}

# Joint sets that can be read out, as joints of UNIFIED23. JRDB-Pose's stand in the unified order.
_SUBSETS: dict[str, tuple[int, ...]] = {
    "coco17": UNIFIED23_FROM["coco"],
    "ochuman17": UNIFIED23_FROM["ochuman"],
    "mpii16": UNIFIED23_FROM["mpii"],
    "aic14": UNIFIED23_FROM["aic"],
    "crowdpose14": UNIFIED23_FROM["crowdpose"],
    "jrdb17": tuple(sorted(map(_UNIFIED_JOINTS.index, UNIFIED23_FROM_JRDB.values()))),
    "unified23": tuple(range(len(_UNIFIED_JOINTS))),
}
SUBSETS: dict[str, tuple[str, ...]] = {
    name: tuple(_UNIFIED_JOINTS[i] for i in chosen) for name, chosen in _SUBSETS.items()
}

SKELETONS = {skeleton.name: skeleton for skeleton in (COCO17, UNIFIED23)}


def read_out(skeleton: Skeleton, wanted: str) -> tuple[Skeleton, tuple[int, ...]]:
    """Choose joints of a skeleton.

    Args:
        skeleton: The joints that a network knows.
        wanted: A name of `SUBSETS`, or names of joints between commas.

    Returns:
        The chosen joint set in its own order, and the index of each joint in `skeleton`.

    Raises:
        UsageError: an unknown name, a joint that the skeleton lacks, or one named twice.
    """
    joints = SUBSETS.get(wanted)
    name = wanted
    if joints is None:
        joints = tuple(part.strip() for part in wanted.split(","))
        name = f"custom{len(joints)}"
    if len(joints) == 1 and joints[0] not in UNIFIED23.joints:
        known = [*SUBSETS, *UNIFIED23.joints]
        raise UsageError(
            f"Unknown joint set '{wanted}'{nearest(wanted, known)}.",
            f"Choose one of {', '.join(SUBSETS)}, or name joints: nose,left_wrist,right_wrist",
        )
    for joint in joints:
        if joint not in skeleton.joints:
            raise UsageError(
                f"{skeleton.name} has no joint '{joint}'{nearest(joint, list(skeleton.joints))}.",
                f"Choose among: {', '.join(skeleton.joints)}",
            )
    if len(set(joints)) != len(joints):
        raise UsageError(f"Got the joints {', '.join(joints)}; expected each once.")
    chosen = tuple(skeleton.joints.index(joint) for joint in joints)
    return _part_of(skeleton, name, chosen), chosen


def _part_of(skeleton: Skeleton, name: str, chosen: tuple[int, ...]) -> Skeleton:
    """Return some joints of a skeleton as one of their own."""
    if chosen == tuple(range(len(skeleton.joints))):
        return replace(skeleton, name=name)
    place = {index: k for k, index in enumerate(chosen)}
    limbs = set(skeleton.limbs)
    for missing in (i for i in range(len(skeleton.joints)) if i not in place):
        touching = sorted(limb for limb in limbs if missing in limb)
        limbs -= set(touching)
        if len(touching) == 2:
            first, last = (a if b == missing else b for a, b in touching)
            limbs.add((min(first, last), max(first, last)))
    return Skeleton(
        name,
        tuple(skeleton.joints[i] for i in chosen),
        tuple((place[a], place[b]) for a, b in sorted(limbs)),
        tuple((place[a], place[b]) for a, b in skeleton.flip_pairs if a in place and b in place),
        tuple(skeleton.sigmas[i] for i in chosen),
    )
