"""The schema of Google's Terraform provider, as far as a configuration uses it.

The provider itself comes from a registry that not every machine reaches. Its schema is also in the Python
bindings that are generated from it, on PyPI: for each resource a class whose initialiser takes the
arguments, and whose properties are the attributes. This reads those classes (it runs none of them) and
writes the message that Terraform expects of a provider that is asked for its schema.
"""

import ast
import json
import re
import zipfile

META = {"scope", "id_", "connection", "count", "depends_on", "for_each", "lifecycle", "provider", "provisioners"}
ENDS = ("_input", "internal_value", "friendly_unique_id", "fqn", "tf_resource_type", "config")
LIST = 2  # Schema.NestedBlock.NestingMode


def schemas(bindings, kinds):
    """What a provider answers that is asked for its schema: the bytes of a GetProviderSchema.Response with
    these resources, and data sources as `data.google_project`. What is unknown is left out."""
    parts = [message(1, bindings.provider())]
    for kind in kinds:
        name = kind.removeprefix("data.")
        field, found = (2, bindings.resource(name)) if name == kind else (3, bindings.data_source(name))
        if found is not None:
            parts.append(message(field, text(1, name) + message(2, found)))
    return b"".join(parts)


class Bindings:
    """The bindings' wheel, and the version of the provider they were made of."""

    def __init__(self, wheel):
        self._wheel = zipfile.ZipFile(wheel)
        names = self._wheel.namelist()
        self._package = next(name.split("/")[0] for name in names if name.endswith("/_jsii/__init__.py"))
        metadata = next(name for name in names if name.endswith("/METADATA"))
        text = self._wheel.read(metadata).decode()
        self.version = re.search(r"hashicorp/google provider version (\S+)", text).group(1)

    def resource(self, kind):
        """`google_pubsub_topic` as the bytes of a Schema, or None where there is no such resource."""
        return self._read(kind.removeprefix("google_"), lambda name: True)

    def data_source(self, kind):
        return self._read("data_" + kind, lambda name: True)

    def provider(self):
        return self._read("provider", lambda name: name == "GoogleProvider")

    def _read(self, module, wanted):
        path = f"{self._package}/{module}/__init__.py"
        if path not in self._wheel.namelist():
            return None
        tree = ast.parse(self._wheel.read(path))
        classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
        main = next(node for name, node in classes.items() if name != "_LazyImport" and wanted(name))
        return message(2, block(main, classes, computed=True))


def block(owner, classes, computed=False):
    """The bytes of a Schema.Block with what `owner` takes and, if `computed`, what it tells."""
    attributes, blocks, seen = [], [], set()
    for name, kind, required in arguments(owner):
        seen.add(name)
        inner, many = structure(kind, classes)
        if inner is None:
            attributes.append(attribute(name, primitive(kind), required=required))
            continue
        told = classes.get(inner + "OutputReference")
        parts = [text(1, name), message(2, block_of(inner, told, classes)), number(3, LIST)]
        if name == "timeouts":
            parts[2] = number(3, 1)
        if required:
            parts.append(number(4, 1))
        if not many and name != "timeouts":
            parts.append(number(5, 1))
        blocks.append(message(3, b"".join(parts)))
    if computed:
        for name, kind in properties(owner):
            if name not in seen and not name.endswith(ENDS):
                attributes.append(attribute(name, told_type(kind, classes), computed=True))
    return b"".join(attributes) + b"".join(blocks)


def block_of(inner, told, classes):
    """A nested block takes what its class takes, and tells what its OutputReference tells."""
    taken = block(classes[inner], classes)
    names = {name for name, _, _ in arguments(classes[inner])}
    if told is None:
        return taken
    extra = b"".join(
        attribute(name, told_type(kind, classes), computed=True)
        for name, kind in properties(told)
        if name not in names and not name.endswith(ENDS)
    )
    return extra + taken


def arguments(owner):
    init = next((n for n in owner.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
    if init is None:
        return
    for argument, default in zip(init.args.kwonlyargs, init.args.kw_defaults):
        if argument.arg in META:
            continue
        yield argument.arg, ast.unparse(argument.annotation), default is None


def properties(owner):
    for node in owner.body:
        if not isinstance(node, ast.FunctionDef) or node.returns is None:
            continue
        if any(ast.unparse(decorator) == "builtins.property" for decorator in node.decorator_list):
            yield node.name, ast.unparse(node.returns)


def structure(kind, classes):
    """The class of a nested block in the type of an argument, and whether there may be many."""
    for name in re.findall(r"['\"](\w+)['\"]", kind):
        if name in classes:
            return name, "Sequence" in kind
    return None, False


def primitive(kind):
    inner = "string"
    if "jsii.Number" in kind:
        inner = "number"
    elif "builtins.bool" in kind:
        inner = "bool"
    if "typing.Mapping" in kind:
        return ["map", inner]
    if "typing.Sequence" in kind or "typing.List" in kind:
        return ["list", inner]
    return inner


def told_type(kind, classes):
    """The type of what is only told: `...List` stands for a list of objects."""
    for name in re.findall(r"['\"](\w+)['\"]", kind):
        told = classes.get(name.removesuffix("List") + "OutputReference")
        if told is None:
            told = classes.get(name) if name.endswith("OutputReference") else None
        if told is None:
            continue
        fields = {
            field: told_type(field_kind, classes)
            for field, field_kind in properties(told)
            if not field.endswith(ENDS)
        }
        return ["list", ["object", fields]]
    if "StringMap" in kind:
        return ["map", "string"]
    if "IResolvable" in kind and "builtins" not in kind:
        return "bool"
    return primitive(kind)


def attribute(name, kind, required=False, computed=False):
    parts = [text(1, name), message(2, json.dumps(kind).encode())]
    if required:
        parts.append(number(4, 1))
    elif computed:
        parts.append(number(6, 1))
    else:
        parts.append(number(5, 1))
        # Whether a provider fills in what is not given cannot be read there; it does so for ids.
        if name == "id":
            parts.append(number(6, 1))
    return message(2, b"".join(parts))


# Protocol buffers, as little as a schema takes: https://protobuf.dev/programming-guides/encoding/


def varint(value):
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field, value):
    return varint(field << 3) + varint(value)


def message(field, value):
    return varint(field << 3 | 2) + varint(len(value)) + value


def text(field, value):
    return message(field, value.encode())
