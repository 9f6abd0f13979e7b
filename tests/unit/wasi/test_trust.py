"""Whose certificates are trusted."""

import ssl
from pathlib import Path

import pytest

from shimd.wasi import trust
from shimd.wasi.trust import BuiltIn, Trust
from tests.certificates import made

BROKEN = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"


@pytest.fixture(scope="module")
def built_in() -> BuiltIn:
    return BuiltIn()


@pytest.fixture(scope="module")
def authorities(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """The certificates of two."""
    first, second = (made(tmp_path_factory.mktemp(name), "DNS:x").authority.read_text() for name in ("first", "second"))
    return first, second


@pytest.fixture(autouse=True)
def usual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a distribution has its own, in place of this machine's."""
    monkeypatch.setattr(trust, "_USUAL", (str(tmp_path / "missing"), str(tmp_path / "usual.crt")))
    return tmp_path / "usual.crt"


def der(*certificates: str) -> set[bytes]:
    return {ssl.PEM_cert_to_DER_cert(one) for one in certificates}


def trusted(one: Trust) -> set[bytes]:
    return set(one.context.get_ca_certs(binary_form=True))


def test_a_container_that_has_none(built_in: BuiltIn) -> None:
    one = Trust(built_in, {})
    assert one.context is built_in.context and one.pem == built_in.pem
    assert len(trusted(one)) > 100


def test_the_usual_file(built_in: BuiltIn, usual: Path, authorities: tuple[str, str]) -> None:
    usual.write_text(f"# first\n{authorities[0]}\n# second\n{authorities[1]}")
    assert trusted(Trust(built_in, {})) == der(*authorities)


def test_it_is_looked_for_when_it_is_needed(built_in: BuiltIn, usual: Path, authorities: tuple[str, str]) -> None:
    """A trust is made before the container is entered."""
    one = Trust(built_in, {})
    usual.write_text(authorities[0])
    assert trusted(one) == der(authorities[0])


def test_by_name(built_in: BuiltIn, usual: Path, authorities: tuple[str, str], tmp_path: Path) -> None:
    usual.write_text(authorities[0])
    (tmp_path / "own.pem").write_text(authorities[1])
    (tmp_path / "certs").mkdir()
    (tmp_path / "certs/one").write_text(authorities[1])
    (tmp_path / "certs/sub").mkdir()
    for env in (
        {"SSL_CERT_FILE": f"{tmp_path}/own.pem"},
        {"SSL_CERT_DIR": f"{tmp_path}/missing:{tmp_path}/certs"},
        {"SSL_CERT_FILE": "", "SSL_CERT_DIR": f"{tmp_path}/certs"},
    ):
        assert trusted(Trust(built_in, env)) == der(authorities[1])


def test_who_names_what_is_not_there_trusts_nobody(
    built_in: BuiltIn, usual: Path, authorities: tuple[str, str]
) -> None:
    usual.write_text(authorities[0])
    one = Trust(built_in, {"SSL_CERT_FILE": "/missing"})
    assert (trusted(one), one.pem) == (set(), "")
    assert one.context.verify_mode is ssl.CERT_REQUIRED


def test_what_is_no_certificate_is_left_out(built_in: BuiltIn, usual: Path, authorities: tuple[str, str]) -> None:
    usual.write_bytes(b"\xff\n" + f"{BROKEN}{authorities[0]}{BROKEN}".encode())
    assert trusted(Trust(built_in, {})) == der(authorities[0])
