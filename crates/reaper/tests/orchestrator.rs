//! An orchestrator that only remembers what the reaper told it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use stagely_proto::orchestrator as wire;
use stagely_proto::orchestrator::orchestrator_server::{Orchestrator, OrchestratorServer};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

type Answer<T> = Result<Response<T>, Status>;

#[derive(Clone, Default)]
pub struct Double(Arc<Mutex<Told>>);

#[derive(Default)]
struct Told {
    expired: Vec<wire::ExpireRequest>,
    slept: Vec<wire::SleepRequest>,
    refuses: bool,
}

impl Double {
    /// Serves until shutdown; where.
    pub async fn serve(self, shutdown: CancellationToken) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder().add_service(OrchestratorServer::new(self));
        let served = server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown.cancelled_owned());
        TaskTracker::new().spawn(served);
        address
    }

    pub fn expired(&self) -> Vec<wire::ExpireRequest> {
        self.0.lock().unwrap().expired.clone()
    }

    pub fn slept(&self) -> Vec<wire::SleepRequest> {
        self.0.lock().unwrap().slept.clone()
    }

    /// From now on everything has changed since the reaper looked.
    pub fn refuse(&self) {
        self.0.lock().unwrap().refuses = true;
    }
}

fn unused<T>() -> Answer<T> {
    Err(Status::unimplemented("the reaper never asks"))
}

#[tonic::async_trait]
impl Orchestrator for Double {
    async fn expire(&self, request: Request<wire::ExpireRequest>) -> Answer<wire::ExpireResponse> {
        let mut told = self.0.lock().unwrap();
        told.expired.push(request.into_inner());
        Ok(Response::new(wire::ExpireResponse { applied: !told.refuses }))
    }

    async fn sleep(&self, request: Request<wire::SleepRequest>) -> Answer<wire::EnvironmentResponse> {
        let mut told = self.0.lock().unwrap();
        told.slept.push(request.into_inner());
        if told.refuses {
            return Err(Status::aborted("the environment changed meanwhile: try again"));
        }
        Ok(Response::new(wire::EnvironmentResponse { generation: 1 }))
    }

    async fn redeploy(&self, _: Request<wire::EnvironmentRequest>) -> Answer<wire::EnvironmentResponse> {
        unused()
    }
    async fn destroy(&self, _: Request<wire::EnvironmentRequest>) -> Answer<wire::EnvironmentResponse> {
        unused()
    }
    async fn wake(&self, _: Request<wire::EnvironmentRequest>) -> Answer<wire::EnvironmentResponse> {
        unused()
    }
    async fn pin(&self, _: Request<wire::PinRequest>) -> Answer<wire::EnvironmentResponse> {
        unused()
    }
    async fn replay(&self, _: Request<wire::ReplayRequest>) -> Answer<wire::ReplayResponse> {
        unused()
    }
    async fn acquire_machine(&self, _: Request<wire::AcquireMachineRequest>) -> Answer<wire::AcquireMachineResponse> {
        unused()
    }
    async fn release_machine(&self, _: Request<wire::ReleaseMachineRequest>) -> Answer<wire::ReleaseMachineResponse> {
        unused()
    }
    async fn clone_access(&self, _: Request<wire::CloneAccessRequest>) -> Answer<wire::CloneAccessResponse> {
        unused()
    }
    async fn sweep(&self, _: Request<wire::SweepRequest>) -> Answer<wire::SweepResponse> {
        unused()
    }
    async fn verify_account(&self, _: Request<wire::VerifyAccountRequest>) -> Answer<wire::VerifyAccountResponse> {
        unused()
    }
    async fn bake_image(&self, _: Request<wire::BakeImageRequest>) -> Answer<wire::BakeImageResponse> {
        unused()
    }
    async fn drop_image(&self, _: Request<wire::DropImageRequest>) -> Answer<wire::DropImageResponse> {
        unused()
    }
}
