//! The certificates that a cell is shown: by an authority of its own, which is for a few hosts, for a day, and whose key is nowhere
//! but in this process.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::NoServerSessionStorage;

/// How long the authority is believed.
const DAY: Duration = Duration::from_secs(24 * 3600);
/// How long a certificate is.
const HOUR: Duration = Duration::from_secs(3600);
/// After what time another one is made.
const ANEW: Duration = Duration::from_secs(1800);
/// How far the clocks of programs may be behind.
const BEHIND: Duration = Duration::from_secs(300);

/// What is spoken inside.
pub(super) const PROTOCOL: &[u8] = b"http/1.1";

/// The authority of one cell.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    certificate: Vec<u8>,
    /// Guards the certificates there are, and since when.
    made: Mutex<HashMap<String, (Arc<ServerConfig>, Instant)>>,
}

impl Authority {
    /// One that is for these hosts and no others.
    pub(super) fn new<'h>(hosts: impl Iterator<Item = &'h str>) -> Result<Self, rcgen::Error> {
        let mut params = lasting(CertificateParams::default(), DAY);
        params.distinguished_name.push(DnType::CommonName, "Toolgate, for one cell");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.name_constraints = Some(NameConstraints {
            permitted_subtrees: hosts.map(|host| GeneralSubtree::DnsName(host.to_owned())).collect(),
            // What is not named in one kind of names is not constrained in it.
            excluded_subtrees: vec![
                GeneralSubtree::IpAddress(CidrSubnet::V4([0; 4], [0; 4])),
                GeneralSubtree::IpAddress(CidrSubnet::V6([0; 16], [0; 16])),
            ],
        });
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?.der().to_vec();
        Ok(Self { issuer: Issuer::new(params, key), certificate, made: Mutex::default() })
    }

    /// What a program is to believe, in PEM: what the host does, and this.
    pub(super) fn believed<'c>(&'c self, system: impl Iterator<Item = &'c [u8]>) -> String {
        system.chain([self.certificate.as_slice()]).map(pem).collect()
    }

    /// How TLS is spoken as this host.
    pub(super) fn speaks_as(&self, host: &str) -> Result<Arc<ServerConfig>, String> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((config, since)) = made.get(host)
            && since.elapsed() < ANEW
        {
            return Ok(Arc::clone(config));
        }
        let config = Arc::new(self.make(host).map_err(|error| error.to_string())?);
        made.insert(host.to_owned(), (Arc::clone(&config), Instant::now()));
        Ok(config)
    }

    fn make(&self, host: &str) -> Result<ServerConfig, Box<dyn std::error::Error>> {
        let mut params = lasting(CertificateParams::new([host.to_owned()])?, HOUR);
        params.distinguished_name.push(DnType::CommonName, host);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)?;
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        // Each connection shows its certificate anew.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

fn lasting(mut params: CertificateParams, time: Duration) -> CertificateParams {
    let now = SystemTime::now();
    params.not_before = (now - BEHIND).into();
    params.not_after = (now + time - BEHIND).into();
    params
}

fn pem(certificate: &[u8]) -> String {
    let text = STANDARD.encode(certificate);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection};

    use super::*;

    /// What comes of a client that believes this authority and connects to a host for which another one speaks.
    fn connects(
        believed: &Authority,
        speaks: &Authority,
        host: &str,
        protocols: &[&[u8]],
    ) -> Result<(), rustls::Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(believed.certificate.clone())).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let client = client.with_safe_default_protocol_versions().unwrap();
        let mut client = client.with_root_certificates(roots).with_no_client_auth();
        client.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let name = ServerName::try_from(host.to_owned()).unwrap();
        let mut client = ClientConnection::new(Arc::new(client), name).unwrap();
        let mut server = ServerConnection::new(speaks.speaks_as(host).unwrap()).unwrap();
        while client.is_handshaking() || server.is_handshaking() {
            let mut said = Vec::new();
            client.write_tls(&mut said).unwrap();
            server.read_tls(&mut said.as_slice()).unwrap();
            server.process_new_packets()?;
            let mut said = Vec::new();
            server.write_tls(&mut said).unwrap();
            client.read_tls(&mut said.as_slice()).unwrap();
            client.process_new_packets()?;
        }
        Ok(())
    }

    #[test]
    fn an_authority_is_for_its_hosts_only() {
        let ours = Authority::new(["api.example", "host.example"].into_iter()).unwrap();
        for host in ["api.example", "host.example"] {
            assert_eq!(connects(&ours, &ours, host, &[PROTOCOL]), Ok(()), "{host}");
            assert_eq!(connects(&ours, &ours, host, &[]), Ok(()), "{host}");
            assert!(connects(&ours, &ours, host, &[b"h2"]).is_err(), "{host}");
        }
        for host in
            ["example", "other.example", "api.example.evil.example", "xapi.example", "127.0.0.1", "::1"]
        {
            assert!(connects(&ours, &ours, host, &[]).is_err(), "{host}");
        }
        let other = Authority::new(["api.example"].into_iter()).unwrap();
        assert!(connects(&ours, &other, "api.example", &[]).is_err(), "another cell's");
    }

    #[test]
    fn a_certificate_is_made_once_in_a_while() {
        let authority = Authority::new(["api.example"].into_iter()).unwrap();
        let first = authority.speaks_as("api.example").unwrap();
        assert!(Arc::ptr_eq(&first, &authority.speaks_as("api.example").unwrap()));
    }
}
