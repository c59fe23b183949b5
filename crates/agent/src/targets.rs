//! Where each exposed port is now. Written by whoever watches the containers, read by the ingress.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use stagely_proto::agent::Exposure;
use tokio::sync::Notify;

use crate::docker::Container;

/// Addresses by label. Cheap to clone.
#[derive(Clone, Default)]
pub struct Targets(Arc<Shared>);

#[derive(Default)]
struct Shared {
    addresses: Mutex<HashMap<String, SocketAddr>>,
    /// Rung by a reader that found an address wrong.
    stale: Notify,
}

impl Targets {
    /// Replaces all addresses.
    pub fn replace(&self, addresses: HashMap<String, SocketAddr>) {
        *self.addresses() = addresses;
    }

    /// Where the exposure `label` is.
    #[must_use]
    pub fn find(&self, label: &str) -> Option<SocketAddr> {
        self.addresses().get(label).copied()
    }

    /// Nobody answers at an address: a container may have moved, look again.
    pub fn suspect(&self) {
        self.0.stale.notify_one();
    }

    /// Waits until somebody found an address wrong.
    pub async fn suspected(&self) {
        self.0.stale.notified().await;
    }

    fn addresses(&self) -> MutexGuard<'_, HashMap<String, SocketAddr>> {
        self.0.addresses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a service's ports are: those of its first running container that has an address.
#[must_use]
pub fn address_of(containers: &[Container], service: &str) -> Option<IpAddr> {
    containers.iter().filter(|container| container.service() == service && container.is_running()).find_map(
        |container| match container.shares_network_of() {
            Some(owner) => containers
                .iter()
                .find(|other| other.id == owner || other.name.trim_start_matches('/') == owner)
                .and_then(Container::address),
            None => container.address(),
        },
    )
}

/// The addresses of all exposures whose services run.
#[must_use]
pub fn resolve(containers: &[Container], exposures: &[Exposure]) -> HashMap<String, SocketAddr> {
    exposures
        .iter()
        .filter_map(|exposure| {
            let port = u16::try_from(exposure.port).ok()?;
            let address = address_of(containers, &exposure.service)?;
            Some((exposure.label.clone(), SocketAddr::new(address, port)))
        })
        .collect()
}
