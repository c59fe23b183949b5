//! Making a droplet, or finding that it was made before. Names are not unique here and no call can be told from its
//! repetition, so whoever wants a machine looks first for its tag, and again whenever a call ends uncertainly.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::digitalocean::http::Progress;
use crate::digitalocean::tags::{Tags, machine_tag};
use crate::digitalocean::wire::{Action, Droplet};
use crate::digitalocean::{DigitalOcean, machine};
use crate::rest::parse;
use crate::{CloudError, ErrorKind, Result};

const DOING: &str = "create a machine";

/// A droplet to make.
pub(super) struct Order<'o> {
    pub(super) tags: &'o Tags,
    pub(super) size: &'o str,
    pub(super) region: &'o str,
    /// The name of a public image or the number of a snapshot.
    pub(super) image: Value,
    pub(super) user_data: String,
}

/// How far it is.
pub(super) struct Placed {
    pub(super) droplet: Droplet,
    /// As its tags say.
    pub(super) root: u64,
    /// Whether this call, and none before it, has made it.
    pub(super) new: bool,
}

impl DigitalOcean {
    /// Makes the droplet, or adopts the one that a call before has made.
    pub(super) async fn place(&self, order: &Order<'_>) -> Result<Placed> {
        let tags = order.tags;
        if let Some(placed) = self.adopt(tags).await? {
            return Ok(placed);
        }
        self.firewalls.ensure(&self.http, tags.installation, tags.port, &self.config.ingress_from).await?;
        let outcome = match self.http.post(DOING, "droplets", &self.body(order)).await {
            Ok(answer) => match parse::<Droplet>(DOING, answer["droplet"].clone()) {
                Ok(droplet) => return self.accepted(droplet, &answer, order).await,
                Err(error) => error.ambiguous(),
            },
            Err(error) => error,
        };
        if !outcome.ambiguous {
            return Err(named(outcome, order));
        }
        // What is not certain is looked at; without an answer it stays uncertain, and the next call looks first.
        match self.adopt(tags).await {
            Ok(Some(placed)) => Ok(placed),
            _ => Err(outcome),
        }
    }

    /// The oldest droplet that carries our tags, if any does. One that could not be placed is no machine and goes.
    async fn adopt(&self, tags: &Tags) -> Result<Option<Placed>> {
        let tag = machine_tag(tags.machine);
        let mut droplets: Vec<Droplet> = self.http.list(DOING, "droplets", &[("tag_name", &*tag)]).await?;
        droplets.retain(|droplet| droplet.tags.contains(&tag));
        droplets.sort_by_key(|droplet| droplet.id);
        for droplet in droplets {
            let Some(found) = Tags::read(&droplet.tags).filter(|found| found.installation == tags.installation) else {
                return Err(CloudError::new(
                    ErrorKind::Exists,
                    DOING,
                    "another installation has a machine with this id",
                ));
            };
            let root = found.root.unwrap_or(droplet.id);
            // Whoever wakes wants what woke, and not a twin that never slept.
            if tags.root.is_none_or(|wanted| wanted == root) {
                if self.is_misplaced(&droplet).await? {
                    machine::remove_droplet(&self.http.removing(), DOING, droplet.id).await?;
                    continue;
                }
                return Ok(Some(Placed { droplet, root, new: false }));
            }
        }
        Ok(None)
    }

    /// Whether its create was accepted and failed later.
    async fn is_misplaced(&self, droplet: &Droplet) -> Result<bool> {
        if droplet.status != "new" {
            return Ok(false);
        }
        let actions = self.actions(DOING, droplet.id).await;
        match actions {
            Ok(actions) => Ok(actions.iter().any(|action| action.kind == "create" && action.status == "errored")),
            // It went away meanwhile.
            Err(error) if error.kind == ErrorKind::NotFound => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Watches for a moment over a create that was accepted: placing can fail later, and then nothing may stay behind.
    async fn accepted(&self, mut droplet: Droplet, answer: &Value, order: &Order<'_>) -> Result<Placed> {
        let links = answer.pointer("/links/actions/0").cloned().unwrap_or_default();
        let action = parse::<Action>(DOING, links).ok().map(|action| action.id);
        let root = order.tags.root.unwrap_or(droplet.id);
        let limit = self.http.timing().placing;
        let progress = self.http.follow(DOING, action, limit).await.unwrap_or(Progress::Going);
        let full = || {
            let error = CloudError::new(ErrorKind::Capacity, DOING, "it was accepted, and then not placed");
            named(error, order)
        };
        if progress == Progress::Failed {
            return match machine::remove_droplet(&self.http.removing(), DOING, droplet.id).await {
                // It was certainly not placed. While it goes it may still be seen, and nobody takes it for a machine.
                Ok(_) => Err(full()),
                // What may be left of it is found again by its tags.
                Err(_) => Err(full().ambiguous()),
            };
        }
        // What is not seen at once may be too young to be seen.
        for pause in [Duration::ZERO, self.http.timing().poll] {
            sleep(pause).await;
            match machine::droplet(&self.http, DOING, droplet.id).await {
                Ok(Some(seen)) => {
                    droplet = seen;
                    break;
                }
                // Accepted, begun and gone: there was no room for it.
                Ok(None) if !pause.is_zero() => {
                    return match self.adopt(order.tags).await {
                        Ok(Some(placed)) => Ok(placed),
                        Ok(None) => Err(full()),
                        Err(_) => Err(full().ambiguous()),
                    };
                }
                // Not knowing how far it is does no harm: its id is known.
                _ => {}
            }
        }
        Ok(Placed { droplet, root, new: true })
    }

    fn body(&self, order: &Order<'_>) -> Value {
        json!({
            "name": order.tags.machine.label(),
            "region": order.region,
            "size": order.size,
            "image": order.image,
            "tags": order.tags.all(),
            "user_data": order.user_data,
            "ssh_keys": self.config.ssh_keys.iter().map(|key| reference(key)).collect::<Vec<_>>(),
            "ipv6": false,
            "monitoring": false,
            "backups": false,
            // Nobody but our agent has anything to do in there.
            "with_droplet_agent": false,
        })
    }
}

/// A number is sent as one: as a text it would be a name.
pub(super) fn reference(text: &str) -> Value {
    text.parse::<u64>().map_or_else(|_| text.into(), Value::from)
}

/// The same refusal with the size and region that it is about.
fn named(error: CloudError, order: &Order<'_>) -> CloudError {
    let message = format!("{} in {}: {}", order.size, order.region, error.message);
    CloudError { message, ..error }
}
