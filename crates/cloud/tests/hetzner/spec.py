"""Closes the provider's OpenAPI document, so that a field that it does not know is an error, and mends what is stale in it.

usage: spec.py FROM TO
"""

import json
import sys

# What was removed from the API since, or is given by it and not told by the document.
GONE = "datacenter"
LOCATION = {"available": {"type": "boolean"}, "recommended": {"type": "boolean"}}


def close(schema):
    if isinstance(schema, list):
        for item in schema:
            close(item)
    if not isinstance(schema, dict):
        return
    for value in schema.values():
        close(value)
    properties = schema.get("properties")
    if not isinstance(properties, dict) or not all(isinstance(value, dict) for value in properties.values()):
        return
    properties.pop(GONE, None)
    if GONE in schema.get("required", []):
        schema["required"].remove(GONE)
    # A place of a server type: the only one that tells when it goes and not where it is.
    if set(properties) == {"id", "name", "deprecation"}:
        properties.update(json.loads(json.dumps(LOCATION)))
        schema["required"] = [*schema.get("required", []), *LOCATION]
    schema.setdefault("additionalProperties", False)


def main(source, target):
    with open(source, encoding="utf-8") as file:
        spec = json.load(file)
    wanted = ("servers", "actions", "images", "firewalls", "volumes", "primary_ips", "floating_ips", "ssh_keys",
              "server_types", "locations", "pricing")
    # Paths as they are asked for, with the version.
    spec["paths"] = {f"/v1{path}": what for path, what in spec["paths"].items() if path.split("/")[1] in wanted}
    spec.pop("servers", None)
    for what in spec["paths"].values():
        what.pop("servers", None)
        for operation in (found for found in what.values() if "responses" in found):
            # The form that checkers know.
            answers = operation["responses"].items()
            operation["responses"] = {status.upper(): answer for status, answer in answers}
    close(spec["paths"])
    close(spec.get("components", {}))
    with open(target, "w", encoding="utf-8") as file:
        json.dump(spec, file)


main(*sys.argv[1:])
