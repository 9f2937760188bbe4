"""What of a configuration is shown to others."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastfcn_pl.redaction import HIDDEN, redacted


def test_texts_under_the_name_of_a_secret_are_hidden() -> None:
    given = {
        "hub": {"api_key": "abc", "token": "abc", "db-password": "abc", "apikey": "abc"},
        "list": [{"secret": "x"}],
    }
    assert redacted(given) == {"hub": dict.fromkeys(given["hub"], HIDDEN), "list": [{"secret": HIDDEN}]}  # type: ignore[call-overload]
    harmless = {"token": True, "tokens": "word", "key": "val/mIoU", "num_tokens": 3, "monitor": None}
    assert redacted(harmless) == harmless


def test_logins_in_addresses_are_hidden() -> None:
    assert redacted("get https://me:pw@host.org/x?y=a@b") == f"get https://{HIDDEN}@host.org/x?y=a@b"
    assert redacted("https://host.org/@me") == "https://host.org/@me"


def test_paths_start_where_the_user_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home, work = tmp_path / "me", tmp_path / "me" / "work"
    work.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    assert redacted([f"{work}/runs/1", str(work), f"{home}/data", str(home)]) == ["./runs/1", ".", "~/data", "~"]
    assert redacted(f"{home}body/data") == f"{home}body/data"
    assert redacted(f"/mnt{home}/data") == f"/mnt{home}/data"
    monkeypatch.chdir("/")
    assert redacted("/data/CamVid") == "/data/CamVid"
