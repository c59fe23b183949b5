//! Listening: one socket per core on the same port. TLS comes between the socket and hyper here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::forward::Worker;

/// How long a visitor may take to send a request's head.
const HEAD: Duration = Duration::from_secs(10);
/// How long requests under way may take to end after shutdown.
const DRAIN: Duration = Duration::from_secs(10);

/// A listening socket that shares its port with the other cores'.
pub fn bind(address: SocketAddr) -> anyhow::Result<std::net::TcpListener> {
    let told = || format!("bind {address} for visitors");
    let domain = if address.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).with_context(told)?;
    socket.set_reuse_address(true).with_context(told)?;
    socket.set_reuse_port(true).with_context(told)?;
    socket.set_nonblocking(true).with_context(told)?;
    socket.bind(&address.into()).with_context(told)?;
    socket.listen(4096).with_context(told)?;
    Ok(socket.into())
}

/// One core: accepts and serves until shutdown, then lets what is under way end.
pub async fn serve(listener: std::net::TcpListener, worker: Arc<Worker>, shutdown: CancellationToken) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "a listener cannot be used");
            return;
        }
    };
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of descriptors, most likely: let some connections end.
            tokio::time::sleep(Duration::from_millis(20)).await;
            continue;
        };
        // Without it small answers wait for a full segment; nothing else depends on it.
        let _ = stream.set_nodelay(true);
        let (worker, stop) = (Arc::clone(&worker), shutdown.clone());
        connections.spawn(async move {
            let service = service_fn(move |request| {
                let worker = Arc::clone(&worker);
                async move { Ok::<_, std::convert::Infallible>(worker.serve(request, peer).await) }
            });
            let mut http = http1::Builder::new();
            http.timer(TokioTimer::new()).header_read_timeout(HEAD).max_buf_size(64 * 1024).auto_date_header(false);
            let connection = http.serve_connection(TokioIo::new(stream), service).with_upgrades();
            tokio::pin!(connection);
            // A visitor's broken connection is of no concern to anybody.
            tokio::select! {
                _ = connection.as_mut() => {}
                () = stop.cancelled() => {
                    connection.as_mut().graceful_shutdown();
                    let _ = connection.await;
                }
            }
        });
    }
    connections.close();
    // Upgraded connections end with their relay, which watches the same token.
    let _ = tokio::time::timeout(DRAIN, connections.wait()).await;
}
