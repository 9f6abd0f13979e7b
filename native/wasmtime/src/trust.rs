//! Whose certificates are trusted: the container's, by the variables and files that its programs go by, else built-in ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ConfigBuilder, RootCertStore, WantsVerifier};

/// Of Debian, Alpine and what SpinKube mounts; Red Hat; SUSE; Alpine, again.
const USUAL: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// ``SSL_CERT_FILE`` and ``SSL_CERT_DIR``, as OpenSSL has them.
pub struct Places {
    file: Option<PathBuf>,
    directories: Vec<PathBuf>,
}

fn builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has them")
}

impl Places {
    pub fn of(env: &[(String, String)]) -> Self {
        let value = |name: &str| env.iter().find(|(key, value)| key == name && !value.is_empty()).map(|(_, it)| it);
        Self {
            file: value("SSL_CERT_FILE").map(PathBuf::from),
            directories: value("SSL_CERT_DIR").map(|it| it.split(':').map(PathBuf::from).collect()).unwrap_or_default(),
        }
    }

    pub fn config(&self) -> ClientConfig {
        builder().with_root_certificates(self.roots()).with_no_client_auth()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        if self.file.is_some() || !self.directories.is_empty() {
            self.file.iter().for_each(|file| add(&mut roots, file));
            for directory in &self.directories {
                fs::read_dir(directory)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .for_each(|entry| add(&mut roots, &entry.path()));
            }
            return roots;
        }
        for file in USUAL {
            add(&mut roots, Path::new(file));
            if !roots.is_empty() {
                return roots;
            }
        }
        RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.into() }
    }
}

/// What an operator says for some hosts.
pub struct ClientTls {
    /// Certificates to trust, in PEM.
    pub roots: String,
    /// Whether the container's count, too; whether browsers' do.
    pub platform: bool,
    pub webpki: bool,
    /// A certificate to show, with its key, in PEM; empty: none.
    pub certificate: String,
    pub key: String,
}

impl ClientTls {
    pub fn config(&self, places: &Places) -> ClientConfig {
        let mut roots = if self.platform { places.roots() } else { RootCertStore::empty() };
        roots.add_parsable_certificates(CertificateDer::pem_slice_iter(self.roots.as_bytes()).flatten());
        if self.webpki {
            roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        }
        let builder = builder().with_root_certificates(roots);
        match self.shown() {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("it is checked"),
            None => builder.with_no_client_auth(),
        }
    }

    /// :raises: its certificate cannot be shown
    pub fn check(&self) -> Result<(), String> {
        if self.key.is_empty() {
            return Ok(());
        }
        let (chain, key) = self.shown().ok_or("its key is of no known kind")?;
        let builder = builder().with_root_certificates(RootCertStore::empty());
        builder.with_client_auth_cert(chain, key).map(drop).map_err(|error| error.to_string())
    }

    fn shown(&self) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).ok()?;
        Some((CertificateDer::pem_slice_iter(self.certificate.as_bytes()).flatten().collect(), key))
    }
}

/// What is no certificate is left out.
fn add(roots: &mut RootCertStore, file: &Path) {
    if let Ok(certificates) = CertificateDer::pem_file_iter(file) {
        roots.add_parsable_certificates(certificates.flatten());
    }
}
