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
    r"([a-z][a-z0-9+.-]*://)(?:[^\s/@:?#'\"]*:[^\s'\"]*@|[^\s/@'\"]+@)", re.IGNORECASE
)

# Names of secrets, as one word or as several in any style: apiKey, api_key, API-KEY.
_SECRET_WORDS = frozenset(
    [
        "auth",
        "authorization",
        "bearer",
        "cookie",
        "credential",
        "credentials",
        "jwt",
        "pass",
        "passphrase",
        "passwd",
        "password",
        "passwords",
        "pat",
        "pwd",
        "sas",
        "secret",
        "secrets",
        "sig",
        "signature",
        "token",
    ]
)
# With one of these words, a name is that of an amount or a choice and not of a secret, as in
# `token_count` and `RAY_AUTH_MODE`.
_NOT_SECRET = frozenset(["count", "length", "limit", "max", "min", "mode", "number", "size"])
_SECRET_PAIRS = frozenset(
    f"{first} {second}"
    for first in ("access", "account", "api", "encryption", "private", "secret", "shared", "ssh")
    for second in ("key", "keys")
)
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")

# A parameter of a URL: `?name=value`, `&name=value`, `;name=value` or `#name=value`.
_URL_PARAMETER = re.compile(r"([?&;#])([\w.%~-]+)=([^&;#\s'\"]+)")
# An assignment in text: `name=value`, `"name": "value"` or `--name value`.
_ASSIGNMENT = re.compile(
    r"(?<![\w.-])(-{0,2}[\w.-]+)(\s*=\s*|['\"]\s*:\s*)(['\"]?)([^\s'\",;&)}\]]+)"
)
_OPTION = re.compile(r"(?<![\w-])(--[\w-]+)\s+([^\s-][^\s]*)")
_SCHEME = re.compile(r"\b(Bearer|bearer|Basic|Negotiate)\s+(?=\S*[0-9A-Z=+/_.-])[^\s'\",;]+")
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
    text = _SCHEME.sub(rf"\1 {HIDDEN}", text)
    text = _ASSIGNMENT.sub(_hide_assignment, text)
    return _OPTION.sub(
        lambda found: f"{found[1]} {HIDDEN}" if is_secret_name(found[1]) else found[0], text
    )


def _hide_parameter(found: re.Match[str]) -> str:
    # In a URL, `key` alone is an access key too.
    secret = is_secret_name(found[2]) or found[2].lower() in ("key", "code")
    return f"{found[1]}{found[2]}={HIDDEN}" if secret else found[0]


def _hide_assignment(found: re.Match[str]) -> str:
    name = found[1].rsplit(".", 1)[-1]
    return f"{found[1]}{found[2]}{found[3]}{HIDDEN}" if is_secret_name(name) else found[0]


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
