"""Slightfiles, and the values of their configs."""

import pytest

from shimd.apps.slight import resources, shortcrypt
from shimd.apps.slight.secrets import SecretStores, resolved
from shimd.apps.slight.slightfile import Slightfile, parse
from shimd.engine import InvalidSetting

REDIS = """
[[capability]]
resource = "keyvalue.redis"
name = "cache"
[capability.configs]
REDIS_ADDRESS = "%s"
"""


def finished(text: str, env: dict[str, str] | None = None, key: bytes | None = None) -> Slightfile:
    slightfile = parse(text.encode())
    return resolved(slightfile, SecretStores(slightfile, env or {}, lambda _path: key))


def test_names() -> None:
    text = (
        'specversion = "0.2"\n' + REDIS % "redis://a" + '[[capability]]\nresource = "messaging.filesystem"\nname = "*"'
    )
    slightfile = finished(text)
    cache, anything = slightfile.find("keyvalue", "cache"), slightfile.find("messaging", "whatever")
    assert cache is not None and cache.configs == {"REDIS_ADDRESS": "redis://a"}
    assert anything is not None and anything.backend == "filesystem"
    assert slightfile.find("keyvalue", "other") is None
    assert not slightfile.serves


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("kv.redis", "keyvalue.redis"),
        ("mq.filesystem", "messaging.filesystem"),
        ("lockd.etcd", "distributed_locking.etcd"),
    ],
)
def test_the_first_version(old: str, new: str) -> None:
    """A resource is its name, which guests do not know; all configs are secrets."""
    env = {"REDIS_ADDRESS": "redis://b", "ETCD_ENDPOINT": "c"}
    text = f'specversion = "0.1"\nsecret_store = "configs.envvars"\n[[capability]]\nname = "{old}"'
    kind = new.partition(".")[0]
    found = finished(text, env).find(kind, "any name")
    assert found is not None and found.resource == new
    assert found.configs == {name: env[name] for name in resources.CONFIGS[new]}


def test_secrets() -> None:
    secret = shortcrypt.encrypt(b"the key", b"redis://secret")
    text = 'specversion = "0.2"\n' + REDIS % "${usersecrets.address}"
    text += f'[[secret_settings]]\nname = "address"\nvalue = "{secret}"\n'
    found = finished(text, key=b"the key").find("keyvalue", "cache")
    assert found is not None and found.configs["REDIS_ADDRESS"] == "redis://secret"
    with pytest.raises(InvalidSetting, match=r"/tmp/\.slightkey is not the key that address was encrypted with"):
        finished(text, key=b"another key")
    with pytest.raises(InvalidSetting, match=r"there is no key /mine/\.slightkey"):
        finished(text, {"TMPDIR": "/mine"})


V2 = 'specversion = "0.2"\n'
V1 = 'specversion = "0.1"\n'
FILES = '[[capability]]\nresource = "keyvalue.filesystem"\n'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", r'specversion must be "0\.1" or "0\.2"'),
        ("[", "is not TOML"),
        (V2 + 'capability = "keyvalue"', r"capability is not a list of tables \(\[\[capability\]\]\)"),
        (V2 + '[[capability]]\nname = "keyvalue.filesystem"', r"capability\[0\]\.resource is missing"),
        (V1 + FILES + 'name = "a"', r"capability\[0\]\.resource is of specversion 0\.2, and specversion is \"0\.1\""),
        (V2 + FILES, r"capability\[0\]\.name is missing"),
        (V2 + FILES + "name = 3", r"capability\[0\]\.name is not a string with something in it"),
        (V2 + FILES + 'name = "a"\nconfigs = { a = 1 }', r"capability\[0\]\.configs is not a table of strings"),
        (
            V2 + f'{FILES}name = "a"\n{FILES}name = "a"',
            r"capability\[1\]\.name is a, and capability\[0\] has that name",
        ),
        (
            V2 + f'{FILES}name = "*"\n{FILES}name = "a"',
            r"capability\[1\]\.name is a, and capability\[0\] has that name",
        ),
        (
            V2 + f'{FILES}name = "a"\n{FILES}name = "*"',
            r"capability\[1\]\.name is \*, and capability\[0\] has that name",
        ),
        (V2 + REDIS % "${azapp.X}", r"configs\.REDIS_ADDRESS is \$\{azapp\.X\}, and the store is azapp, a cloud's"),
        (V2 + REDIS % "${nobody.X}", "the store is nobody, which is none of envvars, usersecrets"),
        (V2 + REDIS % "${usersecrets.X}", "there are no secret_settings of the name X"),
        (V1 + '[[capability]]\nname = "kv.redis"', r"REDIS_ADDRESS is missing.*needs it \(or secret_store\)"),
        (V1 + 'secret_store = "configs.azapp"', "secret_store is configs.azapp, a cloud's service"),
        (V1 + 'secret_store = "vault"', "secret_store is 'vault', which is none of configs.envvars"),
        (V2 + "[[secret_settings]]\nvalue = 'x'", r"secret_settings\[0\]\.name is missing"),
    ],
)
def test_what_is_wrong(text: str, words: str) -> None:
    with pytest.raises(InvalidSetting, match=f"/slightfile.toml:? .*{words}"):
        finished(text)


@pytest.mark.parametrize("name", sorted(resources.CLOUD))
def test_clouds(name: str) -> None:
    """What to use instead is one that is there."""
    with pytest.raises(InvalidSetting, match=rf"capability\[0\]\.resource is {name}, ") as raised:
        parse(f'{V2}[[capability]]\nresource = "{name}"\nname = "a"'.encode())
    assert any(known in str(raised.value) for known in resources.CONFIGS)


def test_what_hides_secrets() -> None:
    """By the values in the documentation of short-crypt."""
    assert shortcrypt.encrypt(b"magickey", b"articles") == "2E87Wx52-Tvo"
    assert shortcrypt.decrypt(b"magickey", "2E87Wx52-Tvo") == b"articles"
    for size in range(40):
        plain = bytes(range(size))
        assert shortcrypt.decrypt(b"k", shortcrypt.encrypt(b"k", plain)) == plain
    for text in ("", "\xe9", "!!!!"):
        with pytest.raises(ValueError):
            shortcrypt.decrypt(b"k", text)
