"""Cuts the provider's OpenAPI document to what we ask for, and closes it, so that a field that it does not know is an error.

An object that is put together of several (`allOf`) can only be closed as a whole: its parts are merged first.

usage: spec.py FROM TO
"""

import json
import sys

WANTED = [
    "/v2/account", "/v2/account/keys", "/v2/account/keys/{ssh_key_identifier}", "/v2/actions", "/v2/actions/{action_id}",
    "/v2/droplets", "/v2/droplets/{droplet_id}", "/v2/droplets/{droplet_id}/actions", "/v2/firewalls",
    "/v2/firewalls/{firewall_id}", "/v2/images", "/v2/images/{image_id}", "/v2/regions", "/v2/reserved_ips",
    "/v2/reserved_ips/{reserved_ip}", "/v2/sizes", "/v2/snapshots", "/v2/snapshots/{snapshot_id}", "/v2/tags",
    "/v2/tags/{tag_id}", "/v2/tags/{tag_id}/resources", "/v2/volumes", "/v2/volumes/{volume_id}",
]
# Not for checking.
TALK = {"description", "example", "examples", "x-codeSamples", "summary", "externalDocs", "links"}


def resolve(spec, value, inside=()):
    """The value with everything that it refers to in its place."""
    if isinstance(value, list):
        return [resolve(spec, item, inside) for item in value]
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("$ref"), str):
        name = value["$ref"]
        if name in inside:
            return {}
        found = spec
        for word in name.removeprefix("#/").split("/"):
            found = found[word.replace("~1", "/").replace("~0", "~")]
        return resolve(spec, found, (*inside, name))
    # A property may be named like a part of the talk.
    kept = {key: item for key, item in value.items() if key not in TALK or is_schema(item)}
    return merged({key: resolve(spec, item, inside) for key, item in kept.items()})


def is_schema(value):
    return isinstance(value, dict) and ("type" in value or "$ref" in value or "allOf" in value)


def merged(schema):
    """The schema with the parts of its `allOf` put together, where they are plain objects."""
    parts = schema.get("allOf")
    if not isinstance(parts, list):
        return schema
    whole, rest = {key: item for key, item in schema.items() if key != "allOf"}, []
    for part in parts:
        if set(part) - {"type", "properties", "required", "title", "nullable", "readOnly", "deprecated", "items",
                        "default", "format", "enum", "pattern", "maxLength", "minimum", "multipleOf"}:
            rest.append(part)
            continue
        for key, item in part.items():
            if key == "properties":
                whole["properties"] = {**whole.get("properties", {}), **item}
            elif key == "required":
                whole["required"] = [*whole.get("required", []), *item]
            else:
                whole[key] = item
    if rest:
        whole["allOf"] = rest
    return whole


def close(schema):
    """Closes every object that says all of itself in one place."""
    if isinstance(schema, list):
        for item in schema:
            close(item)
    if not isinstance(schema, dict):
        return
    for value in schema.values():
        close(value)
    properties = schema.get("properties")
    said_elsewhere = {"allOf", "anyOf", "oneOf"} & set(schema)
    if isinstance(properties, dict) and all(isinstance(item, dict) for item in properties.values()) and not said_elsewhere:
        schema.setdefault("additionalProperties", False)


def main(source, target):
    with open(source, encoding="utf-8") as file:
        spec = json.load(file)
    spec["paths"] = {path: resolve(spec, spec["paths"][path]) for path in WANTED}
    closed = {"components": {"securitySchemes": spec["components"]["securitySchemes"]}}
    for key in ("openapi", "info", "security", "paths"):
        closed[key] = spec[key]
    for what in closed["paths"].values():
        what.pop("servers", None)
        for operation in what.values():
            if isinstance(operation, dict):
                operation.pop("servers", None)
    close(closed["paths"])
    with open(target, "w", encoding="utf-8") as file:
        json.dump(closed, file)


main(*sys.argv[1:])
