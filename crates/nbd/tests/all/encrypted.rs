//! Encrypted connections over TCP: the clients in common use, and clients that must be refused. Certificates
//! are made by `openssl`; where it, or a client, is not installed its test is skipped by name.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spindle_nbd::{Address, Options, Tls, TlsError};
use spindle_reactor::{EngineKind, sleep};

use crate::support::{Served, have, ran, run};

const MIB: u64 = 1 << 20;
const ENGINES: [EngineKind; 2] = [EngineKind::IoUring, EngineKind::Epoll];

/// A folder with an authority, and a server's and a client's certificate that it signed.
struct Certificates(PathBuf);

impl Certificates {
    fn make(folder: &Path, name: &str) -> Certificates {
        let folder = folder.join(name);
        fs::create_dir(&folder).unwrap();
        let made = Certificates(folder);
        made.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 7 -subj /CN={name} \
             -keyout {0}/ca-key.pem -out {0}/ca-cert.pem",
            made.path(),
        ));
        ["server", "client"].iter().for_each(|side| made.sign(side));
        made
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn openssl(&self, arguments: &str) {
        run("openssl", &arguments.split_whitespace().collect::<Vec<_>>());
    }

    fn sign(&self, side: &str) {
        let folder = self.path();
        self.openssl(&format!(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN={side} \
             -keyout {folder}/{side}-key.pem -out {folder}/{side}.csr"
        ));
        let extensions = format!("subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage={side}Auth\n");
        fs::write(self.0.join(format!("{side}.ext")), extensions).unwrap();
        self.openssl(&format!(
            "x509 -req -days 7 -in {folder}/{side}.csr -CA {folder}/ca-cert.pem -CAkey {folder}/ca-key.pem \
             -CAcreateserial -extfile {folder}/{side}.ext -out {folder}/{side}-cert.pem"
        ));
    }

    /// Signs a side's certificate again without extensions; false if this openssl makes one of version 3 even so.
    fn sign_as_version_1(&self, side: &str) -> bool {
        let folder = self.path();
        self.openssl(&format!(
            "x509 -req -days 7 -in {folder}/{side}.csr -CA {folder}/ca-cert.pem -CAkey {folder}/ca-key.pem \
             -CAcreateserial -out {folder}/{side}-cert.pem"
        ));
        let path = format!("{folder}/{side}-cert.pem");
        let is_first = run("openssl", &["x509", "-noout", "-text", "-in", &path]).contains("Version: 1 ");
        if !is_first {
            eprintln!("SKIPPED: openssl makes no certificates of version 1");
        }
        is_first
    }

    /// Writes the list of revoked certificates, with the client's on it.
    fn revoke_client(&self) {
        let folder = self.path();
        fs::write(self.0.join("index.txt"), "").unwrap();
        fs::write(self.0.join("number"), "01\n").unwrap();
        let config = format!(
            "[ca]\ndefault_ca=it\n[it]\ndatabase={folder}/index.txt\ncrlnumber={folder}/number\n\
             default_md=sha256\ndefault_crl_days=7\n"
        );
        fs::write(self.0.join("ca.conf"), config).unwrap();
        let by =
            format!("ca -config {folder}/ca.conf -cert {folder}/ca-cert.pem -keyfile {folder}/ca-key.pem");
        self.openssl(&format!("{by} -revoke {folder}/client-cert.pem"));
        self.openssl(&format!("{by} -gencrl -out {folder}/ca-crl.pem"));
    }
}

/// A server that requires TLS at a TCP port.
struct Encrypted {
    served: Served,
    certificates: Certificates,
    port: u16,
}

