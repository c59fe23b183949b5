//! Envelope encryption of secrets at rest: AES-256-GCM (NIST SP 800-38D) with a fresh data key for every value,
//! wrapped by a key of the ring. The additional data names table, row, column and team, so a sealed value copied
//! to another place cannot be opened there.
//!
//! Layout: `1 | id length | key id | nonce (12) | wrapped data key (32 + 16) | nonce (12) | ciphertext + tag`.

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use stagely_domain::id::TeamId;
use stagely_domain::secret::Secret;
use uuid::Uuid;

use crate::{Result, StoreError};

const VERSION: u8 = 1;
const KEY_LEN: usize = 32;

/// Where a sealed value lives. It can be opened only for the same place.
#[derive(Debug, Clone, Copy)]
pub struct Place<'p> {
    /// The table.
    pub table: &'static str,
    /// The column.
    pub column: &'static str,
    /// The row.
    pub row: Uuid,
    /// The team; `None` for the platform's own.
    pub team: Option<TeamId>,
    /// A name or a version that must not be swapped either; may be empty.
    pub detail: &'p str,
}

/// Why a key ring could not be made. Names the variable, never its value.
#[derive(Debug, thiserror::Error)]
pub enum KeyRingError {
    /// Not 32 bytes in hexadecimal.
    #[error("{0} must be 32 bytes in hexadecimal (64 digits): make one with `openssl rand -hex 32`")]
    Malformed(&'static str),
    /// Neither one key nor several.
    #[error("ENCRYPTION_KEY is not set: give 32 bytes in hexadecimal (openssl rand -hex 32)")]
    Missing,
    /// The same id twice, or an id that cannot be stored.
    #[error("ENCRYPTION_KEYS must be `id:hex,…` with distinct ids of 1 to 32 letters and digits")]
    Ids,
}

/// The keys that wrap data keys. The first seals; all open.
pub struct KeyRing {
    keys: Vec<(String, LessSafeKey)>,
    derive: hmac::Key,
    random: SystemRandom,
}

impl KeyRing {
    /// The ring of the configuration: `ENCRYPTION_KEYS` where it is set, `ENCRYPTION_KEY` otherwise.
    ///
    /// # Errors
    /// When neither is set or one is malformed.
    pub fn configured(several: Option<&Secret>, single: Option<&Secret>) -> std::result::Result<Self, KeyRingError> {
        match (several, single) {
            (Some(keys), _) => Self::several(keys),
            (None, Some(key)) => Self::single(key),
            (None, None) => Err(KeyRingError::Missing),
        }
    }

    /// A ring of one key, `ENCRYPTION_KEY`, called `default`.
    ///
    /// # Errors
    /// [`KeyRingError::Malformed`].
    pub fn single(key: &Secret) -> std::result::Result<Self, KeyRingError> {
        Self::new(vec![("default".to_owned(), decode(key.reveal(), "ENCRYPTION_KEY")?)])
    }

    /// A ring of several, `ENCRYPTION_KEYS` = `id:hex,…`.
    ///
    /// # Errors
    /// [`KeyRingError`].
    pub fn several(keys: &Secret) -> std::result::Result<Self, KeyRingError> {
        let mut ring: Vec<(String, [u8; KEY_LEN])> = Vec::new();
        for entry in keys.reveal().split(',') {
            let (id, key) = entry.trim().split_once(':').ok_or(KeyRingError::Ids)?;
            let good = (1..=32).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
            if !good || ring.iter().any(|(known, _)| known == id) {
                return Err(KeyRingError::Ids);
            }
            ring.push((id.to_owned(), decode(key, "ENCRYPTION_KEYS")?));
        }
        Self::new(ring)
    }

    fn new(keys: Vec<(String, [u8; KEY_LEN])>) -> std::result::Result<Self, KeyRingError> {
        // What is derived must survive a rotation, so it hangs on the oldest key: the last of the list.
        let oldest = keys.last().map(|(_, key)| *key).ok_or(KeyRingError::Ids)?;
        let keys = keys
            .into_iter()
            .map(|(id, key)| Ok((id, aead(&key).map_err(|_| KeyRingError::Malformed("ENCRYPTION_KEY"))?)))
            .collect::<std::result::Result<_, KeyRingError>>()?;
        Ok(Self { keys, derive: hmac::Key::new(hmac::HMAC_SHA256, &oldest), random: SystemRandom::new() })
    }

