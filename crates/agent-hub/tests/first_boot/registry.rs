//! A registry that has the base image, under a certificate that machines are told to trust.

use std::net::SocketAddr;
use std::path::Path;

use xtask::registry::{Access, Registry, Running, Tls, free_address};

use super::HOST;

pub struct Images {
    address: SocketAddr,
    certificate: String,
    _running: Running,
}

impl Images {
    pub async fn start(store: &Path, scratch: &Path) -> Self {
        let made = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
        let certificate = made.cert.pem();
        let tls = Tls { certificate: scratch.join("registry.pem"), key: scratch.join("registry.key") };
        std::fs::write(&tls.certificate, &certificate).unwrap();
        std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
        let address = free_address().await.unwrap();
        let log = scratch.join("registry.log");
        let registry = Registry { listen: address, store: store.to_owned(), log, tls, access: Access::BaseImages };
        let workspace = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
        let running = registry.start(workspace).await.unwrap();
        Self { address, certificate, _running: running }
    }

    /// An image as machines name it.
    pub fn name(&self, image: &str) -> String {
        format!("{HOST}:{}/{image}", self.address.port())
    }

    /// A script that makes Docker trust it, as the image of an owner with a registry would.
    pub fn trust(&self) -> String {
        let directory = format!("/etc/docker/certs.d/{HOST}:{}", self.address.port());
        format!("#!/bin/sh\nmkdir -p {directory}\ncat >{directory}/ca.crt <<'PEM'\n{}PEM\n", self.certificate)
    }
}
