//! The installation's internal certificate authority. Its key lies sealed in Postgres and is made once, by
//! whoever comes first; every replica of the hub signs with it, and `stagelyd` gets the edge's client
//! certificate from it. Nothing outside the installation trusts it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PublicKeyData, SanType,
    SerialNumber,
};
use ring::rand::{SecureRandom, SystemRandom};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use stagely_domain::clock::Clock;
use stagely_domain::id::MachineId;
use stagely_domain::ingress;
use stagely_domain::secret::Secret;
use stagely_store::Store;
use stagely_store::certificates::CertificateKind;
use stagely_store::seal::KeyRing;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;

use crate::error::HubError;
use crate::keys;

/// What the authority calls itself, and the subject of its row.
const SUBJECT: &str = "Stagely internal CA";

/// How long the authority itself is valid.
const CA_LIFE: TimeDelta = TimeDelta::days(3650);

/// The longest life of a machine's ingress certificate.
const MACHINE_LIFE: TimeDelta = TimeDelta::days(30);

/// The life of certificates for our own services. The hub renews its own at each start and every month; those that are
/// files are renewed when they are due ([`Ca::is_due`]).
const SERVICE_LIFE: TimeDelta = TimeDelta::days(90);

/// Certificates are valid from before they were made, since a fresh machine's clock may be a day behind.
const BACKDATED: TimeDelta = TimeDelta::days(2);

/// The authority, ready to sign.
pub struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
    clock: Arc<dyn Clock>,
}

/// A certificate with its private key.
pub struct Issued {
    /// The certificate.
    pub certificate_pem: String,
    /// Its key, PKCS#8 in PEM.
    pub key_pem: Secret,
}

/// A certificate for a key that somebody else keeps.
pub struct Signed {
    /// The certificate in PEM.
    pub certificate_pem: String,
    /// The same in DER.
    pub certificate_der: Vec<u8>,
}

/// A machine's request: its signature was checked, and it is for a P-256 key.
pub struct MachineRequest {
    params: CertificateSigningRequestParams,
}

impl MachineRequest {
    /// Reads a PKCS#10 request. Only its key counts: names in it are ignored.
    ///
    /// # Errors
    /// [`HubError::Request`] when it is malformed, its signature is wrong or its key is not of P-256.
    pub fn parse(der: &[u8]) -> Result<Self, HubError> {
        let params = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der))
            .map_err(HubError::Request)?;
        let point = params.public_key.der_bytes();
        if params.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 || point.len() != 65 || point[0] != 4 {
            return Err(HubError::Request(rcgen::Error::UnsupportedSignatureAlgorithm));
        }
        Ok(Self { params })
    }

    /// The uncompressed point of the key (SEC 1), 65 bytes.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        self.params.public_key.der_bytes()
    }
}

impl Ca {
    /// Opens the authority, or makes it if there is none: of several at once, one makes it.
    ///
    /// # Errors
    /// The store's error; [`HubError::Certificate`] when the stored authority cannot be read.
    pub async fn load_or_create(store: &Store, keyring: &KeyRing, clock: Arc<dyn Clock>) -> Result<Self, HubError> {
        let now = clock.now();
        let kept = keys::load_or_create(store, keyring, CertificateKind::InternalCa, SUBJECT, || {
            let (key, pem) = make(now)?;
            Ok(keys::Fresh { secret: key.serialize_pem(), pem, not_after: now + CA_LIFE })
        })
        .await?;
        let key = KeyPair::from_pem(kept.secret.reveal()).map_err(HubError::Certificate)?;
        Self::open(kept.pem, key, clock)
    }

    /// An authority that is kept nowhere.
    ///
    /// # Errors
    /// [`HubError::Certificate`] when it cannot be made.
    pub fn ephemeral(clock: Arc<dyn Clock>) -> Result<Self, HubError> {
        let (key, pem) = make(clock.now())?;
        Self::open(pem, key, clock)
    }

    fn open(pem: String, key: KeyPair, clock: Arc<dyn Clock>) -> Result<Self, HubError> {
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(HubError::Certificate)?;
        Ok(Self { pem, issuer, clock })
    }

    /// The authority's own certificate.
    #[must_use]
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// A new key and a server certificate for `names`, which may be IP addresses.
    ///
    /// # Errors
    /// [`HubError::Certificate`] when a name cannot stand in a certificate.
    pub fn issue_server(&self, names: &[String]) -> Result<Issued, HubError> {
        let first = names.first().map_or("stagely.internal", String::as_str);
        self.issue(first, names, ExtendedKeyUsagePurpose::ServerAuth)
    }

