"""Downloads from a server of the test's own that lies, dawdles or leads astray."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from phosphene.errors import NetworkError, RecipeError, RequestError, WeightsError
from phosphene.jobs import InputFile, Request, prepare
from phosphene.jobs.large import refuse_large
from phosphene.jobs.replayer import find_network
from phosphene.manifest.schema import Manifest
from phosphene.zoo import download, load_network, starts_download

CONTENT = bytes(range(256)) * 40
DIGEST = hashlib.sha256(CONTENT).hexdigest()
FILE = f"net-{DIGEST[:8]}.pth"

Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def whole(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(CONTENT)))
    handler.end_headers()
    handler.wfile.write(CONTENT)


class Site:
    """A server: what it answers, and how often it was asked."""

    def __init__(self) -> None:
        self.answer: Answer = whole
        self.asked = 0
        site = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.asked += 1
                with suppress(OSError):  # whoever asked has gone
                    site.answer(self)

            def log_message(self, format: str, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/{FILE}"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setenv("PHOSPHENE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("PHOSPHENE_WEIGHTS_MIRROR", raising=False)
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    found = Site()
    thread = threading.Thread(target=found.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join()


def weights() -> Path:
    return Path(download.cache_folder()) / "weights"


def refused(site: Site, told: str) -> None:
    """The download fails in a line, and leaves nothing."""
    with pytest.raises(WeightsError, match=told) as caught:
        download.weights_file(site.url, "net")
    assert "\n" not in str(caught.value)
    assert [path.name for path in weights().iterdir()] == []


def test_the_whole_hash_is_remembered_and_held_to(site: Site) -> None:
    path = download.weights_file(site.url, "net")
    assert path.read_bytes() == CONTENT
    pins = weights() / download.PINS
    assert json.loads(pins.read_text()) == {FILE: DIGEST}
    assert download.weights_file(site.url, "net") == path
    assert site.asked == 1
    # Of a file with the same eight digits, which takes minutes to make, the pin alone tells.
    pins.write_text(json.dumps({FILE: DIGEST[:8] + "0" * 56}))
    with pytest.raises(WeightsError, match=r"is not the net-.* that was used here before"):
        download.weights_file(site.url, "net")
    path.unlink()
    with pytest.raises(WeightsError, match="was used here before"):
        download.weights_file(site.url, "net")
    assert not path.exists()
    pins.write_text("[")
    with pytest.raises(WeightsError, match="damaged"):
        download.weights_file(site.url, "net")


def test_a_server_that_leads_to_a_file_is_not_followed(site: Site, tmp_path: Path) -> None:
    secret = tmp_path / FILE
    secret.write_bytes(CONTENT)
    for target in (secret.as_uri(), f"ftp://127.0.0.1/{FILE}"):

        def lead(handler: http.server.BaseHTTPRequestHandler, target: str = target) -> None:
            handler.send_response(302)
            handler.send_header("Location", target)
            handler.end_headers()

        site.answer = lead
        refused(site, r"which is not http|is not allowed")


def test_a_redirect_to_a_web_server_is_followed(site: Site) -> None:
    def lead(handler: http.server.BaseHTTPRequestHandler) -> None:
        site.answer = whole
        handler.send_response(302)
        handler.send_header("Location", site.url)
        handler.end_headers()

    site.answer = lead
    assert download.weights_file(site.url, "net").read_bytes() == CONTENT


def test_more_bytes_than_any_weights_have(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "MOST_BYTES", 5000)
    refused(site, "it has 10240 bytes; 5000 are the most")

    def endless(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        for _ in range(1000):
            handler.wfile.write(bytes(1000))

    site.answer = endless
    refused(site, "it sends more than 5000 bytes")


def test_a_server_that_dawdles(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps a connection alive, and would for years."""

    def drip(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(CONTENT)))
        handler.end_headers()
        for k in range(len(CONTENT)):
            handler.wfile.write(CONTENT[k : k + 1])
            handler.wfile.flush()
            time.sleep(0.02)

    site.answer = drip
    monkeypatch.setattr(download, "WITHIN", 0.1)
    refused(site, "which is too slow")
    monkeypatch.setattr(download, "WITHIN", 60)
    monkeypatch.setattr(download, "LONGEST", 0.1)
    refused(site, "it takes longer than 0.1 s")


# What a stranger's request may start --------------------------------------------------------------


