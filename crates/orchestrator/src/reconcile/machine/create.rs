//! Creating one: what it is created as is written down before the call, so that whoever comes after a crash asks for the
//! same.

use std::time::Duration;

use chrono::TimeDelta;
use stagely_cloud::catalogue::is_in;
use stagely_cloud::{AgentConfig, AgentDownload, Bake, CloudError, CreateRequest, Residue};
use stagely_domain::failure::Code;
use stagely_domain::machine::{Role, State};
use stagely_domain::offering::Offering;
use stagely_domain::secret::Secret;
use stagely_proto::hub::PrepareEnrolmentResponse;
use stagely_reconcile::{Step, StepError};
use stagely_store::Outcome;
use stagely_store::machines::BootImage;
use stagely_store::work::kind;

use super::Work;
use crate::clouds::Choice;
use crate::context::{cloud_error, store_error};
use crate::failures::failure;
use crate::reconcile::refusal::{self, Consequence};

/// Until when a create call may still take effect after it was made.
const CREATE_LIMIT: TimeDelta = TimeDelta::seconds(180);
pub(in crate::reconcile) const INGRESS_PORT: u16 = 7443;

impl Work<'_> {
    pub(super) async fn create(&self) -> Result<Step, StepError> {
        let (doing, id) = ("create a machine", self.machine.id);
        let agent = match self.agent().await? {
            Ok(agent) => agent,
            Err(lacks) => return self.give_up(failure(Code::MachineFailed, "boot", lacks)).await,
        };
        let offering = match self.account.choose(self.machine).await {
            Ok(Choice::Any) => None,
            Ok(Choice::Offering(offering)) => Some(offering),
            Ok(Choice::Nothing) => return self.give_up(refusal::no_room(self.machine)).await,
            Ok(Choice::Nowhere { wish, places }) => return self.give_up(refusal::nowhere(&wish, &places)).await,
            Err(error) => return self.refused(error, None, None).await,
        };
        let image = self.image(offering.as_ref()).await?;
        // No agent enrols from a machine that an image is made of, so that nobody may.
        let prepared = match self.machine.role {
            Role::Bake => PrepareEnrolmentResponse::default(),
            Role::Preview | Role::Builder => self.context.prepare_enrolment(id, doing).await?,
        };
        let (chosen, boots) = (offering.as_ref(), image.as_ref());
        // By credentials that were replaced it might be made where nobody looks for it.
        let (account, generation) = (self.machine.account, self.account.generation);
        let intent = self
            .write(doing, async |tx| match tx.hold_account(account, generation).await? {
                Outcome::Stale => Ok(Outcome::Stale),
                Outcome::Written => tx.machine_creating(id, CREATE_LIMIT, chosen, boots).await,
            })
            .await?;
        if intent == Outcome::Stale {
            return Ok(Step::Again(Duration::ZERO));
        }
        let create = self.request(chosen, boots, prepared, agent);
        match self.account.create(&create).await {
            Ok(created) => {
                let (provider_id, address) = (created.id.0, created.address);
                self.write_and_tell("record a placed machine", async |tx| {
                    tx.machine_placed(id, &provider_id, address.as_deref()).await.map(drop)
                })
                .await?;
                tracing::info!(machine.id = %id, "{id} is placed");
                Ok(Step::Again(Duration::ZERO))
            }
            Err(error) => self.refused(error, chosen, boots).await,
        }
    }

    /// The agent's program, or why there can be no such machine.
    async fn agent(&self) -> Result<Result<AgentDownload, String>, StepError> {
        let arch = self.machine.arch;
        if !self.cloud.capabilities().arches.contains(&arch) {
            return Ok(Err(format!("this cloud account has no {arch} machines")));
        }
        self.context.agent(arch).await
    }

    /// The provider did not make it, or did not say what it can make.
    async fn refused(
        &self,
        error: CloudError,
        chosen: Option<&Offering>,
        boots: Option<&BootImage>,
    ) -> Result<Step, StepError> {
        let (doing, id) = ("create a machine", self.machine.id);
        if let Some(image) = boots.filter(|_| refusal::may_be_the_images(&error)) {
            return self.boot_without(image, &error).await;
        }
        match (refusal::of(&error, chosen.is_some()), chosen) {
            (Consequence::Elsewhere, Some(offering)) => {
                tracing::info!(machine.id = %id, %error, "no room for {id} as {offering}");
                let _ = self.write(doing, async |tx| tx.machine_refused(id, offering).await).await?;
                Ok(Step::Again(Duration::ZERO))
            }
            (Consequence::Later, _) => Err(cloud_error(doing)(error)),
            // Counted in the row, which lives through crashes, and which no other failure touches.
            (Consequence::Again, _) if self.machine.refusals + 1 < refusal::TRIES => {
                let _ = self.write(doing, async |tx| tx.machine_not_made(id).await).await?;
                Err(cloud_error(doing)(error))
            }
            _ => self.give_up(refusal::told(&error)).await,
        }
    }

    /// The image to boot: what was chosen before, until the provider refused something, or else the newest that can be booted
    /// there and was not refused yet.
    async fn image(&self, offering: Option<&Offering>) -> Result<Option<BootImage>, StepError> {
        let machine = self.machine;
        if machine.role == Role::Bake {
            return Ok(None);
        }
        // Without a catalogue there is no offering by which to see that a choice was made.
        if machine.state == State::Creating && (machine.offering.is_some() || machine.tried.is_empty()) {
            return Ok(machine.image.clone());
        }
        let images = self.context.list_bootable_images(machine.account, machine.arch).await;
        let images = images.map_err(store_error("look for an image to boot"))?;
        let serves = |locations: &[String]| {
            let reaches = |offering: &Offering| locations.iter().any(|place| is_in(&offering.location, place));
            locations.is_empty() || offering.is_none_or(reaches)
        };
        let known = images.into_iter().filter(|image| serves(&image.locations));
        let boots = known.filter_map(|image| Some(BootImage { id: image.id, reference: image.reference? }));
        Ok(boots.into_iter().find(|image| !machine.tried.contains(&image.tried())))
    }

    fn request(
        &self,
        offering: Option<&Offering>,
        image: Option<&BootImage>,
        prepared: PrepareEnrolmentResponse,
        agent: AgentDownload,
    ) -> CreateRequest {
        let machine = self.machine;
        CreateRequest {
            machine: machine.id,
            installation: self.context.installation(),
            environment: machine.environment,
            role: machine.role,
            size: machine.size,
            arch: machine.arch,
            offering: offering.cloned(),
            attempt: u32::try_from(machine.tried.len()).unwrap_or(u32::MAX),
            image: image.map(|image| image.reference.clone()),
            bake: self.bake.map(|image| Bake { base_images: image.base_images.clone() }),
            expires_at: machine.expires_at,
            agent,
            config: AgentConfig {
                hub_url: prepared.hub_url,
                machine: machine.id,
                enrolment_token: Secret::new(prepared.token),
                ca_pem: prepared.ca_pem,
                role: machine.role,
                ingress_port: INGRESS_PORT,
            },
        }
    }

    /// The provider refused a machine that was to boot a golden image. That may be the image's fault: somebody removed it, or
    /// it does not fit this type. The machine is asked for without it, and an image that is not there any more is given up.
    async fn boot_without(&self, image: &BootImage, error: &CloudError) -> Result<Step, StepError> {
        let (doing, id) = ("look for an image that a machine could not boot", self.machine.id);
        tracing::warn!(machine.id = %id, image.id = %image.id, %error, "{id} could not be created with {}", image.id);
        let residues = self.cloud.list_residue(self.context.installation()).await.map_err(cloud_error(doing))?;
        let is_it = |residue: &Residue| residue.image == Some(image.id) && residue.is_image(&image.reference);
        let is_there = residues.items.iter().any(is_it);
        let _ = self
            .write(doing, async |tx| {
                if residues.complete && !is_there {
                    let message = "the provider does not have it any more: somebody removed it there; bake another";
                    let _ = tx.fail_image(image.id, &failure(Code::MachineFailed, "boot", message)).await?;
                    tx.wake(kind::IMAGE, image.id.uuid()).await?;
                }
                tx.machine_image_refused(id, image).await
            })
            .await?;
        Ok(Step::Again(Duration::ZERO))
    }
}
