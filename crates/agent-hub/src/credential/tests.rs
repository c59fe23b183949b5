use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PublicKeyData};
use serde_json::{Value, json};
use stagely_domain::id::MachineId;
use stagely_domain::secret::Secret;

use super::{Refused, Signer, TYPE, thumbprint};

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000, 0).unwrap()
}

struct Bench {
    key: KeyPair,
    signer: Signer,
    machine: MachineId,
}

fn bench() -> Bench {
    let key = KeyPair::generate().unwrap();
    let signer = Signer::new(&Secret::new(key.serialize_pem()), now(), TimeDelta::hours(1)).unwrap();
    Bench { key, signer, machine: MachineId::generate() }
}

impl Bench {
    fn claims(&self) -> Value {
        json!({
            "iss": "stagely", "aud": "agent-hub", "sub": self.machine.to_string(), "iat": now().timestamp(),
            "exp": now().timestamp() + 60, "cnf": {"jkt": "t"},
        })
    }

    fn signed(&self, claims: &Value) -> String {
        let header = Header { typ: Some(TYPE.to_owned()), ..Header::new(Algorithm::ES256) };
        jsonwebtoken::encode(&header, claims, &EncodingKey::from_ec_der(self.key.serialized_der())).unwrap()
    }
}

#[test]
fn a_credential_names_its_machine_and_key_until_it_runs_out() {
    let bench = bench();
    let token = bench.signer.issue(bench.machine, bench.key.der_bytes(), now()).unwrap();
    let said = bench.signer.verify(token.reveal(), now() + TimeDelta::minutes(59)).unwrap();
    assert!(!said.ran_out);
    assert_eq!((said.machine, said.thumbprint), (bench.machine, thumbprint(bench.key.der_bytes())));
    assert!(bench.signer.verify(token.reveal(), now() + TimeDelta::hours(1)).unwrap().ran_out);
    assert!(bench.signer.verify(&bench.signed(&bench.claims()), now()).is_ok());
}

#[test]
fn unsigned_and_hmac_tokens_are_refused() {
    let bench = bench();
    let body = URL_SAFE_NO_PAD.encode(bench.claims().to_string());
    let none = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"none","typ":"{TYPE}"}}"#));
    assert_eq!(bench.signer.verify(&format!("{none}.{body}."), now()), Err(Refused));
    // The public key as an HMAC secret: the classic confusion.
    let header = Header { typ: Some(TYPE.to_owned()), ..Header::new(Algorithm::HS256) };
    for secret in [bench.key.der_bytes().to_vec(), bench.key.public_key_pem().into_bytes()] {
        let token = jsonwebtoken::encode(&header, &bench.claims(), &EncodingKey::from_secret(&secret)).unwrap();
        assert_eq!(bench.signer.verify(&token, now()), Err(Refused));
    }
}

#[test]
fn every_claim_is_needed_in_its_type_and_with_its_value() {
    let bench = bench();
    let changes = [
        ("aud", json!("registry")),
        ("aud", Value::Null),
        ("iss", json!("somebody")),
        ("iss", Value::Null),
        ("sub", json!("env_01h455vb4pex5vsknk084sn02q")),
        ("sub", Value::Null),
        ("exp", json!((now().timestamp() + 60).to_string())),
        ("exp", json!(1e300)),
        ("exp", Value::Null),
        ("cnf", Value::Null),
        ("cnf", json!({})),
    ];
    for (name, value) in changes {
        let mut claims = bench.claims();
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
        assert_eq!(bench.signer.verify(&bench.signed(&claims), now()), Err(Refused), "{name} = {value}");
    }
}

#[test]
fn another_type_another_key_and_changed_bytes_are_refused() {
    let bench = bench();
    let header = Header { typ: Some("JWT".to_owned()), ..Header::new(Algorithm::ES256) };
    let key = EncodingKey::from_ec_der(bench.key.serialized_der());
    let token = jsonwebtoken::encode(&header, &bench.claims(), &key).unwrap();
    assert_eq!(bench.signer.verify(&token, now()), Err(Refused));
    let other = super::tests::bench();
    assert_eq!(bench.signer.verify(&other.signed(&bench.claims()), now()), Err(Refused));
    let good = bench.signed(&bench.claims());
    for bad in ["", ".", "..", "a.b.c", &good[..good.len() - 4], &"x".repeat(10_000)] {
        assert_eq!(bench.signer.verify(bad, now()), Err(Refused));
    }
}

#[test]
fn thumbprints_are_those_of_rfc_7638() {
    // The P-256 key of RFC 7515, appendix A.3.1; the thumbprint was computed with another implementation.
    let x = URL_SAFE_NO_PAD.decode("f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU").unwrap();
    let y = URL_SAFE_NO_PAD.decode("x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0").unwrap();
    let point = [vec![4], x, y].concat();
    assert_eq!(thumbprint(&point), "oKIywvGUpTVTyxMQ3bwIIeQUudfr_CkLMjCE19ECD-U");
}
