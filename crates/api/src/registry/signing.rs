//! The key that signs registry tokens, and its certificate, which the registry trusts.
//!
//! One ECDSA P-256 key per installation, kept sealed in `certificates`. The certificate is its own root: the
//! registry's `rootcertbundle` is that certificate and nothing else.

use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, TimeDelta, Utc};
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, KeyUsagePurpose};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use stagely_store::certificates::{Certificate, CertificateKind};
use stagely_store::seal::{KeyRing, Place};
use stagely_store::{Store, StoreError};
use uuid::Uuid;

/// Which key of the kind `token_signing` this is.
const SUBJECT: &str = "registry";

/// The registry reads its bundle at start only, so the certificate outlives any deployment of it.
const LIFETIME_DAYS: i64 = 3650;

/// Clocks of other machines may be behind.
const BACKDATE_HOURS: i64 = 24;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum SigningError {
    /// The database.
    #[error("keep the registry signing key")]
    Store(#[from] StoreError),
    /// The certificate could not be made.
    #[error("make the registry signing certificate")]
    Certificate(#[from] rcgen::Error),
    /// What is stored is not a key of ours.
    #[error("the stored registry signing key is not usable")]
    Unusable,
    /// No randomness to sign with.
    #[error("sign")]
    Sign,
}

/// The key, ready to sign.
pub struct SigningKey {
    pair: EcdsaKeyPair,
    certificate_pem: String,
    certificate_der: Vec<u8>,
}

impl SigningKey {
    /// The installation's key, made at the first call. Safe when several processes call it at once: the first
    /// row wins and all read it back.
    ///
    /// # Errors
    /// [`SigningError`].
    pub async fn ensure(store: &Store, keys: &KeyRing, now: DateTime<Utc>) -> Result<Self, SigningError> {
        if let Some(row) = store.find_certificate(CertificateKind::TokenSigning, SUBJECT).await? {
            return Self::open(&row, keys);
        }
        let new = generate(keys, now)?;
        let tx = store.begin().await?;
        tx.ensure_certificate(CertificateKind::TokenSigning, &new).await?;
        tx.commit().await?;
        let row = store.find_certificate(CertificateKind::TokenSigning, SUBJECT).await?;
        Self::open(&row.ok_or(StoreError::NotFound("registry signing key"))?, keys)
    }

    /// What the registry's `rootcertbundle` file must hold.
    #[must_use]
    pub fn root_bundle_pem(&self) -> &str {
        &self.certificate_pem
    }

    pub(super) fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    pub(super) const fn pair(&self) -> &EcdsaKeyPair {
        &self.pair
    }

    fn open(row: &Certificate, keys: &KeyRing) -> Result<Self, SigningError> {
        let pkcs8 = keys.open(&place(row.id), &row.key_sealed)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &SystemRandom::new())
            .map_err(|_| SigningError::Unusable)?;
        let certificate_der = der(&row.pem).ok_or(SigningError::Unusable)?;
        Ok(Self { pair, certificate_pem: row.pem.clone(), certificate_der })
    }
}

fn generate(keys: &KeyRing, now: DateTime<Utc>) -> Result<Certificate, SigningError> {
    let id = Uuid::now_v7();
    let not_after = now + TimeDelta::days(LIFETIME_DAYS);
    let pair = KeyPair::generate()?;
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, "Stagely registry tokens");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.not_before = SystemTime::from(now - TimeDelta::hours(BACKDATE_HOURS)).into();
    params.not_after = SystemTime::from(not_after).into();
    let certificate = params.self_signed(&pair)?;
    Ok(Certificate {
        id,
        subject: SUBJECT.to_owned(),
        pem: certificate.pem(),
        key_sealed: keys.seal(&place(id), pair.serialized_der())?,
        not_after,
    })
}

/// What the sealed key is bound to.
const fn place(row: Uuid) -> Place<'static> {
    Place { table: "certificates", column: "key_sealed", row, team: None, detail: SUBJECT }
}

/// The bytes inside a PEM block.
fn der(pem: &str) -> Option<Vec<u8>> {
    let body: String = pem.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    STANDARD.decode(body).ok().filter(|der| !der.is_empty())
}
