//! Making a machine, or finding that it was made before.

use aws_sdk_ec2::types::Instance;

use crate::aws::actions::RUN_INSTANCES;
use crate::aws::machine::{self, state};
use crate::aws::order::Order;
use crate::aws::refusal::Refused;
use crate::aws::tags::{self, Tags};
use crate::aws::{Aws, USER_DATA_MAX};
use crate::{CloudError, CreateRequest, Created, ErrorKind, ProviderId, Result, user_data};

const DOING: &str = "create a machine";

impl Aws {
    /// Makes the machine. Whenever it is not certain that there is none, what carries its tag is adopted.
    pub(super) async fn place(&self, request: &CreateRequest) -> Result<Created> {
        let offering = request.offering.as_ref().ok_or_else(|| invalid("no type and place were chosen"))?;
        if offering.arch != request.arch {
            return Err(invalid("the type that was chosen has another processor than the one asked for"));
        }
        let user_data = user_data::render(request, USER_DATA_MAX)?;
        let tags = Tags::of(request);
        let image = self.image(request.arch, request.image.as_deref()).await?;
        let subnet = self.subnet_in(&offering.location).await?;
        let group = self.group(request.installation, request.role, tags.port, &subnet.vpc).await?;
        let order = Order {
            tags: &tags,
            attempt: request.attempt,
            instance_type: &offering.name,
            subnet: &subnet.id,
            group: Some(&group),
            image: &image,
            wanted: request.image.as_deref(),
            disk_gib: self.config.disk_gib,
            user_data: &user_data,
        };
        let sent = self.client.send(DOING, &RUN_INSTANCES, order.request(&self.client.ec2).send()).await;
        let refused = match sent {
            Ok(answer) => match answer.instances().first() {
                Some(instance) if instance.instance_id().is_some() => return self.placed(instance, &tags),
                _ => CloudError::new(ErrorKind::Protocol, DOING, "an answer without a machine").ambiguous(),
            },
            Err(refused) if refused.is("IdempotentInstanceTerminated") => return self.has_ended(&order).await,
            Err(Refused { error, .. }) => error,
        };
        match refused.kind {
            // A call before this one was sent with another enrolment token, or for somebody else.
            ErrorKind::Exists => self.adopt(&tags).await?.ok_or_else(|| {
                let message = "a call before this one may have made it, and nothing shows it yet";
                CloudError::new(ErrorKind::Conflict, DOING, message).ambiguous()
            }),
            // What is not certain is looked at; without an answer it stays uncertain.
            _ if refused.ambiguous => match self.adopt(&tags).await {
                Ok(Some(created)) => Ok(created),
                _ => Err(refused),
            },
            ErrorKind::NotFound | ErrorKind::Invalid => {
                // Something that we remember may have been removed.
                self.forget(request.arch).await;
                Err(named(refused, &order))
            }
            _ => Err(named(refused, &order)),
        }
    }

    /// It was accepted, which is all that can be said of most.
    fn placed(&self, instance: &Instance, tags: &Tags) -> Result<Created> {
        let id = instance.instance_id().unwrap_or_default();
        if state(instance) == "terminated" {
            return Err(ended(instance));
        }
        self.memory.placed(id, tags);
        Ok(Created { id: ProviderId(id.to_owned()), address: machine::address(instance, tags) })
    }

    /// The machine of our tag, if it is ours and has not ended.
    async fn adopt(&self, tags: &Tags) -> Result<Option<Created>> {
        let found = self.instances(DOING, vec![tags::filter(tags::MACHINE, tags.machine)]).await?;
        let living = |instance: &&Instance| !matches!(state(instance), "terminated" | "shutting-down");
        let Some(instance) = found.iter().find(living) else { return Ok(None) };
        if tags::installation(instance.tags()) != Some(tags.installation) {
            let message = "a machine of this id exists, and is not this installation's";
            return Err(CloudError::new(ErrorKind::Exists, DOING, message));
        }
        tracing::info!(machine.id = %tags.machine, "{} had been created before", tags.machine);
        self.placed(instance, tags).map(Some)
    }

    /// This very request made a machine that has ended by now: perhaps since there was no room for it after all.
    async fn has_ended(&self, order: &Order<'_>) -> Result<Created> {
        let found = self.instances(DOING, vec![tags::filter(tags::MACHINE, order.tags.machine)]).await?;
        let token = order.token();
        let error = found.iter().find(|instance| instance.client_token() == Some(&*token)).map(ended);
        Err(named(error.unwrap_or_else(|| invalid("it was created before, and has ended")), order))
    }
}

/// What it means that a machine ended by itself.
fn ended(instance: &Instance) -> CloudError {
    let code = instance.state_reason().and_then(|reason| reason.code()).unwrap_or("no reason given");
    let kind = match code {
        "Server.InsufficientInstanceCapacity" | "Server.InternalError" => ErrorKind::Capacity,
        "Client.VolumeLimitExceeded" => ErrorKind::Quota,
        _ => ErrorKind::Invalid,
    };
    CloudError::new(kind, DOING, format!("it was created, and has ended ({code})"))
}

/// The same refusal with the type and place that it is about.
fn named(error: CloudError, order: &Order<'_>) -> CloudError {
    let message = format!("{} in {}: {}", order.instance_type, order.subnet, error.message);
    CloudError { message, ..error }
}

fn invalid(message: &str) -> CloudError {
    CloudError::new(ErrorKind::Invalid, DOING, message)
}
