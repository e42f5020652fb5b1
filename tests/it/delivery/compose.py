"""Reads a compose file by the Compose specification, and prints it as one JSON object, with what YAML merges.

    compose.py FILE

A key that the specification does not know, or a value that it does not allow, ends it with an error.
"""

import json
import sys

import yaml
from compose_spec import PyCompose

with open(sys.argv[1], encoding="utf-8") as file:
    document = yaml.safe_load(file)
compose = PyCompose.from_json(json.dumps(document))
compose.validate()
json.dump(document, sys.stdout)