    /// A secret of the installation for one purpose, the same every time (HMAC-SHA256 of purpose and context).
    #[must_use]
    pub fn derive(&self, purpose: &str, context: &[u8]) -> [u8; 32] {
        let mut signing = hmac::Context::with_key(&self.derive);
        signing.update(b"stagely.derive.v1\0");
        signing.update(purpose.as_bytes());
        signing.update(b"\0");
        signing.update(context);
        let mut key = [0; 32];
        key.copy_from_slice(signing.sign().as_ref());
        key
    }

    /// Seals `plain` for its place.
    ///
    /// # Errors
    /// [`StoreError::Sealed`] when the system has no randomness.
    pub fn seal(&self, place: &Place<'_>, plain: &[u8]) -> Result<Vec<u8>> {
        let error = || sealed(place);
        let (id, wrapping) = self.keys.first().ok_or_else(error)?;
        let mut data_key = [0; KEY_LEN];
        self.random.fill(&mut data_key).map_err(|_| error())?;
        let mut blob = vec![VERSION, u8::try_from(id.len()).map_err(|_| error())?];
        blob.extend_from_slice(id.as_bytes());
        let aad = additional_data(place);
        self.append(&mut blob, wrapping, &data_key, &aad).ok_or_else(error)?;
        let key = aead(&data_key).map_err(|_| error())?;
        self.append(&mut blob, &key, plain, &aad).ok_or_else(error)?;
        Ok(blob)
    }

    /// Opens what was sealed for this place.
    ///
    /// # Errors
    /// [`StoreError::Sealed`], the same for a wrong key, another place and a changed byte.
    pub fn open(&self, place: &Place<'_>, blob: &[u8]) -> Result<Vec<u8>> {
        self.try_open(place, blob).ok_or_else(|| sealed(place))
    }

    /// Opens a text.
    ///
    /// # Errors
    /// As [`KeyRing::open`].
    pub fn open_text(&self, place: &Place<'_>, blob: &[u8]) -> Result<Secret> {
        String::from_utf8(self.open(place, blob)?).map(Secret::new).map_err(|_| sealed(place))
    }

    fn try_open(&self, place: &Place<'_>, blob: &[u8]) -> Option<Vec<u8>> {
        let (id, rest) = key_id(blob)?;
        let (_, wrapping) = self.keys.iter().find(|(known, _)| known.as_bytes() == id)?;
        let wrapped_len = NONCE_LEN + KEY_LEN + AES_256_GCM.tag_len();
        if rest.len() < wrapped_len {
            return None;
        }
        let (wrapped, body) = rest.split_at(wrapped_len);
        let aad = additional_data(place);
        let data_key = decrypt(wrapping, wrapped, &aad)?;
        decrypt(&aead(&data_key.try_into().ok()?).ok()?, body, &aad)
    }

    fn append(&self, blob: &mut Vec<u8>, key: &LessSafeKey, plain: &[u8], aad: &[u8]) -> Option<()> {
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut sealed).ok()?;
        blob.extend_from_slice(&nonce);
        blob.append(&mut sealed);
        Some(())
    }
}

fn key_id(blob: &[u8]) -> Option<(&[u8], &[u8])> {
    let (header, rest) = blob.split_at_checked(2)?;
    if header[0] == VERSION { rest.split_at_checked(usize::from(header[1])) } else { None }
}

fn decrypt(key: &LessSafeKey, sealed: &[u8], aad: &[u8]) -> Option<Vec<u8>> {
    let (nonce, body) = sealed.split_at_checked(NONCE_LEN)?;
    let mut body = body.to_vec();
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let len = key.open_in_place(nonce, Aad::from(aad), &mut body).ok()?.len();
    body.truncate(len);
    Some(body)
}

/// Each part with its length, so that no two places have the same bytes.
fn additional_data(place: &Place<'_>) -> Vec<u8> {
    let team = place.team.map(|team| team.uuid().into_bytes().to_vec()).unwrap_or_default();
    let parts: [&[u8]; 5] =
        [place.table.as_bytes(), place.column.as_bytes(), place.row.as_bytes(), &team, place.detail.as_bytes()];
    let mut data = Vec::new();
    for part in parts {
        data.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        data.extend_from_slice(part);
    }
    data
}

