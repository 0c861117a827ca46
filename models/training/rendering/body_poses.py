"""Sample plausible joint rotations for the Anny body: walking, standing, sitting, reaching.

All rotations are given in the axes of the rest body (x to the person's left, -y forward, z up),
which is Anny's ``local-ref`` convention. Only the left side is written down: the right side is
the mirror image of an independent draw, so that no left/right bias can creep in.
"""

from __future__ import annotations

import numpy as np

Rotations = dict[str, np.ndarray]

# Rest directions of the left upper arm and the elbow's hinge, read from the rest skeleton.
_UPPER_ARM = np.array([0.64, -0.03, -0.77])
_ELBOW_HINGE = np.array([-0.77, -0.11, -0.63])
_REST_ABDUCTION = 40.0
_REST_ELBOW = 39.0
_MIRROR = np.diag([-1.0, 1.0, 1.0])


def rotation(axis: np.ndarray | tuple[float, float, float], degrees: float) -> np.ndarray:
    """Return the 3x3 rotation about ``axis`` (any length) by ``degrees`` (Rodrigues)."""
    unit = np.asarray(axis, np.float64)
    unit = unit / np.linalg.norm(unit)
    angle = np.deg2rad(degrees)
    x, y, z = unit
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.asarray(np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross)


def _arm(abduct: float, flex: float, elbow: float, twist: float) -> Rotations:
    """Return left-arm rotations: angle from hanging sideways and forward, elbow bend, twist."""
    shrug = max(0.0, abduct - 90.0) * 0.25
    upper = (
        rotation((1, 0, 0), -flex)
        @ rotation((0, 1, 0), _REST_ABDUCTION - abduct + shrug)
        @ rotation(_UPPER_ARM, twist)
    )
    return {
        "clavicle.L": rotation((0, 1, 0), -shrug),
        "upperarm01.L": upper,
        "lowerarm01.L": rotation(_ELBOW_HINGE, elbow - _REST_ELBOW),
    }


def _leg(flex: float, spread: float, turn: float, knee: float, foot: float) -> Rotations:
    """Return left-leg rotations: thigh forward, thigh outward, thigh twist, knee and foot bend."""
    upper = rotation((1, 0, 0), -flex) @ rotation((0, 1, 0), -spread) @ rotation((0, 0, 1), turn)
    return {
        "upperleg01.L": upper,
        "lowerleg01.L": rotation((1, 0, 0), knee),
        "foot.L": rotation((1, 0, 0), foot),
    }


def _mirror(left: Rotations) -> Rotations:
    return {name.replace(".L", ".R"): _MIRROR @ r @ _MIRROR for name, r in left.items()}


def _clip_normal(
    rng: np.random.Generator, mean: float, std: float, low: float, high: float
) -> float:
    return float(np.clip(rng.normal(mean, std), low, high))


def _relaxed_arm(rng: np.random.Generator, swing: float) -> Rotations:
    """Return an arm of everyday life: mostly hanging, sometimes carrying or held to the body."""
    kind = rng.random()
    if kind < 0.6:  # hanging and swinging
        return _arm(
            _clip_normal(rng, 10, 7, 0, 35),
            swing + rng.normal(0, 8),
            _clip_normal(rng, 15, 12, 2, 60),
            rng.normal(0, 20),
        )
    if kind < 0.85:  # forearm forward: a phone, a bag strap, hands in pockets
        return _arm(
            _clip_normal(rng, 15, 10, 0, 45),
            _clip_normal(rng, 15, 18, -25, 60),
            rng.uniform(40, 135),
            rng.normal(-15, 30),
        )
    return _free_arm(rng)


def _free_arm(rng: np.random.Generator) -> Rotations:
    """Return an arm anywhere inside the joint limits, raised arms included."""
    if rng.random() < 0.5:
        abduct, flex = rng.uniform(0, 165), rng.normal(10, 20)
    else:
        abduct, flex = rng.uniform(0, 40), rng.uniform(-35, 165)
    return _arm(abduct, flex, min(rng.uniform(2, 140), rng.uniform(2, 140)), rng.uniform(-60, 40))


