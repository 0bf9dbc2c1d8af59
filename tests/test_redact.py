"""Secrets are removed from everything that is stored, logged or printed."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blur_es.config import load_config
from blur_es.errors import InputError
from blur_es.redact import is_secret_name, redact, redact_tree
from tests.experiments import SMALL

SECRETS = [
    "s3://me:hunter2@host/x",
    "https://me:hun/ter2@host/x",
    "https://me:hun@ter2@host/x",
    "mysql+pymysql://root:hunter2@h:3306/db",
    "https://hunter2@host/x",
    "https://host/x?sv=2020&sig=hunter2&se=1",
    "s3://host/x?X-Amz-Signature=hunter2",
    "https://host/x?a=1&access_token=hunter2",
    "https://host/x#token=hunter2",
    "https://host/x?key=hunter2",
    "Authorization: Bearer hunter2",
    "Basic aHVudGVyMg==hunter2",
    "--set tasks.0.password=hunter2",
    "tasks.0.api_key = 'hunter2'",
    "{'apiKey': 'hunter2'}",
    '"secret": "hunter2"',
    "--api-key hunter2",
    "AccountName=a;AccountKey=hunter2==;EndpointSuffix=x",
    "AWS_SECRET_ACCESS_KEY=hunter2",
    "ghp_hunter2hunter2hunter2",
    "https://me:p'hunter2@host/x",
    'https://me:p"hunter2@host/x',
    "https://host/x?session=hunter2",
    "password: hunter2",
    "{user: me, password: hunter2}",
    "Password: 'my hunter2'",
    "password='my, hunter2'",
    'password="my hunter2"',
    "--password 'my hunter2'",
    "password=my,hunter2",
    "X-Api-Key: hunter2",
    "Cookie: session=hunter2; id=hunter2",
    "authorization: token hunter2",
    "BEARER hunter2",
    "curl -u me:hunter2",
    "curl --user=me:hunter2",
    "pw=hunter2",
    "creds=hunter2",
    "signing_key=hunter2",
    "eyJhbGciOi.eyJzdWIi.hunter2",
]

HARMLESS = [
    "s3://bucket/a@b",
    "http://127.0.0.1:5000/x",
    "fetch https://h:80/x then mail me@x.org",
    "expected dotted.key=value, such as meta.population=80",
    "e.yaml:5: tasks.0.token: this key is missing",
    "e.yaml:5: tasks.0.authorization: this key is missing",
    "meta.strategy: cma_es",
    "own:Spiral@1f0c5e9ab2d34c77",
    "meta.stop.hours = 3",
    "tokens=512 max_tokens=3",
    "pattern=x author=bob bypass=3 keyword=k",
]


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_is_removed(text: str) -> None:
    assert "ter2" not in redact(text)
    found = redact(f"cannot read {text}\nor {text}, today")
    assert "ter2" not in found
    assert found.startswith("cannot read ")
    assert redact(found) == found
    assert "ter2" not in str(InputError(text))
    assert str(pickle.loads(pickle.dumps(InputError(text)))) == str(InputError(text))


@pytest.mark.parametrize("text", HARMLESS)
def test_other_text_stays(text: str) -> None:
    assert redact(text) == text


@given(st.text())
def test_redaction_changes_nothing_the_second_time(text: str) -> None:
    assert redact(redact(text)) == redact(text)


@pytest.mark.parametrize(
    ("name", "secret"),
    [
        *((name, True) for name in ("password", "apiKey", "API-KEY", "X-Amz-Signature", "sig")),
        *((name, True) for name in ("hf_token", "SecretAccessKey", "authorization", "dbpassword")),
        *(
            (name, False)
            for name in (
                "name",
                "keyword",
                "token_count",
                "RAY_AUTH_MODE",
                "tokens",
                "author",
                "size",
            )
        ),
    ],
)
def test_names_of_secrets(name: str, secret: bool) -> None:
    assert is_secret_name(name) is secret


def test_values_under_the_name_of_a_secret_are_removed() -> None:
    tree = {"password": 1234, "nested": {"secret": ["a", {"b": "c"}]}, "size": 3, "key": "mnist"}
    assert redact_tree(tree) == {
        "password": "***",
        "nested": {"secret": ["***", {"b": "***"}]},
        "size": 3,
        "key": "mnist",
    }
    assert redact_tree({"key": "a", "secret": "b"}) == {"key": "***", "secret": "***"}


def test_an_experiment_is_stored_without_secrets_but_varied_with_them(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(
        SMALL.replace("{name: xor}", "{name: 'mine:Own', password: hunter2, url: 'a?sig=hunter2'}")
    )
    config = load_config(path)
    assert "hunter2" not in config.to_yaml()
    assert "hunter2" not in str(config.identity())
    assert config.task_options[0]["password"] == "hunter2"


def test_messages_about_wrong_values_hide_secrets(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(SMALL)
    with pytest.raises(InputError) as error:
        load_config(path, ["tasks.0.password=hunter2"])
    assert "hunter2" not in str(error.value)
