"""Secrets in URIs: found, refused, or kept out of everything that is shown or stored.

Passwords, tokens and signatures reach a program inside URIs, and URIs reach manifests, reports,
MLflow, logs and tracebacks. `redact` is the one function that every such text passes through.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

MARK = "***"
"""Stands where a secret was."""

_USER_AND_PASSWORD = re.compile(
    r"(?P<before>[a-z][a-z0-9+.-]*://[^\s:/?#@'\"<>]*:)(?P<password>[^\s'\"<>]+)(?=@)",
    re.IGNORECASE,
)
_PORT_AND_PATH = re.compile(r"\d{1,5}[/?#]")
_UNQUOTED_PASSWORD = re.compile(r"://[^/?#]*:[^/?#]*[\s'\"<>][^/?#]*@")
_TOKEN_FOR_USER = re.compile(r"(?P<before>https?://)[^\s:/?#@'\"<>]+(?=@)", re.IGNORECASE)
_OPTION = re.compile(
    r"(?P<mark>[?&]?)(?P<name>(?<![\w%./-])[\w%.-]+)=(?P<quote>['\"]?)(?P<value>[^\s&;#'\"<>]+)"
)

_PARTS_OF_NAMES = ("password", "passphrase", "secret", "credential", "accesskey")
_ENDS_OF_NAMES = ("passwd", "pwd", "token", "signature", "apikey", "accountkey", "privatekey")
_NAMES = ("sig", "pass", "auth", "authorization")

_REMEDIES = {
    "s3": "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN), or use a "
    "profile of ~/.aws/credentials",
    "gs": "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account",
    "abfs": "set AZURE_STORAGE_CONNECTION_STRING or AZURE_STORAGE_SAS_TOKEN",
}
_SAME_SERVICE = {"gcs": "gs", "abfss": "abfs", "az": "abfs", "adl": "abfs", "s3a": "s3"}


def redact(text: str) -> str:
    """Text with `***` for each password, token, key and signature of the URIs in it.

    What it takes for a secret: the password of `scheme://user:password@host` (it may hold `/`),
    the user of `https://token@host`, and the value of each option (`name=value`) whose name says
    that it is one, such as `session_token` or `X-Amz-Signature`. Redacted text stays as it is.
    """
    text = _USER_AND_PASSWORD.sub(_without_password, text)
    text = _TOKEN_FOR_USER.sub(rf"\g<before>{MARK}", text)
    return _OPTION.sub(_without_value, text)


def redact_values(value: Any) -> Any:
    """Nested settings, with every text in them redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact_values(key): redact_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(redact_values, value))
    return value


def secret_problem(uri: str) -> str | None:
    """What is wrong with a URI that would be stored, and the remedy; None if it has no secret."""
    shown = redact(uri)
    if "://" not in uri or shown == uri:
        return None
    scheme = uri.partition("://")[0].lower()
    remedy = _REMEDIES.get(_SAME_SERVICE.get(scheme, scheme), "name a place that needs none")
    return (
        f"{shown}: the secret in this URI would end up in manifests, reports and MLflow; leave it "
        f"out and {remedy}"
    )


class SecretUri(str):
    """A URI for a service: as text it is redacted, everywhere and always.

    The whole URI stays in the memory of the process that was given it. Copies, pickles and dumps
    have the redacted text only.

    Raises:
        ValueError: The password has characters that end a URI in a text.
    """

    def __new__(cls, uri: str) -> "SecretUri":
        """A URI that shows itself redacted."""
        if _UNQUOTED_PASSWORD.search(uri):
            raise ValueError("write spaces and quotes of a password as %20, %22 and so on")
        made = super().__new__(cls, redact(uri))
        made._whole = uri.whole if isinstance(uri, SecretUri) else uri
        return made

    _whole: str

    @property
    def whole(self) -> str:
        """The URI to connect with; never show or store it."""
        return self._whole

    @property
    def is_whole(self) -> bool:
        """Whether the secret is known, if there is one; not so where the text was copied."""
        return MARK not in self._whole

    def __reduce__(self) -> tuple[type[str], tuple[str]]:
        return str, (str.__str__(self),)


def _without_password(match: re.Match[str]) -> str:
    if _PORT_AND_PATH.match(match["password"]):  # of scheme://host:80/name@place
        return match[0]
    return f"{match['before']}{MARK}"


def _without_value(match: re.Match[str]) -> str:
    if not _is_secret(match["name"], is_option=bool(match["mark"])):
        return match[0]
    return f"{match['mark']}{match['name']}={match['quote']}{MARK}"


def _is_secret(name: str, *, is_option: bool) -> bool:
    """Whether an option with this name holds a secret; `key=` does in a URI, not in prose."""
    plain = re.sub(r"[^a-z0-9]", "", unquote(name).lower())
    return (
        any(part in plain for part in _PARTS_OF_NAMES)
        or plain.endswith(_ENDS_OF_NAMES)
        or plain in _NAMES
        or (is_option and plain == "key")
    )
