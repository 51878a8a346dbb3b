"""TLS to a database server, as a URL or the options of a DataFlow ask for it."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from nexus.errors import DatabaseUrlError, Unavailable, did_you_mean

OPTIONS = frozenset(
    {
        "sslmode",
        "ssl_ca",
        "ssl_cert",
        "ssl_key",
        "ssl_key_password",
        "ssl_verify_cert",
        "ssl_verify_identity",
    }
)
SPELLINGS = {
    "ssl_mode": "sslmode",
    "ssl-mode": "sslmode",
    "sslrootcert": "ssl_ca",
    "ssl-ca": "ssl_ca",
    "sslcert": "ssl_cert",
    "ssl-cert": "ssl_cert",
    "sslkey": "ssl_key",
    "ssl-key": "ssl_key",
    "sslpassword": "ssl_key_password",
    "ssl_check_hostname": "ssl_verify_identity",
}
"""What others call these options."""

_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_MODE_SPELLINGS = {
    "disabled": "disable",
    "preferred": "prefer",
    "required": "require",
    "verify_ca": "verify-ca",
    "verify_full": "verify-full",
    "verify_identity": "verify-full",
}
_SWITCHES = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}


@dataclass(frozen=True, slots=True)
class Tls:
    """`mode` is one of PostgreSQL's: `prefer` takes what the server has, `require` and those after it accept
    nothing else, `verify-ca` checks the certificate and `verify-full` its name too."""

    mode: str
    ca: str | None = None
    cert: str | None = None
    key: str | None = None
    key_password: str = field(default="", repr=False)

    @property
    def required(self) -> bool:
        return self.mode in ("require", "verify-ca", "verify-full")

    @property
    def verified(self) -> bool:
        return self.mode in ("verify-ca", "verify-full")

    def context(self) -> ssl.SSLContext:
        """Raises DatabaseUrlError for files that cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca)
            context.check_hostname = self.mode == "verify-full"
            if not self.verified:
                context.verify_mode = ssl.CERT_NONE
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key, self.key_password)
        except (OSError, ValueError) as failure:
            reason = getattr(failure, "reason", None) or type(failure).__name__
            raise DatabaseUrlError(f"The files for TLS cannot be used ({reason}).") from None
        return context


class Place(Protocol):
    """A server's address, as far as it matters here."""

    @property
    def options(self) -> Mapping[str, str]: ...

    @property
    def socket(self) -> str | None: ...


def tls_of(place: Place) -> Tls:
    """Raises DatabaseUrlError for TLS over a socket, which no network can read."""
    made = tls_from(place.options)
    if place.socket is None:
        return made
    if made.required:
        raise DatabaseUrlError(
            "There is no TLS on a unix socket.", remedy=f"Leave out sslmode '{made.mode}'."
        )
    return Tls("disable")


def tls_from(options: Mapping[str, str]) -> Tls:
    """Without a mode: `verify-full` where there is something to verify with, `require` where there is a
    certificate to show, else `prefer`. Raises DatabaseUrlError for what contradicts itself."""
    files = {name: options.get(name) for name in ("ssl_ca", "ssl_cert", "ssl_key")}
    for name, path in files.items():
        if path is not None and not Path(path).is_file():
            raise DatabaseUrlError(f"{name}: there is no file '{path[:200]}'.")
    if files["ssl_key"] and not files["ssl_cert"]:
        raise DatabaseUrlError("'ssl_key' belongs to a certificate.", remedy="Give 'ssl_cert', too.")
    if options.get("ssl_key_password") and not files["ssl_cert"]:
        raise DatabaseUrlError("'ssl_key_password' belongs to a key.", remedy="Give 'ssl_cert', too.")
    made = Tls(
        _mode(options),
        files["ssl_ca"],
        files["ssl_cert"],
        files["ssl_key"],
        options.get("ssl_key_password", ""),
    )
    if made.ca and not made.verified:
        raise DatabaseUrlError(
            f"sslmode '{made.mode}' verifies nothing, and so 'ssl_ca' is for nothing.",
            remedy="Use verify-ca or verify-full, or leave 'sslmode' out.",
        )
    if made.cert and not made.required:
        raise DatabaseUrlError(
            f"With sslmode '{made.mode}' the certificate may never be shown.", remedy="Use require."
        )
    return made


def tls_failure(failure: BaseException | None) -> Unavailable | None:
    """What was wrong with TLS, where that is why there is no connection."""
    while failure is not None:
        if isinstance(failure, ssl.SSLCertVerificationError):
            reason = failure.verify_message.rstrip(".")
            return Unavailable(f"The certificate of the database server is not accepted: {reason}.")
        if isinstance(failure, ssl.SSLError):
            return Unavailable(f"TLS with the database server failed ({failure.reason}).")
        if "rejected SSL upgrade" in str(failure):
            return Unavailable("The database server does not offer TLS, which is asked for.")
        failure = failure.__cause__
    return None


def _mode(options: Mapping[str, str]) -> str:
    given = options.get("sslmode")
    if given is not None:
        folded = given.lower()
        mode = _MODE_SPELLINGS.get(folded, folded)
        if mode not in _MODES:
            raise DatabaseUrlError(f"There is no sslmode '{given[:60]}'.", remedy=did_you_mean(mode, _MODES))
        for name in ("ssl_verify_cert", "ssl_verify_identity"):
            if name in options:
                raise DatabaseUrlError(f"'sslmode' and '{name}' say the same: give one.")
        return mode
    chain, named = _switch(options, "ssl_verify_cert"), _switch(options, "ssl_verify_identity")
    if named or ("ssl_ca" in options and chain is None and named is None):
        return "verify-full"
    if chain or ("ssl_ca" in options and chain is None):
        return "verify-ca"
    return "require" if "ssl_cert" in options or chain is False else "prefer"


def _switch(options: Mapping[str, str], name: str) -> bool | None:
    given = options.get(name)
    if given is None:
        return None
    if given.lower() not in _SWITCHES:
        raise DatabaseUrlError(f"'{name}' is true or false, not '{given[:60]}'.")
    return _SWITCHES[given.lower()]
