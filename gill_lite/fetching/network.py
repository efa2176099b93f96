"""What failed between here and a server, whichever library says it, and what would mend it."""

import os
import socket
import ssl
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

CERTIFICATES = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")
AGAIN = "run the same command again"
CUT = ("ChunkedEncodingError", "ProtocolError", "RemoteProtocolError", "IncompleteRead")


class Cause(NamedTuple):
    """What failed, and a mend that helps."""

    what: str
    mend: str


def cause(error: BaseException, url: str) -> Cause | None:
    """The cause of an error in asking for `url`; None where it is no fault of the network."""
    chain, host = _chain(error), urlsplit(url).hostname or url
    return _certificate(chain, host) or _proxy(chain, url) or _host(chain, host)


def _chain(error: BaseException | None) -> list[BaseException]:
    """The error, and those that it was made of."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        inner = [x for x in (*error.args, getattr(error, "reason", None))
                 if isinstance(x, BaseException)]  # fmt: skip
        error = error.__cause__ or error.__context__ or (inner[0] if inner else None)
    return found


def _certificate(chain, host: str) -> Cause | None:
    named = {name: os.environ[name] for name in CERTIFICATES if os.environ.get(name)}
    gone = [name for name, value in named.items() if not Path(value).exists()]
    file_is_missing = _are(chain, FileNotFoundError) or "CA certificate bundle" in str(chain[0])
    if gone and file_is_missing:
        what = f"{gone[0]} names {named[gone[0]]}, and there is no such file of certificates"
        return Cause(what, "correct or unset this variable")
    if _are(chain, ssl.SSLError) or "SSLError" in _names(chain):
        by = "".join(f", {name}={value}" for name, value in named.items())
        mend = "where a proxy has certificates of its own, let REQUESTS_CA_BUNDLE and SSL_CERT_FILE"
        what = f"the certificate of {host} is not trusted ({_last(chain)}{by})"
        return Cause(what, f"{mend} name their file")
    return None


def _proxy(chain, url: str) -> Cause | None:
    from requests.utils import get_environ_proxies, select_proxy

    value = select_proxy(url, get_environ_proxies(url))
    if not value:
        return None
    name = next((n for n, v in os.environ.items() if v == value and "proxy" in n.lower()), "proxy")
    kind, at = value.partition(":")[0], value.rpartition("//")[2].rpartition("@")[2]  # no password
    text = " ".join(map(str, chain))
    if "SOCKS" in text or "scheme" in text:
        what = f"{name} names a proxy of the kind '{kind}', which cannot be used here"
        return Cause(what, "name one that begins with http:// or https://, or unset it")
    if _are(chain, ConnectionRefusedError, socket.gaierror) or "ProxyError" in _names(chain):
        what = f"the proxy {at} of {name} cannot be used: {_last(chain)}"
        return Cause(what, "correct or unset this variable")
    return None


def _host(chain, host: str) -> Cause | None:
    if _are(chain, socket.gaierror):
        mend = "check the network, or name your proxy in HTTPS_PROXY"
        return Cause(f"the name {host} cannot be looked up", mend)
    if _are(chain, ConnectionRefusedError):
        return Cause(f"{host} refuses the connection", f"{AGAIN} later")
    if _are(chain, TimeoutError) or any("Timeout" in name for name in _names(chain)):
        return Cause(f"{host} does not answer in time", AGAIN)
    if _are(chain, ConnectionError) or set(CUT) & set(_names(chain)):
        return Cause("the connection was cut", AGAIN)
    return None


def _are(chain, *kinds) -> bool:
    return any(isinstance(error, kinds) for error in chain)


def _names(chain) -> list[str]:
    return [type(error).__name__ for error in chain]


def _last(chain) -> str:
    told = getattr(chain[-1], "strerror", None) or str(chain[-1]) or type(chain[-1]).__name__
    return told.splitlines()[0].rstrip(".")
