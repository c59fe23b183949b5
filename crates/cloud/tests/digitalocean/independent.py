"""Drives the double with the provider's own client for Python: what that client cannot use is wrong in the double.

usage: independent.py URL TOKEN READ_ONLY_TOKEN
"""

import sys
import time

from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.policies import HeadersPolicy
from pydo import Client

MANY = 205


def connect(url, token):
    """The client's own policy sends tokens over TLS only, and the double is on loopback without."""
    bearer = HeadersPolicy({"Authorization": f"Bearer {token}"})
    return Client(token=token, endpoint=url, authentication_policy=bearer)


def refused(status, call, *, kind=None):
    """The client raises for some statuses, and answers with the body of others."""
    try:
        answer = call()
    except HttpResponseError as error:
        assert error.status_code == status, f"{error.status_code} and not {status}: {error}"
        return None
    assert isinstance(answer, dict) and "id" in answer and "message" in answer, f"not refused: {answer}"
    assert kind is None or answer["id"] == kind, answer
    return answer["message"]


def accepted(answer):
    """The client gives the body of a refusal with some statuses as if it were an answer."""
    assert answer is None, answer


def finished(client, action):
    for _ in range(50):
        found = client.actions.get(action["id"])["action"]
        if found["status"] != "in-progress":
            return found
        time.sleep(0.01)
    raise AssertionError(f"{action} does not end")


def every(listing, key, **query):
    """All pages, one after the other, as far as the client is told that there are more."""
    items, page = [], 1
    while True:
        answer = listing(page=page, per_page=200, **query)
        items += answer[key]
        assert answer["meta"]["total"] >= len(items)
        if "next" not in (answer["links"].get("pages") or {}):
            assert answer["meta"]["total"] == len(items), (answer["meta"], len(items))
            return items
        assert f"page={page + 1}" in answer["links"]["pages"]["next"], answer["links"]
        page += 1


