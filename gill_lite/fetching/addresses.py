"""URLs that a data file names may lead to the public internet only, redirects included.

Such a URL was written by nobody here: it must not reach this machine or its local network.
"""

import socket
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter

from gill_lite.fetching.download import Refused


def public_session(trusted: frozenset[str] = frozenset()) -> requests.Session:
    """A session that asks public http(s) addresses and the `trusted` hosts, and no others."""
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, _PublicOnly(trusted))
    return session


class _PublicOnly(HTTPAdapter):
    """Looks at the address before each request; every redirect is a request of its own."""

    def __init__(self, trusted: frozenset[str]):
        super().__init__()
        self.trusted = trusted

    def send(self, request, *args, **options):
        host = urlsplit(request.url).hostname or ""
        if host not in self.trusted and not all(map(_is_public, _addresses(host))):
            raise Refused(
                "no public address",
                f"{request.url} leads to this machine or its local network and is not asked for",
            )
        return super().send(request, *args, **options)


def _is_public(address: str) -> bool:
    address = ip_address(address)
    return (getattr(address, "ipv4_mapped", None) or address).is_global


@lru_cache(maxsize=1024)
def _addresses(host: str) -> tuple[str, ...]:
    """What the name stands for; nothing where only a proxy, or nobody, knows it."""
    try:
        found = socket.getaddrinfo(host, None)
    except (OSError, UnicodeError):
        return ()
    return tuple({str(address[0]) for *_, address in found})
