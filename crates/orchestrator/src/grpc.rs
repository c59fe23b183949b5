//! `orchestrator.v1`: parse, change a wish, answer.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use stagely_domain::error_chain::chain;
use stagely_domain::id::{CloudAccountId, DeliveryId, EnvironmentId, MachineId, ProjectId, TeamId};
use stagely_domain::machine::{Arch, Role, Size};
use stagely_proto::orchestrator as wire;
use stagely_proto::orchestrator::orchestrator_server::Orchestrator as Api;
use stagely_reconcile::StepError;
use stagely_store::environments::Environment;
use stagely_store::images::NewImage;
use stagely_store::machines::NewMachine;
use stagely_store::tenants::CloudAccount;
use stagely_store::work::kind;
use stagely_store::{Outcome, Power, Presence, Scope, StoreError, Tx};
use tonic::{Request, Response, Status};

use crate::access;
use crate::clouds::{Known, Seen};
use crate::context::Context;
use crate::images::{self, Refused};
use crate::reconcile::environment::account;
use crate::reconcile::sweep::Sweeps;

pub struct Server {
    pub context: Arc<Context>,
    pub sweeps: Sweeps,
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl Api for Server {
    async fn redeploy(&self, request: Request<wire::EnvironmentRequest>) -> Answer<wire::EnvironmentResponse> {
        let env = self.find(&request.get_ref().environment_id, &request.get_ref().team_id).await?;
        refuse_absent(&env)?;
        let pr = env.pr.clone();
        self.change(&env, async |tx| tx.wish_commit(env.id, env.generation, &pr).await).await
    }

    async fn destroy(&self, request: Request<wire::EnvironmentRequest>) -> Answer<wire::EnvironmentResponse> {
        let env = self.find(&request.get_ref().environment_id, &request.get_ref().team_id).await?;
        self.change(&env, async |tx| {
            let _ = tx.wish_removed(env.id, "it was removed by a member").await?;
            Ok(Outcome::Written)
        })
        .await
    }

    async fn sleep(&self, request: Request<wire::SleepRequest>) -> Answer<wire::EnvironmentResponse> {
        let request = request.get_ref();
        let env = self.find(&request.environment_id, &request.team_id).await?;
        let Some(seen) = &request.seen else { return self.power(&env, Power::Asleep).await };
        let (generation, last) =
            (generation(seen.generation)?, instant("last_activity_at_unix_micros", seen.last_activity_at_unix_micros)?);
        self.change(&env, async |tx| tx.wish_idle_asleep(env.id, generation, last).await).await
    }

    async fn wake(&self, request: Request<wire::EnvironmentRequest>) -> Answer<wire::EnvironmentResponse> {
        let env = self.find(&request.get_ref().environment_id, &request.get_ref().team_id).await?;
        self.power(&env, Power::Awake).await
    }

    async fn pin(&self, request: Request<wire::PinRequest>) -> Answer<wire::EnvironmentResponse> {
        let request = request.get_ref();
        let env = self.find(&request.environment_id, &request.team_id).await?;
        refuse_absent(&env)?;
        self.change(&env, async |tx| tx.pin_environment(env.id, request.pinned).await.map(|()| Outcome::Written)).await
    }

    async fn expire(&self, request: Request<wire::ExpireRequest>) -> Answer<wire::ExpireResponse> {
        let request = request.get_ref();
        let (id, generation) = (parse::<EnvironmentId>(&request.environment_id)?, generation(request.generation)?);
        let end = request.expires_at_unix_micros.map(|micros| instant("expires_at_unix_micros", micros)).transpose()?;
        let tx = self.context.store.begin().await.map_err(store_status)?;
        let outcome = tx.wish_expired(id, generation, end, &request.reason).await.map_err(store_status)?;
        tx.wake(kind::ENVIRONMENT, id.uuid()).await.map_err(store_status)?;
        tx.commit().await.map_err(store_status)?;
        Ok(Response::new(wire::ExpireResponse { applied: outcome == Outcome::Written }))
    }

    async fn replay(&self, request: Request<wire::ReplayRequest>) -> Answer<wire::ReplayResponse> {
        let id: DeliveryId = parse(&request.get_ref().delivery_id)?;
        let tx = self.context.store.begin().await.map_err(store_status)?;
        tx.reopen_delivery(id).await.map_err(store_status)?;
        tx.wake(kind::INBOX, id.uuid()).await.map_err(store_status)?;
        tx.commit().await.map_err(store_status)?;
        Ok(Response::new(wire::ReplayResponse {}))
    }

    async fn acquire_machine(
        &self,
        request: Request<wire::AcquireMachineRequest>,
    ) -> Answer<wire::AcquireMachineResponse> {
        let request = request.get_ref();
        let (id, project): (MachineId, ProjectId) = (parse(&request.machine_id)?, parse(&request.project_id)?);
        let store = &self.context.store;
        let project = store.get_project(&Scope::system("acquire a builder"), project).await.map_err(store_status)?;
        let account = project.account.ok_or_else(|| Status::failed_precondition("the project has no cloud account"))?;
        let arch = word::<Arch>(&request.arch)?;
        let lacks = account::lacks(&self.context, project.team, account, arch).await;
        if let Some(message) = lacks.map_err(|error| step_status(&error))? {
            return Err(Status::failed_precondition(message));
        }
        let machine = NewMachine {
            id,
            team: project.team,
            project: Some(project.id),
            environment: None,
            account,
            role: Role::Builder,
            size: word::<Size>(&request.size)?,
            arch,
            locations: Vec::new(),
            lifetime: TimeDelta::hours(24),
        };
        let tx = store.begin().await.map_err(store_status)?;
        let _ = tx.insert_machine(&machine).await.map_err(store_status)?;
        tx.wake(kind::MACHINE, id.uuid()).await.map_err(store_status)?;
        tx.commit().await.map_err(store_status)?;
        let machine = store.get_machine(id).await.map_err(store_status)?;
        Ok(Response::new(wire::AcquireMachineResponse { state: machine.state.to_string() }))
    }

    async fn release_machine(
        &self,
        request: Request<wire::ReleaseMachineRequest>,
    ) -> Answer<wire::ReleaseMachineResponse> {
        let id: MachineId = parse(&request.get_ref().machine_id)?;
        let machine = self.context.store.get_machine(id).await.map_err(store_status)?;
        if machine.role != Role::Builder {
            return Err(Status::not_found("no such builder"));
        }
        let tx = self.context.store.begin().await.map_err(store_status)?;
        let _ = tx.drop_machine(id, None).await.map_err(store_status)?;
        tx.wake(kind::MACHINE, id.uuid()).await.map_err(store_status)?;
        tx.commit().await.map_err(store_status)?;
        Ok(Response::new(wire::ReleaseMachineResponse {}))
    }

    async fn clone_access(&self, request: Request<wire::CloneAccessRequest>) -> Answer<wire::CloneAccessResponse> {
        let project = parse(&request.get_ref().project_id)?;
        let repo = self.context.repo(project).await.map_err(|error| step_status(&error))?;
        let access = self.context.forge.clone_access(&repo).await;
        let access = access.map_err(|error| Status::unavailable(error.to_string()))?;
        Ok(Response::new(wire::CloneAccessResponse {
            url: access.url,
            username: access.username,
            token: access.token.reveal().to_owned(),
            expires_at_unix: access.expires_at.map_or(0, |at| at.timestamp()),
        }))
    }

    async fn sweep(&self, request: Request<wire::SweepRequest>) -> Answer<wire::SweepResponse> {
        let wanted = &request.get_ref().account_id;
        let only: Option<CloudAccountId> = if wanted.is_empty() { None } else { Some(parse(wanted)?) };
        let accounts = self.context.store.list_cloud_accounts(&Scope::system("sweep")).await.map_err(store_status)?;
        let mut total = wire::SweepResponse { complete: true, ..wire::SweepResponse::default() };
        for account in accounts.iter().filter(|account| only.is_none_or(|only| only == account.id)) {
            let found = self.sweeps.sweep(account.id).await.map_err(|error| step_status(&error))?;
            total.seen += found.seen;
            total.removed += found.removed;
            total.orphans += found.orphans;
            total.complete &= found.complete;
        }
        Ok(Response::new(total))
    }

    async fn verify_account(
        &self,
        request: Request<wire::VerifyAccountRequest>,
    ) -> Answer<wire::VerifyAccountResponse> {
        let request = request.into_inner();
        let sealed = request.credentials_sealed;
        let account = CloudAccount {
            id: parse(&request.account_id)?,
            team: parse(&request.team_id)?,
            name: String::new(),
            kind: word(&request.kind)?,
            settings: serde_json::from_str(&request.settings).map_err(|error| {
                Status::invalid_argument(format!("`settings` is not the JSON of a cloud account's settings: {error}"))
            })?,
            credentials_sealed: (!sealed.is_empty()).then_some(sealed),
            generation: 0,
        };
        let machines = request.machine_ids.iter().map(|id| parse(id)).collect::<Result<_, _>>()?;
        let images = request.image_ids.iter().map(|id| parse(id)).collect::<Result<_, _>>()?;
        let known = Known { installation: self.context.installation, machines, images };
        let (problem, shows_known) = match self.context.clouds.verify(&account, &known).await {
            Ok(seen) => (String::new(), seen == Seen::Known),
            Err(error) => (access::problem(account.kind, &error), false),
        };
        Ok(Response::new(wire::VerifyAccountResponse { problem, shows_known }))
    }

    async fn bake_image(&self, request: Request<wire::BakeImageRequest>) -> Answer<wire::BakeImageResponse> {
        let request = request.into_inner();
        let new = NewImage {
            id: parse(&request.image_id)?,
            team: parse(&request.team_id)?,
            account: parse(&request.account_id)?,
            arch: word(&request.arch)?,
            base_images: request.base_images,
        };
        images::bake(&self.context, &new).await.map_err(told)?;
        Ok(Response::new(wire::BakeImageResponse {}))
    }

    async fn drop_image(&self, request: Request<wire::DropImageRequest>) -> Answer<wire::DropImageResponse> {
        let request = request.get_ref();
        let (id, team) = (parse(&request.image_id)?, parse(&request.team_id)?);
        images::drop(&self.context, team, id).await.map_err(told)?;
        Ok(Response::new(wire::DropImageResponse {}))
    }
}

impl Server {
    async fn power(&self, env: &Environment, power: Power) -> Answer<wire::EnvironmentResponse> {
        refuse_absent(env)?;
        self.change(env, async |tx| {
            let _ = tx.wish_power(env.id, power).await?;
            Ok(Outcome::Written)
        })
        .await
    }

