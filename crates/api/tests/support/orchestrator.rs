//! An orchestrator that remembers its environments' wishes and can be told to be away.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use stagely_domain::image::check_base_images;
use stagely_domain::secret::Secret;
use stagely_proto::orchestrator::orchestrator_server::{Orchestrator, OrchestratorServer};
use stagely_proto::orchestrator::{
    AcquireMachineRequest, AcquireMachineResponse, BakeImageRequest, BakeImageResponse, CloneAccessRequest,
    CloneAccessResponse, DropImageRequest, DropImageResponse, EnvironmentRequest, EnvironmentResponse, ExpireRequest,
    ExpireResponse, PinRequest, ReleaseMachineRequest, ReleaseMachineResponse, ReplayRequest, ReplayResponse,
    SleepRequest, SweepRequest, SweepResponse, VerifyAccountRequest, VerifyAccountResponse,
};
use stagely_store::seal::KeyRing;
use stagely_store::tenants::CloudAccount;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

#[derive(Clone, Default)]
pub struct FakeOrchestrator(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    generations: BTreeMap<String, u64>,
    calls: Vec<String>,
    failure: Option<Status>,
}

impl FakeOrchestrator {
    /// The next calls fail so.
    pub fn fail_with(&self, failure: Option<Status>) {
        self.0.lock().unwrap().failure = failure;
    }

    /// What was called so far.
    pub fn calls(&self) -> Vec<String> {
        self.0.lock().unwrap().calls.clone()
    }

    pub async fn serve(self, tracker: &TaskTracker, shutdown: CancellationToken) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder().add_service(OrchestratorServer::new(self));
        let served = server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown.cancelled_owned());
        tracker.spawn(async move { served.await.unwrap() });
        address
    }

    fn wish(&self, what: &str, environment: String) -> Result<Response<EnvironmentResponse>, Status> {
        let mut state = self.0.lock().unwrap();
        if let Some(failure) = &state.failure {
            return Err(failure.clone());
        }
        state.calls.push(format!("{what} {environment}"));
        let generation = state.generations.entry(environment).or_insert(1);
        *generation += 1;
        Ok(Response::new(EnvironmentResponse { generation: *generation }))
    }
}

#[tonic::async_trait]
impl Orchestrator for FakeOrchestrator {
    async fn redeploy(&self, request: Request<EnvironmentRequest>) -> Result<Response<EnvironmentResponse>, Status> {
        self.wish("redeploy", request.into_inner().environment_id)
    }

    async fn destroy(&self, request: Request<EnvironmentRequest>) -> Result<Response<EnvironmentResponse>, Status> {
        self.wish("destroy", request.into_inner().environment_id)
    }

    async fn sleep(&self, request: Request<SleepRequest>) -> Result<Response<EnvironmentResponse>, Status> {
        self.wish("sleep", request.into_inner().environment_id)
    }

    async fn wake(&self, request: Request<EnvironmentRequest>) -> Result<Response<EnvironmentResponse>, Status> {
        self.wish("wake", request.into_inner().environment_id)
    }

    async fn pin(&self, request: Request<PinRequest>) -> Result<Response<EnvironmentResponse>, Status> {
        let request = request.into_inner();
        self.wish(if request.pinned { "pin" } else { "unpin" }, request.environment_id)
    }

    async fn replay(&self, request: Request<ReplayRequest>) -> Result<Response<ReplayResponse>, Status> {
        let mut state = self.0.lock().unwrap();
        state.calls.push(format!("replay {}", request.into_inner().delivery_id));
        Ok(Response::new(ReplayResponse {}))
    }

    async fn expire(&self, _: Request<ExpireRequest>) -> Result<Response<ExpireResponse>, Status> {
        Err(Status::unimplemented("the API never asks"))
    }

    async fn acquire_machine(
        &self,
        _: Request<AcquireMachineRequest>,
    ) -> Result<Response<AcquireMachineResponse>, Status> {
        Err(Status::unimplemented("the API never asks"))
    }

    async fn release_machine(
        &self,
        _: Request<ReleaseMachineRequest>,
    ) -> Result<Response<ReleaseMachineResponse>, Status> {
        Err(Status::unimplemented("the API never asks"))
    }

    async fn clone_access(&self, _: Request<CloneAccessRequest>) -> Result<Response<CloneAccessResponse>, Status> {
        Err(Status::unimplemented("the API never asks"))
    }

    async fn sweep(&self, _: Request<SweepRequest>) -> Result<Response<SweepResponse>, Status> {
        Err(Status::unimplemented("the API never asks"))
    }

    /// Can do `amd64` only.
    async fn bake_image(&self, request: Request<BakeImageRequest>) -> Result<Response<BakeImageResponse>, Status> {
        let request = request.into_inner();
        if let Err(why) = check_base_images(&request.base_images) {
            return Err(Status::invalid_argument(why));
        }
        if request.arch != "amd64" {
            return Err(Status::failed_precondition("this account has no arm64 machines: ask for amd64"));
        }
        let call = format!("bake {} {} {}", request.account_id, request.arch, request.base_images.join(" "));
        self.0.lock().unwrap().calls.push(call);
        Ok(Response::new(BakeImageResponse {}))
    }

    async fn drop_image(&self, request: Request<DropImageRequest>) -> Result<Response<DropImageResponse>, Status> {
        self.0.lock().unwrap().calls.push(format!("drop {}", request.into_inner().image_id));
        Ok(Response::new(DropImageResponse {}))
    }

    /// Opens what was sealed, as the orchestrator does, finds fault with the token `bad`, and shows neither machine nor image
    /// to the token `of-strangers`.
    async fn verify_account(
        &self,
        request: Request<VerifyAccountRequest>,
    ) -> Result<Response<VerifyAccountResponse>, Status> {
        let request = request.into_inner();
        let (id, team) = (request.account_id.parse().unwrap(), request.team_id.parse().unwrap());
        let keys = KeyRing::single(&Secret::new(super::KEY)).unwrap();
        let place = CloudAccount::place(id, team);
        let sealed = request.credentials_sealed;
        let opened = (!sealed.is_empty()).then(|| keys.open_text(&place, &sealed).unwrap().reveal().to_owned());
        let is = |token: &str| opened.as_deref() == Some(&format!(r#"{{"token":"{token}"}}"#));
        let problem = if is("bad") { "the token is not valid".to_owned() } else { String::new() };
        let has_any = !request.machine_ids.is_empty() || !request.image_ids.is_empty();
        Ok(Response::new(VerifyAccountResponse { problem, shows_known: has_any && !is("of-strangers") }))
    }
}
