"""Drives the double with the provider's own client for Python: what that client cannot use is wrong in the double.

usage: independent.py URL TOKEN READ_ONLY_TOKEN
"""

import sys

from hcloud import APIException, Client
from hcloud.firewalls import Firewall, FirewallRule
from hcloud.images import Image
from hcloud.locations import Location
from hcloud.server_types import ServerType

MANY = 60


def refused(code, call):
    try:
        call()
    except APIException as error:
        assert error.code == code, f"{error.code} and not {code}: {error.message}"
    else:
        raise AssertionError(f"not refused, and should be with {code}")


def main(url, token, read_only):
    client = Client(token=token, api_endpoint=f"{url}/v1", poll_interval=0.01, poll_max_retries=50, timeout=10)

    # What is sold.
    small = client.server_types.get_by_name("cx23")
    assert (small.cores, small.memory, small.architecture) == (2, 4, "x86"), small
    assert {place.location.name for place in small.locations} == {"fsn1", "nbg1", "hel1"}
    assert all(place.available for place in small.locations)
    retired = client.server_types.get_by_name("cx22").locations[0].deprecation
    assert retired.unavailable_after is not None
    assert len(client.locations.get_all()) == 3
    debian = client.images.get_by_name_and_architecture("debian-13", "x86")
    assert debian.status == "available" and debian.type == "system"

    # A server, from the request to its running, behind a firewall.
    rule = FirewallRule(direction="in", protocol="tcp", port="7443", source_ips=["198.51.100.7/32"])
    firewall = client.firewalls.create(name="edge", rules=[rule], labels={"whose": "ours"}).firewall
    assert client.firewalls.get_by_name("edge").rules[0].port == "7443"

    def create(name, **more):
        return client.servers.create(
            name=name, server_type=ServerType(name="cx23"), location=Location(name="fsn1"), **{"image": debian, **more}
        )

    made = create("first", labels={"whose": "ours", "n": "0"}, firewalls=[firewall], user_data="#cloud-config\n{}\n")
    assert made.server.status == "initializing" and made.root_password is None
    refused("locked", made.server.delete)
    made.action.wait_until_finished()
    for action in made.next_actions:
        action.wait_until_finished()
    server = client.servers.get_by_id(made.server.id)
    assert server.status == "running", server.status
    assert server.public_net.ipv4.ip.startswith("203.0.")
    assert server.public_net.firewalls[0].firewall.id == firewall.id
    assert server.image.name == "debian-13" and server.server_type.name == "cx23" and server.location.name == "fsn1"
    refused("resource_in_use", firewall.delete)
    assert all(address.auto_delete for address in client.primary_ips.get_all())

    # Refusals.
    refused("uniqueness_error", lambda: create("first"))
    refused("invalid_input", lambda: create("No Hostname"))
    refused("invalid_input", lambda: create("labels", labels={"a": "not/legal"}))
    refused("invalid_input", lambda: create("long", user_data="x" * 33000))
    refused("not_found", lambda: client.servers.get_by_id(1))
    refused("unauthorized", lambda: Client(token="invented", api_endpoint=f"{url}/v1").servers.get_all())
    reader = Client(token=read_only, api_endpoint=f"{url}/v1")
    assert len(reader.servers.get_all()) == 1
    refused("token_readonly", lambda: reader.servers.delete(server))

    # Pages and labels.
    for number in range(1, MANY):
        create(f"server-{number}", labels={"whose": "ours" if number % 2 else "theirs"}).action.wait_until_finished()
    assert len(client.servers.get_all()) == MANY
    page = client.servers.get_list(page=2, per_page=50)
    assert len(page.servers) == MANY - 50 and page.meta.pagination.total_entries == MANY
    assert page.meta.pagination.next_page is None and page.meta.pagination.previous_page == 1
    assert len(client.servers.get_all(label_selector="whose=ours")) == MANY // 2 + 1
    assert len(client.servers.get_all(label_selector="whose==ours,n")) == 1
    assert client.servers.get_by_name("server-7").labels == {"whose": "ours"}
    refused("invalid_input", lambda: client.servers.get_list(per_page=51))

    # Sleep: off, snapshot, delete; and back.
    server.shutdown().wait_until_finished()
    assert client.servers.get_by_id(server.id).status == "off"
    taken = server.create_image(description="sleep", type="snapshot", labels={"whose": "ours"})
    assert taken.image.status == "creating" and taken.image.created_from.id == server.id
    taken.action.wait_until_finished()
    [snapshot] = client.images.get_all(type="snapshot", label_selector="whose=ours")
    assert snapshot.id == taken.image.id and snapshot.status == "available" and snapshot.name is None
    server.delete().wait_until_finished()
    refused("not_found", lambda: client.servers.get_by_id(server.id))
    woken = create("first", image=Image(id=snapshot.id))
    woken.action.wait_until_finished()
    for action in woken.next_actions:
        action.wait_until_finished()
    assert client.servers.get_by_id(woken.server.id).image.id == snapshot.id
    woken.server.power_off().wait_until_finished()
    woken.server.power_on().wait_until_finished()
    assert client.servers.get_by_id(woken.server.id).status == "running"
    snapshot.delete()
    assert client.images.get_all(type="snapshot") == []

    # The end.
    for server in client.servers.get_all():
        server.delete().wait_until_finished()
    assert client.servers.get_all() == [] and client.primary_ips.get_all() == []
    firewall.set_rules([])
    firewall.delete()
    assert client.firewalls.get_all() == []
    print("the double satisfies the client")


main(*sys.argv[1:])
