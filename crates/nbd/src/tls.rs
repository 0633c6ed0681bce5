//! The certificates of a listener: what clients must show, and what the server shows them.
//!
//! Files as other NBD servers and clients have them, in one folder: `server-cert.pem` and `server-key.pem`;
//! `ca-cert.pem`, which must have signed the certificates of clients; `ca-crl.pem` with revoked ones, if it
//! is there. Read once, when the listener is made. TLS 1.2 and 1.3 by `rustls`, with its own choice of
//! algorithms. No keys agreed beforehand (PSK), which `rustls` does not have.

use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use spindle_engine::{Op, OpenOptions, Output};
use spindle_mem::{Buffers, IoBuf};
use spindle_reactor::op;

use crate::TlsError;

/// The server's certificate, and the intermediate ones up to one that clients trust.
const CERTIFICATE: &str = "server-cert.pem";
/// Its private key.
const KEY: &str = "server-key.pem";
/// The certificates that sign those of clients.
const AUTHORITY: &str = "ca-cert.pem";
/// Certificates that are no longer valid.
const REVOKED: &str = "ca-crl.pem";

/// The most bytes of one of the files.
const MOST: u64 = 1 << 20;

/// Certificates and rules of encrypted connections. A handle; clones share them.
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ServerConfig>,
    folder: Arc<Path>,
}

impl Tls {
    /// Reads the files of a folder, on a Spindle thread. Clients must show a certificate that `ca-cert.pem`
    /// signed. If the future is dropped nothing has happened.
    ///
    /// # Errors
    /// A file is missing, cannot be read, or is not what its name says.
    pub async fn from_folder(folder: &Path) -> Result<Tls, TlsError> {
        let certificate = read(folder, CERTIFICATE).await?;
        let key = read(folder, KEY).await?;
        let authority = read(folder, AUTHORITY).await?;
        let revoked = match read(folder, REVOKED).await {
            Err(TlsError::File { source, .. }) if source.kind() == ErrorKind::NotFound => None,
            other => Some(other?),
        };
        let config = configured(folder, &certificate, &key, &authority, revoked.as_deref())?;
        Ok(Tls { config: Arc::new(config), folder: folder.into() })
    }

    /// The folder from which it was read.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub(crate) fn config(&self) -> Arc<ServerConfig> {
        self.config.clone()
    }
}

async fn read(folder: &Path, name: &'static str) -> Result<Vec<u8>, TlsError> {
    let path = folder.join(name);
    read_file(&path).await.map_err(|source| TlsError::File { path, source })
}

/// All bytes of a small file.
async fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let (opened, _) = op(Op::Open { options: Box::new(OpenOptions::new(path)) }).await;
    let Output::File(file) = opened? else { return Err(ErrorKind::InvalidInput.into()) };
    let size = file.info().size;
    if size == 0 || size > MOST {
        return Err(io::Error::other("it is empty, or larger than 1 MiB"));
    }
    let buffers = Buffers::One(IoBuf::zeroed(size as usize));
    let (result, done) = op(Op::Read { file, offset: 0, buffers }).await;
    let bytes = result?.bytes();
    let mut data = done.into_buffers().to_vec();
    data.truncate(bytes);
    Ok(data)
}

fn configured(
    folder: &Path,
    certificate: &[u8],
    key: &[u8],
    authority: &[u8],
    revoked: Option<&[u8]>,
) -> Result<ServerConfig, TlsError> {
    let unfit = |name: &str, reason: String| TlsError::Content { path: folder.join(name), reason };
    let chain = certificates(certificate).map_err(|reason| unfit(CERTIFICATE, reason))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| unfit(KEY, error.to_string()))?;
    let mut roots = RootCertStore::empty();
    for root in certificates(authority).map_err(|reason| unfit(AUTHORITY, reason))? {
        roots.add(root).map_err(|error| unfit(AUTHORITY, error.to_string()))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
    if let Some(revoked) = revoked {
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(revoked).collect();
        let lists = lists.map_err(|error| unfit(REVOKED, error.to_string()))?;
        if lists.is_empty() {
            return Err(unfit(REVOKED, "it holds no list of revoked certificates".to_owned()));
        }
        // The list of one authority does not cover the certificates of another.
        verifier = verifier.with_crls(lists).allow_unknown_revocation_status();
    }
    let verifier = verifier.build().map_err(|error| unfit(AUTHORITY, error.to_string()))?;
    ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| unfit(CERTIFICATE, error.to_string()))?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(|error| unfit(CERTIFICATE, unusable(&error)))
}

/// Why a certificate and its key cannot be used.
fn unusable(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(_) => explained(error),
        _ => format!("it does not go with {KEY}: {error}"),
    }
}

/// An error of TLS, with the remedy where that is known.
pub(crate) fn explained(error: &rustls::Error) -> String {
    let text = error.to_string();
    // It has no variant of its own.
    if !text.contains("UnsupportedCertVersion") {
        return text;
    }
    "an X.509 certificate is of version 1 and must be of version 3: sign it with 'openssl x509 -req ... -extfile FILE', \
     with extensions such as subjectAltName in the file"
        .to_owned()
}

/// The certificates in a PEM text; at least one.
fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => Err("it holds no certificate".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(error.to_string()),
    }
}
