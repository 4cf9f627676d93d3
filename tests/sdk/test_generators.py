"""Clients for the languages of docs/sdks.md, generated with openapi-generator: `make sdks` compiles and calls them.

`make test` leaves them out, because they take a minute. `programs` has a program for each language that calls this API.
With another API, delete or rewrite the programs: a client without a program is only compiled.
"""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.support.calls import make_key
from tests.support.pages import section
from tests.support.project import ROOT, tool
from tests.support.service import Start
from tests.support.stores import Store

pytestmark = [pytest.mark.sdks, pytest.mark.slow]

FOLDER = ROOT / "tests/sdk"
GENERATOR = Path(sys.executable).with_name("openapi-generator-cli")
CONTRACT = ROOT / "build/openapi.yaml"
HEADING = "How do I get a client for another language?"
# The rows of the table are: language, options, remarks.
OPTIONS = dict(re.findall(r"(?m)^\| (\S+) \| `(-g .*?)` \|", section("docs/sdks.md", HEADING)))


class Language(NamedTuple):
    """Shell commands for the client of a language, which run in its folder.

    Attributes:
        needs: The command that fails if the compiler or a library is not installed.
        compile: The command that compiles or loads every file of the client.
        program: The name of the program that calls the API.
        run: The command that runs the program.
    """

    needs: str
    compile: str
    program: str
    run: str


NEWTONSOFT = "/usr/lib/cli/Newtonsoft.Json-5.0/Newtonsoft.Json.dll"
CSHARP = (
    f"mcs -langversion:latest -nowarn:436,1591 -r:{NEWTONSOFT} -r:System.Net.Http"
    " -r:System.ComponentModel.DataAnnotations -r:System.Runtime.Serialization"
)
ANNOTATIONS = "/usr/share/java/geronimo-annotation-1.3-spec.jar"
# The generator contains Jackson.
CLASSES = f"{sysconfig.get_path('purelib')}/openapi_generator_cli/openapi-generator.jar:{ANNOTATIONS}"
PHP = "php -d include_path=.:/usr/share/php"
NODE = ROOT / "build/node/node_modules"
TYPESCRIPT = f"{NODE}/.bin/tsc --strict --target es2022 --module nodenext --types node --typeRoots {NODE}/@types"
LANGUAGES = {
    "C#": Language(
        f"mcs --version && mono --version && test -e {NEWTONSOFT}",
        f"{CSHARP} -target:library -out:client.dll {FOLDER}/mono.cs $(find src/Org.OpenAPITools -name '*.cs')",
        "Calls.cs",
        f"{CSHARP} -r:client.dll -out:calls.exe $PROGRAM && mono calls.exe $URL",
    ),
    "Go": Language(
        "go version",
        "go vet .",
        "calls.go",
        "mkdir calls && cp $PROGRAM calls && go run ./calls $URL",
    ),
    "Java": Language(
        f"javac -version && test -e {ANNOTATIONS}",
        f"javac -d classes -cp {CLASSES} $(find src/main -name '*.java')",
        "Calls.java",
        f"java -cp classes:{CLASSES} $PROGRAM $URL",
    ),
    "PHP": Language(
        f"{PHP} -r 'require \"GuzzleHttp/autoload.php\";'",
        "find lib -name '*.php' -print0 | xargs -0 -n 1 php -l",
        "calls.php",
        f"{PHP} $PROGRAM $URL",
    ),
    "Python": Language(
        f"{sys.executable} -c 'import dateutil, urllib3'",
        f"{sys.executable} -c 'from openapi_client import *'",
        "calls.py",
        f"PYTHONPATH=. {sys.executable} $PROGRAM $URL",
    ),
    "Ruby": Language(
        "ruby -rtyphoeus -rmarcel -e ''",
        "ruby -Ilib -ropenapi_client -e ''",
        "calls.rb",
        "ruby -Ilib $PROGRAM $URL",
    ),
    "TypeScript": Language(
        f"node --version && test -e {NODE}/.bin/tsc",
        f"""echo '{{"type": "module"}}' > package.json && {TYPESCRIPT} --declaration --outDir dist index.ts""",
        "calls.ts",
        f"cp $PROGRAM dist && {TYPESCRIPT} --skipLibCheck dist/calls.ts && node dist/calls.js $URL",
    ),
}


def run(command: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a shell command in a folder, and return its exit status and output."""
    # The output is in UTF-8, whatever the locale of the machine is. Java starts faster with its simple compiler.
    environment = os.environ | {"LC_ALL": "C.UTF-8", "JDK_JAVA_OPTIONS": "-XX:TieredStopAtLevel=1"} | variables
    return subprocess.run(
        ["bash", "-ec", command],
        cwd=folder,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


def output_of(command: str, folder: Path, **variables: str) -> str:
    """Run a shell command that must succeed in a folder, and return its standard output."""
    completed = run(command, folder, **variables)
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


def test_every_documented_language_is_tested() -> None:
    assert OPTIONS.keys() == LANGUAGES.keys()


@pytest.mark.parametrize("name", LANGUAGES)
def test_client_compiles_and_calls_the_service(name: str, start: Start, store: Store, tmp_path: Path) -> None:
    language, client = LANGUAGES[name], tmp_path / "client"
    generator, _ = tool(GENERATOR), tool("java")
    if run(language.needs, tmp_path).returncode:
        (pytest.fail if "CI" in os.environ else pytest.skip)(f"{name} is not installed; this fails: {language.needs}")

    output_of(f"{generator} generate -i {CONTRACT} -o {client} {OPTIONS[name]}", tmp_path)
    output_of(language.compile, client)

    program = FOLDER / "programs" / language.program
    if program.exists():
        expected = program.with_name("output.txt").read_text("utf-8")
        variables = {"TASKS_API_KEY": make_key(store, tmp_path), "PROGRAM": str(program)}
        assert output_of(language.run, client, URL=start().url, **variables) == expected
