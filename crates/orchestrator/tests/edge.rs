//! An edge that looks only at Redis, and forwards only to machines that are there.

use std::net::SocketAddr;
use std::sync::Arc;

use stagely_cache::Cache;
use stagely_cloud::Cloud;
use stagely_domain::route::State;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::world::{Hold, World};

const SERVED: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nhi";
const PAGE: &str =
    "HTTP/1.1 503 Service Unavailable\r\nx-stagely: waiting\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

/// Serves until shutdown; where.
pub async fn serve(cache: Cache, world: Arc<World>, tracker: &TaskTracker, shutdown: CancellationToken) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tracker.spawn(async move {
        loop {
            tokio::select! {
                accepted = listener.accept() => {
                    let (mut stream, _) = accepted.unwrap();
                    // A caller that was killed takes no answer.
                    let _ = answer(&mut stream, &cache, &world).await;
                }
                () = shutdown.cancelled() => return,
            }
        }
    });
    address
}

async fn answer(stream: &mut TcpStream, cache: &Cache, world: &World) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = stream.read_u8().await?;
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    let is_served = !world.holds(Hold::Edge) && is_served(host, cache, &*world.cloud).await;
    let answer = if is_served { SERVED } else { PAGE };
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await
}

/// Whether visitors of `host` reach a machine.
pub async fn is_served(host: &str, cache: &Cache, cloud: &dyn Cloud) -> bool {
    let Ok(Some(entry)) = cache.route(host).await else { return false };
    let Some(target) = entry.target.filter(|_| entry.state == State::Ready) else { return false };
    let vms = cloud.find(target.machine).await.unwrap_or_default();
    vms.iter().any(|vm| vm.address.as_deref() == Some(&target.address))
}
