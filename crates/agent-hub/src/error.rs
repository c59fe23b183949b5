//! What can go wrong in the hub.

use stagely_store::StoreError;

/// A failure of the hub.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// The database.
    #[error("use the database")]
    Store(#[from] StoreError),
    /// A certificate or key could not be read or made.
    #[error("read or make a certificate")]
    Certificate(#[source] rcgen::Error),
    /// A machine's certificate request is not acceptable.
    #[error("the certificate request is not acceptable")]
    Request(#[source] rcgen::Error),
    /// A credential could not be signed.
    #[error("sign a credential")]
    Sign(#[source] jsonwebtoken::errors::Error),
    /// Freshly signed credentials are not accepted: the build lacks its cryptography.
    #[error("credentials that were just signed are not accepted")]
    SelfTest,
    /// The system has no random numbers.
    #[error("get random numbers")]
    Random,
    /// A stored wish is not what the hub stores.
    #[error("a stored wish cannot be decoded")]
    Wish(#[source] prost::DecodeError),
}
