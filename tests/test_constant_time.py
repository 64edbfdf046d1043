"""Nothing secret is compared by `==`, whose time tells how much of a guess was right."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from tests.process import ROOT

SECRET = re.compile(
    r"secret|signature|(^|_)sign(ed)?($|_)|hmac|(^|_)mac($|_)|password|credential|token|api_key|digest|sha256"
)
CONTENT = re.compile(r"digest|sha256")
PUBLIC = {
    "autopilots/ai_employee/intake.py": "of documents their sender has",
    "autopilots/page_deployer/deploy.py": "of pages anybody may read",
    "autopilots/page_deployer/pages.py": "of pages anybody may read",
    "autopilots/runner/check.py": "of files in the runner's folder",
    "infra/apply.py": "of the sources of Workers",
    "infra/blobs/folder.py": "of files, against what was written beside them",
    "infra/cloudflare/scripts.py": "of the sources of Workers",
    "infra/local.py": "of the sources of Workers",
    "infra/plan.py": "of the sources of Workers",
    "router/approvals.py": "of tasks their approver has before them",
    "router/run.py": "of graphs, against what was stored beside them",
}
"""Where digests are compared that nobody could gain by guessing: they are of content, made without a key."""


def name_of(node: ast.expr) -> str:
    """Return the word that says what an expression is, empty for one that has none."""
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Subscript(slice=ast.Constant(value=str(name))):
            return name
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str(name)), *_]):
            return name
        case ast.Call(
            func=ast.Attribute(value=value, attr="encode" | "decode" | "strip" | "hex" | "lower" | "reveal")
        ):
            return name_of(value) or "secret" * (node.func.attr == "reveal")  # type: ignore[attr-defined]
        case ast.Call(func=function):
            return name_of(function)
        case ast.Await(value=value) | ast.Subscript(value=value) | ast.NamedExpr(value=value):
            return name_of(value)
        case ast.JoinedStr(values=values):
            return " ".join(name_of(one.value) for one in values if isinstance(one, ast.FormattedValue))
        case ast.BinOp(left=left, right=right):
            return f"{name_of(left)} {name_of(right)}"
        case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
            return " ".join(name_of(one) for one in elements)
        case _:
            return ""


def leaks(source: str) -> Iterator[tuple[int, str, str]]:
    """Give each comparison of something secret: its line, its text and the word that gives it away."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Compare):
            continue
        operands = [node.left, *node.comparators]
        plain = any(isinstance(one, ast.Eq | ast.NotEq) for one in node.ops)
        if not plain or any(isinstance(one, ast.Constant) for one in operands):
            continue  # a constant of the source is no secret
        for operand in operands:
            words = [word for word in name_of(operand).lower().split() if SECRET.search(word)]
            if words:
                yield node.lineno, ast.unparse(node), words[0]
                break


def test_no_secret_is_compared_by_its_text() -> None:
    """Secrets, signatures and keyed digests meet only in `hmac.compare_digest`."""
    looked_at = 0
    found = []
    for room in ("router", "infra", "autopilots"):
        for path in sorted((ROOT / room).rglob("*.py")):
            looked_at += 1
            file = str(path.relative_to(ROOT))
            for line, text, word in leaks(path.read_text(encoding="utf-8")):
                if not (file in PUBLIC and CONTENT.search(word)):
                    found.append(f"{file}:{line}: {text}")
    assert looked_at > 100
    assert found == []


@pytest.mark.parametrize(
    "text",
    [
        "secret == given",
        "given != record.secret",
        "expected_signature == headers['x']",
        "headers['webhook-signature'] == expected",
        "headers.get('x-token') == wanted",
        "hmac.new(a, b).hexdigest() == given",
        "sign(a, b) == given",
        "settings.api_key.reveal() == key",
        "password.encode() == given",
        "'v1,' + signature == given",
        "f'v1,{signature}' == given",
        "(user, password) == given",
        "mac[:16] == given",
        "a == b == token",
        "[x for x in y if x.digest == z]",
    ],
)
def test_what_it_would_find(text: str) -> None:
    """The search sees a secret by its name, however it stands in a comparison."""
    assert len(list(leaks(text))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "token.kind == kind",
        "len(secret) != wanted",
        "secret is None",
        "signature == ''",
        "hmac.compare_digest(secret, given)",
        "secret in known",
        "machine == given",
        "assigned == given",
    ],
)
def test_what_it_lets_be(text: str) -> None:
    """What only looks like one, or is compared for something else than its text, is left alone."""
    assert list(leaks(text)) == []
