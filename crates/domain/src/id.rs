//! Typed identifiers.
//!
//! Every row has a UUIDv7 primary key. Outside the database an id is written as a
//! [TypeID](https://github.com/jetify-com/typeid/tree/main/spec) (v0.3): a prefix that names the
//! kind, an underscore, and the 128 bits in 26 characters of Crockford's base 32. The prefix makes
//! a pasted id say what it is, and the type makes passing the wrong one a compile error.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const SUFFIX_LEN: usize = 26;

/// Why a text is not an id of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is not a {kind} id (expected `{prefix}_` and 26 characters)")]
pub struct ParseIdError {
    given: String,
    kind: &'static str,
    prefix: &'static str,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident, $prefix:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// What stands before the underscore.
            pub const PREFIX: &'static str = $prefix;

            /// A new id; ids made later sort later (UUIDv7, RFC 9562 section 5.7).
            #[must_use]
            pub fn generate() -> Self {
                Self(Uuid::now_v7())
            }

            /// The id stored as `uuid`.
            #[must_use]
            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// The form in which the database keeps it.
            #[must_use]
            pub const fn uuid(self) -> Uuid {
                self.0
            }

            /// The id as an RFC 1123 label (a hyphen for the underscore), for host and resource names.
            #[must_use]
            pub fn label(self) -> String {
                format!("{}-{}", $prefix, encode(self.0))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}_{}", $prefix, encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                text.strip_prefix($prefix)
                    .and_then(|rest| rest.strip_prefix(['_', '-']))
                    .and_then(decode)
                    .map(Self)
                    .ok_or_else(|| ParseIdError {
                        given: text.chars().take(64).collect(),
                        kind: stringify!($name),
                        prefix: $prefix,
                    })
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $name {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "pattern": concat!("^", $prefix, "_[0-7][0-9a-hjkmnp-tv-z]{25}$"),
                })
            }
        }
    )*

    /// Every kind's prefix, for the test that keeps them distinct.
    #[cfg(test)]
    const PREFIXES: &[&str] = &[$($prefix),*];
    };
}

ids! {
    /// A bearer token of the REST API.
    ApiTokenId, "tok";
    /// One image to build for one platform.
    BuildJobId, "bld";
    /// A team's account at a cloud, or a metal host (`cloud_providers`).
    CloudAccountId, "acc";
    /// A webhook delivery in the inbox.
    DeliveryId, "dlv";
    /// A preview environment: one pull request's machine, routes and data.
    EnvironmentId, "env";
    /// A machine image with Docker, the agent and base images on it.
    ImageId, "img";
    /// This installation of Stagely; tags every resource at a cloud.
    InstallationId, "ins";
    /// A stream of log text.
    LogStreamId, "log";
    /// A virtual machine, builder or preview.
    MachineId, "mch";
    /// A repository that Stagely watches.
    ProjectId, "prj";
    /// One post (comment, check, deployment) kept up to date at the git host.
    PrPostId, "pst";
    /// One attempt to bring one commit live.
    RunId, "run";
    /// A stored secret.
    SecretId, "sec";
    /// A team.
    TeamId, "team";
    /// A person.
    UserId, "usr";
}

fn encode(uuid: Uuid) -> String {
    let bits = uuid.as_u128();
    (0..SUFFIX_LEN)
        .rev()
        .map(|position| {
            let index = usize::try_from((bits >> (position * 5)) & 31).unwrap_or(0);
            char::from(ALPHABET[index])
        })
        .collect()
}

fn decode(text: &str) -> Option<Uuid> {
    // 26 characters carry 130 bits: the first may be at most `7`.
    if text.len() != SUFFIX_LEN || text.as_bytes()[0] > b'7' {
        return None;
    }
    let mut bits: u128 = 0;
    for byte in text.bytes() {
        let digit = ALPHABET.iter().position(|&c| c == byte)?;
        bits = (bits << 5) | u128::try_from(digit).ok()?;
    }
    Some(Uuid::from_u128(bits))
}

#[cfg(test)]
mod tests {
    use super::{EnvironmentId, MachineId, PREFIXES};
    use uuid::Uuid;

    #[test]
    fn typeid_specification_vectors_hold() {
        // From the TypeID specification's valid.json, with our prefixes.
        let vectors = [
            ("00000000000000000000000000", "00000000-0000-0000-0000-000000000000"),
            ("00000000000000000000000001", "00000000-0000-0000-0000-000000000001"),
            ("7zzzzzzzzzzzzzzzzzzzzzzzzz", "ffffffff-ffff-ffff-ffff-ffffffffffff"),
            ("01h455vb4pex5vsknk084sn02q", "01890a5d-ac96-774b-bcce-b302099a8057"),
        ];
        for (text, uuid) in vectors {
            let id = EnvironmentId::from_uuid(uuid.parse::<Uuid>().unwrap());
            assert_eq!(id.to_string(), format!("env_{text}"));
            assert_eq!(format!("env_{text}").parse::<EnvironmentId>().unwrap(), id);
        }
    }

    #[test]
    fn a_wrong_kind_or_a_damaged_id_is_refused_with_a_reason() {
        let machine = MachineId::generate().to_string();
        for bad in [machine.as_str(), "env_", "env_8zzzzzzzzzzzzzzzzzzzzzzzzz", "env_01h455vb4pex5vsknk084sn02u"] {
            let error = bad.parse::<EnvironmentId>().unwrap_err().to_string();
            assert!(error.contains("EnvironmentId") && error.contains("env_"), "{error}");
        }
    }

    #[test]
    fn prefixes_are_distinct_and_sorted_ids_follow_creation() {
        let mut seen = PREFIXES.to_vec();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), PREFIXES.len());
        let (first, second) = (MachineId::generate(), MachineId::generate());
        assert!(first < second && first.to_string() < second.to_string());
        assert_eq!(first.label().parse::<MachineId>().unwrap(), first);
    }
}