impl Encrypted {
    /// `None` if a program is missing.
    fn start(kind: EngineKind, options: Options, prepare: impl FnOnce(&Certificates)) -> Option<Encrypted> {
        if !have("openssl") {
            return None;
        }
        let served = Served::start(kind, options);
        served.export_malloc("ram", 512, 64 * MIB);
        served.export_malloc("ram4k", 4096, 64 * MIB);
        let certificates = Certificates::make(served.folder.path(), "pki");
        prepare(&certificates);
        let (server, folder) = (served.server.clone(), certificates.0.clone());
        let address = served.run(async move || {
            let tls = Tls::from_folder(&folder).await.unwrap();
            server
                .listen_encrypted("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into(), tls)
                .await
                .unwrap()
        });
        let Address::Tcp(tcp) = address else { panic!("{address}") };
        Some(Encrypted { served, certificates, port: tcp.port() })
    }

    /// Whether a client was said to leave for this reason, once all have ended.
    fn says(&self, reason: &str) -> bool {
        let server = self.served.server.clone();
        self.served.run(async move || {
            while server.connections() > 0 {
                sleep(Duration::from_millis(1)).await;
            }
        });
        self.served.said.lines_with("has left without an export: ").iter().any(|line| line.contains(reason))
    }

    fn uri(&self, export: &str) -> String {
        self.uri_with(export, &self.certificates)
    }

    fn uri_with(&self, export: &str, certificates: &Certificates) -> String {
        format!("nbds://localhost:{}/{export}?tls-certificates={}", self.port, certificates.path())
    }

    /// A client without TLS, past the greeting.
    fn plain(&self) -> TcpStream {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut greeting = [0; 18];
        stream.read_exact(&mut greeting).unwrap();
        stream.write_all(&3u32.to_be_bytes()).unwrap();
        stream
    }
}

fn option(option: u32) -> Vec<u8> {
    [&b"IHAVEOPT"[..], &option.to_be_bytes(), &[0; 4]].concat()
}

#[test]
fn nbdinfo_and_nbdcopy_use_an_encrypted_export_with_several_connections() {
    if !have("nbdinfo") || !have("nbdcopy") {
        return;
    }
    for kind in ENGINES {
        let Some(encrypted) = Encrypted::start(kind, Options::default(), |_| ()) else { return };
        let told = run("nbdinfo", &[&encrypted.uri("ram4k")]);
        for line in ["newstyle-fixed with TLS", "export-size: 67108864", "can_multi_conn: true"] {
            assert!(told.contains(line), "{line} is missing:\n{told}");
        }
        let listed = run("nbdinfo", &["--list", &encrypted.uri("")]);
        assert!(listed.contains("export=\"ram\""), "{listed}");
        let (image, back) =
            (encrypted.served.folder.path().join("image"), encrypted.served.folder.path().join("back"));
        let content: Vec<u8> =
            (0..24 * MIB).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8).collect();
        fs::write(&image, &content).unwrap();
        for name in ["ram", "ram4k"] {
            run("nbdcopy", &["--connections=4", "--flush", image.to_str().unwrap(), &encrypted.uri(name)]);
            run("nbdcopy", &["--connections=4", &encrypted.uri(name), back.to_str().unwrap()]);
            assert!(fs::read(&back).unwrap().starts_with(&content), "{name}");
        }
        assert_eq!(encrypted.served.stop().failed_flushes, 0);
    }
}

#[test]
fn qemu_img_and_qemu_io_use_an_encrypted_export() {
    if !have("qemu-img") || !have("qemu-io") {
        return;
    }
    let Some(encrypted) = Encrypted::start(EngineKind::IoUring, Options::default(), |_| ()) else { return };
    let credentials = format!("tls-creds-x509,id=t,endpoint=client,dir={}", encrypted.certificates.path());
    let image = encrypted.served.folder.path().join("image");
    fs::write(&image, vec![0x5a; 64 * MIB as usize]).unwrap();
    let disk = format!("driver=nbd,host=localhost,port={},export=ram,tls-creds=t", encrypted.port);
    let (object, image) = (["--object", &credentials], image.to_str().unwrap());
    run(
        "qemu-img",
        &[&["convert"], &object[..], &["-n", "-f", "raw", image, "--target-image-opts", &disk]].concat(),
    );
    run(
        "qemu-img",
        &[
            &["compare"],
            &object[..],
            &["--image-opts", &disk, &format!("driver=raw,file.driver=file,file.filename={image}")],
        ]
        .concat(),
    );
    let pattern = ["-c", "write -P 7 1000 300001", "-c", "read -P 7 1000 300001", "-c", "flush"];
    run("qemu-io", &[&object[..], &["--image-opts", &disk], &pattern].concat());
}

#[test]
fn clients_without_tls_or_without_the_right_certificate_get_nothing() {
    if !have("nbdinfo") {
        return;
    }
    let Some(encrypted) = Encrypted::start(EngineKind::IoUring, Options::default(), |_| ()) else { return };
    let refused = |uri: &str| {
        let output = ran("nbdinfo", &[uri]);
        assert!(!output.status.success(), "{uri}: {}", String::from_utf8_lossy(&output.stdout));
    };
    refused(&format!("nbd://localhost:{}/ram", encrypted.port));
    // Signed by another authority, though it trusts the server's.
    let stranger = Certificates::make(encrypted.served.folder.path(), "stranger");
    fs::copy(encrypted.certificates.0.join("ca-cert.pem"), stranger.0.join("ca-cert.pem")).unwrap();
    refused(&encrypted.uri_with("ram", &stranger));
    // No certificate at all.
    fs::remove_file(stranger.0.join("client-cert.pem")).unwrap();
    fs::remove_file(stranger.0.join("client-key.pem")).unwrap();
    refused(&encrypted.uri_with("ram", &stranger));
    run("nbdinfo", &[&encrypted.uri("ram")]);
}

