"""What a machine lacks is skipped, and in continuous integration said."""

from __future__ import annotations

import pytest
from support import absent, needed


def test_what_is_missing_skips_on_a_machine_and_fails_where_nothing_may_be_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("R4T_CI", raising=False)
    monkeypatch.delenv("R4T_WITHOUT", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no browser"):
        absent("chromium", "no browser")
    monkeypatch.setenv("R4T_CI", "1")
    with pytest.raises(pytest.fail.Exception, match="chromium is missing, and R4T_CI is set: no browser"):
        absent("chromium", "no browser")
    monkeypatch.setenv("R4T_WITHOUT", "chromium")
    with pytest.raises(pytest.skip.Exception, match="no browser"):
        absent("chromium", "no browser")


def test_a_module_is_imported_or_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert needed("r4t.errors").UserError
    monkeypatch.setenv("R4T_CI", "1")
    with pytest.raises(pytest.fail.Exception, match="r4t_absent is missing"):
        needed("r4t_absent.part")