    /// A new key and a client certificate for `name`, `edge.stagely.internal` say.
    ///
    /// # Errors
    /// [`HubError::Certificate`] when the name cannot stand in a certificate.
    pub fn issue_client(&self, name: &str) -> Result<Issued, HubError> {
        self.issue(name, &[name.to_owned()], ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Whether a service's certificate is to be issued anew: a third of its life is left, or it is not for `names`, or
    /// it is none.
    #[must_use]
    pub fn is_due(&self, certificate_pem: &str, names: &[String]) -> bool {
        let Some(not_after) = read(certificate_pem, |known| known.validity().not_after.timestamp()) else {
            return true;
        };
        let has_aged = not_after - self.clock.now().timestamp() <= SERVICE_LIFE.num_seconds() / 3;
        has_aged || self::names(certificate_pem) != names
    }

    /// The ingress certificate of a machine: for its own name and the names below it, whatever was asked.
    ///
    /// # Errors
    /// [`HubError::Certificate`] when it cannot be signed.
    pub fn issue_machine(&self, machine: MachineId, request: &MachineRequest) -> Result<Signed, HubError> {
        let name = ingress::machine_name(machine);
        let names = [name.clone(), format!("*.{name}")];
        // The common name has at most 64 characters; the machine's id alone says enough.
        let params = self.leaf(&machine.label(), &names, ExtendedKeyUsagePurpose::ServerAuth, MACHINE_LIFE)?;
        let certificate = params.signed_by(&request.params.public_key, &self.issuer).map_err(HubError::Certificate)?;
        Ok(Signed { certificate_pem: certificate.pem(), certificate_der: certificate.der().to_vec() })
    }

    fn issue(&self, subject: &str, names: &[String], usage: ExtendedKeyUsagePurpose) -> Result<Issued, HubError> {
        let key = KeyPair::generate().map_err(HubError::Certificate)?;
        let certificate = self
            .leaf(subject, names, usage, SERVICE_LIFE)?
            .signed_by(&key, &self.issuer)
            .map_err(HubError::Certificate)?;
        Ok(Issued { certificate_pem: certificate.pem(), key_pem: Secret::new(key.serialize_pem()) })
    }

    fn leaf(
        &self,
        subject: &str,
        names: &[String],
        usage: ExtendedKeyUsagePurpose,
        life: TimeDelta,
    ) -> Result<CertificateParams, HubError> {
        let now = self.clock.now();
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(subject);
        params.subject_alt_names = names.iter().map(|name| alt_name(name)).collect::<Result<_, _>>()?;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![usage];
        params.use_authority_key_identifier_extension = true;
        params.is_ca = IsCa::ExplicitNoCa;
        period(&mut params, now, life)?;
        Ok(params)
    }
}

/// The names and addresses that a certificate is for, in its order; none when it is no certificate.
#[must_use]
pub fn names(certificate_pem: &str) -> Vec<String> {
    let name = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(|bytes| Ipv4Addr::from(bytes).to_string());
            v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(|bytes| Ipv6Addr::from(bytes).to_string())).ok()
        }
        _ => None,
    };
    let names = read(certificate_pem, |known| {
        let alternatives = known.subject_alternative_name().ok().flatten();
        alternatives.map(|names| names.value.general_names.iter().filter_map(name).collect())
    });
    names.flatten().unwrap_or_default()
}

/// What `take` finds in a certificate, if it is one.
fn read<T>(certificate_pem: &str, take: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
    let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes()).ok()?;
    let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
    Some(take(&certificate))
}

/// A new authority's key and certificate.
fn make(now: DateTime<Utc>) -> Result<(KeyPair, String), HubError> {
    let key = KeyPair::generate().map_err(HubError::Certificate)?;
    let certificate = authority(now)?.self_signed(&key).map_err(HubError::Certificate)?;
    Ok((key, certificate.pem()))
}

fn authority(now: DateTime<Utc>) -> Result<CertificateParams, HubError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name(SUBJECT);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    period(&mut params, now, CA_LIFE)?;
    Ok(params)
}

fn common_name(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

fn alt_name(name: &str) -> Result<SanType, HubError> {
    Ok(match name.parse::<IpAddr>() {
        Ok(address) => SanType::IpAddress(address),
        Err(_) => SanType::DnsName(name.try_into().map_err(HubError::Certificate)?),
    })
}

/// Sets the validity, and a random serial number: by default rcgen derives it from the key, and a renewed
/// certificate for the same key would then bear the same number.
fn period(params: &mut CertificateParams, now: DateTime<Utc>, life: TimeDelta) -> Result<(), HubError> {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |when: DateTime<Utc>| epoch + Duration::from_secs(when.timestamp().unsigned_abs());
    params.not_before = at(now - BACKDATED);
    params.not_after = at(now + life);
    let mut serial = [0; 16];
    SystemRandom::new().fill(&mut serial).map_err(|_| HubError::Random)?;
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chrono::TimeDelta;
    use stagely_domain::clock::ManualClock;

    use super::{Ca, names};

    #[test]
    fn a_certificate_is_due_in_the_last_third_of_its_life_or_for_other_names() {
        let clock = ManualClock::at("2026-03-01T12:00:00Z".parse().unwrap());
        let ca = Ca::ephemeral(Arc::new(clock.clone())).unwrap();
        let wanted = ["registry.example.com", "10.0.2.2", "fd00::2"].map(str::to_owned);
        let pem = ca.issue_server(&wanted).unwrap().certificate_pem;
        assert_eq!(names(&pem), wanted);
        assert!(!ca.is_due(&pem, &wanted) && ca.is_due(&pem, &wanted[..2]) && ca.is_due("", &wanted));
        clock.advance(TimeDelta::days(59));
        assert!(!ca.is_due(&pem, &wanted));
        clock.advance(TimeDelta::days(1));
        assert!(ca.is_due(&pem, &wanted));
    }
}
