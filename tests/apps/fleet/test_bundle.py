import dataclasses
import json
import shutil

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.apps.fleet.bundle import BLOBS, BundleFile, Contents, digest_of, open_bundle
from prunus.apps.fleet.signing import trusted_keys
from prunus.export.common.pipeline import write_model
from prunus.export.precision.fp16 import to_fp16
from prunus.export.verify.saved import load_runs
from prunus.runtime.card.artifact import EngineSidecar, read_card, sha256_of
from prunus.runtime.card.precision import PrecisionSpec
from prunus.runtime.errors import ArtifactError, PrunusError


def test_it_is_an_image_layout_whose_every_byte_is_named_by_its_hash(bundle) -> None:
    assert json.loads((bundle / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (entry,) = json.loads((bundle / "index.json").read_text())["manifests"]
    manifest = json.loads((bundle / BLOBS / entry["digest"][7:]).read_text())
    named = {part["digest"][7:]: part["size"] for part in (manifest["config"], *manifest["layers"])}
    named[entry["digest"][7:]] = entry["size"]
    blobs = {p.name: p.stat().st_size for p in (bundle / BLOBS).iterdir()}
    assert blobs == named and all(sha256_of(bundle / BLOBS / name) == name for name in blobs)
    titles = [p["annotations"]["org.opencontainers.image.title"] for p in manifest["layers"]]
    assert {"selfie.onnx", "selfie.card.json", "selfie.golden.npz", "signature.json"} < {*titles}


def test_golden_outputs_are_the_references_on_real_inputs(bundle) -> None:
    opened = open_bundle(bundle)
    with opened.unpacked() as folder:
        for model in opened.contents.models:
            runs = load_runs(folder / model.golden)
            assert runs.sha256 == sha256_of(folder / model.graph) and not runs.suspects
            assert all(len(values) == 4 for values in runs.inputs.values())
            image = next(iter(runs.inputs.values()))
            assert np.ptp(image) > 100 and not np.array_equal(image[0], image[1])
            assert "node by node" in model.reference
            assert [b.row for b in model.budgets] == ["fp32", "fp16", "int8"]


def test_the_signer_is_who_is_trusted(bundle, keys) -> None:
    assert not open_bundle(bundle).trusted
    assert open_bundle(bundle, trusted_keys([keys / "maker.pub"])).trusted
    with pytest.raises(ArtifactError, match="none of the keys that were given"):
        open_bundle(bundle, trusted_keys([keys / "other.pub"]))


@pytest.fixture
def copy(bundle, tmp_path):
    return shutil.copytree(bundle, tmp_path / "copy.bundle")


def _blob(copy, name):
    files = {f.name: f.sha256 for f in open_bundle(copy).contents.files}
    return copy / BLOBS / files[name]


def test_a_missing_or_changed_file_is_named(copy) -> None:
    blob = _blob(copy, "selfie.card.json")
    whole = blob.read_bytes()
    blob.write_bytes(whole + b" ")
    with pytest.raises(ArtifactError, match=r"The file selfie.card.json in .* is damaged"):
        open_bundle(copy)
    blob.unlink()
    with pytest.raises(ArtifactError, match=r"The file selfie.card.json is missing"):
        open_bundle(copy)


def _rewritten(copy, change):
    """Change the manifest and name it anew, as somebody would who cannot sign."""
    import hashlib

    index = json.loads((copy / "index.json").read_text())
    old = copy / BLOBS / index["manifests"][0]["digest"][7:]
    manifest = json.loads(old.read_text())
    data = json.dumps(change(copy, manifest)).encode()
    old.unlink()
    digest = hashlib.sha256(data).hexdigest()
    (copy / BLOBS / digest).write_bytes(data)
    index["manifests"][0]["digest"] = f"sha256:{digest}"
    (copy / "index.json").write_text(json.dumps(index))
    return digest


def _other_contents(copy, manifest):
    import hashlib

    config = (copy / BLOBS / manifest["config"]["digest"][7:]).read_bytes()
    data = config.replace(b"selfie.golden.npz", b"selfie.golden.npy")
    digest = hashlib.sha256(data).hexdigest()
    (copy / BLOBS / digest).write_bytes(data)
    manifest["config"]["digest"] = f"sha256:{digest}"
    return manifest


def test_contents_that_nobody_signed_are_refused(copy) -> None:
    _rewritten(copy, _other_contents)
    with pytest.raises(ArtifactError, match=r"The signature of .* is wrong"):
        open_bundle(copy)


def test_a_bundle_without_signature_is_refused(copy) -> None:
    def unsigned(_, manifest):
        manifest["layers"] = [p for p in manifest["layers"]
                              if "signature" not in str(p["annotations"])]  # fmt: skip
        return manifest

    _rewritten(copy, unsigned)
    with pytest.raises(ArtifactError, match="is not signed"):
        open_bundle(copy)


@pytest.mark.parametrize("name", ["index.json", "oci"])
def test_other_folders_are_no_bundle(name, copy, tmp_path) -> None:
    (copy / "index.json").write_text("[]" if name == "oci" else "{")
    with pytest.raises(ArtifactError):
        open_bundle(copy)
    with pytest.raises(ArtifactError, match="is no bundle"):
        open_bundle(tmp_path)


@pytest.mark.fuzz
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.just("sha256:" + "a" * 64),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["manifests", "digest", "config", "layers", "mediaType", "annotations"]),
        inner, max_size=4,
    ),
))  # fmt: skip
def test_hostile_indices_end_in_one_error(tmp_path_factory, raw) -> None:
    folder = tmp_path_factory.getbasetemp() / "hostile"
    folder.mkdir(exist_ok=True)
    (folder / "index.json").write_text(json.dumps(raw))
    with pytest.raises(PrunusError):
        open_bundle(folder)


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".."])
def test_files_have_plain_names(name) -> None:
    with pytest.raises(ArtifactError, match="expected a plain name"):
        BundleFile(name, "a" * 64, 1)


