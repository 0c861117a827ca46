import subprocess

import pytest

from prunus.apps.fleet.signing import Signature, sign, trusted_keys
from prunus.runtime.errors import ArtifactError


def test_a_signature_is_of_these_bytes_for_this_purpose_by_this_key(keys) -> None:
    made = sign(b"data", "bundle", keys / "maker.key")
    assert made.holds(b"data", "bundle")
    assert not made.holds(b"date", "bundle") and not made.holds(b"data", "receipt")
    other = sign(b"data", "bundle", keys / "other.key")
    assert other.signer != made.signer
    assert not Signature(other.key, made.signature).holds(b"data", "bundle")
    assert not Signature(made.key, made.signature, "none").holds(b"data", "bundle")
    assert not Signature("x", made.signature).holds(b"data", "bundle")
    assert not Signature(made.key, made.signature[:20]).holds(b"data", "bundle")


def test_keys_of_openssl_are_the_same_keys(keys, tmp_path) -> None:
    command = ["openssl", "pkey", "-in", str(keys / "maker.key"), "-pubout"]
    try:
        told = subprocess.run(command, capture_output=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    assert told == (keys / "maker.pub").read_bytes()


def test_the_private_key_is_for_its_owner_alone_and_never_replaced(keys, prunus) -> None:
    assert (keys / "maker.key").stat().st_mode & 0o777 == 0o600
    before = (keys / "maker.key").read_bytes()
    ran = prunus("fleet", "key", keys / "maker")
    assert ran.code == 2 and "never replaced" in ran.err
    assert (keys / "maker.key").read_bytes() == before
    ran = prunus("fleet", "key", keys / "none" / "maker")
    assert ran.code == 2 and "does not exist" in ran.err


def test_a_folder_of_keys_and_files_that_are_none(keys, tmp_path) -> None:
    assert len(trusted_keys([keys])) == 3 and not trusted_keys([])
    assert trusted_keys([keys / "maker.pub"]) < trusted_keys([keys])
    for place, told in (
        (tmp_path, "no .pub file"), (tmp_path / "x.pub", "Cannot read the key"),
        (keys / "maker.key", "holds no public"),
    ):  # fmt: skip
        with pytest.raises(ArtifactError, match=told):
            trusted_keys([place])
    with pytest.raises(ArtifactError, match="holds no private"):
        sign(b"", "", keys / "maker.pub")