def main(url, token, read_only):
    client = connect(url, token)

    # What is sold, and to whom.
    account = client.account.get()["account"]
    assert account["status"] == "active" and account["droplet_limit"] > 0
    sizes = {size["slug"]: size for size in every(client.sizes.list, "sizes")}
    assert (sizes["s-1vcpu-2gb"]["vcpus"], sizes["s-1vcpu-2gb"]["memory"]) == (1, 2048)
    assert sizes["s-1vcpu-2gb"]["price_hourly"] > 0 and "fra1" in sizes["s-1vcpu-2gb"]["regions"]
    assert {region["slug"]: region["available"] for region in every(client.regions.list, "regions")}["tor1"] is False

    # A droplet, from the request to its running.
    def order(name, **more):
        return {"name": name, "region": "fra1", "size": "s-1vcpu-2gb", "image": "debian-13-x64", **more}

    made = client.droplets.create(body=order("first", tags=["whose:ours", "n:0"], user_data="#cloud-config\n{}\n",
                                             with_droplet_agent=False, ssh_keys=[]))
    droplet, begun = made["droplet"], made["links"]["actions"][0]
    assert droplet["status"] == "new" and droplet["locked"] and begun["rel"] == "create"
    message = refused(422, lambda: client.droplets.destroy(droplet["id"]), kind="unprocessable_entity")
    assert message is None or "pending event" in message, message
    assert finished(client, begun)["status"] == "completed"
    droplet = client.droplets.get(droplet["id"])["droplet"]
    assert droplet["status"] == "active" and not droplet["locked"] and set(droplet["tags"]) == {"whose:ours", "n:0"}
    [address] = [found["ip_address"] for found in droplet["networks"]["v4"] if found["type"] == "public"]
    assert address.startswith("203.0.") and droplet["region"]["slug"] == "fra1"

    # Refusals.
    refused(422, lambda: client.droplets.create(body=order("No Hostname")))
    refused(422, lambda: client.droplets.create(body=order("tags", tags=["not/legal"])))
    refused(422, lambda: client.droplets.create(body=order("long", user_data="x" * 70_000)))
    refused(422, lambda: client.droplets.create(body={**order("size"), "size": "s-99vcpu"}))
    refused(404, lambda: client.droplets.get(1), kind="not_found")
    refused(401, lambda: connect(url, "invented").droplets.list())
    reader = connect(url, read_only)
    assert len(reader.droplets.list()["droplets"]) == 1
    refused(403, lambda: reader.droplets.destroy(droplet["id"]))

    # Names are not unique; pages and tags.
    for number in range(1, MANY):
        client.droplets.create(body=order("same", tags=["whose:ours" if number % 2 else "whose:theirs"]))
    assert len(every(client.droplets.list, "droplets")) == MANY
    assert len(every(client.droplets.list, "droplets", tag_name="whose:ours")) == MANY // 2 + 1
    assert len(every(client.droplets.list, "droplets", tag_name="nobody:knows")) == 0
    assert len(every(client.droplets.list, "droplets", name="same")) == MANY - 1
    refused(422, lambda: client.droplets.list(per_page=201))

    # A firewall for a tag.
    everywhere = {"addresses": ["0.0.0.0/0", "::/0"]}
    rules = {
        "inbound_rules": [{"protocol": "tcp", "ports": "7443", "sources": {"addresses": ["198.51.100.7/32"]}}],
        "outbound_rules": [{"protocol": "tcp", "ports": "all", "destinations": everywhere}],
    }
    refused(422, lambda: client.firewalls.create(body={"name": "edge", "tags": ["not:there"], **rules}))
    firewall = client.firewalls.create(body={"name": "edge", "tags": ["whose:ours"], **rules})["firewall"]
    assert firewall["inbound_rules"][0]["ports"] == "7443" and firewall["outbound_rules"][0]["ports"] == "0"
    refused(409, lambda: client.firewalls.create(body={"name": "edge", **rules}))
    client.firewalls.update(firewall["id"], body={"name": "edge", "tags": ["whose:ours"],
                                                  "outbound_rules": rules["outbound_rules"]})
    [found] = client.firewalls.list()["firewalls"]
    assert found["id"] == firewall["id"] and found["inbound_rules"] == []

    # Sleep: off, snapshot with a name, tags by the tags' own calls, delete; and back.
    def act(droplet_id, **body):
        return client.droplet_actions.post(droplet_id, body=body)["action"]

    begun = act(droplet["id"], type="shutdown")
    assert client.droplets.get(droplet["id"])["droplet"]["locked"]
    assert finished(client, begun)["status"] == "completed"
    assert client.droplets.get(droplet["id"])["droplet"]["status"] == "off"
    assert finished(client, act(droplet["id"], type="snapshot", name="sleep-of-first"))["type"] == "snapshot"
    actions = client.droplet_actions.list(droplet["id"])["actions"]
    assert [found["type"] for found in actions] == ["snapshot", "shutdown", "create"], actions
    [snapshot] = every(client.snapshots.list, "snapshots", resource_type="droplet")
    assert snapshot["name"] == "sleep-of-first" and snapshot["resource_id"] == str(droplet["id"])
    assert snapshot["tags"] == [], "a snapshot does not inherit the tags of its droplet"
    [image] = every(client.images.list, "images", private=True)
    assert str(image["id"]) == snapshot["id"] and image["status"] == "available" and image["regions"] == ["fra1"]
    resources = {"resources": [{"resource_id": snapshot["id"], "resource_type": "image"}]}
    refused(404, lambda: client.tags.assign_resources("of:snapshots", body=resources), kind="not_found")
    assert client.tags.create(body={"name": "of:snapshots"})["tag"]["name"] == "of:snapshots"
    accepted(client.tags.assign_resources("of:snapshots", body=resources))
    assert client.images.get(image["id"])["image"]["tags"] == ["of:snapshots"]
    assert len(every(client.images.list, "images", tag_name="of:snapshots")) == 1
    accepted(client.droplets.destroy(droplet["id"]))
    for _ in range(20):
        if len(every(client.droplets.list, "droplets", name="first")) == 0:
            break
    refused(404, lambda: client.droplets.get(droplet["id"]), kind="not_found")
    refused(422, lambda: client.droplets.create(body={**order("first", image=image["id"]), "region": "ams3"}))
    woken = client.droplets.create(body=order("first", image=image["id"]))
    assert finished(client, woken["links"]["actions"][0])["status"] == "completed"
    assert client.droplets.get(woken["droplet"]["id"])["droplet"]["image"]["id"] == image["id"]
    assert finished(client, act(woken["droplet"]["id"], type="power_off"))["status"] == "completed"
    assert finished(client, act(woken["droplet"]["id"], type="power_on"))["status"] == "completed"
    accepted(client.snapshots.delete(snapshot["id"]))
    assert every(client.images.list, "images", private=True) == []

    # The end.
    for droplet in every(client.droplets.list, "droplets"):
        accepted(client.droplets.destroy(droplet["id"]))
    for _ in range(20):
        if client.droplets.list()["meta"]["total"] == 0:
            break
    assert every(client.droplets.list, "droplets") == []
    accepted(client.firewalls.delete(firewall["id"]))
    assert client.firewalls.list()["firewalls"] == []
    print("the double satisfies the client")


main(*sys.argv[1:])