def test_what_it_names_is_among_its_files(bundle) -> None:
    contents = open_bundle(bundle).contents
    with pytest.raises(ArtifactError, match="not among its files"):
        dataclasses.replace(contents, plugin="plugin.so")
    with pytest.raises(ArtifactError):
        Contents("x", "y", contents.files, ())
    with pytest.raises(ArtifactError, match="expected sha256"):
        digest_of({"digest": "md5:12"}, "it")


# prunus bundle


def _bundle(prunus, keys, tmp_path, *words):
    return prunus("bundle", *words, "--key", keys / "maker.key", "-o", tmp_path / "new.bundle",
                  "--samples", "2", "--threads", "1", "--quiet")  # fmt: skip


def test_a_half_file_is_held_to_its_float32_file(prunus, keys, tmp_path, bundle) -> None:
    with open_bundle(bundle).unpacked() as folder:
        graph = tmp_path / "full.onnx"
        shutil.copyfile(folder / "selfie.onnx", graph)
    card, half = read_card(graph), tmp_path / "half.onnx"
    spec = PrecisionSpec(precision="fp16")
    write_model(to_fp16(onnx.load(graph), []), dataclasses.replace(card, precision=spec), half)
    ran = _bundle(prunus, keys, tmp_path, half)
    assert ran.code == 2 and "is fp16" in ran.err and "--reference" in ran.err
    assert not list(tmp_path.glob("*.bundle"))
    ran = _bundle(prunus, keys, tmp_path, half, "--reference", "movenet_lightning")
    assert ran.code == 2 and "is fp16" in ran.err
    ran = _bundle(prunus, keys, tmp_path, graph, "--reference", graph, "--reference", "facemesh")
    assert ran.code == 2 and "facemesh.onnx is the reference of no model here" in ran.err
    ran = _bundle(prunus, keys, tmp_path, half, "--reference", graph)
    assert ran.code == 0 and "full.onnx in float32" in ran.out
    assert "fp32 " not in ran.out and "  fp16 " in ran.out
    ran = prunus("verify", tmp_path / "new.bundle", "--seconds", "0.05", "--quiet")
    assert ran.code == 0 and "<= 0.02  ok" in ran.out


def test_the_same_is_made_the_same(prunus, keys, tmp_path) -> None:
    found = set()
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        assert _bundle(prunus, keys, tmp_path / name, "selfie").code == 0
        found.add(open_bundle(tmp_path / name / "new.bundle").digest)
    assert len(found) == 1


def test_own_budgets_and_inputs(prunus, keys, tmp_path) -> None:
    ran = _bundle(prunus, keys, tmp_path, "selfie", "--budget", "miou=0.9")
    assert ran.code == 2 and "No limit on 'miou'" in ran.err
    from prunus.apps.common.media import PORTRAIT

    ran = _bundle(prunus, keys, tmp_path, "selfie", "--budget", "worst_class_iou=0.999",
                  "--input", f"image={PORTRAIT}")  # fmt: skip
    assert ran.code == 0 and ran.out.count("worst_class_iou >= 0.999") == 3
    assert "1 x image:" in ran.out


def test_plans_belong_to_a_model(prunus, keys, tmp_path, bundle) -> None:
    with open_bundle(bundle).unpacked() as folder:
        card, digest = read_card(folder / "selfie.onnx"), sha256_of(folder / "selfie.onnx")
    plan = tmp_path / "orin.engine"
    plan.write_bytes(b"a plan")
    said = EngineSidecar(
        card, digest, sha256_of(plan), "tensorrt", "10.3.0", "8.7", "", (), 1.0, 0.0
    )
    for wrong, told in (
        ({"onnx_sha256": "0" * 64}, "built from no model of this bundle"),
        ({"engine_sha256": "0" * 64}, "not the file that its sidecar"),
        ({"plugin": "P 1 sha256:0"}, "needs the plugin P 1 sha256:0; got none"),
    ):
        dataclasses.replace(said, **wrong).write(plan)
        ran = _bundle(prunus, keys, tmp_path, "selfie", "--plan", plan)
        assert ran.code == 2 and told in ran.err and not list(tmp_path.glob("*.bundle"))
    said.write(plan)
    ran = _bundle(prunus, keys, tmp_path, "selfie", "--plan", plan)
    assert ran.code == 0 and "selfie  1 plans" in ran.out
    assert open_bundle(tmp_path / "new.bundle").contents.models[0].plans == ("selfie-orin.engine",)


def test_bad_words(prunus, keys, tmp_path) -> None:
    ran = _bundle(prunus, keys, tmp_path, "selfie", "selfie")
    assert ran.code == 2 and "two models named selfie" in ran.err
    (tmp_path / "x.engine").write_bytes(b"")
    ran = _bundle(prunus, keys, tmp_path, tmp_path / "x.engine")
    assert ran.code == 2 and "is an engine" in ran.err
    ran = prunus("bundle", "selfie", "--key", tmp_path / "no.key", "-o", tmp_path / "new.bundle",
                 "--quiet")  # fmt: skip
    assert ran.code == 2 and "Cannot read the key" in ran.err
    (tmp_path / "new.bundle").mkdir()
    assert "exists" in _bundle(prunus, keys, tmp_path, "selfie").err
    assert [p.name for p in tmp_path.glob("*.bundle")] == ["new.bundle"]
    assert not list(tmp_path.glob(".new*"))