#[test]
fn why_a_client_of_an_encrypted_address_was_refused_is_said() {
    if !have("nbdinfo") {
        return;
    }
    let Some(encrypted) = Encrypted::start(EngineKind::IoUring, Options::default(), |_| ()) else { return };
    let refused = |uri: &str, reason: &str| {
        assert!(!encrypted.says(reason), "{reason}");
        assert!(!ran("nbdinfo", &[uri]).status.success(), "{uri}");
        assert!(encrypted.says(reason), "{reason}: {:?}", encrypted.served.said.lines_with("client"));
    };
    let plain = format!("nbd://localhost:{}/ram", encrypted.port);
    refused(&plain, "it did not begin TLS, without which nothing is served there");
    // Of the same name, since clients do not show a certificate of an authority that the server does not name.
    let elsewhere = encrypted.served.folder.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let stranger = Certificates::make(&elsewhere, "pki");
    fs::copy(encrypted.certificates.0.join("ca-cert.pem"), stranger.0.join("ca-cert.pem")).unwrap();
    refused(&encrypted.uri_with("ram", &stranger), "TLS did not begin: invalid peer certificate");
    fs::remove_file(stranger.0.join("client-cert.pem")).unwrap();
    fs::remove_file(stranger.0.join("client-key.pem")).unwrap();
    refused(&encrypted.uri_with("ram", &stranger), "TLS did not begin: peer sent no certificates");
    refused(&encrypted.uri("nope"), "it asked for export \"nope\", which is not there");
    if encrypted.certificates.sign_as_version_1("client") {
        refused(&encrypted.uri("ram"), "is of version 1 and must be of version 3");
    }
}

#[test]
fn a_client_whose_certificate_is_revoked_gets_nothing() {
    if !have("nbdinfo") {
        return;
    }
    let start = Encrypted::start(EngineKind::IoUring, Options::default(), Certificates::revoke_client);
    let Some(encrypted) = start else { return };
    assert!(!ran("nbdinfo", &[&encrypted.uri("ram")]).status.success());
    // The same authority's next client is not on the list.
    encrypted.certificates.sign("client");
    run("nbdinfo", &[&encrypted.uri("ram")]);
}

#[test]
fn a_peer_that_leaves_the_path_of_the_handshake_is_closed_and_costs_others_nothing() {
    for kind in ENGINES {
        let options = Options { handshake: Duration::from_millis(500), ..Options::default() };
        let Some(encrypted) = Encrypted::start(kind, options, |_| ()) else { return };
        let ends: [(&str, Vec<u8>); 5] = [
            ("silent after STARTTLS", option(5)),
            ("a plain option behind STARTTLS", [option(5), option(8)].concat()),
            ("EXPORT_NAME", option(1)),
            ("no TLS behind STARTTLS", [option(5)].concat()),
            ("half a record", [option(5)].concat()),
        ];
        for (what, bytes) in ends {
            let mut stream = encrypted.plain();
            stream.write_all(&bytes).unwrap();
            if matches!(what, "no TLS behind STARTTLS" | "half a record") {
                // On a busy machine the deadline may have passed already; and it may be closed before all is written.
                let _ = stream.read_exact(&mut [0; 20]);
                let record: &[u8] =
                    if what == "half a record" { b"\x16\x03\x01\x40\x00\x01\x00" } else { &[b'x'; 20_000] };
                let _ = stream.write_all(record);
            }
            let mut rest = Vec::new();
            // An end or a reset; not a time-out.
            if let Err(error) = stream.read_to_end(&mut rest) {
                assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{what}");
            }
        }
        // On a busy machine a handshake may take longer than the deadline.
        let served = |_| ran("nbdinfo", &[&encrypted.uri("ram")]).status.success();
        assert!(!have("nbdinfo") || (0..20).any(served));
        encrypted.served.stop();
        assert_eq!(encrypted.served.server.connections(), 0);
    }
}

#[test]
fn a_folder_of_certificates_that_cannot_be_used_is_refused_by_the_name_of_the_file() {
    if !have("openssl") {
        return;
    }
    let served = Served::start(EngineKind::IoUring, Options::default());
    let certificates = Certificates::make(served.folder.path(), "pki");
    let spoil = |name: &str, content: &[u8]| {
        let path = certificates.0.join(name);
        let before = fs::read(&path).ok();
        fs::write(&path, content).unwrap();
        let folder = certificates.0.clone();
        let error: TlsError = served.run(async move || Tls::from_folder(&folder).await.unwrap_err());
        assert!(error.to_string().contains(name), "{error}");
        match before {
            Some(before) => fs::write(&path, before).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
    };
    for name in ["server-cert.pem", "server-key.pem", "ca-cert.pem", "ca-crl.pem"] {
        spoil(name, b"");
        spoil(name, b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        spoil(name, &[b'x'; 2 << 20]);
    }
    spoil("server-cert.pem", &fs::read(certificates.0.join("client-cert.pem")).unwrap());
}

#[test]
fn a_server_certificate_of_version_1_is_refused_as_that_and_with_the_remedy() {
    if !have("openssl") {
        return;
    }
    let served = Served::start(EngineKind::IoUring, Options::default());
    let certificates = Certificates::make(served.folder.path(), "pki");
    if !certificates.sign_as_version_1("server") {
        return;
    }
    let folder = certificates.0.clone();
    let error = served.run(async move || Tls::from_folder(&folder).await.unwrap_err()).to_string();
    for words in ["server-cert.pem", "must be of version 3", "-extfile"] {
        assert!(error.contains(words), "{words}: {error}");
    }
    assert!(!error.contains("server-key.pem"), "the key is in order: {error}");
}