@pytest.mark.usefixtures("site")
def test_which_names_start_a_download(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = ("googlenet", "torchvision:resnet18", "resnet18:IMAGENET1K_V1", "timm:resnet18")
    assert [name for name in fetched if not starts_download(name)] == []
    here = ("dreamnet", "googlenet:random", "resnet18:random", "timm:resnet18:random",
            "file:a.pth@resnet18", "package.module:function", "nothing")  # fmt: skip
    assert [name for name in here if starts_download(name)] == []
    weights().mkdir(parents=True)
    (weights() / "googlenet-1378be20.pth").touch()
    assert starts_download("googlenet")  # it is damaged, and so would be fetched anew
    monkeypatch.setattr(download, "_sha256", lambda path: "1378be20" + "0" * 56)
    assert not starts_download("googlenet")


def test_a_strangers_request_starts_no_download(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOSPHENE_WEIGHTS_MIRROR", site.url.rpartition("/")[0])
    request = Request(recipe="dream", network="googlenet", start="noise", size=32)
    with pytest.raises(RequestError, match=r"starts no download.*--network googlenet"):
        prepare(request)
    assert site.asked == 0
    with pytest.raises(WeightsError, match="wrong hash"):  # allowed, and so it is tried
        prepare(request, allow=["googlenet"])
    assert site.asked == 1
    # Nobody has looked whether timm's hub has them in its cache, so nothing is said of that.
    with pytest.raises(RequestError, match=r"'timm:resnet18' may have to be fetched.*--network"):
        prepare(request.model_copy(update={"network": "timm:resnet18"}))
    manifest = Manifest.model_construct(
        network=type("Used", (), {"name": "googlenet", "fingerprint": ""})()
    )
    with pytest.raises(RecipeError, match=r"starts no download.*--network googlenet"):
        find_network(manifest, [tmp_path])


def test_a_file_of_weights_starts_no_download_of_others(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOSPHENE_WEIGHTS_MIRROR", site.url.rpartition("/")[0])
    for inner in ("torchvision:resnet18:IMAGENET1K_V1", "resnet18:DEFAULT", "googlenet:DEFAULT"):
        name = f"file:a.pth@{inner}"
        assert starts_download(name)
        with pytest.raises(RequestError, match="starts no download"):
            prepare(Request(recipe="dream", network=name, start="noise", size=32))
        # Nor does whoever means it: the file's weights would take the place of those.
        with pytest.raises(NetworkError, match="the file holds them: write file:PATH@"):
            load_network(name)
    assert site.asked == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"settings": {"steps": 100_000}}, "100000 steps of 640×427 px"),
        ({"size": 17_000, "settings": {"steps": 100}}, "100 steps of 17000×11342 px"),
        (
            {"settings": {"steps": 1000, "octaves": 40, "octave_scale": 1.001}},
            "1000 steps of 640×427 px in each of 40 octaves",
        ),
        ({"settings": {"steps": 1000, "octave_scale": 1.001}}, "1000 steps of 640×427 px"),
    ],
)
def test_large_work_of_a_strangers_request_is_told_first(
    change: dict[str, Any], told: str, toy: Any
) -> None:
    request = Request(recipe="dream", start="noise", objectives=("second",), **change)
    with pytest.raises(RequestError, match=f"{told}, .* allow it with --large"):
        prepare(request, network=toy)


def test_usual_work_needs_no_leave(toy: Any) -> None:
    request = Request(recipe="dream", start="noise", objectives=("second",), size=64)
    assert prepare(request, network=toy).arguments.settings.steps
    many = Request(recipe="visualize", objectives=("second:1",) * 3, settings={"steps": 100_000})
    with pytest.raises(RequestError, match="for each of 3 pictures"):
        prepare(many, network=toy)
    assert prepare(many, network=toy, large=True)


@pytest.mark.parametrize("change", [{"channels": tuple(range(8)) * 200}, {"top": 10**6}])
def test_the_channels_that_a_page_names_are_counted(change: dict[str, Any], toy: Any) -> None:
    inputs = {"photo": InputFile(path="sky.png")} if "top" in change else {}
    sheet = Request(recipe="sheet", layers=("first",), settings=change, inputs=inputs)
    with pytest.raises(RequestError, match=r"96 steps of 256×256 px for each of \d+ drawings"):
        refuse_large(sheet, sheet.checked_settings())
    assert prepare(Request(recipe="sheet", layers=("first",)), network=toy, cache=False)
