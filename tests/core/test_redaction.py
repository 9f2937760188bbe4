"""Redaction of secrets in configurations and messages."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastfcn_pl.core import redaction
from fastfcn_pl.core.redaction import HIDDEN, hide, is_secret, redacted, without_secrets


def test_values_of_secret_keys_are_hidden() -> None:
    given = {
        "hub": {"api_key": "abc", "token": "abc", "db-password": "abc", "apikey": "abc"},
        "list": [{"secret": "x"}],
    }
    assert redacted(given) == {"hub": dict.fromkeys(given["hub"], HIDDEN), "list": [{"secret": HIDDEN}]}  # type: ignore[call-overload]
    harmless = {"token": True, "tokens": "word", "key": "val/mIoU", "num_tokens": 3, "monitor": None}
    assert redacted(harmless) == harmless


def test_logins_in_urls_are_hidden() -> None:
    assert redacted("get https://me:pw@host.org/x?y=a@b") == f"get https://{HIDDEN}@host.org/x?y=a@b"
    assert redacted("https://host.org/@me") == "https://host.org/@me"


def test_paths_are_relative_to_the_working_directory_or_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home, work = tmp_path / "me", tmp_path / "me" / "work"
    work.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    assert redacted([f"{work}/runs/1", str(work), f"{home}/data", str(home)]) == ["./runs/1", ".", "~/data", "~"]
    assert redacted(f"{home}body/data") == f"{home}body/data"
    assert redacted(f"/mnt{home}/data") == f"/mnt{home}/data"
    monkeypatch.chdir("/")
    assert redacted("/data/CamVid") == "/data/CamVid"


SECRET = "s3cr3t-of-mine"


@pytest.mark.parametrize(
    "text",
    [
        f"https://me:{SECRET}@host.org/x",
        f"https://{SECRET}@host.org/x",
        f"postgres://me:a/b@{SECRET}@host.org/x",
        f"redis://:{SECRET}@host.org:6379/0",
        f"s3://AKIAKEY:{SECRET}@bucket/key",
        f"http://me:pa/{SECRET}@proxy:3128",
        f"me:{SECRET}@proxy:3128",
        f"https://host.org/x?token={SECRET}",
        f"https://host.org/x?size=3&api_key={SECRET}#top",
        f"https://host.org/x?X-Amz-Credential=a&X-Amz-Signature={SECRET}&X-Amz-Date=3",
        f"https://host.org/x?X-Amz-Security-Token={SECRET}",
        f"https://host.org/x#access_token={SECRET}",
        f"https://host.org/x?key={SECRET}",
        f"https://host.blob.core.windows.net/x?sv=1&sig={SECRET}",
        f"host=db user=me password={SECRET} dbname=x",
        f"Server=db;Pwd={SECRET};Trusted=no",
        f"+data.token={SECRET}",
        f"data.hub.apiKey='{SECRET} and more'",
        f"--password={SECRET}",
        f"hub={{url:x,token:{SECRET}}}",
        f"{{'password': '{SECRET}', 'user': 'me'}}",
        f'{{"secret_access_key": "{SECRET}"}}',
        f"Authorization: Bearer {SECRET}",
        f"${{oc.env:MY_TOKEN,{SECRET}}}",
        f"https://me:${{oc.env:PW,{SECRET}}}@host.org",
        f"${{oc.decode:${{oc.env:MY_PASSWORD,{SECRET}}}}}",
    ],
)
def test_secrets_are_found_by_the_syntax_around_them(text: str) -> None:
    for shown in (hide(text), without_secrets(text), without_secrets({"question": [text]})["question"][0]):
        assert SECRET not in shown
        assert HIDDEN in shown
        assert hide(shown) == shown, "hiding twice changes nothing"


@pytest.mark.parametrize(
    "text",
    [
        "https://host.org:8080/@me/x?y=a@b",
        "git@github.com:me/project.git",
        "model/aux_head@model.aux=fcn",
        "data.token: no such key; did you mean data.tokens?",
        "val/mIoU=0.5, step=1000, lr=1e-3",
        "trainer.limit_val_batches=0.5 callbacks.images.worst=2",
        "tokens=word model.class_token=true token=null",
        "12:30@office, ratio 3:4",
        "${oc.env:DATA,data}/camvid",
        "token=${oc.env:MY_TOKEN}",
        "classes: [background, thing]",
        "secret_file=/home/me/secret.txt",
    ],
)
def test_ordinary_text_is_unchanged(text: str) -> None:
    if text.startswith("12:30"):
        assert "ratio 3:4" in hide(text)
    else:
        assert (hide(text), without_secrets(text)) == (text, text)


def test_secret_and_harmless_names() -> None:
    names = ["password", "db-password", "DB_PASSWORD_2", "apiKey", "X-Api-Key", "AWS_SECRET_ACCESS_KEY", "hf_token"]
    names += [
        "data.hub.token",
        "clientSecret",
        "credentials",
        "aws_access_key_id",
        "pwd",
        "auth",
        "passwords",
        "secrets",
    ]
    assert all(map(is_secret, names))
    harmless = [
        "tokens",
        "num_tokens",
        "key",
        "monitor",
        "author",
        "compass",
        "secretary",
        "password_file",
        "data.path",
    ]
    harmless += ["token_dim", "passes", "SSH_AUTH_SOCK", "authority", "tokenizer"]
    assert not any(map(is_secret, harmless))


def test_everything_nested_in_a_secret_key_is_hidden() -> None:
    given = {"credentials": {"_target_": "a.B", "user": "me", "pins": [123456, 7], "more": {"x": "${oc.env:X}"}}}
    shown = {"_target_": "a.B", "user": HIDDEN, "pins": [HIDDEN, 7], "more": {"x": "${oc.env:X}"}}
    assert without_secrets(given) == {"credentials": shown}


@given(st.text(min_size=1, max_size=200))
def test_hiding_is_idempotent(text: str) -> None:
    once = hide(text)
    assert hide(once) == once


@pytest.mark.slow
def test_long_text_is_fast() -> None:
    for text in (
        "a" * 200_000,
        "a=" * 50_000,
        "://" * 50_000,
        "a:b@" * 20_000,
        "{'a': " * 20_000,
        "${oc.env:A," * 5_000,
    ):
        begun = time.monotonic()
        hide(text)
        assert time.monotonic() - begun < 2, text[:10]


def test_the_working_directory_is_not_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_replacements", {})
    monkeypatch.setattr(redaction, "_pattern", None)
    redaction.remember_process(
        ["data.root=/data"], {"PWD": "/home/me/project", "OLDPWD": "/home/you", "DB_PWD": "a-b-c-d"}
    )
    assert hide("/home/me/project /home/you /data a-b-c-d") == f"/home/me/project /home/you /data {HIDDEN}"


def test_an_ordinary_word_that_is_a_secret_elsewhere_stays_in_a_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redaction, "_replacements", {})
    monkeypatch.setattr(redaction, "_pattern", None)
    redaction.remember_in_text("https://user:password@host https://me:shapes@host git+ssh://git@github.com/x")
    config = {"password": None, "data": {"name": "shapes", "tool": "git"}}
    assert without_secrets(config) == config
    assert hide("git, password, shapes") == "git, password, ***"


def test_secrets_in_printed_yaml_are_hidden() -> None:
    text = "hub:\n  password: literal secret of mine\n  url: x\n- token: 'abc def'\nquestion: why\n"
    assert hide(text) == "hub:\n  password: ***\n  url: x\n- token: '***'\nquestion: why\n"
    assert hide("data.token: no such key\n") == "data.token: no such key\n"
