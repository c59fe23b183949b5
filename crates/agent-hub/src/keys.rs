//! Private keys of the installation: made once, by whoever comes first, and kept sealed.

use chrono::{DateTime, Utc};
use stagely_domain::secret::Secret;
use stagely_store::certificates::{Certificate, CertificateKind};
use stagely_store::seal::{KeyRing, Place};
use stagely_store::{Store, StoreError};
use uuid::Uuid;

use crate::error::HubError;

/// A key that was just made.
pub struct Fresh {
    /// The private key, PKCS#8 in PEM.
    pub secret: String,
    /// Its certificate, or nothing.
    pub pem: String,
    /// When it ends.
    pub not_after: DateTime<Utc>,
}

/// A key that is kept.
pub struct Kept {
    /// The private key, PKCS#8 in PEM.
    pub secret: Secret,
    /// Its certificate, or nothing.
    pub pem: String,
}

/// The current key of this kind and subject, made by `make` if there is none.
///
/// # Errors
/// The store's or `make`'s.
pub async fn load_or_create(
    store: &Store,
    keyring: &KeyRing,
    kind: CertificateKind,
    subject: &'static str,
    make: impl FnOnce() -> Result<Fresh, HubError>,
) -> Result<Kept, HubError> {
    if let Some(row) = store.find_certificate(kind, subject).await? {
        return open(keyring, row);
    }
    let (fresh, id) = (make()?, Uuid::now_v7());
    let new = Certificate {
        id,
        subject: subject.to_owned(),
        pem: fresh.pem,
        key_sealed: keyring.seal(&place(id), fresh.secret.as_bytes())?,
        not_after: fresh.not_after,
    };
    let tx = store.begin().await?;
    tx.ensure_certificate(kind, &new).await?;
    tx.commit().await?;
    // Another replica may have been first: what is stored counts.
    let row = store.find_certificate(kind, subject).await?.ok_or(StoreError::NotFound("certificate"))?;
    open(keyring, row)
}

fn open(keyring: &KeyRing, row: Certificate) -> Result<Kept, HubError> {
    Ok(Kept { secret: keyring.open_text(&place(row.id), &row.key_sealed)?, pem: row.pem })
}

fn place(id: Uuid) -> Place<'static> {
    Place { table: "certificates", column: "key_sealed", row: id, team: None, detail: "" }
}
