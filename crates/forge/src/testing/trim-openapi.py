#!/usr/bin/env python3
"""Writes github-openapi.json: the requests that we make, cut out of GitHub's own document.

    npm pack @octokit/openapi && tar xzf octokit-openapi-*.tgz
    python3 trim-openapi.py package > github-openapi.json
"""

import json
import sys

OPERATIONS = [
    ("get", "/repos/{owner}/{repo}/pulls"),
    ("get", "/repos/{owner}/{repo}/pulls/{pull_number}"),
    ("get", "/repos/{owner}/{repo}/pulls/{pull_number}/files"),
    ("get", "/repos/{owner}/{repo}/contents/{path}"),
    ("get", "/repos/{owner}/{repo}/issues/{issue_number}/comments"),
    ("post", "/repos/{owner}/{repo}/issues/{issue_number}/comments"),
    ("patch", "/repos/{owner}/{repo}/issues/comments/{comment_id}"),
    ("get", "/repos/{owner}/{repo}/commits/{ref}/check-runs"),
    ("post", "/repos/{owner}/{repo}/check-runs"),
    ("patch", "/repos/{owner}/{repo}/check-runs/{check_run_id}"),
    ("get", "/repos/{owner}/{repo}/deployments"),
    ("post", "/repos/{owner}/{repo}/deployments"),
    ("post", "/repos/{owner}/{repo}/deployments/{deployment_id}/statuses"),
    ("get", "/repos/{owner}/{repo}/installation"),
    ("post", "/app/installations/{installation_id}/access_tokens"),
]


def main():
    root = sys.argv[1]
    with open(f"{root}/package.json", encoding="utf-8") as file:
        version = json.load(file)["version"]
    with open(f"{root}/generated/api.github.com.json", encoding="utf-8") as file:
        document = json.load(file)

    def resolve(node, depth=0):
        if isinstance(node, list):
            return [resolve(item, depth) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            target = document
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]
            return resolve(target, depth + 1)
        skip = ("example", "examples", "description", "title", "deprecated", "externalDocs")
        # "description" and "title" are also names of properties; those hold schemas, not texts.
        out = {k: resolve(v, depth) for k, v in node.items() if k not in skip or isinstance(v, dict) and depth >= 0 and "type" in v}
        if out.pop("nullable", False) and isinstance(out.get("type"), str):
            out["type"] = [out["type"], "null"]
        return out

    operations = []
    for method, path in OPERATIONS:
        operation = document["paths"][path][method]
        parameters = [resolve(p) for p in operation.get("parameters", [])]
        body = operation.get("requestBody")
        schema = resolve(body)["content"]["application/json"]["schema"] if body else None
        operations.append({
            "method": method.upper(),
            "path": path,
            "parameters": [{k: p[k] for k in ("name", "in", "required", "schema") if k in p} for p in parameters],
            "body": schema,
        })
    json.dump({"source": f"@octokit/openapi {version}", "operations": operations}, sys.stdout, separators=(",", ":"))
    print()


main()
