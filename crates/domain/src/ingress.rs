//! How the edge names a port of a machine. Each upstream connection is for one exposed port, chosen by the
//! TLS server name (SNI, RFC 6066 section 3): `<label>.<machine>.machines.stagely.internal`. After the
//! handshake bytes are passed on as they are, so any protocol over TCP works.

use crate::id::MachineId;

/// The parent of every machine's name. It is never resolved by DNS.
pub const ZONE: &str = "machines.stagely.internal";

/// A DNS label (at most 63 characters of `a-z0-9-`) for `port` of the compose service `service`.
/// Deterministic; a checksum keeps services apart whose names look alike once simplified.
#[must_use]
pub fn label(service: &str, port: u16) -> String {
    let simple: String = service
        .chars()
        .take(40)
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect();
    let start = if simple.starts_with(|c: char| c.is_ascii_alphanumeric()) { "" } else { "s" };
    format!("{start}{simple}-{port}-{:08x}", fnv1a(service.as_bytes()))
}

/// The name in a machine's ingress certificate.
#[must_use]
pub fn machine_name(machine: MachineId) -> String {
    format!("{}.{ZONE}", machine.label())
}

/// The server name by which the edge asks for the exposure `label`.
#[must_use]
pub fn server_name(label: &str, machine: MachineId) -> String {
    format!("{label}.{}", machine_name(machine))
}

/// Splits a server name into its exposure and machine; `None` when it is not one of ours.
#[must_use]
pub fn parse_server_name(name: &str) -> Option<(&str, MachineId)> {
    let (label, rest) = name.strip_suffix(ZONE)?.strip_suffix('.')?.split_once('.')?;
    Some((label, rest.parse().ok()?))
}

/// FNV-1a, 32 bits: a checksum, not a defence.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::{label, parse_server_name, server_name};
    use crate::id::MachineId;

    #[test]
    fn labels_are_dns_labels_and_keep_look_alikes_apart() {
        for service in ["web", "Web_1", "_x", "my.service", &"a".repeat(200)] {
            let label = label(service, 65535);
            assert!(label.len() <= 63, "{label}");
            assert!(label.starts_with(|c: char| c.is_ascii_alphanumeric()), "{label}");
            assert!(label.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{label}");
        }
        assert_ne!(label("my_web", 80), label("my-web", 80));
    }

    #[test]
    fn a_server_name_says_which_port_of_which_machine() {
        let machine = MachineId::generate();
        let name = server_name(&label("web", 3000), machine);
        assert_eq!(parse_server_name(&name), Some((label("web", 3000).as_str(), machine)));
        assert_eq!(parse_server_name("example.com"), None);
    }
}
