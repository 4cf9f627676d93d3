"""The service imports Connexion without the libraries that it does not use, and Connexion finds them when it does."""

import subprocess
import sys
from decimal import Decimal
from fractions import Fraction

import pytest

from handlers.contract.framework import DEFERRED, placeholder_for


@pytest.mark.parametrize("class_name", ["Fraction", None])
@pytest.mark.parametrize("installed", [True, False])
def test_placeholder_imports_the_module_when_it_is_used(
    monkeypatch: pytest.MonkeyPatch, installed: bool, class_name: str | None
) -> None:
    placeholder = placeholder_for("fractions", class_name)
    if installed:
        monkeypatch.setitem(sys.modules, "fractions", placeholder)

    assert not hasattr(placeholder, "__file__")
    assert placeholder.Decimal is Decimal
    assert placeholder.Fraction("1/2") == Fraction(1, 2)
    assert sys.modules["fractions"] is not placeholder


def output(program: str) -> str:
    """Return the output of a program, which fails if it shows a warning, as Starlette's test client does."""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, encoding="utf-8", check=True)
    assert result.stderr == ""
    return result.stdout


@pytest.mark.slow
def test_service_does_not_import_what_it_does_not_use() -> None:
    imported = output("import sys, handlers.server.serve; print(*sys.modules)").split()

    assert "connexion" in imported
    assert not {*DEFERRED, "urllib3", "charset_normalizer"} & {*imported}


@pytest.mark.slow
def test_connexion_finds_the_libraries_when_it_uses_them() -> None:
    program = """
import warnings
import handlers.contract.framework
import connexion.json_schema
import connexion.security
import connexion.spec

print(connexion.spec.jinja2.Template("{{ name }}").render(name="Jinja"))
print(connexion.json_schema.requests.codes.ok)
print(issubclass(connexion.security.httpx.ConnectError, Exception))
warnings.simplefilter("ignore")
print(connexion.AsyncApp("tests").test_client().base_url)
"""
    assert output(program).split() == ["Jinja", "200", "True", "http://testserver"]


@pytest.mark.slow
def test_other_importers_get_the_libraries_themselves() -> None:
    program = "import handlers.contract.framework, jinja2, requests; print(jinja2.__file__, requests.__file__)"

    assert output(program).count("__init__.py") == 2
