//! Credentials of agents: signed tokens (JWT, ES256) that name one machine and the key that must come with
//! them (RFC 7800 `cnf`). Everything that a verifier could be talked out of is pinned (RFC 8725): algorithm,
//! type, issuer, audience, and that `exp` is there and a number.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rcgen::{KeyPair, PublicKeyData};
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use stagely_domain::id::MachineId;
use stagely_domain::secret::Secret;
use stagely_store::Store;
use stagely_store::certificates::CertificateKind;
use stagely_store::seal::KeyRing;

use crate::error::HubError;
use crate::keys;

/// The subject of the signing key's row.
const SUBJECT: &str = "agent-credential";
const ISSUER: &str = "stagely";
const AUDIENCE: &str = "agent-hub";
const TYPE: &str = "stagely-agent+jwt";

/// No credential is longer.
const MAX_LEN: usize = 2048;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    iss: String,
    aud: String,
    sub: String,
    iat: i64,
    exp: i64,
    cnf: Confirmation,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Confirmation {
    jkt: String,
}

/// What a good credential says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The one machine that it speaks for.
    pub machine: MachineId,
    /// Thumbprint of the key that must be proven.
    pub thumbprint: String,
    /// Whether its time is over: then it counts only for a machine that was just woken.
    pub ran_out: bool,
}

/// The credential is not valid; which of its faults it was is not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credential is not valid")]
pub struct Refused;

/// Signs and checks credentials.
pub struct Signer {
    encoding: EncodingKey,
    decoding: DecodingKey,
    ttl: TimeDelta,
}

impl Signer {
    /// Opens the signing key, or makes it if there is none, and proves that it works.
    ///
    /// # Errors
    /// The store's error; [`HubError::SelfTest`] when a fresh token is not accepted.
    pub async fn load_or_create(
        store: &Store,
        keyring: &KeyRing,
        now: DateTime<Utc>,
        ttl: TimeDelta,
    ) -> Result<Self, HubError> {
        let kept = keys::load_or_create(store, keyring, CertificateKind::TokenSigning, SUBJECT, || {
            let key = KeyPair::generate().map_err(HubError::Certificate)?;
            Ok(keys::Fresh { secret: key.serialize_pem(), pem: String::new(), not_after: now + TimeDelta::days(3650) })
        })
        .await?;
        Self::new(&kept.secret, now, ttl)
    }

    fn new(key_pem: &Secret, now: DateTime<Utc>, ttl: TimeDelta) -> Result<Self, HubError> {
        let key = KeyPair::from_pem(key_pem.reveal()).map_err(HubError::Certificate)?;
        let signer = Self {
            encoding: EncodingKey::from_ec_der(key.serialized_der()),
            decoding: DecodingKey::from_ec_der(key.der_bytes()),
            ttl,
        };
        // A library without its cryptography compiled in fails only here.
        let machine = MachineId::generate();
        let token = signer.issue(machine, key.der_bytes(), now)?;
        match signer.verify(token.reveal(), now) {
            Ok(said) if said.machine == machine => Ok(signer),
            _ => Err(HubError::SelfTest),
        }
    }

    /// A credential for the machine whose key is `public_key`.
    ///
    /// # Errors
    /// [`HubError::Sign`].
    pub fn issue(&self, machine: MachineId, public_key: &[u8], now: DateTime<Utc>) -> Result<Secret, HubError> {
        let header = Header { typ: Some(TYPE.to_owned()), ..Header::new(Algorithm::ES256) };
        let claims = Claims {
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            sub: machine.to_string(),
            iat: now.timestamp(),
            exp: (now + self.ttl).timestamp(),
            cnf: Confirmation { jkt: thumbprint(public_key) },
        };
        jsonwebtoken::encode(&header, &claims, &self.encoding).map(Secret::new).map_err(HubError::Sign)
    }

    /// What `token` says, if we signed it for agents, and whether it has run out.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn verify(&self, token: &str, now: DateTime<Utc>) -> Result<Credential, Refused> {
        if token.len() > MAX_LEN {
            return Err(Refused);
        }
        let mut rules = Validation::new(Algorithm::ES256);
        rules.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        rules.set_issuer(&[ISSUER]);
        rules.set_audience(&[AUDIENCE]);
        // Compared below with our clock; the claim's type is enforced by `Claims`.
        rules.validate_exp = false;
        let read = jsonwebtoken::decode::<Claims>(token, &self.decoding, &rules).map_err(|_| Refused)?;
        if read.header.typ.as_deref() != Some(TYPE) {
            return Err(Refused);
        }
        let machine = read.claims.sub.parse().map_err(|_| Refused)?;
        let ran_out = read.claims.exp <= now.timestamp();
        Ok(Credential { machine, thumbprint: read.claims.cnf.jkt, ran_out })
    }
}

/// The JWK thumbprint (RFC 7638) of an uncompressed P-256 point.
#[must_use]
pub fn thumbprint(public_key: &[u8]) -> String {
    let (x, y) = public_key.get(1..65).map_or((&[][..], &[][..]), |point| point.split_at(32));
    let jwk = format!(
        r#"{{"crv":"P-256","kty":"EC","x":"{}","y":"{}"}}"#,
        URL_SAFE_NO_PAD.encode(x),
        URL_SAFE_NO_PAD.encode(y)
    );
    URL_SAFE_NO_PAD.encode(digest(&SHA256, jwk.as_bytes()))
}

#[cfg(test)]
mod tests;
