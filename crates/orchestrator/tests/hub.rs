//! A hub that keeps the rows that the real one keeps.

use std::net::SocketAddr;
use std::sync::Arc;

use chrono::TimeDelta;
use stagely_domain::id::MachineId;
use stagely_proto::agent::desired::Spec;
use stagely_proto::agent::preview::Wish;
use stagely_proto::hub;
use stagely_proto::hub::hub_server::{Hub as Api, HubServer};
use stagely_store::agents::SealedWish;
use stagely_store::{Outcome, StoreError};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::{Request, Response, Status};

use crate::gate::Gate;
use crate::world::{Hold, World, token_hash};

type Answer<T> = Result<Response<T>, Status>;

#[derive(Clone)]
struct Hub {
    world: Arc<World>,
    gate: Arc<Gate>,
    /// Never waited for: what a killed caller began may not end.
    calls: TaskTracker,
}

/// Serves until shutdown; where.
pub async fn serve(
    world: Arc<World>,
    gate: Arc<Gate>,
    tracker: &TaskTracker,
    shutdown: CancellationToken,
) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server =
        tonic::transport::Server::builder().add_service(HubServer::new(Hub { world, gate, calls: TaskTracker::new() }));
    tracker.spawn(server.serve_with_incoming_shutdown(TcpListenerStream::new(listener), shutdown.cancelled_owned()));
    address
}

impl Hub {
    /// On a task of its own: a caller that is killed does not stop what it began half-way.
    async fn pass<T: Send + 'static>(
        &self,
        name: &'static str,
        effect: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Answer<T> {
        if self.world.holds(Hold::Hub) {
            self.world.inside().missed += 1;
            return Err(Status::unavailable("the hub is away"));
        }
        let gate = Arc::clone(&self.gate);
        let call = async move { gate.pass(name, effect, |_| Status::unavailable("told to fail")).await };
        let answer = self.calls.spawn(call).await;
        answer.map_err(|error| Status::internal(error.to_string()))?.map(Response::new)
    }
}

fn machine(text: &str) -> MachineId {
    text.parse().unwrap()
}

fn refused(error: StoreError) -> Status {
    match error {
        StoreError::NotFound(what) => Status::not_found(what),
        error => Status::internal(error.to_string()),
    }
}

#[tonic::async_trait]
impl Api for Hub {
    async fn prepare_enrolment(
        &self,
        request: Request<hub::PrepareEnrolmentRequest>,
    ) -> Answer<hub::PrepareEnrolmentResponse> {
        let machine = machine(&request.get_ref().machine_id);
        let world = Arc::clone(&self.world);
        let effect = async move {
            let tx = world.db.store().begin().await.map_err(refused)?;
            let prepared = tx.prepare_enrolment(machine, &token_hash(machine), TimeDelta::minutes(10)).await;
            prepared.map_err(refused)?;
            tx.commit().await.map_err(refused)?;
            Ok(hub::PrepareEnrolmentResponse {
                token: "stge_token".to_owned(),
                hub_url: "https://hub.test".to_owned(),
                ca_pem: "a CA".to_owned(),
            })
        };
        self.pass("hub prepare_enrolment", effect).await
    }

    async fn set_desired(&self, request: Request<hub::SetDesiredRequest>) -> Answer<hub::SetDesiredResponse> {
        let request = request.into_inner();
        let (machine, desired) = (machine(&request.machine_id), request.desired.unwrap());
        let world = Arc::clone(&self.world);
        let effect = async move {
            let Some(Spec::Preview(preview)) = desired.spec else {
                return Err(Status::invalid_argument("no preview"));
            };
            let tx = world.db.store().begin().await.map_err(refused)?;
            let wish = SealedWish { generation: desired.generation, sealed: vec![1] };
            let accepted = tx.set_wish(machine, &wish).await.map_err(refused)? == Outcome::Written;
            tx.commit().await.map_err(refused)?;
            if accepted {
                let wish = Wish::try_from(preview.wish).unwrap();
                let mut inside = world.inside();
                inside.wishes.insert(machine, (desired.generation, wish));
                inside.told.insert(machine, preview);
            }
            Ok(hub::SetDesiredResponse { accepted })
        };
        self.pass("hub set_desired", effect).await
    }

    async fn revoke(&self, request: Request<hub::RevokeRequest>) -> Answer<hub::RevokeResponse> {
        let machine = machine(&request.get_ref().machine_id);
        let world = Arc::clone(&self.world);
        let effect = async move {
            let tx = world.db.store().begin().await.map_err(refused)?;
            tx.revoke_agent(machine).await.map_err(refused)?;
            tx.commit().await.map_err(refused)?;
            Ok(hub::RevokeResponse {})
        };
        self.pass("hub revoke", effect).await
    }

    async fn stats(&self, _: Request<hub::StatsRequest>) -> Answer<hub::StatsResponse> {
        Err(Status::unimplemented("the orchestrator does not call this"))
    }
}
