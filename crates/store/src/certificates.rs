//! Keys and certificates of the installation. Private keys are sealed before they get here.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::{Result, Store, Tx};

/// What a certificate row is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateKind {
    /// Signs the certificates of machines, the hub and the edge.
    InternalCa,
    /// Signs tokens.
    TokenSigning,
    /// Shown to visitors.
    Public,
}

impl CertificateKind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::InternalCa => "internal_ca",
            Self::TokenSigning => "token_signing",
            Self::Public => "public",
        }
    }
}

/// A certificate and its sealed key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The row's id: part of what the key's seal is bound to.
    pub id: Uuid,
    /// Whose name it bears, or which tokens the key signs.
    pub subject: String,
    /// The certificate; for a signing key without one, empty.
    pub pem: String,
    /// The private key, sealed.
    pub key_sealed: Vec<u8>,
    /// When it ends.
    pub not_after: DateTime<Utc>,
}

impl Store {
    /// The current certificate of this kind and subject.
    ///
    /// # Errors
    /// The database's error.
    pub async fn find_certificate(&self, kind: CertificateKind, subject: &str) -> Result<Option<Certificate>> {
        let sql = "SELECT id, subject, cert_pem, key_sealed, not_after FROM certificates \
                   WHERE kind = $1 AND subject = $2 AND retired_at IS NULL";
        let found = self.row("read a certificate", sql, [kind.as_str().into(), subject.into()]).await?;
        let Some(row) = found else { return Ok(None) };
        Ok(Some(Certificate {
            id: row.get("id")?,
            subject: row.get("subject")?,
            pem: row.get("cert_pem")?,
            key_sealed: row.get("key_sealed")?,
            not_after: row.get("not_after")?,
        }))
    }
}

impl Tx {
    /// Stores a certificate unless there is a current one of its kind and subject: whoever comes first wins,
    /// and the caller reads back what is there. Returns whether it was stored.
    ///
    /// # Errors
    /// The database's error.
    pub async fn ensure_certificate(&self, kind: CertificateKind, new: &Certificate) -> Result<bool> {
        let sql = "INSERT INTO certificates (id, kind, subject, cert_pem, key_sealed, not_after) \
                   VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (kind, subject) WHERE retired_at IS NULL DO NOTHING";
        let values = [
            new.id.into(),
            kind.as_str().into(),
            new.subject.clone().into(),
            new.pem.clone().into(),
            new.key_sealed.clone().into(),
            new.not_after.into(),
        ];
        Ok(self.run("store a certificate", sql, values).await? == 1)
    }
}
