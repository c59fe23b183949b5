#!/usr/bin/env python3
"""Writes github-openapi.json: the operations that we use, cut out of GitHub's own document.

    npm pack @octokit/openapi && tar xzf octokit-openapi-*.tgz
    python3 trim-openapi.py package > github-openapi.json

What is left is JSON Schema (OpenAPI 3.0's `nullable` becomes a type) with the schemas that it refers to, and one
example of each answer, from which the git host makes its own.
"""

import json
import sys

OPERATIONS = [
    ("get", "/app/hook/deliveries"),
    ("post", "/app/hook/deliveries/{delivery_id}/attempts"),
    ("post", "/app/installations/{installation_id}/access_tokens"),
    ("get", "/repos/{owner}/{repo}"),
    ("post", "/repos/{owner}/{repo}/check-runs"),
    ("patch", "/repos/{owner}/{repo}/check-runs/{check_run_id}"),
    ("get", "/repos/{owner}/{repo}/commits/{ref}/check-runs"),
    ("get", "/repos/{owner}/{repo}/contents/{path}"),
    ("get", "/repos/{owner}/{repo}/deployments"),
    ("post", "/repos/{owner}/{repo}/deployments"),
    ("post", "/repos/{owner}/{repo}/deployments/{deployment_id}/statuses"),
    ("get", "/repos/{owner}/{repo}/git/commits/{commit_sha}"),
    ("get", "/repos/{owner}/{repo}/git/trees/{tree_sha}"),
    ("get", "/repos/{owner}/{repo}/installation"),
    ("patch", "/repos/{owner}/{repo}/issues/comments/{comment_id}"),
    ("get", "/repos/{owner}/{repo}/issues/{issue_number}/comments"),
    ("post", "/repos/{owner}/{repo}/issues/{issue_number}/comments"),
    ("get", "/repos/{owner}/{repo}/pulls"),
    ("get", "/repos/{owner}/{repo}/pulls/{pull_number}"),
    ("get", "/repos/{owner}/{repo}/pulls/{pull_number}/files"),
]

# Where the registry of schemas is said to be; nothing is ever fetched from there.
BASE = "urn:github-openapi"
TEXTS = ("deprecated", "description", "example", "examples", "externalDocs", "title", "x-github")
ERROR = {"anyOf": [{"$ref": "#/components/schemas/basic-error"}, {"$ref": "#/components/schemas/validation-error"}]}


class Trimmer:
    def __init__(self, document):
        self.document = document
        self.schemas = {}

    def target(self, node):
        while "$ref" in node:
            found = self.document
            for part in node["$ref"].removeprefix("#/").split("/"):
                found = found[part]
            node = found
        return node

    def schema(self, node):
        """A schema without prose, as JSON Schema 2020-12, with what it refers to taken along."""
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            name = node["$ref"].removeprefix("#/components/schemas/")
            if name not in self.schemas:
                self.schemas[name] = None  # Schemas refer to themselves.
                self.schemas[name] = self.schema(self.document["components"]["schemas"][name])
            return {"$ref": f"{BASE}#/{name}"}
        out = {}
        for key, value in node.items():
            if key in TEXTS or key == "nullable":
                continue
            if key == "properties":
                # These keys are names of properties, whatever they look like.
                out[key] = {name: self.schema(value[name]) for name in value}
            elif key in ("items", "additionalProperties", "not"):
                out[key] = self.schema(value)
            elif key in ("allOf", "anyOf", "oneOf"):
                out[key] = [self.schema(item) for item in value]
            else:
                out[key] = value
        if not node.get("nullable"):
            return out
        if isinstance(out.get("type"), str) and "enum" not in out:
            return {**out, "type": [out["type"], "null"]}
        return {"anyOf": [out, {"type": "null"}]}

    def operation(self, method, path):
        operation = self.document["paths"][path][method]
        parameters = [self.target(parameter) for parameter in operation.get("parameters", [])]
        body = operation.get("requestBody")
        answers = {}
        for status, answer in operation["responses"].items():
            content = self.target(answer).get("content", {}).get("application/json")
            if not status.startswith("2") or content is None:
                continue
            example = next(iter(content.get("examples", {}).values()), None)
            example = self.target(example)["value"] if example else content.get("example")
            for pull in example if isinstance(example, list) else [example or {}]:
                if "requested_teams" in pull:
                    # The example lacks a field that the schema requires (version 23.0.2).
                    pull["requested_teams"] = []
            if path == "/repos/{owner}/{repo}":
                # The same here.
                for repository in (example, example["source"]):
                    repository.setdefault("language", None)
            answers[status] = {"schema": self.schema(content["schema"]), "example": example}
        return {
            "method": method.upper(),
            "path": path,
            "parameters": [
                {"name": p["name"], "in": p["in"], "required": p.get("required", False), "schema": self.schema(p["schema"])}
                for p in parameters
            ],
            "body": self.schema(self.target(body)["content"]["application/json"]["schema"]) if body else None,
            "answers": answers,
        }


def main():
    root = sys.argv[1]
    with open(f"{root}/package.json", encoding="utf-8") as file:
        version = json.load(file)["version"]
    with open(f"{root}/generated/api.github.com.json", encoding="utf-8") as file:
        trimmer = Trimmer(json.load(file))
    operations = [trimmer.operation(method, path) for method, path in OPERATIONS]
    error = trimmer.schema(ERROR)
    out = {
        "source": f"@octokit/openapi {version}",
        "schemas": dict(sorted(trimmer.schemas.items())),
        "error": error,
        "operations": operations,
    }
    json.dump(out, sys.stdout, separators=(",", ":"))
    print()


main()
