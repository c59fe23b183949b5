//! gRPC between the services: a deadline on every call and the service token on every request.

use std::time::Duration;

use anyhow::Context;
use stagely_domain::secret::Secret;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::service::{Interceptor, Routes};
use tonic::transport::Endpoint;
use tonic::{Request, Status};

/// The longest that a call may take.
pub const CALL_DEADLINE: Duration = Duration::from_secs(15);

/// A lazy connection to another service.
pub type Channel = InterceptedService<tonic::transport::Channel, AddToken>;

/// Adds the service token, if there is one, to each request that goes out.
#[derive(Clone)]
pub struct AddToken(Option<Secret>);

impl Interceptor for AddToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            let value = MetadataValue::try_from(format!("Bearer {}", token.reveal()))
                .map_err(|_| Status::internal("the service token is not a header value"))?;
            request.metadata_mut().insert("authorization", value);
        }
        Ok(request)
    }
}

/// Refuses requests that come in without the service token; without one of our own, all are let in.
#[derive(Clone)]
struct RequireToken(Option<Secret>);

impl Interceptor for RequireToken {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let Some(token) = &self.0 else { return Ok(request) };
        let given = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        let wanted = format!("Bearer {}", token.reveal());
        if given.is_some_and(|given| same(given.as_bytes(), wanted.as_bytes())) {
            Ok(request)
        } else {
            Err(Status::unauthenticated("the service token is missing or wrong"))
        }
    }
}

/// Compares without telling by its time where the texts differ.
fn same(left: &[u8], right: &[u8]) -> bool {
    left.len() == right.len() && left.iter().zip(right).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

/// Opens a lazy channel to `url`.
pub(crate) fn connect(url: &str, token: Option<&Secret>) -> anyhow::Result<Channel> {
    let channel = Endpoint::from_shared(url.to_owned())
        .context("malformed gRPC address")?
        .connect_timeout(Duration::from_secs(3))
        .timeout(CALL_DEADLINE)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .connect_lazy();
    Ok(InterceptedService::new(channel, AddToken(token.cloned())))
}

pub(crate) struct Server {
    pub(crate) listener: TcpListener,
    pub(crate) token: Option<Secret>,
    pub(crate) shutdown: CancellationToken,
}

impl Server {
    pub(crate) async fn serve(self, routes: Routes) -> anyhow::Result<()> {
        let (_reporter, health) = tonic_health::server::health_reporter();
        tonic::transport::Server::builder()
            .timeout(CALL_DEADLINE)
            .layer(tonic::service::InterceptorLayer::new(RequireToken(self.token)))
            .add_routes(routes.add_service(health))
            .serve_with_incoming_shutdown(TcpListenerStream::new(self.listener), self.shutdown.cancelled_owned())
            .await
            .context("serve gRPC")
    }
}

#[cfg(test)]
mod tests {
    use super::same;

    #[test]
    fn tokens_are_equal_only_when_every_byte_is() {
        assert!(same(b"token", b"token"));
        assert!(!same(b"token", b"tokeN") && !same(b"token", b"toke") && !same(b"", b"t"));
    }
}
