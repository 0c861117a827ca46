import dataclasses
import html.parser
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunus.apps.fleet import receipt
from prunus.apps.fleet.bundle import canonical
from prunus.apps.fleet.report import INVALID, gather, page
from prunus.apps.fleet.signing import sign


@pytest.fixture
def write(keys, tmp_path):
    """Return a writer of receipts into one folder."""
    folder = tmp_path / "receipts"
    folder.mkdir()

    def make(device, *faults, time="2026-01-01T00:00:00Z", key="device", bundle="two"):
        made = receipt.Receipt(
            device, time, "prunus test",
            {"name": bundle, "digest": "ab" * 32, "signer": "ed25519:0", "trusted": True},
            tuple(receipt.Finding(f, "selfie", f"seen in {device}") for f in faults),
            ({"name": "selfie", "file": "selfie.onnx", "latency": {"p50_ms": 12.5, "p99_ms": 20.0},
              "peak_memory_mib": 101.4, "soak": {"drift": 0.021}},),
            {"processor": "A CPU", "gpu": "none usable: no driver"},
        )  # fmt: skip
        path = folder / f"{device.replace('/', '_')}-{time[:10]}-{bundle}.json"
        receipt.write(made, keys / f"{key}.key", path)
        return path

    make.folder = folder
    return make


def _order(ran):
    rows = ran.out.splitlines()[2:]
    return [tuple(row.split()[:2]) for row in rows if "  " in row]


def test_what_is_wrong_comes_first_and_is_named(write, prunus, keys, tmp_path) -> None:
    write("cam-a")
    write("cam-b", "throttled")
    write("cam-c", key="other")
    changed = write("cam-d")
    changed.write_text(changed.read_text().replace('"p50_ms": 12.5', '"p50_ms": 2.5'))
    (write.folder / "cam-e.json").write_text("{}")
    pub = tmp_path / "trusted.pub"
    pub.write_bytes((keys / "device.pub").read_bytes())
    ran = prunus("fleet", "report", write.folder, "--key", pub, "-o", tmp_path / "r.html")
    assert ran.code == 1
    assert _order(ran) == [
        (changed.name, "invalid"), ("cam-e.json", "invalid"), ("cam-c", "unknown-signer"),
        ("cam-b", "throttled"), ("cam-a", "ok"),
    ]  # fmt: skip
    assert f"Not ok: {changed.name} (invalid), cam-e.json (invalid), cam-c (unknown-signer), " \
           "cam-b (throttled)" in ran.err  # fmt: skip
    assert "throttled (selfie): seen in cam-b" in ran.out and "it was changed" in ran.out
    text = (tmp_path / "r.html").read_text()
    order = [text.index(f"<h2>{name} ") for name in (changed.name, "cam-c", "cam-b", "cam-a")]
    assert order == sorted(order) and "<title>4 of 5 not ok</title>" in text


def test_all_well(write, prunus) -> None:
    write("cam-a")
    ran = prunus("fleet", "report", write.folder)
    assert ran.code == 0 and "1 receipts, 0 of them not ok" in ran.out
    assert "No --key: signatures show that nothing was changed" in ran.out
    row = ran.out.splitlines()[2].split()
    assert row[:2] == ["cam-a", "ok"] and row[4:9] == ["selfie", "12.50", "20.00", "101", "2.1"]
    raw = json.loads(prunus("fleet", "report", write.folder, "--json").out)
    assert raw["receipts"][0]["signer"].startswith("ed25519:") and raw["notes"]


def test_the_newest_receipt_of_a_device_and_bundle_counts(write, prunus) -> None:
    write("cam-a", "throttled", time="2026-01-01T00:00:00Z")
    write("cam-a", time="2026-01-02T00:00:00Z")
    write("cam-a", "dead-channel", bundle="other")
    ran = prunus("fleet", "report", write.folder)
    assert _order(ran) == [("cam-a", "dead-channel"), ("cam-a", "ok")]
    assert "1 older receipts are left out." in ran.out


def test_a_signer_who_is_not_known_hides_nobody(write, prunus, keys, tmp_path) -> None:
    """Somebody else's newer receipt for the same device stands beside the device's own."""
    write("cam-a", "throttled", time="2026-01-01T00:00:00Z")
    write("cam-a", time="2026-01-09T00:00:00Z", key="other")
    for words in ((), ("--key", keys / "device.pub")):
        ran = prunus("fleet", "report", write.folder, *words)
        assert ran.code == 1 and ("cam-a", "throttled") in _order(ran)


@pytest.mark.fuzz
@given(st.dictionaries(
    st.sampled_from(["device", "time", "findings", "models", "machine", "bundle", "made_by"]),
    st.none() | st.integers() | st.text(max_size=3) | st.lists(st.none() | st.text(max_size=3))
    | st.dictionaries(st.sampled_from(["name", "digest", "trusted", "latency"]), st.integers()),
))  # fmt: skip
def test_a_device_that_signs_nonsense_is_named(tmp_path_factory, keys, junk) -> None:
    """Its signature holds; the other devices must be seen all the same."""
    folder = tmp_path_factory.mktemp("junk")
    good = {"device": "cam", "time": "t", "findings": [], "models": [], "machine": {},
            "bundle": {"name": "b", "digest": "d", "trusted": True}, "schema": 1}  # fmt: skip
    data = canonical({**good, **junk})
    signature = dataclasses.asdict(sign(data, "receipt", keys / "device.key"))
    (folder / "x.json").write_text(
        json.dumps({"receipt": json.loads(data), "signature": signature})
    )
    (entry,), older = gather(folder, frozenset())
    assert older == 0 and page([entry], [])
    assert entry.verdict in (INVALID, "ok") or junk.get("findings")


class _Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_stands_alone_and_trusts_no_receipt(write, prunus, tmp_path) -> None:
    write("<script>alert(1)</script>", "throttled")
    prunus("fleet", "report", write.folder, "-o", tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    parsed = _Page()
    parsed.feed(text)
    assert not parsed.open and "script" not in {tag for tag, _ in parsed.tags}
    assert not {"src", "href"} & {name for _, attrs in parsed.tags for name in attrs}
    assert "default-src 'none'" in text and "&lt;script&gt;" in text
    assert page([], []).count("<section") == 0


def test_nothing_to_report(prunus, tmp_path) -> None:
    ran = prunus("fleet", "report", tmp_path)
    assert ran.code == 2 and "There are no receipts" in ran.err
    ran = prunus("fleet", "report", tmp_path / "none")
    assert ran.code == 2 and "There are no receipts" in ran.err
