//! Servers over TLS: whose certificates are believed, and about which name.

use std::path::Path;

use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig as TlsServer;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::http::{FakeHttp, modern};
use super::*;

fn pem(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/tls").join(name)).unwrap()
}

/// Puts TLS before a server; gives the port.
async fn tls_before(server: &FakeHttp, certificate: &str) -> u16 {
    let chain = CertificateDer::from_pem_slice(&pem(&format!("{certificate}.pem"))).unwrap();
    let key = PrivateKeyDer::from_pem_slice(&pem(&format!("{certificate}.key"))).unwrap();
    let config = TlsServer::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let behind = server.address();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut plain = TcpStream::connect(behind).await.unwrap();
                let _ended = tokio::io::copy_bidirectional(&mut stream, &mut plain).await;
            });
        }
    });
    port
}

#[tokio::test]
async fn a_server_over_tls_has_to_be_who_it_says_by_the_authority_that_was_named() {
    let result = r#"{"resultType":"complete","content":[]}"#;
    let params = r#"{"name":"srv__t","arguments":{}}"#;
    let ca = |name: &str| Some(pem(name));
    for (certificate, host, ca, served) in [
        ("localhost", "localhost", ca("ca.pem"), true),
        ("localhost", "127.0.0.1", ca("ca.pem"), true),
        // Another authority; the system's, which ours is not among; another name.
        ("localhost", "localhost", ca("other-ca.pem"), false),
        ("localhost", "localhost", None, false),
        ("elsewhere", "localhost", ca("ca.pem"), false),
    ] {
        let fake = FakeHttp::start(move |seen| modern(seen, &seen.result(result))).await;
        let url = format!("https://{host}:{}/mcp", tls_before(&fake, certificate).await);
        let headers = [("Authorization".to_owned(), "Bearer operators".to_owned())];
        let mut server = HttpServer::new(&url, &headers).unwrap();
        let what = format!("{certificate} as {host}, {}", ca.is_some());
        if let Some(ca) = &ca {
            server = server.trusting(ca).unwrap();
        }
        let config =
            ServerConfig { bounds: bounds(), ..ServerConfig::new(self::server(), Transport::Http(server)) };
        // A system that believes nobody is found out at once.
        let Ok(up) = Upstreams::new(vec![config], Arc::new(FakeClock::default()), Arc::new(Unobserved))
        else {
            assert!(ca.is_none(), "{what}");
            continue;
        };
        let got = run(&up, call("s", params), &FakeAgent::new(MODERN, &[]), false).await;
        if served {
            assert_eq!(got, format!("result {result}"), "{what}");
        } else {
            assert!(got.starts_with("not sent: ") && got.contains("no secure connection"), "{what}: {got}");
            assert!(fake.methods().is_empty(), "{what}: not a byte was sent, no credential among them");
        }
    }
}

#[test]
fn certificates_that_are_none_are_refused() {
    let server = || HttpServer::new("https://a.example/", &[]).unwrap();
    for bytes in [
        &b""[..],
        b"no certificate",
        &pem("localhost.key"),
        b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    ] {
        assert!(matches!(server().trusting(bytes), Err(HttpServerError::Certificates(_))), "{bytes:?}");
    }
    let plain = HttpServer::new("http://127.0.0.1:1/", &[]).unwrap();
    assert!(matches!(plain.trusting(&pem("ca.pem")), Err(HttpServerError::Certificates(_))));
}
