//! Commands from the other services.

use std::sync::Arc;

use stagely_domain::error_chain::chain;
use stagely_domain::id::MachineId;
use stagely_proto::hub::hub_server::Hub as HubApi;
use stagely_proto::hub::{
    PrepareEnrolmentRequest, PrepareEnrolmentResponse, RevokeRequest, RevokeResponse, SetDesiredRequest,
    SetDesiredResponse, StatsRequest, StatsResponse,
};
use stagely_store::{Outcome, StoreError};
use tonic::{Request, Response, Status};

use crate::error::HubError;
use crate::hub::{Counters, Hub};

/// The gRPC face of a hub.
pub struct Server(pub Arc<Hub>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl HubApi for Server {
    async fn prepare_enrolment(&self, request: Request<PrepareEnrolmentRequest>) -> Answer<PrepareEnrolmentResponse> {
        let machine = machine(&request.get_ref().machine_id)?;
        let token = self.0.prepare_enrolment(machine).await.map_err(status)?;
        Ok(Response::new(PrepareEnrolmentResponse {
            token: token.reveal().to_owned(),
            hub_url: self.0.config.public_url.clone(),
            ca_pem: self.0.ca.pem().to_owned(),
        }))
    }

    async fn set_desired(&self, request: Request<SetDesiredRequest>) -> Answer<SetDesiredResponse> {
        let request = request.into_inner();
        let machine = machine(&request.machine_id)?;
        let desired = request.desired.ok_or_else(|| Status::invalid_argument("desired is missing"))?;
        if desired.generation == 0 {
            return Err(Status::invalid_argument("generations start at 1"));
        }
        let wished = self.0.set_wish(machine, &desired).await.map_err(status)?;
        Ok(Response::new(SetDesiredResponse { accepted: wished == Outcome::Written }))
    }

    async fn revoke(&self, request: Request<RevokeRequest>) -> Answer<RevokeResponse> {
        let machine = machine(&request.get_ref().machine_id)?;
        self.0.revoke(machine).await.map_err(status)?;
        tracing::info!(machine.id = %machine, reason = request.get_ref().reason, "machine {machine} may not connect any more");
        Ok(Response::new(RevokeResponse {}))
    }

    async fn stats(&self, _: Request<StatsRequest>) -> Answer<StatsResponse> {
        Ok(Response::new(StatsResponse {
            connections: u64::try_from(self.0.connections.count()).unwrap_or(u64::MAX),
            enrolments: Counters::read(&self.0.counters.enrolments),
            log_bytes: Counters::read(&self.0.counters.log_bytes),
        }))
    }
}

impl Hub {
    /// Stores a wish and has it sent, wherever the agent is connected.
    ///
    /// # Errors
    /// The store's error.
    pub async fn set_wish(
        &self,
        machine: MachineId,
        desired: &stagely_proto::agent::Desired,
    ) -> Result<Outcome, HubError> {
        let agent = self.store.find_agent(machine).await?.ok_or(StoreError::NotFound("agent"))?;
        let sealed = self.seal_wish(machine, agent.team, desired)?;
        let tx = self.store.begin().await?;
        let wished = tx.set_wish(machine, &sealed).await?;
        tx.commit().await?;
        self.changed.notify_one();
        Ok(wished)
    }

    /// Ends a machine's credential, wherever its agent is connected.
    ///
    /// # Errors
    /// The store's error.
    pub async fn revoke(&self, machine: MachineId) -> Result<(), HubError> {
        let tx = self.store.begin().await?;
        tx.revoke_agent(machine).await?;
        tx.commit().await?;
        self.changed.notify_one();
        Ok(())
    }
}

fn machine(text: &str) -> Result<MachineId, Status> {
    text.parse().map_err(|error: stagely_domain::id::ParseIdError| Status::invalid_argument(error.to_string()))
}

fn status(error: HubError) -> Status {
    match error {
        HubError::Store(error) => store_status(error),
        error => internal(&error),
    }
}

/// The store's error as callers see it; the rest is in the log.
fn store_status(error: StoreError) -> Status {
    match error {
        StoreError::NotFound(what) => Status::not_found(format!("no such {what}")),
        error if error.is_transient() => {
            tracing::warn!(error = %chain(&error), "a command could not reach the database");
            Status::unavailable("the database cannot be reached")
        }
        error => internal(&error),
    }
}

fn internal(error: &dyn std::error::Error) -> Status {
    tracing::error!(error = %chain(error), "a command failed");
    Status::internal("internal error")
}
