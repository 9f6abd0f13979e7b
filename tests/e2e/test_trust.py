"""Servers whose certificate is by an authority of the user's own: apps trust those that their container has.

The native host's are in ``test_http_newer.py``.
"""

from pathlib import Path

import pytest

from tests.components.build import component
from tests.e2e import http_app, spin_app
from tests.e2e.box import Box
from tests.e2e.spin_app import on_spin, on_the_newest
from tests.wasmtimes import HOSTS

MANIFEST = """
spin_manifest_version = 2
application = { name = "trusting" }
[[trigger.http]]
route = "/..."
component = "it"
[component.it]
source = "app.wasm"
allowed_outbound_hosts = ["https://127.0.0.1:*"]
"""


@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "not"])
@pytest.mark.parametrize("engine", HOSTS)
def test_a_component(tmp_path: Path, private: tuple[str, Path], engine: str, trusted: bool) -> None:
    address, certificate = private
    own = str(certificate) if trusted else ""
    with http_app.running(component("proxy", "proxy"), tmp_path / "log", engine=engine, SSL_CERT_FILE=own) as app:
        answer = app.get("/fetch", params={"authority": address, "scheme": "https"})
    expected = (200, "1.1 1") if trusted else (502, "ErrorCode_TlsCertificateError")
    assert (answer.status_code, answer.text) == expected


@on_spin
@on_the_newest
@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "not"])
def test_an_application(box: Box, tmp_path: Path, private: tuple[str, Path], trusted: bool) -> None:
    """Its image has what Debian's has."""
    address, certificate = private
    name = f"test.invalid/trust-{trusted}:1".lower()
    files = {"/etc/ssl/certs/ca-certificates.crt": certificate.read_bytes()} if trusted else {}
    box.ctr("images", "import", str(spin_app.image(tmp_path / "app.tar", name, MANIFEST, files)))
    with spin_app.running(box, name) as app:
        found = app.get(f"/fetch_safely/{address}/").json()
    assert found == ([200, "1.1 1"] if trusted else [0, found[1]]), found
