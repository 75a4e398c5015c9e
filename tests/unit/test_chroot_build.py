"""`tools/chroot_build.py` reads a Dockerfile as an engine does, and refuses what it would read otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import ROOT

from tools.chroot_build import BASE, BuildError, Image, context_files, expand, read_dockerfile, stage_chain

SMALL = """\
# syntax=docker/dockerfile:1
ARG TAG=3.11
ARG FULL=python:${TAG}
FROM $FULL AS below
ENV A=1
RUN first && \\
    # a comment between continued lines
    second \\

    third
FROM other AS beside
RUN never
FROM below
run last  # not a comment
FROM below AS top
USER 1:1
"""


def image(folder: Path) -> Image:
    return Image(folder, workdir="/opt")


def test_continued_lines_comments_and_case() -> None:
    read = read_dockerfile(SMALL)
    assert read[0] == ("ARG", "TAG=3.11")
    assert [" ".join(text.split()) for name, text in read if name == "RUN"] == [
        "first && second third",
        "never",
        "last # not a comment",
    ]


def test_a_target_stands_on_its_stages_alone() -> None:
    base, chain = stage_chain(read_dockerfile(SMALL), "top", {})
    assert base == "python:3.11"
    assert [name for name, _ in chain] == ["ENV", "RUN", "USER"]
    assert stage_chain(read_dockerfile(SMALL), "2", {})[1][-1] == ("RUN", "last  # not a comment")
    assert stage_chain(read_dockerfile(SMALL), "top", {"TAG": "3.12"})[0] == "python:3.12"
    with pytest.raises(BuildError, match="no stage absent: there are below, beside, 2, top"):
        stage_chain(read_dockerfile(SMALL), "absent", {})


def test_substitution() -> None:
    assert expand("$A/${B}c$NONE.", {"A": "1", "B": "2"}) == "1/2c."
    with pytest.raises(BuildError, match=r"unknown substitution: \$\{A:"):
        expand("${A:-1}", {})


def test_arguments_and_variables(tmp_path: Path) -> None:
    made = image(tmp_path)
    made.apply("ENV", "P=/bin Q='a b'", {})
    made.apply("ENV", "P=/new:$P R=$P", {})  # both of the value before this line
    made.apply("ARG", "N=${Q}!", {})
    made.apply("ARG", "INDEX=https://example.org", {"INDEX": "file:///wheels"})
    made.apply("WORKDIR", "$R/x", {})
    made.apply("SHELL", '["/bin/bash", "-c"]', {})
    made.apply("CMD", '["r4t", "--help"]', {})
    assert (made.env["P"], made.env["R"]) == ("/new:/bin", "/bin")
    assert made.args == {"N": "a b!", "INDEX": "file:///wheels"}
    assert made.workdir == "/bin/x"
    assert (tmp_path / "bin/x").is_dir()
    assert made.words("a | b") == ["/bin/bash", "-c", "a | b"]
    assert made.command == ["r4t", "--help"]


def test_what_is_unknown_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="unknown instruction: HEALTHCHECK NONE"):
        read_dockerfile("FROM a\nHEALTHCHECK NONE\n")
    with pytest.raises(BuildError, match="unknown form: FROM --platform"):
        stage_chain(read_dockerfile("FROM --platform=linux/arm64 a AS b\n"), "b", {})
    for name, text in (("COPY", "--from=cuda /a /a"), ("RUN", "--mount=type=bind x"), ("RUN", "<<EOF")):
        with pytest.raises(BuildError, match=f"unknown form: {name}"):
            image(tmp_path).apply(name, text, {})


def test_copies_are_tracked_files_that_travel_to_the_builder(tmp_path: Path) -> None:
    made = image(tmp_path)
    made.apply("COPY", "pyproject.toml LICENSE ./", {})
    made.apply("COPY", "locks/cpu.txt locks/one.txt", {})
    made.apply("COPY", "jobs there", {})
    copied = tmp_path / "opt"
    assert (copied / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    assert (copied / "locks/one.txt").read_bytes() == (ROOT / "locks/cpu.txt").read_bytes()
    assert (copied / "there/cli.py").is_file()
    assert (copied / "there/shipped/rates.json").is_symlink()
    assert not list(copied.rglob("*.pyc"))
    with pytest.raises(BuildError, match="nothing that travels to the builder is called tests"):
        context_files(ROOT, "tests")


def test_it_knows_every_instruction_of_the_cpu_image() -> None:
    base, chain = stage_chain(read_dockerfile((ROOT / "Dockerfile").read_text()), "cpu", {})
    assert BASE.fullmatch(base)
    assert chain[-1] == ("CMD", '["r4t", "--help"]')
    assert not [text for _, text in chain if text.startswith("--") or "<<" in text]