fn aead(key: &[u8; KEY_LEN]) -> std::result::Result<LessSafeKey, ring::error::Unspecified> {
    UnboundKey::new(&AES_256_GCM, key).map(LessSafeKey::new)
}

fn decode(text: &str, variable: &'static str) -> std::result::Result<[u8; KEY_LEN], KeyRingError> {
    let bytes = hex::decode(text.trim()).map_err(|_| KeyRingError::Malformed(variable))?;
    bytes.try_into().map_err(|_| KeyRingError::Malformed(variable))
}

fn sealed(place: &Place<'_>) -> StoreError {
    StoreError::Sealed { table: place.table, column: place.column }
}

#[cfg(test)]
mod tests {
    use super::{KeyRing, Place};
    use stagely_domain::id::TeamId;
    use stagely_domain::secret::Secret;
    use uuid::Uuid;

    const A: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
    const B: &str = "ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";

    fn place() -> Place<'static> {
        Place {
            table: "secrets",
            column: "sealed",
            row: Uuid::nil(),
            team: Some(TeamId::from_uuid(Uuid::nil())),
            detail: "v1",
        }
    }

    #[test]
    fn a_value_opens_at_its_place_and_nowhere_else() {
        let ring = KeyRing::single(&Secret::new(A)).unwrap();
        let blob = ring.seal(&place(), b"hunter2").unwrap();
        assert_eq!(ring.open(&place(), &blob).unwrap(), b"hunter2");
        let elsewhere = [
            Place { table: "cloud_providers", ..place() },
            Place { column: "other", ..place() },
            Place { row: Uuid::max(), ..place() },
            Place { team: None, ..place() },
            Place { detail: "v2", ..place() },
        ];
        for other in &elsewhere {
            assert!(ring.open(other, &blob).is_err(), "{other:?}");
        }
    }

    #[test]
    fn every_changed_byte_is_refused_with_the_same_words() {
        let ring = KeyRing::single(&Secret::new(A)).unwrap();
        let blob = ring.seal(&place(), b"hunter2").unwrap();
        let told: std::collections::BTreeSet<String> = (0..blob.len())
            .map(|index| {
                let mut bad = blob.clone();
                bad[index] ^= 1;
                ring.open(&place(), &bad).unwrap_err().to_string()
            })
            .collect();
        assert_eq!(told.into_iter().collect::<Vec<_>>(), ["sealed value of secrets.sealed cannot be opened"]);
        assert!(ring.open(&place(), &blob[..20]).is_err() && ring.open(&place(), &[]).is_err());
    }

    #[test]
    fn a_ring_with_a_new_key_seals_with_it_and_reads_what_the_old_one_sealed() {
        let old = KeyRing::several(&Secret::new(format!("a:{A}"))).unwrap();
        let both = KeyRing::several(&Secret::new(format!("b:{B},a:{A}"))).unwrap();
        let new = KeyRing::several(&Secret::new(format!("b:{B}"))).unwrap();
        let blob = old.seal(&place(), b"x").unwrap();
        assert!(new.open(&place(), &blob).is_err());
        assert_eq!(both.open(&place(), &blob).unwrap(), b"x");
        let later = both.seal(&place(), b"y").unwrap();
        assert_eq!(new.open(&place(), &later).unwrap(), b"y");
        assert!(old.open(&place(), &later).is_err());
        assert_eq!(old.derive("p", b"c"), both.derive("p", b"c"), "derived secrets survive the rotation");
    }

    #[test]
    fn malformed_keys_are_refused_by_the_name_of_the_variable() {
        for bad in ["", "abc", &A[..62], "zz"] {
            let error = KeyRing::single(&Secret::new(bad)).err().unwrap().to_string();
            assert!(error.contains("ENCRYPTION_KEY") && (bad.is_empty() || !error.contains(bad)), "{error}");
        }
        for bad in [format!("a{A}"), format!("a:{A},a:{B}"), format!("!:{A}")] {
            assert!(KeyRing::several(&Secret::new(bad)).is_err());
        }
    }
}
