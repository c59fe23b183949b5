//! Passwords with which builders push and previews pull: short-lived, bound to one project, stored nowhere.
//!
//! A password is its own claims and an HMAC over them, so whoever holds the key can mint one and the registry
//! token endpoint can check it without a table. The key is derived from the service token, which every service of an
//! installation shares (without one, in development, from the encryption key).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use ring::hmac;
use serde::{Deserialize, Serialize};
use stagely_domain::id::ProjectId;
use stagely_domain::secret::Secret;

use crate::config::Common;

/// What every password starts with, so that scanners find a leaked one.
pub const PREFIX: &str = "stgr_";

/// The longest password worth looking at.
const MAX_LEN: usize = 1024;

/// Keeps this use of the shared secret apart from every other.
const PURPOSE: &[u8] = b"stagely registry credential v1";

/// What a password allows inside its project's part of the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Pull: a preview machine.
    Pull,
    /// Pull and push: a builder.
    Push,
    /// Pull, push and delete: the orchestrator, which removes what an environment leaves behind.
    Full,
}

/// What a password says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The project: the credential reaches `<project label>/…` and nothing else.
    pub project: ProjectId,
    /// Who holds it, for logs: a machine id, say.
    pub holder: String,
    /// What it allows.
    pub access: Access,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

#[derive(Serialize, Deserialize)]
struct Wire {
    p: ProjectId,
    h: String,
    a: Access,
    e: i64,
}

/// Why a password is refused. Callers show all of them alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not one of ours, or changed.
    #[error("the registry credential is not valid")]
    Invalid,
    /// It was valid once.
    #[error("the registry credential has expired")]
    Expired,
}

/// The installation's shared secret has not been set, so nothing can be minted or checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("registry credentials need STAGELY_SERVICE_TOKEN or ENCRYPTION_KEY to be set")]
pub struct NoKey;

/// Mints and checks passwords. It holds the derived key and shows it to nobody.
#[derive(Clone)]
pub struct Minter(hmac::Key);

impl Minter {
    /// Derives the key from the installation's shared secret.
    ///
    /// # Errors
    /// [`NoKey`] when neither the service token nor the encryption key is set.
    pub fn from_common(common: &Common) -> Result<Self, NoKey> {
        let secret = common.service_token.as_ref().or(common.encryption_key.as_ref()).ok_or(NoKey)?;
        Ok(Self::new(secret))
    }

    /// Derives the key from `secret`.
    #[must_use]
    pub fn new(secret: &Secret) -> Self {
        let root = hmac::Key::new(hmac::HMAC_SHA256, secret.reveal().as_bytes());
        Self(hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&root, PURPOSE).as_ref()))
    }

    /// The user name that goes with a password: it only helps people who read logs.
    #[must_use]
    pub fn username(claims: &Claims) -> String {
        claims.project.label()
    }

    /// The password that says `claims`.
    #[must_use]
    pub fn mint(&self, claims: &Claims) -> Secret {
        let wire =
            Wire { p: claims.project, h: claims.holder.clone(), a: claims.access, e: claims.expires_at.timestamp() };
        let json = serde_json::to_vec(&wire).expect("a struct of texts and numbers is JSON");
        let body = URL_SAFE_NO_PAD.encode(json);
        let tag = URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, body.as_bytes()));
        Secret::new(format!("{PREFIX}{body}.{tag}"))
    }

    /// What `password` says, if this installation minted it and it has not run out.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn verify(&self, password: &str, now: DateTime<Utc>) -> Result<Claims, Refused> {
        if password.len() > MAX_LEN {
            return Err(Refused::Invalid);
        }
        let (body, tag) =
            password.strip_prefix(PREFIX).and_then(|rest| rest.split_once('.')).ok_or(Refused::Invalid)?;
        let tag = URL_SAFE_NO_PAD.decode(tag).map_err(|_| Refused::Invalid)?;
        hmac::verify(&self.0, body.as_bytes(), &tag).map_err(|_| Refused::Invalid)?;
        let json = URL_SAFE_NO_PAD.decode(body).map_err(|_| Refused::Invalid)?;
        let wire: Wire = serde_json::from_slice(&json).map_err(|_| Refused::Invalid)?;
        let expires_at = DateTime::from_timestamp(wire.e, 0).ok_or(Refused::Invalid)?;
        if expires_at <= now {
            return Err(Refused::Expired);
        }
        Ok(Claims { project: wire.p, holder: wire.h, access: wire.a, expires_at })
    }
}

#[cfg(test)]
mod tests {
    use super::{Access, Claims, Minter, Refused};
    use chrono::{DateTime, TimeDelta};
    use stagely_domain::id::ProjectId;
    use stagely_domain::secret::Secret;

    fn claims() -> Claims {
        Claims {
            project: ProjectId::generate(),
            holder: "mch_1".to_owned(),
            access: Access::Push,
            expires_at: DateTime::from_timestamp(1_800_000_000, 0).unwrap(),
        }
    }

    #[test]
    fn a_password_says_its_claims_until_it_runs_out() {
        let (minter, claims) = (Minter::new(&Secret::new("shared")), claims());
        let password = minter.mint(&claims);
        let before = claims.expires_at - TimeDelta::seconds(1);
        assert_eq!(minter.verify(password.reveal(), before), Ok(claims.clone()));
        assert_eq!(minter.verify(password.reveal(), claims.expires_at), Err(Refused::Expired));
    }

    #[test]
    fn another_installation_or_any_changed_character_is_refused() {
        let (minter, claims) = (Minter::new(&Secret::new("shared")), claims());
        let now = claims.expires_at - TimeDelta::hours(1);
        let password = minter.mint(&claims).reveal().to_owned();
        assert_eq!(Minter::new(&Secret::new("other")).verify(&password, now), Err(Refused::Invalid));
        for at in 0..password.len() - 1 {
            let mut bytes = password.clone().into_bytes();
            bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(bytes).unwrap();
            assert_eq!(minter.verify(&changed, now), Err(Refused::Invalid), "character {at}");
        }
        for bad in ["", "stgr_", "stgr_.", "stgr_a.b", &"x".repeat(5000)] {
            assert_eq!(minter.verify(bad, now), Err(Refused::Invalid));
        }
    }
}
