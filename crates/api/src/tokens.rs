//! API tokens: 256 random bits, shown once, stored as a hash.

use chrono::{DateTime, Utc};
use ring::digest::{SHA256, digest};
use ring::rand::{SecureRandom, SystemRandom};
use stagely_domain::id::{ApiTokenId, TeamId};
use stagely_domain::role::Role;
use stagely_domain::secret::Secret;
use stagely_store::{AuditEntry, NewApiToken, Store, StoreError};

/// What every token starts with, so that scanners find a leaked one.
pub const PREFIX: &str = "stg_";

const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// 62^43 is the first power above 2^256.
const BODY_LEN: usize = 43;

/// What a new token is for.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The team it acts for.
    pub team: TeamId,
    /// What its owner calls it.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// When it ends; `None` for never.
    pub expires_at: Option<DateTime<Utc>>,
}

/// Why no token was made.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The system gave no random bytes.
    #[error("read random bytes")]
    Random,
    /// It could not be stored.
    #[error("store the token")]
    Store(#[from] StoreError),
}

/// Makes a token, stores its hash and an audit line, and returns the text, which exists nowhere else.
///
/// # Errors
/// [`MintError`].
pub async fn mint(store: &Store, new: NewToken) -> Result<(ApiTokenId, Secret), MintError> {
    let token = generate()?;
    let id = ApiTokenId::generate();
    let tx = store.begin().await?;
    tx.insert_api_token(&NewApiToken {
        id,
        team: new.team,
        name: new.name.clone(),
        hash: hash(token.reveal()),
        role: new.role,
        expires_at: new.expires_at,
    })
    .await?;
    tx.audit(AuditEntry {
        team: Some(new.team),
        actor_kind: "system",
        actor: "admin command".to_owned(),
        action: "api_token.create",
        target_kind: "api_token",
        target: id.to_string(),
        detail: serde_json::json!({ "name": new.name, "role": new.role }),
    })
    .await?;
    tx.commit().await?;
    Ok((id, token))
}

/// The form in which a token is looked up.
#[must_use]
pub fn hash(token: &str) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    out
}

/// Whether a text can be a token at all; saves the database a look.
#[must_use]
pub fn looks_right(token: &str) -> bool {
    token
        .strip_prefix(PREFIX)
        .is_some_and(|body| body.len() == BODY_LEN && body.bytes().all(|byte| byte.is_ascii_alphanumeric()))
}

fn generate() -> Result<Secret, MintError> {
    let mut bytes = [0_u8; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| MintError::Random)?;
    Ok(Secret::new(format!("{PREFIX}{}", base62(bytes))))
}

/// The 256 bits as a number in base 62, always in the same length.
fn base62(mut bytes: [u8; 32]) -> String {
    let mut digits = [0_u8; BODY_LEN];
    for digit in digits.iter_mut().rev() {
        let mut rest = 0_u32;
        for byte in &mut bytes {
            let value = (rest << 8) | u32::from(*byte);
            *byte = u8::try_from(value / 62).expect("the quotient of a number below 62 * 256 and 62 is below 256");
            rest = value % 62;
        }
        *digit = ALPHABET[usize::try_from(rest).expect("a number below 62 is a usize")];
    }
    digits.iter().map(|&digit| char::from(digit)).collect()
}

#[cfg(test)]
mod tests {
    use super::{base62, generate, looks_right};

    #[test]
    fn tokens_have_one_length_and_no_two_are_alike() {
        assert_eq!(base62([0; 32]), "0".repeat(43));
        assert_eq!(base62([255; 32]).len(), 43);
        let mut one = [0; 32];
        one[31] = 62;
        assert!(base62(one).ends_with("010"));
        let (a, b) = (generate().unwrap(), generate().unwrap());
        assert!(looks_right(a.reveal()) && a != b);
        assert!(!looks_right("stg_short") && !looks_right("ghp_") && !looks_right(""));
    }
}
