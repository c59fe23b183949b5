//! The token itself: a JWT signed with ES256 whose header carries the certificate (`x5c`), since registry 2.8
//! knows keys by a chain to its `rootcertbundle`. Only signing is needed, so ring does it without a JWT crate.

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use ring::rand::SystemRandom;
use serde::Serialize;
use serde_json::json;

use super::scope::Grant;
use super::signing::{SigningError, SigningKey};

/// The claims of a registry token.
#[derive(Debug, Serialize)]
pub struct Claims<'a> {
    /// Who issued it.
    pub iss: &'a str,
    /// Who holds it.
    pub sub: &'a str,
    /// The registry.
    pub aud: &'a str,
    /// When it ends, in seconds since 1970.
    pub exp: i64,
    /// When it begins.
    pub nbf: i64,
    /// When it was issued.
    pub iat: i64,
    /// Its own id.
    pub jti: String,
    /// What it allows.
    pub access: &'a [Grant],
}

impl<'a> Claims<'a> {
    /// Claims that hold from `now` to `until`.
    #[must_use]
    pub fn new(
        iss: &'a str,
        sub: &'a str,
        aud: &'a str,
        now: DateTime<Utc>,
        until: DateTime<Utc>,
        access: &'a [Grant],
    ) -> Self {
        let (now, exp) = (now.timestamp(), until.timestamp());
        Self { iss, sub, aud, exp, nbf: now, iat: now, jti: uuid::Uuid::new_v4().to_string(), access }
    }
}

/// Signs `claims`.
///
/// # Errors
/// [`SigningError::Sign`] when there is no randomness.
pub fn sign(key: &SigningKey, claims: &Claims<'_>) -> Result<String, SigningError> {
    let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [STANDARD.encode(key.certificate_der())] });
    let claims = serde_json::to_vec(claims).expect("a struct of texts and numbers is JSON");
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims));
    let signature = key.pair().sign(&SystemRandom::new(), message.as_bytes()).map_err(|_| SigningError::Sign)?;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}
