"""Removal of secrets from everything that is stored, logged or printed.

Secrets are recognised by their place: the user part of a URL, values whose name says so (such as
`password` or `?sig=`), and words in the formats of well-known access tokens. Each is replaced by
`***`. A value that only looks like a secret is replaced as well: nothing computes with the result.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

HIDDEN = "***"

# `user:password@` in a URL; the password may hold slashes and at-signs. The second alternative is
# a user or token without a password, which cannot hold slashes.
_USER_OF_URL = re.compile(
    r"([a-z][a-z0-9+.-]*://)(?:[^\s/@:?#'\"]*:\S*@|[^\s/@'\"]+@)", re.IGNORECASE
)

# Names of secrets, as one word or as several in any style: apiKey, api_key, API-KEY.
_SECRET_WORDS = frozenset(
    [
        "auth",
        "authorization",
        "bearer",
        "cookie",
        "cred",
        "credential",
        "credentials",
        "creds",
        "jwt",
        "oauth",
        "otp",
        "pass",
        "passcode",
        "passphrase",
        "passwd",
        "password",
        "passwords",
        "pat",
        "pw",
        "pwd",
        "sas",
        "secret",
        "secrets",
        "sig",
        "signature",
        "token",
    ]
)
# A name with one of these words is that of an amount or a choice and not of a secret, as in
# `token_count` and `RAY_AUTH_MODE`.
_NOT_SECRET = frozenset(["count", "length", "limit", "max", "min", "mode", "number", "size"])
_SECRET_PAIRS = frozenset(
    f"{first} {second}"
    for first in (
        *("access", "account", "api", "auth", "client", "deploy", "encryption", "hmac", "license"),
        *("master", "private", "secret", "service", "session", "shared", "signing", "ssh"),
        "storage",
    )
    for second in ("key", "keys")
)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

# A parameter of a URL: `?name=value`, `&name=value`, `;name=value` or `#name=value`.
_URL_PARAMETER = re.compile(r"([?&;#])([\w.%~-]+)=([^&;#\s'\"]+)")
# An assignment in text: `name=value`, `"name": "value"` or `name: "value"`.
_ASSIGNMENT = re.compile(
    r"(?<![\w.-])(-{0,2}[\w.-]+)(\s*=\s*|['\"]\s*:\s*|\s*:\s+(?=['\"]))"
    r"('[^'\n]*'|\"[^\"\n]*\"|['\"]?[^\s'\";&]+)"
)
# `name: word` at the end of a line or of an item. More words are a message about that name.
_ITEM = re.compile(
    r"(?<![\w.-])([\w.-]+)(:\s+)([^\s'\",;{}\[\]]+)(?=\s*(?:$|[,;})\]]))", re.MULTILINE
)
_HEADER = re.compile(
    r"(?<![\w.])((?:Proxy-)?Authorization|(?:Set-)?Cookie)(:\s*)([^'\"\n]+)", re.IGNORECASE
)
_OPTION = re.compile(r"(?<![\w-])(--[\w-]+)\s+('[^'\n]*'|\"[^\"\n]*\"|[^\s-][^\s]*)")
# `--user name:password`, as curl takes it.
_USER_OPTION = re.compile(r"(?<![\w-])(-u|--user|--proxy-user)([ =]\s*)\S+:\S+")
_SCHEME = re.compile(r"\b((?i:Bearer)|Basic|Negotiate)\s+(?=\S*[0-9A-Z=+/_.-])[^\s'\",;]+")
_TOKEN = re.compile(
    r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"
    r"|\bgh[oprsu]_\w{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}|\bhf_\w{20,}"
    r"|\bxox[abeoprs]-[\w-]{10,}|\bsk-[\w-]{20,}|\bAIza[\w-]{30,}|\bdapi[0-9a-f]{32}\b"
    r"|\beyJ[\w-]{4,}\.[\w-]{4,}\.[\w-]*"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)


def is_secret_name(name: str) -> bool:
    """Whether a name says that its value is a secret, such as `apiKey` or `X-Amz-Signature`."""
    words = [word.lower() for word in _WORDS.findall(name)]
    if _NOT_SECRET.intersection(words):
        return False
    if len(words) == 1:
        # Words that are written without a separator.
        joined = words[0]
        if any(joined == pair.replace(" ", "") for pair in _SECRET_PAIRS):
            return True
        if joined.endswith(("password", "passwd", "secret", "apikey", "accesskey", "accesskeyid")):
            return True
    pairs = {f"{first} {second}" for first, second in itertools.pairwise(words)}
    return bool(_SECRET_WORDS.intersection(words) or _SECRET_PAIRS & pairs)


def redact(text: str) -> str:
    """Text with its secrets replaced by `***`."""
    text = _TOKEN.sub(HIDDEN, text)
    text = _USER_OF_URL.sub(rf"\1{HIDDEN}@", text)
    text = _URL_PARAMETER.sub(_hide_parameter, text)
    text = _HEADER.sub(rf"\1\2{HIDDEN}", text)
    text = _SCHEME.sub(rf"\1 {HIDDEN}", text)
    text = _USER_OPTION.sub(rf"\1\2{HIDDEN}", text)
    text = _ASSIGNMENT.sub(_hide_assignment, text)
    text = _ITEM.sub(_hide_assignment, text)
    return _OPTION.sub(_hide_option, text)


def _hide_parameter(found: re.Match[str]) -> str:
    # In a URL, `key` alone is an access key too.
    plain = found[2].lower()
    secret = is_secret_name(found[2]) or plain in ("key", "code", "session", "sessionid", "sid")
    return f"{found[1]}{found[2]}={HIDDEN}" if secret else found[0]


def _hide_assignment(found: re.Match[str]) -> str:
    name = found[1].rsplit(".", 1)[-1]
    if not is_secret_name(name):
        return found[0]
    return f"{found[1]}{found[2]}{_hidden_value(found[3])}"


def _hide_option(found: re.Match[str]) -> str:
    return f"{found[1]} {_hidden_value(found[2])}" if is_secret_name(found[1]) else found[0]


def _hidden_value(value: str) -> str:
    """Return `***`, in the quotes that a value has."""
    quote = value[0] if value[0] in "'\"" else ""
    return f"{quote}{HIDDEN}{quote if value[-1] == quote else ''}"


def redact_tree(value: Any) -> Any:
    """A copy of nested lists and mappings without their secrets.

    Under a key that is the name of a secret, every text and number is replaced.
    """
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {
            _redacted_key(key): _hidden(item) if _holds_secret(key, value) else redact_tree(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return [redact_tree(item) for item in value]
    return value


def _redacted_key(key: Any) -> Any:
    return redact(key) if isinstance(key, str) else key


def _holds_secret(key: Any, siblings: dict[Any, Any]) -> bool:
    if not isinstance(key, str):
        return False
    # fsspec's options for S3 are called `key` and `secret`.
    return is_secret_name(key) or (key.lower() == "key" and "secret" in siblings)


def _hidden(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _hidden(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_hidden(item) for item in value]
    return value if value is None or isinstance(value, bool) else HIDDEN
