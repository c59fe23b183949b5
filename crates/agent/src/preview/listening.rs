//! Which ports something listens on: asked by connecting, and explained from `/proc` when nothing answers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use stagely_proto::agent::{Exposure, ServiceStatus};
use tokio::net::TcpStream;

use crate::docker::Container;
use crate::targets;

const CONNECT_DEADLINE: Duration = Duration::from_secs(2);

/// Whether something takes connections at `address`.
pub async fn answers(address: SocketAddr) -> bool {
    let attempt = TcpStream::connect(address);
    matches!(tokio::time::timeout(CONNECT_DEADLINE, attempt).await, Ok(Ok(_)))
}

/// The services as they are, with those of the exposed ports that answer. Sorted by name.
pub async fn statuses(containers: &[Container], exposures: &[Exposure]) -> Vec<ServiceStatus> {
    let mut statuses = Vec::with_capacity(containers.len());
    for container in containers {
        let mut listening = Vec::new();
        for exposure in exposures.iter().filter(|e| e.service == container.service()) {
            let address = targets::address_of(containers, &exposure.service);
            if let (Some(address), Ok(port)) = (address, u16::try_from(exposure.port))
                && answers(SocketAddr::new(address, port)).await
            {
                listening.push(exposure.port);
            }
        }
        statuses.push(ServiceStatus {
            name: container.service().to_owned(),
            state: container.state.status.clone(),
            health: container.health().to_owned(),
            exit_code: container.state.exit_code,
            image: container.config.image.clone(),
            listening,
        });
    }
    statuses.sort_by(|a, b| a.name.cmp(&b.name));
    statuses
}

/// What listens inside the container, in words.
#[must_use]
pub fn explain(container: &Container) -> String {
    let pid = container.state.pid;
    let read = |file| std::fs::read_to_string(format!("/proc/{pid}/net/{file}")).unwrap_or_default();
    let mut found = listeners(&read("tcp"));
    found.extend(listeners(&read("tcp6")));
    found.sort_unstable();
    found.dedup();
    // Docker's own name server in every container.
    found.retain(|address| address.ip() != IpAddr::V4(Ipv4Addr::new(127, 0, 0, 11)));
    if found.is_empty() {
        return "nothing listens on any port in its container".to_owned();
    }
    let mut words: Vec<String> = found.iter().map(ToString::to_string).collect();
    if found.iter().all(|address| address.ip().is_loopback()) {
        words.push("a server must listen on 0.0.0.0 to be reached from outside its container".to_owned());
    }
    format!("what listens in its container: {}", words.join(", "))
}

/// The listening sockets in the text of `/proc/<pid>/net/tcp` or `tcp6`: address and port in hex, the address in
/// words of the machine's byte order (little-endian on both architectures), state `0A`.
fn listeners(table: &str) -> Vec<SocketAddr> {
    let parse = |line: &str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _, state) = (fields.next()?, fields.next()?, fields.next()?);
        let (address, port) = local.split_once(':')?;
        let port = u16::from_str_radix(port, 16).ok()?;
        let mut bytes = hex::decode(address).ok()?;
        for word in bytes.chunks_mut(4) {
            word.reverse();
        }
        let address = match <[u8; 4]>::try_from(bytes.as_slice()) {
            Ok(four) => IpAddr::from(four),
            Err(_) => IpAddr::from(<[u8; 16]>::try_from(bytes.as_slice()).ok()?),
        };
        (state == "0A").then_some(SocketAddr::new(address, port))
    };
    table.lines().skip(1).filter_map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::listeners;

    #[test]
    fn listening_sockets_are_read_from_proc() {
        let table = "  sl  local_address rem_address   st tx_queue\n   \
            0: 0100007F:0BB8 00000000:0000 0A 00000000:00000000\n   \
            1: 0100007F:0BB9 0100007F:0001 01 00000000:00000000\n";
        assert_eq!(listeners(table), ["127.0.0.1:3000".parse().unwrap()]);
        let six = "head\n 0: 00000000000000000000000001000000:1F90 0:0 0A\n";
        assert_eq!(listeners(six), ["[::1]:8080".parse().unwrap()]);
    }
}
