//! How the fleet stands, for whoever asks.

use stagely_domain::build::State;
use stagely_domain::error_chain::chain;
use stagely_domain::id::ProjectId;
use stagely_proto::builder::builder_server::Builder;
use stagely_proto::builder::{FleetRequest, FleetResponse, Machine};
use stagely_store::{Presence, Store, StoreError};
use tonic::{Request, Response, Status};

/// The gRPC face.
pub struct Server(pub Store);

#[tonic::async_trait]
impl Builder for Server {
    async fn fleet(&self, _: Request<FleetRequest>) -> Result<Response<FleetResponse>, Status> {
        let mut answer = FleetResponse::default();
        let projects = self.0.list_building_projects().await.map_err(store_status)?;
        for project in projects {
            self.count(project, &mut answer).await.map_err(store_status)?;
        }
        Ok(Response::new(answer))
    }
}

impl Server {
    async fn count(&self, project: ProjectId, answer: &mut FleetResponse) -> Result<(), StoreError> {
        let jobs = self.0.list_open_builds(project).await?;
        let queued = jobs.iter().filter(|job| job.state == State::Queued).count();
        answer.queued += number(queued);
        answer.running += number(jobs.len() - queued);
        for machine in self.0.list_project_builders(project).await? {
            if machine.desired == Presence::Present {
                let builds = jobs.iter().filter(|job| job.machine == Some(machine.id)).count();
                answer.machines.push(Machine {
                    machine_id: machine.id.to_string(),
                    project_id: project.to_string(),
                    arch: machine.arch.to_string(),
                    builds: number(builds),
                });
            }
        }
        Ok(())
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// The store's error as callers see it; the rest is in the log.
fn store_status(error: StoreError) -> Status {
    match error {
        StoreError::NotFound(what) => Status::not_found(format!("no such {what}")),
        error if error.is_transient() => {
            tracing::warn!(error = %chain(&error), "the fleet could not be read: the database cannot be reached");
            Status::unavailable("the database cannot be reached")
        }
        error => {
            tracing::error!(error = %chain(&error), "the fleet could not be read");
            Status::internal("internal error")
        }
    }
}
