//! `edge.v1`: the control plane asks; the edge never does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use stagely_proto::edge::edge_server::Edge;
use stagely_proto::edge::{DrainRequest, DrainResponse, ExplainRequest, ExplainResponse, StatsRequest, StatsResponse};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::route::Routes;

pub struct Server {
    pub routes: Arc<Routes>,
    pub requests: Arc<AtomicU64>,
    pub drain: CancellationToken,
}

#[tonic::async_trait]
impl Edge for Server {
    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let host = request.get_ref().host.to_ascii_lowercase();
        let Some(entry) = self.routes.find(&host) else { return Ok(Response::new(ExplainResponse::default())) };
        let target = entry.target.as_ref();
        Ok(Response::new(ExplainResponse {
            known: true,
            state: entry.state.to_string(),
            version: entry.version,
            machine_id: target.map(|target| target.machine.to_string()).unwrap_or_default(),
            address: target.map(|target| target.address.clone()).unwrap_or_default(),
        }))
    }

    async fn drain(&self, _: Request<DrainRequest>) -> Result<Response<DrainResponse>, Status> {
        self.drain.cancel();
        Ok(Response::new(DrainResponse {}))
    }

    async fn stats(&self, _: Request<StatsRequest>) -> Result<Response<StatsResponse>, Status> {
        let (routes, route_version) = self.routes.stats();
        let requests = self.requests.load(Ordering::Relaxed);
        Ok(Response::new(StatsResponse { routes: routes as u64, route_version, requests }))
    }
}
