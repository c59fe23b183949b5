//! Making a server, or finding that it was made before.

use hcloud::models::{CreateServerRequest, CreateServerRequestFirewalls, CreateServerRequestPublicNet};
use serde_json::Value;
use stagely_domain::id::MachineId;

use crate::hetzner::http::Progress;
use crate::hetzner::labels::Tags;
use crate::hetzner::wire::Server;
use crate::hetzner::{Hetzner, machine};
use crate::rest::parse;
use crate::{CloudError, ErrorKind, Result};

const DOING: &str = "create a machine";

/// A server to make.
pub(super) struct Order<'o> {
    pub(super) tags: &'o Tags,
    pub(super) server_type: &'o str,
    pub(super) location: &'o str,
    /// Name or id.
    pub(super) image: String,
    pub(super) user_data: String,
}

/// How far it is.
pub(super) struct Placed {
    pub(super) server: Server,
    /// Whether this call, and none before it, has made it.
    pub(super) new: bool,
}

impl Hetzner {
    /// Makes the server, or adopts the one that a call before has made, which is looked for whenever it is not certain
    /// that there is none.
    pub(super) async fn place(&self, order: &Order<'_>) -> Result<Placed> {
        let tags = order.tags;
        let firewall =
            self.firewalls.ensure(&self.http, tags.installation, tags.port, &self.config.ingress_from).await?;
        let refused = match self.http.post(DOING, "servers", &body(order, firewall)).await {
            Ok(answer) => match parse::<Server>(DOING, answer["server"].clone()) {
                Ok(server) => return self.accepted(server, &answer, tags.machine).await,
                Err(error) => error.ambiguous(),
            },
            Err(error) => error,
        };
        match refused.kind {
            ErrorKind::Exists => self.adopt(tags).await?.ok_or(refused),
            // The firewall that we remember may have been removed.
            ErrorKind::NotFound | ErrorKind::Invalid => {
                self.firewalls.forget(tags.installation).await;
                Err(named(refused, order))
            }
            // What is not certain is looked at; without an answer it stays uncertain.
            _ if refused.ambiguous => match self.adopt(tags).await {
                Ok(Some(placed)) => Ok(placed),
                _ => Err(refused),
            },
            _ => Err(named(refused, order)),
        }
    }

    /// The server of our name, if it is ours.
    async fn adopt(&self, tags: &Tags) -> Result<Option<Placed>> {
        let name = tags.machine.label();
        let servers: Vec<Server> = self.http.list(DOING, "servers", &[("name", &*name)]).await?;
        let ours = servers.into_iter().find(|server| {
            Tags::read(&server.labels)
                .is_some_and(|found| (found.machine, found.installation) == (tags.machine, tags.installation))
        });
        Ok(ours.map(|server| Placed { server, new: false }))
    }

    /// Follows a create that was accepted, and the start after it, before which the server is off: either can fail
    /// later, and then nothing may stay behind.
    async fn accepted(&self, server: Server, answer: &Value, id: MachineId) -> Result<Placed> {
        match self.http.follow_to(DOING, answer, "start_server").await {
            Ok(Progress::Failed(error)) => match machine::remove_server_of(&self.http.removing(), id).await {
                Ok(true) => Err(error),
                // What may be left of it is found again by its labels.
                _ => Err(error.ambiguous()),
            },
            // Not knowing how far it is does no harm: it exists, and its id is known.
            _ => Ok(Placed { server, new: true }),
        }
    }
}

/// The same refusal with the type and place that it is about.
fn named(error: CloudError, order: &Order<'_>) -> CloudError {
    let message = format!("{} in {}: {}", order.server_type, order.location, error.message);
    CloudError { message, ..error }
}

fn body(order: &Order<'_>, firewall: u64) -> CreateServerRequest {
    let firewall = i64::try_from(firewall).unwrap_or_default();
    CreateServerRequest {
        labels: Some(order.tags.labels()),
        location: Some(order.location.to_owned()),
        firewalls: Some(vec![CreateServerRequestFirewalls { firewall }]),
        // New addresses are made with the server and go with it.
        public_net: Some(Box::new(CreateServerRequestPublicNet {
            enable_ipv4: Some(true),
            enable_ipv6: Some(true),
            ..CreateServerRequestPublicNet::new()
        })),
        start_after_create: Some(true),
        user_data: Some(order.user_data.clone()),
        ..CreateServerRequest::new(order.image.clone(), order.tags.machine.label(), order.server_type.to_owned())
    }
}