def _walk_legs(
    rng: np.random.Generator, phase: float, stride: float
) -> tuple[Rotations, Rotations]:
    """Return both legs of a stride: the knee of the leg that swings forward is bent."""
    legs = []
    for shift in (0.0, np.pi):
        angle = phase + shift
        knee = 8 + 1.4 * stride * max(0.0, float(np.sin(angle + 1.3))) + abs(rng.normal(0, 4))
        legs.append(
            _leg(
                4 + stride * float(np.sin(angle)) + rng.normal(0, 3),
                rng.normal(-4, 3),
                rng.normal(5, 6),
                knee,
                rng.normal(0, 8),
            )
        )
    return legs[0], legs[1]


def _sit_leg(rng: np.random.Generator) -> Rotations:
    flex = rng.uniform(65, 105)
    return _leg(flex, rng.normal(3, 9), rng.normal(0, 10), rng.uniform(40, 115), rng.normal(0, 8))


def _free_leg(rng: np.random.Generator) -> Rotations:
    flex = _clip_normal(rng, 20, 35, -25, 110)
    knee = float(np.clip(rng.uniform(0, 70) + max(flex, 0) * 0.5, 0, 135))
    return _leg(flex, _clip_normal(rng, 8, 14, -10, 50), rng.normal(5, 12), knee, rng.normal(0, 12))


def _trunk(rng: np.random.Generator, lean: float) -> Rotations:
    """Return spine, neck and head rotations for a forward ``lean`` in degrees."""
    side, turn = rng.normal(0, 4), rng.normal(0, 8)
    out: Rotations = {}
    for bone in ("spine05", "spine04", "spine03", "spine02"):
        out[bone] = (
            rotation((1, 0, 0), lean / 4)
            @ rotation((0, 1, 0), side / 4)
            @ rotation((0, 0, 1), turn / 4)
        )
    yaw, pitch = rng.normal(0, 25), rng.normal(5, 12) - 0.4 * lean
    head = rotation((0, 0, 1), yaw / 2) @ rotation((1, 0, 0), pitch / 2)
    out["neck01"] = head @ rotation((0, 1, 0), rng.normal(0, 5))
    out["head"] = head
    return out


def sample_pose(rng: np.random.Generator) -> Rotations:
    """Draw one posture as bone name -> 3x3 rotation, the root's facing direction excluded."""
    kind = rng.random()
    swing = 0.0
    if kind < 0.45:
        phase, stride = rng.uniform(0, 2 * np.pi), rng.uniform(8, 34)
        legs, swing, lean = _walk_legs(rng, phase, stride), stride * np.sin(phase), rng.normal(3, 4)
    elif kind < 0.68:
        spread = rng.uniform(-6, 10)
        stand = [
            _leg(rng.normal(0, 4), spread, rng.normal(5, 8), abs(rng.normal(0, 7)), 0.0)
            for _ in range(2)
        ]
        legs, lean = (stand[0], stand[1]), rng.normal(2, 6)
    elif kind < 0.8:
        legs, lean = (_sit_leg(rng), _sit_leg(rng)), rng.normal(5, 12)
    else:
        legs, lean = (_free_leg(rng), _free_leg(rng)), _clip_normal(rng, 8, 20, -20, 70)
    free_arms = rng.random() < (0.25 if kind < 0.8 else 0.7)
    left = _free_arm(rng) if free_arms else _relaxed_arm(rng, -0.8 * swing)
    right = _free_arm(rng) if free_arms else _relaxed_arm(rng, 0.8 * swing)
    return {**legs[0], **_mirror(legs[1]), **left, **_mirror(right), **_trunk(rng, lean)}