    /// The environment, if it is this team's.
    async fn find(&self, id: &str, team: &str) -> Result<Environment, Status> {
        let (id, team): (EnvironmentId, TeamId) = (parse(id)?, parse(team)?);
        let env =
            self.context.store.get_environment(&Scope::system("a member's command"), id).await.map_err(store_status)?;
        if env.team == team { Ok(env) } else { Err(Status::not_found("no such environment")) }
    }

    async fn change(
        &self,
        env: &Environment,
        change: impl AsyncFnOnce(&Tx) -> stagely_store::Result<Outcome>,
    ) -> Answer<wire::EnvironmentResponse> {
        let store = &self.context.store;
        let tx = store.begin().await.map_err(store_status)?;
        if change(&tx).await.map_err(store_status)? == Outcome::Stale {
            return Err(Status::aborted("the environment changed meanwhile: try again"));
        }
        tx.wake(kind::ENVIRONMENT, env.id.uuid()).await.map_err(store_status)?;
        tx.commit().await.map_err(store_status)?;
        let env = store.get_environment(&Scope::system("a member's command"), env.id).await.map_err(store_status)?;
        Ok(Response::new(wire::EnvironmentResponse { generation: u64::try_from(env.generation).unwrap_or(0) }))
    }
}

fn refuse_absent(env: &Environment) -> Result<(), Status> {
    if env.desired == Presence::Present {
        return Ok(());
    }
    Err(Status::failed_precondition("the environment is being removed"))
}

fn generation(number: u64) -> Result<i64, Status> {
    let refused = || Status::invalid_argument(format!("`generation` is {number}: none is as large as that"));
    i64::try_from(number).map_err(|_| refused())
}

fn instant(field: &str, unix_micros: i64) -> Result<DateTime<Utc>, Status> {
    let refused = || Status::invalid_argument(format!("`{field}` is {unix_micros}, which is outside of all time"));
    DateTime::from_timestamp_micros(unix_micros).ok_or_else(refused)
}

fn parse<T: std::str::FromStr<Err: std::fmt::Display>>(text: &str) -> Result<T, Status> {
    text.parse().map_err(|error: T::Err| Status::invalid_argument(error.to_string()))
}

fn word<T: serde::de::DeserializeOwned>(text: &str) -> Result<T, Status> {
    serde_json::from_value(text.into()).map_err(|_| Status::invalid_argument(format!("unknown word `{text}`")))
}

fn told(why: Refused) -> Status {
    match why {
        Refused::NotThere(_) => Status::not_found(why.to_string()),
        Refused::Unable(_) => Status::failed_precondition(why.to_string()),
        Refused::Invalid(_) => Status::invalid_argument(why.to_string()),
        Refused::Account(error) => step_status(&error),
        Refused::Store(error) => store_status(error),
    }
}

/// A step's error as callers see it. Never a refusal: its words would end in a pull request, and fail its builds.
fn step_status(error: &StepError) -> Status {
    Status::unavailable(error.chain())
}

/// The store's error as callers see it; the rest is in the log.
fn store_status(error: StoreError) -> Status {
    match error {
        StoreError::NotFound(what) => Status::not_found(format!("no such {what}")),
        error if error.is_transient() => {
            tracing::warn!(error = %chain(&error), "a command could not reach the database");
            Status::unavailable("the database cannot be reached")
        }
        error => {
            tracing::error!(error = %chain(&error), "a command failed");
            Status::internal("internal error")
        }
    }
}
