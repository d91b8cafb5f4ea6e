"""Detect, refuse and redact secrets in URIs.

URIs may contain passwords, tokens and signatures, and end up in manifests, reports, MLflow, logs
and tracebacks. All such text passes through `redact`.
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

MARK = "***"
"""Replacement of a secret."""

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
    """Replace the passwords, tokens, keys and signatures of all URIs in a text by `***`.

    Secrets are: the password of `scheme://user:password@host` (it may contain `/`), the user of
    `https://token@host`, and the value of each option (`name=value`) with a name such as
    `session_token` or `X-Amz-Signature`. Redacting twice changes nothing.
    """
    text = _USER_AND_PASSWORD.sub(_without_password, text)
    text = _TOKEN_FOR_USER.sub(rf"\g<before>{MARK}", text)
    return _OPTION.sub(_without_value, text)


def redact_values(value: Any) -> Any:
    """Redact every string in nested settings."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {redact_values(key): redact_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(map(redact_values, value))
    return value


def secret_problem(uri: str) -> str | None:
    """Describe the problem of a URI that contains a secret, with the remedy; None without one."""
    redacted = redact(uri)
    if "://" not in uri or redacted == uri:
        return None
    scheme = uri.partition("://")[0].lower()
    remedy = _REMEDIES.get(_SAME_SERVICE.get(scheme, scheme), "use a URI that needs none")
    return (
        f"{redacted}: the secret in this URI would end up in manifests, reports and MLflow; remove "
        f"it and {remedy}"
    )


class SecretUri(str):
    """A URI of a service whose text is always redacted.

    Only the object that was created from the URI holds the secret, in `whole`. Copies, pickles and
    dumps contain the redacted text.

    Raises:
        ValueError: The password contains a space or a quote, which would end the URI in a text.
    """

    def __new__(cls, uri: str) -> "SecretUri":
        """Create a URI whose text is redacted."""
        if _UNQUOTED_PASSWORD.search(uri):
            raise ValueError("encode spaces and quotes of the password as %20, %22 etc.")
        secret_uri = super().__new__(cls, redact(uri))
        secret_uri._whole = uri.whole if isinstance(uri, SecretUri) else uri
        return secret_uri

    _whole: str

    @property
    def whole(self) -> str:
        """The URI with its secret, to connect with; never show or store it."""
        return self._whole

    @property
    def is_whole(self) -> bool:
        """True if `whole` is complete; False for a copy of the redacted text."""
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
    """Return True if an option of this name is secret; `key=` is only secret inside a URI."""
    plain = re.sub(r"[^a-z0-9]", "", unquote(name).lower())
    return (
        any(part in plain for part in _PARTS_OF_NAMES)
        or plain.endswith(_ENDS_OF_NAMES)
        or plain in _NAMES
        or (is_option and plain == "key")
    )
